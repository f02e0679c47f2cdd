"""From a claim and its class to the backend's request, and from its answer to the volume object.

The volume's name is a function of the claim's uid, so whoever repeats the work finds the same
volume again.
"""

from __future__ import annotations

from collections.abc import Mapping

from holdfast.api import quantity, views
from holdfast.backends.names import Made
from holdfast.backends.protocol import Volume, VolumeRequest, VolumeSource
from holdfast.controllers import reclaiming
from holdfast.controllers.provisioners import Served
from holdfast.runtime.client import Object


def name_of(claim: views.Claim) -> str:
    """The name of the claim's volume, in Kubernetes and in the backend."""
    return f"pvc-{claim.metadata.uid}"


def request_of(
    claim: views.Claim,
    storage_class: views.StorageClass,
    served: Served,
    source: VolumeSource | None,
    topology: Mapping[str, str] | None,
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
    )


def object_of(
    claim: views.Claim,
    storage_class: views.StorageClass,
    served: Served,
    request: VolumeRequest,
    volume: Volume,
) -> Object:
    """The PersistentVolume, already bound to the claim from its side."""
    provisioner = served.name.name
    policy = storage_class.reclaim_policy
    annotations = {views.PROVISIONED_BY: provisioner}
    finalizers = []
    if served.in_tree:
        annotations[views.BOUND_BY_CONTROLLER] = "yes"
    if policy == "Delete":
        finalizers.append(reclaiming.FINALIZER if served.in_tree else reclaiming.EXTERNAL_FINALIZER)
    spec: Object = {
        "capacity": {"storage": quantity.Quantity.of_bytes(volume.size).canonical()},
        **served.name.source(Made(volume, request, provisioner)),
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
