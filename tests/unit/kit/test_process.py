"""Running real programs: output, input, exit codes, time-outs and clean-up."""

from __future__ import annotations

import asyncio
import os
import time
from pathlib import Path

import pytest

from holdfast.kit import process


async def test_output_of_both_streams_is_returned() -> None:
    done = await process.run(["sh", "-c", "echo out; echo err >&2"])
    assert (done.stdout, done.stderr) == (b"out\n", b"err\n")


async def test_input_reaches_the_program_whole() -> None:
    data = os.urandom(300_000)
    assert (await process.run(["cat"], input=data)).stdout == data


async def test_a_program_that_ignores_its_input_still_succeeds() -> None:
    assert (await process.run(["true"], input=b"x" * 1_000_000)).stdout == b""


async def test_the_locale_is_c_and_env_is_added() -> None:
    done = await process.run(["sh", "-c", "echo $LC_ALL $EXTRA $HOME"], env={"EXTRA": "e"})
    assert done.stdout.decode().split() == ["C", "e", os.environ["HOME"]]


async def test_a_failure_names_command_code_and_last_words() -> None:
    with pytest.raises(process.CommandFailed) as caught:
        await process.run(["sh", "-c", "echo one >&2; echo 'no space' >&2; exit 3"])
    assert caught.value.code == 3
    assert caught.value.argv[0] == "sh"
    assert caught.value.stderr == b"one\nno space\n"
    assert str(caught.value).endswith("failed (exit 3): one; no space")


async def test_a_program_killed_by_a_signal_says_so() -> None:
    with pytest.raises(process.CommandFailed) as caught:
        await process.run(["sh", "-c", "kill -TERM $$"])
    assert caught.value.code == -15
    assert "(signal 15)" in str(caught.value)


async def test_a_missing_program_is_named() -> None:
    with pytest.raises(process.CommandMissing) as caught:
        await process.run(["no-such-program-here", "x"])
    assert caught.value.program == "no-such-program-here"
    assert "install the package that provides no-such-program-here" in str(caught.value)


async def test_a_file_that_cannot_be_run_is_a_failure(tmp_path: Path) -> None:
    plain = tmp_path / "plain"
    plain.write_text("x")
    with pytest.raises(process.CommandFailed) as caught:
        await process.run([str(plain)])
    assert caught.value.code == 126
    assert "Permission denied" in str(caught.value)


async def test_a_timeout_kills_the_whole_group(tmp_path: Path) -> None:
    pid_file = tmp_path / "pid"
    script = f"echo partial >&2; sleep 60 & echo $! > {pid_file}; wait"
    with pytest.raises(process.CommandTimedOut) as caught:
        await process.run(["sh", "-c", script], timeout=0.3)
    assert caught.value.stderr == b"partial\n"
    assert "did not finish within 0.3 s and was killed: partial" in str(caught.value)
    await asyncio.to_thread(_wait_until_gone, int(pid_file.read_text()))


async def test_cancellation_kills_and_reaps_the_child(tmp_path: Path) -> None:
    pid_file = tmp_path / "pid"
    task = asyncio.create_task(process.run(["sh", "-c", f"echo $$ > {pid_file}; sleep 60"]))
    pid = await asyncio.to_thread(_wait_for_pid, pid_file)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert _state(pid) is None


async def test_a_daemon_left_behind_does_not_hold_up_the_caller(tmp_path: Path) -> None:
    started = time.monotonic()
    pid_file = tmp_path / "pid"
    done = await process.run(["sh", "-c", f"sleep 30 & echo $! > {pid_file}; echo done"])
    assert done.stdout == b"done\n"
    assert time.monotonic() - started < 10
    os.kill(int(pid_file.read_text()), 9)


def _state(pid: int) -> str | None:
    """Return the state letter of a process, None when it does not exist."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return None


def _wait_for_pid(pid_file: Path) -> int:
    for _ in range(1000):
        if pid_file.exists() and (text := pid_file.read_text().strip()):
            return int(text)
        time.sleep(0.01)
    raise AssertionError("the program did not start")


def _wait_until_gone(pid: int) -> None:
    """Wait for a grandchild; a zombie counts, since collecting it is up to init."""
    for _ in range(300):
        if _state(pid) in (None, "Z"):
            return
        time.sleep(0.01)
    raise AssertionError(f"process {pid} is still running")
