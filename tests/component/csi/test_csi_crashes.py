"""A driver killed in the middle of a call: the call repeated succeeds, and nothing is left."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
import pytest

import drivers
from holdfast.testing import csiclient
from lifecycle import Cycle

pytestmark = pytest.mark.root

Step = Callable[[csiclient.Client], Any]
PROGRAM = (str(Path(drivers.__file__).with_name("dying.py")),)

SYSCALLS = "holdfast.node.syscalls"
# Where it is killed: function, which call of it, before or after.
IMAGE = [
    "holdfast.backends.local.records.save 1 before",
    "holdfast.backends.local.records.save 1 after",
    "holdfast.csi.staging.write 1 after",
    "holdfast.node.journal.write 1 after",
    "holdfast.node.devices._configure 1 before",
    "holdfast.node.devices._configure 1 after",
    "holdfast.node.filesystems.make 1 before",
    "holdfast.node.filesystems.make 1 after",
    f"{SYSCALLS}.mount 1 before",
    f"{SYSCALLS}.mount 1 after",
    f"{SYSCALLS}.mount 2 after",
    f"{SYSCALLS}.mount 3 after",
    f"{SYSCALLS}.mount 5 before",
    f"{SYSCALLS}.mount 5 after",
    f"{SYSCALLS}.unmount 1 before",
    f"{SYSCALLS}.unmount 1 after",
    f"{SYSCALLS}.unmount 2 before",
    f"{SYSCALLS}.unmount 2 after",
    "holdfast.node.devices._clear 1 before",
    "holdfast.node.devices._clear 1 after",
    "holdfast.csi.staging.remove 1 before",
    "holdfast.backends.local.usage.refuse 1 after",
    "holdfast.backends.local.usage.refuse 2 after",
]
DIRECTORY = [
    "holdfast.backends.local.directories.make 1 after",
    f"{SYSCALLS}.mount 1 after",
    f"{SYSCALLS}.mount 3 after",
    f"{SYSCALLS}.mount 4 after",
    f"{SYSCALLS}.unmount 1 after",
    f"{SYSCALLS}.unmount 2 after",
    "holdfast.backends.local.usage.refuse 2 after",
]
CASES = [("image", where) for where in IMAGE] + [("directory", where) for where in DIRECTORY]


@pytest.mark.parametrize(("layout", "where"), CASES)
def test_a_call_that_was_killed_can_be_repeated(directory: Path, layout: str, where: str) -> None:
    cycle = Cycle(directory, layout, read_only=True)
    with drivers.Driver(directory, program=PROGRAM) as driver:
        driver.start(HOLDFAST_DIE=where)
        killed = _run(driver, cycle)
        assert killed, f"nothing called {where}"
        driver.start()
        with csiclient.connect(driver.socket) as csi:
            steps = cycle.steps()
            for step in steps[steps.index(killed[0]) :]:
                step(csi)
                # Also what was done twice is done once.
                step(csi)
        assert driver.stop() == 0
        assert drivers.mounted_below(directory) == []
        assert drivers.loops_below(directory) == []
        volumes = directory / "data" / "csi" / drivers.LOCAL / "volumes"
        assert list(volumes.iterdir()) == []
        assert list(cycle.staging.iterdir()) == []


def _run(driver: drivers.Driver, cycle: Cycle) -> list[Step]:
    """Go on until the driver dies; give the step at which it did."""
    with csiclient.connect(driver.socket) as csi:
        for step in cycle.steps():
            try:
                step(csi)
            except grpc.RpcError as error:
                assert error.code() == grpc.StatusCode.UNAVAILABLE, error
                assert driver.process.wait(10) == -9
                return [step]
    return []
