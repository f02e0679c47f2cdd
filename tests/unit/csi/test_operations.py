"""Operations on volumes: repeats join, others are told what is going on."""

from __future__ import annotations

import asyncio

import pytest

from holdfast.backends import errors
from holdfast.csi import faults
from holdfast.csi.operations import REMEMBERED_FAILURES, Operation, Operations
from holdfast.csi.wire import csi_pb2

DELETE = csi_pb2.DeleteVolumeRequest(volume_id="a")
EXPAND = csi_pb2.ControllerExpandVolumeRequest(volume_id="a")


class Work:
    """Something that takes until it is let go."""

    def __init__(self) -> None:
        self.runs = 0
        self.go = asyncio.Event()
        self.begun = asyncio.Event()

    async def __call__(self, operation: Operation) -> str:
        self.runs += 1
        operation.stage = "doing the work"
        self.begun.set()
        await self.go.wait()
        return f"done {self.runs}"


async def test_the_same_call_joins_the_one_in_work_and_gets_its_answer() -> None:
    operations, work = Operations(), Work()
    calls = [asyncio.create_task(operations.run("a", DELETE, work)) for _ in range(5)]
    await work.begun.wait()
    work.go.set()
    assert await asyncio.gather(*calls) == ["done 1"] * 5
    assert len(operations) == 0


async def test_another_call_is_told_what_is_in_work_and_how_the_last_try_failed() -> None:
    async def failing(operation: Operation) -> str:
        raise errors.Unavailable("the array does not answer", "array-1", "look at it")

    operations, work = Operations(), Work()
    with pytest.raises(errors.Unavailable):
        await operations.run("a", EXPAND, failing)
    running = asyncio.create_task(operations.run("a", EXPAND, work))
    await work.begun.wait()
    with pytest.raises(faults.Busy) as busy:
        await operations.run("a", DELETE, work)
    text = str(busy.value)
    assert "ControllerExpandVolume is in work for 0." in text
    assert "(doing the work)" in text
    assert "failed 0 s ago: ControllerExpandVolume: array-1: the array does not answer" in text
    work.go.set()
    assert await running == "done 1"


async def test_a_success_forgets_the_failure_before_it() -> None:
    async def failing(operation: Operation) -> None:
        raise errors.Unavailable("no")

    async def fine(operation: Operation) -> None: ...

    operations, work = Operations(), Work()
    with pytest.raises(errors.Unavailable):
        await operations.run("a", EXPAND, failing)
    await operations.run("a", EXPAND, fine)
    running = asyncio.create_task(operations.run("a", EXPAND, work))
    await work.begun.wait()
    with pytest.raises(faults.Busy) as busy:
        await operations.run("a", DELETE, work)
    assert "failed" not in str(busy.value)
    work.go.set()
    await running


async def test_work_goes_on_when_its_caller_gives_up_and_a_repeat_gets_the_answer() -> None:
    operations, work = Operations(), Work()
    impatient = asyncio.create_task(operations.run("a", DELETE, work))
    await work.begun.wait()
    impatient.cancel()
    await asyncio.wait([impatient])
    repeat = asyncio.create_task(operations.run("a", DELETE, work))
    await asyncio.sleep(0)
    work.go.set()
    assert await repeat == "done 1"


async def test_parts_of_a_volume_go_side_by_side_and_the_whole_excludes_them() -> None:
    operations, one, two = Operations(), Work(), Work()
    first = csi_pb2.NodePublishVolumeRequest(volume_id="a", target_path="/one")
    second = csi_pb2.NodePublishVolumeRequest(volume_id="a", target_path="/two")
    runs = [
        asyncio.create_task(operations.run("a", first, one, part="/one")),
        asyncio.create_task(operations.run("a", second, two, part="/two")),
    ]
    await one.begun.wait()
    await two.begun.wait()
    unstage = csi_pb2.NodeUnstageVolumeRequest(volume_id="a")
    with pytest.raises(faults.Busy):
        await operations.run("a", unstage, Work())
    gone = csi_pb2.NodeUnpublishVolumeRequest(volume_id="a", target_path="/one")
    with pytest.raises(faults.Busy):
        await operations.run("a", gone, Work(), part="/one")
    one.go.set()
    two.go.set()
    await asyncio.gather(*runs)


async def test_other_volumes_do_not_wait() -> None:
    operations, slow, quick = Operations(), Work(), Work()
    running = asyncio.create_task(operations.run("a", DELETE, slow))
    await slow.begun.wait()
    quick.go.set()
    assert await operations.run("b", DELETE, quick) == "done 1"
    slow.go.set()
    await running


async def test_closing_waits_for_work_and_gives_up_what_takes_too_long() -> None:
    operations, work = Operations(), Work()
    running = asyncio.create_task(operations.run("a", DELETE, work))
    await work.begun.wait()
    await operations.close(0.01)
    assert len(operations) == 0
    with pytest.raises(asyncio.CancelledError):
        await running


async def test_failures_of_volumes_that_never_come_back_are_forgotten() -> None:
    async def failing(operation: Operation) -> None:
        raise errors.Unavailable("no")

    operations = Operations()
    for number in range(REMEMBERED_FAILURES + 10):
        with pytest.raises(errors.Unavailable):
            await operations.run(f"volume-{number}", DELETE, failing)
    assert len(operations._failures) == REMEMBERED_FAILURES
