"""Rules for Deployment, ReplicaSet, StatefulSet and ControllerRevision.

Counts may not be negative, selectors may not change, and of a stateful set hardly anything may,
because its pods and claims carry its former shape in their names.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

from holdfast.api import fields
from holdfast.api.fields import Cause
from holdfast.api.validation import names, pod_warnings, templates
from holdfast.api.validation.rules import EMPTY, Object, Rules

_NOT_NEGATIVE: Final = "must be greater than or equal to 0"
_TOO_MANY: Final = "cannot be greater than status.replicas"
_PERCENT: Final = re.compile(r"[0-9]+%")
_BAD_PERCENT: Final = (
    "a valid percent string must be a numeric string followed by an ending '%' "
    "(e.g. '1%',  or '93%', regex used for validation is '[0-9]+%')"
)
_FIXED: Final = (
    "updates to statefulset spec for fields other than 'replicas', 'ordinals', 'template', "
    "'updateStrategy', 'persistentVolumeClaimRetentionPolicy' and 'minReadySeconds' are forbidden"
)
_MAY_CHANGE: Final = (
    "replicas",
    "ordinals",
    "template",
    "updateStrategy",
    "persistentVolumeClaimRetentionPolicy",
    "minReadySeconds",
)


class DeploymentRules(Rules):
    """Rules of Deployment."""

    def body(self, obj: Object) -> list[Cause]:
        """Check counts, selector, template and strategy."""
        spec = obj.get("spec", EMPTY)
        said = _not_negative(spec, "spec", ("replicas",))
        said += templates.selector(spec, "deployment")
        said += templates.template(spec, "ReplicaSet", whole=True)
        said += _strategy(spec.get("strategy", EMPTY))
        said += _not_negative(spec, "spec", ("minReadySeconds", "revisionHistoryLimit"))
        deadline = spec.get("progressDeadlineSeconds")
        if deadline is not None:
            said += _not_negative(spec, "spec", ("progressDeadlineSeconds",))
            if deadline <= spec.get("minReadySeconds", 0):
                rule = "must be greater than minReadySeconds"
                said.append(fields.invalid("spec.progressDeadlineSeconds", deadline, rule))
        return said

    def transition(self, new: Object, old: Object) -> list[Cause]:
        """Check that the selector stayed."""
        return templates.same_selector(new, old)

    def warnings(self, new: Object, old: Object | None) -> list[str]:
        """Warn of what the pods will not get."""
        return pod_warnings.of_template(new, old)

    def status(self, new: Object, old: Object) -> list[Cause]:
        """Check that no part is larger than the whole."""
        status = new.get("status", EMPTY)
        counts = ("updatedReplicas", "readyReplicas", "availableReplicas")
        said = _counts(status, (*counts, "unavailableReplicas"), counts)
        before = old.get("status", EMPTY).get("collisionCount", 0)
        count = status.get("collisionCount", 0)
        if count < before:
            said.append(fields.invalid("status.collisionCount", count, "cannot be decremented"))
        return said


class ReplicaSetRules(Rules):
    """Rules of ReplicaSet."""

    def body(self, obj: Object) -> list[Cause]:
        """Check counts, selector and template."""
        spec = obj.get("spec", EMPTY)
        said = _not_negative(spec, "spec", ("replicas", "minReadySeconds"))
        said += templates.selector(spec, "deployment")
        said += templates.template(spec, "ReplicaSet", whole=True)
        return said

    def transition(self, new: Object, old: Object) -> list[Cause]:
        """Check that the selector stayed."""
        return templates.same_selector(new, old)

    def warnings(self, new: Object, old: Object | None) -> list[str]:
        """Warn of what the pods will not get."""
        return pod_warnings.of_template(new, old)

    def status(self, new: Object, old: Object) -> list[Cause]:
        """Check that no part is larger than the whole."""
        counts = ("fullyLabeledReplicas", "readyReplicas", "availableReplicas")
        return _counts(new.get("status", EMPTY), counts, counts)


class StatefulSetRules(Rules):
    """Rules of StatefulSet."""

    def check_name(self, name: str) -> tuple[str, ...]:
        """A set's name is part of host names, so it is a DNS label."""
        return names.label(name)

    def body(self, obj: Object) -> list[Cause]:
        """Check policies, counts, selector and what the template may not say."""
        spec = obj.get("spec", EMPTY)
        said = _pod_management(spec.get("podManagementPolicy", ""))
        said += _update_strategy(spec.get("updateStrategy", EMPTY))
        said += _retention(spec.get("persistentVolumeClaimRetentionPolicy", EMPTY))
        said += _not_negative(spec, "spec", ("replicas", "minReadySeconds"))
        said += _not_negative(spec.get("ordinals") or EMPTY, "spec.ordinals", ("start",))
        said += templates.selector(spec, "statefulset")
        # The volumes of the claim templates are not in the pod, so it is not complete yet.
        said += templates.template(spec, "StatefulSet", whole=False)
        return said

    def transition(self, new: Object, old: Object) -> list[Cause]:
        """Check that only the few parts that may change did."""
        if _fixed(new) == _fixed(old):
            return []
        return [fields.forbidden("spec", _FIXED)]

    def warnings(self, new: Object, old: Object | None) -> list[str]:
        """Warn of what the pods will not get."""
        return pod_warnings.of_template(new, old)

    def status(self, new: Object, old: Object) -> list[Cause]:
        """Check that no part is larger than the whole."""
        counts = ("readyReplicas", "currentReplicas", "updatedReplicas", "availableReplicas")
        return _counts(new.get("status", EMPTY), counts, counts)


