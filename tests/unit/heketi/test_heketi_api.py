"""The REST service as Heketi's own clients meet it: tokens, queue, texts, life of everything."""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import httpx2
import jwt
import pytest

import heketiservice
from heketiservice import Running
from holdfast.heketi import errors
from holdfast.heketi.executors.mock import MockExecutor
from holdfast.heketi.executors.protocol import BrickSpec, VolumeSpec

THREE = {"type": "replicate", "replicate": {"replica": 3}}


@pytest.fixture
async def heketi(tmp_path: Path) -> AsyncIterator[Running]:
    async with heketiservice.running(tmp_path) as found:
        yield found


# Who asks


def _token(method: str = "GET", path: str = "/clusters", **changes: Any) -> str:
    qsh = hashlib.sha256(f"{method}&{path}".encode()).hexdigest()
    claims = {"iss": "admin", "iat": int(time.time()), "exp": int(time.time()) + 300, "qsh": qsh}
    claims.update(changes)
    claims = {key: value for key, value in claims.items() if value is not None}
    return jwt.encode(claims, heketiservice.ADMIN, algorithm="HS256")


@pytest.mark.parametrize(
    ("header", "status", "text"),
    # Tokens are made when they are used: they live for minutes only.
    [
        ("", 401, "Required authorization token not found"),
        ("Basic x", 400, "Authorization header format must be Bearer {token}"),
        ("Bearer x.y.z", 401, "Invalid JWT token: "),
        (lambda: _token(iss=None), 401, "Invalid JWT token: Token missing iss claim"),
        (lambda: _token(iss="root"), 401, "Invalid JWT token: Unknown user"),
        (lambda: _token(exp=None), 401, "Invalid JWT token: Token missing exp claim"),
        (lambda: _token(exp=1), 401, "Invalid JWT token: Token is expired"),
        (lambda: _token(iss="user"), 401, "client and server secrets may not match"),
        (lambda: _token(path="/nodes"), 401, "Invalid qsh claim in token"),
        (lambda: _token(iat=int(time.time()) + 600), 401, "Token used before issued"),
    ],
)
async def test_a_bad_token_is_refused_with_heketis_text(
    heketi: Running, header: str | Callable[[], str], status: int, text: str
) -> None:
    given = header if isinstance(header, str) else f"bearer {header()}"
    headers = {"Authorization": given} if given else {}
    answer = await heketi.client.get("/clusters", headers=headers)
    assert answer.status_code == status
    assert text in answer.text
    assert answer.text.endswith("\n")
    assert answer.headers["content-type"] == "text/plain; charset=utf-8"
    assert answer.headers["x-content-type-options"] == "nosniff"


async def test_a_clock_a_minute_ahead_is_fine(heketi: Running) -> None:
    ahead = int(time.time()) + 60
    headers = {"Authorization": f"bearer {_token(iat=ahead, exp=ahead + 1)}"}
    assert (await heketi.client.get("/clusters", headers=headers)).status_code == 200


async def test_an_unknown_path_is_401_without_and_404_with_a_token(heketi: Running) -> None:
    assert (await heketi.client.get("/nosuch")).status_code == 401
    answer = await heketi.ask("GET", "/nosuch")
    assert (answer.status_code, answer.text) == (404, "Invalid path or request\n")
    assert (await heketi.client.get("/hello")).text == "Hello from Heketi"
    assert "heketi_up 1" in (await heketi.client.get("/metrics")).text


async def test_users_may_make_volumes_and_see_how_that_went_and_nothing_else(
    heketi: Running,
) -> None:
    await heketi.cluster()
    heketi.role = "user"
    volume = await heketi.done("POST", "/volumes", {"size": 1})
    assert (await heketi.get("/volumes"))["volumes"] == [volume["id"]]
    for method, path in (("GET", "/clusters"), ("DELETE", f"/volumes/{volume['id']}")):
        answer = await heketi.ask(method, path)
        assert (answer.status_code, answer.text) == (401, "Administrator access required\n")


# What Heketi's own client tests do


