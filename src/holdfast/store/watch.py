"""Watchers: each gets the committed changes of one bucket, in order, without gaps.

The hub pushes to every watcher of a bucket when a batch has been committed. A watcher that does
not read keeps at most `LIMIT` changes; then it is cut off (`overflowed`) and its owner has to
list again. A slow reader can so never hold memory or stall the writer.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

from holdfast.store.records import Event

LIMIT = 20_000


class Watcher:
    """A queue of changes; iterate with `batch` until `closed`."""

    def __init__(self, hub: Hub, bucket: str, backlog: Iterable[Event]) -> None:
        self._hub = hub
        self.bucket = bucket
        self._events: list[Event] = list(backlog)
        self._waiter: asyncio.Future[None] | None = None
        self.overflowed = False
        self.closed = False

    def push(self, event: Event) -> None:
        """Called by the hub, in commit order."""
        if self.closed:
            return
        if len(self._events) >= LIMIT:
            self.overflowed = True
            self._events.clear()
            self.close()
            return
        self._events.append(event)
        self._wake()

    async def batch(self) -> list[Event]:
        """Everything that has come in, waiting for at least one change; empty once closed."""
        while not self._events and not self.closed:
            self._waiter = asyncio.get_running_loop().create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None
        return self.take()

    def take(self) -> list[Event]:
        """Everything that has come in, without waiting."""
        events, self._events = self._events, []
        return events

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def close(self) -> None:
        """Stop receiving; a pending `batch` returns what is left."""
        if not self.closed:
            self.closed = True
            self._hub.forget(self)
            self._wake()


class Hub:
    """The watchers of every bucket."""

    def __init__(self) -> None:
        self._watchers: dict[str, set[Watcher]] = {}

    def watch(self, bucket: str, backlog: Iterable[Event]) -> Watcher:
        """A new watcher that sees `backlog` first."""
        watcher = Watcher(self, bucket, backlog)
        self._watchers.setdefault(bucket, set()).add(watcher)
        return watcher

    def forget(self, watcher: Watcher) -> None:
        """Drop a closed watcher."""
        group = self._watchers.get(watcher.bucket)
        if group is not None:
            group.discard(watcher)
            if not group:
                del self._watchers[watcher.bucket]

    def publish(self, events: Iterable[Event]) -> None:
        """Hand one committed batch to whoever watches."""
        for event in events:
            watchers = self._watchers.get(event.record.bucket)
            if watchers:
                for watcher in tuple(watchers):
                    watcher.push(event)

    def count(self) -> int:
        """How many watchers are open."""
        return sum(map(len, self._watchers.values()))

    def close(self) -> None:
        """End every watch."""
        for group in list(self._watchers.values()):
            for watcher in list(group):
                watcher.close()
