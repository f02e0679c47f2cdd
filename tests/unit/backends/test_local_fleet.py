"""Local volumes of several nodes: where a volume goes, and who is asked for it later."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from holdfast.backends import errors, protocol
from holdfast.backends.local.backend import LocalBackend
from holdfast.backends.local.fleet import LocalFleet
from holdfast.backends.protocol import TOPOLOGY_HOST, VolumeRequest, VolumeSource

GIB = 1 << 30
NODES = ("a", "b", "c")


class Fleet:
    """A fleet of three nodes, each of which can be switched off."""

    def __init__(self, root: Path) -> None:
        self.off: set[str] = set()
        self.root = root
        members = {name: LocalBackend(root / name, name, suffix=f".{name}") for name in NODES}
        self.backend = LocalFleet(members, self.refusal)

    def refusal(self, name: str) -> str:
        return f"node {name} is stopped" if name in self.off else ""


@pytest.fixture
async def fleet(tmp_path: Path) -> AsyncIterator[Fleet]:
    made = Fleet(tmp_path)
    yield made
    await made.backend.close()


def request(name: str, node: str | None = None, path: Path | None = None) -> VolumeRequest:
    parameters = {"layout": "directory", **({"path": str(path)} if path else {})}
    topology = {TOPOLOGY_HOST: node} if node else None
    return VolumeRequest(name, GIB, parameters, topology=topology)


def place(volume: protocol.Volume) -> str:
    assert volume.topology is not None
    return volume.topology[TOPOLOGY_HOST]


def test_it_offers_what_its_members_offer() -> None:
    fleet = LocalFleet({}, lambda name: "")
    for capability in (
        protocol.Backend,
        protocol.Expander,
        protocol.Snapshotter,
        protocol.Cloner,
        protocol.CapacityReporter,
    ):
        assert isinstance(fleet, capability)


async def test_a_volume_is_made_where_it_is_wanted(fleet: Fleet) -> None:
    made = await fleet.backend.create_volume(request("v", "b"))
    assert place(made) == "b"
    assert (fleet.root / "b" / "v").is_dir()
    assert (await fleet.backend.get_volume("v")).topology == made.topology
    assert place(await fleet.backend.create_volume(request("v"))) == "b", "a repeat finds it"


async def test_volumes_wanted_nowhere_spread_also_at_one_time(fleet: Fleet) -> None:
    made = await asyncio.gather(
        *(fleet.backend.create_volume(request(f"v{number}")) for number in range(6))
    )
    assert sorted(map(place, made)) == ["a", "a", "b", "b", "c", "c"]


async def test_room_that_another_program_takes_meanwhile_does_not_bend_the_spread(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    rooms = itertools.cycle([5 * GIB, 5 * GIB - 1, 5 * GIB + 1])

    async def capacity(self: LocalBackend, parameters: object) -> protocol.Capacity:
        return protocol.Capacity(9 * GIB, next(rooms))

    # A disk that fills and empties just at a GiB cannot be had on demand.
    monkeypatch.setattr(LocalBackend, "capacity", capacity)
    made = [await fleet.backend.create_volume(request(f"v{number}")) for number in range(6)]
    assert sorted(map(place, made)) == ["a", "a", "b", "b", "c", "c"]


async def test_equal_requests_at_one_time_make_one_volume(fleet: Fleet) -> None:
    made = await asyncio.gather(*(fleet.backend.create_volume(request("v")) for _ in range(4)))
    assert len({place(volume) for volume in made}) == 1
    assert sum((fleet.root / node / "v").exists() for node in NODES) == 1


async def test_a_node_that_is_off_is_neither_chosen_nor_asked(fleet: Fleet) -> None:
    await fleet.backend.create_volume(request("kept", "a"))
    fleet.off = {"a", "b"}
    assert place(await fleet.backend.create_volume(request("v"))) == "c"
    with pytest.raises(errors.Unavailable, match="node a is stopped"):
        await fleet.backend.delete_volume("kept")
    with pytest.raises(errors.Unavailable, match="node b is stopped"):
        await fleet.backend.create_volume(request("w", "b"))
    fleet.off = set(NODES)
    with pytest.raises(errors.Unavailable, match="no node can be reached"):
        await fleet.backend.create_volume(request("x"))
    fleet.off = set()
    await fleet.backend.delete_volume("kept")
    await fleet.backend.delete_volume("kept")
    assert not (fleet.root / "a" / "kept").exists()


async def test_an_unknown_node_is_refused_with_the_known_ones(fleet: Fleet) -> None:
    with pytest.raises(errors.Exhausted, match="a, b, c"):
        await fleet.backend.create_volume(request("v", "z"))


async def test_a_copy_is_made_beside_what_it_copies(fleet: Fleet) -> None:
    await fleet.backend.create_volume(request("v", "c"))
    source = VolumeSource("volume", "v")
    copied = VolumeRequest("w", GIB, {"layout": "directory"}, source=source)
    assert place(await fleet.backend.create_volume(copied)) == "c"
    elsewhere = VolumeRequest(
        "x", GIB, {"layout": "directory"}, source=source, topology={TOPOLOGY_HOST: "a"}
    )
    with pytest.raises(errors.Exhausted, match='lies on "c"'):
        await fleet.backend.create_volume(elsewhere)


async def test_snapshots_lie_with_their_volume(fleet: Fleet) -> None:
    await fleet.backend.create_volume(request("v", "b"))
    await fleet.backend.create_snapshot("s", "v")
    assert (await fleet.backend.get_snapshot("s")).source == "v"
    assert [each.id for each in (await fleet.backend.list_snapshots()).snapshots] == ["s"]
    restored = VolumeRequest(
        "w", GIB, {"layout": "directory"}, source=VolumeSource("snapshot", "s")
    )
    assert place(await fleet.backend.create_volume(restored)) == "b"
    await fleet.backend.delete_snapshot("s")
    with pytest.raises(errors.NotFound):
        await fleet.backend.get_snapshot("s")


async def test_a_path_of_a_class_is_another_directory_on_each_node(fleet: Fleet) -> None:
    path = fleet.root / "disk"
    for node in NODES:
        await fleet.backend.create_volume(request(f"on-{node}", node, path))
        assert (fleet.root / f"disk.{node}" / f"on-{node}").is_dir()
    first = await fleet.backend.list_volumes(limit=2)
    assert [each.id for each in first.volumes] == ["on-a", "on-b"]
    rest = await fleet.backend.list_volumes(first.next_token, 2)
    assert [each.id for each in rest.volumes] == ["on-c"]
