"""Who has a volume: its attachments, the nodes behind them, and what a lost node is waited for."""

from __future__ import annotations

from collections.abc import Sequence

from holdfast.api import kinds, views
from holdfast.backends import registry
from holdfast.controllers import attachments
from holdfast.controllers.attaching.wanted import shared
from holdfast.diagnosis.causes import vsphere
from holdfast.diagnosis.causes.answer import Cause, kubectl, lines, listed
from holdfast.diagnosis.causes.picture import Picture
from holdfast.runtime.client import Object


def attachments_of(picture: Picture, volume: str) -> list[Object]:
    """Return the attachments of a volume, by node."""
    found = [
        obj
        for obj in picture.all(kinds.VOLUME_ATTACHMENT)
        if (obj["spec"].get("source") or {}).get("persistentVolumeName") == volume
    ]
    return sorted(found, key=lambda obj: str(obj["spec"].get("nodeName", "")))


def still_attached(picture: Picture, volume: views.Volume, found: Sequence[Object]) -> Cause:
    """Say why a volume that should go is still attached."""
    nodes = [str(obj["spec"].get("nodeName", "")) for obj in found]
    where = f"pv/{volume.metadata.name}"
    for obj, node in zip(found, nodes, strict=True):
        if lost := lost_node(picture, node):
            return lost
        failed = ((obj.get("status") or {}).get("detachError") or {}).get("message")
        if failed:
            what = f"it cannot be detached from node {node}: {failed}"
            name = obj["metadata"]["name"]
            fix = lines("holdfast check", kubectl("describe", "volumeattachment", name))
            return Cause("detach-failed", what, f"volumeattachment/{name}", fix)
    what = f"it waits until it is detached from {listed(nodes)}"
    fix = kubectl("get", "pods", "-A", f"--field-selector=spec.nodeName={nodes[0]}")
    return Cause("still-attached", what, where, fix, waiting=True)


def for_pod(picture: Picture, pod: views.Pod, obj: Object) -> Cause | None:
    """Say what keeps a volume from the node of a pod; None when it is attached there."""
    volume = views.volume(obj)
    identity = attachments.identity(obj)
    if identity is None:
        return None
    driver = picture.find(kinds.CSI_DRIVER, identity[0])
    if not attachments.required(driver) or (driver is None and not _attaches(identity[0])):
        return None
    node = pod.spec.node_name
    name = volume.metadata.name
    found = attachments_of(picture, name)
    here = [each for each in found if each["spec"].get("nodeName") == node]
    if any(attachments.is_attached(each) for each in here):
        return None
    for each in here:
        failed = ((each.get("status") or {}).get("attachError") or {}).get("message")
        if failed:
            at = f"volumeattachment/{each['metadata']['name']}"
            what = f"volume {name} cannot be attached to node {node}: {failed}"
            known = vsphere.remedy(registry.DRIVERS.get(identity[0], ""), failed)
            fix = known.fix if known else "holdfast check"
            return Cause("attach-failed", what, at, fix)
    elsewhere = [each for each in found if each["spec"].get("nodeName") != node]
    if elsewhere and not shared(obj):
        return _held(picture, volume, elsewhere)
    return _waits_for_attacher(volume, identity[0], node, bool(here))


def lost_node(picture: Picture, name: str) -> Cause | None:
    """Say what is waited for when a node that has a volume does not answer."""
    obj = picture.find(kinds.NODE, name)
    where = f"node/{name}"
    out = kubectl("taint", "nodes", name, f"{views.OUT_OF_SERVICE}=nodeshutdown:NoExecute")
    if obj is None or views.node(obj).ready:
        return None
    node = views.node(obj)
    if node.out_of_service:
        what = f"node {name} is out of service; its volumes are being taken from it"
        return Cause("node-out-of-service", what, where, waiting=True)
    told = picture.told(obj, "WaitingForNode")
    said = (
        f"node {name} does not answer and may still be writing, so its volumes stay with it "
        "until it is back, is known to be off, or is tainted out-of-service"
    )
    said = told[-1].message if told else said
    fix = lines(f"# Only when the machine of {name} is certainly off:", out)
    return Cause("node-lost", said, where, fix)


def _held(picture: Picture, volume: views.Volume, elsewhere: Sequence[Object]) -> Cause:
    nodes = [str(each["spec"].get("nodeName", "")) for each in elsewhere]
    for name in nodes:
        if lost := lost_node(picture, name):
            return lost
    reference = volume.spec.claim_ref
    users = [
        pod.metadata.name
        for pod in (picture.users(reference.name) if reference else ())
        if pod.spec.node_name in nodes
    ]
    by = f" by pod {listed(users)}" if users else ""
    what = (
        f"volume {volume.metadata.name} may be on one node at a time and is held on node "
        f"{listed(nodes)}{by} (Multi-Attach)"
    )
    where = f"volumeattachment/{elsewhere[0]['metadata']['name']}"
    if users:
        fix = kubectl("delete", "pod", *users, namespace=picture.namespace)
        return Cause("multi-attach", what, where, fix)
    return Cause(
        "multi-attach",
        what + "; no pod uses it there, so it is being let go of",
        where,
        kubectl("get", "volumeattachments"),
        waiting=True,
    )


def _waits_for_attacher(volume: views.Volume, driver: str, node: str, asked: bool) -> Cause:
    name = volume.metadata.name
    if asked:
        what = f"volume {name} is to be attached to node {node} and nobody has done it yet"
        what += f": the attacher of {driver} works on it or does not run"
        fix = kubectl("get", "deployments", "-A")
        return Cause("attacher-does-not-answer", what, f"pv/{name}", fix, waiting=True)
    what = f"volume {name} is not attached to node {node} yet"
    return Cause("attach-runs", what, f"pv/{name}", kubectl("get", "volumeattachments"), True)


def _attaches(driver: str) -> bool:
    return registry.DRIVERS.get(driver, "") in registry.ATTACHING