async def test_a_cluster_lives_as_clients_expect(heketi: Running) -> None:
    made = await heketi.ask("POST", "/clusters", {"block": True, "file": True})
    assert made.status_code == 201
    cluster = made.json()
    assert list(cluster) == ["id", "nodes", "volumes", "block", "file", "blockvolumes"]
    assert (await heketi.ask("GET", "/clusters/bad")).text == "Id not found\n"
    assert await heketi.get(f"/clusters/{cluster['id']}") == cluster
    flags = {"block": False, "file": True}
    assert (await heketi.ask("POST", f"/clusters/{cluster['id']}/flags", flags)).content == b""
    found = await heketi.get(f"/clusters/{cluster['id']}")
    assert (found["block"], found["file"]) == (False, True)
    assert (await heketi.get("/clusters")) == {"clusters": [cluster["id"]]}
    assert (await heketi.ask("DELETE", "/clusters/badid")).text == "Invalid path or request\n"
    # The Python client sends a body with everything.
    assert (await heketi.ask("DELETE", f"/clusters/{cluster['id']}", {})).status_code == 200


async def test_an_empty_request_makes_a_cluster_that_can_host_everything(heketi: Running) -> None:
    made = (await heketi.ask("POST", "/clusters", {})).json()
    assert made["file"] and made["block"]
    assert (await heketi.ask("POST", "/clusters")).status_code == 422


async def test_a_node_lives_as_clients_expect(heketi: Running) -> None:
    cluster = (await heketi.ask("POST", "/clusters", {})).json()["id"]
    hosts = {"manage": ["node1-manage.lab"], "storage": ["node1-storage.lab"]}
    body = {"cluster": "bad_id", "zone": 10, "hostnames": hosts}
    assert (await heketi.ask("POST", "/nodes", body)).status_code == 400
    body["cluster"] = "0" * 32
    assert (await heketi.ask("POST", "/nodes", body)).text == "Cluster id does not exist\n"
    body["cluster"] = cluster
    node = await heketi.done("POST", "/nodes", body)
    assert node["hostnames"] == hosts and node["zone"] == 10 and node["state"] == "online"
    again = await heketi.ask("POST", "/nodes", body)
    assert again.status_code == 409
    assert again.text == f"Hostname node1-manage.lab already used by node with id {node['id']}\n"
    for state in ("offline", "online"):
        await heketi.done("POST", f"/nodes/{node['id']}/state", {"state": state})
        assert (await heketi.get(f"/nodes/{node['id']}"))["state"] == state
    answer = await heketi.ask("DELETE", f"/clusters/{cluster}")
    assert answer.status_code == 409
    assert "because it contains volumes and/or nodes" in answer.text
    await heketi.done("DELETE", f"/nodes/{node['id']}")
    assert (await heketi.ask("DELETE", f"/clusters/{cluster}")).status_code == 200


async def test_a_device_lives_as_clients_expect(heketi: Running) -> None:
    cluster = await heketi.cluster(1, 1)
    node = (await heketi.get(f"/clusters/{cluster}"))["nodes"][0]
    device = (await heketi.get(f"/nodes/{node}"))["devices"][0]
    path = f"/devices/{device['id']}"
    assert await heketi.get(path) == device
    assert device["storage"] == {"total": 524288000, "free": 524288000, "used": 0}
    again = await heketi.ask("POST", "/devices", {"node": node, "name": device["name"]})
    assert again.status_code == 409
    refused = await heketi.ask("DELETE", path)
    assert refused.text == f"device: {device['id']} is not in failed state\n"
    refused = await heketi.result(await heketi.ask("POST", f"{path}/state", {"state": "failed"}))
    assert refused.status_code == 500
    assert "Device must be offline before remove operation is performed" in refused.text
    resync = await heketi.ask("GET", f"{path}/resync")
    assert resync.text.startswith('<a href="/queue/')
    assert (await heketi.result(resync)).status_code == 204
    assert (await heketi.ask("DELETE", f"/nodes/{node}")).status_code == 409
    for state in ("offline", "failed"):
        await heketi.done("POST", f"{path}/state", {"state": state})
    await heketi.done("DELETE", path)
    assert (await heketi.get(f"/nodes/{node}"))["devices"] == []


async def test_tags_are_set_updated_and_deleted(heketi: Running) -> None:
    cluster = await heketi.cluster(1, 1)
    node = (await heketi.get(f"/clusters/{cluster}"))["nodes"][0]
    path = f"/nodes/{node}/tags"
    for change, tags, expected in (
        ("set", {"a": "1", "b": "2"}, {"a": "1", "b": "2"}),
        ("update", {"b": "3"}, {"a": "1", "b": "3"}),
        ("delete", {"a": ""}, {"b": "3"}),
    ):
        answer = await heketi.ask("POST", path, {"change_type": change, "tags": tags})
        assert answer.json() == expected
    assert (await heketi.get(f"/nodes/{node}"))["tags"] == {"b": "3"}
    too_many = {f"t{number}": "" for number in range(33)}
    assert (
        await heketi.ask("POST", path, {"change_type": "set", "tags": too_many})
    ).status_code == 400


