"""The backend against a Heketi service over HTTP: once only, found again, errors with a remedy."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

import heketiservice
from heketiservice import Served, served
from holdfast.backends import errors
from holdfast.backends.gluster.backend import GlusterBackend
from holdfast.backends.gluster.rest import Lost, Service
from holdfast.backends.protocol import Cloner, Volume, VolumeRequest, VolumeSource

GIB = 1 << 30


@pytest.fixture
async def backend(tmp_path: Path) -> AsyncIterator[GlusterBackend]:
    made = GlusterBackend({}, tmp_path / "backend")
    yield made
    await made.close()


def _request(heketi: Served, name: str = "pvc-1", size: int = 1, **more: str) -> VolumeRequest:
    return VolumeRequest(name, size * GIB, heketi.parameters(**more), owner="shop/data")


def _hosts(volume: Volume) -> list[str]:
    return sorted(volume.context["hosts"].split(","))


async def _names(heketi: Served) -> list[str]:
    ids = (await heketi.running.get("/volumes"))["volumes"]
    return sorted([(await heketi.running.get(f"/volumes/{key}"))["name"] for key in ids])


async def test_a_volume_is_made_once_found_grown_and_deleted(
    heketi: Served, backend: GlusterBackend
) -> None:
    request = _request(heketi)
    assert await backend.find_volume(request) is None
    made = await backend.create_volume(request)
    assert await backend.create_volume(request) == made == await backend.find_volume(request)
    assert await _names(heketi) == ["vol_pvc-1"]
    assert made.id.startswith(f"admin@{heketi.url}/vol_pvc-1/")
    assert len(made.id) <= 128
    assert _hosts(made) == ["10.0.0.1", "10.0.0.2", "10.0.0.3"]
    assert heketiservice.ADMIN not in str(made)
    grown = await backend.expand(made.id, 3 * GIB - 5)
    assert (grown.size, grown.node_expansion) == (3 * GIB, False)
    assert await backend.expand(made.id, 2 * GIB) == grown == await backend.get_volume(made.id)
    await backend.delete_volume(made.id)
    await backend.delete_volume(made.id)
    await backend.delete_volume("something-else")
    assert await _names(heketi) == []
    with pytest.raises(errors.NotFound):
        await backend.get_volume(made.id)


async def test_what_the_class_says_reaches_the_service(
    heketi: Served, backend: GlusterBackend
) -> None:
    request = _request(
        heketi,
        size=4,
        VolumeType="disperse:2:1",
        volumeoptions="client.ssl on, nl-cache on",
        VOLUMENAMEPREFIX="dept",
        snapfactor="2",
        gidMin="5000",
        gidMax="5000",
    )
    made = await backend.create_volume(request)
    info = await heketi.running.get(f"/volumes/{made.id.rsplit('/', 1)[1]}")
    assert info["name"] == "dept_shop_data_pvc-1"
    assert info["durability"] == {
        "type": "disperse",
        "replicate": {},
        "disperse": {"data": 2, "redundancy": 1},
    }
    assert info["gid"] == 5000
    assert info["snapshot"] == {"enable": True, "factor": 2}
    assert "client.ssl on" in info["glustervolumeoptions"]
    other = VolumeRequest("pvc-2", GIB, request.parameters)
    with pytest.raises(errors.Exhausted, match="all 1 group ids from 5000 to 5000 are taken"):
        await backend.create_volume(other)


async def test_a_name_that_is_taken_by_something_else_is_refused(
    heketi: Served, backend: GlusterBackend
) -> None:
    await backend.create_volume(_request(heketi))
    with pytest.raises(errors.AlreadyExists, match="is there with 1 GiB"):
        await backend.create_volume(_request(heketi, size=2))
    with pytest.raises(errors.AlreadyExists, match="replica"):
        await backend.create_volume(_request(heketi, volumetype="replicate:2"))


async def test_creates_and_deletes_that_are_cut_off_anywhere_leave_one_volume_or_none(
    heketi: Served, tmp_path: Path
) -> None:
    chance = random.Random(7)
    for number in range(15):
        request = _request(heketi, f"pvc-{number}")
        made = await _stubborn(tmp_path, lambda b, r=request: b.create_volume(r), chance)
        assert isinstance(made, Volume)
        assert await _names(heketi) == [f"vol_pvc-{number}"]
        await _stubborn(tmp_path, lambda b, m=made: b.delete_volume(m.id), chance)
        assert await _names(heketi) == []
    assert (await heketi.running.get("/operations"))["total"] == 0


async def _stubborn(tmp_path: Path, call, chance: random.Random) -> object:  # type: ignore[no-untyped-def]
    """Do it with a backend that ends after some milliseconds, and a new one for each attempt."""
    while True:
        backend = GlusterBackend({}, tmp_path / "backend")
        try:
            async with asyncio.timeout(chance.choice((0.005, 0.02, 0.05, 0.1, 2))):
                return await call(backend)
        except (TimeoutError, errors.Conflict, errors.Unavailable):
            await asyncio.sleep(0.01)
        finally:
            await backend.close()


async def test_fifty_at_once_get_groups_of_their_own(
    heketi: Served, backend: GlusterBackend
) -> None:
    requests = [
        _request(heketi, f"pvc-{number}", gidMin="3000", gidMax="3059") for number in range(50)
    ]
    made = await asyncio.gather(*map(backend.create_volume, requests))
    gids = {each.context["gid"] for each in made}
    assert len(gids) == 50
    page = await backend.list_volumes(limit=20)
    rest = await backend.list_volumes(page.next_token)
    listed = [each.id for each in (*page.volumes, *rest.volumes)]
    assert listed == sorted(each.id for each in made)


async def test_a_group_stays_promised_to_a_volume_that_may_still_come(
    heketi: Served, backend: GlusterBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def forgotten(*args: object) -> str:
        raise Lost("the service has forgotten it", heketi.url)

    first, second = (
        _request(heketi, f"pvc-{number}", gidMin="3000", gidMax="3001") for number in (1, 2)
    )
    with monkeypatch.context() as patch:
        patch.setattr(Service, "work", forgotten)
        with pytest.raises(Lost):
            await backend.create_volume(first)
    groups = {(await backend.create_volume(each)).context["gid"] for each in (second, first)}
    assert groups == {"3000", "3001"}
    third = _request(heketi, "pvc-3", gidMin="3002", gidMax="3002")
    with monkeypatch.context() as patch:
        patch.setattr(Service, "work", forgotten)
        with pytest.raises(Lost):
            await backend.create_volume(third)
    fourth = _request(heketi, "pvc-4", gidMin="3002", gidMax="3002")
    with pytest.raises(errors.Exhausted):
        await backend.create_volume(fourth)
    # Looked for and not there: its claim is gone, and the group is free again.
    assert await backend.find_volume(third) is None
    assert (await backend.create_volume(fourth)).context["gid"] == "3002"


async def test_the_next_cluster_is_taken_when_the_first_is_full(
    heketi: Served, backend: GlusterBackend
) -> None:
    second = await heketi.running.cluster(nodes=0)
    for number in (4, 5, 6):
        await heketi.running.node(second, number, disks=4)
    first = next(
        key for key in (await heketi.running.get("/clusters"))["clusters"] if key != second
    )
    whole = _request(heketi, "pvc-big", 900, clusterid=f"{first},{second}")
    made = await backend.create_volume(whole)
    assert "10.0.0.1" in _hosts(made)
    other = _request(heketi, "pvc-other", 900, clusterid=f"{first},{second}")
    made = await backend.create_volume(other)
    assert _hosts(made) == ["10.0.0.4", "10.0.0.5", "10.0.0.6"]
    capacity = await backend.capacity(heketi.parameters(clusterid=second))
    assert 1800 * GIB < capacity.total <= 2000 * GIB
    assert 900 * GIB < capacity.available < 1100 * GIB
    with pytest.raises(errors.Exhausted, match=f"(?s)cluster {first}.*No space.*cluster {second}"):
        await backend.create_volume(_request(heketi, "pvc-3", 1500, clusterid=f"{first},{second}"))


async def test_a_clone_has_the_content_of_its_origin_and_may_be_larger(
    heketi: Served, backend: GlusterBackend
) -> None:
    origin = await backend.create_volume(_request(heketi))
    source = VolumeSource("volume", origin.id)
    request = VolumeRequest("pvc-2", 2 * GIB, heketi.parameters(), source=source)
    made = await backend.create_volume(request)
    assert made.size == 2 * GIB
    assert await backend.create_volume(request) == made
    assert await _names(heketi) == ["vol_pvc-1", "vol_pvc-2"]
    with pytest.raises(errors.Unsupported, match="claims can be cloned"):
        await backend.create_volume(
            VolumeRequest("pvc-3", GIB, heketi.parameters(), source=VolumeSource("snapshot", "x"))
        )


async def test_keys_come_from_secret_class_and_file(heketi: Served, tmp_path: Path) -> None:
    plain = {"resturl": heketi.url, "restuser": "admin"}
    key = {"key": heketiservice.ADMIN}
    backend = GlusterBackend({}, tmp_path / "secret")
    by_secret = await backend.create_volume(VolumeRequest("pvc-1", GIB, plain, secrets=key))
    with pytest.raises(errors.Unauthorized, match="name restuser and a secret"):
        await backend.delete_volume(by_secret.id)
    with pytest.raises(errors.Unauthorized, match='check that the key is that of user "admin"'):
        await backend.delete_volume(by_secret.id, secrets={"key": "another"})
    await backend.delete_volume(by_secret.id, secrets=key)
    await backend.close()
    by_class = GlusterBackend({}, tmp_path / "class")
    made = await by_class.create_volume(_request(heketi))
    await by_class.close()
    by_class = GlusterBackend({}, tmp_path / "class")
    await by_class.delete_volume(made.id)
    await by_class.close()
    assert (tmp_path / "class" / "services.json").stat().st_mode & 0o777 == 0o600
    key_file = tmp_path / "key"
    key_file.write_text(heketiservice.ADMIN + "\n")
    main = {"resturl": heketi.url + "/", "user": "admin", "key_file": str(key_file)}
    by_file = GlusterBackend({"main": main}, tmp_path / "file")
    made = await by_file.create_volume(VolumeRequest("pvc-1", GIB))
    assert made.id.startswith("main/vol_pvc-1/")
    # As the in-tree plug-in left it: only Heketi's id.
    await by_file.delete_volume(made.id.rsplit("/", 1)[1])
    assert await _names(heketi) == []
    assert {each.severity for each in await by_file.checks() if each.check == "service"} == {"ok"}
    await by_file.close()


async def test_a_service_that_is_away_or_another_one_is_named(
    heketi: Served, backend: GlusterBackend, tmp_path: Path
) -> None:
    request = _request(heketi)
    async with served(tmp_path / "second") as other:
        gone = _request(other)
    with pytest.raises(errors.Unavailable, match="does not answer"):
        await backend.create_volume(gone)
    server = await asyncio.start_server(_answer_html, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        parameters = {**request.parameters, "resturl": f"http://127.0.0.1:{port}"}
        with pytest.raises(errors.Unavailable, match="something else than Heketi's JSON"):
            await backend.create_volume(VolumeRequest("pvc-1", GIB, parameters))
    with pytest.raises(errors.Invalid, match=r"holdfast.toml: \[gluster.NAME\]"):
        await GlusterBackend({}, tmp_path / "none").get_volume("0" * 32)


async def _answer_html(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.readuntil(b"\r\n\r\n")
    text = b"<html>It works!</html>"
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(text), text))
    await writer.drain()
    writer.close()


async def test_checks_say_which_node_and_device_are_out(
    heketi: Served, backend: GlusterBackend
) -> None:
    key = (await heketi.running.get("/clusters"))["clusters"][0]
    nodes = (await heketi.running.get(f"/clusters/{key}"))["nodes"]
    first, second = [await heketi.running.get(f"/nodes/{node}") for node in nodes[:2]]
    device, disk = first["devices"][0]["id"], first["devices"][0]["name"]
    await heketi.running.done("POST", f"/devices/{device}/state", {"state": "offline"})
    await heketi.running.done("POST", f"/nodes/{nodes[1]}/state", {"state": "offline"})
    found = await backend.check_class(heketi.parameters(), {})
    said = {each.check: each for each in found}
    assert said["service"].severity == "ok"
    assert said["device"].what == f"{disk} of {_label(first)} is offline: nothing is put on it"
    assert said["node"].what == f"{_label(second)} is offline"
    assert "2 of 3 nodes and 3 devices usable" in said["cluster"].what
    assert "everyone who may read classes can read the key" in said["key"].what
    assert all(heketiservice.ADMIN not in str(each) for each in found)


def _label(node: dict[str, Any]) -> str:
    names = node["hostnames"]
    return f"{names['manage'][0]} ({names['storage'][0]})"


async def test_a_service_without_lvm_is_not_asked_for_clones(
    heketi: Served, tmp_path: Path
) -> None:
    key_file = tmp_path / "key"
    key_file.write_text(heketiservice.ADMIN)
    section = {"resturl": heketi.url, "key_file": str(key_file), "clones": False}
    backend = GlusterBackend({"main": section}, tmp_path / "none")
    both = GlusterBackend({"main": section, "lvm": {**section, "clones": True}}, tmp_path / "both")
    try:
        assert not isinstance(backend, Cloner)
        assert isinstance(both, Cloner)
        origin = await backend.create_volume(VolumeRequest("pvc-1", GIB))
        source = VolumeSource("volume", origin.id)
        with pytest.raises(errors.Unsupported, match="clones = false"):
            await backend.create_volume(VolumeRequest("pvc-2", GIB, source=source))
        assert await _names(heketi) == ["vol_pvc-1"]
    finally:
        await backend.close()
        await both.close()
