"""What a claim's volume starts with: the content of a snapshot, or of another claim's volume.

The checks and their texts are external-provisioner's. A source is protected while it is copied:
a snapshot by its controller, a claim by a finalizer that `CloneProtection` takes away when no
clone of it is pending any more.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from holdfast.api import kinds, quantity, snapshot_views, views
from holdfast.backends import errors as backend_errors
from holdfast.backends import registry
from holdfast.backends.protocol import Cloner, Snapshotter, VolumeSource
from holdfast.controllers.binding.writes import Writes
from holdfast.controllers.provisioners import Served
from holdfast.runtime.client import Client, Object
from holdfast.runtime.controller import Controller, Done, Outcome
from holdfast.runtime.informer import Informers

CLONING = "provisioner.storage.kubernetes.io/cloning-protection"
_WAITING_FOR = "provisioning/waiting-for-source"

Key = tuple[str, str]
Source = views.TypedReference


class Sources:
    """Finds sources and holds them."""

    def __init__(self, client: Client, informers: Informers) -> None:
        self._claims = informers.of(kinds.CLAIM)
        self._volumes = informers.of(kinds.VOLUME)
        self._snapshots = informers.of(kinds.SNAPSHOT)
        self._contents = informers.of(kinds.SNAPSHOT_CONTENT)
        self._claims.add_index(_WAITING_FOR, _pending_source)
        self._writes = Writes(client, informers)

    def follow(self, wake: Callable[[Object], None]) -> None:
        """Call `wake` with each pending claim whose source has changed."""

        def changed(old: Object | None, new: Object | None) -> None:
            obj = new if new is not None else old
            assert obj is not None
            meta = obj["metadata"]
            key = (obj["kind"], meta["namespace"], meta["name"])
            for claim in list(self._claims.by(_WAITING_FOR, key)):
                wake(claim)

        self._snapshots.subscribe(changed)
        self._claims.subscribe(changed)

    async def of(self, claim: views.Claim, served: Served) -> VolumeSource | None:
        """Return the source, held while it is needed; raises a BackendError that says why not."""
        source = claim.spec.data_source_ref or claim.spec.data_source
        if source is None:
            return None
        where = f"{claim.metadata.namespace}/{source.name}"
        if source.kind == "VolumeSnapshot":
            return VolumeSource("snapshot", self._snapshot(claim, source, served))
        if source.kind != "PersistentVolumeClaim":
            raise backend_errors.Unsupported(
                f"a data source of kind {source.kind} is not supported",
                where,
                "name a PersistentVolumeClaim or a VolumeSnapshot",
            )
        origin, handle = self._clone(claim, source, served)
        if CLONING not in (origin["metadata"].get("finalizers") or ()):
            finalizers = [*(origin["metadata"].get("finalizers") or ()), CLONING]
            await self._writes.claim(origin, {"metadata": {"finalizers": finalizers}})
        return VolumeSource("volume", handle)

    def _clone(self, claim: views.Claim, source: Source, served: Served) -> tuple[Object, str]:
        if not isinstance(served.backend, Cloner):
            raise _refusal(source, f"driver {served.name.name} does not support cloning")
        found = self._claims.get(source.name, claim.metadata.namespace)
        if found is None:
            what = f'error getting PVC {source.name} (namespace "{claim.metadata.namespace}") '
            raise _missing(
                source, f'{what}from api server: persistentvolumeclaim "{source.name}" not found'
            )
        origin = views.claim(found)
        if origin.metadata.terminating:
            raise _missing(source, f"the PVC DataSource {source.name} is currently being deleted")
        phase = origin.status.phase
        volume = self._volumes.get(origin.spec.volume_name)
        if phase != "Bound" or volume is None:
            text = f"the PVC DataSource {source.name} must have a status of Bound.  Got {phase}"
            raise _missing(source, text)
        _check_clone(source, claim, origin)
        handle = registry.handle_of(volume["spec"], volume["metadata"].get("annotations"))
        if handle is None or handle[0] != served.name.backend:
            name = volume["metadata"]["name"]
            text = f"the source volume {name} is not of {served.name.name}"
            raise _refusal(source, text)
        return found, handle[1].id

    def _snapshot(self, claim: views.Claim, source: Source, served: Served) -> str:
        if not isinstance(served.backend, Snapshotter):
            raise _refusal(source, f"driver {served.name.name} does not support snapshots")
        namespace = claim.metadata.namespace
        found = self._snapshots.get(source.name, namespace)
        if found is None:
            text = f"error getting snapshot {source.name} from api server: "
            raise _missing(source, f'{text}volumesnapshot "{source.name}" not found')
        snapshot = snapshot_views.snapshot(found)
        if snapshot.metadata.terminating:
            raise _missing(source, f"snapshot {source.name} is currently being deleted")
        content = self._content(source, snapshot)
        if content.spec.driver != served.driver:
            text = "snapshot content driver does not match the provisioner: "
            raise _refusal(source, f"{text}{content.spec.driver} and {served.driver}")
        if not snapshot.status.ready_to_use or not content.status.snapshot_handle:
            raise _missing(source, f"snapshot {source.name} is not Ready")
        _check_restore(source, claim, content)
        return content.status.snapshot_handle

    def _content(self, source: Source, snapshot: snapshot_views.Snapshot) -> snapshot_views.Content:
        name = snapshot.status.bound_volume_snapshot_content_name
        if not name:
            raise _missing(source, f"snapshot {source.name} not bound")
        found = self._contents.get(name)
        content = snapshot_views.content(found) if found is not None else None
        if content is None or content.spec.volume_snapshot_ref.uid != snapshot.metadata.uid:
            raise _missing(source, f"snapshot {source.name} not bound")
        return content


class CloneProtection:
    """Lets go of the claims that clones were made of."""

    def __init__(self, client: Client, informers: Informers) -> None:
        self._informers = informers
        self._claims = informers.of(kinds.CLAIM)
        self._claims.add_index(_WAITING_FOR, _pending_source)
        self._writes = Writes(client, informers)
        self.loop = Controller("clone-protection", self.reconcile)

    async def run(self) -> None:
        """Follow changes until cancelled."""
        await self._informers.synced()
        self._claims.subscribe(self._changed)
        await self.loop.run()

    def _changed(self, old: Object | None, new: Object | None) -> None:
        for obj in (old, new):
            if obj is None:
                continue
            meta = obj["metadata"]
            if CLONING in (meta.get("finalizers") or ()):
                self.loop.enqueue((meta["namespace"], meta["name"]))
            for kind, namespace, name in _pending_source(obj):
                if kind == "PersistentVolumeClaim":
                    self.loop.enqueue((namespace, name))

    async def reconcile(self, key: Key) -> Outcome:
        """Look at the source claim once."""
        obj = self._claims.get(key[1], key[0])
        if obj is None or CLONING not in (obj["metadata"].get("finalizers") or ()):
            return Done
        if not self._claims.by(_WAITING_FOR, ("PersistentVolumeClaim", *key)):
            kept = [name for name in obj["metadata"]["finalizers"] if name != CLONING]
            await self._writes.claim(obj, {"metadata": {"finalizers": kept}})
        return Done


def _check_clone(source: Source, claim: views.Claim, origin: views.Claim) -> None:
    asked = quantity.parse(claim.spec.request)
    had = quantity.parse(origin.status.capacity.get("storage", "0"))
    if asked < had:
        raise _refusal(
            source,
            "new PVC request must be greater than or equal in size to the specified PVC data "
            f"source, requested {asked.bytes()} but source is {had.bytes()}",
        )
    if claim.spec.volume_mode != origin.spec.volume_mode:
        raise _refusal(
            source,
            "the source PVC and destination PVCs must have the same volume mode for cloning.  "
            f"Source is {origin.spec.volume_mode}, but new PVC requested {claim.spec.volume_mode}",
        )


def _check_restore(source: Source, claim: views.Claim, content: snapshot_views.Content) -> None:
    asked, needed = quantity.parse(claim.spec.request).bytes(), content.status.restore_size or 0
    if asked < needed:
        raise _refusal(
            source,
            f"requested volume size {asked} is less than the size {needed} "
            f"for the source snapshot {source.name}",
        )
    mode = content.spec.source_volume_mode
    allowed = content.metadata.annotations.get(snapshot_views.MODE_CHANGE) == "true"
    if mode and mode != claim.spec.volume_mode and not allowed:
        where = f"{claim.metadata.namespace}/{claim.metadata.name}"
        raise _refusal(
            source,
            f"requested volume {where} modifies the mode of the source volume but does not have "
            f"permission to do so. {snapshot_views.MODE_CHANGE} annotation is not present on "
            f"snapshotcontent {content.metadata.name}",
        )


def _text(source: Source, why: str) -> str:
    return f"error getting handle for DataSource Type {source.kind} by Name {source.name}: {why}"


def _refusal(source: Source, why: str) -> backend_errors.Invalid:
    """As the claim and its source are, it will not work."""
    return backend_errors.Invalid(_text(source, why))


def _missing(source: Source, why: str) -> backend_errors.NotFound:
    """The source may become usable."""
    return backend_errors.NotFound(_text(source, why))


def _pending_source(claim: Object) -> Iterable[tuple[str, str, str]]:
    """Return (kind, namespace, name) of what a pending claim starts from, for an index."""
    source = claim["spec"].get("dataSourceRef") or claim["spec"].get("dataSource")
    if not source or (claim.get("status") or {}).get("phase") != "Pending":
        return ()
    return ((source.get("kind", ""), claim["metadata"]["namespace"], source.get("name", "")),)
