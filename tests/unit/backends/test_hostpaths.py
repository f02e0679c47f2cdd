"""The types of hostPath volumes, with Kubernetes' own error texts, and static paths."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from holdfast.backends import errors
from holdfast.backends.local import hostpaths
from holdfast.backends.local.node_side import LocalNodeSide
from holdfast.backends.protocol import ImageFile, MountSource, VolumeHandle


@pytest.fixture
def things(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)  # socket addresses are short
    (tmp_path / "Directory").mkdir()
    (tmp_path / "File").write_text("")
    with socket.socket(socket.AF_UNIX) as made:
        made.bind("Socket")
    (tmp_path / "CharDevice").symlink_to("/dev/null")
    return tmp_path


@pytest.mark.parametrize(
    ("kind", "noun"),
    [
        ("Directory", "directory"),
        ("File", "file"),
        ("Socket", "socket file"),
        ("CharDevice", "character device"),
        ("BlockDevice", "block device"),
    ],
)
def test_a_path_of_another_type_fails_with_kubernetes_text(
    things: Path, kind: str, noun: str
) -> None:
    for name in ("Directory", "File", "Socket", "CharDevice", "missing"):
        path = things / name
        if name == kind:
            hostpaths.check(path, kind)
            continue
        with pytest.raises(errors.Invalid) as caught:
            hostpaths.check(path, kind)
        assert str(caught.value) == f"hostPath type check failed: {path} is not a {noun}"
    assert not (things / "missing").exists()


def test_missing_paths_are_made_where_the_type_says_so(tmp_path: Path) -> None:
    hostpaths.check(tmp_path / "a/b", "DirectoryOrCreate")
    assert (tmp_path / "a/b").stat().st_mode & 0o700 == 0o700
    hostpaths.check(tmp_path / "c/d", "")
    assert (tmp_path / "c/d").is_dir()
    hostpaths.check(tmp_path / "file", "FileOrCreate")
    assert (tmp_path / "file").is_file()
    (tmp_path / "file").write_text("kept")
    hostpaths.check(tmp_path / "file", "FileOrCreate")
    assert (tmp_path / "file").read_text() == "kept"
    with pytest.raises(errors.Unavailable, match="cannot be made"):
        hostpaths.check(tmp_path / "no/parent", "FileOrCreate")


def test_an_unknown_type_is_invalid(tmp_path: Path) -> None:
    with pytest.raises(errors.Invalid, match="Folder is an invalid volume type"):
        hostpaths.check(tmp_path, "Folder")


async def connect(path: Path, kind: str = "local", **rest: str) -> object:
    handle = VolumeHandle("x", {"path": str(path), "kind": kind, **rest})
    return await LocalNodeSide().connect(handle, {})


async def test_a_local_path_is_used_as_what_it_is(things: Path) -> None:
    assert await connect(things / "Directory") == MountSource(things / "Directory", False)
    os.truncate(things / "File", 4096)
    assert await connect(things / "File") == ImageFile(things / "File", 4096)
    with pytest.raises(errors.NotFound, match=f'path "{things}/gone" does not exist'):
        await connect(things / "gone")
    with pytest.raises(errors.Invalid, match="no directory, disk image or block device"):
        await connect(things / "CharDevice")
    with pytest.raises(errors.Invalid, match="without"):
        await connect(things / "../x")


async def test_a_host_path_file_is_bound_and_not_taken_for_a_disk(things: Path) -> None:
    found = await connect(things / "File", "hostPath", type="File")
    assert found == MountSource(things / "File", False)


async def test_raw_blocks_cannot_come_from_a_directory(things: Path) -> None:
    handle = VolumeHandle("x", {"path": str(things), "kind": "local"}, mode="Block")
    with pytest.raises(errors.Invalid, match="volumeMode Block"):
        await LocalNodeSide().connect(handle, {})
