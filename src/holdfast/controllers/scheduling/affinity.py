"""Node selectors: the language of node affinity for pods and for volumes.

A selector is a list of terms joined by OR; a term is a list of expressions on
labels (``matchExpressions``) and on fields (``matchFields``, where only
``metadata.name`` exists) joined by AND. A term without any expression matches no
node, and so does a selector without terms; the absence of a selector matches all.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from holdfast.api import views

Terms = Iterable[Mapping[str, Any]]


def matches(selector: Mapping[str, Any] | None, labels: Mapping[str, str], name: str) -> bool:
    """Whether a NodeSelector ({"nodeSelectorTerms": [...]}) admits a node."""
    if selector is None:
        return True
    terms: Terms = selector.get("nodeSelectorTerms") or ()
    return any(term_matches(term, labels, name) for term in terms)


def term_matches(term: Mapping[str, Any], labels: Mapping[str, str], name: str) -> bool:
    """Whether one NodeSelectorTerm admits a node."""
    expressions = term.get("matchExpressions") or ()
    fields = term.get("matchFields") or ()
    if not expressions and not fields:
        return False
    names = {"metadata.name": name}
    return all(_holds(e, labels) for e in expressions) and all(_holds(f, names) for f in fields)


def pod_admits(pod: views.Pod, node: views.Node) -> bool:
    """Whether the pod's nodeSelector and required node affinity admit the node."""
    labels = node.metadata.labels
    if any(labels.get(key) != value for key, value in pod.spec.node_selector.items()):
        return False
    affinity = (pod.spec.affinity or {}).get("nodeAffinity") or {}
    required = affinity.get("requiredDuringSchedulingIgnoredDuringExecution")
    return matches(required, labels, node.metadata.name)


def pod_preference(pod: views.Pod, node: views.Node) -> int:
    """Add up the weights of the pod's preferred node affinity terms that the node meets."""
    affinity = (pod.spec.affinity or {}).get("nodeAffinity") or {}
    preferred = affinity.get("preferredDuringSchedulingIgnoredDuringExecution") or ()
    labels, name = node.metadata.labels, node.metadata.name
    return sum(
        int(term.get("weight", 0))
        for term in preferred
        if term_matches(term.get("preference") or {}, labels, name)
    )


def volume_admits(volume: views.Volume, node: views.Node) -> bool:
    """Whether the volume can be reached from the node."""
    affinity = volume.spec.node_affinity
    if affinity is None:
        return True
    return matches(affinity.required, node.metadata.labels, node.metadata.name)


def topology_admits(terms: Terms, labels: Mapping[str, str]) -> bool:
    """Whether a class's allowedTopologies (terms joined by OR; none = anywhere) admit a node."""
    chosen = list(terms)
    return not chosen or any(_topology_term_matches(term, labels) for term in chosen)


def topology_text(terms: Terms, seen: Iterable[Mapping[str, str]]) -> str:
    """Say what a class's allowedTopologies ask for, and what the nodes' labels offer instead."""
    expressions = [each for term in terms for each in term.get("matchLabelExpressions") or ()]
    wanted = " or ".join(
        " and ".join(
            f"{each['key']} in ({', '.join(each.get('values') or ())})"
            for each in term.get("matchLabelExpressions") or ()
        )
        for term in terms
    )
    labels = list(seen)
    offers = []
    for key in dict.fromkeys(each["key"] for each in expressions):
        values = sorted({found[key] for found in labels if key in found})
        offers.append(f"{key}: {', '.join(values)}" if values else f"{key}: on no node")
    return f"{wanted}; the nodes have {'; '.join(offers)}"


def _topology_term_matches(term: Mapping[str, Any], labels: Mapping[str, str]) -> bool:
    expressions = term.get("matchLabelExpressions") or ()
    return bool(expressions) and all(
        labels.get(expression["key"]) in expression.get("values", ()) for expression in expressions
    )


def _holds(expression: Mapping[str, Any], values: Mapping[str, str]) -> bool:
    """Evaluate one expression; an operator nobody knows admits nothing."""
    actual = values.get(expression.get("key", ""))
    wanted = expression.get("values") or ()
    match expression.get("operator"):
        case "In":
            return actual is not None and actual in wanted
        case "NotIn":
            return actual is None or actual not in wanted
        case "Exists":
            return actual is not None
        case "DoesNotExist":
            return actual is None
        case "Gt":
            return _compares(actual, wanted, greater=True)
        case "Lt":
            return _compares(actual, wanted, greater=False)
        case _:
            return False


def _compares(actual: str | None, wanted: Iterable[str], *, greater: bool) -> bool:
    bounds = list(wanted)
    if actual is None or len(bounds) != 1:
        return False
    try:
        left, right = int(actual), int(bounds[0])
    except ValueError:
        return False
    return left > right if greater else left < right
