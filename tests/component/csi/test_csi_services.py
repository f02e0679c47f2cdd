"""The CSI services of a real driver process, called over its socket."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import pytest

import drivers
from holdfast.csi.wire import csi_pb2
from holdfast.testing import csiclient
from lifecycle import SIZE, Cycle

pytestmark = pytest.mark.root

SECRET = "s3cret-value-nobody-may-see"


@pytest.fixture
def driver(directory: Path) -> Iterator[drivers.Driver]:
    """A driver of the test's own that serves."""
    with drivers.Driver(directory) as made:
        yield made.start()


@pytest.fixture
def csi(driver: drivers.Driver) -> Iterator[csiclient.Client]:
    """A client of that driver."""
    with csiclient.connect(driver.socket) as client:
        yield client


def _code(call: object, request: object) -> tuple[grpc.StatusCode, str]:
    """Give the code and text of a call that fails."""
    assert callable(call)
    with pytest.raises(grpc.RpcError) as failed:
        call(request)
    return failed.value.code(), failed.value.details() or ""


def _create(name: str, **more: object) -> csi_pb2.CreateVolumeRequest:
    request = csi_pb2.CreateVolumeRequest(
        name=name,
        capacity_range=csi_pb2.CapacityRange(required_bytes=SIZE),
        volume_capabilities=[drivers.MOUNT],
        parameters={"layout": "directory"},
    )
    request.MergeFrom(csi_pb2.CreateVolumeRequest(**more))  # type: ignore[arg-type]
    return request


def test_it_says_its_name_and_what_it_can(csi: csiclient.Client) -> None:
    info = csi.identity.GetPluginInfo(csi_pb2.GetPluginInfoRequest())
    assert info.name == drivers.LOCAL
    found = csi.identity.GetPluginCapabilities(csi_pb2.GetPluginCapabilitiesRequest())
    services = {each.service.type for each in found.capabilities if each.HasField("service")}
    types = csi_pb2.PluginCapability.Service
    assert services == {types.CONTROLLER_SERVICE, types.VOLUME_ACCESSIBILITY_CONSTRAINTS}
    assert csi.identity.Probe(csi_pb2.ProbeRequest()).ready.value
    node = csi.node.NodeGetInfo(csi_pb2.NodeGetInfoRequest())
    assert node.node_id == drivers.NODE
    assert dict(node.accessible_topology.segments) == {"kubernetes.io/hostname": drivers.NODE}


def test_it_confirms_only_the_uses_a_volume_is_fit_for(csi: csiclient.Client) -> None:
    made = csi.controller.CreateVolume(_create("fit")).volume
    said = {
        each.WhichOneof("access_type"): csi.controller.ValidateVolumeCapabilities(
            csi_pb2.ValidateVolumeCapabilitiesRequest(
                volume_id=made.volume_id, volume_capabilities=[each]
            )
        )
        for each in (drivers.MOUNT, drivers.BLOCK)
    }
    assert list(said["mount"].confirmed.volume_capabilities) == [drivers.MOUNT]
    assert not said["block"].HasField("confirmed")
    assert "cannot be used as blocks" in said["block"].message


def test_what_it_does_not_have_is_unimplemented(csi: csiclient.Client) -> None:
    request = csi_pb2.ControllerModifyVolumeRequest(volume_id="a")
    assert _code(csi.controller.ControllerModifyVolume, request)[0] == (
        grpc.StatusCode.UNIMPLEMENTED
    )


@pytest.mark.parametrize(
    ("more", "code", "text"),
    [
        ({"parameters": {"fsTyp": "xfs"}}, "INVALID_ARGUMENT", 'did you mean "fsType"'),
        ({"parameters": {"csi.storage.k8s.io/x": "y"}}, "INVALID_ARGUMENT", "unknown parameter"),
        ({"mutable_parameters": {"iops": "9"}}, "INVALID_ARGUMENT", "VolumeAttributesClass"),
        (
            {"capacity_range": csi_pb2.CapacityRange(limit_bytes=SIZE - 1)},
            "OUT_OF_RANGE",
            "limit_bytes",
        ),
        (
            {"capacity_range": csi_pb2.CapacityRange(required_bytes=1 << 60)},
            "RESOURCE_EXHAUSTED",
            "",
        ),
        (
            {
                "accessibility_requirements": csi_pb2.TopologyRequirement(
                    requisite=[
                        csi_pb2.Topology(segments={"kubernetes.io/hostname": "somewhere-else"})
                    ]
                )
            },
            "RESOURCE_EXHAUSTED",
            "somewhere-else",
        ),
        (
            {
                "volume_content_source": csi_pb2.VolumeContentSource(
                    volume=csi_pb2.VolumeContentSource.VolumeSource(volume_id="../etc")
                )
            },
            "NOT_FOUND",
            "../etc",
        ),
    ],
)
def test_a_bad_request_is_told_what_is_wrong(
    csi: csiclient.Client, more: dict[str, object], code: str, text: str
) -> None:
    found, said = _code(csi.controller.CreateVolume, _create("bad", **more))
    assert found.name == code, said
    assert text in said
    assert SECRET not in said
    listed = csi.controller.ListVolumes(csi_pb2.ListVolumesRequest())
    assert list(listed.entries) == []


