"""Why a pod waits for its volumes: its claims, a node, the attachments, the mounts."""

from __future__ import annotations

from holdfast.api import kinds, views
from holdfast.backends import registry
from holdfast.controllers import attachments
from holdfast.diagnosis.causes import claims, holding, placing, supply, vsphere
from holdfast.diagnosis.causes.answer import Answer, Cause, kubectl, lines
from holdfast.diagnosis.causes.picture import Picture
from holdfast.kit import suggest
from holdfast.runtime.client import Client, Object

_MOUNTING = ("FailedMount", "FailedMapVolume", "FailedAttachVolume", "VolumeResizeFailed")


async def answer(client: Client, picture: Picture, obj: Object) -> Answer:
    """Answer for a pod that exists."""
    pod = views.pod(obj)
    meta = pod.metadata
    phase = "Terminating" if meta.terminating else pod.status.phase or "Pending"
    rows: list[str] = []
    cause: Cause | None = None
    if not pod.finished and not _started(pod):
        cause = await _claims(client, picture, pod)
        if cause is None and not pod.spec.node_name:
            cause, rows = placing.not_scheduled(picture, pod)
        elif cause is None:
            cause = _on_node(picture, obj, pod)
    rows += [f"event {text}" for text in supply.failures(picture.told(obj))[-5:]]
    return Answer(f"pod/{meta.name} in namespace {meta.namespace}", phase, cause, tuple(rows))


async def _claims(client: Client, picture: Picture, pod: views.Pod) -> Cause | None:
    for entry, name in views.claims_of(pod):
        obj = picture.find(kinds.CLAIM, name)
        where = f"pod/{pod.metadata.name} in namespace {pod.metadata.namespace}"
        if obj is None:
            return _no_claim(picture, pod, name, where, ephemeral=entry.ephemeral is not None)
        claim = views.claim(obj)
        if claim.bound and not claim.metadata.terminating and claim.status.phase != "Lost":
            continue
        if _waits_for_this(picture, claim):
            continue
        found = await claims.answer(client, picture, obj)
        if found.cause is not None:
            cause = found.cause
            what = f"its claim {name} is {found.state}: {cause.what}"
            return Cause(cause.code, what, cause.where, cause.fix, cause.waiting)
    return None


def _no_claim(picture: Picture, pod: views.Pod, name: str, where: str, *, ephemeral: bool) -> Cause:
    found = claims.absent(picture, name)
    if found is not None and found.cause is not None:
        cause = found.cause
        return Cause(cause.code, f"its claim {name}: {cause.what}", cause.where, cause.fix)
    if ephemeral:
        what = f"the claim {name} of its ephemeral volume has not been made yet"
        return Cause("ephemeral-claim", what, where, "holdfast status", waiting=True)
    near = suggest.nearest(name, picture.names(kinds.CLAIM))
    hint = f"; did you mean {near}?" if near else ""
    what = f"its claim {name} does not exist in namespace {pod.metadata.namespace}{hint}"
    fix = lines(kubectl("get", "pvc", "-A"), "kubectl apply -f <file with the claim>")
    return Cause("claim-missing", what, where, fix)


def _waits_for_this(picture: Picture, claim: views.Claim) -> bool:
    """Whether the claim is only waiting for a pod to be scheduled."""
    found = picture.storage_class(views.class_of(claim))
    if found is None or not found.delays_binding or claim.spec.volume_name:
        return False
    waiting = supply.serves(found.provisioner) and supply.class_problem(picture, found) is None
    failed = picture.find(kinds.CLAIM, claim.metadata.name)
    told = picture.told(failed, "ProvisioningFailed") if failed is not None else []
    return waiting and not told and views.SELECTED_NODE not in claim.metadata.annotations


def _on_node(picture: Picture, obj: Object, pod: views.Pod) -> Cause | None:
    node = pod.spec.node_name
    where = f"pod/{pod.metadata.name} in namespace {pod.metadata.namespace}"
    for _, name in views.claims_of(pod):
        claim = picture.find(kinds.CLAIM, name)
        found = picture.find(kinds.VOLUME, (claim or {}).get("spec", {}).get("volumeName", ""))
        if found is None:
            continue
        cause = holding.for_pod(picture, pod, found) or _no_driver(picture, found, node, where)
        if cause is not None:
            return cause
    if lost := holding.lost_node(picture, node):
        return lost
    told = [event for event in picture.told(obj, *_MOUNTING) if event.warning]
    if told:
        fix = lines(
            "holdfast check",
            kubectl("describe", "pod", pod.metadata.name, namespace=picture.namespace),
        )
        known = vsphere.remedy(_backend(picture, pod), told[-1].message)
        fix = known.fix if known else fix
        code = "attach-failed" if told[-1].reason == "FailedAttachVolume" else "mount-failed"
        return Cause(code, told[-1].message, f"{where}, node {node}", fix)
    failed = supply.failures(picture.told(obj))
    if failed:
        what = f"its volumes are there; what stops it is {failed[-1]}"
        fix = kubectl("describe", "pod", pod.metadata.name, namespace=picture.namespace)
        return Cause("not-a-volume", what, where, fix)
    what = f"its volumes are being mounted on node {node}"
    return Cause("mounting", what, where, kubectl("get", "events"), waiting=True)


def _backend(picture: Picture, pod: views.Pod) -> str:
    """Return whose volumes a pod has, if they are all of one kind of storage system."""
    found = set()
    for _, name in views.claims_of(pod):
        claim = picture.find(kinds.CLAIM, name)
        volume = picture.find(kinds.VOLUME, (claim or {}).get("spec", {}).get("volumeName", ""))
        identity = attachments.identity(volume) if volume is not None else None
        found.add(registry.DRIVERS.get(identity[0], "") if identity else "")
    return found.pop() if len(found) == 1 else ""


def _no_driver(picture: Picture, volume: Object, node: str, where: str) -> Cause | None:
    identity = attachments.identity(volume)
    entry = picture.find(kinds.CSI_NODE, node)
    if identity is None or "csi" not in volume["spec"] or entry is None:
        return None
    drivers = {each["name"] for each in (entry.get("spec") or {}).get("drivers") or ()}
    if identity[0] in drivers:
        return None
    what = f"CSI driver {identity[0]} is not registered on node {node}: its node part does not run"
    fix = kubectl("get", "pods", "-A", "-o", "wide", f"--field-selector=spec.nodeName={node}")
    if identity[0] in registry.DRIVERS:
        fix = lines("# On that node:", f"holdfast node serve --driver {identity[0]}")
    return Cause("driver-not-on-node", what, f"{where}, csinode/{node}", fix)


def _started(pod: views.Pod) -> bool:
    return any((each.get("state") or {}).get("running") for each in pod.status.container_statuses)
