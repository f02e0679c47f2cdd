"""Names around VolumeAttachments, for those who write them and the nodes that wait for them."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping
from typing import Any, Final

from holdfast.backends import registry
from holdfast.backends.secretrefs import SecretRef
from holdfast.controllers import inlines, secrets
from holdfast.runtime.client import Object
from holdfast.runtime.informer import Informer

BY_VOLUME: Final = "attachments/by-volume"
# Annotation of an attachment: the node's id in the storage, for when the node is gone.
NODE_ID: Final = "csi.alpha.kubernetes.io/node-id"


def name_of(handle: str, driver: str, node: str) -> str:
    """Return the name of the attachment of a volume to a node; every cluster computes it so."""
    return "csi-" + hashlib.sha256(f"{handle}{driver}{node}".encode()).hexdigest()


def unique_name(driver: str, handle: str) -> str:
    """Return the name under which a node's status lists a volume."""
    return f"kubernetes.io/csi/{driver}^{handle}"


def identity(volume: Mapping[str, Any]) -> tuple[str, str] | None:
    """Return the CSI driver and the handle under which a volume is attached.

    None for volumes that no driver attaches. In-tree sources that Kubernetes moved to CSI have a
    driver too, and are attached under its name.
    """
    driver = registry.driver_of(volume["spec"])
    found = registry.handle_of(volume["spec"], volume["metadata"].get("annotations"))
    return (driver, found[1].id) if driver and found is not None else None


def secret_of(volume: Mapping[str, Any]) -> SecretRef | None:
    """Return where the secret is with which a volume is attached, detached and fenced."""
    found = registry.attach_secret(volume["spec"])
    if found is None and "csi" not in volume["spec"]:
        # An in-tree source has no place for such a reference.
        return secrets.deletion_ref(volume["metadata"].get("annotations") or {})
    return found


def index(attachments: Informer) -> None:
    """Have the informer of attachments know the volume of each."""
    attachments.add_index(BY_VOLUME, _keys)


def required(driver: Mapping[str, Any] | None) -> bool:
    """Whether a driver's volumes are attached first; they are, unless its CSIDriver says no."""
    return driver is None or (driver.get("spec") or {}).get("attachRequired") is not False


def node_id(csi_node: Mapping[str, Any] | None, drivers: Collection[str]) -> str:
    """Return a node's id for one of the drivers, as the node has entered it; "" when it has not."""
    entries = ((csi_node or {}).get("spec") or {}).get("drivers") or ()
    return next((str(each["nodeID"]) for each in entries if each.get("name") in drivers), "")


def is_attached(attachment: Mapping[str, Any]) -> bool:
    """Whether the attachment is carried out and is to stay."""
    going = "deletionTimestamp" in attachment["metadata"]
    return not going and bool((attachment.get("status") or {}).get("attached"))


def volume_of(attachment: Mapping[str, Any]) -> str:
    """Return the name of the attachment's volume, or the key of one that it carries itself."""
    name = (attachment["spec"].get("source") or {}).get("persistentVolumeName")
    own = None if name else inlines.of_attachment(attachment)
    return inlines.key_of(own) if own is not None else name or ""


def _keys(attachment: Object) -> tuple[str, ...]:
    key = volume_of(attachment)
    return (key,) if key else ()
