"""Rules for ResourceQuotas: which resources may be limited, and how."""

from __future__ import annotations

from typing import Final

from holdfast.api import fields, quantity
from holdfast.api.fields import Cause
from holdfast.api.validation import names
from holdfast.api.validation.rules import EMPTY, Object, Rules

STANDARD: Final = frozenset(
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
        "storage",
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
        was, now = (obj.get("spec", EMPTY).get("scopes") for obj in (old, new))
        if set(was or ()) == set(now or ()):
            return []
        return [fields.immutable("spec.scopes", _shown_scopes(now))]

    def status(self, new: Object, old: Object) -> list[Cause]:
        """Check limits and amounts used."""
        said: list[Cause] = []
        for part in ("hard", "used"):
            for name, text in new.get("status", EMPTY).get(part, EMPTY).items():
                said += _limit(name, text, f"status.{part}[{name}]")
        return said


def _limit(name: str, text: str, path: str) -> list[Cause]:
    hugepages = name.startswith(("hugepages-", "requests.hugepages-"))
    # The reference shows the name of a resource without quotes.
    said = [fields.invalid(path, fields.Go(name), cause) for cause in names.qualified(name)]
    if "/" not in name and (name not in STANDARD or name == "storage") and not hugepages:
        if not said and name != "storage":
            rule = "must be a standard resource type or fully qualified"
            said.append(fields.invalid(path, fields.Go(name), rule))
        rule = "must be a standard resource for quota"
        said.append(fields.invalid(path, fields.Go(name), rule))
    if quantity.parse(text).nanos < 0:
        said.append(fields.invalid(path, text, "must be greater than or equal to 0"))
    foreign = "/" in name and "kubernetes.io/" not in name and not name.startswith("requests.")
    whole = name in _WHOLE or foreign
    if whole and not quantity.parse(text).is_integer:
        said.append(fields.invalid(path, text, "must be an integer"))
    return said


def _scopes(spec: Object) -> list[Cause]:
    scopes: list[str] = spec.get("scopes") or []
    at, shown = "spec.scopes", _shown_scopes(scopes)
    said: list[Cause] = []
    for scope in scopes:
        if scope not in _OF_SCOPE:
            said.append(fields.invalid(at, shown, "unsupported scope"))
        said += _unsuited(scope, spec, at, shown)
    return said + _conflicts(scopes, at, shown)


def _selector(spec: Object) -> list[Cause]:
    items: list[Object] = (spec.get("scopeSelector") or EMPTY).get("matchExpressions") or []
    at, shown = "spec.scopeSelector.matchExpressions", _shown_selector(items)
    said: list[Cause] = []
    for item in items:
        scope, operator = item.get("scopeName", ""), item.get("operator", "")
        if scope not in _OF_SCOPE:
            said.append(fields.invalid(f"{at}.scopeName", scope, "unsupported scope"))
        said += _unsuited(scope, spec, at, shown)
        if scope in _OF_SCOPE and scope != "PriorityClass" and operator != "Exists":
            said.append(fields.invalid(f"{at}.operator", operator, _ONLY_EXISTS))
        said += _values(operator, item.get("values") or [], at)
    names = [item.get("scopeName", "") for item in items]
    # Kubernetes shows the plain scopes here, not those of the selector.
    return said + _conflicts(names, at, _shown_scopes(spec.get("scopes")))


def _shown_scopes(scopes: list[str] | None) -> fields.Go:
    if scopes is None:
        return fields.Go("[]core.ResourceQuotaScope(nil)")
    return fields.Go(f"[]core.ResourceQuotaScope{{{_quoted(scopes)}}}")


def _shown_selector(items: list[Object]) -> fields.Go:
    shown = ", ".join(
        f"core.ScopedResourceSelectorRequirement{{"
        f"ScopeName:{fields.quote(item.get('scopeName', ''))}, "
        f"Operator:{fields.quote(item.get('operator', ''))}, "
        f"Values:{_shown_values(item.get('values'))}}}"
        for item in items
    )
    listed = f"[]core.ScopedResourceSelectorRequirement{{{shown}}}"
    return fields.Go(f"core.ScopeSelector{{MatchExpressions:{listed}}}")


def _shown_values(values: list[str] | None) -> fields.Go:
    return fields.Go("[]string(nil)" if values is None else f"[]string{{{_quoted(values)}}}")


def _quoted(texts: list[str]) -> str:
    return ", ".join(map(fields.quote, texts))


def _values(operator: str, values: list[str], at: str) -> list[Cause]:
    if operator in ("In", "NotIn"):
        rule = "must be at least one value when `operator` is 'In' or 'NotIn' for scope selector"
        return [] if values else [fields.required(f"{at}.values", rule)]
    if operator in ("Exists", "DoesNotExist"):
        rule = "must be no value when `operator` is 'Exist' or 'DoesNotExist' for scope selector"
        return [fields.invalid(f"{at}.values", _shown_values(values), rule)] if values else []
    return [fields.invalid(f"{at}.operator", operator, "not a valid selector operator")]


def _unsuited(scope: str, spec: Object, at: str, value: object) -> list[Cause]:
    """Complain of each limited resource that the scope says nothing about."""
    suited = _OF_SCOPE.get(scope, STANDARD)
    limited = sorted(name for name in spec.get("hard", EMPTY) if name in STANDARD - suited)
    return [fields.invalid(at, value, "unsupported scope applied to resource") for _ in limited]


def _conflicts(scopes: list[str], at: str, value: object) -> list[Cause]:
    pairs = sum(1 for pair in _OPPOSITES if pair <= set(scopes))
    return [fields.invalid(at, value, "conflicting scopes")] * pairs
