"""What an adoption would do: the new volume object, and every reason not to begin.

The invariant: a plan changes nothing, and exists only for a volume that nobody uses.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from holdfast.api import errors as api_errors
from holdfast.api import kinds, views
from holdfast.backends import errors, names, registry
from holdfast.backends.protocol import Volume, VolumeHandle, VolumeRequest
from holdfast.backends.secretrefs import ClaimIdentity, SecretRef, SecretRefs
from holdfast.controllers import attachments, secrets
from holdfast.controllers.binding.writes import MIGRATED_TO
from holdfast.runtime.client import Client, Object

# Who the volume was made from, for people who find it later.
ADOPTED_FROM = "holdfast.dev/adopted-from"


class Refused(Exception):
    """It cannot be done now, or not at all: what is in the way, where, what to do."""


@dataclass(frozen=True, slots=True)
class Plan:
    """One adoption. `old` is as read, `new` as it is to be created, still with policy Retain.

    `policy` is the old one's, and what the new one gets at the end. `warnings` are for people.
    """

    old: Object
    new: Object
    backend: str
    handle: VolumeHandle
    policy: str
    deletion: SecretRef | None
    warnings: Sequence[str] = ()

    @property
    def name(self) -> str:
        """The volume's name."""
        return str(self.old["metadata"]["name"])

    def steps(self) -> list[str]:
        """Say each step in order, for people."""
        reference = self.old["spec"].get("claimRef")
        whose = f"{reference['namespace']}/{reference['name']}" if reference else ""
        steps = [
            "write the undo file",
            f"set the reclaim policy of pv/{self.name} to Retain, so that no data is deleted",
            f"delete the object pv/{self.name}; the data stays",
            f"create pv/{self.name} as a csi volume of {self.new['spec']['csi']['driver']}",
        ]
        if whose:
            steps.append(f"wait until claim {whose}, Lost meanwhile, is Bound again")
        if self.policy != "Retain":
            steps.append(f"set the reclaim policy back to {self.policy}")
        return steps


async def make(client: Client, name: str, driver: str | None) -> Plan:
    """Plan the adoption of a volume. Raises Refused and what the API raises."""
    try:
        old = await client.get(kinds.VOLUME, name)
    except api_errors.NotFound as error:
        raise Refused(f"there is no volume {name}: kubectl get pv lists them") from error
    found = registry.handle_of(old["spec"], old["metadata"].get("annotations"))
    known = {*registry.DRIVERS.values()}
    if found is None or found[0] not in known or not found[1].id:
        kind = views.volume(old).spec.source()[0] or "no source"
        raise Refused(
            f"pv/{name}: its source ({kind}) is not one of a storage system that is served here: "
            f"{', '.join(sorted(known))}"
        )
    backend, handle = found
    target = _target(name, backend, driver, old)
    await check_unused(client, old)
    refs = await _secrets(client, old, backend)
    new = _object(old, target, handle, refs)
    warnings = await _warnings(client, target)
    policy = str(old["spec"].get("persistentVolumeReclaimPolicy", "Retain"))
    return Plan(old, new, backend, handle, policy, refs.provision, warnings)


async def check_unused(client: Client, old: Object) -> None:
    """See that nothing uses the volume and its state is one that can be left. Raises Refused."""
    volume = views.volume(old)
    name = volume.metadata.name
    if volume.metadata.terminating:
        raise Refused(f"pv/{name} is being deleted: holdfast why pv/{name} says what it waits for")
    policy, phase = volume.spec.persistent_volume_reclaim_policy, volume.status.phase
    if phase in ("Released", "Failed") and policy != "Retain":
        raise Refused(
            f"pv/{name} is {phase} with policy {policy}: its data would be deleted. To keep it: "
            f"kubectl patch pv {name} -p "
            '\'{"spec":{"persistentVolumeReclaimPolicy":"Retain"}}\''
        )
    for each in (await client.list(kinds.VOLUME_ATTACHMENT)).items:
        if (each["spec"].get("source") or {}).get("persistentVolumeName") == name:
            raise Refused(
                f"pv/{name} is attached to node {each['spec'].get('nodeName')} "
                f"(volumeattachment/{each['metadata']['name']}): wait until it is gone"
            )
    await _check_nodes(client, old)
    await _check_claim(client, volume)


async def _check_nodes(client: Client, old: Object) -> None:
    identity = attachments.identity(old)
    if identity is None:
        return
    wanted = attachments.unique_name(*identity)
    for node in (await client.list(kinds.NODE)).items:
        if wanted in ((node.get("status") or {}).get("volumesInUse") or ()):
            raise Refused(
                f"node {node['metadata']['name']} says that it uses pv/{old['metadata']['name']}: "
                "wait until its pods there are gone"
            )


