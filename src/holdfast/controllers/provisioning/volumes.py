"""From a claim and its class to the backend's request, and from its answer to the volume object.

The volume's name is a function of the claim's uid, so whoever repeats the work finds the same
volume again.
"""

from __future__ import annotations

from collections.abc import Mapping

from holdfast.api import quantity, views
from holdfast.backends.names import Made
from holdfast.backends.protocol import NO_SECRETS, Volume, VolumeRequest, VolumeSource
from holdfast.backends.secretrefs import ClaimIdentity, SecretRefs
from holdfast.controllers import reclaiming, secrets
from holdfast.controllers.binding.writes import MIGRATED_TO
from holdfast.controllers.provisioners import Served
from holdfast.runtime.client import Object


def name_of(claim: views.Claim) -> str:
    """The name of the claim's volume, in Kubernetes and in the backend."""
    return f"pvc-{claim.metadata.uid}"


def secrets_of(claim: views.Claim, storage_class: views.StorageClass, served: Served) -> SecretRefs:
    """Where the class says that the secrets are; raises `backends.errors.Invalid`."""
    return served.name.secrets(storage_class.parameters or {}, _identity(claim))


def _identity(claim: views.Claim) -> ClaimIdentity:
    meta = claim.metadata
    return ClaimIdentity(meta.namespace, meta.name, name_of(claim), meta.annotations)


def request_of(
    claim: views.Claim,
    storage_class: views.StorageClass,
    served: Served,
    source: VolumeSource | None = None,
    topology: Mapping[str, str] | None = None,
    secrets: Mapping[str, str] = NO_SECRETS,
) -> VolumeRequest:
    """What the backend has to make; raises `backends.errors.Invalid` for bad parameters."""
    return VolumeRequest(
        name=name_of(claim),
        size=quantity.parse(claim.spec.request).bytes(),
        parameters=served.name.parameters(storage_class.parameters),
        access=tuple(claim.spec.access_modes),
        mode="Block" if claim.spec.volume_mode == "Block" else "Filesystem",
        source=source,
        topology=topology,
        secrets=secrets,
        owner=f"{claim.metadata.namespace}/{claim.metadata.name}",
    )


def object_of(
    claim: views.Claim,
    storage_class: views.StorageClass,
    served: Served,
    request: VolumeRequest,
    volume: Volume,
) -> Object:
    """The PersistentVolume, already bound to the claim from its side."""
    provisioner = served.maker
    policy = storage_class.reclaim_policy
    refs = secrets_of(claim, storage_class, served)
    made = Made(volume, request, provisioner, refs, _identity(claim))
    annotations = {
        views.PROVISIONED_BY: provisioner,
        **served.name.annotations(made),
        **secrets.deletion_annotations(refs.provision),
    }
    if served.driver != provisioner:
        annotations[MIGRATED_TO] = served.driver
    finalizers = []
    if served.in_tree:
        annotations[views.BOUND_BY_CONTROLLER] = "yes"
    if policy == "Delete":
        finalizers.append(reclaiming.FINALIZER if served.in_tree else reclaiming.EXTERNAL_FINALIZER)
    spec: Object = {
        "capacity": {"storage": quantity.Quantity.of_bytes(volume.size).canonical()},
        **served.name.source(made),
        "accessModes": list(claim.spec.access_modes),
        "claimRef": {
            "apiVersion": "v1",
            "kind": "PersistentVolumeClaim",
            "namespace": claim.metadata.namespace,
            "name": claim.metadata.name,
            "uid": claim.metadata.uid,
            "resourceVersion": claim.metadata.resource_version,
        },
        "persistentVolumeReclaimPolicy": policy,
        "storageClassName": storage_class.metadata.name,
        "volumeMode": request.mode,
    }
    if storage_class.mount_options:
        spec["mountOptions"] = list(storage_class.mount_options)
    if volume.topology:
        spec["nodeAffinity"] = _affinity(volume.topology)
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolume",
        "metadata": {"name": request.name, "annotations": annotations, "finalizers": finalizers},
        "spec": spec,
    }


def _affinity(topology: Mapping[str, str]) -> Object:
    expressions = [
        {"key": key, "operator": "In", "values": [value]} for key, value in topology.items()
    ]
    return {"required": {"nodeSelectorTerms": [{"matchExpressions": expressions}]}}