class RevisionRules(Rules):
    """Rules of ControllerRevision."""

    def same_body(self, new: Object, old: Object) -> bool:
        """Tell whether number and content are as they were."""
        return all(new.get(part) == old.get(part) for part in ("revision", "data"))

    def body(self, obj: Object) -> list[Cause]:
        """Check the number and that there is content."""
        said = _not_negative(obj, "", ("revision",))
        if obj.get("data") is None:
            said.append(fields.required("data", "data is mandatory"))
        return said

    def transition(self, new: Object, old: Object) -> list[Cause]:
        """Check that the content stayed."""
        if new.get("data") == old.get("data"):
            return []
        return [fields.immutable("data", new.get("data"))]


def _not_negative(part: Object, path: str, names: Iterable[str]) -> list[Cause]:
    start = f"{path}." if path else ""
    return [
        fields.invalid(f"{start}{name}", part[name], _NOT_NEGATIVE)
        for name in names
        if (part.get(name) or 0) < 0
    ]


def _counts(status: Object, all_counts: Iterable[str], parts: Iterable[str]) -> list[Cause]:
    said = _not_negative(status, "status", ("observedGeneration", "replicas", *all_counts))
    whole = status.get("replicas", 0)
    for name in parts:
        if status.get(name, 0) > whole:
            said.append(fields.invalid(f"status.{name}", status[name], _TOO_MANY))
    ready, available = status.get("readyReplicas", 0), status.get("availableReplicas", 0)
    if available > ready:
        rule = "cannot be greater than readyReplicas"
        said.append(fields.invalid("status.availableReplicas", available, rule))
    return said


def _strategy(strategy: Object) -> list[Cause]:
    kind, path = strategy.get("type", ""), "spec.strategy.rollingUpdate"
    steps = strategy.get("rollingUpdate")
    if kind == "Recreate":
        if steps is None:
            return []
        rule = "may not be specified when strategy `type` is 'Recreate'"
        return [fields.forbidden(path, rule)]
    if kind != "RollingUpdate":
        choices = ("Recreate", "RollingUpdate")
        return [fields.not_supported("spec.strategy", strategy, choices)]
    if steps is None:
        return [fields.required(path, "this should be defaulted and never be nil")]
    return _steps(steps, path)


def _steps(steps: Object, path: str) -> list[Cause]:
    missing, surge = steps.get("maxUnavailable", 0), steps.get("maxSurge", 0)
    said = _amount(missing, f"{path}.maxUnavailable") + _amount(surge, f"{path}.maxSurge")
    if _is_zero(missing) and _is_zero(surge):
        rule = "may not be 0 when `maxSurge` is 0"
        said.append(_bad_amount(f"{path}.maxUnavailable", missing, rule))
    if isinstance(missing, str) and _PERCENT.fullmatch(missing) and int(missing[:-1]) > 100:
        rule = "must not be greater than 100%"
        said.append(_bad_amount(f"{path}.maxUnavailable", missing, rule))
    return said


def _amount(amount: int | str, path: str) -> list[Cause]:
    if isinstance(amount, str):
        good = _PERCENT.fullmatch(amount) is not None
        return [] if good else [_bad_amount(path, amount, _BAD_PERCENT)]
    return [_bad_amount(path, amount, _NOT_NEGATIVE)] if amount < 0 else []


def _is_zero(amount: int | str) -> bool:
    digits = str(amount).removesuffix("%")
    return digits.isdigit() and int(digits) == 0


def _bad_amount(path: str, amount: int | str, rule: str) -> Cause:
    kind, number = (1, 0) if isinstance(amount, str) else (0, amount)
    text = amount if isinstance(amount, str) else ""
    shown = f'intstr.IntOrString{{Type:{kind}, IntVal:{number}, StrVal:"{text}"}}'
    return Cause(path, fields.INVALID, f"Invalid value: {shown}: {rule}")


def _pod_management(policy: str) -> list[Cause]:
    path = "spec.podManagementPolicy"
    if not policy:
        return [fields.required(path)]
    if policy in ("OrderedReady", "Parallel"):
        return []
    return [fields.invalid(path, policy, "must be 'OrderedReady' or 'Parallel'")]


def _update_strategy(strategy: Object) -> list[Cause]:
    kind, steps = strategy.get("type", ""), strategy.get("rollingUpdate")
    path = "spec.updateStrategy"
    if not kind:
        return [fields.required(path)]
    if kind == "OnDelete":
        if steps is None:
            return []
        rule = "only allowed for updateStrategy 'RollingUpdate'"
        return [fields.invalid(f"{path}.rollingUpdate", steps, rule)]
    if kind == "RollingUpdate":
        return _not_negative(steps or EMPTY, f"{path}.rollingUpdate", ("partition",))
    return [fields.invalid(path, strategy, "must be 'RollingUpdate' or 'OnDelete'")]


def _retention(policy: Object) -> list[Cause]:
    choices, path = ("Retain", "Delete"), "spec.persistentVolumeClaimRetentionPolicy"
    return [
        fields.not_supported(f"{path}.{part}", word, choices, in_order=True)
        for part in ("whenDeleted", "whenScaled")
        if (word := policy.get(part, "Retain")) not in choices
    ]


def _fixed(obj: Object) -> Object:
    return {
        part: value for part, value in obj.get("spec", EMPTY).items() if part not in _MAY_CHANGE
    }
