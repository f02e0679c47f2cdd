"""Volumes that grow: online, at the next mount, after a refusal, across a crash."""

from __future__ import annotations

import asyncio
import os
import time
from pathlib import Path
from typing import Any

import pytest

from cluster import Cluster, file_system_size
from holdfast.api import errors, kinds
from holdfast.backends import errors as backend_errors
from holdfast.backends.local.backend import LocalBackend
from holdfast.backends.protocol import Volume
from holdfast.controllers.expanding import progress
from holdfast.node import filesystems

pytestmark = pytest.mark.root

Object = dict[str, Any]
MIB = 1 << 20
PRE_RESIZE = "volume.alpha.kubernetes.io/pre-resize-capacity"


def has(size: str) -> Any:
    """Whether a claim has a capacity, and nothing of an expansion is left in its status."""

    def holds(claim: Object) -> bool:
        status = claim["status"]
        done = not {"conditions", "allocatedResources", "allocatedResourceStatuses"} & set(status)
        return bool(status.get("capacity", {}).get("storage") == size and done)

    return holds


def in_state(state: str) -> Any:
    return lambda claim: progress.state_of(claim) == state


def conditions(claim: Object) -> dict[str, str]:
    return {c["type"]: c.get("message", "") for c in claim["status"].get("conditions", ())}


async def volume_of(cluster: Cluster, claim: Object) -> Object:
    found = await cluster.find(kinds.VOLUME, claim["spec"]["volumeName"])
    assert found is not None
    return found


def image_of(volume: Object) -> Path:
    return Path(volume["spec"]["local"]["path"])


@pytest.mark.parametrize(
    ("fs", "before", "after"),
    [
        pytest.param("xfs", 320, 640, marks=pytest.mark.program("mkfs.xfs")),
        pytest.param("btrfs", 128, 256, marks=pytest.mark.program("mkfs.btrfs")),
    ],
)
async def test_a_mounted_file_system_grows_at_once(
    cluster: Cluster, fs: str, before: int, after: int
) -> None:
    await cluster.make_class("c", fsType=fs)
    claim = await cluster.bound("data", "c", f"{before}Mi")
    place = await cluster.run_pod("p", "data")
    had = file_system_size(place)
    (place / "file").write_text("kept")
    await cluster.request("data", f"{after}Mi")
    await cluster.until(kinds.CLAIM, "data", has(f"{after}Mi"))
    assert file_system_size(place) - had > (after - before) * MIB * 0.8
    assert (place / "file").read_text() == "kept"
    volume = await cluster.until(
        kinds.VOLUME,
        claim["spec"]["volumeName"],
        lambda v: PRE_RESIZE not in v["metadata"]["annotations"],
    )
    assert volume["spec"]["capacity"] == {"storage": f"{after}Mi"}
    name = volume["metadata"]["name"]
    done = f'MountVolume.NodeExpandVolume succeeded for volume "{name}" node-1'
    await cluster.told("data", "FileSystemResizeSuccessful", done)
    said = await cluster.events("data")
    assert ("Resizing", f"External resizer is resizing volume {name}") in said
    assert (
        "FileSystemResizeRequired",
        "Require file system resize of volume on node",
    ) in said


async def test_a_mounted_ext4_grows_where_the_kernel_allows_it_else_with_the_next_pod(
    cluster: Cluster,
) -> None:
    await cluster.make_class("c", fsType="ext4")
    await cluster.bound("data", "c", "32Mi")
    place = await cluster.run_pod("p", "data")
    had = file_system_size(place)
    await cluster.request("data", "64Mi")
    may = bool(int(_capabilities(), 16) >> 24 & 1)
    if not may:
        text = await cluster.told("data", "FileSystemResizeFailed", "CAP_SYS_RESOURCE")
        assert text.startswith('MountVolume.NodeExpandVolume failed for volume "pvc-')
        claim = await cluster.until(kinds.CLAIM, "data", in_state(progress.NODE_PENDING))
        assert claim["status"]["capacity"] == {"storage": "32Mi"}
        assert file_system_size(place) == had
        await cluster.stop_pod("p")
        place = await cluster.run_pod("again", "data")
    await cluster.until(kinds.CLAIM, "data", has("64Mi"))
    assert file_system_size(place) - had > 24 * MIB


def _capabilities() -> str:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(line.split()[1] for line in lines if line.startswith("CapEff:"))


async def test_a_volume_nobody_uses_waits_for_the_next_pod(cluster: Cluster) -> None:
    await cluster.make_class("c", fsType="ext4")
    await cluster.bound("data", "c", "32Mi")
    await cluster.request("data", "64Mi")
    claim = await cluster.until(kinds.CLAIM, "data", in_state(progress.NODE_PENDING))
    assert conditions(claim) == {"FileSystemResizePending": progress.WAITING}
    assert claim["status"]["allocatedResources"] == {"storage": "64Mi"}
    assert claim["status"]["capacity"] == {"storage": "32Mi"}
    volume = await volume_of(cluster, claim)
    assert volume["spec"]["capacity"] == {"storage": "64Mi"}
    assert volume["metadata"]["annotations"][PRE_RESIZE] == "32Mi"
    assert image_of(volume).stat().st_size == 64 * MIB
    place = await cluster.run_pod("p", "data")
    await cluster.until(kinds.CLAIM, "data", has("64Mi"))
    assert file_system_size(place) > 48 * MIB


