"""What answers of OpenStack mean, where a real cloud cannot be made to give them in a test."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping
from typing import Any, cast

import pytest

from holdfast.backends import errors
from holdfast.backends.cinder import faults, legacy, parameters, polling, records, servers
from holdfast.backends.cinder.clouds import Cloud, Clouds
from holdfast.backends.cinder.polling import Poller
from holdfast.backends.cinder.settings import Instance
from holdfast.backends.names import Made
from holdfast.backends.protocol import Volume, VolumeRequest

SERVER = "0f5a7c52-51f3-4a2f-8c0c-2f6f5d0f6b11"
VOLUME = "ef9037a7-9a67-408a-9f92-adbd2badc5db"


class Answers:
    """Answers requests from a table of paths; an error in it is raised."""

    def __init__(self, table: Mapping[str, Any]) -> None:
        self.table = dict(table)
        self.asked: list[str] = []
        self.instance = Instance("default")

    async def request(self, service: str, method: str, path: str, *more: Any, **rest: Any) -> Any:
        """See Cloud.request."""
        self.asked.append(path)
        await asyncio.sleep(0)
        found = self.table[path]
        if isinstance(found, Exception):
            raise found
        return found


def cloud(table: Mapping[str, Any]) -> tuple[Cloud, Answers]:
    """What stands in for a cloud, twice."""
    made = Answers(table)
    return cast(Cloud, made), made


def server(status: str, **more: Any) -> dict[str, Any]:
    """Nova's answer about a server."""
    return {"server": {"id": SERVER, "name": "node-1", "status": status, **more}}


DOWN = {"OS-EXT-SRV-ATTR:host": "c1", "host_status": "DOWN"}


@pytest.mark.parametrize(
    ("answer", "forced", "power", "said"),
    [
        (server("ACTIVE"), False, "running", "is ACTIVE"),
        (server("SHUTOFF"), False, "stopped", "is SHUTOFF"),
        (server("SHUTOFF", **{"OS-EXT-STS:task_state": "powering-on"}), False, "running", "busy"),
        (server("PAUSED"), False, "running", "is PAUSED"),
        (server("SHELVED_OFFLOADED"), False, "stopped", "SHELVED"),
        (server("DELETED"), False, "gone", "deleted"),
        (server("ERROR"), False, "unknown", "nobody knows"),
        (server("ACTIVE", **DOWN), False, "unknown", "c1 does not answer.*evacuate"),
        (server("ACTIVE", **DOWN), True, "stopped", "c1 is forced down"),
        (errors.NotFound("x"), False, "unknown", "has no server.*another project"),
    ],
)
async def test_only_off_and_gone_let_a_volume_be_taken(
    answer: Any, forced: bool, power: str, said: str
) -> None:
    services = {"services": [{"forced_down": forced}]}
    actions = {"instanceActions": [{"action": "create"}, {"action": "stop"}]}
    table = {
        f"/servers/{SERVER}": answer,
        "/os-services": services,
        f"/servers/{SERVER}/os-instance-actions": actions,
    }
    made, _ = cloud(table)
    state = await servers.state(made, SERVER)
    assert state.power == power
    assert re.search(said, state.detail)


async def test_a_node_id_that_is_no_uuid_is_no_server_of_nova() -> None:
    with pytest.raises(errors.NotFound, match="registers with its server's uuid"):
        await servers.get(cloud({})[0], "node-1")


async def test_many_waiters_share_one_listing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(polling, "FIRST_PAUSE", 0.001)
    ids = [f"{number:032d}" for number in range(40)]
    creating = {"volumes": [{"id": id, "status": "creating"} for id in ids]}
    made, answers = cloud({"/volumes/detail": creating})
    poller = Poller(made)
    waiting = [asyncio.create_task(poller.settled(id, "created", 5)) for id in ids]
    await asyncio.sleep(0.05)
    answers.table["/volumes/detail"] = {
        "volumes": [{"id": id, "status": "available"} for id in ids[:-1]]
        + [{"id": ids[-1], "status": "error"}]
    }
    found = await asyncio.gather(*waiting)
    assert [each["status"] for each in found if each] == ["available"] * 39 + ["error"]
    assert set(answers.asked) == {"/volumes/detail"}
    await poller.close()


