"""The in-tree plug-in's class parameters and PersistentVolume source, and CSI's, for RBD.

`kubernetes.io/rbd` and `ceph.com/rbd` write an `rbd` source on the embedded API, as
they did; the other names write `csi`. Read back, an `rbd` source gives the id that
its volume has as one of ours, so that volumes made by the old plug-ins are deleted,
grown and attached like our own.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from holdfast.backends import secretrefs
from holdfast.backends.names import Made, Provisioner, Source, csi_source
from holdfast.backends.protocol import Mode, VolumeHandle
from holdfast.backends.rbd import ids
from holdfast.backends.secretrefs import ClaimIdentity, SecretRef, SecretRefs

DRIVER = "rbd.holdfast.dev"
CSI_DRIVER = "rbd.csi.ceph.com"
IN_TREE = "kubernetes.io/rbd"
EXTERNAL = "ceph.com/rbd"
SECRET_TYPE = "kubernetes.io/rbd"
BACKEND = "rbd"
# What the in-tree plug-in called images, before the claim's UID.
_PREFIX = {"volumeNamePrefix": "kubernetes-dynamic-"}


def secrets_of(parameters: Mapping[str, str], claim: ClaimIdentity) -> SecretRefs:
    """Read the class's references in the in-tree spelling, or in CSI's."""
    given = {key.casefold(): value for key, value in parameters.items()}
    admin = _named(given, "admin", "default")
    user = _named(given, "user", claim.namespace)
    if admin is None and user is None:
        return secretrefs.of_class(parameters, claim)
    admin, user = admin or user, user or admin
    return SecretRefs(
        provision=admin, attach=admin, stage=user, publish=user, expand=admin, node_expand=user
    )


def in_tree_secrets_of(parameters: Mapping[str, str], claim: ClaimIdentity) -> SecretRefs:
    """Do the same where the Secrets must have the in-tree plug-in's type."""
    found = secrets_of(parameters, claim)

    def typed(ref: SecretRef | None) -> SecretRef | None:
        return replace(ref, type=SECRET_TYPE) if ref is not None else None

    return SecretRefs(
        provision=typed(found.provision),
        attach=typed(found.attach),
        stage=typed(found.stage),
        publish=typed(found.publish),
        expand=typed(found.expand),
        node_expand=typed(found.node_expand),
    )


def pv_source(made: Made) -> dict[str, Any]:
    """Return the `rbd` fragment of a PersistentVolume's spec, as the in-tree plug-in wrote it."""
    context = made.volume.context
    source: dict[str, Any] = {
        "monitors": list(ids.split_monitors(context["monitors"])),
        "pool": context["pool"],
        "image": context["image"],
        "user": context["user"],
        "keyring": "/etc/ceph/keyring",
    }
    if made.request.mode == "Filesystem":
        source["fsType"] = context["fsType"]
    if made.secrets.stage is not None:
        source["secretRef"] = {
            "name": made.secrets.stage.name,
            "namespace": made.secrets.stage.namespace,
        }
    return {"rbd": source}


def handle_of(
    spec: Mapping[str, Any], annotations: Mapping[str, str] | None = None
) -> VolumeHandle | None:
    """Return the handle of a PersistentVolume with an `rbd` source, ours or not."""
    source = spec.get("rbd")
    if not isinstance(source, Mapping):
        return None
    monitors = [str(each) for each in source.get("monitors") or ()]
    pool, image = str(source.get("pool") or "rbd"), str(source.get("image") or "")
    mode: Mode = "Block" if spec.get("volumeMode") == "Block" else "Filesystem"
    return VolumeHandle(
        id=str(ids.ImageId(ids.cluster_of(monitors), pool, image)),
        context={
            "monitors": ",".join(monitors),
            "pool": pool,
            "image": image,
            "user": str(source.get("user") or "admin"),
            "keyring": str(source.get("keyring") or "/etc/ceph/keyring"),
            "static": "false" if image.startswith(ids.IN_TREE_PREFIX) else "true",
        },
        fs_type=str(source.get("fsType") or ""),
        read_only=bool(source.get("readOnly")),
        mode=mode,
        options=tuple(spec.get("mountOptions") or ()),
    )


def volume_id(handle: str, attributes: Mapping[str, str]) -> str:
    """Return the id that says where the image of a `csi` source is; see ids.parse_handle."""
    found = ids.parse_handle(handle, attributes)
    return handle if found is None or ids.parse(handle) is not None else str(found)


def node_secret(source: Mapping[str, Any], namespace: str) -> SecretRef | None:
    """Return the Secret with the node's key that an `rbd` source names."""
    found = source.get("secretRef") or {}
    if not found.get("name"):
        return None
    return SecretRef(str(found.get("namespace") or namespace), str(found["name"]))


PROVISIONERS = (
    Provisioner(DRIVER, BACKEND, csi_source, secrets=secrets_of),
    Provisioner(CSI_DRIVER, BACKEND, csi_source, secrets=secrets_of),
    Provisioner(IN_TREE, BACKEND, pv_source, _PREFIX, in_tree_secrets_of),
    Provisioner(EXTERNAL, BACKEND, pv_source, _PREFIX, secrets_of),
)
SOURCE = Source(BACKEND, handle_of, node_secret, DRIVER)


def _named(given: Mapping[str, str], who: str, namespace: str) -> SecretRef | None:
    name = given.get(f"{who}secretname", "")
    if not name:
        return None
    return SecretRef(given.get(f"{who}secretnamespace", "") or namespace, name)
