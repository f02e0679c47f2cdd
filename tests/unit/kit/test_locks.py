"""Keyed locks: exclusion per key, no exclusion between keys, no leftovers."""

from __future__ import annotations

import asyncio

import pytest

from holdfast.kit.locks import KeyedLocks


async def test_one_key_is_held_by_one_task_at_a_time_in_order() -> None:
    locks = KeyedLocks()
    seen: list[str] = []

    async def work(name: str) -> None:
        async with locks.hold("volume"):
            seen.append(f"{name} in")
            await asyncio.sleep(0)
            seen.append(f"{name} out")

    async with asyncio.TaskGroup() as group:
        for name in "abc":
            group.create_task(work(name))
    assert seen == ["a in", "a out", "b in", "b out", "c in", "c out"]


async def test_different_keys_do_not_wait_for_each_other() -> None:
    locks = KeyedLocks()
    async with asyncio.timeout(5), locks.hold("a"), locks.hold("b"):
        assert len(locks) == 2


async def test_idle_keys_are_forgotten_also_after_errors_and_cancellation() -> None:
    locks = KeyedLocks()
    with pytest.raises(RuntimeError):
        async with locks.hold("a"):
            raise RuntimeError("work failed")

    async def wait() -> None:
        async with locks.hold("b"):
            raise AssertionError("the lock is taken")

    async with locks.hold("b"):
        waiter = asyncio.create_task(wait())
        await asyncio.sleep(0)
        waiter.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiter
        assert len(locks) == 1
    assert len(locks) == 0