async def test_a_volume_that_is_gone_and_one_that_never_moves(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(polling, "FIRST_PAUSE", 0.001)
    made, answers = cloud({f"/volumes/{VOLUME}": errors.NotFound("gone")})
    poller = Poller(made)
    assert await poller.settled(VOLUME, "deleted", 5) is None
    answers.table[f"/volumes/{VOLUME}"] = {"volume": {"id": VOLUME, "status": "creating"}}
    with pytest.raises(errors.Unavailable, match=r"is not made after 0\.05 s"):
        await poller.settled(VOLUME, "created", 0.05)
    answers.table[f"/volumes/{VOLUME}"] = errors.Unavailable("no answer")
    with pytest.raises(errors.Unavailable, match="no answer"):
        await poller.settled(VOLUME, "created", 5)
    await poller.close()


@pytest.mark.parametrize(
    ("status", "text", "kind"),
    [
        (401, "expired", errors.Unauthorized),
        (403, "Policy doesn't allow volume:create", errors.Unauthorized),
        (403, "The maximum allowed number of disk devices (26)", errors.Exhausted),
        (403, "Quota exceeded for resources: ['volumes']", errors.Exhausted),
        (404, "no", errors.NotFound),
        (409, "in use by another server", errors.Conflict),
        (400, "Invalid volume: Volume status must be available", errors.Conflict),
        (400, "Invalid input for field/attribute size", errors.Invalid),
        (413, "VolumeLimitExceeded: Maximum number of volumes allowed (10)", errors.Exhausted),
        (503, "", errors.Unavailable),
    ],
)
def test_an_answer_becomes_the_error_it_means(status: int, text: str, kind: type) -> None:
    found = faults.of_answer(status, {"badRequest": {"message": text, "code": status}}, "Cinder")
    assert type(found) is kind
    assert text in str(found)


def test_a_404_of_somebody_else_does_not_mean_that_a_thing_is_gone() -> None:
    for body in ({"message": "<html>404 page not found"}, {}, None):
        found = faults.of_answer(404, body, "Cinder")
        assert isinstance(found, errors.Unavailable)
        assert "openstack catalog list" in str(found)


def test_who_is_over_quota_is_told_of_the_quota() -> None:
    said = {"forbidden": {"message": "Quota exceeded for resources: ['volumes']"}}
    assert "openstack quota set" in str(faults.of_answer(403, said, "Cinder"))


def test_the_zone_comes_from_the_class_then_from_the_node_unless_ignored() -> None:
    node = {"topology.kubernetes.io/zone": "old", parameters.ZONE: "new"}
    asked = VolumeRequest("v", 1, {}, topology=node)
    plain, chosen = parameters.read({}), parameters.read({"availability": "class"})
    assert parameters.zone(asked, chosen, False) == "class"
    assert parameters.zone(asked, plain, False) == "new"
    assert parameters.zone(asked, plain, True) == ""
    assert parameters.zone(VolumeRequest("v", 1), plain, False) == ""
    assert parameters.gibibytes((1 << 30) + 1) == 2


def test_sources_and_handles_agree() -> None:
    request = VolumeRequest("v", 1 << 30, {})
    made = Made(Volume(VOLUME, 1 << 30, {"fsType": "xfs"}), request, legacy.IN_TREE)
    spec = legacy.pv_source(made)
    assert spec == {"cinder": {"volumeID": VOLUME, "fsType": "xfs"}}
    handle = legacy.handle_of(spec)
    assert handle is not None and (handle.id, handle.fs_type) == (VOLUME, "xfs")
    assert legacy.handle_of({"hostPath": {}}) is None
    found = legacy.node_secret({"secretRef": {"name": "s"}}, "team")
    assert found is not None and str(found) == "team/s"


async def test_ids_say_which_cloud_they_are_in() -> None:
    clouds = Clouds({"west": {"cloud_conf": "/w"}, "default": {"cloud_conf": "/d"}})
    default, west = clouds.choose("", {}), clouds.choose("west", {})
    assert default.name == "default"
    assert clouds.id_of(default, VOLUME) == VOLUME
    assert clouds.parse(clouds.id_of(west, VOLUME), {}) == (west, VOLUME)
    assert clouds.parse(VOLUME, {"cloud": "west"})[0] is west
    for wrong in ("", "x", "../limits", f"west/{VOLUME}/x"):
        with pytest.raises(errors.NotFound):
            clouds.parse(wrong, {})
    # A cloud that was taken out of the configuration still has its volumes.
    with pytest.raises(errors.Invalid, match="configured: west, default"):
        clouds.parse(f"east/{VOLUME}", {})
    await clouds.close()


def test_the_oldest_of_equal_names_is_agreed_on() -> None:
    young = {"id": "a", "created_at": "2026-11-21T11:00:01"}
    old = {"id": "b", "created_at": "2026-11-21T11:00:00"}
    assert records.oldest([young, old]) is old
    assert records.oldest([old, young]) is old
