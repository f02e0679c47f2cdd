"""What a node without Nova says of itself, and what Cinder's answers become for it.

The answers are written down here for transports that no test machine has.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import pytest

from holdfast.backends import errors
from holdfast.backends.cinder import brick, connecting, restoring, settings
from holdfast.backends.cinder.brick import Brick
from holdfast.backends.cinder.clouds import Cloud
from holdfast.backends.cinder.connecting import CinderAttaching
from holdfast.backends.cinder.polling import Poller
from holdfast.backends.cinder.settings import Instance

VOLUME = "ef9037a7-9a67-408a-9f92-adbd2badc5db"
PROPERTIES = {
    "ip": "10.0.0.5",
    "initiator": "iqn.1993-08.org.debian:01:c5bfa0f2e1b",
    "nqn": "nqn.2014-08.org.nvmexpress:uuid:0f63a047-1889-4963-ae51-a8eb3b15d6fb",
    "wwpns": ["50014380186b3f64", "50014380186b3f66"],
    "multipath": False,
}
ISCSI = {
    "driver_volume_type": "iscsi",
    "target_iqn": "iqn.2010-10.org.openstack:volume-1",
    "auth_method": "CHAP",
    "auth_password": "the-password",
}


class Recorder:
    """Stands in for a cloud: answers attachments' requests and keeps what was asked."""

    def __init__(self, connection: Mapping[str, Any], **volume: Any) -> None:
        self.instance = Instance("default")
        self.asked: list[tuple[str, str, Any]] = []
        self._volume = {"id": VOLUME, "size": 1, "status": "available", "attachments": [], **volume}
        self._attachment = {"id": "at", "status": "attaching", "connection_info": connection}

    async def request(
        self, service: str, method: str, path: str, body: Any = None, **more: Any
    ) -> Any:
        """See Cloud.request."""
        self.asked.append((method, path, body))
        if path.startswith("/volumes"):
            return {"volume": self._volume}
        return {"attachment": self._attachment, "attachments": []}


def way(recorder: Recorder) -> CinderAttaching:
    """The way to attach in the cloud that the recorder plays."""
    return CinderAttaching(cast(Cloud, recorder), cast(Poller, None))


def test_a_nodes_id_says_what_storage_must_know_of_it_and_can_be_read_back() -> None:
    id = brick.node_id("node-1", PROPERTIES)
    assert id.startswith("node-1?ip=10.0.0.5&initiator=iqn.1993-08.org.debian:01:c5bfa0f2e1b&nqn=")
    assert brick.host_of(id) == "node-1"
    told = {key: PROPERTIES[key] for key in ("ip", "initiator", "nqn", "wwpns")}
    assert brick.connector_of(id) == told
    assert brick.connector_of("node-1") == {}
    many = {**PROPERTIES, "wwnns": ["20014380186b3f64"] * 4}
    assert brick.connector_of(brick.node_id("node-1", many)) == told
    with pytest.raises(errors.Unsupported, match="192 at most"):
        brick.node_id("node-1", {**PROPERTIES, "wwpns": ["50014380186b3f64"] * 8})


async def test_cinder_is_told_the_initiator_and_the_context_has_no_password() -> None:
    recorder = Recorder(ISCSI)
    node = brick.node_id("node-1", PROPERTIES)
    context = await way(recorder).attach(VOLUME, node)
    begun = next(body for method, _, body in recorder.asked if method == "POST")
    connector = begun["attachment"]["connector"]
    assert connector["initiator"] == PROPERTIES["initiator"]
    assert connector["wwpns"] == PROPERTIES["wwpns"]
    assert (connector["host"], connector["ip"]) == ("node-1", "10.0.0.5")
    assert connector["mountpoint"] == f"/dev/holdfast/{node}"
    assert context["connection"] == "iscsi" and context["attachment"] == "at"
    assert "the-password" not in json.dumps(dict(context))
    assert await connecting.connection_of(cast(Cloud, recorder), "at") == ISCSI


async def test_a_node_without_os_brick_is_refused_and_the_attachment_taken_back() -> None:
    recorder = Recorder(ISCSI)
    with pytest.raises(errors.Unsupported, match=r"type iscsi.*os-brick.*holdfast\[os-brick\]"):
        await way(recorder).attach(VOLUME, "node-1")
    assert recorder.asked[-1][:2] == ("DELETE", "/attachments/at")


async def test_without_os_brick_the_error_names_the_package(tmp_path: Path) -> None:
    with pytest.raises(errors.Unsupported, match=r"pip install 'holdfast\[os-brick\]'"):
        await Brick("", tmp_path).connect(VOLUME, ISCSI)
    with pytest.raises(errors.Unavailable, match="did not answer"):
        await Brick("/nonexistent/python", tmp_path).properties("node-1", "http://127.0.0.1:1")
    await Brick("", tmp_path).disconnect("never-connected")


def test_os_brick_in_the_configuration_is_a_path() -> None:
    given = {"cloud_conf": "/etc/cloud.conf", "os_brick": "/opt/os-brick/bin/python"}
    found = settings.instances({"a": given})["a"]
    assert found.os_brick == Path("/opt/os-brick/bin/python")
    with pytest.raises(errors.Invalid, match="os_brick is not an absolute path"):
        settings.instances({"a": {**given, "os_brick": "python3"}})


@pytest.mark.parametrize(
    "volume",
    [
        {"status": "in-use", "attachments": [{"server_id": "another"}]},
        {"status": "in-use"},
        {"status": "error"},
    ],
)
async def test_a_record_is_restored_only_while_nobody_has_the_volume(volume: Any) -> None:
    recorder = Recorder({}, **volume)
    found = {**recorder._volume}
    cloud = cast(Cloud, recorder)
    assert not await restoring.restore(cloud, found, {"id": "server"}, "/dev/vdb")
    assert recorder.asked == []
