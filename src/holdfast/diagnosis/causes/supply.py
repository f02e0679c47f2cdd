"""Who makes a claim's volume, and why it was not made: class, provisioner, secrets, source.

What the class itself gets wrong is told before events are read, because an event may be older than
the repair; among the events the latest failure counts.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from holdfast.api import kinds, views
from holdfast.backends import errors, registry, secretrefs
from holdfast.backends.names import Provisioner
from holdfast.backends.secretrefs import ClaimIdentity, SecretRef
from holdfast.controllers import secrets
from holdfast.controllers.provisioners import IN_TREE, MIGRATED
from holdfast.controllers.scheduling import affinity
from holdfast.diagnosis import secretchecks
from holdfast.diagnosis.causes import vsphere
from holdfast.diagnosis.causes.answer import Cause, kubectl, lines, listed
from holdfast.diagnosis.causes.picture import Event, Picture
from holdfast.kit import suggest
from holdfast.runtime.client import Client, Object

NO_PROVISIONER = "kubernetes.io/no-provisioner"
# Plug-ins that Kubernetes once had.
_REMOVED = frozenset(
    IN_TREE + name
    for name in ("flocker", "glusterfs", "photon-pd", "quobyte", "rbd", "scaleio", "storageos")
)
_FAILURES = ("ProvisioningFailed", "ProvisioningCleanupFailed", "FailedBinding")
# Kubernetes' refusal of an in-tree name. It repeats for ever, also beside somebody who serves it.
_NO_PLUGIN = re.compile(
    r"no (provisionable )?volume plugin matched|provisioning in volume plugin \S+ is disabled"
)
# Of RFC 3339 text, what all clocks write alike.
_SECONDS = len("2006-01-02T15:04:05")
_WORKING = ("Provisioning", "ProvisioningSucceeded")


def no_class(picture: Picture, claim: views.Claim) -> Cause:
    """Say what a claim without a class can do that no existing volume fits."""
    meta = claim.metadata
    where = f"pvc/{meta.name} in namespace {meta.namespace}"
    classes = picture.names(kinds.STORAGE_CLASS)
    if views.has_class(claim):
        what = 'its class is "", so no volume is made for it, and no existing volume fits'
        code = "class-empty"
    else:
        what = "it names no class, there is no default class, and no existing volume fits"
        code = "no-default-class"
    if not classes:
        fix = "# There is no class at all: holdfast demo makes one, or see examples/"
        return Cause(code, what, where, fix)
    name = classes[0] if len(classes) == 1 else "<class>"
    annotation = f"{views.DEFAULT_CLASS}=true"
    if code == "no-default-class":
        fix = kubectl("annotate", "storageclass", name, annotation)
    else:
        fix = lines(
            f"# Make it again with storageClassName: {name}",
            kubectl("delete", "pvc", meta.name, namespace=meta.namespace),
        )
    return Cause(code, what + f" (classes: {listed(classes)})", where, fix)


def missing_class(picture: Picture, claim: views.Claim) -> Cause:
    """Say that the class does not exist, and which was meant."""
    name = views.class_of(claim)
    known = picture.names(kinds.STORAGE_CLASS)
    near = suggest.nearest(name, known)
    meta = claim.metadata
    hint = f"; did you mean {near}?" if near else f"; classes: {listed(known) or 'none'}"
    return Cause(
        "class-missing",
        f"its class {name} does not exist{hint}",
        f"pvc/{meta.name} in namespace {meta.namespace}, spec.storageClassName",
        lines(
            f"# A claim's class cannot be changed: make it again with storageClassName: "
            f"{near or '<class>'}",
            kubectl("delete", "pvc", meta.name, namespace=meta.namespace),
        ),
    )


def class_problem(picture: Picture, found: views.StorageClass) -> Cause | None:
    """Say why nobody can make a volume of the class, whatever the claim."""
    return _unserved(picture, found) or _nowhere(picture, found)


def request_problem(picture: Picture, claim: views.Claim, served: bool) -> Cause | None:
    """Say why no volume can be made for this claim, whatever the class."""
    meta = claim.metadata
    where = f"pvc/{meta.name} in namespace {meta.namespace}"
    if claim.spec.selector is not None and served:
        what = "it has a selector: such a claim is matched with existing volumes and none is made"
        fix = lines(
            "# Give a volume the labels that the selector wants, or make the claim without it:",
            kubectl("delete", "pvc", meta.name, namespace=meta.namespace),
        )
        return Cause("selector", what, f"{where}, spec.selector", fix)
    return _source(picture, claim, where)


async def secret_problem(
    client: Client, claim: views.Claim, found: views.StorageClass
) -> Cause | None:
    """Say what is wrong with the secrets that the class names for this claim."""
    where = f"class {found.metadata.name}"
    entry = registry.find(found.provisioner)
    meta = claim.metadata
    identity = ClaimIdentity(meta.namespace, meta.name, f"pvc-{meta.uid}", meta.annotations)
    reading = entry.secrets if entry is not None else secretrefs.of_class
    try:
        if entry is not None:
            entry.parameters(found.parameters)
        refs = reading(found.parameters or {}, identity)
    except errors.Invalid as error:
        return _class_cause("parameter", error.what, where, error.remedy, found)
    reader = secrets.SecretReader(client)
    named = [refs.provision, refs.stage, refs.publish, refs.attach, refs.expand, refs.node_expand]
    for ref in dict.fromkeys(ref for ref in named if ref is not None):
        report = await secretchecks.check(reader, ref, where)
        for finding in report.findings:
            if finding.severity == "error" and "cannot be read" not in finding.what:
                return _secret_cause(ref, finding.what, finding.where, finding.remedy)
    return None


def failure(picture: Picture, obj: Object, found: views.StorageClass) -> Cause | None:
    """Say how making the volume failed last, from the claim's events."""
    made = found.metadata.creation_timestamp or ""
    told = picture.told(obj, *_FAILURES)
    # A class is repaired by making it again; what failed before that is over.
    failed = [
        event
        for event in told
        if event.warning
        and event.last[:_SECONDS] >= made[:_SECONDS]
        and not (event.message.startswith("storageclass") and event.message.endswith("not found"))
    ]
    own = [event for event in failed if not _NO_PLUGIN.search(event.message)]
    if failed and not own and _served_by_class(found):
        return _unheard(picture, obj, found)
    if not failed:
        return None
    last = (own or failed)[-1]
    meta = obj["metadata"]
    where = f"class {found.metadata.name}, pvc/{meta['name']} in namespace {meta['namespace']}"
    entry = registry.find(found.provisioner)
    check = (
        f"holdfast check {entry.backend}"
        if entry is not None
        else kubectl("describe", "storageclass", found.metadata.name)
    )
    if known := vsphere.remedy(_backend(entry), last.message):
        return Cause(known.code, last.message, where, known.fix)
    if "parameter" in last.message or "invalid option" in last.message:
        return _class_cause("parameter", last.message, where, "", found)
    code = "provisioning-failed"
    if re.search(r"secret", last.message, re.IGNORECASE):
        code = "secret"
    elif re.search(r"no room|does not fit|not enough|exhausted|exceed", last.message):
        code = "no-room"
    return Cause(code, last.message, where, check)


