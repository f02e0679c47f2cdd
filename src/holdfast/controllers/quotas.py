"""Keeps the status of ResourceQuotas: the limits in force and what is used of them.

Admission counts for itself; the status is for people and other programs. It follows the objects
of its namespace within a moment, counted from the caches of the kinds that some quota limits.
"""

from __future__ import annotations

from holdfast.api import errors, kinds, usage
from holdfast.runtime.client import Client, Object
from holdfast.runtime.controller import Controller, Done, Outcome
from holdfast.runtime.informer import Informers, Key

_KIND = kinds.RESOURCE_QUOTA
_BY_NAMESPACE = "quotas/by-namespace"
# Many objects change together; they are counted once.
_DELAY = 0.1


class QuotaStatus:
    """The component; `run` until cancelled."""

    def __init__(self, client: Client, informers: Informers) -> None:
        self._client = client
        self._informers = informers
        self._quotas = informers.of(_KIND)
        self._quotas.add_index(_BY_NAMESPACE, _namespace_of)
        # The kinds some quota has asked about so far.
        self._counted: set[kinds.Kind] = set()
        self.loop = Controller("quotas", self.reconcile)

    async def run(self) -> None:
        """Follow changes until cancelled."""
        await self._quotas.synced()
        self._quotas.subscribe(self._quota_changed)
        await self.loop.run()

    def _quota_changed(self, old: Object | None, new: Object | None) -> None:
        if new is not None and (old is None or old["spec"] != new["spec"]):
            self.loop.enqueue((new["metadata"]["namespace"], new["metadata"]["name"]))

    def _object_changed(self, old: Object | None, new: Object | None) -> None:
        obj = new if new is not None else old
        assert obj is not None
        for quota in self._quotas.by(_BY_NAMESPACE, obj["metadata"]["namespace"]):
            meta = quota["metadata"]
            self.loop.enqueue_after((meta["namespace"], meta["name"]), _DELAY)

    async def reconcile(self, key: Key) -> Outcome:
        """Count for one quota."""
        obj = self._quotas.get(key[1], key[0])
        if obj is None or "deletionTimestamp" in obj["metadata"]:
            return Done
        hard = (obj.get("spec") or {}).get("hard") or {}
        used: usage.Amounts = {}
        for kind in dict.fromkeys(kind for name in hard for kind in usage.counted_by(name)):
            found = await self._objects(kind, key[0])
            covered = (each for each in found if usage.covers(obj, kind, each))
            used |= usage.total(kind, covered, hard)
        wanted = {
            "hard": dict(hard),
            "used": {name: used[name].canonical() for name in sorted(used)},
        }
        if (obj.get("status") or {}) != wanted:
            await self._write(obj, wanted)
        return Done

    async def _objects(self, kind: kinds.Kind, namespace: str) -> list[Object]:
        informer = self._informers.of(kind)
        await informer.synced()
        if kind not in self._counted:
            self._counted.add(kind)
            informer.subscribe(self._object_changed)
        return [obj for obj in informer.all() if obj["metadata"]["namespace"] == namespace]

    async def _write(self, obj: Object, wanted: Object) -> None:
        meta, current = obj["metadata"], obj.get("status") or {}
        # A merge patch keeps what it does not name: say which entries go.
        status = {
            part: {name: None for name in current.get(part) or {}} | wanted[part]
            for part in ("hard", "used")
        }
        patch = {"metadata": {"resourceVersion": meta["resourceVersion"]}, "status": status}
        try:
            written = await self._client.patch(
                _KIND, meta["name"], patch, meta["namespace"], subresource="status"
            )
        except errors.NotFound:
            return
        self._quotas.observe(written)


def _namespace_of(obj: Object) -> tuple[str, ...]:
    return (obj["metadata"]["namespace"],)
