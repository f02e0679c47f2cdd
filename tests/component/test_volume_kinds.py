"""Every kind of volume this machine can have, looked at where the pod has it mounted.

File systems, raw devices, limits and mount options on real loop devices and mounts;
volumes an administrator made; and the refusals, each with what the event says.
"""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
import stat
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import machine
import manifests
from holdfast.backends import mountinfo
from manifests import Object, claim, pod

MIB = 1 << 20
SIZES = {"ext4": "16Mi", "xfs": "300Mi", "btrfs": "128Mi"}
HOSTNAME = "kubernetes.io/hostname"


def _needs_mkfs(fs_type: str) -> object:
    missing = shutil.which(f"mkfs.{fs_type}") is None
    return pytest.param(
        fs_type,
        marks=[pytest.mark.root, *([pytest.mark.e2e] if missing else [])],
    )


def _on_node(name: str = machine.NODE) -> Object:
    """The affinity of a volume that is on one node."""
    expression = {"key": HOSTNAME, "operator": "In", "values": [name]}
    return {"required": {"nodeSelectorTerms": [{"matchExpressions": [expression]}]}}


def _static(name: str, source: Object, **spec: Any) -> tuple[Object, Object]:
    """A volume and a claim of the same name, reserved for each other."""
    made = manifests.volume(name, source, storageClassName="", **spec)
    return made, claim(name, storage_class="", volumeName=name)


@pytest.fixture
def loop(tmp_path: Path) -> Iterator[Callable[[Path], Path]]:
    """A function that gives a file an administrator's own loop device."""
    made: list[str] = []

    def attach(file: Path) -> Path:
        done = subprocess.run(
            ["losetup", "--find", "--show", file], check=True, capture_output=True, text=True
        )
        made.append(done.stdout.strip())
        return Path(made[-1])

    yield attach
    for device in made:
        subprocess.run(["losetup", "--detach", device], check=False, capture_output=True)


