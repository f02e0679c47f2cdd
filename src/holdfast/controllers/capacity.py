"""Tells how much room each class has on each part of the cluster, as external-provisioner does.

For drivers whose CSIDriver says `storageCapacity: true`, every class that waits for the first
consumer has a CSIStorageCapacity for each place that its storage knows of: those the backend names
itself (`RoomReporter`), else the topology segments of the nodes on which the driver runs. Drivers
that do not say so cost nothing, and nothing is asked of their storage.

The objects are looked at when classes, drivers, nodes or volumes change, and once a minute. A room
that changed by little is not written again, so a disk that is merely in use causes no writes.

Invariant: an object's name follows from driver, class and place, so nobody writes one twice.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Hashable, Iterable, Mapping
from typing import Any

from holdfast.api import errors, kinds, quantity, views
from holdfast.backends import errors as backend_errors
from holdfast.backends.protocol import Capacity, CapacityReporter, Room, RoomReporter
from holdfast.controllers.csidrivers import OURS
from holdfast.controllers.provisioners import Provisioners, Served
from holdfast.runtime.client import Client
from holdfast.runtime.controller import After, Controller, Done, Outcome
from holdfast.runtime.informer import Informers

log = logging.getLogger("holdfast.controllers")

Object = dict[str, Any]

DRIVER_LABEL = "csi.storage.k8s.io/drivername"
MANAGED_LABEL = "csi.storage.k8s.io/managed-by"
NAMESPACE = "kube-system"
POLL_SECONDS = 60.0
# Volumes come in bursts; what they leave is measured once.
_SETTLE_SECONDS = 1.0
_LEAST_CHANGE = 16 << 20
_BY_CLASS = "capacity/by-class"


class CapacityObjects:
    """The component; `run` until cancelled."""

    def __init__(
        self,
        client: Client,
        informers: Informers,
        provisioners: Provisioners,
        namespace: str = NAMESPACE,
    ) -> None:
        self._client = client
        self._informers = informers
        self._provisioners = provisioners
        self._namespace = namespace
        self._drivers = informers.of(kinds.CSI_DRIVER)
        self._classes = informers.of(kinds.STORAGE_CLASS)
        self._csi_nodes = informers.of(kinds.CSI_NODE)
        self._nodes = informers.of(kinds.NODE)
        self._volumes = informers.of(kinds.VOLUME)
        self._objects = informers.of(kinds.CAPACITY)
        self._objects.add_index(_BY_CLASS, _class_of)
        # Classes that have objects, or would have if their storage answered.
        self._told: set[str] = set()
        self.loop = Controller("capacity", self.reconcile)

    async def run(self) -> None:
        """Follow changes until cancelled."""
        await self._informers.synced()
        self._drivers.subscribe(self._driver_changed)
        self._classes.subscribe(self._class_changed)
        self._csi_nodes.subscribe(self._place_changed)
        self._nodes.subscribe(self._node_changed)
        self._volumes.subscribe(self._volume_changed)
        self._objects.subscribe(self._object_changed)
        await self.loop.run()

    async def reconcile(self, name: str) -> Outcome:
        """Bring the objects of one class up to date."""
        found = self._classes.get(name)
        cls = views.storage_class(found) if found is not None else None
        served = self._telling(cls) if cls is not None else None
        present = {obj["metadata"]["name"]: obj for obj in self._objects.by(_BY_CLASS, name)}
        if cls is None or served is None:
            self._told.discard(name)
            await self._remove(present.values())
            return Done
        self._told.add(name)
        try:
            rooms = await self._rooms(cls, served)
        except backend_errors.BackendError as error:
            # What was said last is still the best there is.
            extra = {"class": name, "error": str(error)}
            log.warning("the room of a class is not known", extra=extra)
            return After(POLL_SECONDS)
        wanted = {_name(served.driver, name, room.topology): room for room in rooms}
        await self._remove(obj for key, obj in present.items() if key not in wanted)
        for key, room in wanted.items():
            await self._keep(key, cls, room, present.get(key))
        return After(POLL_SECONDS)

    def _telling(self, cls: views.StorageClass) -> Served | None:
        """Return what serves the class, if pods are placed with regard to its room."""
        driver = self._drivers.get(cls.provisioner)
        if not cls.delays_binding or driver is None:
            return None
        if not (driver.get("spec") or {}).get("storageCapacity"):
            return None
        served = self._provisioners.get(cls.provisioner)
        return served if served is not None and served.driver == cls.provisioner else None

    async def _rooms(self, cls: views.StorageClass, served: Served) -> Iterable[Room]:
        backend = served.backend
        parameters = served.name.parameters(cls.parameters)
        if isinstance(backend, RoomReporter):
            return await backend.rooms(parameters)
        if not isinstance(backend, CapacityReporter):
            raise backend_errors.Unsupported("it does not tell its room", served.driver)
        capacity = await backend.capacity(parameters)
        return [Room(place, capacity) for place in self._segments(served.driver)]

    def _segments(self, driver: str) -> list[dict[str, str]]:
        """Return the places that the driver's nodes stand in, each once."""
        found: dict[tuple[tuple[str, str], ...], dict[str, str]] = {}
        for csi_node in self._csi_nodes.all():
            entries = (csi_node.get("spec") or {}).get("drivers") or ()
            keys = next((e.get("topologyKeys") or () for e in entries if e["name"] == driver), None)
            node = self._nodes.get(csi_node["metadata"]["name"])
            if keys is None or node is None:
                continue
            labels = node["metadata"].get("labels") or {}
            if all(key in labels for key in keys):
                place = {key: labels[key] for key in sorted(keys)}
                found[tuple(place.items())] = place
        return list(found.values())

    async def _keep(
        self, name: str, cls: views.StorageClass, room: Room, present: Object | None
    ) -> None:
        if present is None:
            body = self._body(name, cls, room)
            written = await self._client.create(kinds.CAPACITY, body, self._namespace)
        elif _differs(present, room.capacity):
            patch = {
                "metadata": {"resourceVersion": present["metadata"]["resourceVersion"]},
                "capacity": _text(room.capacity),
            }
            namespace = present["metadata"]["namespace"]
            written = await self._client.patch(kinds.CAPACITY, name, patch, namespace)
        else:
            return
        self._objects.observe(written)

    def _body(self, name: str, cls: views.StorageClass, room: Room) -> Object:
        driver = self._drivers.get(cls.provisioner)
        assert driver is not None
        owner = {
            "apiVersion": kinds.CSI_DRIVER.api_version,
            "kind": kinds.CSI_DRIVER.name,
            "name": cls.provisioner,
            "uid": driver["metadata"]["uid"],
        }
        return {
            "apiVersion": kinds.CAPACITY.api_version,
            "kind": kinds.CAPACITY.name,
            "metadata": {
                "name": name,
                "labels": {DRIVER_LABEL: cls.provisioner, MANAGED_LABEL: OURS},
                "ownerReferences": [owner],
            },
            "storageClassName": cls.metadata.name,
            "nodeTopology": {"matchLabels": dict(room.topology)} if room.topology else {},
            "capacity": _text(room.capacity),
        }

    async def _remove(self, objs: Iterable[Object]) -> None:
        for obj in list(objs):
            meta = obj["metadata"]
            try:
                await self._client.delete(
                    kinds.CAPACITY, meta["name"], meta["namespace"], uid=meta["uid"]
                )
            except errors.NotFound:
                continue

    # --- what may have changed the room ---------------------------------------

    def _driver_changed(self, old: Object | None, new: Object | None) -> None:
        obj = new if new is not None else old
        assert obj is not None
        for cls in self._classes.all():
            if cls.get("provisioner") == obj["metadata"]["name"]:
                self.loop.enqueue(cls["metadata"]["name"])

    def _class_changed(self, old: Object | None, new: Object | None) -> None:
        obj = new if new is not None else old
        assert obj is not None
        self.loop.enqueue(obj["metadata"]["name"])

    def _place_changed(self, old: Object | None, new: Object | None) -> None:
        for name in self._told:
            self.loop.enqueue(name)

    def _node_changed(self, old: Object | None, new: Object | None) -> None:
        if old is None or new is None or _labels(old) != _labels(new):
            self._place_changed(old, new)

    def _volume_changed(self, old: Object | None, new: Object | None) -> None:
        if not self._told or (old is not None and new is not None and _same_size(old, new)):
            return
        # Classes share disks: a volume of one leaves less for the others.
        for name in self._told:
            self.loop.enqueue_after(name, _SETTLE_SECONDS)

    def _object_changed(self, old: Object | None, new: Object | None) -> None:
        obj = new if new is not None else old
        assert obj is not None
        for name in _class_of(obj):
            self.loop.enqueue(name)


def _name(driver: str, storage_class: str, topology: Mapping[str, str]) -> str:
    told = json.dumps([driver, storage_class, sorted(topology.items())])
    return f"csisc-{hashlib.sha256(told.encode()).hexdigest()[:20]}"


def _text(capacity: Capacity) -> str:
    return quantity.Quantity.of_bytes(capacity.available).canonical()


def _differs(present: Object, capacity: Capacity) -> bool:
    """Whether the room has changed by so much that placing pods may depend on it."""
    said = quantity.parse(present.get("capacity") or "-1").bytes()
    change = abs(said - capacity.available)
    empty = (said <= 0) != (capacity.available <= 0)
    return empty or change >= max(_LEAST_CHANGE, capacity.total // 1000)


def _class_of(obj: Object) -> Iterable[Hashable]:
    """Index our own objects; those of other drivers are none of our business."""
    labels = obj["metadata"].get("labels") or {}
    return (obj.get("storageClassName", ""),) if labels.get(MANAGED_LABEL) == OURS else ()


def _labels(node: Object) -> Object:
    return node["metadata"].get("labels") or {}


def _same_size(old: Object, new: Object) -> bool:
    return bool(old["spec"].get("capacity") == new["spec"].get("capacity"))
