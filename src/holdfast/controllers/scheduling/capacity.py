"""Whether a node can reach enough free storage for a claim that waits for its pod.

Drivers that say `storageCapacity: true` in their CSIDriver tell how much room each class has on
each part of the cluster, as CSIStorageCapacity objects. A node is passed over unless one object of
the class covers it and has room for the claim. What is said is a little old and is no promise:
whoever makes the volume may still find no room, and then another node is looked for.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from typing import Any

from holdfast.api import kinds, quantity, selectors, views
from holdfast.runtime.informer import Informers

NOT_ENOUGH = "node(s) did not have enough free storage"
BY_CLASS = "scheduling/capacity-by-class"

Object = dict[str, Any]


class FreeStorage:
    """Reads drivers and what they said from the informers."""

    def __init__(self, informers: Informers) -> None:
        self._drivers = informers.of(kinds.CSI_DRIVER)
        self._capacities = informers.of(kinds.CAPACITY)
        self._capacities.add_index(BY_CLASS, _class_of)

    def suffices(
        self, claim: views.Claim, storage_class: views.StorageClass, node: views.Node
    ) -> bool:
        """Whether a volume for the claim can be made for the node, for all that is known."""
        driver = self._drivers.get(storage_class.provisioner)
        if driver is None or not driver.get("spec", {}).get("storageCapacity"):
            return True
        size = quantity.parse(claim.spec.request or "0")
        return any(
            _limit(obj) >= size and _reaches(obj, node)
            for obj in self._capacities.by(BY_CLASS, storage_class.metadata.name)
        )


def _class_of(obj: Object) -> Iterable[Hashable]:
    return (obj.get("storageClassName", ""),)


def _limit(obj: Object) -> quantity.Quantity:
    """Return how large one volume can be; the driver's word on that counts before the room."""
    said = obj.get("maximumVolumeSize", obj.get("capacity"))
    return quantity.parse(said if said is not None else "-1")


def _reaches(obj: Object, node: views.Node) -> bool:
    topology = obj.get("nodeTopology")
    if topology is None:
        return False
    return selectors.LabelSelector.of(topology).matches(node.metadata.labels)
