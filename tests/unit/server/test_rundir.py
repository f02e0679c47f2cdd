"""The lock on a data directory: held by processes that live, by no others."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

import machine
from holdfast.server import rundir

HOLD = """
import sys, pathlib
from holdfast.server import rundir
with rundir.hold(pathlib.Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


@contextmanager
def _another_process(data_dir: Path) -> Iterator[subprocess.Popen[str]]:
    """A process that holds the directory until its standard input closes."""
    child = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(data_dir)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": str(machine.SOURCE)},
    )
    try:
        assert child.stdout is not None
        assert child.stdout.readline() == "held\n"
        yield child
    finally:
        child.communicate()


def _info(pid: int) -> rundir.RunInfo:
    return rundir.RunInfo(pid, "https://127.0.0.1:1", "2026-01-01T00:00:00Z", "n", "1")


def test_nobody_holds_a_directory_that_is_not_there(tmp_path: Path) -> None:
    assert rundir.holder(tmp_path / "absent") is None


def test_nobody_holds_a_fresh_directory(tmp_path: Path) -> None:
    assert rundir.holder(tmp_path) is None


def test_another_process_is_named_with_its_pid(tmp_path: Path) -> None:
    with _another_process(tmp_path) as child:
        assert rundir.holder(tmp_path) == rundir.Holder(child.pid, None)
        with (
            pytest.raises(rundir.HeldError, match=f"process {child.pid}, which is starting"),
            rundir.hold(tmp_path),
        ):
            pass


def test_a_ready_process_is_named_with_its_url(tmp_path: Path) -> None:
    with _another_process(tmp_path) as child:
        rundir.publish(tmp_path, _info(child.pid))
        assert rundir.holder(tmp_path) == rundir.Holder(child.pid, _info(child.pid))
        with (
            pytest.raises(rundir.HeldError, match=f"process {child.pid} at https://127.0.0.1:1"),
            rundir.hold(tmp_path),
        ):
            pass


def test_a_killed_process_holds_nothing(tmp_path: Path) -> None:
    with _another_process(tmp_path) as child:
        rundir.publish(tmp_path, _info(child.pid))
        child.kill()
        child.wait()
        assert rundir.holder(tmp_path) is None
        with rundir.hold(tmp_path):
            assert not (tmp_path / rundir.RUN_NAME).exists()


def test_a_pid_is_not_believed_when_that_process_has_not_the_lock(tmp_path: Path) -> None:
    with _another_process(tmp_path):
        # As if the holder had not written its pid yet and a stranger had the old one.
        (tmp_path / rundir.LOCK_NAME).write_text("1\n")
        found = rundir.holder(tmp_path)
    assert found == rundir.Holder(None, None)


def test_a_note_of_an_earlier_process_is_ignored(tmp_path: Path) -> None:
    with _another_process(tmp_path) as child:
        rundir.publish(tmp_path, _info(child.pid + 1))
        assert rundir.holder(tmp_path) == rundir.Holder(child.pid, None)


def test_stopping_leaves_no_note_and_no_pid(tmp_path: Path) -> None:
    with rundir.hold(tmp_path):
        rundir.publish(tmp_path, _info(os.getpid()))
    assert not (tmp_path / rundir.RUN_NAME).exists()
    assert (tmp_path / rundir.LOCK_NAME).read_text() == ""
    assert rundir.holder(tmp_path) is None


def test_asking_who_holds_it_does_not_disturb_a_start(tmp_path: Path) -> None:
    for _ in range(50):
        with rundir.hold(tmp_path):
            assert rundir.holder(tmp_path) == rundir.Holder(os.getpid(), None)
        assert rundir.holder(tmp_path) is None


def test_the_directory_is_made_for_its_owner_only(tmp_path: Path) -> None:
    rundir.prepare(tmp_path / "a" / "b")
    assert (tmp_path / "a" / "b").stat().st_mode & 0o777 == 0o700


def test_a_file_in_the_way_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(rundir.RunDirError, match="file is not a directory"):
        rundir.prepare(tmp_path / "file")
    with pytest.raises(rundir.RunDirError, match="cannot make the data directory"):
        rundir.prepare(tmp_path / "file" / "below")
