"""The local backend and the node side together, on real loop devices and real mounts.

Every test works below its own temporary directory and takes away what it made,
also when it fails: mounts below that directory, and loop devices whose backing
file lies in it. Loop devices of others are never touched.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import subprocess
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from holdfast.backends import errors, mountinfo
from holdfast.backends.local import legacy
from holdfast.backends.local.backend import LocalBackend
from holdfast.backends.local.node_side import LocalNodeSide
from holdfast.backends.names import Made
from holdfast.backends.protocol import Volume, VolumeHandle, VolumeRequest, VolumeSource
from holdfast.node import devices, ownership, stats
from holdfast.node.volumes import Volumes

pytestmark = pytest.mark.root

MIB = 1 << 20
NODE_SIDE = LocalNodeSide()
SIZES = {"ext4": 64 * MIB, "xfs": 320 * MIB, "btrfs": 128 * MIB}


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Path]:
    """A directory whose mounts and loop devices are gone afterwards."""
    try:
        yield tmp_path
    finally:
        for mount in sorted(mountinfo.beneath(tmp_path), key=lambda m: -len(m.point)):
            subprocess.run(["umount", "-l", mount.point], check=False)
        for backing in Path("/sys/block").glob("loop*/loop/backing_file"):
            with contextlib.suppress(OSError):
                if backing.read_text().startswith(f"{tmp_path}/"):
                    subprocess.run(["losetup", "-d", f"/dev/{backing.parts[3]}"], check=False)


@pytest.fixture
async def backend(place: Path) -> AsyncIterator[LocalBackend]:
    made = LocalBackend(place / "volumes", "node-1")
    yield made
    await made.close()


def handle_of(volume: Volume, request: VolumeRequest) -> VolumeHandle:
    """Go through the PersistentVolume's spec, as the program does."""
    spec = {
        **legacy.pv_source(Made(volume, request, legacy.PROVISIONER)),
        "volumeMode": request.mode,
    }
    handle = legacy.handle_of(spec, {legacy.PROVISIONED_BY: legacy.PROVISIONER})
    assert handle is not None
    assert handle.id == volume.id
    return handle


def loops_below(place: Path) -> list[str]:
    found = []
    for backing in Path("/sys/block").glob("loop*/loop/backing_file"):
        with contextlib.suppress(OSError):
            if backing.read_text().startswith(f"{place}/"):
                found.append(backing.parts[3])
    return found


def run(*argv: str) -> str:
    done = subprocess.run(argv, check=True, capture_output=True, text=True)
    return done.stdout.strip()


async def make(
    backend: LocalBackend, name: str = "pvc-1", fs: str = "ext4", **rest: object
) -> VolumeHandle:
    request = VolumeRequest(name, SIZES[fs], {"fsType": fs}, **rest)  # type: ignore[arg-type]
    return handle_of(await backend.create_volume(request), request)


@pytest.mark.parametrize("fs", ["ext4", "xfs", "btrfs"])
async def test_a_claims_data_outlives_its_pod(place: Path, backend: LocalBackend, fs: str) -> None:
    if shutil.which(f"mkfs.{fs}") is None:
        pytest.skip(f"mkfs.{fs} is not installed")
    handle = await make(backend, fs=fs)
    staging, target = place / "staging/pv", place / "pods/1/mount"
    for turn in range(2):
        volumes = Volumes()
        staged = await volumes.stage(handle, NODE_SIDE, staging)
        assert staged.enforced
        assert mountinfo.at(staging)[-1].fs_type == fs
        published = await volumes.publish(staging, target)
        assert published.enforced
        if turn == 0:
            (target / "file").write_text("kept")
        assert (target / "file").read_text() == "kept"
        assert 0.7 * SIZES[fs] < stats.of(target).capacity <= SIZES[fs]
        await volumes.unpublish(target)
        assert not target.exists()
        await volumes.unstage(handle, NODE_SIDE, staging)
        assert not mountinfo.beneath(place)
        assert not loops_below(place)


