"""Class names, volume sources and static volumes of vSphere, old and new.

The in-tree provisioner writes `vsphereVolume` with the path of a VMDK, the CSI driver `csi`
with a volume's id. Static volumes of either form, and a pod's own `vsphereVolume`, are read
back the same way: whoever wrote them, the path is the id.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from holdfast.backends.names import Made
from holdfast.backends.protocol import Mode, VolumeHandle

PROVISIONER = "kubernetes.io/vsphere-volume"
DRIVER = "csi.vsphere.vmware.com"
OLD_DRIVER = "vsphere.csi.vmware.com"
SOURCE = "vsphereVolume"
POLICY_ID = "storagePolicyID"  # in a volume's context


def pv_source(made: Made) -> dict[str, Any]:
    """Return the in-tree fragment that names the volume, `vsphereVolume`."""
    source: dict[str, Any] = {"volumePath": made.volume.id}
    fs_type = made.volume.context.get("fsType", "")
    if made.request.mode == "Filesystem":
        source["fsType"] = fs_type or "ext4"
    policy = {key.lower(): value for key, value in made.request.parameters.items()}
    if policy.get("storagepolicyname"):
        source["storagePolicyName"] = policy["storagepolicyname"]
        if id := made.volume.context.get(POLICY_ID):
            source["storagePolicyID"] = id
    return {SOURCE: source}


def handle_of(
    spec: Mapping[str, Any], annotations: Mapping[str, str] | None = None
) -> VolumeHandle | None:
    """Return the handle of a PersistentVolume's spec, or None when its source is another's."""
    source = spec.get(SOURCE)
    if not isinstance(source, Mapping):
        return None
    mode: Mode = "Block" if spec.get("volumeMode") == "Block" else "Filesystem"
    return VolumeHandle(
        id=volume_path(str(source.get("volumePath") or "")),
        fs_type=str(source.get("fsType") or ""),
        mode=mode,
        options=tuple(spec.get("mountOptions") or ()),
    )


def inline_handle(volume: Mapping[str, Any]) -> VolumeHandle | None:
    """Return the handle of a pod's own `vsphereVolume`, or None for other volumes."""
    return handle_of({SOURCE: volume[SOURCE]}) if SOURCE in volume else None


def volume_path(text: str) -> str:
    """Return a path as it is written everywhere: `[ds] dir/x.vmdk`, with the suffix."""
    path = text.strip()
    if path.startswith("[") and "]" in path:
        store, _, rest = path.partition("]")
        path = f"{store}] {rest.strip()}"
        if not path.endswith(".vmdk"):
            path += ".vmdk"
    return path