def _unheard(picture: Picture, obj: Object, found: views.StorageClass) -> Cause | None:
    """Say that an in-tree name waits for us, unless we are at work on it."""
    if picture.told(obj, *_WORKING):
        return None
    name = found.provisioner
    what = (
        f"Kubernetes itself has no plug-in {name} any more, and the controller of Holdfast, which "
        "serves it, has not answered: it does not run"
    )
    return Cause("provisioner-silent", what, f"class {found.metadata.name}", _start(name))


def progress(picture: Picture, obj: Object, found: views.StorageClass) -> Cause:
    """Say what is waited for when nothing has failed."""
    meta = obj["metadata"]
    where = f"pvc/{meta['name']} in namespace {meta['namespace']}"
    name = found.provisioner
    maker = MIGRATED.get(name, name)
    if picture.told(obj, *_WORKING):
        what = f"its volume is being made by {maker}"
        follow = kubectl("get", "pvc", meta["name"], "--watch", namespace=meta["namespace"])
        return Cause("being-made", what, where, follow, waiting=True)
    if picture.told(obj, "ExternalProvisioning") or _annotated(obj):
        what = f"it waits for provisioner {maker}, which has not answered: it does not run"
        return Cause("provisioner-silent", what, f"class {found.metadata.name}", _start(maker))
    what = "nobody has looked at it yet: the controller that binds claims does not run"
    fix = lines(
        "holdfast status", kubectl("-n", "kube-system", "get", "pods", "-l", "tier=control-plane")
    )
    return Cause("nobody-binds", what, where, fix)


