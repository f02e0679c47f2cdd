"""Atomic file writes and spelling suggestions."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from holdfast.kit import files, suggest


def test_a_file_is_replaced_with_the_mode_asked_for(tmp_path: Path) -> None:
    target = tmp_path / "ca.key"
    target.write_bytes(b"old")
    target.chmod(0o644)
    files.write_atomic(target, b"new")
    assert target.read_bytes() == b"new"
    assert stat.S_IMODE(target.stat().st_mode) == 0o600
    files.write_atomic(str(target), b"newer", mode=0o640)
    assert stat.S_IMODE(target.stat().st_mode) == 0o640


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    target = tmp_path / "directory"
    (target / "inside").mkdir(parents=True)
    with pytest.raises(OSError):
        files.write_atomic(target, b"data")
    assert [path.name for path in tmp_path.iterdir()] == ["directory"]


def test_syncing_something_that_is_no_directory_fails(tmp_path: Path) -> None:
    files.fsync_dir(tmp_path)
    plain = tmp_path / "plain"
    plain.write_bytes(b"")
    with pytest.raises(NotADirectoryError):
        files.fsync_dir(plain)


def test_the_nearest_word_is_suggested_only_when_it_is_near() -> None:
    known = ["reclaimPolicy", "volumeBindingMode", "parameters"]
    assert suggest.nearest("reclaimpolcy", known) == "reclaimPolicy"
    assert suggest.nearest("PARAMETER", known) == "parameters"
    assert suggest.nearest("zone", known) is None
    assert suggest.nearest("anything", []) is None
