"""Processes that live on their own: started, waited for, never confused."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path

import pytest

from holdfast.kit import process


async def test_a_child_leads_its_own_session_and_gives_its_code(tmp_path: Path) -> None:
    out = os.open(tmp_path / "out", os.O_WRONLY | os.O_CREAT)
    child = process.spawn(["sh", "-c", "ps -o sid= -p $$; exit 7"], stdout=out)
    os.close(out)
    assert await child.wait() == 7 and await child.wait() == 7
    assert int((tmp_path / "out").read_text()) == child.pid


async def test_several_can_wait_and_a_signal_shows_as_a_negative_code() -> None:
    child = process.spawn(["sleep", "60"])
    waits = [asyncio.create_task(child.wait()) for _ in range(3)]
    await asyncio.sleep(0.05)
    child.kill_session()
    assert await asyncio.gather(*waits) == [-signal.SIGKILL] * 3
    child.kill_session()


async def test_only_what_is_named_is_inherited(tmp_path: Path) -> None:
    read, write = os.pipe()
    child = process.spawn(["sh", "-c", "echo hello >&3; ls /proc/self/fd >&3"], inherit=[write])
    os.close(write)
    assert await child.wait() == 0
    lines = os.read(read, 4096).decode().split()
    os.close(read)
    assert lines[0] == "hello" and len(lines) <= 6


async def test_the_environment_is_the_given_one(tmp_path: Path) -> None:
    out = os.open(tmp_path / "out", os.O_WRONLY | os.O_CREAT)
    child = process.spawn(["env"], stdout=out, env={"ONLY": "this"})
    os.close(out)
    assert await child.wait() == 0
    assert (tmp_path / "out").read_text() == "ONLY=this\n"


async def test_ignored_signals_of_python_are_not_passed_on(tmp_path: Path) -> None:
    out = os.open(tmp_path / "out", os.O_WRONLY | os.O_CREAT)
    child = process.spawn(["grep", "SigIgn", "/proc/self/status"], stdout=out)
    os.close(out)
    await child.wait()
    assert int((tmp_path / "out").read_text().split()[1], 16) & 1 << (signal.SIGPIPE - 1) == 0


def test_a_missing_program_is_named() -> None:
    with pytest.raises(process.CommandMissing, match="no-such-program"):
        process.spawn(["no-such-program"])
