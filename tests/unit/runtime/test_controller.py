"""The queue and its workers, in virtual time."""

from __future__ import annotations

import asyncio
import logging
import random
from collections import Counter
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any

import pytest

from holdfast.api import errors
from holdfast.kit.backoff import Backoff
from holdfast.runtime.controller import After, Controller, Done, Outcome, Terminal

RunVirtually = Callable[[Coroutine[Any, Any, None]], float]


@asynccontextmanager
async def running(controller: Controller) -> AsyncIterator[None]:
    async with asyncio.TaskGroup() as group:
        task = group.create_task(controller.run())
        yield
        task.cancel()


class Calls:
    """A reconciler that notes when it was called and does what the script says next."""

    def __init__(self, *script: Outcome | BaseException, takes: float = 0.0) -> None:
        self.times: list[float] = []
        self.script = list(script)
        self.takes = takes

    async def __call__(self, key: str) -> Outcome:
        self.times.append(round(asyncio.get_running_loop().time(), 6))
        await asyncio.sleep(self.takes)
        outcome = self.script.pop(0) if self.script else Done
        if isinstance(outcome, BaseException):
            raise outcome
        return outcome


async def settle(seconds: float = 1000.0) -> None:
    await asyncio.sleep(seconds)


def test_a_key_asked_for_often_is_reconciled_once(run_virtually: RunVirtually) -> None:
    async def work() -> None:
        calls = Calls()
        controller = Controller("test", calls)
        for _ in range(5):
            controller.enqueue("a")
        assert len(controller) == 1
        async with running(controller):
            await settle()
        assert (calls.times, len(controller)) == ([0.0], 0)

    run_virtually(work())


def test_a_key_asked_for_while_in_work_runs_once_more_and_never_twice_at_once(
    run_virtually: RunVirtually,
) -> None:
    async def work() -> None:
        calls = Calls(takes=1.0)
        controller = Controller("test", calls, workers=4)
        async with running(controller):
            controller.enqueue("a")
            await asyncio.sleep(0.5)
            for _ in range(5):
                controller.enqueue("a")
            await settle()
        assert calls.times == [0.0, 1.0]

    run_virtually(work())


def test_different_keys_are_worked_on_at_once(run_virtually: RunVirtually) -> None:
    async def work() -> None:
        calls = Calls(takes=1.0)
        controller = Controller("test", calls, workers=2)
        async with running(controller):
            for key in "abc":
                controller.enqueue(key)
            await settle()
        assert calls.times == [0.0, 0.0, 1.0]

    run_virtually(work())


def test_after_calls_again_at_that_time(run_virtually: RunVirtually) -> None:
    async def work() -> None:
        calls = Calls(After(5), After(0.5), Done)
        async with running(controller := Controller("test", calls)):
            controller.enqueue("a")
            await settle()
        assert calls.times == [0.0, 5.0, 5.5]

    run_virtually(work())


def test_of_several_times_the_earliest_counts(run_virtually: RunVirtually) -> None:
    async def work() -> None:
        calls = Calls()
        async with running(controller := Controller("test", calls)):
            for seconds in (7.0, 3.0, 5.0):
                controller.enqueue_after("a", seconds)
            await settle()
        assert calls.times == [3.0]

    run_virtually(work())


def test_a_change_is_not_held_up_by_a_later_time(run_virtually: RunVirtually) -> None:
    async def work() -> None:
        calls = Calls(After(100))
        async with running(controller := Controller("test", calls)):
            controller.enqueue("a")
            await asyncio.sleep(1)
            controller.enqueue("a")
            await asyncio.sleep(1)
            assert calls.times == [0.0, 1.0]

    run_virtually(work())


def test_errors_are_retried_with_growing_delays_until_success(
    run_virtually: RunVirtually, caplog: pytest.LogCaptureFixture
) -> None:
    async def work() -> None:
        calls = Calls(ValueError("one"), OSError("two"), errors.InternalError("three"), Done)
        controller = Controller("test", calls, backoff=Backoff(1, 60))
        async with running(controller):
            controller.enqueue("a")
            await settle()
            assert calls.times == [0.0, 1.0, 3.0, 7.0]
            # A success starts the delays anew.
            calls.times.clear()
            calls.script = [ValueError("four")]
            controller.enqueue("a")
            await settle()
            assert calls.times == [1000.0, 1001.0]
        assert controller.failures == 4

    run_virtually(work())
    assert [r.message for r in caplog.records] == ["reconcile failed, trying again"] * 4
    # An answer of the API says all there is; anything else needs its traceback.
    assert [bool(r.exc_info) for r in caplog.records] == [True, True, False, True]
    assert [vars(r)["error"] for r in caplog.records] == ["one", "two", "three", "four"]