async def test_every_step_may_be_repeated_by_a_fresh_process(
    place: Path, backend: LocalBackend
) -> None:
    handle = await make(backend)
    staging, target = place / "staging/pv", place / "target"
    first = await Volumes().stage(handle, NODE_SIDE, staging)
    second = await Volumes().stage(handle, NODE_SIDE, staging)
    assert first.device == second.device
    for _ in range(2):
        await Volumes().publish(staging, target, read_only=True)
    assert len(mountinfo.beneath(place)) == 2
    assert len(loops_below(place)) == 1
    with pytest.raises(OSError, match="Read-only"):
        (target / "x").write_text("")
    (staging / "x").write_text("")
    for _ in range(2):
        await Volumes().unpublish(target)
    for _ in range(2):
        await Volumes().unstage(handle, NODE_SIDE, staging)
    assert not loops_below(place)
    assert not list((place / "staging").iterdir())


async def test_a_volume_in_use_is_not_deleted(place: Path, backend: LocalBackend) -> None:
    handle = await make(backend)
    volumes, staging = Volumes(), place / "staging/pv"
    await volumes.stage(handle, NODE_SIDE, staging)
    with pytest.raises(errors.Conflict, match=r"/dev/loop\d+ mounted at .*staging/pv"):
        await backend.delete_volume(handle.id)
    await volumes.unstage(handle, NODE_SIDE, staging)
    await backend.delete_volume(handle.id)
    assert not (place / "volumes" / handle.id).exists()


async def test_a_bound_directory_volume_is_not_deleted(place: Path, backend: LocalBackend) -> None:
    request = VolumeRequest("pvc-d", MIB, {"layout": "directory"})
    handle = handle_of(await backend.create_volume(request), request)
    volumes, staging, target = Volumes(), place / "staging/pv", place / "target"
    staged = await volumes.stage(handle, NODE_SIDE, staging)
    published = await volumes.publish(staging, target)
    assert not staged.enforced
    assert not published.enforced
    (target / "file").write_text("kept")
    with pytest.raises(errors.Conflict, match="mounted at"):
        await backend.delete_volume("pvc-d")
    assert (place / "volumes/pvc-d/data/file").read_text() == "kept"
    await volumes.unpublish(target)
    await volumes.unstage(handle, NODE_SIDE, staging)
    await backend.delete_volume("pvc-d")


async def test_a_raw_block_volume_is_a_device_of_its_size(
    place: Path, backend: LocalBackend
) -> None:
    handle = await make(backend, mode="Block")
    volumes, staging, target = Volumes(), place / "staging/pv", place / "dev/disk"
    await volumes.stage(handle, NODE_SIDE, staging)
    await volumes.publish(staging, target)
    with target.open("r+b") as device:
        assert device.seek(0, os.SEEK_END) == SIZES["ext4"]
        device.seek(0)
        device.write(b"raw data")
    with pytest.raises(errors.Conflict, match="still in use"):
        devices.LoopDevices().detach(Path(handle.context["path"]))
    await volumes.unpublish(target)
    await volumes.unstage(handle, NODE_SIDE, staging)
    assert not loops_below(place)
    assert run("head", "-c8", handle.context["path"]) == "raw data"


@pytest.mark.parametrize("fs", ["xfs", "btrfs"])
async def test_a_mounted_file_system_grows_with_its_volume(
    place: Path, backend: LocalBackend, fs: str
) -> None:
    if shutil.which(f"mkfs.{fs}") is None:
        pytest.skip(f"mkfs.{fs} is not installed")
    handle = await make(backend, fs=fs)
    volumes, staging = Volumes(), place / "staging/pv"
    await volumes.stage(handle, NODE_SIDE, staging)
    before = stats.of(staging).capacity
    await backend.expand(handle.id, SIZES[fs] + 128 * MIB)
    with pytest.raises(errors.Unavailable, match="the device still has"):
        await volumes.grow(handle, NODE_SIDE, staging, size=SIZES[fs] + 256 * MIB)
    grown = SIZES[fs] + 128 * MIB
    assert await volumes.grow(handle, NODE_SIDE, staging, size=grown) == grown
    assert stats.of(staging).capacity >= before + 100 * MIB


