"""One look at a VolumeSnapshotContent: take the snapshot, or look for it, or delete it.

The snapshot's name in the storage follows from the uid of the VolumeSnapshot, so a repeat finds
the one an earlier try has taken. An annotation says that one may be on its way; while it is there
the content cannot go.
"""

from __future__ import annotations

from collections.abc import Mapping

from holdfast.api import errors, kinds, snapshot_views
from holdfast.backends import errors as backend_errors
from holdfast.backends import secretrefs
from holdfast.backends.protocol import Snapshot, Snapshotter
from holdfast.controllers import secrets
from holdfast.controllers.provisioners import Provisioners
from holdfast.controllers.snapshots import writes
from holdfast.kit import clock
from holdfast.kit.backoff import Backoff, Pauses
from holdfast.runtime.client import Client, Object
from holdfast.runtime.controller import After, Controller, Done, Outcome
from holdfast.runtime.informer import Informers
from holdfast.runtime.recorder import Recorder

_KIND = kinds.SNAPSHOT_CONTENT
_WORKERS = 4
_NANOSECONDS = 10**9
# A snapshot that is not ready yet is asked about again after so many seconds.
_POLL = 2.0
_FIRST_RETRY, _LAST_RETRY = 1.0, 300.0


class ContentController:
    """The component; `run` until cancelled. `recorders` are those of the provisioners."""

    def __init__(
        self,
        client: Client,
        informers: Informers,
        recorders: dict[str, Recorder],
        provisioners: Provisioners,
    ) -> None:
        self._informers = informers
        self._contents = informers.of(_KIND)
        self._classes = informers.of(kinds.SNAPSHOT_CLASS)
        self._secrets = secrets.SecretReader(client)
        self._writes = writes.SnapshotWrites(client, informers)
        self._recorders = recorders
        self._provisioners = provisioners
        self._backoff = Backoff(_FIRST_RETRY, _LAST_RETRY)
        # When a content that failed may be tried again, in the event loop's time.
        # A pause is about taking (False) or deleting (True).
        self._pauses = Pauses()
        self.loop = Controller("snapshot-contents", self.reconcile, workers=_WORKERS)

    async def run(self) -> None:
        """Follow changes and reconcile until cancelled."""
        await self._informers.synced()
        self._contents.subscribe(self._changed)
        await self.loop.run()

    def _changed(self, old: Object | None, new: Object | None) -> None:
        if new is not None:
            self.loop.enqueue(new["metadata"]["name"])

    async def reconcile(self, name: str) -> Outcome:
        """Look at the content once."""
        obj = self._contents.get(name)
        if obj is None:
            self._forget(name)
            return Done
        content = snapshot_views.content(obj)
        storage = self._storage(content.spec.driver)
        if storage is None:
            return Done
        # The writes that tell of a failure must not be what tries again.
        if pause := self._pauses.left(name, content.metadata.terminating):
            return After(pause)
        try:
            if content.metadata.terminating:
                return await self._delete(obj, content, storage)
            if not content.spec.volume_snapshot_ref.uid or content.status.ready_to_use:
                return Done
            return await self._take(obj, content, storage)
        except errors.NotFound:
            return Done

    def _storage(self, driver: str) -> Snapshotter | None:
        served = self._provisioners.get(driver)
        backend = served.backend if served is not None else None
        return backend if isinstance(backend, Snapshotter) else None

    async def _take(
        self, obj: Object, content: snapshot_views.Content, storage: Snapshotter
    ) -> Outcome:
        name = content.metadata.name
        obj = await self._writes.hold(_KIND, obj, writes.CONTENT_BOUND)
        source = content.spec.source
        try:
            values = await self._secrets.read(writes.deletion_ref(content.metadata.annotations))
            if source.snapshot_handle is not None:
                taken = await storage.get_snapshot(source.snapshot_handle, secrets=values)
            else:
                obj = await self._writes.annotate(_KIND, obj, writes.BEING_CREATED, writes.YES)
                taken = await self._create(content, storage, values)
        except backend_errors.BackendError as error:
            return await self._failed(obj, content, error)
        self._forget(name)
        obj = await self._writes.status(_KIND, obj, _status(taken))
        await self._writes.annotate(_KIND, obj, writes.BEING_CREATED, None)
        return Done if taken.ready else After(_POLL)

    async def _create(
        self,
        content: snapshot_views.Content,
        storage: Snapshotter,
        values: Mapping[str, str],
    ) -> Snapshot:
        return await storage.create_snapshot(
            f"snapshot-{content.spec.volume_snapshot_ref.uid}",
            content.spec.source.volume_handle or "",
            parameters=self._parameters(content),
            secrets=values,
        )

    def _parameters(self, content: snapshot_views.Content) -> dict[str, str]:
        """What the snapshot's class says besides where its secrets are."""
        found = self._classes.get(content.spec.volume_snapshot_class_name or "")
        given = snapshot_views.snapshot_class(found).parameters if found is not None else None
        return secretrefs.strip(given or {})

    async def _failed(
        self, obj: Object, content: snapshot_views.Content, error: backend_errors.BackendError
    ) -> Outcome:
        if content.spec.source.snapshot_handle is not None:
            reason = "SnapshotContentCheckandUpdateFailed"
            message = f"Failed to check and update snapshot content: {error}"
        else:
            reason, message = "SnapshotCreationFailed", f"Failed to create snapshot: {error}"
        self._recorders[content.spec.driver].event(obj, "Warning", reason, message)
        obj = await self._writes.status(
            _KIND, obj, {"readyToUse": False, "error": writes.error_of(obj, message)}
        )
        # Every error of a backend means that nothing was kept.
        await self._writes.annotate(_KIND, obj, writes.BEING_CREATED, None)
        return self._pause(content.metadata.name, error)

    def _pause(self, name: str, error: backend_errors.BackendError) -> Outcome:
        delay = _LAST_RETRY if error.infeasible else self._backoff.next(name)
        if isinstance(error, secrets.Missing | secrets.Unusable):
            delay = min(delay, secrets.RETRY_SECONDS)
        self._pauses.begin(name, delay, False)
        return After(delay)

    def _forget(self, name: str) -> None:
        self._backoff.forget(name)
        self._pauses.end(name)

    async def _delete(
        self, obj: Object, content: snapshot_views.Content, storage: Snapshotter
    ) -> Outcome:
        held = writes.CONTENT_BOUND in content.metadata.finalizers
        being_deleted = writes.BEING_DELETED in content.metadata.annotations
        bound = bool(content.spec.volume_snapshot_ref.uid)
        if not held or (bound and not being_deleted):
            # A bound content goes only with its snapshot.
            return Done
        if content.spec.deletion_policy == "Delete":
            try:
                await self._delete_storage(content, storage)
            except backend_errors.BackendError as error:
                self._recorders[content.spec.driver].event(
                    obj, "Warning", "SnapshotDeleteError", f"Failed to delete snapshot: {error}"
                )
                wanted = {"error": writes.error_of(obj, f"Failed to delete snapshot: {error}")}
                await self._writes.status(_KIND, obj, wanted)
                delay = self._backoff.next(content.metadata.name)
                self._pauses.begin(content.metadata.name, delay, True)
                return After(delay)
        self._forget(content.metadata.name)
        await self._writes.release(_KIND, obj, writes.CONTENT_BOUND)
        return Done

    async def _delete_storage(self, content: snapshot_views.Content, storage: Snapshotter) -> None:
        handle = content.status.snapshot_handle or content.spec.source.snapshot_handle
        begun = writes.BEING_CREATED in content.metadata.annotations
        if not handle and not begun:
            return
        values = await self._secrets.read(writes.deletion_ref(content.metadata.annotations))
        if not handle:
            # One that was on its way when a crash came: taking it again tells which it is.
            try:
                handle = (await self._create(content, storage, values)).id
            except (backend_errors.NotFound, backend_errors.Invalid):
                # Without its volume it cannot have been taken.
                return
        await storage.delete_snapshot(handle, secrets=values)


def _status(taken: Snapshot) -> Object:
    when = clock.parse(taken.created)
    return {
        "snapshotHandle": taken.id,
        "creationTime": int(when.timestamp()) * _NANOSECONDS,
        "restoreSize": taken.size,
        "readyToUse": taken.ready,
        "error": None,
    }
