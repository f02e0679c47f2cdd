"""What is told of free storage, and what the scheduler makes of it."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import pytest

import standin
from holdfast.api import kinds, quantity, views
from holdfast.backends import names, registry
from holdfast.backends.local.backend import LocalBackend
from holdfast.backends.local.fleet import LocalFleet
from holdfast.backends.protocol import Backend, Capacity
from holdfast.controllers.capacity import DRIVER_LABEL, CapacityObjects
from holdfast.controllers.provisioners import Provisioners, Served
from holdfast.controllers.scheduling.scheduler import Scheduler

if TYPE_CHECKING:
    from plane import Plane

Object = dict[str, Any]
HOST = "kubernetes.io/hostname"
ZONE = "topology.kubernetes.io/zone"
LOCAL = "local.holdfast.dev"
SHARED = "shared.example.com"
GIB = 1 << 30


class Shared:
    """A storage system that has one amount of room, wherever it is asked from."""

    def __init__(self) -> None:
        self.available = 10 * GIB
        self.asked: list[Mapping[str, str]] = []

    async def capacity(self, parameters: Mapping[str, str]) -> Capacity:
        self.asked.append(parameters)
        return Capacity(100 * GIB, self.available)


class Storage:
    """Local disks of the nodes n1 and n2, and a shared system."""

    def __init__(self, plane: Plane, root: Path) -> None:
        members = {name: LocalBackend(root / name, name) for name in ("n1", "n2")}
        self.off: set[str] = set()
        self.local = LocalFleet(members, lambda name: "it is off" if name in self.off else "")
        self.shared = Shared()
        own = names.Provisioner(SHARED, "shared", names.csi_source)
        provisioners = Provisioners(
            {
                LOCAL: Served(registry.PROVISIONERS[LOCAL], self.local),
                SHARED: Served(own, cast(Backend, self.shared)),
            }
        )
        self.component = CapacityObjects(plane.client, plane.informers, provisioners)
        self.plane = plane

    async def told(self, storage_class: str) -> dict[str, Object]:
        """Return the objects of a class by the value of the first label they select."""
        found = (await self.plane.client.list(kinds.CAPACITY)).items
        mine = [obj for obj in found if obj["storageClassName"] == storage_class]
        return {next(iter(o["nodeTopology"]["matchLabels"].values())): o for o in mine}

    async def until_told(self, storage_class: str, *places: str) -> dict[str, Object]:
        found: dict[str, Object] = {}

        async def there() -> bool:
            found.clear()
            found.update(await self.told(storage_class))
            return set(found) == set(places)

        await standin.until(there)
        return found


@pytest.fixture
async def storage(plane: Plane, tmp_path: Path) -> AsyncIterator[Storage]:
    made = Storage(plane, tmp_path / "volumes")
    plane.start(made.component, Scheduler(plane.client, plane.informers, plane.recorder))
    yield made
    await made.local.close()


async def make_driver(plane: Plane, name: str, told: bool = True) -> None:
    await plane.create(kinds.CSI_DRIVER, name, spec={"storageCapacity": told})


async def make_class(plane: Plane, name: str, provisioner: str, **fields: Any) -> None:
    mode = {"volumeBindingMode": "WaitForFirstConsumer"}
    await plane.create(kinds.STORAGE_CLASS, name, provisioner=provisioner, **{**mode, **fields})


async def make_node(plane: Plane, name: str, driver: str = "", **labels: str) -> None:
    await plane.create(kinds.NODE, name, metadata={"labels": {HOST: name, **labels}})
    ready = {"type": "Ready", "status": "True", "reason": "KubeletReady"}
    patch = {"status": {"conditions": [ready]}}
    await plane.client.patch(kinds.NODE, name, patch, subresource="status")
    if driver:
        entry = {"name": driver, "nodeID": name, "topologyKeys": sorted(labels)}
        await plane.create(kinds.CSI_NODE, name, spec={"drivers": [entry]})


async def make_pod(plane: Plane, name: str, storage_class: str, size: str) -> None:
    """Make a pod with a claim of the same name."""
    spec: Object = {
        "accessModes": ["ReadWriteOnce"],
        "resources": {"requests": {"storage": size}},
        "storageClassName": storage_class,
    }
    await plane.create(kinds.CLAIM, name, spec=spec)
    volume = {"name": "data", "persistentVolumeClaim": {"claimName": name}}
    containers = [{"name": "c", "image": "busybox"}]
    await plane.create(kinds.POD, name, spec={"containers": containers, "volumes": [volume]})


def refusal(pod: Object) -> str:
    conditions = (pod.get("status") or {}).get("conditions") or ()
    return next((c.get("message", "") for c in conditions if c["type"] == "PodScheduled"), "")


async def refused(plane: Plane, name: str) -> str:
    pod = await plane.until(kinds.POD, name, lambda obj: bool(obj and refusal(obj)))
    assert pod is not None
    return refusal(pod)


async def selected(plane: Plane, name: str) -> str:
    """Wait until a node is chosen for a claim; return which."""

    def chosen(obj: Object | None) -> bool:
        return views.SELECTED_NODE in ((obj or {})["metadata"].get("annotations") or {})

    claim = await plane.until(kinds.CLAIM, name, chosen)
    assert claim is not None
    return str(claim["metadata"]["annotations"][views.SELECTED_NODE])


async def test_each_class_has_an_object_for_each_node_of_local_disks(
    plane: Plane, storage: Storage, tmp_path: Path
) -> None:
    await make_driver(plane, LOCAL)
    await make_class(plane, "fast", LOCAL, parameters={"layout": "image"})

    found = await storage.until_told("fast", "n1", "n2")

    disk = os.statvfs(tmp_path)
    for name, obj in found.items():
        assert obj["nodeTopology"] == {"matchLabels": {HOST: name}}
        assert obj["metadata"]["namespace"] == "kube-system"
        assert obj["metadata"]["labels"][DRIVER_LABEL] == LOCAL
        assert obj["metadata"]["ownerReferences"][0]["name"] == LOCAL
        room = quantity.parse(obj["capacity"]).bytes()
        assert abs(room - disk.f_bavail * disk.f_frsize) < 5 * GIB


async def test_classes_that_do_not_wait_and_drivers_that_do_not_say_so_are_not_told_of(
    plane: Plane, storage: Storage
) -> None:
    await make_driver(plane, LOCAL)
    await make_driver(plane, SHARED, told=False)
    await make_node(plane, "n1", SHARED, **{ZONE: "a"})
    await make_class(plane, "soon", LOCAL, volumeBindingMode="Immediate")
    await make_class(plane, "quiet", SHARED)
    await make_class(plane, "fast", LOCAL)

    await storage.until_told("fast", "n1", "n2")

    assert await storage.told("soon") == {}
    assert await storage.told("quiet") == {}
    assert storage.shared.asked == []


async def test_objects_come_and_go_with_the_driver_s_word_and_the_class(
    plane: Plane, storage: Storage
) -> None:
    await make_driver(plane, LOCAL, told=False)
    await make_class(plane, "fast", LOCAL)
    for word, places in ((True, ("n1", "n2")), (False, ()), (True, ("n1", "n2"))):
        await plane.client.patch(kinds.CSI_DRIVER, LOCAL, {"spec": {"storageCapacity": word}})
        await storage.until_told("fast", *places)

    await plane.client.delete(kinds.STORAGE_CLASS, "fast")

    await storage.until_told("fast")


async def test_one_that_was_deleted_is_made_again_and_a_node_that_is_off_has_none(
    plane: Plane, storage: Storage
) -> None:
    await make_driver(plane, LOCAL)
    await make_class(plane, "fast", LOCAL)
    before = await storage.until_told("fast", "n1", "n2")
    storage.off.add("n2")

    name = before["n1"]["metadata"]["name"]
    await plane.client.delete(kinds.CAPACITY, name, "kube-system")

    await storage.until_told("fast", "n1")


async def test_shared_storage_is_told_of_once_for_each_zone_that_its_nodes_stand_in(
    plane: Plane, storage: Storage
) -> None:
    await make_driver(plane, SHARED)
    await make_class(plane, "net", SHARED)
    for name, zone in (("n1", "a"), ("n2", "a"), ("n3", "b")):
        await make_node(plane, name, SHARED, **{ZONE: zone})
    await make_node(plane, "n4", "other.example.com", **{ZONE: "c"})

    found = await storage.until_told("net", "a", "b")

    assert {obj["capacity"] for obj in found.values()} == {"10Gi"}


async def test_a_room_that_changed_by_little_is_not_written_again(
    plane: Plane, storage: Storage
) -> None:
    await make_driver(plane, SHARED)
    await make_class(plane, "net", SHARED)
    await make_node(plane, "n1", SHARED, **{ZONE: "a"})
    before = (await storage.until_told("net", "a"))["a"]

    storage.shared.available -= 1 << 20
    asked = len(storage.shared.asked)
    storage.component.loop.enqueue("net")

    async def looked() -> bool:
        return len(storage.shared.asked) > asked and not len(storage.component.loop)

    await standin.until(looked)
    assert (await storage.told("net"))["a"] == before

    storage.shared.available -= 1 << 30
    storage.component.loop.enqueue("net")
    name = before["metadata"]["name"]
    await plane.until(
        kinds.CAPACITY, name, lambda o: bool(o and o["capacity"] == "9215Mi"), "kube-system"
    )


async def test_a_pod_waits_until_its_node_has_enough_free_storage(
    plane: Plane, storage: Storage
) -> None:
    await make_driver(plane, SHARED)
    await make_class(plane, "net", SHARED)
    await make_node(plane, "n1", SHARED, **{ZONE: "a"})
    await storage.until_told("net", "a")
    await make_pod(plane, "large", "net", "20Gi")
    await make_pod(plane, "small", "net", "2Gi")

    assert await selected(plane, "small") == "n1"
    text = "0/1 nodes are available: 1 node(s) did not have enough free storage. "
    assert (await refused(plane, "large")).startswith(text)

    storage.shared.available = 30 * GIB
    storage.component.loop.enqueue("net")
    assert await selected(plane, "large") == "n1"


async def test_of_two_nodes_the_one_with_room_is_taken(plane: Plane, storage: Storage) -> None:
    await make_driver(plane, "other.example.com")
    await make_class(plane, "theirs", "other.example.com")
    for name, size in (("n1", "1Gi"), ("n2", "9Gi")):
        await make_node(plane, name)
        await plane.create(
            kinds.CAPACITY,
            name,
            storageClassName="theirs",
            capacity=size,
            nodeTopology={"matchLabels": {HOST: name}},
        )
    await make_pod(plane, "p", "theirs", "5Gi")

    assert await selected(plane, "p") == "n2"