@pytest.mark.parametrize("fs_type", [_needs_mkfs(name) for name in SIZES])
def test_a_volume_has_its_file_system_and_no_more_than_its_size(
    shared: machine.Machine, fs_type: str
) -> None:
    kind = manifests.storage_class(fs_type, parameters={"fsType": fs_type})
    user = pod(f"fill-{fs_type}", fs_type)
    mount = shared.run_pod(user, kind, claim(fs_type, SIZES[fs_type], storage_class=fs_type))
    assert mountinfo.at(mount)[-1].fs_type == fs_type
    limit = int(SIZES[fs_type].removesuffix("Mi")) * MIB
    assert limit * 0.6 < os.statvfs(mount).f_blocks * os.statvfs(mount).f_frsize <= limit
    with pytest.raises(OSError) as refused, (mount / "file").open("wb", buffering=0) as stream:
        for _ in range(limit // MIB + 1):
            stream.write(os.urandom(MIB))
            os.fsync(stream.fileno())
    assert refused.value.errno == errno.ENOSPC
    shared.kubectl("delete", f"pod/fill-{fs_type}", f"pvc/{fs_type}")


@pytest.mark.root
def test_a_raw_volume_is_a_device_of_its_size(shared: machine.Machine) -> None:
    user = pod("raw", "raw", raw=True)
    target = shared.run_pod(user, claim("raw", volumeMode="Block"))
    assert stat.S_ISBLK(target.stat().st_mode)
    with target.open("r+b") as device:
        assert device.seek(0, os.SEEK_END) == 16 * MIB
        device.seek(8 * MIB)
        device.write(b"raw data")
        device.flush()
        os.fsync(device.fileno())
    shared.kubectl("delete", "pod", "raw")
    target = shared.run_pod(user)
    with target.open("rb") as device:
        device.seek(8 * MIB)
        assert device.read(8) == b"raw data"
    shared.kubectl("delete", "pod/raw", "pvc/raw")


@pytest.mark.root
def test_a_raw_volume_is_not_mounted_as_a_file_system(shared: machine.Machine) -> None:
    shared.apply(claim("blocky", volumeMode="Block"), pod("mounts-blocky", "blocky"))
    text = shared.wait_for_event("mounts-blocky", "FailedMount")
    assert "volume data has volumeMode Block, but is specified in volumeMounts" in text
    shared.kubectl("delete", "pod/mounts-blocky", "pvc/blocky")


@pytest.mark.root
def test_fs_group_owns_the_volume(shared: machine.Machine) -> None:
    user = pod("grouped", "grouped", securityContext={"fsGroup": 4242})
    mount = shared.run_pod(user, claim("grouped"))
    found = mount.stat()
    assert found.st_gid == 4242
    assert found.st_mode & 0o2070 == 0o2070, "its files belong to the group, which may write"
    shared.kubectl("delete", "pod/grouped", "pvc/grouped")


@pytest.mark.root
def test_a_claim_used_read_only_cannot_be_written(shared: machine.Machine) -> None:
    mount = shared.run_pod(pod("fills", "lent"), claim("lent"))
    (mount / "file").write_text("to read")
    reader = shared.run_pod(pod("reads", "lent", source={"readOnly": True}))
    assert (reader / "file").read_text() == "to read"
    with pytest.raises(OSError) as refused:
        (reader / "file").write_text("changed")
    assert refused.value.errno == errno.EROFS
    (mount / "file").write_text("the other pod may write")
    shared.kubectl("delete", "pod/fills", "pod/reads", "pvc/lent")


def test_a_sub_path_is_made_in_the_volume(shared: machine.Machine) -> None:
    mount = shared.run_pod(
        pod("parted", "parted", mount={"subPath": "deep/part"}),
        _directories(),
        claim("parted", storage_class="directories"),
    )
    assert (mount / "deep" / "part").is_dir()
    shared.kubectl("delete", "pod/parted", "pvc/parted")


def test_a_sub_path_does_not_leave_the_volume(shared: machine.Machine, tmp_path: Path) -> None:
    shared.apply(_directories(), claim("escape", storage_class="directories"))
    mount = shared.run_pod(pod("prepares", "escape"))
    (mount / "way-out").symlink_to(tmp_path)
    shared.apply(pod("escapes", "escape", mount={"subPath": "way-out/made"}))
    text = shared.wait_for_event("escapes", "Failed")
    assert 'failed to prepare subPath for volumeMount "data" of container "main"' in text
    assert not (tmp_path / "made").exists()
    shared.kubectl("delete", "pod/prepares", "pod/escapes", "pvc/escape")


def _directories() -> Object:
    return manifests.storage_class("directories", parameters={"layout": "directory"})


@pytest.mark.root
def test_mount_options_of_the_class_are_in_the_mount_table(shared: machine.Machine) -> None:
    kind = manifests.storage_class("tuned", mountOptions=["noatime", "nodev"])
    user = pod("tuned", "tuned")
    mount = shared.run_pod(user, kind, claim("tuned", storage_class="tuned"))
    assert {"noatime", "nodev"} <= set(_options(mount))
    volume = shared.get("pv", shared.volume_of(user))
    assert volume is not None
    assert volume["spec"]["mountOptions"] == ["noatime", "nodev"]
    shared.kubectl("delete", "pod/tuned", "pvc/tuned")


@pytest.mark.root
def test_a_mount_option_that_does_not_exist_is_named(shared: machine.Machine) -> None:
    kind = manifests.storage_class("mistuned", mountOptions=["noatimes"])
    shared.apply(kind, claim("mistuned", storage_class="mistuned"), pod("mistuned", "mistuned"))
    text = shared.wait_for_event("mistuned", "FailedMount")
    assert "noatimes" in text
    shared.kubectl("delete", "pod/mistuned", "pvc/mistuned")


def _options(mount: Path) -> list[str]:
    row = next(
        row for row in Path("/proc/self/mountinfo").read_text().splitlines() if f" {mount} " in row
    )
    before, _, after = row.partition(" - ")
    return [*before.split()[5].split(","), *after.split()[2].split(",")]


@pytest.mark.root
def test_a_static_local_volume_is_a_block_device(
    shared: machine.Machine, tmp_path: Path, loop: Callable[[Path], Path]
) -> None:
    device = loop(_image(tmp_path / "disk.img"))
    source = {"local": {"path": str(device), "fsType": "ext4"}}
    user = pod("on-disk", "on-disk")
    mount = shared.run_pod(user, *_static("on-disk", source, nodeAffinity=_on_node()))
    assert mountinfo.at(mount)[-1].source == str(device)
    (mount / "file").write_text("on the disk")
    shared.kubectl("delete", "pod", "on-disk")
    mount = shared.run_pod(user)
    assert (mount / "file").read_text() == "on the disk"
    _remove(shared, "on-disk")
    assert subprocess.run(["losetup", device], check=False, capture_output=True).returncode == 0


@pytest.mark.parametrize("kind", ["local", "hostPath"])
def test_a_static_volume_is_a_directory(shared: machine.Machine, tmp_path: Path, kind: str) -> None:
    (tmp_path / "file").write_text("was there")
    name = f"dir-{kind.lower()}"
    made = _static(name, {kind: {"path": str(tmp_path)}}, nodeAffinity=_on_node())
    mount = shared.run_pod(pod(name, name), *made)
    assert (mount / "file").read_text() == "was there"
    (mount / "new").write_text("added")
    assert (tmp_path / "new").read_text() == "added"
    _remove(shared, name)
    assert (tmp_path / "new").read_text() == "added"


def test_a_static_volume_whose_directory_is_missing_says_which(
    shared: machine.Machine, tmp_path: Path
) -> None:
    source = {"local": {"path": str(tmp_path / "not-there")}}
    shared.apply(*_static("absent", source, nodeAffinity=_on_node()), pod("absent", "absent"))
    text = shared.wait_for_event("absent", "FailedMount")
    assert f'path "{tmp_path / "not-there"}" does not exist' in text
    (tmp_path / "not-there").mkdir()
    shared.wait_for_phase("pod", "absent", "Running")
    _remove(shared, "absent")


def test_a_pod_does_not_run_where_its_volume_is_not(
    shared: machine.Machine, tmp_path: Path
) -> None:
    source = {"local": {"path": str(tmp_path)}}
    made = _static("afar", source, nodeAffinity=_on_node("another-node"))
    shared.apply(*made, pod("afar", "afar"))
    shared.wait_for_phase("pvc", "afar", "Bound")
    text = shared.wait_for_event("afar", "FailedScheduling")
    machine.eventually(
        lambda: "volume node affinity conflict" in str(shared.events("afar")), what=text
    )
    assert shared.row("pod", "afar")[2] == "Pending"
    _remove(shared, "afar")


@pytest.mark.root
@pytest.mark.parametrize("made", ["xfs", "partitions", "unknown"])
def test_foreign_data_on_a_device_is_never_formatted(
    shared: machine.Machine, tmp_path: Path, made: str
) -> None:
    image = _image(tmp_path / "disk.img", 64)
    name = f"foreign-{made[0]}"
    found = _write_foreign(image, made)
    before = _digest(image)
    source = {"local": {"path": str(image), "fsType": "ext4"}}
    shared.apply(*_static(name, source, nodeAffinity=_on_node()), pod(name, name))
    text = shared.wait_for_event(name, "FailedMount")
    assert found in text
    assert "\n" not in text
    _remove(shared, name)
    assert _digest(image) == before


def _write_foreign(image: Path, what: str) -> str:
    """Put something on the image; gives the words by which it must be named."""
    with image.open("r+b") as file:
        if what == "partitions":
            file.seek(510)
            file.write(b"\x55\xaa")
            file.seek(446)
            file.write(bytes([0, 0, 2, 0, 0x83, 0, 0, 0]) + (2048).to_bytes(4, "little") * 2)
            return "partition table"
        if what == "xfs":
            file.write(b"XFSB" + (4096).to_bytes(4, "big"))
            return "xfs"
        file.seek(100_000)
        file.write(b"somebody's database")
        return "data of an unknown kind"


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 24 MiB."""
    disk = tmp_path / "small"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=24m", "tmpfs", disk], check=True)
    yield disk
    subprocess.run(["umount", "--lazy", disk], check=False)


@pytest.mark.root
def test_what_does_not_fit_is_refused_with_numbers_until_it_does(
    shared: machine.Machine, small_disk: Path
) -> None:
    parameters = {"path": str(small_disk / "volumes")}
    kind = manifests.storage_class("small", parameters=parameters)
    shared.apply(kind, claim("first", "16Mi", storage_class="small"))
    shared.wait_for_phase("pvc", "first", "Bound")
    # The first one is sparse: what it has been promised counts, not what it has written.
    shared.apply(claim("second", "12Mi", storage_class="small"))
    text = shared.wait_for_event("second", "ProvisioningFailed")
    assert "12Mi does not fit: " in text
    assert "promised to 1 existing image)" in text
    assert str(small_disk) in text
    assert shared.row("pvc", "second")[1] == "Pending"
    assert [path.name for path in (small_disk / "volumes").glob(".*")] == []
    shared.kubectl("delete", "pvc", "first")
    shared.wait_for_phase("pvc", "second", "Bound")
    shared.kubectl("delete", "pvc", "second")
    machine.eventually(lambda: not list((small_disk / "volumes").glob("pvc-*")))


def _image(path: Path, megabytes: int = 16) -> Path:
    with path.open("wb") as file:
        file.truncate(megabytes * MIB)
    return path


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _remove(where: machine.Machine, name: str) -> None:
    where.kubectl("delete", f"pod/{name}", f"pvc/{name}", f"pv/{name}")
