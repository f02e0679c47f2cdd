"""Mount options, subPaths, notes and volumes without the right to mount: no root needed."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from holdfast.backends import errors
from holdfast.backends.local.node_side import LocalNodeSide
from holdfast.backends.protocol import VolumeHandle
from holdfast.node import holders, journal, mounts, places, stats, subpaths, syscalls
from holdfast.node.volumes import Volumes


def test_options_become_flags_and_data_and_the_last_word_counts() -> None:
    flags, data = mounts.parse_options(["ro,noatime", "rw", " discard ", "_netdev", "commit=5"])
    assert flags == syscalls.MS_NOATIME
    assert data == "discard,commit=5"
    assert mounts.parse_options(["defaults", "x-systemd.automount", ""]) == (0, "")
    assert mounts.is_read_only(["rw", "ro"])


@pytest.mark.parametrize("option", ["bind", "remount", "noatime,move"])
def test_options_that_change_what_is_mounted_are_refused(option: str) -> None:
    with pytest.raises(errors.Invalid, match="is not allowed"):
        mounts.parse_options([option])


def test_a_sub_path_is_made_step_by_step(tmp_path: Path) -> None:
    with subpaths.opened(tmp_path, "a/b/c") as opened:
        assert opened.resolve() == tmp_path / "a/b/c"
    with pytest.raises(errors.NotFound), subpaths.opened(tmp_path, "x", create=False):
        pass


def test_a_link_inside_the_volume_works_and_one_out_of_it_does_not(tmp_path: Path) -> None:
    volume = tmp_path / "volume"
    (volume / "real").mkdir(parents=True)
    (volume / "inside").symlink_to("real")
    (volume / "up").symlink_to("..")
    (volume / "absolute").symlink_to(tmp_path)
    with subpaths.opened(volume, "inside/new") as opened:
        assert opened.resolve() == volume / "real/new"
    for name in ("up", "absolute", "up/x", "absolute/x"):
        with (
            pytest.raises(errors.Invalid, match="out of the volume"),
            subpaths.opened(volume, name),
        ):
            pass
    assert not (tmp_path / "x").exists()


def test_kernels_without_openat2_follow_no_link_at_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing(*_: object) -> int:
        raise OSError(errno.ENOSYS, "not implemented")

    monkeypatch.setattr(syscalls, "open_beneath", missing)
    (tmp_path / "link").symlink_to("/")
    with subpaths.opened(tmp_path, "a/b") as opened:
        assert opened.resolve() == tmp_path / "a/b"
    before = len(list(Path("/proc/self/fd").iterdir()))
    with (
        pytest.raises(errors.Invalid, match="out of the volume"),
        subpaths.opened(tmp_path, "link"),
    ):
        pass
    assert len(list(Path("/proc/self/fd").iterdir())) == before


@pytest.mark.parametrize("path", ["/etc", "../x", "a/../../x"])
def test_sub_paths_that_point_elsewhere_are_refused_by_their_text(path: str) -> None:
    with pytest.raises(errors.Invalid, match="subPath"):
        subpaths.check(path)


async def test_without_the_right_to_mount_a_directory_is_linked_and_not_enforced(
    tmp_path: Path,
) -> None:
    (tmp_path / "source").mkdir()
    handle = VolumeHandle("s", {"path": str(tmp_path / "source"), "kind": "local"})
    side, staging, target = LocalNodeSide(), tmp_path / "staging/pv", tmp_path / "pods/1/mount"
    for _ in range(2):
        volumes = Volumes(mounting=False)
        staged = await volumes.stage(handle, side, staging)
        published = await volumes.publish(staging, target, read_only=True)
        assert not staged.enforced
        assert not published.enforced
        assert volumes.is_published(target)
    (target / "file").write_text("x")
    assert (tmp_path / "source/file").read_text() == "x"
    for _ in range(2):
        await Volumes(mounting=False).unpublish(target)
        await Volumes(mounting=False).unstage(handle, side, staging)
    assert not target.is_symlink()
    assert not staging.is_symlink()
    assert (tmp_path / "source/file").read_text() == "x"


async def test_without_the_right_to_mount_a_disk_image_is_refused(tmp_path: Path) -> None:
    image = tmp_path / "disk.img"
    image.write_bytes(bytes(4096))
    handle = VolumeHandle("s", {"path": str(image), "kind": "local"})
    with pytest.raises(errors.Unsupported, match="layout: directory"):
        await Volumes(mounting=False).stage(handle, LocalNodeSide(), tmp_path / "staging/pv")


async def test_publishing_what_is_not_staged_says_so(tmp_path: Path) -> None:
    with pytest.raises(errors.NotFound, match="not staged"):
        await Volumes(mounting=False).publish(tmp_path / "staging", tmp_path / "target")
    assert not (tmp_path / "target").exists()


def test_clearing_a_place_never_removes_files(tmp_path: Path) -> None:
    place = tmp_path / "place"
    place.mkdir()
    (place / "file").write_text("kept")
    with pytest.raises(errors.Conflict, match="files lie beneath"):
        places.clear(place)
    file = tmp_path / "file"
    file.write_text("kept")
    places.clear(file)
    assert file.read_text() == "kept"
    places.clear(tmp_path / "nothing")


def test_a_note_is_found_again_until_it_is_removed(tmp_path: Path) -> None:
    staging = tmp_path / "staging/pv"
    assert journal.read(staging) == journal.Note()
    note = journal.Note(image="/v/disk.img", formatting="loop:1")
    journal.write(staging, note)
    assert journal.read(staging) == note
    journal.remove(staging)
    journal.remove(staging)
    assert journal.read(staging) == journal.Note()


def test_who_uses_a_directory_is_found(tmp_path: Path) -> None:
    assert holders.describe(tmp_path) == ""
    with (tmp_path / "file").open("w"):
        assert f"(pid {os.getpid()})" in holders.describe(tmp_path)


def test_stats_are_those_of_the_file_system(tmp_path: Path) -> None:
    usage = stats.of(tmp_path)
    assert usage.capacity >= usage.used + usage.available > 0
    assert usage.inodes == usage.inodes_used + usage.inodes_free
    with pytest.raises(errors.NotFound):
        stats.of(tmp_path / "gone")
