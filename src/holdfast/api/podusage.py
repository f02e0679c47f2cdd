"""What pods use of processor, memory and ephemeral storage, and which pods a quota is about.

Amounts are those that the pod asks for, not what its processes really take: nothing on the node
enforces them, they are shared out on paper. A quota's scopes choose among pods only.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

from holdfast.api import quantity
from holdfast.api.quantity import Quantity

Object = Mapping[str, Any]
Amounts = dict[str, Quantity]

_RESOURCES: Final = ("cpu", "ephemeral-storage", "memory")
_HUGE: Final = "hugepages-"
_REQUESTS: Final = "requests."
_NAMES: Final = frozenset(
    name for each in _RESOURCES for name in (each, f"requests.{each}", f"limits.{each}")
)
# Of these every container has to say how much it wants once a quota limits them.
_TO_BE_SAID: Final = frozenset(
    name for each in ("cpu", "memory") for name in (each, f"requests.{each}", f"limits.{each}")
)
_ZERO: Final = Quantity(0)


def counts(name: str) -> bool:
    """Whether a quota's resource is one that pods use; devices count only as `requests.`."""
    asked = name.removeprefix(_REQUESTS)
    return name in _NAMES or asked.startswith(_HUGE) or (asked != name and _is_device(asked))


def of(pod: Object) -> Amounts:
    """Return what the pod asks for and is limited to; names it says nothing of are left out."""
    requests, limits = _sum(pod, "requests"), _sum(pod, "limits")
    for name, amount in _parsed(pod["spec"].get("overhead")).items():
        requests[name] = _add(requests.get(name, _ZERO), amount)
        if limits.get(name):
            limits[name] = _add(limits[name], amount)
    used = {f"limits.{name}": limits[name] for name in _RESOURCES if name in limits}
    for name, amount in requests.items():
        if name in _RESOURCES or name.startswith(_HUGE):
            used[name] = amount
        if name in _RESOURCES or name.startswith(_HUGE) or _is_device(name):
            used[f"{_REQUESTS}{name}"] = amount
    return used


def unsaid(pod: Object, limited: Iterable[str]) -> str:
    """Return what the pod's containers must say but do not, as Kubernetes words it, or ""."""
    missing: dict[str, list[str]] = {}
    for container in _containers(pod):
        resources = container.get("resources") or {}
        requests, limits = resources.get("requests") or {}, resources.get("limits") or {}
        said = {*requests, *(f"requests.{name}" for name in requests)}
        said |= {f"limits.{name}" for name in limits}
        for name in _TO_BE_SAID.intersection(limited) - said:
            missing.setdefault(name, []).append(container["name"])
    return "; ".join(f"{name} for: {','.join(sorted(missing[name]))}" for name in sorted(missing))


def selectors(quota: Object) -> list[Object]:
    """Return the scopes of a quota as conditions."""
    spec = quota.get("spec") or {}
    plain = [{"scopeName": name, "operator": "Exists"} for name in spec.get("scopes") or ()]
    return [*plain, *((spec.get("scopeSelector") or {}).get("matchExpressions") or ())]


def in_scope(pod: Object, selector: Object) -> bool:
    """Whether a pod is in a scope; no pod is in one that nobody knows."""
    match selector.get("scopeName"):
        case "Terminating":
            return _has_deadline(pod)
        case "NotTerminating":
            return not _has_deadline(pod)
        case "BestEffort":
            return _is_best_effort(pod)
        case "NotBestEffort":
            return not _is_best_effort(pod)
        case "PriorityClass":
            return _has_priority(pod, selector)
        case "CrossNamespacePodAffinity":
            return any(map(_crosses, _affinity_terms(pod)))
        case _:
            return False


def _is_device(name: str) -> bool:
    """Whether a resource belongs to somebody's own domain, as graphics cards do."""
    domain, slash, _ = name.partition("/")
    return bool(slash) and not domain.endswith("kubernetes.io") and not name.startswith(_REQUESTS)


def _sum(pod: Object, part: str) -> Amounts:
    """Add up what runs at one time: all containers, or one init container beside its sidecars."""
    spec = pod["spec"]
    total: Amounts = {}
    for container in spec.get("containers") or ():
        total = _each(_add, total, _resources(container, part))
    sidecars: Amounts = {}
    most: Amounts = {}
    for container in spec.get("initContainers") or ():
        own = _resources(container, part)
        if container.get("restartPolicy") == "Always":
            total, sidecars = _each(_add, total, own), _each(_add, sidecars, own)
            own = sidecars
        else:
            own = _each(_add, sidecars, own)
        most = _each(max, most, own)
    return _each(max, total, most)


def _resources(container: Object, part: str) -> Amounts:
    return _parsed((container.get("resources") or {}).get(part))


def _parsed(given: Mapping[str, str] | None) -> Amounts:
    return {name: quantity.parse(text) for name, text in (given or {}).items()}


def _each(join: Any, one: Amounts, other: Amounts) -> Amounts:
    return {
        name: join(one[name], other[name]) if name in one and name in other else amount
        for name, amount in {**one, **other}.items()
    }


def _add(one: Quantity, other: Quantity) -> Quantity:
    return Quantity(one.nanos + other.nanos, one.family if one else other.family)


def _containers(pod: Object) -> Iterator[Object]:
    yield from pod["spec"].get("containers") or ()
    yield from pod["spec"].get("initContainers") or ()


def _has_deadline(pod: Object) -> bool:
    deadline = pod["spec"].get("activeDeadlineSeconds")
    return deadline is not None and deadline >= 0


def _is_best_effort(pod: Object) -> bool:
    return not any(
        _resources(container, part).get(name)
        for container in _containers(pod)
        for part in ("requests", "limits")
        for name in ("cpu", "memory")
    )


def _has_priority(pod: Object, selector: Object) -> bool:
    name = pod["spec"].get("priorityClassName") or ""
    values = selector.get("values") or ()
    match selector.get("operator"):
        case "Exists":
            return bool(name)
        case "DoesNotExist":
            return not name
        case "In":
            return bool(name) and name in values
        case "NotIn":
            return name not in values
        case _:
            return False


def _affinity_terms(pod: Object) -> Iterator[Object]:
    affinity = pod["spec"].get("affinity") or {}
    for kind in ("podAffinity", "podAntiAffinity"):
        found = affinity.get(kind) or {}
        yield from found.get("requiredDuringSchedulingIgnoredDuringExecution") or ()
        for each in found.get("preferredDuringSchedulingIgnoredDuringExecution") or ():
            yield each.get("podAffinityTerm") or {}


def _crosses(term: Object) -> bool:
    return bool(term.get("namespaces")) or term.get("namespaceSelector") is not None
