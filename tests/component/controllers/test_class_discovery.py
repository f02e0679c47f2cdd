"""Classes that a storage system asks for: made, made anew, retired; others' left alone.

The storage system is scripted: it says which classes there should be, or that it cannot be asked.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from holdfast.api import errors, kinds
from holdfast.backends import errors as backend_errors
from holdfast.backends.protocol import WantedClass
from holdfast.controllers.discovery import DEFAULT, FOUND_BY, ClassDiscovery
from holdfast.testing.attachable import Storage
from plane import Plane

Object = dict[str, Any]
DRIVER = "disks.holdfast.test"
REGION, ZONE = "topology.kubernetes.io/region", "topology.kubernetes.io/zone"


class Scripted(Storage):
    """Asks for what it is told to; `failure` is raised instead of any answer."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.wanted: list[WantedClass] = []
        self.labels: dict[str, Mapping[str, str]] = {}
        self.failure: backend_errors.BackendError | None = None

    async def wanted_classes(self) -> Sequence[WantedClass]:
        if self.failure is not None:
            raise self.failure
        return list(self.wanted)

    async def node_labels(self, node: str) -> Mapping[str, str]:
        return self.labels.get(node, {})


@pytest.fixture
def storage(tmp_path: Path) -> Scripted:
    return Scripted(tmp_path / "storage")


@pytest.fixture
def discovery(plane: Plane, storage: Scripted) -> ClassDiscovery:
    return ClassDiscovery(plane.client, {"disks": lambda: storage}, {DRIVER: "disks"}, period=0.05)


def wanted(name: str, **more: Any) -> WantedClass:
    given: Object = {"parameters": {"store": name}, "topology": {ZONE: ["a"]}, **more}
    return WantedClass(name, DRIVER, **given)


async def classes(plane: Plane) -> dict[str, Object]:
    found = (await plane.client.list(kinds.STORAGE_CLASS)).items
    return {obj["metadata"]["name"]: obj for obj in found}


def defaults(found: Mapping[str, Object]) -> list[str]:
    notes = {name: obj["metadata"].get("annotations") or {} for name, obj in found.items()}
    return sorted(name for name, each in notes.items() if each.get(DEFAULT) == "true")


async def test_a_wanted_class_is_made_whole_and_then_left_as_it_is(
    plane: Plane, storage: Scripted, discovery: ClassDiscovery
) -> None:
    storage.wanted = [wanted("fast", topology={ZONE: ["a", "b"], REGION: ["x"]}, default=True)]
    await discovery.once("disks", storage)
    made = (await classes(plane))["fast"]
    assert made["provisioner"] == DRIVER and made["parameters"] == {"store": "fast"}
    assert made["volumeBindingMode"] == "WaitForFirstConsumer"
    assert made["reclaimPolicy"] == "Delete" and made["allowVolumeExpansion"] is True
    assert made["metadata"]["labels"][FOUND_BY] == "disks"
    (term,) = made["allowedTopologies"]
    assert term["matchLabelExpressions"] == [
        {"key": REGION, "values": ["x"]},
        {"key": ZONE, "values": ["a", "b"]},
    ]
    assert defaults({"fast": made}) == ["fast"]
    await discovery.once("disks", storage)
    assert (await classes(plane))["fast"] == made


async def test_what_cannot_be_changed_is_changed_by_a_new_class_that_keeps_the_default(
    plane: Plane, storage: Scripted, discovery: ClassDiscovery
) -> None:
    storage.wanted = [wanted("fast", default=True), wanted("slow")]
    await discovery.once("disks", storage)
    before = await classes(plane)
    # An administrator makes the other one the default.
    for name, value in (("fast", "false"), ("slow", "true")):
        note = {"metadata": {"annotations": {DEFAULT: value}}}
        await plane.client.patch(kinds.STORAGE_CLASS, name, note)
    storage.wanted = [
        wanted("fast", default=True, parameters={"store": "moved"}),
        wanted("slow", topology={ZONE: ["b"]}),
    ]
    await discovery.once("disks", storage)
    after = await classes(plane)
    assert after["fast"]["parameters"] == {"store": "moved"}
    assert after["slow"]["allowedTopologies"][0]["matchLabelExpressions"][0]["values"] == ["b"]
    for name in ("fast", "slow"):
        assert after[name]["metadata"]["uid"] != before[name]["metadata"]["uid"]
    assert defaults(after) == ["slow"]


async def test_expansion_is_changed_in_place(
    plane: Plane, storage: Scripted, discovery: ClassDiscovery
) -> None:
    storage.wanted = [wanted("fast")]
    await discovery.once("disks", storage)
    uid = (await classes(plane))["fast"]["metadata"]["uid"]
    storage.wanted = [wanted("fast", expansion=False)]
    await discovery.once("disks", storage)
    after = (await classes(plane))["fast"]
    assert after["metadata"]["uid"] == uid and not after["allowVolumeExpansion"]