def test_block_in_a_directory_is_refused(csi: csiclient.Client) -> None:
    request = _create("blocks")
    del request.volume_capabilities[:]
    request.volume_capabilities.append(drivers.BLOCK)
    code, text = _code(csi.controller.CreateVolume, request)
    assert code == grpc.StatusCode.INVALID_ARGUMENT
    assert "layout: image" in text


def test_secrets_are_in_no_log(driver: drivers.Driver, csi: csiclient.Client) -> None:
    csi.controller.CreateVolume(_create("with-secrets", secrets={"key": SECRET}))
    _code(csi.controller.CreateVolume, _create("", secrets={"key": SECRET}))
    log = driver.log.read_text()
    assert "secrets: ***" in log
    assert SECRET not in log


def test_the_first_place_with_room_is_taken(csi: csiclient.Client) -> None:
    wish = csi_pb2.TopologyRequirement(
        preferred=[
            csi_pb2.Topology(segments={"kubernetes.io/hostname": "full"}),
            csi_pb2.Topology(segments={"kubernetes.io/hostname": drivers.NODE}),
        ]
    )
    made = csi.controller.CreateVolume(_create("placed", accessibility_requirements=wish))
    (topology,) = made.volume.accessible_topology
    assert dict(topology.segments) == {"kubernetes.io/hostname": drivers.NODE}


def test_volumes_are_listed_page_by_page(csi: csiclient.Client) -> None:
    names = [f"v{number}" for number in range(5)]
    for name in names:
        csi.controller.CreateVolume(_create(name))
    seen, token = [], ""
    while True:
        request = csi_pb2.ListVolumesRequest(max_entries=2, starting_token=token)
        page = csi.controller.ListVolumes(request)
        seen += [entry.volume.volume_id for entry in page.entries]
        token = page.next_token
        if not token:
            break
    assert seen == names


def test_capacity_is_of_this_node_only(csi: csiclient.Client) -> None:
    here = csi.controller.GetCapacity(csi_pb2.GetCapacityRequest())
    assert here.available_capacity > 0
    elsewhere = csi_pb2.Topology(segments={"kubernetes.io/hostname": "other"})
    request = csi_pb2.GetCapacityRequest(accessible_topology=elsewhere)
    assert csi.controller.GetCapacity(request).available_capacity == 0


def test_a_volume_grows_under_its_pod_and_tells_its_size(
    directory: Path, csi: csiclient.Client
) -> None:
    cycle = Cycle(directory)
    for step in cycle.steps()[:3]:
        step(csi)
    stats = csi_pb2.NodeGetVolumeStatsRequest(
        volume_id=cycle.volume.volume_id, volume_path=str(cycle.target)
    )
    before = csi.node.NodeGetVolumeStats(stats).usage[0].total
    larger = csi_pb2.CapacityRange(required_bytes=4 * SIZE)
    grown = csi.controller.ControllerExpandVolume(
        csi_pb2.ControllerExpandVolumeRequest(
            volume_id=cycle.volume.volume_id, capacity_range=larger
        )
    )
    assert grown.capacity_bytes == 4 * SIZE
    assert grown.node_expansion_required
    # Kubelet gives the staging path, others do not.
    request = csi_pb2.NodeExpandVolumeRequest(
        volume_id=cycle.volume.volume_id, volume_path=str(cycle.target), capacity_range=larger
    )
    try:
        answer = csi.node.NodeExpandVolume(request)
    except grpc.RpcError as error:
        # Growing ext4 online needs CAP_SYS_RESOURCE, which not every machine's root has.
        assert "CAP_SYS_RESOURCE" in (error.details() or "")
        for step in (cycle.unpublish, cycle.unstage, cycle.stage, cycle.publish):
            step(csi)
    else:
        assert answer.capacity_bytes == 4 * SIZE
    assert csi.node.NodeGetVolumeStats(stats).usage[0].total > 3 * before
    for step in cycle.steps()[3:]:
        step(csi)


