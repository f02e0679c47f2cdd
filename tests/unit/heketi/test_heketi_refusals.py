"""What the REST service refuses and with which words, as Heketi's own server has them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

import heketiservice
from heketiservice import Running
from holdfast.heketi import auth
from holdfast.heketi.executors.mock import MockExecutor
from holdfast.heketi.executors.protocol import VolumeSpec

THREE = {"type": "replicate", "replicate": {"replica": 3}}
CLUSTER = "0" * 32
HOSTS = {"manage": ["a"], "storage": ["b"]}
NODE = {"zone": 1, "cluster": CLUSTER, "hostnames": HOSTS}


@pytest.fixture
async def heketi(tmp_path: Path) -> AsyncIterator[Running]:
    async with heketiservice.running(tmp_path) as found:
        yield found


@pytest.mark.parametrize(
    ("path", "body", "text"),
    [
        (
            "/nodes",
            {},
            "cluster: cannot be blank; hostnames: (manage: cannot be blank; storage: cannot be "
            "blank.); zone: cannot be blank.",
        ),
        (
            "/nodes",
            {**NODE, "hostnames": {"manage": ["a b"], "storage": ["b"]}},
            "hostnames: (manage: [a b] is not a valid manage hostname.).",
        ),
        ("/nodes", {**NODE, "tags": {"a b": "x"}}, "tags: invalid characters in tag name a b."),
        (
            "/nodes",
            {**NODE, "tags": {"x" * 33: ""}},
            f"tags: tag name {'x' * 33}: the length must be between 1 and 32.",
        ),
        (
            "/nodes",
            {**NODE, "tags": {"a": "x" * 65}},
            "tags: value of tag a: the length must be no more than 64.",
        ),
        ("/devices", {}, "name: cannot be blank; node: cannot be blank."),
        ("/admin", {}, "state: cannot be blank."),
        ("/admin", {"state": "x"}, "state: must be a valid value."),
    ],
)
async def test_a_request_is_refused_with_all_that_is_wrong(
    heketi: Running, path: str, body: Any, text: str
) -> None:
    answer = await heketi.ask("POST", path, body)
    assert (answer.status_code, answer.text) == (400, f"validation failed: {text}\n")


async def test_values_of_tags_may_hold_anything_that_is_short(heketi: Running) -> None:
    cluster = await heketi.cluster(1, 0)
    node = (await heketi.get(f"/clusters/{cluster}"))["nodes"][0]
    tags = {"rack": "row 3, left"}
    body = {"change_type": "set", "tags": tags}
    assert (await heketi.ask("POST", f"/nodes/{node}/tags", body)).json() == tags


async def test_a_null_is_as_good_as_nothing(heketi: Running) -> None:
    cluster = await heketi.cluster(1, 0)
    node = (await heketi.get(f"/clusters/{cluster}"))["nodes"][0]
    body = {"change_type": "set", "tags": None}
    assert (await heketi.ask("POST", f"/nodes/{node}/tags", body)).json() == {}
    assert (await heketi.ask("POST", "/clusters", None)).status_code == 422
    made = await heketi.ask("POST", "/volumes", {"size": 1, "durability": None, "name": None})
    assert made.status_code == 500, made.text
    assert "No online storage devices" in made.text


async def test_a_change_of_state_is_refused_as_its_result(heketi: Running) -> None:
    cluster = await heketi.cluster(1, 1)
    node = await heketi.get(f"/nodes/{(await heketi.get(f'/clusters/{cluster}'))['nodes'][0]}")
    places = (("Node", f"/nodes/{node['id']}"), ("Device", f"/devices/{node['devices'][0]['id']}"))
    for kind, path in places:
        answer = await heketi.ask("POST", f"{path}/state", {"state": "failed"})
        assert answer.status_code == 202
        found = await heketi.result(answer)
        said = f"{kind} must be offline before remove operation is performed, {kind.lower()}:"
        assert (found.status_code, found.text.startswith(said)) == (500, True)


async def test_all_names_of_a_node_are_kept(heketi: Running, tmp_path: Path) -> None:
    cluster = (await heketi.ask("POST", "/clusters", {})).json()["id"]
    hosts = {"manage": ["m1", "m2"], "storage": ["s1", "s2", "s3"]}
    node = await heketi.done("POST", "/nodes", {"cluster": cluster, "zone": 1, "hostnames": hosts})
    assert node["hostnames"] == hosts
    dump = await heketi.get("/db/dump")
    async with heketiservice.running(tmp_path / "other") as other:
        await other.ask("POST", "/db/import", dump)
        assert (await other.get(f"/nodes/{node['id']}"))["hostnames"] == hosts


async def test_volumes_that_cannot_be_are_refused_with_heketis_words(heketi: Running) -> None:
    await heketi.cluster(3, 1)
    disperse = {"type": "disperse", "disperse": {"data": 4, "redundancy": 2}}
    for body, status, text in (
        ({"durability": {"type": "bad"}}, 400, "Unknown durability type\n"),
        ({"clusters": ["x"]}, 400, "Cluster id x not found\n"),
        (
            {"durability": disperse},
            400,
            "Requested volume size (1 GB) is smaller than the minimum supported volume size "
            "(4194304)\n",
        ),
        (
            {"glustervolumeoptions": ["user.heketi.device-tag-match disk=ssd"]},
            500,
            "Failed to allocate new volume: No space: none of the 3 devices that may be used has "
            "tags that match user.heketi.device-tag-match disk=ssd\n",
        ),
    ):
        answer = await heketi.ask("POST", "/volumes", {"size": 1, **body})
        assert (answer.status_code, answer.text) == (status, text)


async def test_what_no_cluster_may_hold_is_told_by_cluster(heketi: Running) -> None:
    closed = await heketi.cluster(0, block=False, file=False)
    taken = await heketi.cluster(1)
    await heketi.done("POST", "/volumes", {"size": 1, "name": "v"})
    answer = await heketi.ask("POST", "/volumes", {"size": 2, "name": "v"})
    head, *lines = answer.text.splitlines()
    assert head == "Failed to allocate new volume: No eligible cluster for volume"
    assert sorted(lines) == sorted(
        [
            f"Cluster {closed}: Cluster has disabled all volume types",
            f"Cluster {taken}: Volume name 'v' already in use",
        ]
    )


async def test_an_expansion_without_room_says_what_failed(heketi: Running) -> None:
    await heketi.cluster(3, 1)
    volume = await heketi.done("POST", "/volumes", {"size": 1, "durability": THREE})
    answer = await heketi.ask("POST", f"/volumes/{volume['id']}/expand", {"expand_size": 1000})
    assert answer.status_code == 500
    assert answer.text.startswith("Failed to allocate volume expansion: No space: ")


@pytest.mark.parametrize(("role", "status"), [("admin", 201), ("user", 401)])
async def test_a_server_named_with_a_slash_at_its_end_is_understood(
    heketi: Running, role: str, status: int
) -> None:
    key = heketiservice.ADMIN if role == "admin" else heketiservice.USER
    token = auth.token(role, key, "POST", "//clusters")
    answer = await heketi.client.post(
        "http://heketi//clusters", content="{}", headers={"Authorization": f"bearer {token}"}
    )
    assert answer.status_code == status, answer.text


class _Slow(MockExecutor):
    """Nodes come and go only when they may."""

    def __init__(self) -> None:
        super().__init__()
        self.go = asyncio.Event()
        self.go.set()

    async def probe(self, host: str, address: str) -> None:
        await self.go.wait()

    async def detach(self, host: str, address: str) -> None:
        await self.go.wait()

    async def release_disk(self, host: str, disk: object) -> None:
        await self.go.wait()

    async def replace_brick(self, host: str, name: str, old: str, new: str) -> None:
        await self.go.wait()

    async def clone_volume(self, host: str, source: str, snapshot: str, clone: VolumeSpec) -> None:
        await self.go.wait()


async def test_nothing_is_added_to_what_is_being_deleted(tmp_path: Path) -> None:
    executor = _Slow()
    async with heketiservice.running(tmp_path, executor) as heketi:
        cluster = await heketi.cluster(2, 0)
        first, second = (await heketi.get(f"/clusters/{cluster}"))["nodes"]
        disk = {"node": first, "name": "/dev/sdb"}
        executor.go.clear()
        leaving = await heketi.ask("DELETE", f"/nodes/{first}")
        assert (await heketi.ask("POST", "/devices", disk)).status_code == 409
        executor.go.set()
        assert (await heketi.result(leaving)).status_code == 204
        assert (await heketi.ask("POST", "/devices", disk)).status_code == 404
        executor.go.clear()
        body = {**NODE, "cluster": cluster}
        coming = await heketi.ask("POST", "/nodes", body)
        # The new node waits to get into the pool, while the old one is forgotten.
        await _forget(heketi, second)
        assert (await heketi.ask("DELETE", f"/clusters/{cluster}")).status_code == 409
        executor.go.set()
        assert (await heketi.result(coming)).status_code == 303
        assert (await heketi.get("/db/check"))["totalinconsistencies"] == 0


async def _forget(heketi: Running, node: str) -> None:
    await heketi.done("DELETE", f"/nodes/{node}")


async def test_a_volume_is_not_copied_while_its_bricks_move_nor_the_other_way_round(
    tmp_path: Path,
) -> None:
    executor = _Slow()
    async with heketiservice.running(tmp_path, executor) as heketi:
        await heketi.cluster(4, 1)
        volume = await heketi.done("POST", "/volumes", {"size": 1, "durability": THREE})
        brick, clone = volume["bricks"][0], f"/volumes/{volume['id']}/clone"
        executor.go.clear()
        moving = await heketi.ask("POST", f"/bricks/to-evict/{brick['id']}", {})
        assert (await heketi.ask("POST", clone, {})).status_code == 409
        executor.go.set()
        assert (await heketi.result(moving)).status_code == 204
        device = (await heketi.get(f"/volumes/{volume['id']}"))["bricks"][0]["device"]
        await heketi.done("POST", f"/devices/{device}/state", {"state": "offline"})
        executor.go.clear()
        copying = await heketi.ask("POST", clone, {})
        assert copying.status_code == 202
        leaving = await heketi.ask("POST", f"/devices/{device}/state", {"state": "failed"})
        refused = await heketi.result(leaving)
        assert refused.text == "The target exists, contains other items, or is in use.\n"
        executor.go.set()
        assert (await heketi.result(copying)).status_code == 303


async def test_a_disk_that_is_being_deleted_cannot_be_put_to_use(tmp_path: Path) -> None:
    executor = _Slow()
    async with heketiservice.running(tmp_path, executor) as heketi:
        cluster = await heketi.cluster(1, 1)
        node = (await heketi.get(f"/clusters/{cluster}"))["nodes"][0]
        device = (await heketi.get(f"/nodes/{node}"))["devices"][0]["id"]
        path = f"/devices/{device}"
        for state in ("offline", "failed"):
            await heketi.done("POST", f"{path}/state", {"state": state})
        executor.go.clear()
        leaving = await heketi.ask("DELETE", path)
        await heketi.done("POST", f"{path}/state", {"state": "offline"})
        answer = await heketi.ask("POST", f"{path}/state", {"state": "online"})
        assert answer.status_code == 409
        executor.go.set()
        assert (await heketi.result(leaving)).status_code == 204
