"""Why a claim is not bound, or not gone: the walk from the claim to whoever is to act next."""

from __future__ import annotations

from holdfast.api import kinds, quantity, usage, views
from holdfast.diagnosis.causes import candidates, finalizers, placing, supply
from holdfast.diagnosis.causes.answer import Answer, Cause, kubectl, lines, listed
from holdfast.diagnosis.causes.picture import Picture
from holdfast.runtime.client import Client, Object


async def answer(client: Client, picture: Picture, obj: Object) -> Answer:
    """Answer for a claim that exists."""
    claim = views.claim(obj)
    meta = claim.metadata
    phase = "Terminating" if meta.terminating else claim.status.phase or "Pending"
    cause: Cause | None
    details: list[str] = []
    if meta.terminating:
        cause = finalizers.of_claim(picture, obj)
        details.append(f"finalizers: {listed(meta.finalizers) or 'none'}")
    elif phase == "Lost":
        cause = _lost(picture, claim)
    elif claim.bound or phase == "Bound":
        cause = _growth(picture, obj, claim)
    else:
        cause = await _pending(client, picture, obj, claim)
        details += _seen(picture, claim)
    details += [f"event {text}" for text in supply.failures(picture.told(obj))[-5:]]
    details += quotas(picture)
    return Answer(f"pvc/{meta.name} in namespace {meta.namespace}", phase, cause, tuple(details))


def absent(picture: Picture, name: str) -> Answer | None:
    """Answer for a claim that does not exist because a quota forbade to make it, or else None."""
    for each in reversed(picture.events):
        text = str(each.get("message", ""))
        if "exceeded quota" in text and f"{name}" in text:
            about = each["involvedObject"]
            where = f"{about.get('kind', '').lower()}/{about.get('name', '')}"
            fix = kubectl("describe", "resourcequota", namespace=picture.namespace)
            cause = Cause("quota", f"it was not made: {text}", where, fix)
            subject = f"pvc/{name} in namespace {picture.namespace}"
            return Answer(subject, "absent", cause, tuple(quotas(picture)))
    return None


def quotas(picture: Picture) -> list[str]:
    """Write each limit on storage of the namespace that is reached."""
    found = []
    for obj in picture.all(kinds.RESOURCE_QUOTA):
        used = (obj.get("status") or {}).get("used") or {}
        for name, limit in usage.limits(obj).items():
            if kinds.CLAIM not in usage.counted_by(name) or name not in used:
                continue
            if quantity.parse(str(used[name])) >= limit:
                meta = obj["metadata"]
                found.append(f"quota {meta['name']}: {name} is used up, {used[name]} of {limit}")
    return found


async def _pending(
    client: Client, picture: Picture, obj: Object, claim: views.Claim
) -> Cause | None:
    if claim.spec.volume_name:
        return _named(picture, obj, claim)
    if fitting := [each for each in candidates.of(picture, claim) if not each.refusal]:
        what = f"volume {fitting[0].name} fits and is about to be bound to it"
        follow = kubectl("get", "pvc", claim.metadata.name, "-w", namespace=picture.namespace)
        found = picture.storage_class(views.class_of(claim))
        if found is None or not found.delays_binding:
            return Cause("binding", what, f"pv/{fitting[0].name}", follow, waiting=True)
    if not views.class_of(claim):
        return _without_class(picture, claim)
    found = picture.storage_class(views.class_of(claim))
    if found is None:
        return _static_only(picture, claim) or supply.missing_class(picture, claim)
    if not supply.serves(found.provisioner):
        return _static(picture, claim, found)
    return (
        supply.class_problem(picture, found)
        or supply.request_problem(picture, claim, served=True)
        or await supply.secret_problem(client, claim, found)
        or supply.failure(picture, obj, found)
        or _first_consumer(picture, claim, found)
        or supply.progress(picture, obj, found)
    )


def _without_class(picture: Picture, claim: views.Claim) -> Cause:
    defaults = [
        obj["metadata"]["name"]
        for obj in picture.all(kinds.STORAGE_CLASS)
        if views.is_default_class(views.storage_class(obj))
    ]
    if defaults and not views.has_class(claim):
        what = f"it is about to get the default class {defaults[0]}"
        return Cause("class-follows", what, f"pvc/{claim.metadata.name}", waiting=True)
    return _static_only(picture, claim) or supply.no_class(picture, claim)


def _static_only(picture: Picture, claim: views.Claim) -> Cause | None:
    """Say what is wrong with the nearest existing volume, if one is only a step away."""
    near = [each for each in candidates.of(picture, claim) if each.near and each.refusal]
    same = [each for each in near if each.code != "class"]
    return _refused(picture, claim, same[0]) if same else None


def _static(picture: Picture, claim: views.Claim, found: views.StorageClass) -> Cause | None:
    name = found.metadata.name
    near = candidates.of(picture, claim)
    refused = [each for each in near if each.refusal and each.code != "class"]
    if refused:
        return _refused(picture, claim, refused[0])
    if any(not each.refusal for each in near):
        return _first_consumer(picture, claim, found)
    what = f"no volume is made for class {name} ({supply.NO_PROVISIONER}), and no volume has it"
    fix = f"# Make a PersistentVolume of class {name}:\n" + kubectl("apply", "-f", "<file>")
    return Cause("no-static-volume", what, f"class {name}", fix)