async def test_ext4_grows_at_once_or_says_when_it_will(place: Path, backend: LocalBackend) -> None:
    handle = await make(backend)
    volumes, staging = Volumes(), place / "staging/pv"
    await volumes.stage(handle, NODE_SIDE, staging)
    (staging / "file").write_text("kept")
    before = stats.of(staging).capacity
    await backend.expand(handle.id, 128 * MIB)
    try:
        assert await volumes.grow(handle, NODE_SIDE, staging) == 128 * MIB
    except errors.Conflict as error:
        assert "CAP_SYS_RESOURCE" in str(error)
        assert "restart the pod" in str(error)
        await volumes.unstage(handle, NODE_SIDE, staging)
        await volumes.stage(handle, NODE_SIDE, staging)
    assert stats.of(staging).capacity >= before + 56 * MIB
    assert (staging / "file").read_text() == "kept"


@pytest.mark.parametrize("fs", ["ext4", "xfs", "btrfs"])
async def test_a_clone_and_a_restored_snapshot_mount_beside_their_origin(
    place: Path, backend: LocalBackend, fs: str
) -> None:
    if shutil.which(f"mkfs.{fs}") is None:
        pytest.skip(f"mkfs.{fs} is not installed")
    handle = await make(backend, fs=fs)
    volumes, staging = Volumes(), place / "staging/origin"
    await volumes.stage(handle, NODE_SIDE, staging)
    (staging / "file").write_text("origin")
    await volumes.unstage(handle, NODE_SIDE, staging)
    await backend.create_snapshot("snap", handle.id)
    await volumes.stage(handle, NODE_SIDE, staging)
    (staging / "file").write_text("changed")
    restored = await make(backend, "pvc-r", fs, source=VolumeSource("snapshot", "snap"))
    other = place / "staging/restored"
    await volumes.stage(restored, NODE_SIDE, other)
    assert (other / "file").read_text() == "origin"
    (other / "own").write_text("")
    assert not (staging / "own").exists()


async def test_a_volume_in_use_is_not_copied_without_reflinks(
    place: Path, backend: LocalBackend
) -> None:
    handle = await make(backend)
    volumes, staging = Volumes(), place / "staging/pv"
    await volumes.stage(handle, NODE_SIDE, staging)
    (staging / "file").write_text("x")
    try:
        await backend.create_snapshot("snap", handle.id)
    except errors.Conflict as error:
        assert "in one moment" in str(error) or "cannot share blocks" in str(error)
        assert (await backend.list_snapshots()).snapshots == []
    else:  # the disk under the tests can share blocks
        restored = await make(backend, "pvc-r", source=VolumeSource("snapshot", "snap"))
        await volumes.stage(restored, NODE_SIDE, place / "staging/r")
        assert (place / "staging/r/file").read_text() == "x"


async def test_a_device_with_foreign_data_is_not_formatted(place: Path) -> None:
    image = place / "disk.img"
    image.touch()
    os.truncate(image, 32 * MIB)
    with image.open("r+b") as file:
        file.seek(4000)
        file.write(b"precious")
    handle = VolumeHandle(str(image), {"path": str(image), "kind": "local"})
    volumes, staging = Volumes(), place / "staging/pv"
    with pytest.raises(errors.Conflict, match="data of an unknown kind"):
        await volumes.stage(handle, NODE_SIDE, staging)
    await volumes.unstage(handle, NODE_SIDE, staging)
    assert image.read_bytes()[4000:4008] == b"precious"
    run("mkswap", str(image))
    with pytest.raises(errors.Conflict, match="swap"):
        await volumes.stage(handle, NODE_SIDE, staging)


