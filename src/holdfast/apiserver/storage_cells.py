"""Columns of the storage kinds: volumes, claims, classes, attachments, drivers, room.

A volume or claim that is being deleted shows `Terminating` in place of its phase.
A claim's capacity and modes are those of its status and stay blank until the
claim names a volume.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any, Final

from holdfast.apiserver.cells import (
    AGE,
    Column,
    Object,
    access_modes,
    class_name,
    column,
    name,
    wide,
)

_UNSET: Final = "<unset>"
_DEFAULT_MARKS: Final = (
    "storageclass.kubernetes.io/is-default-class",
    "storageclass.beta.kubernetes.io/is-default-class",
)


def _phase(obj: Object, now: datetime) -> str:
    if "deletionTimestamp" in obj.get("metadata", {}):
        return "Terminating"
    phase: str = obj.get("status", {}).get("phase", "")
    return phase


def _spec(field: str, missing: Any = "") -> Any:
    return lambda obj, now: obj.get("spec", {}).get(field, missing)


def _claim_reference(volume: Object, now: datetime) -> str:
    claim = volume.get("spec", {}).get("claimRef")
    return f"{claim.get('namespace', '')}/{claim.get('name', '')}" if claim else ""


def _attributes_class(obj: Object, now: datetime) -> str:
    return obj.get("spec", {}).get("volumeAttributesClassName") or _UNSET


def _claim_capacity(claim: Object, now: datetime) -> str:
    if not claim.get("spec", {}).get("volumeName"):
        return ""
    capacity: str = claim.get("status", {}).get("capacity", {}).get("storage", "0")
    return capacity


def _claim_modes(claim: Object, now: datetime) -> str:
    if not claim.get("spec", {}).get("volumeName"):
        return ""
    return access_modes(claim.get("status", {}).get("accessModes"))


def _class_title(cls: Object, now: datetime) -> str:
    meta = cls.get("metadata", {})
    notes = meta.get("annotations") or {}
    title: str = meta.get("name", "")
    is_default = any(notes.get(mark) == "true" for mark in _DEFAULT_MARKS)
    return f"{title} (default)" if is_default else title


def _tokens(driver: Object, now: datetime) -> str:
    requests = driver.get("spec", {}).get("tokenRequests")
    if requests is None:
        return _UNSET
    return ",".join(request.get("audience", "") for request in requests)


def _lifecycles(driver: Object, now: datetime) -> str:
    return ",".join(driver.get("spec", {}).get("volumeLifecycleModes") or ()) or "<none>"


_ATTRIBUTES_CLASS: Final = column(
    "VolumeAttributesClass", _attributes_class, "The class of its changeable attributes."
)
_VOLUME_MODE: Final = wide(
    "VolumeMode", _spec("volumeMode", _UNSET), "Filesystem, or Block for a raw device."
)

VOLUME: Final[tuple[Column, ...]] = (
    name("The volume's name, unique in the cluster."),
    column(
        "Capacity",
        lambda o, _: o.get("spec", {}).get("capacity", {}).get("storage", "0"),
        "The volume's size.",
    ),
    column(
        "Access Modes",
        lambda o, _: access_modes(o.get("spec", {}).get("accessModes")),
        "All the ways the volume can be mounted.",
    ),
    column(
        "Reclaim Policy",
        _spec("persistentVolumeReclaimPolicy"),
        "What happens to the volume when its claim is deleted.",
    ),
    column("Status", _phase, "Available, Bound, Released, Failed or Terminating."),
    column("Claim", _claim_reference, "The claim it is bound to or reserved for."),
    column("StorageClass", class_name, "The class the volume belongs to."),
    _ATTRIBUTES_CLASS,
    column(
        "Reason",
        lambda o, _: o.get("status", {}).get("reason", ""),
        "Why the volume is in this state.",
    ),
    AGE,
    _VOLUME_MODE,
)

CLAIM: Final[tuple[Column, ...]] = (
    name(),
    column("Status", _phase, "Pending, Bound, Lost or Terminating."),
    column("Volume", _spec("volumeName"), "The volume it is bound to or asks for."),
    column("Capacity", _claim_capacity, "The size of the bound volume."),
    column("Access Modes", _claim_modes, "The ways the bound volume can be mounted."),
    column("StorageClass", class_name, "The class the claim asks for."),
    _ATTRIBUTES_CLASS,
    AGE,
    _VOLUME_MODE,
)

STORAGE_CLASS: Final[tuple[Column, ...]] = (
    column("Name", _class_title, "The class's name; the default class says so.").formatted("name"),
    column("Provisioner", lambda o, _: o.get("provisioner", ""), "Who makes its volumes."),
    column(
        "ReclaimPolicy",
        lambda o, _: o.get("reclaimPolicy", "Delete"),
        "What happens to its volumes when their claims are deleted.",
    ),
    column(
        "VolumeBindingMode",
        lambda o, _: o.get("volumeBindingMode", "Immediate"),
        "Whether volumes are made at once or for the first pod.",
    ),
    column(
        "AllowVolumeExpansion",
        lambda o, _: bool(o.get("allowVolumeExpansion", False)),
        "Whether its volumes may grow.",
    ),
    AGE,
)

ATTACHMENT: Final[tuple[Column, ...]] = (
    name("The attachment's name, unique in the cluster."),
    column("Attacher", _spec("attacher"), "The driver that attaches."),
    column(
        "PV",
        lambda o, _: o.get("spec", {}).get("source", {}).get("persistentVolumeName", ""),
        "The volume.",
    ),
    column("Node", _spec("nodeName"), "The node it is attached to."),
    column(
        "Attached",
        lambda o, _: bool(o.get("status", {}).get("attached", False)),
        "Whether it is attached now.",
    ).typed("boolean"),
    AGE,
)

DRIVER: Final[tuple[Column, ...]] = (
    name("The driver's name, unique in the cluster."),
    column(
        "AttachRequired", _spec("attachRequired", True), "Whether volumes are attached first."
    ).typed("boolean"),
    column(
        "PodInfoOnMount", _spec("podInfoOnMount", False), "Whether it is told which pod mounts."
    ).typed("boolean"),
    column(
        "StorageCapacity", _spec("storageCapacity", False), "Whether it publishes free space."
    ).typed("boolean"),
    column("TokenRequests", _tokens, "Audiences of the tokens it is given."),
    column(
        "RequiresRepublish",
        _spec("requiresRepublish", False),
        "Whether mounts are refreshed from time to time.",
    ).typed("boolean"),
    column("Modes", _lifecycles, "Whether its volumes are persistent, ephemeral or both."),
    AGE,
)

CSI_NODE: Final[tuple[Column, ...]] = (
    name("The node's name."),
    column(
        "Drivers",
        lambda o, _: len(o.get("spec", {}).get("drivers") or ()),
        "How many drivers run on the node.",
    ).typed("integer"),
    AGE,
)

# Kubernetes prints this kind like any it knows nothing about.
CAPACITY: Final[tuple[Column, ...]] = (
    name(),
    column(
        "Created At",
        lambda o, _: o.get("metadata", {}).get("creationTimestamp"),
        "When the object was created.",
    ).typed("date"),
)
