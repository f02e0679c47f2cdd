"""CSI over a storage system that attaches volumes, fails and takes its time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import grpc
import pytest

import drivers
import machine
from holdfast.backends import errors
from holdfast.csi import faults
from holdfast.csi.driver import Driver, NodePart
from holdfast.csi.serving import Server
from holdfast.csi.wire import csi_pb2
from holdfast.node.volumes import Volumes
from holdfast.testing import attachable, csiclient

NODE = "machine-7"
KEY = "AQBw0rdThatOpensAll"


class System:
    """The storage system, its driver, and calls that do not block the test's loop."""

    def __init__(
        self, storage: attachable.Storage, client: csiclient.Client, driver: Driver
    ) -> None:
        self.storage = storage
        self.driver = driver
        self.csi = client

    async def call(self, method: Callable[[Any], Any], request: object) -> Any:
        """Call and return the answer."""
        return await asyncio.to_thread(method, request)

    async def fails(self, method: Callable[[Any], Any], request: object) -> tuple[str, str]:
        """Call and return the code and text of the failure."""
        with pytest.raises(grpc.RpcError) as failed:
            await self.call(method, request)
        return failed.value.code().name, failed.value.details() or ""

    async def create(self) -> str:
        """Make a volume."""
        answer = await self.call(self.csi.controller.CreateVolume, CREATE)
        volume_id: str = answer.volume.volume_id
        return volume_id


CREATE = csi_pb2.CreateVolumeRequest(
    name="volume-1",
    capacity_range=csi_pb2.CapacityRange(required_bytes=1 << 20),
    volume_capabilities=[drivers.MOUNT],
    secrets={"key": KEY},
)


@pytest.fixture
async def system(directory: Path) -> AsyncIterator[System]:
    """A driver in this process."""
    storage = attachable.Storage(directory / "array")
    side = attachable.StorageNode(storage, NODE, max_volumes=26)
    part = NodePart(side, Volumes(mounting=False), side.describe)
    driver = Driver(attachable.DRIVER, "1", storage, part)
    server = Server(directory / "csi.sock", driver.handlers())
    await server.start()
    with csiclient.connect(directory / "csi.sock") as client:
        yield System(storage, client, driver)
    await server.stop()
    await driver.close()


def _publish(volume_id: str, node: str = NODE) -> csi_pb2.ControllerPublishVolumeRequest:
    return csi_pb2.ControllerPublishVolumeRequest(
        volume_id=volume_id,
        node_id=node,
        volume_capability=drivers.MOUNT,
        secrets={"key": KEY},
    )


@pytest.mark.parametrize("family", list(faults.CODES), ids=lambda family: str(family.__name__))
async def test_a_failure_arrives_with_code_cause_place_and_remedy(
    system: System, family: type[errors.BackendError]
) -> None:
    failure = family(f"it says no to {KEY}", "array-1", "ask it again")
    system.storage.fail("create_volume", failure)
    code, text = await system.fails(system.csi.controller.CreateVolume, CREATE)
    assert code == faults.CODES[family].name
    assert text == "array-1: it says no to ***; ask it again"


async def test_a_defect_is_internal_and_tells_no_more_than_that(system: System) -> None:
    system.storage.fail("create_volume", ZeroDivisionError(KEY))  # type: ignore[arg-type]
    code, text = await system.fails(system.csi.controller.CreateVolume, CREATE)
    assert code == "INTERNAL"
    assert KEY not in text


async def test_the_node_tells_its_limit_and_the_controller_that_it_attaches(
    system: System,
) -> None:
    info = await system.call(system.csi.node.NodeGetInfo, csi_pb2.NodeGetInfoRequest())
    assert (info.node_id, info.max_volumes_per_node) == (NODE, 26)
    request = csi_pb2.ControllerGetCapabilitiesRequest()
    found = await system.call(system.csi.controller.ControllerGetCapabilities, request)
    types = {each.rpc.type for each in found.capabilities}
    known = csi_pb2.ControllerServiceCapability.RPC
    assert known.PUBLISH_UNPUBLISH_VOLUME in types
    assert not types & {known.EXPAND_VOLUME, known.GET_CAPACITY, known.CREATE_DELETE_SNAPSHOT}


