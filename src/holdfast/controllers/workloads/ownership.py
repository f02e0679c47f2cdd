"""Which objects belong to a workload: by owner reference, and by labels for those without one.

An object belongs to the workload named by its controller reference, and to nobody else. One that
has no controller and whose labels match is adopted: the reference is written with the object's
revision, so that two workloads cannot both get it. One of ours whose labels no longer match is
released. A workload that is being deleted adopts nothing.

The index finds both: objects under the uid of their controller, orphans under their namespace.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable
from typing import Any

from holdfast.api import errors, selectors
from holdfast.api.kinds import Kind
from holdfast.runtime.client import Client
from holdfast.runtime.informer import Informer, key_of

Object = dict[str, Any]

_BY_OWNER = "workloads/by-controller"


def index(informer: Informer) -> None:
    """Have the informer keep the index; to be called before it runs."""
    informer.add_index(_BY_OWNER, _keys)


def controller_of(obj: Object) -> Object | None:
    """Return the owner reference of the object's controller."""
    for owner in obj["metadata"].get("ownerReferences") or ():
        if owner.get("controller"):
            found: Object = owner
            return found
    return None


def reference(owner: Object, kind: Kind) -> Object:
    """Return the controller reference to a workload."""
    return {
        "apiVersion": kind.api_version,
        "kind": kind.name,
        "name": owner["metadata"]["name"],
        "uid": owner["metadata"]["uid"],
        "controller": True,
        "blockOwnerDeletion": True,
    }


def selector_of(owner: Object) -> selectors.LabelSelector:
    """Return the selector of a workload."""
    return selectors.LabelSelector.of(owner["spec"].get("selector"))


def owned(informer: Informer, owner: Object) -> list[Object]:
    """Return the objects whose controller the workload is, as the cache has them."""
    return list(informer.by(_BY_OWNER, owner["metadata"]["uid"]))


def matching(informer: Informer, orphan: Object) -> list[Object]:
    """Return the workloads in an orphan's namespace that would adopt it."""
    meta = orphan["metadata"]
    return [
        owner
        for owner in informer.all()
        if owner["metadata"]["namespace"] == meta["namespace"]
        and selector_of(owner).matches(meta.get("labels"))
    ]


class Claiming:
    """Adoption and release of objects of one kind, `parts`, by workloads of another."""

    def __init__(self, client: Client, parts: Informer, kind: Kind) -> None:
        self._client = client
        self._parts = parts
        self._kind = kind

    async def claim(
        self, owner: Object, fits: Callable[[Object], bool] = lambda part: True
    ) -> list[Object]:
        """Return what belongs to the workload, after adopting and releasing.

        `fits` further limits what is adopted, for example by name.
        """
        selector = selector_of(owner)
        kept: list[Object] = []
        for part in owned(self._parts, owner):
            if selector.matches(part["metadata"].get("labels")):
                kept.append(part)
            elif "deletionTimestamp" not in owner["metadata"]:
                await self._release(part, owner)
        if "deletionTimestamp" in owner["metadata"]:
            return kept
        namespace = owner["metadata"]["namespace"]
        for part in list(self._parts.by(_BY_OWNER, ("", namespace))):
            adoptable = "deletionTimestamp" not in part["metadata"] and fits(part)
            if adoptable and selector.matches(part["metadata"].get("labels")):
                adopted = await self._adopt(part, owner)
                kept += [adopted] if adopted is not None else []
        return kept

    async def _adopt(self, part: Object, owner: Object) -> Object | None:
        others = part["metadata"].get("ownerReferences") or []
        return await self._write(part, [*others, reference(owner, self._kind)])

    async def _release(self, part: Object, owner: Object) -> None:
        uid = owner["metadata"]["uid"]
        others = part["metadata"].get("ownerReferences") or []
        await self._write(part, [each for each in others if each["uid"] != uid] or None)

    async def _write(self, part: Object, owners: list[Object] | None) -> Object | None:
        meta = part["metadata"]
        patch = {
            "metadata": {
                "uid": meta["uid"],
                "resourceVersion": meta["resourceVersion"],
                "ownerReferences": owners,
            }
        }
        try:
            written = await self._client.patch(
                self._parts.kind, meta["name"], patch, meta["namespace"]
            )
        except errors.NotFound:
            return None
        self._parts.observe(written)
        return written


def concerned(sets: Informer, old: Object | None, new: Object | None) -> Iterable[tuple[str, str]]:
    """Keys of the sets a changed pod concerns: those it belongs to, and those it may join."""
    for pod in (old, new):
        owner = controller_of(pod) if pod is not None else None
        if pod is not None and owner is not None and owner.get("kind") == sets.kind.name:
            yield pod["metadata"]["namespace"], owner["name"]
    if new is not None and controller_of(new) is None:
        for found in matching(sets, new):
            yield key_of(found)


def _keys(obj: Object) -> Iterable[Hashable]:
    owner = controller_of(obj)
    return (owner["uid"],) if owner is not None else (("", obj["metadata"]["namespace"]),)
