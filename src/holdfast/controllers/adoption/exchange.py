"""Puts one volume object in the place of another of the same name and storage.

Where it stands is read from the API each time, so it can be killed anywhere and repeated: there is
the one object, none, or the other. An undo is the same, the other way round.

The invariant: nothing is deleted before the policy is Retain in the API, and nothing is deleted
that is not one of the two objects.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from holdfast.api import errors, kinds, views
from holdfast.controllers.adoption import plan
from holdfast.runtime.client import Client, Object

Say = Callable[[str], None]
_LOOK = 0.1


class NotBound(Exception):
    """The claim did not come back in time: what it is, and what to do."""


class Exchange:
    """One exchange; `wait` is how many seconds a claim may take to be Bound again."""

    def __init__(self, client: Client, say: Say, wait: float = 60.0) -> None:
        self._client = client
        self._say = say
        self._wait = wait

    async def run(self, before: Object, after: Object, policy: str) -> None:
        """Make `after` stand where `before` stands, with `policy` at the end.

        Both are objects as they can be created. Raises plan.Refused and NotBound.
        """
        name = after["metadata"]["name"]
        current = await self._current(name)
        if current is not None and not _same(current, after):
            if not _same(current, before):
                raise plan.Refused(
                    f"pv/{name} is neither the volume that was adopted nor its successor: somebody "
                    "made it anew meanwhile, so it is left as it is"
                )
            await self._remove(current)
            current = None
        if current is None:
            # A finalizer that names a deleter is put back by whoever serves the volume.
            self._say(f"create pv/{name} as {_describe(after)}")
            current = await self._client.create(kinds.VOLUME, after)
        elif "deletionTimestamp" in current["metadata"]:
            raise plan.Refused(f"pv/{name} is being deleted by somebody else")
        await self._wait_for_claim(current)
        await self._set_policy(name, policy)

    async def _current(self, name: str) -> Object | None:
        try:
            return await self._client.get(kinds.VOLUME, name)
        except errors.NotFound:
            return None

    async def _remove(self, current: Object) -> None:
        meta = current["metadata"]
        name, uid = meta["name"], meta["uid"]
        if "deletionTimestamp" not in meta:
            await plan.check_unused(self._client, current)
            await self._set_policy(name, "Retain")
            self._say(f"delete the object pv/{name}; the data stays")
            await self._client.delete(kinds.VOLUME, name, uid=uid)
        elif current["spec"].get("persistentVolumeReclaimPolicy") != "Retain":
            raise plan.Refused(
                f"pv/{name} is being deleted with its data by somebody else: holdfast why pv/{name}"
            )
        # Its claim is there and keeps it; that is what its finalizers are for, and what is
        # wanted otherwise here.
        while (found := await self._current(name)) is not None and found["metadata"]["uid"] == uid:
            await self._strip(found)

    async def _strip(self, found: Object) -> None:
        meta = found["metadata"]
        if not meta.get("finalizers"):
            await asyncio.sleep(_LOOK)
            return
        patch = {"metadata": {"finalizers": None, "resourceVersion": meta["resourceVersion"]}}
        try:
            await self._client.patch(kinds.VOLUME, meta["name"], patch)
        except (errors.NotFound, errors.Conflict):
            # Gone, or changed by its controllers meanwhile: it is looked at anew.
            return

    async def _set_policy(self, name: str, policy: str) -> None:
        current = await self._client.get(kinds.VOLUME, name)
        if current["spec"].get("persistentVolumeReclaimPolicy") == policy:
            return
        self._say(f"set the reclaim policy of pv/{name} to {policy}")
        patch = {
            "metadata": {"resourceVersion": current["metadata"]["resourceVersion"]},
            "spec": {"persistentVolumeReclaimPolicy": policy},
        }
        try:
            await self._client.patch(kinds.VOLUME, name, patch)
        except errors.Conflict:
            await self._set_policy(name, policy)

    async def _wait_for_claim(self, volume: Object) -> None:
        reference = volume["spec"].get("claimRef") or {}
        if not reference.get("uid"):
            return
        namespace, name = reference["namespace"], reference["name"]
        where = f"{namespace}/{name}"
        loop = asyncio.get_running_loop()
        deadline, said = loop.time() + self._wait, False
        while True:
            try:
                claim = await self._client.get(kinds.CLAIM, name, namespace)
            except errors.NotFound:
                return
            if claim["metadata"]["uid"] != reference["uid"]:
                return
            bound = await self._current(volume["metadata"]["name"])
            if _phase(claim) == "Bound" and bound is not None and _phase(bound) == "Bound":
                return
            if not said:
                self._say(f"wait until claim {where} is Bound")
                said = True
            if loop.time() > deadline:
                raise NotBound(
                    f"claim {where} is {_phase(claim)} after {self._wait:g} s; its volume is in "
                    "place with policy Retain, so nothing is lost. See that "
                    "kube-controller-manager runs, then repeat the command"
                )
            await asyncio.sleep(_LOOK)


def _same(one: Object, other: Object) -> bool:
    """Whether two volumes have the same source: drivers and in-tree plug-ins differ in it."""
    first, second = views.volume(one).spec.source(), views.volume(other).spec.source()
    if first[0] != second[0]:
        return False
    if first[0] == "csi":
        keys = ("driver", "volumeHandle")
        return all(first[1].get(key) == second[1].get(key) for key in keys)
    return True


def _describe(volume: Object) -> str:
    kind, fields = views.volume(volume).spec.source()
    return f"a csi volume of {fields.get('driver')}" if kind == "csi" else f"a volume with {kind}"


def _phase(obj: Object) -> str:
    return str((obj.get("status") or {}).get("phase", ""))