def test_failures_of_one_key_do_not_delay_another(run_virtually: RunVirtually) -> None:
    async def work() -> None:
        times: list[float] = []

        async def reconcile(key: str) -> Outcome:
            if key == "bad":
                raise ValueError
            times.append(asyncio.get_running_loop().time())
            return Done

        async with running(controller := Controller("test", reconcile, backoff=Backoff(1, 60))):
            controller.enqueue("bad")
            await asyncio.sleep(100)
            controller.enqueue("good")
            await asyncio.sleep(1)
        assert times == [100.0]

    run_virtually(work())


def test_a_conflict_is_retried_and_is_no_failure(
    run_virtually: RunVirtually, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)

    async def work() -> None:
        calls = Calls(errors.Conflict.of("", "persistentvolumes", "pv1"), Done)
        async with running(controller := Controller("test", calls)):
            controller.enqueue("a")
            await settle()
        assert (calls.times, controller.failures) == ([0.0, 0.05], 0)

    run_virtually(work())
    assert caplog.records == []


def test_terminal_waits_for_the_next_change(
    run_virtually: RunVirtually, caplog: pytest.LogCaptureFixture
) -> None:
    async def work() -> None:
        calls = Calls(Terminal("the class has no provisioner"))
        async with running(controller := Controller("test", calls)):
            controller.enqueue("a")
            await settle()
            assert (calls.times, controller.failures) == ([0.0], 0)
            controller.enqueue("a")
            await settle()
        assert calls.times == [0.0, 1000.0]

    run_virtually(work())
    assert [vars(r)["error"] for r in caplog.records] == ["the class has no provisioner"]


def test_a_change_during_a_terminal_run_is_not_lost(run_virtually: RunVirtually) -> None:
    async def work() -> None:
        calls = Calls(Terminal("no"), takes=1.0)
        async with running(controller := Controller("test", calls)):
            controller.enqueue("a")
            await asyncio.sleep(0.5)
            controller.enqueue("a")
            await settle()
        assert calls.times == [0.0, 1.0]

    run_virtually(work())


def test_a_worker_survives_the_cancellation_of_what_it_waits_for(
    run_virtually: RunVirtually,
) -> None:
    async def work() -> None:
        calls = Calls(asyncio.CancelledError(), Done)
        controller = Controller("test", calls, backoff=Backoff(1, 60))
        async with running(controller):
            controller.enqueue("a")
            await settle()
            controller.enqueue("b")
            await settle()
        assert (calls.times, controller.failures) == ([0.0, 1.0, 1000.0], 1)

    run_virtually(work())


def test_a_cancelled_controller_ends_at_once_and_leaves_no_timers(
    run_virtually: RunVirtually,
) -> None:
    async def work() -> None:
        calls = Calls(takes=1000.0)
        controller = Controller("test", calls, workers=3)
        task = asyncio.create_task(controller.run())
        controller.enqueue("a")
        controller.enqueue_after("b", 5)
        await asyncio.sleep(1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await asyncio.sleep(10)
        assert calls.times == [0.0] and controller._timers == {}

    assert run_virtually(work()) == pytest.approx(11)


@pytest.mark.parametrize("seed", range(10))
def test_whatever_happens_the_last_change_is_seen_and_no_key_runs_twice_at_once(
    run_virtually: RunVirtually, seed: int
) -> None:
    chance = random.Random(seed)
    wanted: Counter[str] = Counter()
    seen: dict[str, int] = {}
    active: set[str] = set()

    async def reconcile(key: str) -> Outcome:
        assert key not in active
        active.add(key)
        read = wanted[key]
        await asyncio.sleep(chance.choice([0, 0.01, 0.3]))
        active.discard(key)
        match chance.randrange(5):
            case 0:
                raise ValueError("chance")
            case 1:
                raise errors.Conflict.of("", "pods", key)
        seen[key] = read
        return After(1) if chance.random() < 0.1 else Done

    async def work() -> None:
        async with running(controller := Controller("test", reconcile, workers=3)):
            for _ in range(300):
                key = chance.choice("abcd")
                wanted[key] += 1
                controller.enqueue(key)
                await asyncio.sleep(chance.choice([0, 0, 0.005, 0.1]))
            await settle()
            assert seen == dict(wanted) and len(controller) == 0

    run_virtually(work())
