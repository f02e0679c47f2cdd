"""One operation at a time on each volume, and a useful answer to whoever comes second.

A call starts an operation, which belongs to this object and not to the call: when
the caller gives up waiting, it goes on. The same call again joins it and gets its
answer. A different call for the same volume is told what is in work, at which step,
for how long, and how the last try failed (`faults.Busy`).

An operation on the whole volume excludes all others; operations on different parts
of it (one target path each) go on side by side.

Invariant: an operation is in the table exactly as long as its task runs.
"""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from google.protobuf.message import Message

from holdfast.csi import faults

T = TypeVar("T")

REMEMBERED_FAILURES = 1000


class Operation:
    """Work on one volume. Whoever does it writes the step it is at into `stage`."""

    def __init__(self, call: str, part: str, digest: bytes) -> None:
        self.call = call
        self.part = part
        self.digest = digest
        self.stage = ""
        self.began = time.monotonic()
        self.task: asyncio.Task[Any] | None = None

    def excludes(self, part: str) -> bool:
        """Return whether work on `part` has to wait for this one; "" is the whole volume."""
        return not self.part or not part or self.part == part


class Operations:
    """The operations in work, by volume."""

    def __init__(self) -> None:
        self._running: dict[str, list[Operation]] = {}
        self._failures: OrderedDict[str, tuple[float, str]] = OrderedDict()

    def __len__(self) -> int:
        """Return how many operations are in work."""
        return sum(map(len, self._running.values()))

    async def run(
        self,
        volume: str,
        request: Message,
        work: Callable[[Operation], Awaitable[T]],
        *,
        part: str = "",
    ) -> T:
        """Do the work, or join the same work in progress. Raises faults.Busy."""
        call = request.DESCRIPTOR.name.removesuffix("Request")
        # A digest, so that no secret is kept for as long as the operation takes.
        digest = hashlib.sha256(request.SerializeToString(deterministic=True)).digest()
        for other in self._running.get(volume, ()):
            if (other.call, other.digest) == (call, digest):
                assert other.task is not None
                joined: T = await asyncio.shield(other.task)
                return joined
            if other.excludes(part):
                raise self._busy(volume, other)
        operation = Operation(call, part, digest)
        operation.task = asyncio.ensure_future(_awaited(work(operation)))
        self._running.setdefault(volume, []).append(operation)
        operation.task.add_done_callback(lambda task: self._ended(volume, operation))
        done: T = await asyncio.shield(operation.task)
        return done

    async def close(self, seconds: float = 20.0) -> None:
        """Wait for what is in work, then give it up; everything may be repeated later."""
        tasks = [each.task for found in self._running.values() for each in found if each.task]
        if not tasks:
            return
        _, late = await asyncio.wait(tasks, timeout=seconds)
        for task in late:
            task.cancel()
        if late:
            await asyncio.wait(late)

    def _ended(self, volume: str, operation: Operation) -> None:
        found = self._running[volume]
        found.remove(operation)
        if not found:
            del self._running[volume]
        assert operation.task is not None
        # Asking for the exception also says that somebody has seen it.
        error = None if operation.task.cancelled() else operation.task.exception()
        self._failures.pop(volume, None)
        if error is not None:
            self._failures[volume] = (time.monotonic(), f"{operation.call}: {error}")
            while len(self._failures) > REMEMBERED_FAILURES:
                self._failures.popitem(last=False)

    def _busy(self, volume: str, other: Operation) -> faults.Busy:
        now = time.monotonic()
        stage = f" ({other.stage})" if other.stage else ""
        text = f"{other.call} is in work for {now - other.began:.1f} s{stage}"
        if volume in self._failures:
            at, failure = self._failures[volume]
            text += f"; the try before it failed {now - at:.0f} s ago: {failure}"
        return faults.Busy(text, f'volume "{volume}"', "try again when it has ended")


async def _awaited(work: Awaitable[T]) -> T:
    return await work
