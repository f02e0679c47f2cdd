"""Rules for the ways objects select others: labels, nodes and topologies.

A label selector stands in claims, a node selector in volumes and pods, a
topology selector in storage classes. All three are lists of requirements with an
operator, so the checks of keys and value counts are shared here.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from holdfast.api import fields
from holdfast.api.fields import Cause
from holdfast.api.validation import metadata, names
from holdfast.api.validation.rules import Object, each

_NEEDS_VALUES = "must be specified when `operator` is 'In' or 'NotIn'"
_TAKES_NO_VALUES = "may not be specified when `operator` is 'Exists' or 'DoesNotExist'"
_NEEDS_ONE_NUMBER = "must be specified single value when `operator` is 'Lt' or 'Gt'"
_NEEDS_ONE_NODE = (
    "must be only one value when `operator` is 'In' or 'NotIn' for node field selector"
)
_BAD_OPERATOR = "not a valid selector operator"
_SETS = ("In", "NotIn")
_PRESENCE = ("Exists", "DoesNotExist")
_ORDER = ("Gt", "Lt")


def label_selector(selector: Object, path: str) -> list[Cause]:
    """Check `matchLabels` and `matchExpressions`."""
    said = metadata.labels(selector.get("matchLabels", {}), f"{path}.matchLabels")
    for index, requirement in enumerate(selector.get("matchExpressions", ())):
        at = f"{path}.matchExpressions[{index}]"
        said += _operator(requirement, at, orders=False)
        key = requirement.get("key", "")
        said += each(f"{at}.key", key, names.qualified(key))
        for place, value in enumerate(requirement.get("values", ())):
            said += each(f"{at}.values[{place}]", value, names.label_value(value))
    return said


def node_selector(selector: Object, path: str) -> list[Cause]:
    """Check `nodeSelectorTerms`, of which there must be at least one."""
    terms: Sequence[Object] = selector.get("nodeSelectorTerms") or ()
    if not terms:
        rule = "must have at least one node selector term"
        return [fields.required(f"{path}.nodeSelectorTerms", rule)]
    said: list[Cause] = []
    for index, term in enumerate(terms):
        said += node_selector_term(term, f"{path}.nodeSelectorTerms[{index}]")
    return said


def node_selector_term(term: Object, path: str) -> list[Cause]:
    """Check one term: requirements on labels and on the node's name."""
    said: list[Cause] = []
    for index, requirement in enumerate(term.get("matchExpressions", ())):
        at = f"{path}.matchExpressions[{index}]"
        said += _operator(requirement, at, orders=True)
        key = requirement.get("key", "")
        said += each(f"{at}.key", key, names.qualified(key))
    for index, requirement in enumerate(term.get("matchFields", ())):
        said += _node_field(requirement, f"{path}.matchFields[{index}]")
    return said


OLD_LABELS: Final = {
    "beta.kubernetes.io/arch": 'deprecated since v1.14; use "kubernetes.io/arch" instead',
    "beta.kubernetes.io/instance-type": (
        'deprecated since v1.17; use "node.kubernetes.io/instance-type" instead'
    ),
    "beta.kubernetes.io/os": 'deprecated since v1.14; use "kubernetes.io/os" instead',
    "failure-domain.beta.kubernetes.io/region": (
        'deprecated since v1.17; use "topology.kubernetes.io/region" instead'
    ),
    "failure-domain.beta.kubernetes.io/zone": (
        'deprecated since v1.17; use "topology.kubernetes.io/zone" instead'
    ),
}


def old_labels(selector: Object, path: str) -> list[str]:
    """Warn of labels in a node selector that nodes of newer clusters no longer have."""
    return [
        f"{path}.nodeSelectorTerms[{n}].matchExpressions[{i}].key: "
        f"{item['key']} is {OLD_LABELS[item['key']]}"
        for n, term in enumerate(selector.get("nodeSelectorTerms", ()))
        for i, item in enumerate(term.get("matchExpressions", ()))
        if item.get("key") in OLD_LABELS
    ]


def topologies(terms: Sequence[Object], path: str) -> list[Cause]:
    """Check the `allowedTopologies` of a storage class."""
    said: list[Cause] = []
    seen: list[dict[str, frozenset[str]]] = []
    for index, term in enumerate(terms):
        at = f"{path}[{index}]"
        allowed: dict[str, frozenset[str]] = {}
        for place, requirement in enumerate(term.get("matchLabelExpressions", ())):
            said += _topology(requirement, f"{at}.matchLabelExpressions[{place}]", allowed)
        # A term that allows nothing is said to be there twice.
        if not allowed or allowed in seen:
            said.append(fields.duplicate(f"{at}.matchLabelExpressions", ""))
        seen.append(allowed)
    return said


def _topology(requirement: Object, at: str, allowed: dict[str, frozenset[str]]) -> list[Cause]:
    said: list[Cause] = []
    key: str = requirement.get("key", "")
    values: list[str] = requirement.get("values", [])
    if not values:
        said.append(fields.required(f"{at}.values"))
    for place, value in enumerate(values):
        if value in values[:place]:
            said.append(fields.duplicate(f"{at}.values[{place}]", value))
    said += each(f"{at}.key", key, names.qualified(key))
    if key in allowed:
        said.append(fields.duplicate(f"{at}.key", key))
    allowed[key] = frozenset(values)
    return said


def _operator(requirement: Object, at: str, *, orders: bool) -> list[Cause]:
    operator = requirement.get("operator", "")
    count = len(requirement.get("values", ()))
    if operator in _SETS:
        return [] if count else [fields.required(f"{at}.values", _NEEDS_VALUES)]
    if operator in _PRESENCE:
        return [fields.forbidden(f"{at}.values", _TAKES_NO_VALUES)] if count else []
    if orders and operator in _ORDER:
        return [] if count == 1 else [fields.required(f"{at}.values", _NEEDS_ONE_NUMBER)]
    return [fields.invalid(f"{at}.operator", operator, _BAD_OPERATOR)]


def _node_field(requirement: Object, at: str) -> list[Cause]:
    said: list[Cause] = []
    key, operator = requirement.get("key", ""), requirement.get("operator", "")
    values: list[Any] = requirement.get("values", [])
    if operator not in _SETS:
        said.append(fields.invalid(f"{at}.operator", operator, _BAD_OPERATOR))
    elif len(values) != 1:
        said.append(fields.required(f"{at}.values", _NEEDS_ONE_NODE))
    if key != "metadata.name":
        said.append(fields.invalid(f"{at}.key", key, "not a valid field selector key"))
        return said
    for place, value in enumerate(values):
        said += each(f"{at}.values[{place}]", value, names.subdomain(value))
    return said