def serves(provisioner: str) -> bool:
    """Whether volumes can be made for classes of the name at all."""
    return provisioner not in ("", NO_PROVISIONER)


def _unserved(picture: Picture, found: views.StorageClass) -> Cause | None:
    name = found.provisioner
    drivers = picture.names(kinds.CSI_DRIVER)
    if name in registry.PROVISIONERS or name in drivers or MIGRATED.get(name) in drivers:
        return None
    where = f"class {found.metadata.name}, provisioner"
    known = {*registry.PROVISIONERS, *drivers}
    near = _meant(name, known)
    if near:
        what = f"nobody answers to provisioner {name}; did you mean {near}?"
        return _class_cause("provisioner-misspelt", what, where, f"provisioner: {near}", found)
    if name.startswith(IN_TREE) and name not in MIGRATED:
        what = f"nobody answers to provisioner {name}: Kubernetes has no such plug-in any more"
        fix = f"provisioner: one of {listed(sorted(known))}"
        return _class_cause("provisioner-gone", what, where, fix, found)
    if name in MIGRATED:
        what = f"Kubernetes passes {name} on to CSI driver {MIGRATED[name]}, which is not installed"
        return Cause("driver-missing", what, where, _start(MIGRATED[name]))
    if kinds.CSI_DRIVER in picture.unread or _spoke(picture, name):
        return None
    what = f"nobody answers to provisioner {name}: there is no CSIDriver of that name"
    return Cause("driver-missing", what, where, _start(name))


def _meant(name: str, known: set[str]) -> str | None:
    """Guess which name was meant; the common part of in-tree names makes none alike."""
    if name in MIGRATED or name in _REMOVED:
        return None
    if not name.startswith(IN_TREE):
        return suggest.nearest(name, known)
    plugins = {each.removeprefix(IN_TREE) for each in known if each.startswith(IN_TREE)}
    near = suggest.nearest(name.removeprefix(IN_TREE), plugins)
    return IN_TREE + near if near else None


def _nowhere(picture: Picture, found: views.StorageClass) -> Cause | None:
    nodes = [views.node(obj) for obj in picture.all(kinds.NODE)]
    terms = found.allowed_topologies
    if not nodes or any(affinity.topology_admits(terms, n.metadata.labels) for n in nodes):
        return None
    wanted = " or ".join(
        " and ".join(
            f"{each.get('key')} in {','.join(each.get('values') or ())}"
            for each in term.get("matchLabelExpressions") or ()
        )
        for term in terms
    )
    what = f"its allowedTopologies admit no node: none has {wanted}"
    where = f"class {found.metadata.name}, allowedTopologies"
    return Cause("topology", what, where, kubectl("get", "nodes", "--show-labels"))


