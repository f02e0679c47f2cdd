"""Makes the content of a snapshot that is to be taken of a claim.

Class, claim and volume are looked at first, in the order in which the reference complains about
them; then the claim is held, so that it cannot go before its snapshot is taken, and the content
is written under a name that follows from the snapshot's uid.
"""

from __future__ import annotations

from holdfast.api import errors, kinds, snapshot_views, views
from holdfast.backends import errors as backend_errors
from holdfast.backends import registry, secretrefs
from holdfast.backends.protocol import Snapshotter
from holdfast.controllers.provisioners import Provisioners
from holdfast.controllers.snapshots import writes
from holdfast.runtime.client import Client, Object
from holdfast.runtime.informer import Informers
from holdfast.runtime.recorder import Recorder

_KIND = kinds.SNAPSHOT
_FAILED = "SnapshotContentCreationFailed"
_PREFIX = "Failed to create snapshot content with error "


class Refused(Exception):
    """The snapshot cannot be served now; `reason` names the event, the text explains."""

    def __init__(self, reason: str, why: str) -> None:
        super().__init__(why)
        self.reason = reason


class ContentMaker:
    """Called by the snapshot controller for a snapshot without a content."""

    def __init__(
        self, client: Client, informers: Informers, recorder: Recorder, provisioners: Provisioners
    ) -> None:
        self._client = client
        self._contents = informers.of(kinds.SNAPSHOT_CONTENT)
        self._classes = informers.of(kinds.SNAPSHOT_CLASS)
        self._claims = informers.of(kinds.CLAIM)
        self._volumes = informers.of(kinds.VOLUME)
        self._writes = writes.SnapshotWrites(client, informers)
        self._recorder = recorder
        self._provisioners = provisioners

    async def make(self, obj: Object, snapshot: snapshot_views.Snapshot) -> tuple[Object, Object]:
        """Return the snapshot as it is then, and its content. Raises Refused."""
        name = snapshot.spec.source.persistent_volume_claim_name or ""
        claim, volume = self._source(snapshot, name)
        maker = views.volume(volume).metadata.annotations.get(views.PROVISIONED_BY, "")
        # A static volume is nobody's make; its source says which driver it is of.
        driver = self._provisioners.migrated(maker) or registry.driver_of(volume["spec"])
        obj, found = await self._class_of(obj, snapshot, driver)
        if found.driver != driver:
            raise Refused(
                _FAILED,
                f"{_PREFIX}the volume of claim {name} is of "
                f"driver {driver or 'none'}, the snapshot class {found.metadata.name} of driver "
                f"{found.driver}",
            )
        handle = self._handle(volume, driver)
        await self._writes.hold(kinds.CLAIM, claim, writes.CLAIM_AS_SOURCE)
        mode = volume["spec"].get("volumeMode")
        body = _content_body(snapshot, found, handle, mode, _secret_of(snapshot, found))
        try:
            content = await self._client.create(kinds.SNAPSHOT_CONTENT, body)
        except errors.AlreadyExists:
            content = await self._client.get(kinds.SNAPSHOT_CONTENT, content_name(snapshot))
        self._contents.observe(content)
        where = f"{snapshot.metadata.namespace}/{snapshot.metadata.name}"
        text = f"Waiting for a snapshot {where} to be created by the CSI driver."
        self._recorder.event(obj, "Normal", "CreatingSnapshot", text)
        return obj, content

    def _source(self, snapshot: snapshot_views.Snapshot, name: str) -> tuple[Object, Object]:
        """Return the claim to keep and its volume."""
        claim = self._claims.get(name, snapshot.metadata.namespace)
        if claim is None:
            raise Refused(
                _FAILED,
                f"{_PREFIX}snapshot controller failed to update {snapshot.metadata.name} on API "
                f'server: cannot get claim from snapshot: persistentvolumeclaim "{name}" not found',
            )
        if "deletionTimestamp" in claim["metadata"]:
            raise Refused(_FAILED, f"{_PREFIX}the PVC {name} is being deleted")
        volume = self._volumes.get(claim["spec"].get("volumeName") or "")
        if (claim.get("status") or {}).get("phase") != "Bound" or volume is None:
            raise Refused(
                _FAILED,
                f"{_PREFIX}the PVC {name} is not yet bound to a PV, "
                "will not attempt to take a snapshot",
            )
        return claim, volume

    def _handle(self, volume: Object, driver: str) -> str:
        served = self._provisioners.get(driver)
        handle = registry.handle_of(volume["spec"], volume["metadata"].get("annotations"))
        if handle is None or served is None or not isinstance(served.backend, Snapshotter):
            raise Refused(
                _FAILED,
                f"{_PREFIX}cannot find a driver that takes snapshots "
                f" of volume {volume['metadata']['name']}",
            )
        return handle[1].id

    async def _class_of(
        self, obj: Object, snapshot: snapshot_views.Snapshot, driver: str
    ) -> tuple[Object, snapshot_views.SnapshotClass]:
        """Return the snapshot's class, and the snapshot with it filled in."""
        name = snapshot.spec.volume_snapshot_class_name
        if name is not None:
            found = self._classes.get(name)
            if found is None:
                raise Refused(
                    "GetSnapshotClassFailed",
                    f'Failed to get snapshot class with error volumesnapshotclass "{name}" '
                    "not found",
                )
            return obj, snapshot_views.snapshot_class(found)
        classes = [snapshot_views.snapshot_class(each) for each in self._classes.all()]
        defaults = [
            each
            for each in classes
            if each.metadata.annotations.get(snapshot_views.DEFAULT_CLASS) == "true"
            and each.driver == driver
        ]
        if len(defaults) != 1:
            why = (
                f"{len(defaults)} default snapshot classes were found"
                if defaults
                else "cannot find default snapshot class"
            )
            raise Refused(
                "SetDefaultSnapshotClassFailed",
                f"Failed to set default snapshot class with error {why}",
            )
        patch = {"spec": {"volumeSnapshotClassName": defaults[0].metadata.name}}
        return await self._writes.patch(_KIND, obj, patch), defaults[0]


