"""The PersistentVolume source `glusterfs`, and back from it to a handle.

The source names Endpoints and the volume, not the service that made it: that is in annotations. The
addresses in the Endpoints reach the handle on the node, which reads them from the API.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from holdfast.backends import secretrefs
from holdfast.backends.gluster import identity, settings
from holdfast.backends.names import Endpoints, Made, Provisioner, Source, csi_source
from holdfast.backends.protocol import VolumeHandle
from holdfast.backends.secretrefs import ClaimIdentity, SecretRef, SecretRefs

IN_TREE = "kubernetes.io/glusterfs"
DRIVER = "gluster.holdfast.dev"
SECRET_TYPE = "kubernetes.io/glusterfs"
# The whole id; the in-tree plug-in kept only Heketi's, under its own key.
VOLUME = "gluster.holdfast.dev/volume"
HEKETI_ID = "gluster.kubernetes.io/heketi-volume-id"
GID = "pv.beta.kubernetes.io/gid"
CLAIM_LABEL = "gluster.kubernetes.io/provisioned-for-pvc"
_HEKETIS_NAME = "vol_"
_LABEL_MOST = 63


def pv_source(made: Made) -> dict[str, Any]:
    """Return the fragment of the PersistentVolume's spec that names the volume."""
    namespace = made.claim.namespace if made.claim is not None else "default"
    return {
        "glusterfs": {
            "endpoints": _endpoints_name(made),
            "endpointsNamespace": namespace,
            "path": made.volume.context["volume"],
        }
    }


def annotations_of(made: Made) -> dict[str, str]:
    """Return what the in-tree plug-in wrote on a PersistentVolume, and where the volume is."""
    found = {"gluster.org/type": "file", VOLUME: made.volume.id}
    found[HEKETI_ID] = identity.VolumeId.parse(made.volume.id).heketi_id
    if "gid" in made.volume.context:
        found[GID] = made.volume.context["gid"]
    if made.provisioner == IN_TREE:
        found["kubernetes.io/createdby"] = "heketi-dynamic-provisioner"
        found["Description"] = "Gluster-Internal: Dynamically provisioned PV"
    return found


def secrets_of(parameters: Mapping[str, str], claim: ClaimIdentity) -> SecretRefs:
    """Read where the key is: in the in-tree parameters, or in those of CSI."""
    values = settings.spelled(parameters)
    if values.get("secretName") and values.get("secretNamespace"):
        ref = SecretRef(values["secretNamespace"], values["secretName"], SECRET_TYPE)
        return SecretRefs(provision=ref, expand=ref)
    return secretrefs.of_class(parameters, claim)


def handle_of(
    spec: Mapping[str, Any], annotations: Mapping[str, str] | None = None
) -> VolumeHandle | None:
    """Return the handle of a spec with the source `glusterfs`."""
    source = spec.get("glusterfs")
    if not isinstance(source, Mapping):
        return None
    path = str(source.get("path") or "").strip("/")
    told = annotations or {}
    heketi_id = told.get(HEKETI_ID) or path.removeprefix(_HEKETIS_NAME)
    return VolumeHandle(
        id=told.get(VOLUME) or heketi_id,
        context={"volume": path},
        read_only=bool(source.get("readOnly")),
    )


def endpoints_of(spec: Mapping[str, Any], namespace: str) -> tuple[str, str] | None:
    """Return namespace and name of the Endpoints a source names; `namespace` is the claim's."""
    source = spec.get("glusterfs")
    if not isinstance(source, Mapping):
        return None
    return str(source.get("endpointsNamespace") or namespace), str(source.get("endpoints") or "")


def companions(spec: Mapping[str, Any]) -> Endpoints | None:
    """Return the Endpoints that a volume made here needs in its claim's namespace."""
    found = endpoints_of(spec, "")
    if found is None or not all(found):
        return None
    claim = str((spec.get("claimRef") or {}).get("name") or "")
    labels = {CLAIM_LABEL: claim} if 0 < len(claim) <= _LABEL_MOST else {}
    return Endpoints(*found, labels=labels)


def _endpoints_name(made: Made) -> str:
    given = settings.spelled(made.request.parameters)
    prefix = given.get("customepnameprefix", settings.ENDPOINTS_PREFIX)
    uid = made.request.name.removeprefix("pvc-")
    return f"{prefix}-{uid}" if prefix else uid


PROVISIONERS = (
    Provisioner(
        IN_TREE,
        "gluster",
        pv_source,
        secrets=secrets_of,
        annotations=annotations_of,
        companions=companions,
    ),
    Provisioner(DRIVER, "gluster", csi_source, secrets=secrets_of, annotations=annotations_of),
)
SOURCE = Source("gluster", handle_of, endpoints=endpoints_of)