async def test_a_volume_lives_as_clients_expect(heketi: Running) -> None:
    cluster = await heketi.cluster()
    volume = await heketi.done("POST", "/volumes", {"size": 10})
    assert volume["durability"] == {"type": "none", "replicate": {}, "disperse": {}}
    assert volume["name"] == f"vol_{volume['id']}"
    assert len(volume["mount"]["glusterfs"]["hosts"]) == 3
    assert await heketi.get(f"/volumes/{volume['id']}") == volume
    grown = await heketi.done("POST", f"/volumes/{volume['id']}/expand", {"expand_size": 10})
    assert grown["size"] == 20 and len(grown["bricks"]) == 2
    await heketi.done("DELETE", f"/volumes/{volume['id']}")
    assert (await heketi.get(f"/clusters/{cluster}"))["volumes"] == []
    check = await heketi.get("/db/check")
    assert check["totalinconsistencies"] == 0 and check["bricks"]["total"] == 0


@pytest.mark.parametrize(
    ("body", "text"),
    [
        ({}, "validation failed: size: cannot be blank."),
        ({"size": -1}, "validation failed: size: must be no less than 1."),
        ({"size": 1, "gid": 2**31}, "Bad group id equal or greater than 2**32"),
        ({"size": 1, "snapshot": {"enable": True, "factor": 0.5}}, "Invalid snapshot factor"),
        (
            {"size": 1, "durability": {"type": "replicate", "replicate": {"replica": 4}}},
            "Invalid replica value",
        ),
        (
            {"size": 1, "durability": {"type": "disperse", "disperse": {"data": 3}}},
            "Invalid dispersion combination: 3+0",
        ),
        ({"size": 1, "clusters": ["0" * 32]}, f"Cluster id {'0' * 32} not found"),
        ({"size": 1, "glustervolumeoptions": ["--force"]}, "validation failed: "),
    ],
)
async def test_a_volume_that_cannot_be_is_refused_with_heketis_text(
    heketi: Running, body: dict[str, Any], text: str
) -> None:
    await heketi.cluster(1, 1)
    answer = await heketi.ask("POST", "/volumes", body)
    assert answer.status_code == 400
    assert answer.text.startswith(text)


async def test_what_is_not_json_is_422(heketi: Running) -> None:
    token = _token("POST", "/volumes")
    headers = {"Authorization": f"bearer {token}"}
    answer = await heketi.client.post("/volumes", content="{", headers=headers)
    assert (answer.status_code, answer.text) == (422, "request unable to be parsed\n")


async def test_no_space_is_said_at_once_and_explained(heketi: Running) -> None:
    await heketi.cluster(2)
    answer = await heketi.ask("POST", "/volumes", {"size": 1, "durability": THREE})
    assert answer.status_code == 500
    assert answer.text.startswith("Failed to allocate new volume: No space")
    assert "3 different nodes and only 2 have devices" in answer.text


async def test_a_dry_run_shows_the_bricks_and_makes_none(heketi: Running) -> None:
    await heketi.cluster()
    body = {"size": 2, "durability": THREE}
    plan = (await heketi.ask("POST", "/volumes?dry-run=true", body)).json()
    assert len({brick["node"] for brick in plan["bricks"]}) == 3
    assert await heketi.get("/volumes") == {"volumes": []}
    assert (await heketi.get("/operations"))["total"] == 0


async def test_a_name_is_created_once_and_another_volume_of_it_is_refused(
    heketi: Running,
) -> None:
    await heketi.cluster()
    body = {"size": 1, "name": "one", "durability": THREE}
    both = await asyncio.gather(*(heketi.ask("POST", "/volumes", body) for _ in range(2)))
    results = [await heketi.result(each) for each in both]
    results.append(await heketi.result(await heketi.ask("POST", "/volumes", body)))
    assert len({each.headers["location"] for each in results}) == 1
    assert len((await heketi.get("/volumes"))["volumes"]) == 1
    other = await heketi.ask("POST", "/volumes", {**body, "size": 2})
    assert other.status_code == 500
    assert other.text == "Failed to allocate new volume: Volume name 'one' already in use\n"


async def test_results_can_be_asked_for_again_and_outlive_a_restart(tmp_path: Path) -> None:
    async with heketiservice.running(tmp_path) as heketi:
        await heketi.cluster()
        answer = await heketi.ask("POST", "/volumes", {"size": 1})
        first = await heketi.result(answer)
        assert (await heketi.result(answer)).headers["location"] == first.headers["location"]
    async with heketiservice.running(tmp_path) as heketi:
        assert (await heketi.result(answer)).headers["location"] == first.headers["location"]
        assert (await heketi.get(first.headers["location"]))["size"] == 1


