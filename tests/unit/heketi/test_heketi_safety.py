"""What must not be lost, left behind or stuck when operations fail or the database is old."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

import heketiservice
from heketiservice import Running
from holdfast.heketi import errors
from holdfast.heketi.entries import GIB
from holdfast.heketi.executors.mock import MockExecutor
from holdfast.heketi.executors.protocol import (
    BrickFacts,
    BrickSpec,
    Disk,
    DiskFacts,
    Heal,
    VolumeFacts,
    VolumeSpec,
)

THREE = {"type": "replicate", "replicate": {"replica": 3}}


class _Pool(MockExecutor):
    """Remembers volumes and bricks as glusterd and the nodes do; hosts may be away."""

    def __init__(self) -> None:
        super().__init__()
        self.volumes: dict[str, VolumeFacts] = {}
        self.bricks: set[str] = set()
        self.away: set[str] = set()
        self.busy: set[str] = set()
        self.found: dict[str, list[BrickFacts]] = {}
        self.free = 0
        self.snapshots: set[str] = set()

    def _reach(self, host: str) -> None:
        if host in self.away:
            raise errors.Unreachable(host, "ssh", "no route to host")

    async def prepare_disk(self, host: str, disk: Disk, destroy: bool) -> DiskFacts:
        self._reach(host)
        return await super().prepare_disk(host, disk, destroy)

    async def release_disk(self, host: str, disk: Disk) -> None:
        self._reach(host)

    async def make_brick(self, host: str, brick: BrickSpec) -> str:
        if host in self.busy:
            raise errors.ExecutionFailed(host, "mkfs.xfs", "I/O error")
        self.bricks.add(brick.id)
        return await super().make_brick(host, brick)

    async def destroy_brick(self, host: str, brick: BrickSpec) -> None:
        self._reach(host)
        if host in self.busy:
            raise errors.ExecutionFailed(host, "umount", "target is busy")
        self.bricks.discard(brick.id)

    async def find_bricks(self, host: str, disk: Disk | None) -> list[BrickFacts]:
        return self.found.get(host, [])

    async def measure_disk(self, host: str, disk: Disk) -> DiskFacts:
        return DiskFacts(100 * GIB, self.free * GIB, uuid=disk.id, paths=(disk.name,))

    async def list_volumes(self, host: str) -> list[VolumeFacts]:
        return list(self.volumes.values())

    async def describe_volume(self, host: str, name: str) -> VolumeFacts | None:
        return self.volumes.get(name)

    async def create_volume(self, host: str, volume: VolumeSpec) -> None:
        size = max(1, volume.replica)
        self._put(volume.name, volume.type, volume.bricks, size)

    def _put(self, name: str, kind: str, bricks: tuple[str, ...], size: int) -> None:
        self.volumes[name] = VolumeFacts(name, name, True, kind, bricks, size, size)

    async def delete_volume(self, host: str, name: str) -> None:
        self.volumes.pop(name, None)

    async def replace_brick(self, host: str, name: str, old: str, new: str) -> None:
        there = self.volumes[name]
        bricks = tuple(new if each == old else each for each in there.bricks)
        self._put(name, there.type, bricks, there.set_size)

    async def clone_volume(self, host: str, source: str, snapshot: str, clone: VolumeSpec) -> None:
        self.snapshots.add(snapshot)
        if clone.name == "broken":
            raise errors.ExecutionFailed(host, "gluster snapshot clone", "no quorum")
        there = self.volumes[source]
        where = (each.partition(":")[0] for each in there.bricks)
        bricks = [f"{host}:/run/gluster/snaps/ab/brick{n}/brick" for n, host in enumerate(where, 1)]
        self._put(clone.name, there.type, tuple(bricks), there.set_size)
        self.snapshots.discard(snapshot)

    async def delete_snapshot(self, host: str, name: str) -> None:
        self.snapshots.discard(name)


@pytest.fixture
def pool() -> _Pool:
    return _Pool()


@pytest.fixture
async def heketi(tmp_path: Path, pool: _Pool) -> AsyncIterator[Running]:
    async with heketiservice.running(tmp_path, pool) as found:
        yield found


async def _made(heketi: Running, **wanted: Any) -> Any:
    return await heketi.done("POST", "/volumes", {"size": 1, "durability": THREE, **wanted})


async def _refused(heketi: Running, method: str, path: str, body: Any = None) -> str:
    found = await heketi.result(await heketi.ask(method, path, body))
    assert found.status_code == 500, found.text
    return found.text


async def test_another_volume_of_the_same_name_is_not_deleted(heketi: Running, pool: _Pool) -> None:
    await heketi.cluster()
    volume = await _made(heketi, name="data")
    # Deleted and made again by hand, while the database is from before.
    other = tuple(f"10.0.0.{node}:/bricks/new" for node in (1, 2, 3))
    pool.volumes["data"] = VolumeFacts("data", "data", True, "replicate", other, 3, 3)
    text = await _refused(heketi, "DELETE", f"/volumes/{volume['id']}")
    assert "with none of the bricks that are known here" in text
    assert pool.volumes["data"].bricks == other
    assert (await heketi.get(f"/volumes/{volume['id']}"))["name"] == "data"


async def test_a_single_replica_is_the_only_copy_too(heketi: Running) -> None:
    await heketi.cluster()
    one = {"type": "replicate", "replicate": {"replica": 1}}
    volume = await _made(heketi, durability=one)
    brick = volume["bricks"][0]["id"]
    body = {"healcheck": "disable"}
    text = await _refused(heketi, "POST", f"/bricks/to-evict/{brick}", body)
    assert "keeps one copy only" in text


async def test_a_replaced_brick_that_cannot_be_removed_yet_is_not_forgotten(
    heketi: Running, pool: _Pool
) -> None:
    await heketi.cluster(4, 1)
    volume = await _made(heketi)
    old = volume["bricks"][0]
    host = (await heketi.get(f"/nodes/{old['node']}"))["hostnames"]["manage"][0]
    pool.busy.add(host)
    path = f"/bricks/to-evict/{old['id']}"
    assert "target is busy" in await _refused(heketi, "POST", path, {})
    assert (await heketi.get("/operations"))["failed"] == 1
    pool.busy.clear()
    await _clean(heketi)
    bricks = (await heketi.get(f"/volumes/{volume['id']}"))["bricks"]
    assert sorted(pool.bricks) == sorted(each["id"] for each in bricks)
    assert old["id"] not in pool.bricks


async def _clean(heketi: Running) -> None:
    await heketi.done("POST", "/operations/pending/cleanup", {})
    while True:
        counts = await heketi.get("/operations")
        if not counts["in_flight"]:
            break
        await asyncio.sleep(0.001)
    assert counts["total"] == 0


class _Healing(_Pool):
    """Says, as glusterd does, that the other bricks have all to give to one that is fresh."""

    real = True

    def __init__(self) -> None:
        super().__init__()
        self.fresh: set[str] = set()

    async def replace_brick(self, host: str, name: str, old: str, new: str) -> None:
        await asyncio.sleep(0.01)
        await super().replace_brick(host, name, old, new)
        self.fresh.add(new)

    async def heals(self, host: str, name: str) -> dict[str, Heal]:
        await asyncio.sleep(0)
        bricks = self.volumes[name].bricks
        left = 7 if self.fresh & set(bricks) else 0
        return {each: Heal(0 if each in self.fresh else left) for each in bricks}


async def test_all_copies_are_never_given_up_at_once(tmp_path: Path) -> None:
    pool = _Healing()
    async with heketiservice.running(tmp_path, pool) as heketi:
        await heketi.cluster(5, 1)
        volume = await _made(heketi, name="v")
        before = set(pool.volumes["v"].bricks)
        asked = [
            await heketi.ask("POST", f"/bricks/to-evict/{brick['id']}", {})
            for brick in volume["bricks"]
        ]
        ended = [await heketi.result(answer) for answer in asked]
        assert [each.status_code for each in ended] == [204, 500, 500]
        assert "source brick for data to be healed" in ended[1].text
        assert len(before & set(pool.volumes["v"].bricks)) == 2


async def test_a_brick_is_not_stuck_when_the_removal_of_its_device_broke_off(
    heketi: Running, pool: _Pool
) -> None:
    cluster = await heketi.cluster(4, 1)
    volume = await _made(heketi)
    device = volume["bricks"][0]["device"]
    # The only place for the new brick fails while it is made and while that is undone.
    used = {each["node"] for each in volume["bricks"]}
    nodes = (await heketi.get(f"/clusters/{cluster}"))["nodes"]
    spare = next(node for node in nodes if node not in used)
    pool.busy.add((await heketi.get(f"/nodes/{spare}"))["hostnames"]["manage"][0])
    await heketi.done("POST", f"/devices/{device}/state", {"state": "offline"})
    await _refused(heketi, "POST", f"/devices/{device}/state", {"state": "failed"})
    pool.busy.clear()
    await _clean(heketi)
    await heketi.done("POST", f"/devices/{device}/state", {"state": "failed"})
    assert (await heketi.get(f"/devices/{device}"))["bricks"] == []
    await heketi.done("DELETE", f"/volumes/{volume['id']}")
    assert pool.bricks == set()


async def test_a_disk_of_a_node_that_is_gone_does_not_stand_against_deleting_the_node(
    heketi: Running, pool: _Pool
) -> None:
    cluster = await heketi.cluster(2, 0)
    node = (await heketi.get(f"/clusters/{cluster}"))["nodes"][0]
    pool.away.add((await heketi.get(f"/nodes/{node}"))["hostnames"]["manage"][0])
    body = {"node": node, "name": "/dev/sdx"}
    assert "no route to host" in await _refused(heketi, "POST", "/devices", body)
    await heketi.done("DELETE", f"/nodes/{node}")


async def _used(heketi: Running) -> int:
    topology = await heketi.get("/topology")
    nodes = [node for cluster in topology["clusters"] for node in cluster["nodes"]]
    return sum(device["storage"]["used"] for node in nodes for device in node["devices"])


async def test_a_pool_counts_until_the_last_clone_in_it_is_gone(heketi: Running) -> None:
    await heketi.cluster(3, 1)
    source = await _made(heketi)
    taken = await _used(heketi)
    clones = [await heketi.done("POST", f"/volumes/{source['id']}/clone", {}) for _ in range(2)]
    assert await _used(heketi) == taken
    for volume in (source, *clones):
        assert await _used(heketi) == taken
        await heketi.done("DELETE", f"/volumes/{volume['id']}")
    assert await _used(heketi) == 0


async def test_a_clone_never_takes_or_deletes_a_volume_that_has_its_name(
    heketi: Running, pool: _Pool
) -> None:
    await heketi.cluster(3, 1)
    source = await _made(heketi)
    theirs = VolumeFacts("theirs", "x", True, "none", ("elsewhere:/data",), 1)
    pool.volumes["theirs"] = theirs
    path = f"/volumes/{source['id']}/clone"
    text = await _refused(heketi, "POST", path, {"name": "theirs"})
    assert text.startswith("GlusterFS already has a volume theirs")
    assert pool.volumes["theirs"] is theirs
    assert (await heketi.get("/volumes"))["volumes"] == [source["id"]]


async def test_a_clone_that_fails_leaves_no_snapshot(heketi: Running, pool: _Pool) -> None:
    await heketi.cluster(3, 1)
    source = await _made(heketi)
    text = await _refused(heketi, "POST", f"/volumes/{source['id']}/clone", {"name": "broken"})
    assert "no quorum" in text
    assert pool.snapshots == set()


async def test_a_pool_that_clones_share_is_taken_over_once(heketi: Running, tmp_path: Path) -> None:
    await heketi.cluster(3, 1)
    source = await _made(heketi)
    await heketi.done("POST", f"/volumes/{source['id']}/clone", {})
    dump = await heketi.get("/db/dump")
    sizes = {each["TpSize"] for each in dump["brickentries"].values()} - {0}
    metadata = {each["PoolMetadataSize"] for each in dump["brickentries"].values()} - {0}
    for entry in dump["brickentries"].values():
        # As Heketi has it: a clone's brick is a copy of its source's entry.
        entry["TpSize"], entry["PoolMetadataSize"] = *sizes, *metadata
    async with heketiservice.running(tmp_path / "other") as other:
        assert (await other.ask("POST", "/db/import", dump)).json()["left_out"] == []
        assert await _used(other) == await _used(heketi)
        assert (await other.get("/db/check"))["totalinconsistencies"] == 0


async def test_clusters_of_an_old_dump_may_host_everything_as_its_upgrade_has_it(
    heketi: Running, tmp_path: Path
) -> None:
    cluster = await heketi.cluster(1, 1, file=True, block=False)
    dump = await heketi.get("/db/dump")
    old = {**dump, "dbattributeentries": {}}
    for name, content, block in (("new", dump, False), ("old", old, True)):
        async with heketiservice.running(tmp_path / name) as other:
            assert (await other.ask("POST", "/db/import", content)).status_code == 200
            found = await other.get(f"/clusters/{cluster}")
            assert (found["file"], found["block"]) == (True, block)


def _brick(number: int, size: int) -> BrickFacts:
    key = f"{number:032x}"
    path = f"/var/lib/heketi/mounts/vg_{'d' * 32}/brick_{key}/brick"
    pool = size * GIB
    return BrickFacts(key, f"{'d' * 32} /dev/sdb", path, pool, pool, 0, f"tp_{key}", key, gid=2345)


async def test_a_rebuilt_database_knows_sizes_groups_and_what_is_taken(
    heketi: Running, pool: _Pool
) -> None:
    # 3 GiB, grown by 1; beside it 10 GiB of the disk belong to nobody known.
    bricks = [_brick(1, 3), _brick(2, 1)]
    pool.found["node1"] = bricks
    pool.free = 100 - 3 - 1 - 10
    addresses = tuple(f"node1:{each.path}" for each in bricks)
    pool.volumes["grown"] = VolumeFacts("grown", "x", True, "none", addresses, 1)
    answer = await heketi.ask("POST", "/db/rebuild", {"nodes": [{"manage": "node1"}]})
    assert answer.json()["volumes"] == 1
    volume = await heketi.get("/volumes/" + (await heketi.get("/volumes"))["volumes"][0])
    assert (volume["size"], volume["gid"]) == (4, 2345)
    storage = (await heketi.get(f"/devices/{'d' * 32}"))["storage"]
    assert storage == {"total": 100 * GIB, "free": 86 * GIB, "used": 14 * GIB}


async def test_a_brick_whose_tags_no_other_disk_has_is_said_to_have_no_other_place(
    heketi: Running,
) -> None:
    cluster = await heketi.cluster(3, 1)
    for node in (await heketi.get(f"/clusters/{cluster}"))["nodes"]:
        device = (await heketi.get(f"/nodes/{node}"))["devices"][0]["id"]
        body = {"change_type": "set", "tags": {"disk": "ssd"}}
        await heketi.ask("POST", f"/devices/{device}/tags", body)
    options = ["user.heketi.device-tag-match disk=ssd"]
    volume = await _made(heketi, glustervolumeoptions=options)
    for brick in volume["bricks"]:
        path = f"/devices/{brick['device']}"
        body = {"change_type": "set", "tags": {}}
        await heketi.ask("POST", f"{path}/tags", body)
    await heketi.done("POST", f"{path}/state", {"state": "offline"})
    text = await _refused(heketi, "POST", f"{path}/state", {"state": "failed"})
    assert "No Replacement was found for resource requested to be removed (No space:" in text