def _source(picture: Picture, claim: views.Claim, where: str) -> Cause | None:
    source = claim.spec.data_source_ref or claim.spec.data_source
    if source is None:
        return None
    namespace = claim.metadata.namespace
    place = f"{where}, spec.dataSource"
    kind = kinds.CLAIM if source.kind == "PersistentVolumeClaim" else kinds.SNAPSHOT
    if source.kind not in ("PersistentVolumeClaim", "VolumeSnapshot"):
        what = f"its data is to come from a {source.kind}, which nobody here fills volumes from"
        return Cause("source-kind", what, place, kubectl("api-resources"))
    if source.namespace and source.namespace != namespace:
        what = f"its source {source.name} is in namespace {source.namespace}, not in {namespace}"
        return Cause("source-namespace", what, place, kubectl("get", kind.plural, "-A"))
    obj = picture.find(kind, source.name)
    if obj is None:
        near = suggest.nearest(source.name, picture.names(kind))
        hint = f"; did you mean {near}?" if near else ""
        what = f"its source, {kind.singular} {source.name}, does not exist{hint}"
        fix = kubectl("get", kind.plural, namespace=namespace)
        return Cause("source-missing", what, place, fix)
    status = obj.get("status") or {}
    if kind is kinds.CLAIM and status.get("phase") != "Bound":
        what = f"its source, claim {source.name}, is not bound itself"
        return Cause(
            "source-not-ready", what, place, f"holdfast why pvc/{source.name} -n {namespace}"
        )
    if kind is kinds.SNAPSHOT and not status.get("readyToUse"):
        why = (status.get("error") or {}).get("message") or "it is not ready to use yet"
        what = f"its source, snapshot {source.name}, cannot be used: {why}"
        fix = kubectl("describe", "volumesnapshot", source.name, namespace=namespace)
        return Cause("source-not-ready", what, place, fix, waiting="error" not in status)
    return None


def _class_cause(code: str, what: str, where: str, change: str, found: views.StorageClass) -> Cause:
    """Parameters and provisioner of a class cannot be changed: it has to be made again."""
    name = found.metadata.name
    file = f"{name}.yaml"
    fix = lines(
        kubectl("get", "storageclass", name, "-o", "yaml") + f" > {file}",
        f"# Correct {file}" + (f": {change}" if change else ""),
        kubectl("replace", "--force", "-f", file),
    )
    return Cause(code, what, where, fix)


def _secret_cause(ref: SecretRef, what: str, where: str, remedy: str) -> Cause:
    kind = f"--type={ref.type}" if ref.type else ""
    if "not found" in what:
        words = ["create", "secret", "generic", ref.name, *([kind] if kind else [])]
        fix = kubectl(*words, namespace=ref.namespace) + " --from-literal=<key>=<value>"
        hint = f": {remedy}" if "there is one" in remedy else ""
        return Cause("secret-missing", f"its secret {ref} does not exist{hint}", where, fix)
    fix = lines(f"# {remedy}", kubectl("delete", "secret", ref.name, namespace=ref.namespace))
    return Cause("secret-wrong", f"its secret {ref} cannot be used: {what}", where, fix)


def _start(provisioner: str) -> str:
    backend = registry.DRIVERS.get(provisioner) or _backend(registry.find(provisioner))
    if backend:
        return lines(
            f"# If it is not installed: holdfast install --print --storage {backend} | "
            "kubectl apply -f -",
            "kubectl -n holdfast rollout status deployment/holdfast-controller",
            f"holdfast check {backend}",
        )
    return lines(f"# Start or install what serves {provisioner}:", kubectl("get", "pods", "-A"))


def _backend(entry: Provisioner | None) -> str:
    return entry.backend if entry is not None else ""


def _spoke(picture: Picture, provisioner: str) -> bool:
    """Whether a provisioner without a CSIDriver has said anything about a claim."""
    return any(
        str((each.get("source") or {}).get("component", "")).startswith(provisioner)
        for each in picture.events
    )


def _annotated(obj: Object) -> bool:
    return views.STORAGE_PROVISIONER in (obj["metadata"].get("annotations") or {})


def _served_by_class(found: views.StorageClass) -> bool:
    name = found.provisioner
    return name.startswith(IN_TREE) and name not in MIGRATED and name in registry.PROVISIONERS


def failures(events: Iterable[Event]) -> list[str]:
    """Write the failures among events, each once, latest last."""
    return list(dict.fromkeys(f"{e.reason}: {e.message}" for e in events if e.warning))