# When something fails or takes long


class _Slow(MockExecutor):
    """Volumes wait until they are let go."""

    def __init__(self) -> None:
        super().__init__()
        self.go = asyncio.Event()

    async def create_volume(self, host: str, volume: VolumeSpec) -> None:
        await self.go.wait()


async def test_what_is_pending_is_hidden_counted_and_limited(tmp_path: Path) -> None:
    executor = _Slow()
    async with heketiservice.running(tmp_path, executor, inflight=2) as heketi:
        await heketi.cluster()
        asked = [await heketi.ask("POST", "/volumes", {"size": 1}) for _ in range(3)]
        assert [each.status_code for each in asked] == [202, 202, 429]
        assert asked[2].text == "Server busy. Retry operation later.\n"
        waiting = await heketi.ask("GET", asked[0].headers["location"])
        assert (waiting.status_code, waiting.headers["x-pending"]) == (200, "true")
        assert (await heketi.get("/volumes"))["volumes"] == []
        counts = await heketi.get("/operations")
        assert (counts["total"], counts["in_flight"], counts["new"]) == (2, 2, 2)
        listed = (await heketi.get("/operations/pending"))["pendingoperations"]
        assert {each["type_name"] for each in listed} == {"create-volume"}
        details = await heketi.get(f"/operations/pending/{listed[0]['id']}")
        assert [each["description"] for each in details["changes"]] == ["Add volume", "Add brick"]
        executor.go.set()
        assert (await heketi.result(asked[0])).status_code == 303
        assert (await heketi.result(asked[1])).status_code == 303


class _Failing(MockExecutor):
    """Bricks cannot be made on one host, and elsewhere they are counted."""

    def __init__(self, host: str) -> None:
        super().__init__()
        self.host = host
        self.bricks: set[str] = set()

    async def make_brick(self, host: str, brick: BrickSpec) -> str:
        if host == self.host:
            raise errors.Unreachable(host, "mkfs.xfs", "no route to host")
        self.bricks.add(brick.id)
        return await super().make_brick(host, brick)

    async def destroy_brick(self, host: str, brick: BrickSpec) -> None:
        self.bricks.discard(brick.id)


async def test_a_creation_that_fails_on_one_node_is_tried_on_others(tmp_path: Path) -> None:
    executor = _Failing("node2")
    async with heketiservice.running(tmp_path, executor) as heketi:
        await heketi.cluster(4)
        for _ in range(4):
            volume = await heketi.done("POST", "/volumes", {"size": 1, "durability": THREE})
            assert len(volume["bricks"]) == 3
        listed = [brick["id"] for brick in _bricks(await heketi.get("/topology"))]
        assert sorted(listed) == sorted(executor.bricks)


async def test_a_creation_that_cannot_succeed_leaves_nothing(tmp_path: Path) -> None:
    executor = _Failing("node2")
    async with heketiservice.running(tmp_path, executor) as heketi:
        await heketi.cluster(3)
        found = await heketi.result(
            await heketi.ask("POST", "/volumes", {"size": 1, "durability": THREE})
        )
        assert (found.status_code, found.text) == (500, "node2: mkfs.xfs: no route to host\n")
        assert executor.bricks == set()
        check = await heketi.get("/db/check")
        assert check["bricks"]["total"] == check["volumes"]["total"] == 0
        assert (await heketi.get("/operations"))["total"] == 0


def _bricks(topology: dict[str, Any]) -> list[dict[str, Any]]:
    return [
        brick
        for cluster in topology["clusters"]
        for volume in cluster["volumes"]
        for brick in volume["bricks"]
    ]


async def test_an_unfinished_creation_is_finished_by_the_next_life(tmp_path: Path) -> None:
    async with heketiservice.running(tmp_path, _Slow()) as heketi:
        await heketi.cluster()
        answer = await heketi.ask("POST", "/volumes", {"size": 1, "durability": THREE})
    async with heketiservice.running(tmp_path) as heketi:
        found = await heketi.result(answer)
        assert len((await heketi.get(found.headers["location"]))["bricks"]) == 3


