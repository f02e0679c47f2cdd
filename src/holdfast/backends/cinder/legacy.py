"""Names and volume sources of Cinder, and back from a source to a handle.

`cinder.csi.openstack.org` is what the CSI driver of cloud-provider-openstack is
called, `kubernetes.io/cinder` the plug-in that Kubernetes once had built in.
Classes and volumes written for either are served as they are: both name a
volume by Cinder's own id.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from holdfast.backends.names import Made, Provisioner, Source, csi_source
from holdfast.backends.protocol import Mode, VolumeHandle
from holdfast.backends.secretrefs import SecretRef

BACKEND = "cinder"
NATIVE, DRIVER, IN_TREE = (
    "cinder.holdfast.dev",
    "cinder.csi.openstack.org",
    "kubernetes.io/cinder",
)


def pv_source(made: Made) -> dict[str, Any]:
    """Return the in-tree fragment of a PersistentVolume's spec."""
    source: dict[str, Any] = {"volumeID": made.volume.id}
    if made.request.mode == "Filesystem" and "fsType" in made.volume.context:
        source["fsType"] = made.volume.context["fsType"]
    return {"cinder": source}


def handle_of(
    spec: Mapping[str, Any], annotations: Mapping[str, str] | None = None
) -> VolumeHandle | None:
    """Return the handle of a spec with a `cinder` source, or None for another."""
    source = spec.get("cinder")
    if not isinstance(source, Mapping):
        return None
    mode: Mode = "Block" if spec.get("volumeMode") == "Block" else "Filesystem"
    return VolumeHandle(
        id=str(source.get("volumeID", "")),
        fs_type=str(source.get("fsType") or ""),
        read_only=bool(source.get("readOnly")),
        mode=mode,
        options=tuple(spec.get("mountOptions") or ()),
    )


def node_secret(source: Mapping[str, Any], namespace: str) -> SecretRef | None:
    """Return the secret a `cinder` source names; the old plug-in read cloud.conf from it."""
    found = source.get("secretRef") or {}
    if not found.get("name"):
        return None
    return SecretRef(str(found.get("namespace") or namespace), str(found["name"]))


PROVISIONERS = (
    Provisioner(NATIVE, BACKEND, csi_source),
    Provisioner(DRIVER, BACKEND, csi_source),
    Provisioner(IN_TREE, BACKEND, pv_source),
)
SOURCE = Source(BACKEND, handle_of, node_secret, DRIVER)
