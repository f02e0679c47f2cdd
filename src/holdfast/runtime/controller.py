"""The controller loop: a de-duplicating, rate-limited queue of keys and its workers.

A key is in work at most once: one that is enqueued while it is worked on runs again afterwards.
A reconciler is level-triggered: it gets a key, reads what is, does what is missing. It returns
`Done`, or `After(seconds)` to be called again; it raises to be retried with back-off, or
`Terminal` to be left alone until something changes.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Hashable
from typing import Any, NamedTuple

from holdfast.api import errors
from holdfast.kit.backoff import Backoff

log = logging.getLogger("holdfast.runtime")


class _Done(NamedTuple):
    """Nothing left to do until something changes."""


class After(NamedTuple):
    """Call again in so many seconds, or when something changes."""

    seconds: float


class Terminal(Exception):
    """Retrying will not help; wait for a change."""


Outcome = _Done | After
Done = _Done()
Reconcile = Callable[[Any], Awaitable[Outcome]]


class Controller:
    """One queue, `workers` workers, one reconcile function."""

    def __init__(
        self,
        name: str,
        reconcile: Reconcile,
        *,
        workers: int = 1,
        backoff: Backoff | None = None,
    ) -> None:
        self.name = name
        self._reconcile = reconcile
        self._workers = workers
        self._backoff = backoff or Backoff(0.05, 60.0)
        self._ready: asyncio.Queue[Hashable] = asyncio.Queue()
        self._dirty: set[Hashable] = set()
        self._processing: set[Hashable] = set()
        self._timers: dict[Hashable, asyncio.TimerHandle] = {}
        self._ended = False
        self.failures = 0

    def __len__(self) -> int:
        return len(self._dirty) + len(self._processing)

    def enqueue(self, key: Hashable) -> None:
        """Have the key reconciled soon; once, however often it is asked for."""
        if key in self._dirty or self._ended:
            return
        self._dirty.add(key)
        if key not in self._processing:
            self._ready.put_nowait(key)

    def enqueue_after(self, key: Hashable, seconds: float) -> None:
        """Have the key reconciled later; the earliest of several times counts."""
        loop = asyncio.get_running_loop()
        when = loop.time() + seconds
        timer = self._timers.get(key)
        if timer is not None:
            if timer.when() <= when:
                return
            timer.cancel()
        self._timers[key] = loop.call_at(when, self._fire, key)

    def _fire(self, key: Hashable) -> None:
        self._timers.pop(key, None)
        self.enqueue(key)

    async def run(self) -> None:
        """Work until cancelled."""
        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(self._workers):
                    group.create_task(self._work())
        finally:
            # Its handlers may stay subscribed; what they note from now on nobody would do.
            self._ended = True
            for timer in self._timers.values():
                timer.cancel()
            self._timers.clear()

    async def _work(self) -> None:
        while True:
            key = await self._ready.get()
            self._dirty.discard(key)
            self._processing.add(key)
            try:
                await self._once(key)
            finally:
                self._processing.discard(key)
                if key in self._dirty:
                    self._ready.put_nowait(key)

    async def _once(self, key: Hashable) -> None:
        try:
            outcome = await self._reconcile(key)
        except asyncio.CancelledError:
            # Something the reconciler waited for was cancelled, not the worker itself: were the
            # worker to end here, nobody would notice that the queue stands still.
            task = asyncio.current_task()
            if task is None or task.cancelling():
                raise
            self._failed(key, RuntimeError("what it waited for was cancelled"))
        except Terminal as error:
            self._backoff.forget(key)
            log.warning(
                "gave up until something changes",
                extra={"controller": self.name, "key": key, "error": str(error)},
            )
        except errors.Conflict as error:
            # Somebody else wrote first: the rule of the game, not a failure.
            log.debug("conflict", extra={"controller": self.name, "key": key, "error": str(error)})
            self.enqueue_after(key, self._backoff.next(key))
        except Exception as error:
            self._failed(key, error)
        else:
            self._backoff.forget(key)
            if isinstance(outcome, After):
                self.enqueue_after(key, outcome.seconds)

    def _failed(self, key: Hashable, error: Exception) -> None:
        self.failures += 1
        delay = self._backoff.next(key)
        log.warning(
            "reconcile failed, trying again",
            extra={
                "controller": self.name,
                "key": key,
                "seconds": round(delay, 3),
                "error": str(error) or repr(error),
            },
            exc_info=None if isinstance(error, errors.StatusError) else error,
        )
        self.enqueue_after(key, delay)