async def test_what_attaching_told_reaches_the_node(system: System, directory: Path) -> None:
    volume_id = await system.create()
    attached = await system.call(system.csi.controller.ControllerPublishVolume, _publish(volume_id))
    staging, target = directory / "staging", directory / "pod" / "mount"
    stage = csi_pb2.NodeStageVolumeRequest(
        volume_id=volume_id,
        staging_target_path=str(staging),
        volume_capability=drivers.MOUNT,
        secrets={"key": KEY},
    )
    code, _ = await system.fails(system.csi.node.NodeStageVolume, stage)
    assert code == "INVALID_ARGUMENT"
    stage.publish_context.update(attached.publish_context)
    await system.call(system.csi.node.NodeStageVolume, stage)
    assert all(KEY not in path.read_text() for path in staging.iterdir() if path.is_file())
    publish = csi_pb2.NodePublishVolumeRequest(
        volume_id=volume_id,
        staging_target_path=str(staging),
        target_path=str(target),
        volume_capability=drivers.MOUNT,
    )
    await system.call(system.csi.node.NodePublishVolume, publish)
    (target / "file").write_text("on the array")
    assert (directory / "array" / volume_id / "file").read_text() == "on the array"
    unpublish = csi_pb2.NodeUnpublishVolumeRequest(volume_id=volume_id, target_path=str(target))
    await system.call(system.csi.node.NodeUnpublishVolume, unpublish)
    unstage = csi_pb2.NodeUnstageVolumeRequest(
        volume_id=volume_id, staging_target_path=str(staging)
    )
    await system.call(system.csi.node.NodeUnstageVolume, unstage)
    assert list(staging.iterdir()) == []


async def test_a_second_node_is_refused_until_the_first_lets_go(system: System) -> None:
    volume_id = await system.create()
    attach = system.csi.controller.ControllerPublishVolume
    await system.call(attach, _publish(volume_id))
    code, text = await system.fails(attach, _publish(volume_id, "machine-8"))
    assert code == "FAILED_PRECONDITION"
    assert NODE in text
    detach = csi_pb2.ControllerUnpublishVolumeRequest(volume_id=volume_id, node_id=NODE)
    for _ in range(2):
        await system.call(system.csi.controller.ControllerUnpublishVolume, detach)
    await system.call(attach, _publish(volume_id, "machine-8"))
    assert system.storage.attached[volume_id] == {"machine-8"}


async def test_another_call_meanwhile_is_told_what_is_in_work(system: System) -> None:
    volume_id = await system.create()
    attach = system.csi.controller.ControllerPublishVolume
    system.storage.fail("attach", errors.Unavailable("the array is busy", "array-1"))
    await system.fails(attach, _publish(volume_id))
    gate = system.storage.hold("attach")
    calls = [asyncio.create_task(system.call(attach, _publish(volume_id))) for _ in range(3)]
    detach = csi_pb2.ControllerUnpublishVolumeRequest(volume_id=volume_id, node_id=NODE)
    await asyncio.to_thread(machine.eventually, lambda: len(system.driver.operations) == 1)
    code, text = await system.fails(system.csi.controller.DeleteVolume, _delete(volume_id))
    assert code == "ABORTED"
    assert "ControllerPublishVolume is in work for" in text
    assert f"(attaching it to {NODE})" in text
    assert "ControllerPublishVolume: array-1: the array is busy" in text
    gate.set()
    assert len({answer.publish_context["token"] for answer in await asyncio.gather(*calls)}) == 1
    await system.call(system.csi.controller.ControllerUnpublishVolume, detach)
    await system.call(system.csi.controller.DeleteVolume, _delete(volume_id))


def _delete(volume_id: str) -> csi_pb2.DeleteVolumeRequest:
    return csi_pb2.DeleteVolumeRequest(volume_id=volume_id)
