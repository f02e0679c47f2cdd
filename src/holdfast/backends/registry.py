"""Which backend answers to which name: the visible tables.

`BACKENDS` says how each backend is opened, `NODE_SIDES` how its part on a node
is. `PROVISIONERS` lists every name that a StorageClass may give, with the
backend behind it and the parameters the name itself implies; `DRIVERS` lists
the CSI driver names; `SOURCES` reads a PersistentVolume's in-tree source back.

Invariant: nothing registers itself by being imported. A new backend is a line
in each table, and its package is not imported before it is opened, so a
machine needs the libraries only of the systems it has.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from holdfast.backends.cinder import legacy as cinder_legacy
from holdfast.backends.gluster import legacy as gluster_legacy
from holdfast.backends.local import legacy as local_legacy
from holdfast.backends.names import Provisioner, Source, csi_handle, csi_source
from holdfast.backends.protocol import Backend, NodeSide, VolumeHandle
from holdfast.backends.rbd import legacy as rbd_legacy
from holdfast.backends.secretrefs import SecretRef
from holdfast.backends.vsphere import legacy as vsphere_legacy
from holdfast.kit import suggest

# The instances of one kind as the configuration has them: by name, the settings of each.
Instances = Mapping[str, Mapping[str, object]]


def _open_local_node(instances: Instances, directory: Path) -> NodeSide:
    from holdfast.backends.local.node_side import LocalNodeSide

    return LocalNodeSide()


def _open_rbd(instances: Instances, directory: Path) -> Backend:
    from holdfast.backends.rbd.backend import RbdBackend

    return RbdBackend(instances, directory)


def _open_rbd_node(instances: Instances, directory: Path) -> NodeSide:
    from holdfast.backends.rbd.node_side import RbdNodeSide

    return RbdNodeSide(instances, directory)


def _open_cinder(instances: Instances, directory: Path) -> Backend:
    from holdfast.backends.cinder.backend import CinderBackend

    return CinderBackend(instances, directory)


def _open_cinder_node(instances: Instances, directory: Path) -> NodeSide:
    from holdfast.backends.cinder.node_side import CinderNodeSide

    return CinderNodeSide(instances, directory)


def _open_vsphere(instances: Instances, directory: Path) -> Backend:
    from holdfast.backends.vsphere.backend import VsphereBackend

    return VsphereBackend(instances, directory)


def _open_vsphere_node(instances: Instances, directory: Path) -> NodeSide:
    from holdfast.backends.vsphere import node_side

    return node_side.node_side(instances, directory)


def _open_gluster(instances: Instances, directory: Path) -> Backend:
    from holdfast.backends.gluster.backend import GlusterBackend

    return GlusterBackend(instances, directory)


def _open_gluster_node(instances: Instances, directory: Path) -> NodeSide:
    from holdfast.backends.gluster.node_side import GlusterNodeSide

    return GlusterNodeSide(directory)


# Backends of storage systems on the network; the local backend is opened for each node.
BACKENDS: Mapping[str, Callable[[Instances, Path], Backend]] = {
    "cinder": _open_cinder,
    "gluster": _open_gluster,
    "rbd": _open_rbd,
    "vsphere": _open_vsphere,
}

NODE_SIDES: Mapping[str, Callable[[Instances, Path], NodeSide]] = {
    "cinder": _open_cinder_node,
    "gluster": _open_gluster_node,
    "local": _open_local_node,
    "rbd": _open_rbd_node,
    "vsphere": _open_vsphere_node,
}

PROVISIONERS: Mapping[str, Provisioner] = {
    entry.name: entry
    for entry in (
        Provisioner(local_legacy.PROVISIONER, "local", local_legacy.pv_source),
        Provisioner(
            local_legacy.HOST_PATH_PROVISIONER,
            "local",
            local_legacy.pv_source,
            {"layout": "directory"},
        ),
        *rbd_legacy.PROVISIONERS,
        *cinder_legacy.PROVISIONERS,
        *gluster_legacy.PROVISIONERS,
        Provisioner(vsphere_legacy.PROVISIONER, "vsphere", vsphere_legacy.pv_source),
        Provisioner(vsphere_legacy.DRIVER, "vsphere", csi_source, {"disk": "fcd"}),
    )
}

# CSI driver name: backend.
DRIVERS: Mapping[str, str] = {
    cinder_legacy.DRIVER: "cinder",
    cinder_legacy.NATIVE: "cinder",
    gluster_legacy.DRIVER: "gluster",
    local_legacy.PROVISIONER: "local",
    rbd_legacy.DRIVER: "rbd",
    rbd_legacy.CSI_DRIVER: "rbd",
    vsphere_legacy.DRIVER: "vsphere",
    vsphere_legacy.OLD_DRIVER: "vsphere",
}

# Backends that have to attach a volume before a node can use it. Every CSI driver's CSIDriver
# says so, and it has to be known without opening the backend.
ATTACHING: frozenset[str] = frozenset({"cinder", "rbd", "vsphere"})

# Backends for which the attributes of a `csi` source can be part of what it names.
IDENTIFIERS: Mapping[str, Callable[[str, Mapping[str, str]], str]] = {
    "rbd": rbd_legacy.volume_id,
}

SOURCES: Mapping[str, Source] = {
    "cinder": cinder_legacy.SOURCE,
    "local": Source("local", local_legacy.handle_of),
    "hostPath": Source("local", local_legacy.handle_of),
    "glusterfs": gluster_legacy.SOURCE,
    "rbd": rbd_legacy.SOURCE,
    vsphere_legacy.SOURCE: Source(
        "vsphere", vsphere_legacy.handle_of, driver=vsphere_legacy.DRIVER
    ),
}


def find(provisioner: str) -> Provisioner | None:
    """Return what answers to a class's `provisioner`, or None when nobody here does."""
    return PROVISIONERS.get(provisioner)