async def test_a_claim_may_ask_for_more_while_it_waits_for_a_node(cluster: Cluster) -> None:
    await cluster.make_class("c", fsType="ext4")
    await cluster.bound("data", "c", "32Mi")
    await cluster.request("data", "64Mi")
    await cluster.until(kinds.CLAIM, "data", in_state(progress.NODE_PENDING))
    await cluster.request("data", "96Mi")
    claim = await cluster.until(
        kinds.CLAIM,
        "data",
        lambda c: c["status"].get("allocatedResources") == {"storage": "96Mi"},
    )
    volume = await cluster.until(
        kinds.VOLUME,
        claim["spec"]["volumeName"],
        lambda v: v["spec"]["capacity"] == {"storage": "96Mi"},
    )
    assert volume["metadata"]["annotations"][PRE_RESIZE] == "32Mi"
    await cluster.run_pod("p", "data")
    await cluster.until(kinds.CLAIM, "data", has("96Mi"))


async def test_a_directory_has_nothing_to_wait_for(cluster: Cluster) -> None:
    await cluster.make_class("c", layout="directory")
    await cluster.bound("data", "c", "1Mi")
    await cluster.request("data", "2Mi")
    claim = await cluster.until(kinds.CLAIM, "data", has("2Mi"))
    assert (await volume_of(cluster, claim))["spec"]["capacity"] == {"storage": "2Mi"}
    assert await cluster.told("data", "VolumeResizeSuccessful") == "Resize volume succeeded"


async def test_an_in_tree_class_speaks_as_the_expand_controller(cluster: Cluster) -> None:
    await cluster.create(
        kinds.STORAGE_CLASS,
        "c",
        provisioner="kubernetes.io/host-path",
        allowVolumeExpansion=True,
    )
    await cluster.bound("data", "c", "1Mi")
    await cluster.request("data", "2Mi")
    await cluster.until(kinds.CLAIM, "data", has("2Mi"))
    text = await cluster.told("data", "VolumeResizeSuccessful")
    assert text == "ExpandVolume succeeded for volume default/data"
    listing = await cluster.client.list(kinds.EVENT)
    sources = {e["source"]["component"] for e in listing.items if e["message"] == text}
    assert sources == {"volume_expand"}


async def test_a_raw_device_grows_in_the_pod_that_has_it(cluster: Cluster) -> None:
    await cluster.make_class("c")
    await cluster.bound("data", "c", "8Mi", volumeMode="Block")
    place = await cluster.run_pod("p", "data", block=True)
    await cluster.request("data", "16Mi")
    await cluster.until(kinds.CLAIM, "data", has("16Mi"))
    descriptor = os.open(place, os.O_RDONLY)
    try:
        assert os.lseek(descriptor, 0, os.SEEK_END) == 16 * MIB
    finally:
        os.close(descriptor)


async def test_a_raw_device_nobody_uses_has_grown_when_its_storage_has(cluster: Cluster) -> None:
    await cluster.make_class("c")
    await cluster.bound("data", "c", "8Mi", volumeMode="Block")
    await cluster.request("data", "16Mi")
    await cluster.until(kinds.CLAIM, "data", has("16Mi"))
    assert await cluster.told("data", "VolumeResizeSuccessful") == "Resize volume succeeded"


async def test_an_impossible_request_is_repaired_by_lowering_it(cluster: Cluster) -> None:
    await cluster.make_class("c", layout="directory")
    await cluster.bound("data", "c", "1Mi")
    await cluster.request("data", "64Pi")
    claim = await cluster.until(kinds.CLAIM, "data", in_state(progress.CONTROLLER_INFEASIBLE))
    assert set(conditions(claim)) == {"Resizing", "ControllerResizeError"}
    assert claim["status"]["allocatedResources"] == {"storage": "64Pi"}
    name = claim["spec"]["volumeName"]
    text = await cluster.told("data", "VolumeResizeFailed")
    assert text.startswith(f'resize volume "{name}" by resizer "local.holdfast.dev" failed: ')
    with pytest.raises(errors.Invalid, match=r"field can not be less than status\.capacity"):
        await cluster.request("data", "1Mi")
    await cluster.request("data", "3Mi")
    await cluster.until(kinds.CLAIM, "data", has("3Mi"))
    assert (await volume_of(cluster, claim))["spec"]["capacity"] == {"storage": "3Mi"}


