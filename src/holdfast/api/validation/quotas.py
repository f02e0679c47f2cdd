"""Rules for ResourceQuotas: which resources may be limited, and how."""

from __future__ import annotations

from typing import Final

from holdfast.api import fields, quantity
from holdfast.api.fields import Cause
from holdfast.api.validation import names
from holdfast.api.validation.rules import EMPTY, Object, Rules, each

_STANDARD: Final = frozenset(
    {
        "configmaps",
        "cpu",
        "ephemeral-storage",
        "limits.cpu",
        "limits.ephemeral-storage",
        "limits.memory",
        "memory",
        "persistentvolumeclaims",
        "pods",
        "replicationcontrollers",
        "requests.cpu",
        "requests.ephemeral-storage",
        "requests.memory",
        "requests.storage",
        "resourcequotas",
        "secrets",
        "services",
        "services.loadbalancers",
        "services.nodeports",
    }
)
_WHOLE: Final = frozenset(
    {
        "configmaps",
        "persistentvolumeclaims",
        "pods",
        "replicationcontrollers",
        "resourcequotas",
        "secrets",
        "services",
        "services.loadbalancers",
        "services.nodeports",
    }
)


# What a scope may limit; the pods of BestEffort ask for nothing.
_COMPUTE: Final = frozenset(
    {"cpu", "memory", "limits.cpu", "limits.memory", "requests.cpu", "requests.memory"}
)
_OF_SCOPE: Final = {
    "BestEffort": frozenset({"pods"}),
    **dict.fromkeys(
        (
            "CrossNamespacePodAffinity",
            "NotBestEffort",
            "NotTerminating",
            "PriorityClass",
            "Terminating",
        ),
        _COMPUTE | {"pods"},
    ),
}
_OPPOSITES: Final = ({"BestEffort", "NotBestEffort"}, {"Terminating", "NotTerminating"})
_ONLY_EXISTS: Final = (
    "must be 'Exists' when scope is any of ResourceQuotaScopeTerminating, "
    "ResourceQuotaScopeNotTerminating, ResourceQuotaScopeBestEffort, "
    "ResourceQuotaScopeNotBestEffort or ResourceQuotaScopeCrossNamespacePodAffinity"
)


class QuotaRules(Rules):
    """Rules of ResourceQuota."""

    def body(self, obj: Object) -> list[Cause]:
        """Check the limits."""
        said: list[Cause] = []
        for name, text in obj.get("spec", EMPTY).get("hard", EMPTY).items():
            said += _limit(name, text, f"spec.hard[{name}]")
        return said + _scopes(obj.get("spec", EMPTY)) + _selector(obj.get("spec", EMPTY))

    def transition(self, new: Object, old: Object) -> list[Cause]:
        """Check that the scopes stay."""
        was, now = (obj.get("spec", EMPTY).get("scopes") or [] for obj in (old, new))
        return [] if sorted(was) == sorted(now) else [fields.immutable("spec.scopes", now)]

    def status(self, new: Object, old: Object) -> list[Cause]:
        """Check limits and amounts used."""
        said: list[Cause] = []
        for part in ("hard", "used"):
            for name, text in new.get("status", EMPTY).get(part, EMPTY).items():
                said += _limit(name, text, f"status.{part}[{name}]")
        return said


def _limit(name: str, text: str, path: str) -> list[Cause]:
    said = each(path, name, names.qualified(name))
    hugepages = name.startswith(("hugepages-", "requests.hugepages-"))
    if not said and "/" not in name and name not in _STANDARD and not hugepages:
        said.append(fields.invalid(path, name, "must be a standard resource for quota"))
    if quantity.parse(text).nanos < 0:
        said.append(fields.invalid(path, text, "must be greater than or equal to 0"))
    whole = name in _WHOLE or name.startswith("count/")
    if whole and not quantity.parse(text).is_integer:
        said.append(fields.invalid(path, text, "must be an integer"))
    return said


def _scopes(spec: Object) -> list[Cause]:
    scopes: list[str] = spec.get("scopes") or []
    at = "spec.scopes"
    said: list[Cause] = []
    for scope in scopes:
        if scope not in _OF_SCOPE:
            said.append(fields.invalid(at, scopes, "unsupported scope"))
        said += _unsuited(scope, spec, at, scopes)
    return said + _conflicts(scopes, at, scopes)


def _selector(spec: Object) -> list[Cause]:
    selector = spec.get("scopeSelector") or EMPTY
    at = "spec.scopeSelector.matchExpressions"
    said: list[Cause] = []
    names: list[str] = []
    for item in selector.get("matchExpressions") or ():
        scope, operator = item.get("scopeName", ""), item.get("operator", "")
        names.append(scope)
        if scope not in _OF_SCOPE:
            said.append(fields.invalid(f"{at}.scopeName", scope, "unsupported scope"))
        said += _unsuited(scope, spec, at, selector)
        if scope in _OF_SCOPE and scope != "PriorityClass" and operator != "Exists":
            said.append(fields.invalid(f"{at}.operator", operator, _ONLY_EXISTS))
        said += _values(operator, item.get("values") or [], at)
    return said + _conflicts(names, at, spec.get("scopes") or [])


def _values(operator: str, values: list[str], at: str) -> list[Cause]:
    if operator in ("In", "NotIn"):
        rule = "must be at least one value when `operator` is 'In' or 'NotIn' for scope selector"
        return [] if values else [fields.required(f"{at}.values", rule)]
    if operator in ("Exists", "DoesNotExist"):
        rule = "must be no value when `operator` is 'Exist' or 'DoesNotExist' for scope selector"
        return [fields.invalid(f"{at}.values", values, rule)] if values else []
    return [fields.invalid(f"{at}.operator", operator, "not a valid selector operator")]


def _unsuited(scope: str, spec: Object, at: str, value: object) -> list[Cause]:
    """Complain of each limited resource that the scope says nothing about."""
    suited = _OF_SCOPE.get(scope, _STANDARD)
    limited = sorted(name for name in spec.get("hard", EMPTY) if name in _STANDARD - suited)
    return [fields.invalid(at, value, "unsupported scope applied to resource") for _ in limited]


def _conflicts(scopes: list[str], at: str, value: object) -> list[Cause]:
    pairs = sum(1 for pair in _OPPOSITES if pair <= set(scopes))
    return [fields.invalid(at, value, "conflicting scopes")] * pairs