def content_name(snapshot: snapshot_views.Snapshot) -> str:
    """Return the name of a dynamic snapshot's content."""
    return f"snapcontent-{snapshot.metadata.uid}"


def _secret_of(
    snapshot: snapshot_views.Snapshot, snapshot_class: snapshot_views.SnapshotClass
) -> secretrefs.SecretRef | None:
    meta = snapshot.metadata
    identity = secretrefs.SnapshotIdentity(meta.namespace, meta.name, content_name(snapshot))
    try:
        return secretrefs.of_snapshot_class(snapshot_class.parameters or {}, identity)
    except backend_errors.Invalid as error:
        raise Refused(_FAILED, f"{_PREFIX}{error}") from error


def _content_body(
    snapshot: snapshot_views.Snapshot,
    snapshot_class: snapshot_views.SnapshotClass,
    handle: str,
    mode: str | None,
    secret: secretrefs.SecretRef | None,
) -> Object:
    meta = snapshot.metadata
    spec: Object = {
        "volumeSnapshotRef": {
            "apiVersion": _KIND.api_version,
            "kind": _KIND.name,
            "namespace": meta.namespace,
            "name": meta.name,
            "uid": meta.uid,
            "resourceVersion": meta.resource_version,
        },
        "deletionPolicy": snapshot_class.deletion_policy,
        "driver": snapshot_class.driver,
        "volumeSnapshotClassName": snapshot_class.metadata.name,
        "source": {"volumeHandle": handle},
        "sourceVolumeMode": mode or "Filesystem",
    }
    metadata: Object = {"name": content_name(snapshot), "finalizers": [writes.CONTENT_BOUND]}
    if secret is not None:
        metadata["annotations"] = writes.deletion_annotations(secret)
    return {"metadata": metadata, "spec": spec}
