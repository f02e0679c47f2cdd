"""What objects use of the resources that a ResourceQuota limits.

A claim uses `requests.storage`, `persistentvolumeclaims`, and both again under the name of its
class; every object uses one of `count/<plural>.<group>`, some also one of a plain name. Admission
and the controller that keeps `status.used` both count with these functions, so they agree.

A pod that has not finished also uses what it asks for of processor, memory and ephemeral storage.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

from holdfast.api import kinds, podusage, quantity, views
from holdfast.api.kinds import Kind
from holdfast.api.quantity import Quantity

Object = Mapping[str, Any]
Amounts = dict[str, Quantity]

_STORAGE: Final = "requests.storage"
_CLAIMS: Final = "persistentvolumeclaims"
_OF_CLASS: Final = ".storageclass.storage.k8s.io/"
_ONE: Final = Quantity(quantity.NANO)
# Kinds that are also counted by their plural alone.
_PLAIN: Final = frozenset(
    {kinds.CLAIM, kinds.POD, kinds.SERVICE, kinds.SECRET, kinds.CONFIG_MAP, kinds.RESOURCE_QUOTA}
)


def of(kind: Kind, obj: Object) -> Amounts:
    """Return what one object uses."""
    if kind is kinds.POD and (obj.get("status") or {}).get("phase") in views.FINISHED:
        # What is over takes no room any more; its object is still one of those there are.
        return {f"count/{kind.resource}": _ONE}
    used = {f"count/{kind.resource}": _ONE}
    if kind in _PLAIN:
        used[kind.plural] = _ONE
    if kind is kinds.POD:
        used |= podusage.of(obj)
    if kind is kinds.CLAIM:
        size = _size(obj)
        used[_STORAGE] = size
        name = _class_of(obj)
        if name:
            used[f"{name}{_OF_CLASS}{_STORAGE}"] = size
            used[f"{name}{_OF_CLASS}{_CLAIMS}"] = _ONE
    return used


def total(kind: Kind, objs: Iterable[Object], names: Iterable[str]) -> Amounts:
    """Return what the objects use together of the named resources that this kind uses."""
    summed = {name: Quantity(0) for name in names if kind in counted_by(name)}
    if not summed:
        return {}
    for obj in objs:
        for name, amount in of(kind, obj).items():
            if name in summed:
                summed[name] = add(summed[name], amount)
    return summed


def counted_by(name: str) -> tuple[Kind, ...]:
    """Return the kinds whose objects use a resource; none for those nobody counts."""
    if name == _STORAGE or _OF_CLASS in name:
        return (kinds.CLAIM,)
    if podusage.counts(name):
        return (kinds.POD,)
    resource = name.removeprefix("count/")
    found = [kind for kind in kinds.ALL if kind.namespaced and kind.resource == resource]
    if resource != name:
        return tuple(found)
    return tuple(kind for kind in found if kind in _PLAIN)


def covers(quota: Object, kind: Kind, obj: Object) -> bool:
    """Whether a quota is about an object; a quota with scopes is about pods alone."""
    selectors = podusage.selectors(quota)
    if not selectors:
        return True
    return kind is kinds.POD and all(podusage.in_scope(obj, each) for each in selectors)


def limits(quota: Object) -> Amounts:
    """Return the limits a quota sets."""
    hard = (quota.get("spec") or {}).get("hard") or {}
    return {name: quantity.parse(text) for name, text in hard.items()}


def add(one: Quantity, other: Quantity) -> Quantity:
    """Return the sum, printed like the first that is not zero."""
    return Quantity(one.nanos + other.nanos, one.family if one else other.family)


def subtract(one: Quantity, other: Quantity) -> Quantity:
    """Return the difference."""
    return Quantity(one.nanos - other.nanos, one.family if one else other.family)


def _size(claim: Object) -> Quantity:
    """The storage asked for, or given already to a growth that is under way."""
    requests = (claim["spec"].get("resources") or {}).get("requests") or {}
    asked = quantity.parse(requests.get("storage", "0"))
    allocated = ((claim.get("status") or {}).get("allocatedResources") or {}).get("storage")
    return max(asked, quantity.parse(allocated)) if allocated else asked


def _class_of(claim: Object) -> str:
    annotations = claim["metadata"].get("annotations") or {}
    name = annotations.get(views.BETA_CLASS)
    return str(claim["spec"].get("storageClassName") or "") if name is None else str(name)