async def test_a_device_is_emptied_before_it_is_removed(heketi: Running) -> None:
    await heketi.cluster(4, 1)
    volume = await heketi.done("POST", "/volumes", {"size": 1, "durability": THREE})
    device = volume["bricks"][0]["device"]
    for state in ("offline", "failed"):
        await heketi.done("POST", f"/devices/{device}/state", {"state": state})
    assert (await heketi.get(f"/devices/{device}"))["bricks"] == []
    after = await heketi.get(f"/volumes/{volume['id']}")
    assert len({brick["node"] for brick in after["bricks"]}) == 3
    await heketi.done("DELETE", f"/devices/{device}")


async def test_the_only_copy_of_data_is_never_replaced_by_an_empty_brick(
    heketi: Running,
) -> None:
    await heketi.cluster()
    volume = await heketi.done("POST", "/volumes", {"size": 1})
    brick = volume["bricks"][0]["id"]
    answer = await heketi.ask("POST", f"/bricks/to-evict/{brick}", {"healcheck": "disable"})
    found = await heketi.result(answer)
    assert found.status_code == 500
    assert "only 0 of 1 required peer bricks are online" in found.text
    assert (await heketi.get(f"/volumes/{volume['id']}"))["bricks"][0]["id"] == brick


async def test_a_device_without_a_place_for_its_bricks_stays_offline(heketi: Running) -> None:
    await heketi.cluster(3, 1)
    volume = await heketi.done("POST", "/volumes", {"size": 1, "durability": THREE})
    device = volume["bricks"][0]["device"]
    await heketi.done("POST", f"/devices/{device}/state", {"state": "offline"})
    answer = await heketi.ask("POST", f"/devices/{device}/state", {"state": "failed"})
    found = await heketi.result(answer)
    assert found.status_code == 500
    assert "No Replacement was found for resource requested to be removed" in found.text
    assert (await heketi.get(f"/devices/{device}"))["state"] == "offline"


async def test_maintenance_refuses_changes_and_answers_questions(heketi: Running) -> None:
    assert await heketi.get("/admin") == {"state": "normal"}
    assert (await heketi.ask("POST", "/admin", {"state": "read-only"})).status_code == 204
    refused = await heketi.ask("POST", "/clusters", {})
    assert (refused.status_code, refused.text) == (503, "Service disabled for maintenance\n")
    assert (await heketi.get("/clusters"))["clusters"] == []


async def test_block_volumes_are_refused_with_a_reason(heketi: Running) -> None:
    assert await heketi.get("/blockvolumes") == {"blockvolumes": []}
    answer = await heketi.ask("POST", "/blockvolumes", {"size": 1})
    assert answer.status_code == 501
    assert "gluster-block" in answer.text


async def test_a_slash_too_many_leads_to_the_path_without(heketi: Running) -> None:
    answer: httpx2.Response = await heketi.ask("GET", "/clusters/")
    assert (answer.status_code, answer.headers["location"]) == (301, "/clusters")
    assert (await heketi.ask("PUT", "/clusters")).status_code == 405


async def test_a_dump_can_be_taken_over_by_an_empty_service(
    heketi: Running, tmp_path: Path
) -> None:
    await heketi.cluster()
    for size in (1, 2, 3):
        await heketi.done("POST", "/volumes", {"size": size, "durability": THREE})
    dump = await heketi.get("/db/dump")
    async with heketiservice.running(tmp_path / "other") as other:
        report = (await other.ask("POST", "/db/import", dump)).json()
        assert report["left_out"] == []
        assert await other.get("/topology") == await heketi.get("/topology")
        assert await other.get("/db/dump") == dump
        again = await other.ask("POST", "/db/import", dump)
        assert again.status_code == 409


async def test_what_leads_nowhere_in_a_dump_is_left_out_and_named(
    heketi: Running, tmp_path: Path
) -> None:
    await heketi.cluster()
    volume = await heketi.done("POST", "/volumes", {"size": 1, "durability": THREE})
    dump = await heketi.get("/db/dump")
    lost = volume["bricks"][0]
    del dump["deviceentries"][lost["device"]]
    pending = volume["bricks"][1]["id"]
    dump["brickentries"][pending]["Pending"]["Id"] = "x"
    async with heketiservice.running(tmp_path / "other") as other:
        report = (await other.ask("POST", "/db/import", dump)).json()
        text = "\n".join(report["left_out"])
        assert f"brick {lost['id']}: its device is not there" in text
        assert f"brick {pending}: it belongs to an unfinished operation" in text
        assert len((await other.get(f"/volumes/{volume['id']}"))["bricks"]) == 1
        assert (await other.ask("POST", "/db/import", {"a": 1})).status_code in (400, 409)
