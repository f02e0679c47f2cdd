"""Backends are opened when they are used, and one that cannot be opened says why at every call."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from holdfast.backends import errors, registry
from holdfast.backends.missing import MissingBackend
from holdfast.backends.protocol import Attacher, Backend, Cloner, Expander, Snapshotter
from holdfast.server import systems
from holdfast.testing.attachable import Storage, StorageNode

INSTANCES = {"rbd": {"main": {"monitors": "m"}}}


def opening(monkeypatch: pytest.MonkeyPatch, kind: str, make: object) -> None:
    monkeypatch.setattr(registry, "BACKENDS", {kind: make})
    monkeypatch.setattr(registry, "NODE_SIDES", {kind: make})


async def test_a_backend_is_opened_once_when_it_is_used(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    seen: list[tuple[registry.Instances, Path]] = []

    def make(instances: registry.Instances, directory: Path) -> Backend:
        seen.append((instances, directory))
        return Storage(directory)

    opening(monkeypatch, "rbd", make)
    backends = systems.Backends(tmp_path, INSTANCES, {})
    open_rbd = backends.opener("rbd")
    assert seen == []
    assert open_rbd() is open_rbd()
    assert seen == [({"main": {"monitors": "m"}}, tmp_path / "backends" / "rbd")]
    await backends.close()


async def test_a_kind_without_section_is_served(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    given: list[registry.Instances] = []

    def make(instances: registry.Instances, directory: Path) -> Backend:
        given.append(instances)
        return Storage(directory)

    opening(monkeypatch, "gluster", make)
    assert isinstance(systems.Backends(tmp_path, {}, {}).open("gluster"), Storage)
    assert given == [{}]


async def test_a_missing_library_is_told_by_every_call(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def make(instances: registry.Instances, directory: Path) -> Backend:
        raise ModuleNotFoundError("No module named 'rados'", name="rados")

    opening(monkeypatch, "rbd", make)
    backends = systems.Backends(tmp_path, INSTANCES, {})
    backends.open_configured()
    found = backends.open("rbd")
    assert isinstance(found, MissingBackend)
    for capability in (Backend, Attacher, Expander, Snapshotter, Cloner):
        assert isinstance(found, capability)
    with pytest.raises(errors.Unsupported, match="the library rados is missing"):
        await found.get_volume("x")
    assert [finding.severity for finding in await found.checks()] == ["error"]
    with pytest.raises(errors.Unsupported, match="the library rados is missing"):
        systems.NodeSides(tmp_path, {}, {})["rbd"]


def test_a_section_that_is_wrong_stops_the_start(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def make(instances: registry.Instances, directory: Path) -> Backend:
        raise errors.Invalid('unknown key "monitor"', "[rbd.main]", "did you mean monitors?")

    opening(monkeypatch, "rbd", make)
    with pytest.raises(errors.Invalid, match="did you mean monitors"):
        systems.Backends(tmp_path, INSTANCES, {}).open_configured()


def test_node_sides_are_known_before_they_are_opened(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    opened: list[Mapping[str, object]] = []

    def make(instances: registry.Instances, directory: Path) -> StorageNode:
        opened.append(instances)
        return StorageNode(Storage(directory), "n")

    opening(monkeypatch, "nfs", make)
    own = StorageNode(Storage(tmp_path), "n")
    sides = systems.NodeSides(tmp_path, {}, {"x.test": own})
    assert set(sides) == {"nfs", "x.test"}
    assert "nfs" in sides and "rbd" not in sides
    assert opened == []
    assert sides["nfs"] is sides["nfs"] and len(opened) == 1
    assert sides.get("rbd") is None