async def test_a_class_nobody_asks_for_any_more_goes(
    plane: Plane, storage: Scripted, discovery: ClassDiscovery
) -> None:
    await plane.create(kinds.STORAGE_CLASS, "by-hand", provisioner=DRIVER)
    storage.wanted = [wanted("fast"), wanted("slow")]
    await discovery.once("disks", storage)
    storage.wanted = [wanted("slow")]
    await discovery.once("disks", storage)
    assert set(await classes(plane)) == {"by-hand", "slow"}
    storage.wanted = []
    await discovery.once("disks", storage)
    assert set(await classes(plane)) == {"by-hand"}


async def test_a_system_that_cannot_be_asked_changes_nothing_and_says_so_once(
    plane: Plane, storage: Scripted, discovery: ClassDiscovery, caplog: pytest.LogCaptureFixture
) -> None:
    storage.wanted = [wanted("fast"), wanted("slow")]
    await discovery.once("disks", storage)
    before = await classes(plane)
    storage.wanted = []
    storage.failure = backend_errors.Unavailable("no answer", "the storage")
    with caplog.at_level(logging.INFO, "holdfast.controllers"):
        for _ in range(3):
            await discovery.once("disks", storage)
    assert await classes(plane) == before
    said = [each.getMessage() for each in caplog.records]
    assert said.count("classes left as they are") == 1
    storage.failure = None
    await discovery.once("disks", storage)
    assert await classes(plane) == {}


async def test_a_foreign_class_of_a_wanted_name_is_left_alone_as_is_its_default(
    plane: Plane, storage: Scripted, discovery: ClassDiscovery
) -> None:
    foreign = await plane.create(
        kinds.STORAGE_CLASS,
        "fast",
        provisioner="other.test",
        metadata={"annotations": {DEFAULT: "true"}},
    )
    storage.wanted = [wanted("fast"), wanted("slow", default=True)]
    await discovery.once("disks", storage)
    found = await classes(plane)
    assert found["fast"] == foreign
    assert found["slow"]["parameters"] == {"store": "slow"}
    assert defaults(found) == ["fast"]
    storage.wanted = []
    await discovery.once("disks", storage)
    assert await classes(plane) == {"fast": foreign}
    # Its owner takes it away, and the name is free.
    await plane.client.delete(kinds.STORAGE_CLASS, "fast")
    storage.wanted = [wanted("fast")]
    await discovery.once("disks", storage)
    assert (await classes(plane))["fast"]["provisioner"] == DRIVER


async def test_running_it_follows_changes_and_labels_the_systems_nodes(
    plane: Plane, storage: Scripted, discovery: ClassDiscovery
) -> None:
    for name, driver in (("ours", DRIVER), ("theirs", "other.test")):
        await plane.create(kinds.NODE, name)
        entry = {"name": driver, "nodeID": f"id-{name}"}
        await plane.create(kinds.CSI_NODE, name, spec={"drivers": [entry]})
        storage.labels[f"id-{name}"] = {REGION: "x", ZONE: "a"}
    tasks = plane.start(discovery)
    storage.wanted = [wanted("fast")]
    await plane.until(kinds.STORAGE_CLASS, "fast", lambda obj: obj is not None)
    storage.wanted = [wanted("slow")]
    await plane.until(kinds.STORAGE_CLASS, "fast", lambda obj: obj is None)
    await plane.until(
        kinds.NODE, "ours", lambda obj: obj is not None and ZONE in str(obj["metadata"])
    )
    theirs = await plane.find(kinds.NODE, "theirs")
    assert theirs is not None and ZONE not in (theirs["metadata"].get("labels") or {})
    await plane.stop(tasks)
    assert await plane.find(kinds.STORAGE_CLASS, "slow") is not None


async def test_a_kill_between_deletion_and_creation_is_made_good(
    plane: Plane, storage: Scripted, discovery: ClassDiscovery, monkeypatch: pytest.MonkeyPatch
) -> None:
    storage.wanted = [wanted("fast")]
    await discovery.once("disks", storage)
    storage.wanted = [wanted("fast", parameters={"store": "moved"})]
    create = plane.client.create

    async def killed(*arguments: Any, **more: Any) -> Any:
        raise asyncio.CancelledError

    monkeypatch.setattr(plane.client, "create", killed)
    with pytest.raises(asyncio.CancelledError):
        await discovery.once("disks", storage)
    with pytest.raises(errors.NotFound):
        await plane.client.get(kinds.STORAGE_CLASS, "fast")
    monkeypatch.setattr(plane.client, "create", create)
    await discovery.once("disks", storage)
    assert (await classes(plane))["fast"]["parameters"] == {"store": "moved"}