async def test_a_format_that_was_interrupted_is_done_again(
    place: Path, backend: LocalBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    handle = await make(backend)
    staging = place / "staging/pv"
    tools = place / "tools"
    tools.mkdir()
    # A formatter that writes something and then dies, as by kill -9.
    script = tools / "mkfs.ext4"
    script.write_text(
        "#!/bin/sh\nfor last; do :; done\n"
        'printf half | dd of="$last" bs=1 seek=9000 conv=notrunc 2>/dev/null\nkill -9 $$\n'
    )
    script.chmod(0o755)
    with monkeypatch.context() as patch:
        patch.setenv("PATH", f"{tools}:{os.environ['PATH']}")
        with pytest.raises(errors.Unavailable, match="signal 9"):
            await Volumes().stage(handle, NODE_SIDE, staging)
    await Volumes().stage(handle, NODE_SIDE, staging)
    (staging / "file").write_text("works")


async def test_a_missing_formatter_is_named_with_its_package(
    place: Path, backend: LocalBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    handle = await make(backend)
    monkeypatch.setenv("PATH", str(place))
    with pytest.raises(errors.Unavailable, match="install the package e2fsprogs"):
        await Volumes().stage(handle, NODE_SIDE, place / "staging/pv")


async def test_a_file_system_other_than_the_one_asked_for_is_refused(
    place: Path, backend: LocalBackend
) -> None:
    handle = await make(backend)
    run("mkfs.ext4", "-q", "-F", handle.context["path"])
    with pytest.raises(errors.Conflict, match="holds ext4, but the volume asks for xfs"):
        await Volumes().stage(handle, NODE_SIDE, place / "staging/pv", fs_type="xfs")


async def test_mount_options_reach_the_kernel(place: Path, backend: LocalBackend) -> None:
    handle = await make(backend)
    staging = place / "staging/pv"
    await Volumes().stage(
        handle, NODE_SIDE, staging, mount_options=["noatime", "nosuid,commit=30", "_netdev"]
    )
    found = mountinfo.at(staging)[-1]
    assert {"noatime", "nosuid"} <= set(found.options)
    assert "commit=30" in found.super_options


async def test_a_wrong_mount_option_is_an_error_that_quotes_it(
    place: Path, backend: LocalBackend
) -> None:
    handle = await make(backend)
    with pytest.raises(errors.Invalid, match='options "nonsense"'):
        await Volumes().stage(handle, NODE_SIDE, place / "staging/pv", mount_options=["nonsense"])


async def test_a_sub_path_is_made_and_cannot_leave_the_volume(
    place: Path, backend: LocalBackend
) -> None:
    handle = await make(backend)
    volumes, staging, target = Volumes(), place / "staging/pv", place / "target"
    await volumes.stage(handle, NODE_SIDE, staging)
    await volumes.publish(staging, target, sub_path="a/b")
    (target / "file").write_text("deep")
    assert (staging / "a/b/file").read_text() == "deep"
    (staging / "escape").symlink_to("/etc")
    with pytest.raises(errors.Invalid, match="leads out of the volume"):
        await volumes.publish(staging, place / "other", sub_path="escape")
    with pytest.raises(errors.Invalid, match=r"must not contain '\.\.'"):
        await volumes.publish(staging, place / "other", sub_path="../x")


async def test_a_busy_mount_names_who_keeps_it(place: Path, backend: LocalBackend) -> None:
    handle = await make(backend)
    volumes, staging = Volumes(), place / "staging/pv"
    await volumes.stage(handle, NODE_SIDE, staging)
    sleeper = await asyncio.create_subprocess_exec("sleep", "60", cwd=staging)
    try:
        with pytest.raises(errors.Conflict, match=rf"sleep \(pid {sleeper.pid}\)"):
            await volumes.unstage(handle, NODE_SIDE, staging)
    finally:
        sleeper.kill()
        await sleeper.wait()
    await volumes.unstage(handle, NODE_SIDE, staging)
    assert not loops_below(place)


async def test_a_loop_device_of_the_administrator_is_used_but_not_taken_away(place: Path) -> None:
    image = place / "disk.img"
    image.touch()
    os.truncate(image, 32 * MIB)
    made = run("losetup", "--find", "--show", str(image))
    handle = VolumeHandle(str(image), {"path": str(image), "kind": "local"})
    volumes, staging = Volumes(), place / "staging/pv"
    staged = await volumes.stage(handle, NODE_SIDE, staging)
    assert staged.device is not None
    assert str(staged.device.path) == made
    await volumes.unstage(handle, NODE_SIDE, staging)
    assert loops_below(place) == [staged.device.path.name]


async def test_a_static_local_volume_may_be_a_block_device(place: Path) -> None:
    image = place / "disk.img"
    image.touch()
    os.truncate(image, 32 * MIB)
    device = devices.LoopDevices().attach(image)
    handle = VolumeHandle(str(device.path), {"path": str(device.path), "kind": "local"})
    volumes, staging = Volumes(), place / "staging/pv"
    staged = await volumes.stage(handle, NODE_SIDE, staging)
    assert staged.enforced
    assert staged.device is not None
    assert staged.device.size == 32 * MIB


async def test_concurrent_attachments_of_one_image_share_a_device(place: Path) -> None:
    image = place / "disk.img"
    image.touch()
    os.truncate(image, MIB)
    loops = devices.LoopDevices()
    found = await asyncio.gather(*(asyncio.to_thread(loops.attach, image) for _ in range(8)))
    assert len({device.path for device in found}) == 1
    loops.detach(image)
    loops.detach(image)
    assert not loops_below(place)


async def test_a_crash_between_attaching_and_mounting_leaves_nothing_after_unstage(
    place: Path, backend: LocalBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    handle = await make(backend)
    with monkeypatch.context() as patch:
        patch.setenv("PATH", str(place))  # no formatter: staging stops after attaching
        with pytest.raises(errors.Unavailable):
            await Volumes().stage(handle, NODE_SIDE, place / "staging/pv")
    assert len(loops_below(place)) == 1
    await Volumes().unstage(handle, NODE_SIDE, place / "staging/pv")
    assert not loops_below(place)
    assert not list((place / "staging").iterdir())


async def test_fs_group_gives_the_files_to_the_group(place: Path) -> None:
    tree = place / "tree"
    (tree / "sub").mkdir(parents=True)
    (tree / "sub/file").write_text("")
    (tree / "sub/file").chmod(0o600)
    outside = place / "outside"
    outside.write_text("")
    (tree / "link").symlink_to(outside)
    assert ownership.apply(tree, 4242)
    for path, mode in ((tree, 0o2770), (tree / "sub", 0o2770), (tree / "sub/file", 0o660)):
        assert path.stat().st_gid == 4242
        assert path.stat().st_mode & mode == mode
    assert outside.stat().st_gid != 4242
    (tree / "late").write_text("")
    os.chown(tree / "late", 0, 0)
    assert not ownership.apply(tree, 4242, "OnRootMismatch")
    assert (tree / "late").stat().st_gid == 0
    assert ownership.apply(tree, 4242, "Always")
    assert (tree / "late").stat().st_gid == 4242


async def test_a_host_path_is_bound_into_the_pod(place: Path) -> None:
    handle = legacy.handle_of({"hostPath": {"path": str(place / "new"), "type": ""}})
    assert handle is not None
    volumes, staging, target = Volumes(), place / "staging/pv", place / "target"
    await volumes.stage(handle, NODE_SIDE, staging)
    await volumes.publish(staging, target)
    (target / "file").write_text("x")
    assert (place / "new/file").read_text() == "x"
    await volumes.unpublish(target)
    await volumes.unstage(handle, NODE_SIDE, staging)
    assert (place / "new/file").read_text() == "x"
