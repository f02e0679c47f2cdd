"""Where a pod can run as far as its volumes go: each node, and why it will not do."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from holdfast.api import kinds, views
from holdfast.controllers import attachments
from holdfast.controllers.scheduling import affinity, placement
from holdfast.diagnosis.causes import candidates
from holdfast.diagnosis.causes.answer import Cause, kubectl, lines, listed
from holdfast.diagnosis.causes.picture import Picture


def not_scheduled(picture: Picture, pod: views.Pod) -> tuple[Cause, list[str]]:
    """Say why no node takes a pod whose claims could be served; with a line for each node."""
    where = f"pod/{pod.metadata.name} in namespace {pod.metadata.namespace}"
    if pod.spec.scheduling_gates:
        gates = listed(str(gate.get("name", "")) for gate in pod.spec.scheduling_gates)
        what = f"it is held back by its scheduling gates {gates}"
        return Cause("gated", what, where, waiting=True), []
    bound = _bound(picture, pod)
    refused = {
        obj["metadata"]["name"]: _refusal(picture, pod, views.node(obj), bound)
        for obj in picture.all(kinds.NODE)
    }
    rows = [f"node {name}: {why or 'could take it'}" for name, (_, why) in sorted(refused.items())]
    if not refused:
        what = "there is no node"
        return Cause("no-node", what, where, kubectl("get", "nodes")), rows
    blocking = [(code, why) for code, why in refused.values()]
    storage = [pair for pair in blocking if pair[0] in ("affinity", "limit", "exclusive")]
    if all(code for code, _ in blocking):
        return _no_node(pod, where, bound, storage or blocking, refused), rows
    condition = next((c for c in pod.status.conditions if c.type == "PodScheduled"), None)
    if condition is not None and condition.message:
        fix = kubectl("describe", "pod", pod.metadata.name, namespace=pod.metadata.namespace)
        return Cause("not-scheduled", condition.message, where, fix), rows
    free = [name for name, (code, _) in refused.items() if not code]
    what = f"it is to be scheduled; node {listed(free)} could take it"
    fix = kubectl("-n", "kube-system", "get", "pods")
    return Cause("scheduling", what, where, fix, waiting=True), rows


def _no_node(
    pod: views.Pod,
    where: str,
    bound: Iterable[views.Volume],
    reasons: list[tuple[str, str]],
    refused: Mapping[str, tuple[str, str]],
) -> Cause:
    code, why = reasons[0]
    name, namespace = pod.metadata.name, pod.metadata.namespace
    if code == "affinity":
        fixed = [volume for volume in bound if volume.spec.node_affinity is not None]
        texts = [f"{v.metadata.name} needs {candidates.affinity_text(v)}" for v in fixed]
        what = f"no node can run it where its volume is: {listed(texts)}"
        if any(other not in ("affinity", "") for other, _ in refused.values()):
            rest = listed(f"{n}: {w}" for n, (c, w) in sorted(refused.items()) if c != "affinity")
            what += f"; {rest}"
        fix = lines(
            "# Let the pod run where the volume is, or bring that node back:",
            kubectl("get", "nodes", "--show-labels"),
        )
        return Cause("node-affinity", what, where, fix)
    if code == "limit":
        fix = kubectl("get", "csinodes", "-o", "yaml")
        return Cause("volume-limit", f"no node takes another volume: {why}", where, fix)
    if code == "exclusive":
        holder = why.rpartition(" ")[2]
        fix = kubectl("delete", "pod", holder, namespace=namespace)
        return Cause("exclusive-claim", why, where, fix)
    nodes = listed(f"{node}: {text}" for node, (_, text) in sorted(refused.items()))
    what = f"no node takes it, for reasons that are not its volumes': {nodes}"
    return Cause("nodes", what, where, kubectl("describe", "pod", name, namespace=namespace))


def _refusal(
    picture: Picture, pod: views.Pod, node: views.Node, bound: list[views.Volume]
) -> tuple[str, str]:
    why = placement.refusal(pod, node, 0)
    if why is not None:
        return "node", why
    for volume in bound:
        if not affinity.volume_admits(volume, node):
            text = candidates.affinity_text(volume)
            return "affinity", f"volume {volume.metadata.name} is not there ({text})"
    if why := _exclusive(picture, pod):
        return "exclusive", why
    if why := _limit(picture, bound, node.metadata.name):
        return "limit", why
    return "", ""


def _bound(picture: Picture, pod: views.Pod) -> list[views.Volume]:
    found = []
    for _, name in views.claims_of(pod):
        claim = picture.find(kinds.CLAIM, name)
        volume = (claim or {}).get("spec", {}).get("volumeName")
        obj = picture.find(kinds.VOLUME, volume) if volume else None
        found += [views.volume(obj)] if obj is not None else []
    return found


def _exclusive(picture: Picture, pod: views.Pod) -> str:
    for _, name in views.claims_of(pod):
        obj = picture.find(kinds.CLAIM, name)
        if obj is None or "ReadWriteOncePod" not in (obj["spec"].get("accessModes") or ()):
            continue
        for other in picture.users(name):
            if other.metadata.uid != pod.metadata.uid and other.spec.node_name:
                return (
                    f"claim {name} is ReadWriteOncePod, and one pod has it already: "
                    f"{other.metadata.name}"
                )
    return ""


def _limit(picture: Picture, bound: list[views.Volume], node: str) -> str:
    entry = picture.find(kinds.CSI_NODE, node)
    drivers = ((entry or {}).get("spec") or {}).get("drivers") or ()
    limits = {each["name"]: (each.get("allocatable") or {}).get("count") for each in drivers}
    there: dict[str, set[str]] = {}
    for obj in picture.all(kinds.VOLUME_ATTACHMENT):
        if obj["spec"].get("nodeName") == node:
            name = (obj["spec"].get("source") or {}).get("persistentVolumeName", "")
            there.setdefault(str(obj["spec"].get("attacher", "")), set()).add(name)
    for volume in bound:
        found = picture.find(kinds.VOLUME, volume.metadata.name)
        identity = attachments.identity(found) if found is not None else None
        limit = limits.get(identity[0]) if identity else None
        if identity is None or limit is None:
            continue
        has = there.get(identity[0], set())
        if volume.metadata.name not in has and len(has) >= limit:
            return f"node {node} has {len(has)} volumes of {identity[0]}, its limit is {limit}"
    return ""
