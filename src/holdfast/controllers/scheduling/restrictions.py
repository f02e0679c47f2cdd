"""Which volumes keep a pod off a node, whatever their claims say: VolumeRestrictions, VolumeZone.

A disk that a pod names itself may be in use on a node by one writing pod. A volume with labels of
zone or region is reached only from nodes with the same labels, where nodes have such labels.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final

from holdfast.api import views

DISK_TAKEN: Final = "node(s) had no available disk"
OTHER_ZONE: Final = "node(s) had no available volume zone"

Object = Mapping[str, Any]

# Labels of places, each with the present name of what it says.
_PLACES: Final = {
    "failure-domain.beta.kubernetes.io/zone": "topology.kubernetes.io/zone",
    "failure-domain.beta.kubernetes.io/region": "topology.kubernetes.io/region",
    "topology.kubernetes.io/zone": "topology.kubernetes.io/zone",
    "topology.kubernetes.io/region": "topology.kubernetes.io/region",
}
_SEPARATOR: Final = "__"


def disk_taken(pod: Object, pods_there: Callable[[], Iterable[Object]]) -> str | None:
    """Return why the node cannot take the pod's own disks, or None.

    `pods_there` is asked only when the pod has such disks.
    """
    disks = list(_disks(pod))
    if not disks:
        return None
    for other in pods_there():
        for kind, source in _disks(other):
            if any(kind == own and _clash(kind, mine, source) for own, mine in disks):
                return DISK_TAKEN
    return None


def other_zone(volumes: Iterable[views.Volume | None], node: views.Node) -> str | None:
    """Return why the node cannot reach the volumes from where it is, or None."""
    labels = node.metadata.labels
    if not any(place in labels for place in _PLACES):
        # Who has one zone only need not label anything.
        return None
    for volume in volumes:
        for place, present in _PLACES.items():
            value = volume.metadata.labels.get(place) if volume is not None else None
            if value is None:
                continue
            zones = value.split(_SEPARATOR)
            if all(zones) and labels.get(place, labels.get(present)) not in zones:
                return OTHER_ZONE
    return None


def _disks(pod: Object) -> Iterable[tuple[str, Object]]:
    for volume in pod["spec"].get("volumes") or ():
        for kind in _SAME:
            if kind in volume:
                yield kind, volume[kind]


def _clash(kind: str, one: Object, other: Object) -> bool:
    if not _SAME[kind](one, other):
        return False
    # Amazon's disks are never shared, the others are among readers.
    readers = bool(one.get("readOnly") and other.get("readOnly"))
    return kind == "awsElasticBlockStore" or not readers


def _same(*parts: str) -> Callable[[Object, Object], bool]:
    return lambda one, other: all(one.get(part) == other.get(part) for part in parts)


def _same_image(one: Object, other: Object) -> bool:
    monitors: Sequence[str] = other.get("monitors") or ()
    shared = any(monitor in monitors for monitor in one.get("monitors") or ())
    return shared and _same("pool", "image")(one, other)


_SAME: Final[dict[str, Callable[[Object, Object], bool]]] = {
    "gcePersistentDisk": _same("pdName"),
    "awsElasticBlockStore": _same("volumeID"),
    "iscsi": _same("iqn"),
    "rbd": _same_image,
}
