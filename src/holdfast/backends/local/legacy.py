"""The PersistentVolume sources of local volumes, and back from them to a handle.

Two sources name something on a node's own disk: `local` and `hostPath`. Volumes
made by this backend and static ones written by an administrator look the same
in the source; they are told apart by who provisioned them, because only our own
may be given back to the backend by id.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from holdfast.backends.local import records
from holdfast.backends.names import Made
from holdfast.backends.protocol import Mode, VolumeHandle

PROVISIONER = "local.holdfast.dev"
HOST_PATH_PROVISIONER = "kubernetes.io/host-path"
PROVISIONED_BY = "pv.kubernetes.io/provisioned-by"


def pv_source(made: Made) -> dict[str, Any]:
    """Return the fragment of the PersistentVolume's spec that names the volume.

    The node affinity of a `local` source follows from Volume.topology and is
    the caller's to add.
    """
    context = made.volume.context
    path = context["path"]
    if made.provisioner == HOST_PATH_PROVISIONER:
        return {"hostPath": {"path": path, "type": "Directory"}}
    source = {"path": path}
    # Kubernetes reads fsType only for devices, and an image becomes one.
    if made.request.mode == "Filesystem" and context["layout"] == "image":
        source["fsType"] = context["fsType"]
    return {"local": source}


def handle_of(
    spec: Mapping[str, Any], annotations: Mapping[str, str] | None = None
) -> VolumeHandle | None:
    """Return the handle of a PersistentVolume's spec, or None when its source is another's.

    The id is the backend's volume id for volumes of this backend, and the path
    for static ones.
    """
    kind = "local" if "local" in spec else "hostPath"
    source = spec.get(kind)
    if not isinstance(source, Mapping):
        return None
    path = str(source.get("path", ""))
    ours = (annotations or {}).get(PROVISIONED_BY) in (PROVISIONER, HOST_PATH_PROVISIONER)
    mode: Mode = "Block" if spec.get("volumeMode") == "Block" else "Filesystem"
    return VolumeHandle(
        id=volume_id(path) if ours else path,
        context={"path": path, "kind": kind, "type": str(source.get("type") or "")},
        fs_type=str(source.get("fsType") or ""),
        mode=mode,
    )


def inline_handle(volume: Mapping[str, Any]) -> VolumeHandle | None:
    """Return the handle of a pod's own `hostPath` volume, or None for other volumes."""
    return handle_of({"hostPath": volume["hostPath"]}) if "hostPath" in volume else None


def volume_id(path: str) -> str:
    """Return the id of one of this backend's volumes from the path of its content."""
    content = Path(path)
    return content.parent.name if content.name in (records.IMAGE, records.DATA) else path
