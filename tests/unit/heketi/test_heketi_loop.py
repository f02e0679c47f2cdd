"""Bricks as images: a directory that is in use is never given to another device."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path

import pytest

from holdfast.heketi import errors
from holdfast.heketi.executors import turns
from holdfast.heketi.executors.loop import MARK, LoopLayout
from holdfast.heketi.executors.mounts import Mounting
from holdfast.heketi.executors.protocol import Disk, Output

KEY = "b" * 32


class _Machine:
    """Runs commands here; what is mounted is told by the test."""

    def __init__(self) -> None:
        self.mounts = ""

    async def run(
        self, host: str, argv: Sequence[str], *, timeout: float = 600.0, check: bool = True
    ) -> Output:
        if list(argv) == ["cat", "/proc/self/mounts"]:
            return Output(0, self.mounts, "")
        process = await asyncio.create_subprocess_exec(*argv, stdout=-1, stderr=-1)
        said, complaint = await process.communicate()
        done = Output(process.returncode or 0, said.decode(), complaint.decode())
        turns.judge(host, argv, done, check)
        return done

    async def close(self) -> None:
        """Nothing is open."""


async def test_images_that_are_mounted_are_not_given_up_for_another_device(tmp_path: Path) -> None:
    machine = _Machine()
    layout = LoopLayout(machine, Mounting(), 50 * 1024 * 1024)
    disk = tmp_path / "disk"
    disk.mkdir()
    await layout.prepare("h", Disk("1" * 32, str(disk)), destroy=False)
    image = disk / f"brick_{KEY}.img"
    image.touch()
    # The same directory by another path, which is another name for the service.
    same = Disk("2" * 32, f"{disk}/.")
    machine.mounts = f"/dev/loop7 /var/lib/heketi/mounts/vg_{'1' * 32}/brick_{KEY} xfs rw 0 0\n"
    with pytest.raises(errors.ExecutionFailed, match="its bricks are mounted"):
        await layout.prepare("h", same, destroy=True)
    assert image.exists() and (disk / MARK).read_text().strip() == "1" * 32
    machine.mounts = ""
    await layout.prepare("h", same, destroy=True)
    assert not image.exists() and (disk / MARK).read_text().strip() == "2" * 32