def test_a_raw_block_volume_is_a_device_of_its_size(directory: Path, csi: csiclient.Client) -> None:
    cycle = Cycle(directory, "image", drivers.BLOCK)
    for step in cycle.steps()[:3]:
        step(csi)
    assert stat.S_ISBLK(cycle.target.stat().st_mode)
    with cycle.target.open("r+b", buffering=0) as device:
        device.write(b"x" * 4096)
        assert device.seek(0, os.SEEK_END) == SIZE
    found = csi.node.NodeGetVolumeStats(
        csi_pb2.NodeGetVolumeStatsRequest(
            volume_id=cycle.volume.volume_id, volume_path=str(cycle.target)
        )
    )
    assert [usage.total for usage in found.usage] == [SIZE]
    for step in cycle.steps()[3:]:
        step(csi)


def test_data_outlives_staging_and_a_read_only_mount_refuses_writes(
    directory: Path, csi: csiclient.Client
) -> None:
    cycle = Cycle(directory)
    for step in cycle.steps()[:3]:
        step(csi)
    (cycle.target / "file").write_text("kept")
    cycle.unpublish(csi)
    cycle.unstage(csi)
    readers = Cycle(directory, read_only=True)
    readers.volume = cycle.volume
    readers.stage(csi)
    readers.publish(csi)
    assert (cycle.target / "file").read_text() == "kept"
    with pytest.raises(OSError, match="Read-only"):
        (cycle.target / "file").write_text("changed")
    with pytest.raises(grpc.RpcError) as refused:
        cycle.publish(csi)
    assert refused.value.code() == grpc.StatusCode.ALREADY_EXISTS
    for step in cycle.steps()[3:]:
        step(csi)


def test_a_volume_in_use_is_not_deleted(directory: Path, csi: csiclient.Client) -> None:
    cycle = Cycle(directory)
    for step in cycle.steps()[:3]:
        step(csi)
    with pytest.raises(grpc.RpcError) as refused:
        cycle.delete(csi)
    assert refused.value.code() == grpc.StatusCode.FAILED_PRECONDITION
    assert str(cycle.target) in (refused.value.details() or "")
    for step in cycle.steps()[3:]:
        step(csi)


def test_a_staging_that_fails_leaves_no_device(directory: Path, csi: csiclient.Client) -> None:
    cycle = Cycle(directory)
    cycle.create(csi)
    image = Path(cycle.volume.volume_context["path"])
    with image.open("r+b") as file:
        file.seek(1 << 20)
        file.write(b"somebody's data")
    with pytest.raises(grpc.RpcError) as refused:
        cycle.stage(csi)
    assert refused.value.code() == grpc.StatusCode.FAILED_PRECONDITION
    assert "not formatted" in (refused.value.details() or "")
    assert drivers.loops_below(directory) == []
    cycle.delete(csi)


def test_many_calls_at_once_make_one_volume_and_one_mount(
    directory: Path, csi: csiclient.Client
) -> None:
    cycle = Cycle(directory)
    with ThreadPoolExecutor(8) as pool:
        for step in cycle.steps():
            for each in [pool.submit(step, csi) for _ in range(8)]:
                each.result()
            if step == cycle.publish:
                assert len(drivers.mounted_below(directory)) == 2
    assert drivers.mounted_below(directory) == []


def test_a_caller_that_gave_up_gets_the_answer_of_its_first_try(
    directory: Path, csi: csiclient.Client
) -> None:
    cycle = Cycle(directory)
    cycle.create(csi)
    request = csi_pb2.NodeStageVolumeRequest(
        volume_id=cycle.volume.volume_id,
        staging_target_path=str(cycle.staging),
        volume_capability=drivers.MOUNT,
        volume_context=cycle.volume.volume_context,
    )
    with pytest.raises(grpc.RpcError) as late:
        csi.node.NodeStageVolume(request, timeout=0.002)
    assert late.value.code() == grpc.StatusCode.DEADLINE_EXCEEDED
    cycle.stage(csi)
    assert len(drivers.mounted_below(directory)) == 1
    cycle.unstage(csi)
    cycle.delete(csi)
