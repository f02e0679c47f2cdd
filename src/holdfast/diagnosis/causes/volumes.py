"""Why a volume is Released, Failed, Terminating or free."""

from __future__ import annotations

from holdfast.api import kinds, views
from holdfast.backends import registry
from holdfast.controllers.provisioners import IN_TREE, MIGRATED
from holdfast.diagnosis.causes import candidates, finalizers, holding, supply
from holdfast.diagnosis.causes.answer import Answer, Cause, kubectl, lines, listed
from holdfast.diagnosis.causes.picture import Picture
from holdfast.runtime.client import Object

_FREE = '[{"op":"remove","path":"/spec/claimRef"}]'


def answer(picture: Picture, obj: Object) -> Answer:
    """Answer for a volume that exists."""
    volume = views.volume(obj)
    meta = volume.metadata
    phase = "Terminating" if meta.terminating else volume.status.phase or "Pending"
    details = [f"reclaim policy {volume.spec.persistent_volume_reclaim_policy}"]
    details += [f"finalizers: {listed(meta.finalizers)}"] if meta.finalizers else []
    details += [f"event {text}" for text in supply.failures(picture.told(obj))[-5:]]
    cause: Cause | None = None
    if meta.terminating:
        cause = finalizers.of_volume(picture, obj)
    elif phase == "Failed":
        cause = _failed(picture, obj, volume)
    elif phase == "Released":
        cause = _released(picture, obj, volume)
    elif phase == "Available":
        cause = _available(picture, volume)
    elif phase == "Pending":
        what = "nobody has looked at it yet: the controller that binds claims does not run"
        cause = Cause("nobody-binds", what, f"pv/{meta.name}", "holdfast status")
    return Answer(f"pv/{meta.name}", phase, cause, tuple(details))


def _failed(picture: Picture, obj: Object, volume: views.Volume) -> Cause:
    told = picture.told(obj, "VolumeFailedDelete", "VolumeFailedRecycle")
    name = volume.metadata.name
    said = volume.status.message or (told[-1].message if told else "its deletion failed")
    maker = volume.metadata.annotations.get(views.PROVISIONED_BY, "")
    if maker.startswith(IN_TREE) and maker not in MIGRATED and "plugin" in said:
        what = f"Kubernetes has no plug-in {maker} any more that could delete it: {said}"
        fix = lines(
            "# Its data can be deleted by Holdfast when it is a csi volume:",
            f"holdfast adopt pv/{name} --dry-run",
        )
        return Cause("plugin-gone", what, f"pv/{name}", fix)
    return Cause("delete-failed", said, f"pv/{name}", "holdfast check && holdfast volumes")


def _released(picture: Picture, obj: Object, volume: views.Volume) -> Cause:
    name = volume.metadata.name
    where = f"pv/{name}"
    reference = volume.spec.claim_ref
    whose = f"{reference.namespace}/{reference.name}" if reference else "its claim"
    policy = volume.spec.persistent_volume_reclaim_policy
    if policy == "Retain":
        what = f"its claim {whose} is gone, and its policy Retain keeps the data until you decide"
        fix = lines(
            "# To give it to another claim, with the data that is on it:",
            kubectl("patch", "pv", name, "--type=json", "-p", _FREE),
            "# To remove the object; the data stays in the storage system:",
            kubectl("delete", "pv", name),
        )
        return Cause("retained", what, where, fix, waiting=True)
    failed = [e for e in picture.told(obj, "VolumeFailedDelete", "RecyclerPod") if e.warning]
    if failed:
        what = f"its data cannot be deleted: {failed[-1].message}"
        return Cause("delete-failed", what, where, "holdfast check && holdfast volumes")
    if attached := holding.attachments_of(picture, name):
        return holding.still_attached(picture, volume, attached)
    maker = volume.metadata.annotations.get(views.PROVISIONED_BY, "")
    if policy == "Delete" and not maker:
        what = "its policy is Delete, but nobody made it: only its provisioner can delete data"
        patch = '{"spec":{"persistentVolumeReclaimPolicy":"Retain"}}'
        fix = kubectl("patch", "pv", name, "-p", patch)
        return Cause("static-delete", what, where, fix)
    if policy == "Delete" and not _served(picture, maker):
        what = f"it waits for {maker} to delete its data, and nobody answers to that name"
        return Cause("deleter-missing", what, where, kubectl("get", "csidrivers"))
    what = f"its claim {whose} is gone, and {maker or 'the recycler'} is removing its data"
    return Cause("delete-runs", what, where, "holdfast volumes", waiting=True)


def _served(picture: Picture, maker: str) -> bool:
    return (
        maker in registry.PROVISIONERS
        or maker in registry.DRIVERS
        or picture.find(kinds.CSI_DRIVER, maker) is not None
        or kinds.CSI_DRIVER in picture.unread
    )


def _available(picture: Picture, volume: views.Volume) -> Cause:
    name = volume.metadata.name
    reference = volume.spec.claim_ref
    if reference is not None:
        whose = f"{reference.namespace}/{reference.name}"
        what = f"it is reserved for claim {whose}, which is not there or does not fit"
        fix = lines(
            f"holdfast why pvc/{reference.name} -n {reference.namespace}",
            "# To free it:",
            kubectl("patch", "pv", name, "--type=json", "-p", _FREE),
        )
        return Cause("reserved", what, f"pv/{name}, spec.claimRef", fix, waiting=True)
    for obj in picture.all(kinds.CLAIM):
        claim = views.claim(obj)
        if claim.spec.volume_name in ("", name) and claim.status.phase == "Pending":
            refused = candidates.refusals(volume, claim)
            if refused:
                text = "; ".join(text for _, text in refused)
                what = f"no claim fits; claim {claim.metadata.name} does not because {text}"
                fix = f"holdfast why pvc/{claim.metadata.name} -n {claim.metadata.namespace}"
                return Cause(f"volume-{refused[0][0]}", what, f"pv/{name}", fix, waiting=True)
    return Cause("free", "it is free: no claim has asked for it", f"pv/{name}", waiting=True)