def _refused(picture: Picture, claim: views.Claim, candidate: candidates.Candidate) -> Cause:
    what = f"the nearest volume, {candidate.name}, does not fit: {candidate.refusal}"
    free = '[{"op":"remove","path":"/spec/claimRef"}]'
    namespace, name = claim.metadata.namespace, claim.metadata.name
    again = kubectl("delete", "pvc", name, namespace=namespace)
    fix = lines("# Make the claim again so that it fits the volume:", again)
    if candidate.code in ("earlier-claim", "phase", "reserved"):
        fix = lines(
            "# When the data on it may be given away:",
            kubectl("patch", "pv", candidate.name, "--type=json", "-p", free),
        )
    elif candidate.code == "selector":
        fix = kubectl("label", "pv", candidate.name, "<key>=<value>")
    elif candidate.code == "deleting":
        fix = f"holdfast why pv/{candidate.name}"
    return Cause(f"volume-{candidate.code}", what, f"pv/{candidate.name}", fix)


def _named(picture: Picture, obj: Object, claim: views.Claim) -> Cause:
    name = claim.spec.volume_name
    where = f"pvc/{claim.metadata.name} in namespace {claim.metadata.namespace}, spec.volumeName"
    found = picture.find(kinds.VOLUME, name)
    if found is None:
        what = f"it names volume {name}, which does not exist"
        return Cause("volume-missing", what, where, kubectl("get", "pv"))
    refused = candidates.refusals(views.volume(found), claim)
    if refused:
        text = "; ".join(text for _, text in refused)
        one = candidates.Candidate(name, text, refused[0][0], near=True)
        cause = _refused(picture, claim, one)
        return Cause(
            cause.code, f"it names volume {name}, which does not fit: {text}", where, cause.fix
        )
    what = f"it is about to be bound to volume {name}"
    return Cause("binding", what, where, kubectl("get", "pv", name), waiting=True)


def _first_consumer(
    picture: Picture, claim: views.Claim, found: views.StorageClass
) -> Cause | None:
    meta = claim.metadata
    if not found.delays_binding or views.SELECTED_NODE in meta.annotations:
        return None
    where = f"class {found.metadata.name}, volumeBindingMode WaitForFirstConsumer"
    users = picture.users(meta.name)
    if not users:
        what = "it waits for a pod that uses it: its volume is made where the first one runs"
        fix = f"# Create a pod that uses claim {meta.name}:\n" + kubectl("apply", "-f", "<file>")
        return Cause("first-consumer", what, where, fix, waiting=True)
    placed = [pod for pod in users if pod.spec.node_name]
    if placed:
        pod = placed[0].metadata.name
        what = (
            f"pod {pod} names its node itself (spec.nodeName), so it passes the scheduler by, "
            "which alone chooses the node of the volume"
        )
        fix = lines(
            "# Make it again with a nodeSelector on kubernetes.io/hostname instead:",
            kubectl("delete", "pod", pod, namespace=meta.namespace),
        )
        return Cause("node-name-set", what, f"pod/{pod} in namespace {meta.namespace}", fix)
    cause, _ = placing.not_scheduled(picture, users[0])
    what = f"it waits for pod {users[0].metadata.name} to be scheduled: {cause.what}"
    return Cause(cause.code, what, cause.where, cause.fix, cause.waiting)


def _lost(picture: Picture, claim: views.Claim) -> Cause:
    name = claim.spec.volume_name
    where = f"pvc/{claim.metadata.name} in namespace {claim.metadata.namespace}"
    found = picture.find(kinds.VOLUME, name) if name else None
    if found is None:
        what = f"its volume {name or '(none named)'} does not exist any more"
        fix = lines(
            f"# If the storage is still there, create pv/{name} again with claimRef.uid: "
            f"{claim.metadata.uid}",
            "holdfast volumes",
        )
        return Cause("volume-gone", what, where, fix)
    reference = views.volume(found).spec.claim_ref
    whose = f"{reference.namespace}/{reference.name}" if reference else "nobody"
    what = f"its volume {name} belongs to {whose} ({reference.uid if reference else ''})"
    return Cause("volume-of-another", what, f"pv/{name}, spec.claimRef", kubectl("get", "pv", name))


def _growth(picture: Picture, obj: Object, claim: views.Claim) -> Cause | None:
    """Say why a bound claim does not grow; None when it is as large as it wants to be."""
    has = claim.status.capacity.get("storage", "0")
    if quantity.parse(claim.spec.request or "0") <= quantity.parse(has):
        return None
    meta = claim.metadata
    where = f"pvc/{meta.name} in namespace {meta.namespace}"
    failed = picture.told(obj, "VolumeResizeFailed", "FileSystemResizeFailed")
    if failed:
        what = f"it is bound and does not grow to {claim.spec.request}: {failed[-1].message}"
        return Cause("resize-failed", what, where, "holdfast check")
    conditions = {each.type: each for each in claim.status.conditions if each.status == "True"}
    for type in ("ControllerResizeError", "NodeResizeError"):
        if type in conditions:
            what = f"it is bound and does not grow: {conditions[type].message}"
            return Cause("resize-failed", what, where, "holdfast check")
    if "FileSystemResizePending" in conditions and not picture.users(meta.name):
        what = "its file system grows when the next pod uses it"
        return Cause("resize-waits-for-pod", what, where, waiting=True)
    what = f"it is bound, and is growing from {has} to {claim.spec.request}"
    return Cause("resizing", what, where, waiting=True)


def _seen(picture: Picture, claim: views.Claim) -> list[str]:
    name = views.class_of(claim)
    found = picture.storage_class(name)
    rows = [
        f"asks for {claim.spec.request}, {listed(claim.spec.access_modes)}, class {name or '-'}"
    ]
    if found is not None:
        rows.append(f"class {name}: {found.provisioner}, {found.volume_binding_mode}")
    for each in candidates.of(picture, claim)[:10]:
        rows.append(f"volume {each.name}: {each.refusal or 'fits'}")
    rows += [f"could not be read: {kind.plural}" for kind in picture.unread]
    return rows
