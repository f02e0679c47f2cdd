"""One look at a VolumeSnapshot: find or make its content, tell how far it is, let it go.

A dynamic snapshot names a claim: its content is made here and the storage's part is done by
`contents`. A pre-provisioned one names a content: the two are bound when each names the other.
The claim a snapshot is taken of is held until it is taken, and a snapshot a claim is being
restored from is held until that is done.
"""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime

from holdfast.api import errors, kinds, quantity, snapshot_views
from holdfast.controllers.provisioners import Provisioners
from holdfast.controllers.snapshots import making, writes
from holdfast.kit import clock
from holdfast.kit.backoff import Backoff
from holdfast.runtime.client import Client, Object
from holdfast.runtime.controller import After, Controller, Done, Outcome
from holdfast.runtime.informer import Informers
from holdfast.runtime.recorder import Recorder

COMPONENT = "snapshot-controller"
_KIND = kinds.SNAPSHOT
_WORKERS = 4
_MISSING = "VolumeSnapshotContent is missing"
_MISBOUND = "VolumeSnapshotContent is not bound to the VolumeSnapshot correctly"

Key = tuple[str, str]


class SnapshotController:
    """The component; `run` until cancelled."""

    def __init__(
        self, client: Client, informers: Informers, recorder: Recorder, provisioners: Provisioners
    ) -> None:
        self._client = client
        self._informers = informers
        self._snapshots = informers.of(_KIND)
        self._contents = informers.of(kinds.SNAPSHOT_CONTENT)
        self._classes = informers.of(kinds.SNAPSHOT_CLASS)
        self._claims = informers.of(kinds.CLAIM)
        self._contents.add_index(writes.CONTENTS_OF, writes.snapshot_of)
        self._snapshots.add_index(writes.SNAPSHOTS_OF, writes.claim_of)
        self._claims.add_index(writes.CLAIMS_OF, writes.restored_from)
        self._writes = writes.SnapshotWrites(client, informers)
        self._recorder = recorder
        self._maker = making.ContentMaker(client, informers, recorder, provisioners)
        self._backoff = Backoff(1.0, 300.0)
        self.loop = Controller("snapshots", self.reconcile, workers=_WORKERS)
        self._claim_loop = Controller("snapshot-sources", self._release_claim)

    async def run(self) -> None:
        """Follow changes and reconcile until cancelled."""
        await self._informers.synced()
        self._snapshots.subscribe(self._snapshot_changed)
        self._contents.subscribe(self._content_changed)
        self._claims.subscribe(self._claim_changed)
        self._classes.subscribe(self._class_changed)
        async with asyncio.TaskGroup() as group:
            group.create_task(self.loop.run())
            group.create_task(self._claim_loop.run())

    # What wakes snapshots

    def _snapshot_changed(self, old: Object | None, new: Object | None) -> None:
        obj = new or old
        assert obj is not None
        self.loop.enqueue((obj["metadata"]["namespace"], obj["metadata"]["name"]))
        for claim in writes.claim_of(obj):
            self._claim_loop.enqueue(claim)

    def _content_changed(self, old: Object | None, new: Object | None) -> None:
        for obj in (old, new):
            for key in writes.snapshot_of(obj) if obj is not None else ():
                if self._snapshots.get(key[1], key[0]) is not None:
                    self.loop.enqueue(key)
        if old is None and new is not None:
            # A snapshot may have named this content before it was there.
            for snapshot in self._snapshots.all():
                source = snapshot["spec"].get("source") or {}
                if source.get("volumeSnapshotContentName") == new["metadata"]["name"]:
                    self._snapshot_changed(None, snapshot)

    def _claim_changed(self, old: Object | None, new: Object | None) -> None:
        obj = new or old
        assert obj is not None
        key = (obj["metadata"]["namespace"], obj["metadata"]["name"])
        for snapshot in list(self._snapshots.by(writes.SNAPSHOTS_OF, key)):
            if not (snapshot.get("status") or {}).get("readyToUse"):
                self._snapshot_changed(None, snapshot)
        for source in writes.restored_from(obj):
            if self._snapshots.get(source[1], source[0]) is not None:
                self.loop.enqueue(source)

    def _class_changed(self, old: Object | None, new: Object | None) -> None:
        for snapshot in self._snapshots.all():
            if not (snapshot.get("status") or {}).get("readyToUse"):
                self._snapshot_changed(None, snapshot)

    # One snapshot

    async def reconcile(self, key: Key) -> Outcome:
        """Look at the snapshot once."""
        obj = self._snapshots.get(key[1], key[0])
        if obj is None:
            self._backoff.forget(key)
            return Done
        snapshot = snapshot_views.snapshot(obj)
        try:
            if snapshot.metadata.terminating:
                return await self._let_go(obj, snapshot)
            await self._bind(obj, snapshot)
        except errors.NotFound:
            return Done
        except making.Refused as refusal:
            self._recorder.event(obj, "Warning", refusal.reason, str(refusal))
            obj = self._snapshots.get(key[1], key[0]) or obj
            wanted = {"readyToUse": False, "error": writes.error_of(obj, str(refusal))}
            await self._writes.status(_KIND, obj, wanted)
            return After(self._backoff.next(key))
        self._backoff.forget(key)
        return Done

    async def _bind(self, obj: Object, snapshot: snapshot_views.Snapshot) -> None:
        obj = await self._writes.hold(_KIND, obj, writes.AS_SOURCE, writes.BOUND)
        if snapshot.dynamic:
            found = self._contents.get(making.content_name(snapshot))
            if found is None and snapshot.status.bound_volume_snapshot_content_name:
                raise making.Refused("SnapshotContentMissing", _MISSING)
            if found is None:
                obj, found = await self._maker.make(obj, snapshot)
        else:
            found = self._contents.get(snapshot.spec.source.volume_snapshot_content_name or "")
            if found is None:
                raise making.Refused("SnapshotContentMissing", _MISSING)
        content = snapshot_views.content(found)
        if not content.is_for(snapshot):
            known = bool(snapshot.status.bound_volume_snapshot_content_name)
            name = content.metadata.name
            raise making.Refused(
                "SnapshotMisbound" if known else "SnapshotContentMisbound",
                _MISBOUND
                if known
                else f"VolumeSnapshotContent [{name}] is bound to a different snapshot",
            )
        if not snapshot.dynamic:
            found = await self._take_content(found, content, snapshot)
        await self._tell(obj, snapshot, snapshot_views.content(found))

    async def _take_content(
        self, found: Object, content: snapshot_views.Content, snapshot: snapshot_views.Snapshot
    ) -> Object:
        """Bind a content that was there before the snapshot."""
        if content.spec.source.snapshot_handle is None:
            raise making.Refused(
                "SnapshotContentMismatch",
                "VolumeSnapshotContent is dynamically provisioned while expecting a "
                "pre-provisioned one",
            )
        if content.spec.volume_snapshot_ref.uid:
            return found
        spec: Object = {"volumeSnapshotRef": {"uid": snapshot.metadata.uid}}
        if snapshot.spec.volume_snapshot_class_name is not None:
            spec["volumeSnapshotClassName"] = snapshot.spec.volume_snapshot_class_name
        return await self._writes.patch(kinds.SNAPSHOT_CONTENT, found, {"spec": spec})

    async def _tell(
        self, obj: Object, snapshot: snapshot_views.Snapshot, content: snapshot_views.Content
    ) -> None:
        """Show on the snapshot what its content says."""
        status, was = content.status, snapshot.status
        wanted: Object = {
            "boundVolumeSnapshotContentName": content.metadata.name,
            "readyToUse": status.ready_to_use,
            "error": {**status.error} if status.error else None,
        }
        if status.creation_time is not None:
            when = datetime.fromtimestamp(status.creation_time // 10**9, UTC)
            wanted["creationTime"] = clock.rfc3339(when)
        if status.restore_size is not None:
            size = quantity.Quantity.of_bytes(status.restore_size)
            wanted["restoreSize"] = size.canonical()
        await self._writes.status(_KIND, obj, wanted)
        where = f"{snapshot.metadata.namespace}/{snapshot.metadata.name}"
        if status.creation_time is not None and was.creation_time is None:
            text = f"Snapshot {where} was successfully created by the CSI driver."
            self._recorder.event(obj, "Normal", "SnapshotCreated", text)
        if status.ready_to_use and not was.ready_to_use:
            text = f"Snapshot {where} is ready to use."
            self._recorder.event(obj, "Normal", "SnapshotReady", text)

    # Letting go

    async def _let_go(self, obj: Object, snapshot: snapshot_views.Snapshot) -> Outcome:
        key = snapshot.metadata.key
        if any(_is_pending(claim) for claim in self._claims.by(writes.CLAIMS_OF, key)):
            text = "Snapshot is being used to restore a PVC"
            self._recorder.event(obj, "Warning", "SnapshotDeletePending", text)
            return Done
        content = self._content_of(snapshot)
        if content is not None:
            kind = kinds.SNAPSHOT_CONTENT
            content = await self._writes.annotate(kind, content, writes.BEING_DELETED, writes.YES)
            if content["spec"].get("deletionPolicy") == "Delete":
                if "deletionTimestamp" not in content["metadata"]:
                    meta = content["metadata"]
                    await self._client.delete(kind, meta["name"], uid=meta["uid"])
                # The content's end wakes the snapshot again.
                return Done
        await self._writes.release(_KIND, obj, writes.AS_SOURCE, writes.BOUND)
        return Done

    def _content_of(self, snapshot: snapshot_views.Snapshot) -> Object | None:
        for obj in self._contents.by(writes.CONTENTS_OF, snapshot.metadata.key):
            if snapshot_views.content(obj).spec.volume_snapshot_ref.uid == snapshot.metadata.uid:
                return obj
        return None

    async def _release_claim(self, key: Key) -> Outcome:
        """Let go of a claim when no snapshot of it is being taken."""
        claim = self._claims.get(key[1], key[0])
        if claim is None or writes.CLAIM_AS_SOURCE not in (
            claim["metadata"].get("finalizers") or ()
        ):
            return Done
        snapshots = self._snapshots.by(writes.SNAPSHOTS_OF, key)
        if not any(self._is_being_taken(each) for each in snapshots):
            await self._writes.release(kinds.CLAIM, claim, writes.CLAIM_AS_SOURCE)
        return Done

    def _is_being_taken(self, obj: Object) -> bool:
        snapshot = snapshot_views.snapshot(obj)
        if snapshot.metadata.terminating or snapshot.status.ready_to_use:
            return False
        return self._contents.get(making.content_name(snapshot)) is not None or (
            snapshot.status.error is None
        )


def _is_pending(claim: Object) -> bool:
    return (claim.get("status") or {}).get("phase") == "Pending"