async def _check_claim(client: Client, volume: views.Volume) -> None:
    reference = volume.spec.claim_ref
    if reference is None:
        return
    where = f"claim {reference.namespace}/{reference.name}"
    try:
        claim = await client.get(kinds.CLAIM, reference.name, reference.namespace)
    except api_errors.NotFound:
        return
    if reference.uid not in ("", claim["metadata"]["uid"]):
        return
    if "deletionTimestamp" in claim["metadata"]:
        raise Refused(f"{where} is being deleted: there is nothing to adopt the volume for")
    for obj in (await client.list(kinds.POD, reference.namespace)).items:
        pod = views.pod(obj)
        if not pod.finished and reference.name in {name for _, name in views.claims_of(pod)}:
            raise Refused(
                f"pod {reference.namespace}/{pod.metadata.name} uses {where}: stop it first, for "
                "example kubectl scale --replicas=0 what made it"
            )


def _target(name: str, backend: str, driver: str | None, old: Object) -> str:
    drivers = [each for each, of in registry.DRIVERS.items() if of == backend]
    own = f"{backend}.holdfast.dev"
    target = driver or (own if own in drivers else drivers[0])
    if target not in drivers:
        raise Refused(
            f"--driver {target} does not serve {backend} volumes: {' or '.join(drivers)} does"
        )
    if (old["spec"].get("csi") or {}).get("driver") == target:
        raise Refused(f"pv/{name} is a csi volume of {target} already")
    return target


async def _secrets(client: Client, old: Object, backend: str) -> SecretRefs:
    """Return where the volume's secrets are: those its source names, else its class's."""
    spec = old["spec"]
    reference = spec.get("claimRef") or {}
    namespace = str(reference.get("namespace") or "default")
    of_class = await _class_secrets(client, old, backend, namespace)
    stage = registry.node_secret(spec, namespace) or of_class.stage
    annotations = old["metadata"].get("annotations") or {}
    return SecretRefs(
        provision=secrets.deletion_ref(annotations) or of_class.provision,
        attach=registry.attach_secret(spec) or of_class.attach,
        stage=stage,
        publish=of_class.publish,
        expand=registry.expand_secret(spec) or of_class.expand,
        node_expand=of_class.node_expand,
    )


async def _class_secrets(client: Client, old: Object, backend: str, namespace: str) -> SecretRefs:
    volume = views.volume(old)
    name = views.class_of(volume)
    try:
        found = views.storage_class(await client.get(kinds.STORAGE_CLASS, name)) if name else None
    except api_errors.NotFound:
        found = None
    entry = registry.find(found.provisioner) if found is not None else None
    if found is None or entry is None or entry.backend != backend:
        return SecretRefs()
    claim = str((old["spec"].get("claimRef") or {}).get("name") or "")
    try:
        identity = ClaimIdentity(namespace, claim, volume.metadata.name)
        return entry.secrets(found.parameters or {}, identity)
    except errors.Invalid:
        # The class was broken later; the volume has what its source names.
        return SecretRefs()


def _object(old: Object, driver: str, handle: VolumeHandle, refs: SecretRefs) -> Object:
    kind = views.volume(old).spec.source()[0]
    kept = {key: value for key, value in old["spec"].items() if key != kind}
    context = {key: value for key, value in handle.context.items() if value}
    if handle.fs_type and handle.mode == "Filesystem":
        context["fsType"] = handle.fs_type
    request = VolumeRequest(handle.id, 0, mode=handle.mode)
    made = names.Made(Volume(handle.id, 0, context), request, driver, refs)
    source: dict[str, Any] = names.csi_source(made)
    if handle.read_only:
        source["csi"]["readOnly"] = True
    spec = {**kept, **source, "persistentVolumeReclaimPolicy": "Retain"}
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolume",
        "metadata": _metadata(old, driver, kind, refs),
        "spec": with_claim(spec),
    }


def with_claim(spec: Mapping[str, Any]) -> Object:
    """Return a volume's spec whose claimRef names the claim by uid, at no revision of it."""
    reference = spec.get("claimRef")
    if reference is None:
        return dict(spec)
    kept = {key: value for key, value in reference.items() if key != "resourceVersion"}
    return {**spec, "claimRef": kept}


def _metadata(old: Object, driver: str, kind: str, refs: SecretRefs) -> Object:
    meta = old["metadata"]
    annotations = dict(meta.get("annotations") or {})
    annotations.pop(MIGRATED_TO, None)
    if views.PROVISIONED_BY in annotations:
        annotations[views.PROVISIONED_BY] = driver
        annotations |= secrets.deletion_annotations(refs.provision)
    annotations[ADOPTED_FROM] = kind
    found = {"name": meta["name"], "annotations": annotations}
    return {**found, "labels": dict(meta["labels"])} if meta.get("labels") else found


async def _warnings(client: Client, driver: str) -> list[str]:
    try:
        await client.get(kinds.CSI_DRIVER, driver)
    except api_errors.NotFound:
        return [
            f"there is no CSIDriver {driver}: pods can use the volume only when holdfast node "
            "serve runs on the nodes"
        ]
    return []
