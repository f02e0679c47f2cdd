"""The writes of a bind and an unbind, in Kubernetes' order.

Volume spec (claimRef), volume status (Bound), claim spec (volumeName), claim status (Bound):
observers see these four steps in this order, and after a crash between any two the next look at
the claim goes on where the last one ended, because each step is skipped when it is already done.
Every write carries the resourceVersion it is based on, so nobody else's change is lost.
"""

from __future__ import annotations

from typing import Any

from holdfast.api import errors, kinds, views
from holdfast.controllers import provisioners
from holdfast.runtime.client import Client, Object
from holdfast.runtime.informer import Informers

YES = "yes"
PRE_RESIZE = "volume.alpha.kubernetes.io/pre-resize-capacity"
MIGRATED_TO = "pv.kubernetes.io/migrated-to"


class Writes:
    """Writes claims and volumes and feeds the results back to the informers."""

    def __init__(self, client: Client, informers: Informers) -> None:
        self._client = client
        self._claims = informers.of(kinds.CLAIM)
        self._volumes = informers.of(kinds.VOLUME)

    async def claim(self, claim: Object, patch: Object, *, status: bool = False) -> Object:
        """Patch the claim as it was read."""
        meta = claim["metadata"]
        written = await self._client.patch(
            kinds.CLAIM,
            meta["name"],
            _based_on(meta, patch),
            meta["namespace"],
            subresource="status" if status else None,
        )
        self._claims.observe(written)
        return written

    async def mark_migrated(self, claim: Object) -> Object:
        """Say on the claim which CSI driver stands in for the in-tree plug-in it names."""
        annotations = claim["metadata"].get("annotations") or {}
        for key in (views.STORAGE_PROVISIONER, views.BETA_STORAGE_PROVISIONER):
            if key in annotations:
                # A claim of a migrated class names the driver itself, and needs no mark.
                wanted = migrated_to(annotations[key])
                if wanted != annotations.get(MIGRATED_TO):
                    patch = {"metadata": {"annotations": {MIGRATED_TO: wanted}}}
                    return await self.claim(claim, patch)
                break
        return claim

    async def volume(self, volume: Object, patch: Object, *, status: bool = False) -> Object:
        """Patch the volume as it was read."""
        meta = volume["metadata"]
        written = await self._client.patch(
            kinds.VOLUME,
            meta["name"],
            _based_on(meta, patch),
            subresource="status" if status else None,
        )
        self._volumes.observe(written)
        return written

    async def bind(self, volume: Object, claim: Object) -> None:
        """Bind the two; what is already written is left alone."""
        volume = await self._claim_volume(volume, claim)
        volume = await self.volume_phase(volume, "Bound")
        claim = await self._name_volume(claim, volume)
        await self._claim_bound(claim, volume)

    async def _claim_volume(self, volume: Object, claim: Object) -> Object:
        reference = volume["spec"].get("claimRef")
        meta = claim["metadata"]
        wanted = {key: meta[key] for key in ("namespace", "name", "uid")}
        if reference is not None and wanted.items() <= reference.items():
            return volume
        patch: Object = {
            "spec": {
                "claimRef": {
                    "apiVersion": "v1",
                    "kind": "PersistentVolumeClaim",
                    **wanted,
                    "resourceVersion": meta["resourceVersion"],
                }
            }
        }
        # Only a volume nobody had reserved for the claim is bound by the controller.
        reserved = reference is not None and all(
            reference.get(key) == meta[key] for key in ("namespace", "name")
        )
        if not reserved:
            patch["metadata"] = {"annotations": {views.BOUND_BY_CONTROLLER: YES}}
        return await self.volume(volume, patch)

    async def _name_volume(self, claim: Object, volume: Object) -> Object:
        meta = claim["metadata"]
        name = volume["metadata"]["name"]
        annotations: dict[str, str] = {}
        patch: Object = {}
        if claim["spec"].get("volumeName") != name:
            patch["spec"] = {"volumeName": name}
            annotations[views.BOUND_BY_CONTROLLER] = YES
        if views.BIND_COMPLETED not in (meta.get("annotations") or {}):
            annotations[views.BIND_COMPLETED] = YES
        if not annotations:
            return claim
        patch["metadata"] = {"annotations": annotations}
        return await self.claim(claim, patch)

    async def _claim_bound(self, claim: Object, volume: Object) -> None:
        status = claim.get("status") or {}
        spec = volume["spec"]
        wanted: dict[str, Any] = {}
        if status.get("phase") != "Bound":
            capacity = (volume["metadata"].get("annotations") or {}).get(PRE_RESIZE)
            wanted["phase"] = "Bound"
            # Set once: an expansion that is under way owns the capacity later.
            wanted["capacity"] = {"storage": capacity or spec["capacity"]["storage"]}
        if status.get("accessModes") != spec["accessModes"]:
            wanted["accessModes"] = spec["accessModes"]
        if wanted:
            await self.claim(claim, {"status": wanted}, status=True)

    async def claim_phase(self, claim: Object, phase: str) -> Object:
        """Set Pending or Lost, which clear what a volume had given the claim."""
        status = claim.get("status") or {}
        if status.get("phase") == phase and not status.get("capacity"):
            return claim
        cleared = {"phase": phase, "accessModes": None, "capacity": None}
        return await self.claim(claim, {"status": cleared}, status=True)

    async def volume_phase(self, volume: Object, phase: str, message: str = "") -> Object:
        """Set a volume's phase; the message is the error text of Failed."""
        status = volume.get("status") or {}
        if status.get("phase") == phase and (not message or status.get("message") == message):
            return volume
        wanted = {"status": {"phase": phase, "message": message or None}}
        return await self.volume(volume, wanted, status=True)

    async def unbind(self, volume: Object) -> Object:
        """Take the claim away: all of it where the controller bound, else only its uid."""
        annotations = volume["metadata"].get("annotations") or {}
        if views.BOUND_BY_CONTROLLER in annotations:
            patch: Object = {
                "metadata": {"annotations": {views.BOUND_BY_CONTROLLER: None}},
                "spec": {"claimRef": None},
            }
        else:
            patch = {"spec": {"claimRef": {"uid": None, "resourceVersion": None}}}
        volume = await self.volume(volume, patch)
        return await self.volume_phase(volume, "Available")

    async def live_claim(self, namespace: str, name: str) -> Object | None:
        """The claim as the API has it now, past the cache."""
        try:
            return await self._client.get(kinds.CLAIM, name, namespace)
        except errors.NotFound:
            return None


def migrated_to(plugin: str) -> str | None:
    """The value the migrated-to annotation has to have; None for no such annotation."""
    return provisioners.MIGRATED.get(plugin)


def _based_on(meta: Object, patch: Object) -> Object:
    basis = {"resourceVersion": meta["resourceVersion"], "uid": meta["uid"]}
    return {**patch, "metadata": {**patch.get("metadata", {}), **basis}}
