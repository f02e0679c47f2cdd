"""Rules for the pod template of a workload and for the selector that has to fit it.

Deployments, replica sets and stateful sets find their pods by labels, so a selector must exist,
select something, and select what the template makes. The pod inside the template obeys the rules
of pods; its complaints are moved below the template's path.

Values are shown as Go prints its structures, because these very messages are what people search
for.
"""

from __future__ import annotations

import dataclasses
from typing import Final

from holdfast.api import fields, selectors
from holdfast.api.fields import Cause
from holdfast.api.validation import metadata, selecting
from holdfast.api.validation.pods import PodRules
from holdfast.api.validation.rules import EMPTY, Object

_TEMPLATE: Final = "spec.template"
_POD: Final = PodRules()


def selector(spec: Object, kind: str) -> list[Cause]:
    """Check that `spec.selector` is there, is sound and selects something."""
    given = spec.get("selector")
    if given is None:
        return [fields.required("spec.selector")]
    said = selecting.label_selector(given, "spec.selector")
    if not given.get("matchLabels") and not given.get("matchExpressions"):
        rule = f"empty selector is invalid for {kind}"
        said.append(_invalid("spec.selector", printed_selector(given), rule))
    return said


def template(spec: Object, kind: str, *, whole: bool) -> list[Cause]:
    """Check the template; `whole` includes the pod's own rules."""
    given = spec.get("template") or EMPTY
    said = _labels(spec, given)
    said += metadata.labels(_meta(given).get("labels", EMPTY), f"{_TEMPLATE}.labels")
    said += metadata.notes(_meta(given).get("annotations", EMPTY), f"{_TEMPLATE}.annotations")
    pod = given.get("spec") or EMPTY
    if whole:
        said += [_moved(cause) for cause in _POD.body({"spec": pod})]
    policy = pod.get("restartPolicy", "")
    if policy != "Always":
        path = f"{_TEMPLATE}.spec.restartPolicy"
        said.append(fields.not_supported(path, policy, ("Always",)))
    if pod.get("activeDeadlineSeconds") is not None:
        rule = f"activeDeadlineSeconds in {kind} is not Supported"
        said.append(fields.forbidden(f"{_TEMPLATE}.spec.activeDeadlineSeconds", rule))
    return said


def same_selector(new: Object, old: Object) -> list[Cause]:
    """Check that the selector did not change."""
    now, was = (obj.get("spec", EMPTY).get("selector") for obj in (new, old))
    if now == was:
        return []
    return [_invalid("spec.selector", printed_selector(now or EMPTY), fields.IMMUTABLE)]


def printed_selector(given: Object) -> str:
    """Print a label selector as Go prints its structure."""
    expressions = ", ".join(
        f'v1.LabelSelectorRequirement{{Key:"{each.get("key", "")}", '
        f'Operator:"{each.get("operator", "")}", Values:{_strings(each.get("values"))}}}'
        for each in given.get("matchExpressions") or ()
    )
    several = f"{{{expressions}}}" if expressions else "(nil)"
    return (
        f"v1.LabelSelector{{MatchLabels:{printed_labels(given.get('matchLabels'))}, "
        f"MatchExpressions:[]v1.LabelSelectorRequirement{several}}}"
    )


def printed_labels(labels: Object | None) -> str:
    """Print a map of labels as Go prints it."""
    if not labels:
        return "map[string]string(nil)"
    pairs = ", ".join(f'"{key}":"{labels[key]}"' for key in sorted(labels))
    return f"map[string]string{{{pairs}}}"


def _strings(values: list[str] | None) -> str:
    if not values:
        return "[]string(nil)"
    return f"[]string{{{', '.join(map(fields.quote, values))}}}"


def _labels(spec: Object, given: Object) -> list[Cause]:
    wanted, labels = spec.get("selector"), _meta(given).get("labels")
    if wanted == {}:
        return []
    try:
        # No selector at all selects nothing.
        fits = wanted is not None and selectors.LabelSelector.of(wanted).matches(labels)
    except selectors.SelectorError:
        return [
            _invalid("spec.selector", printed_selector(wanted or EMPTY), "invalid label selector")
        ]
    if fits:
        return []
    rule = "`selector` does not match template `labels`"
    return [_invalid(f"{_TEMPLATE}.metadata.labels", printed_labels(labels), rule)]


def _meta(given: Object) -> Object:
    meta: Object = given.get("metadata") or EMPTY
    return meta


def _invalid(path: str, shown: str, rule: str) -> Cause:
    return Cause(path, fields.INVALID, f"Invalid value: {shown}: {rule}")


def _moved(cause: Cause) -> Cause:
    return dataclasses.replace(cause, field=f"{_TEMPLATE}.{cause.field}")