async def test_a_volume_nobody_here_made_is_left_to_others(cluster: Cluster) -> None:
    await cluster.make_class("c")
    await cluster.create(
        kinds.VOLUME,
        "pv",
        spec={
            "capacity": {"storage": "1Gi"},
            "accessModes": ["ReadWriteOnce"],
            "storageClassName": "c",
            "nfs": {"server": "s", "path": "/p"},
        },
    )
    await cluster.bound("data", "c", "1Gi")
    await cluster.request("data", "2Gi")
    text = await cluster.told("data", "ExternalExpanding")
    assert text == "waiting for an external controller to expand this PVC"
    claim = await cluster.find(kinds.CLAIM, "data")
    assert claim is not None and claim["status"]["capacity"] == {"storage": "1Gi"}


async def test_a_failure_that_may_pass_is_tried_again(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, tries = LocalBackend.expand, 0

    async def expand(self: LocalBackend, id: str, size: int, **_: Any) -> Volume:
        nonlocal tries
        tries += 1
        if tries == 1:
            raise backend_errors.Unavailable("the storage does not answer")
        return await real(self, id, size)

    monkeypatch.setattr(LocalBackend, "expand", expand)
    await cluster.make_class("c", layout="directory")
    await cluster.bound("data", "c", "1Mi")
    await cluster.request("data", "2Mi")
    await cluster.told("data", "VolumeResizeFailed", "the storage does not answer")
    claim = await cluster.find(kinds.CLAIM, "data")
    assert claim is not None and progress.state_of(claim) in (progress.CONTROLLER, "")
    await cluster.until(kinds.CLAIM, "data", has("2Mi"))
    assert tries == 2


@pytest.mark.parametrize("moment", ["before the backend", "after the backend"])
@pytest.mark.program("mkfs.xfs")
async def test_a_crash_while_the_storage_grows_is_made_good(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    real, reached = LocalBackend.expand, asyncio.Event()

    async def expand(self: LocalBackend, id: str, size: int, **_: Any) -> Volume:
        if moment == "after the backend":
            await real(self, id, size)
        reached.set()
        await asyncio.Event().wait()
        raise AssertionError

    await cluster.make_class("c", fsType="xfs")
    await cluster.bound("data", "c", "320Mi")
    place = await cluster.run_pod("p", "data")
    had = file_system_size(place)
    with monkeypatch.context() as patch:
        patch.setattr(LocalBackend, "expand", expand)
        await cluster.request("data", "640Mi")
        await asyncio.wait_for(reached.wait(), 5)
        await cluster.crash()
    claim = await cluster.find(kinds.CLAIM, "data")
    assert claim is not None and progress.state_of(claim) == progress.CONTROLLER
    await cluster.start()
    await cluster.until(kinds.CLAIM, "data", has("640Mi"))
    assert file_system_size(place) - had > 250 * MIB


@pytest.mark.parametrize("moment", ["before the file system", "after the file system"])
@pytest.mark.program("mkfs.xfs")
async def test_a_crash_on_the_node_is_made_good(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    real, reached = filesystems.grow_mounted, asyncio.Event()

    async def grow(*arguments: Any) -> None:
        if moment == "after the file system":
            await real(*arguments)
        reached.set()
        await asyncio.Event().wait()

    await cluster.make_class("c", fsType="xfs")
    await cluster.bound("data", "c", "320Mi")
    place = await cluster.run_pod("p", "data")
    had = file_system_size(place)
    with monkeypatch.context() as patch:
        patch.setattr(filesystems, "grow_mounted", grow)
        await cluster.request("data", "640Mi")
        await asyncio.wait_for(reached.wait(), 5)
        await cluster.crash()
    claim = await cluster.find(kinds.CLAIM, "data")
    assert claim is not None and progress.state_of(claim) == progress.NODE
    assert claim["status"]["capacity"] == {"storage": "320Mi"}
    await cluster.start()
    await cluster.until(kinds.CLAIM, "data", has("640Mi"))
    assert file_system_size(place) - had > 250 * MIB


@pytest.mark.program("mkfs.xfs")
async def test_a_file_system_that_does_not_grow_is_tried_again_with_pauses(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, tries = filesystems.grow_mounted, list[float]()

    async def grow(*arguments: Any) -> None:
        tries.append(time.monotonic())
        if len(tries) < 3:
            raise backend_errors.Unavailable("xfs_growfs failed: Input/output error")
        await real(*arguments)

    monkeypatch.setattr(filesystems, "grow_mounted", grow)
    await cluster.make_class("c", fsType="xfs")
    await cluster.bound("data", "c", "320Mi")
    await cluster.run_pod("p", "data")
    await cluster.request("data", "640Mi")
    await cluster.told("data", "FileSystemResizeFailed", "Input/output error")
    await cluster.until(kinds.CLAIM, "data", has("640Mi"))
    # One second and two: the claim's status, which tells of the failure, does not try again.
    first, second, third = tries
    assert second - first > 0.9 and third - second > 1.9
