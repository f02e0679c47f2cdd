"""What a claim or volume that is being deleted waits for: the owners of its finalizers."""

from __future__ import annotations

from holdfast.api import views
from holdfast.controllers import protection, reclaiming
from holdfast.controllers.provisioning import provisioner
from holdfast.diagnosis.causes import holding
from holdfast.diagnosis.causes.answer import Cause, kubectl, lines, listed
from holdfast.diagnosis.causes.picture import Picture
from holdfast.runtime.client import Object

ATTACHER = "external-attacher/"
_COPIED = {
    "snapshot.storage.kubernetes.io/pvc-as-source-protection": "a snapshot of it is being taken",
    "provisioner.storage.kubernetes.io/cloning-protection": "a clone of it is being made",
}


def of_claim(picture: Picture, obj: Object) -> Cause:
    """Say what a claim waits for that is being deleted."""
    meta = views.meta(obj)
    where = f"pvc/{meta.name} in namespace {meta.namespace}"
    pods = picture.users(meta.name)
    if protection.CLAIM_FINALIZER in meta.finalizers and pods:
        names = [pod.metadata.name for pod in pods]
        what = f"it is being deleted and waits until no pod uses it: {listed(names)}"
        fix = kubectl("delete", "pod", *names, namespace=meta.namespace)
        return Cause("claim-in-use", what, where, fix)
    for finalizer, why in _COPIED.items():
        if finalizer in meta.finalizers:
            what = f"it is being deleted and waits because {why}"
            fix = kubectl("get", "volumesnapshot,pvc", namespace=meta.namespace)
            return Cause("claim-is-copied", what, where, fix, waiting=True)
    if provisioner.FINALIZER in meta.finalizers:
        what = (
            "it is being deleted while its volume was being made: whatever was made of it is "
            "removed first"
        )
        return Cause("provisioning-ends", what, where, "holdfast check", waiting=True)
    return _foreign(picture, obj, where, {protection.CLAIM_FINALIZER})


def of_volume(picture: Picture, obj: Object) -> Cause:
    """Say what a volume waits for that is being deleted."""
    volume = views.volume(obj)
    meta = volume.metadata
    where = f"pv/{meta.name}"
    reference = volume.spec.claim_ref
    if protection.VOLUME_FINALIZER in meta.finalizers and volume.status.phase == "Bound":
        whose = f"{reference.namespace}/{reference.name}" if reference else "a claim"
        what = f"it is being deleted and waits for its claim {whose}, which is bound to it"
        fix = ""
        if reference is not None:
            fix = kubectl("delete", "pvc", reference.name, namespace=reference.namespace)
        return Cause("volume-has-a-claim", what, where, fix)
    attached = holding.attachments_of(picture, meta.name)
    if attached:
        return holding.still_attached(picture, volume, attached)
    known = {protection.VOLUME_FINALIZER, reclaiming.FINALIZER, reclaiming.EXTERNAL_FINALIZER}
    deleting = {reclaiming.FINALIZER, reclaiming.EXTERNAL_FINALIZER} & set(meta.finalizers)
    failed = [e for e in picture.told(obj, "VolumeFailedDelete") if e.warning]
    if deleting and failed:
        what = f"its storage cannot be deleted: {failed[-1].message}"
        return Cause("delete-failed", what, where, "holdfast check && holdfast volumes")
    if deleting:
        maker = meta.annotations.get(views.PROVISIONED_BY, "")
        what = f"it is being deleted and waits for {maker or 'its provisioner'} to remove the data"
        return Cause("delete-runs", what, where, "holdfast volumes", waiting=True)
    stale = [each for each in meta.finalizers if each.startswith(ATTACHER)]
    if stale:
        what = (
            f"it is being deleted; {stale[0]} was left on it though no VolumeAttachment names it: "
            "its attacher does not run"
        )
        return Cause("attacher-finalizer-left", what, where, _strip("pv", meta, stale))
    return _foreign(picture, obj, where, known)


def _foreign(picture: Picture, obj: Object, where: str, known: set[str]) -> Cause:
    meta = views.meta(obj)
    others = [each for each in meta.finalizers if each not in known]
    kind = "pv" if where.startswith("pv/") else "pvc"
    if others:
        what = f"it is being deleted and waits for the owner of its finalizer {listed(others)}"
        fix = lines("# If nothing that owns it runs any more:", _strip(kind, meta, others))
        return Cause("foreign-finalizer", what, where, fix)
    if meta.finalizers:
        what = (
            f"nothing uses it, and {listed(meta.finalizers)} is still there: the controller that "
            "takes it away does not run (kube-controller-manager on a cluster, holdfast up here)"
        )
        fix = kubectl("get", "pods", "-n", "kube-system")
        return Cause("protection-does-not-run", what, where, fix)
    return Cause("deletion-runs", "it is being deleted now", where, waiting=True)


def _strip(kind: str, meta: views.Meta, finalizers: list[str]) -> str:
    """Write the command that removes some finalizers and keeps the others."""
    kept = [each for each in meta.finalizers if each not in finalizers]
    patch = '{"metadata":{"finalizers":[' + ",".join(f'"{each}"' for each in kept) + "]}}"
    return kubectl("patch", kind, meta.name, "--type=merge", "-p", patch, namespace=meta.namespace)