def nearest(provisioner: str) -> str | None:
    """Return the known provisioner name that looks most like a misspelt one."""
    return suggest.nearest(provisioner, PROVISIONERS)


def handle_of(
    spec: Mapping[str, Any], annotations: Mapping[str, str] | None = None
) -> tuple[str, VolumeHandle] | None:
    """Return the backend's name and the handle for a PersistentVolume's spec, or None.

    A CSI driver that is not one of ours stands for itself.
    """
    if "csi" in spec:
        driver = str(spec["csi"].get("driver", ""))
        found = csi_handle(spec)
        id = volume_id(driver, found.id, found.context)
        return DRIVERS.get(driver, driver), replace(found, id=id)
    for key, source in SOURCES.items():
        if key in spec:
            handle = source.read(spec, annotations)
            return (source.backend, handle) if handle is not None else None
    return None


def volume_id(driver: str, handle: str, attributes: Mapping[str, str]) -> str:
    """Return the id by which the backend of a CSI driver knows a volume with this handle."""
    identify = IDENTIFIERS.get(DRIVERS.get(driver, driver))
    return identify(handle, attributes) if identify is not None else handle


def driver_of(spec: Mapping[str, Any]) -> str:
    """Return the CSI driver under whose name a volume is attached; empty for none."""
    if "csi" in spec:
        return str(spec["csi"].get("driver", ""))
    return next((source.driver for key, source in SOURCES.items() if key in spec), "")


def endpoints_of(spec: Mapping[str, Any], namespace: str) -> tuple[str, str] | None:
    """Return namespace and name of the Endpoints a volume is reached through; None for none."""
    return next(
        (entry.endpoints(spec, namespace) for key, entry in SOURCES.items() if key in spec), None
    )


def node_secret(spec: Mapping[str, Any], namespace: str) -> SecretRef | None:
    """Return where the node's secret for a volume is; `namespace` is its claim's."""
    if "csi" in spec:
        return _ref(
            spec["csi"].get("nodeStageSecretRef") or spec["csi"].get("nodePublishSecretRef")
        )
    for key, entry in SOURCES.items():
        if key in spec:
            return entry.secret(spec[key], namespace)
    return None


def attach_secret(spec: Mapping[str, Any]) -> SecretRef | None:
    """Return where the secret for attaching a volume is."""
    return _ref((spec.get("csi") or {}).get("controllerPublishSecretRef"))


def expand_secret(spec: Mapping[str, Any]) -> SecretRef | None:
    """Return where the secret for growing a volume is, when its source names one."""
    return _ref((spec.get("csi") or {}).get("controllerExpandSecretRef"))


def node_expand_secret(spec: Mapping[str, Any], namespace: str) -> SecretRef | None:
    """Return where the secret is that a node grows a volume with: its own, or the usual one."""
    own = _ref((spec.get("csi") or {}).get("nodeExpandSecretRef"))
    return own or node_secret(spec, namespace)


def _ref(found: Mapping[str, Any] | None) -> SecretRef | None:
    if not found or not found.get("name"):
        return None
    return SecretRef(str(found.get("namespace") or ""), str(found["name"]))
