"""Volumes of a real Cinder on a machine that is no server of Nova: by Holdfast and by os-brick.

os-brick is the one that the test cloud's own environment has, so it runs under another Python
than Holdfast, as on a node whose packages must not mix.
"""

from __future__ import annotations

import platform
import stat
import sys
import uuid
from pathlib import Path
from typing import Any

import pytest

from holdfast.backends import errors
from holdfast.backends.cinder import brick
from holdfast.backends.cinder.backend import CinderBackend
from holdfast.backends.cinder.brick import Brick
from holdfast.backends.cinder.node_side import CinderNodeSide
from holdfast.backends.protocol import Device, VolumeHandle, VolumeRequest
from holdfast.kit import process
from holdfast.node.volumes import Volumes
from servers.openstack.cloud import Cloud, installed

pytestmark = [pytest.mark.e2e, pytest.mark.root, pytest.mark.timeout(400)]

GIB = 1 << 30


@pytest.mark.parametrize("through", ["holdfast", "os-brick"])
async def test_without_nova_a_host_gets_the_volume_from_cinder_itself(
    new_backend: Any, openstack_cloud: Cloud, places: Path, through: str
) -> None:
    conf = {"cloud_conf": str(openstack_cloud.cloud_conf), "attach": "cinder"}
    if through == "os-brick":
        conf["os_brick"] = str(installed() / "bin/python")
    backend: CinderBackend = new_backend(**conf)
    side, machine = CinderNodeSide({"default": conf}, places), Volumes()
    node = (await side.describe()).id
    assert node.partition("?")[0] == platform.node()
    assert ("?ip=127.0.0.1" in node) == (through == "os-brick")
    checked = {each.check: each.severity for each in await side.checks()}
    assert checked == {"os-brick": "ok" if through == "os-brick" else "warning"}
    made = await backend.create_volume(VolumeRequest(f"pvc-{uuid.uuid4()}", GIB, {"type": "file"}))
    context = await backend.attach(made.id, node, False)
    assert await backend.attach(made.id, node, False) == context
    assert (await backend.attachments())[made.id] == [node]
    with pytest.raises(errors.Conflict, match=f"attached to {platform.node()}"):
        await backend.attach(made.id, "another-host", False)
    handle = VolumeHandle(made.id, made.context, "ext4")
    staging = places / "staged"
    await machine.stage(handle, side, staging, context=context)
    (staging / "note").write_text("kept")
    await backend.expand(made.id, 2 * GIB)
    grown = await side.connect(handle, {**context, "size": str(2 * GIB)})
    assert isinstance(grown, Device) and grown.size == 2 * GIB
    note = places / f"os-brick/{made.id}.json"
    assert note.exists() == (through == "os-brick")
    await machine.unstage(handle, side, staging)
    await side.disconnect(handle)
    assert not note.exists()
    # What the node says of itself may change while it has the volume.
    await backend.detach(made.id, platform.node())
    assert made.id not in await backend.attachments()
    await backend.delete_volume(made.id)
    await side.close()


async def test_os_brick_explains_what_it_lacks_and_keeps_no_capability(
    openstack_cloud: Cloud, places: Path
) -> None:
    python = str(installed() / "bin/python")
    connection = {
        "driver_volume_type": "iscsi",
        "target_portal": "127.0.0.1:9",
        "target_iqn": "iqn.2026-01.dev.holdfast:none",
        "target_lun": 1,
        "auth_method": "CHAP",
        "auth_username": "someone",
        "auth_password": "a-password-of-a-target",
    }
    connector = Brick(python, places)
    with pytest.raises(errors.Unavailable, match=r"(?s)cannot connect: .*iscsiadm") as refused:
        await connector.connect("some-volume", connection)
    assert "a-password-of-a-target" not in str(refused.value)
    note = places / "os-brick/some-volume.json"
    assert "a-password-of-a-target" not in note.read_text()
    assert stat.S_IMODE(note.stat().st_mode) == 0o600

    with pytest.raises(errors.Unsupported, match=r"os-brick is not installed.*holdfast\[os-brick"):
        await Brick(sys.executable, places).connect("some-volume", connection)

    show = (
        "import runpy, subprocess, sys; "
        f"runpy.run_path({str(brick.PROGRAM)!r})['_prepare']({str(places)!r}); "
        "print(open('/proc/self/status').read()); sys.stdout.flush(); "
        "subprocess.run(['cat', '/proc/self/status'])"
    )
    done = await process.run([python, "-I", "-W", "ignore", "-c", show])
    lines = [each.split() for each in done.stdout.decode().splitlines()]
    held = [
        value for name, value in (each for each in lines if len(each) == 2) if name == "CapEff:"
    ]
    assert held == ["0000000000000000"] * 2
