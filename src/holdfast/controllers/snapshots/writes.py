"""What the two snapshot controllers write, and the names they write with."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from holdfast.api import errors, kinds
from holdfast.backends.secretrefs import SecretRef
from holdfast.kit import clock
from holdfast.runtime.client import Client, Object
from holdfast.runtime.informer import Informers

PREFIX: Final = "snapshot.storage.kubernetes.io"
BOUND: Final = f"{PREFIX}/volumesnapshot-bound-protection"
AS_SOURCE: Final = f"{PREFIX}/volumesnapshot-as-source-protection"
CONTENT_BOUND: Final = f"{PREFIX}/volumesnapshotcontent-bound-protection"
CLAIM_AS_SOURCE: Final = f"{PREFIX}/pvc-as-source-protection"
BEING_CREATED: Final = f"{PREFIX}/volumesnapshot-being-created"
BEING_DELETED: Final = f"{PREFIX}/volumesnapshot-being-deleted"
YES: Final = "yes"
# Where the secret is that the snapshot was taken with and is deleted with.
DELETION_NAME: Final = f"{PREFIX}/deletion-secret-name"
DELETION_NAMESPACE: Final = f"{PREFIX}/deletion-secret-namespace"

CONTENTS_OF: Final = "snapshots/contents-of-snapshot"
SNAPSHOTS_OF: Final = "snapshots/snapshots-of-claim"
CLAIMS_OF: Final = "snapshots/claims-of-snapshot"

Key = tuple[str, str]


class SnapshotWrites:
    """Writes objects as they were read, and feeds the results back to the informers."""

    def __init__(self, client: Client, informers: Informers) -> None:
        self._client = client
        self._informers = informers

    async def patch(
        self, kind: kinds.Kind, obj: Object, patch: Object, *, status: bool = False
    ) -> Object:
        """Patch an object as it was read; Conflict if it has changed since."""
        meta = obj["metadata"]
        based = {"resourceVersion": meta["resourceVersion"], "uid": meta["uid"]}
        written = await self._client.patch(
            kind,
            meta["name"],
            {**patch, "metadata": {**patch.get("metadata", {}), **based}},
            meta.get("namespace"),
            subresource="status" if status else None,
        )
        gone = "deletionTimestamp" in written["metadata"] and not written["metadata"].get(
            "finalizers"
        )
        if not gone:
            self._informers.of(kind).observe(written)
        return written

    async def status(self, kind: kinds.Kind, obj: Object, wanted: Object) -> Object:
        """Make the status say `wanted` (None removes); nothing is written that is so already."""
        current = obj.get("status") or {}
        changed = {key: value for key, value in wanted.items() if current.get(key) != value}
        if not changed:
            return obj
        return await self.patch(kind, obj, {"status": changed}, status=True)

    async def hold(self, kind: kinds.Kind, obj: Object, *finalizers: str) -> Object:
        """Add finalizers; an object that is being deleted gets none."""
        present = obj["metadata"].get("finalizers") or []
        missing = [name for name in finalizers if name not in present]
        if not missing or "deletionTimestamp" in obj["metadata"]:
            return obj
        return await self.patch(kind, obj, {"metadata": {"finalizers": [*present, *missing]}})

    async def release(self, kind: kinds.Kind, obj: Object, *finalizers: str) -> None:
        """Remove finalizers."""
        present = obj["metadata"].get("finalizers") or []
        kept = [name for name in present if name not in finalizers]
        if kept == present:
            return
        try:
            await self.patch(kind, obj, {"metadata": {"finalizers": kept}})
        except errors.NotFound:
            return

    async def annotate(self, kind: kinds.Kind, obj: Object, key: str, value: str | None) -> Object:
        """Set an annotation, or remove it."""
        if (obj["metadata"].get("annotations") or {}).get(key) == value:
            return obj
        return await self.patch(kind, obj, {"metadata": {"annotations": {key: value}}})


def deletion_annotations(ref: SecretRef | None) -> dict[str, str]:
    """Return the annotations by which a content remembers its secret."""
    return {} if ref is None else {DELETION_NAME: ref.name, DELETION_NAMESPACE: ref.namespace}


def deletion_ref(annotations: Mapping[str, str]) -> SecretRef | None:
    """Return the reference that `deletion_annotations` wrote, or an administrator."""
    name, namespace = annotations.get(DELETION_NAME), annotations.get(DELETION_NAMESPACE)
    return SecretRef(namespace, name) if name and namespace else None


def error_of(obj: Object, message: str) -> Object:
    """Return status.error with this message; its time moves only when the message does."""
    current: Object = (obj.get("status") or {}).get("error") or {}
    if current.get("message") == message:
        return current
    return {"time": clock.rfc3339(clock.now()), "message": message}


def snapshot_of(content: Object) -> tuple[Key, ...]:
    """Return the key of the snapshot a content belongs to, for an index."""
    reference = content["spec"].get("volumeSnapshotRef") or {}
    return ((reference.get("namespace", ""), reference.get("name", "")),)


def claim_of(snapshot: Object) -> tuple[Key, ...]:
    """Return the key of the claim a snapshot is taken of, for an index."""
    name = (snapshot["spec"].get("source") or {}).get("persistentVolumeClaimName")
    return ((snapshot["metadata"]["namespace"], name),) if name else ()


def restored_from(claim: Object) -> tuple[Key, ...]:
    """Return the key of the snapshot a claim starts from, for an index."""
    source = claim["spec"].get("dataSourceRef") or claim["spec"].get("dataSource") or {}
    if source.get("kind") != "VolumeSnapshot":
        return ()
    return ((claim["metadata"]["namespace"], source.get("name", "")),)
