"""The store: current objects in memory, every change appended to disk, watchers told.

One event loop owns a `Store`. A write is *staged* at once (its revision is given, and
`latest` shows it to the next writer) and *committed* later together with every other write
staged meanwhile: one transaction, one fsync, for as many writers as there are. Readers and
watchers see a change only when it is committed.

The invariant: writes are committed in the order they were staged, so a write that was built on
a staged one never outlives it. If a commit fails, everything staged fails with it and the store
is again exactly what is on disk.
"""

from __future__ import annotations

import asyncio
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from operator import attrgetter, itemgetter
from pathlib import Path
from typing import Any, NamedTuple

from holdfast.store import errors
from holdfast.store.database import Database, Row
from holdfast.store.records import Event, Record
from holdfast.store.watch import Hub, Watcher

# How many changes stay in memory for watchers that resume; also the least a compaction keeps.
HISTORY = 10_000

Build = Callable[[int], tuple[bytes, dict[str, Any]]]
_Key = tuple[str, str]
_revision_of = attrgetter("revision")


class _Write(NamedTuple):
    record: Record
    deleted: bool
    done: asyncio.Future[Record]


class Store:
    """See the module's text. Open with `Store.open`, end with `close`."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="store")
        self._hub = Hub()
        self._current: dict[str, dict[str, Record]] = {}
        # Keys in order, until an object is added or deleted.
        self._sorted: dict[str, list[str]] = {}
        # The newest staged write of a key and its revision; None for a deletion.
        self._staged: dict[_Key, tuple[int, Record | None]] = {}
        self._queue: list[_Write] = []
        self._in_flight: list[_Write] = []
        self._idle: asyncio.Future[None] | None = None
        self._closed = False
        self._history: list[Event] = []
        # (revision that superseded it, superseded revision), oldest first.
        self._superseded: list[tuple[int, int]] = []
        self.floor = database.compacted()
        self.revision = self.floor
        self._load(database.rows())
        self._next = self.revision + 1

    @classmethod
    def open(cls, path: Path) -> Store:
        """Open or make the file; raises `StoreCorrupt`, `StoreLocked`, `StoreUnwritable`."""
        database = Database(path)
        try:
            return cls(database)
        except BaseException:
            database.close()
            raise

    def _load(self, rows: Iterable[Row]) -> None:
        for row in rows:
            record = Record(row.bucket, row.key, row.revision, row.created, row.value)
            self._apply(record, bool(row.deleted))
        # Live rows may be older than the floor, which is then the newest revision there is.
        self.revision = max(self.revision, self.floor)
        self._forget_history(self.floor)
        self._trim()

    # Reading: committed state only.

    def get(self, bucket: str, key: str) -> Record | None:
        """The committed record."""
        objects = self._current.get(bucket)
        return objects.get(key) if objects else None

    def scan(self, bucket: str, prefix: str = "") -> list[Record]:
        """The committed records of a bucket whose key has the prefix, in key order."""
        objects = self._current.get(bucket, {})
        keys = self._sorted.get(bucket)
        if keys is None:
            keys = self._sorted[bucket] = sorted(objects)
        if prefix:
            start = bisect_left(keys, prefix)
            keys = keys[start : bisect_left(keys, prefix + "\U0010ffff", lo=start)]
        return [objects[key] for key in keys]

    def scan_latest(self, bucket: str, prefix: str = "") -> list[Record]:
        """The newest records of a bucket, staged or committed, in no particular order."""
        found = {record.key: record for record in self.scan(bucket, prefix)}
        for (owner, key), (_, record) in self._staged.items():
            if owner == bucket and key.startswith(prefix):
                if record is None:
                    found.pop(key, None)
                else:
                    found[key] = record
        return list(found.values())

    def count(self, bucket: str) -> int:
        """How many objects the bucket holds."""
        return len(self._current.get(bucket, ()))

    def watchers(self) -> int:
        """How many watches are open."""
        return self._hub.count()

    def watch(self, bucket: str, after: int) -> Watcher:
        """Changes of the bucket after a revision; raises `Compacted` or `FutureRevision`."""
        if after < self.floor:
            raise errors.Compacted(after, self.floor)
        if after > self.revision:
            raise errors.FutureRevision(after, self.revision)
        backlog: list[Event] = []
        if after < self.revision:
            start = bisect_right(self._history, after, key=_revision_of)
            backlog = [e for e in self._history[start:] if e.record.bucket == bucket]
        return self._hub.watch(bucket, backlog)

    def scan_at(self, bucket: str, revision: int, prefix: str = "") -> list[Record]:
        """The bucket as it was at a revision; raises as `watch` does."""
        if revision < self.floor:
            raise errors.Compacted(revision, self.floor)
        if revision > self.revision:
            raise errors.FutureRevision(revision, self.revision)
        objects = dict(self._current.get(bucket, {}))
        for event in reversed(self._history):
            if event.revision <= revision:
                break
            if event.record.bucket == bucket:
                if event.previous is None:
                    objects.pop(event.record.key, None)
                else:
                    objects[event.record.key] = event.previous
        return [objects[key] for key in sorted(objects) if key.startswith(prefix)]

    # Writing: what the next writer must build on may not be committed yet.

    def latest(self, bucket: str, key: str) -> Record | None:
        """The newest record, staged or committed: what a writer compares with."""
        staged = self._staged.get((bucket, key))
        return self.get(bucket, key) if staged is None else staged[1]

    def put(self, bucket: str, key: str, build: Build) -> asyncio.Future[Record]:
        """Stage a new revision made by `build(revision) -> (json, object)`.

        Call it in the same step of the loop as the `latest` it depends on. The future is done
        when the change is on disk; it fails with a `StoreError` when it could not be written.
        What `build` raises comes out here, and nothing was staged.
        """
        return self._stage(bucket, key, build, deleted=False)

    def delete(self, bucket: str, key: str, build: Build) -> asyncio.Future[Record]:
        """Stage a deletion; `build` makes the object's last state at the deletion's revision."""
        return self._stage(bucket, key, build, deleted=True)

    def _stage(
        self, bucket: str, key: str, build: Build, *, deleted: bool
    ) -> asyncio.Future[Record]:
        loop = asyncio.get_running_loop()
        if self._closed:
            refused: asyncio.Future[Record] = loop.create_future()
            refused.set_exception(errors.StoreClosed())
            return refused
        revision = self._next
        previous = self.latest(bucket, key)
        value, obj = build(revision)
        created = previous.created if previous is not None else revision
        record = Record(bucket, key, revision, created, value, obj)
        self._next = revision + 1
        self._staged[bucket, key] = (revision, None if deleted else record)
        done: asyncio.Future[Record] = loop.create_future()
        if not self._queue and not self._in_flight:
            loop.call_soon(self._flush)
        self._queue.append(_Write(record, deleted, done))
        return done

    def _flush(self) -> None:
        """Send everything staged to the writer thread as one transaction."""
        batch, self._queue = self._queue, []
        self._in_flight = batch
        rows = [
            Row(r.revision, r.bucket, r.key, r.created, int(deleted), r.value)
            for r, deleted, _ in batch
        ]
        loop = asyncio.get_running_loop()
        loop.run_in_executor(self._thread, self._database.append, rows).add_done_callback(
            self._committed
        )

    def _committed(self, outcome: asyncio.Future[None]) -> None:
        batch, self._in_flight = self._in_flight, []
        error = outcome.exception()
        if error is not None:
            self._abandon(batch, error)
        else:
            self._publish(batch)
        if self._queue:
            self._flush()
        elif self._idle is not None and not self._idle.done():
            self._idle.set_result(None)

    def _publish(self, batch: list[_Write]) -> None:
        events = []
        for record, deleted, _ in batch:
            events.append(self._apply(record, deleted))
            # A newer write to the same key may be staged already: it stays on top.
            key = (record.bucket, record.key)
            if self._staged[key][0] == record.revision:
                del self._staged[key]
        self._hub.publish(events)
        for record, _, done in batch:
            if not done.done():
                done.set_result(record)
        self._trim()

    def _abandon(self, batch: list[_Write], error: BaseException) -> None:
        failed = batch + self._queue
        self._queue = []
        self._staged.clear()
        self._next = self.revision + 1
        for write in failed:
            if not write.done.done():
                write.done.set_exception(error)

    def _apply(self, record: Record, deleted: bool) -> Event:
        objects = self._current.setdefault(record.bucket, {})
        previous = objects.get(record.key)
        if previous is not None:
            self._superseded.append((record.revision, previous.revision))
        if deleted:
            objects.pop(record.key, None)
            self._superseded.append((record.revision, record.revision))
            self._sorted.pop(record.bucket, None)
            event = Event("DELETED", record, previous)
        else:
            objects[record.key] = record
            if previous is None:
                self._sorted.pop(record.bucket, None)
            event = Event("ADDED" if previous is None else "MODIFIED", record, previous)
        self._history.append(event)
        self.revision = record.revision
        return event

    def _trim(self) -> None:
        # Cut in halves, so the cost per change stays constant.
        if len(self._history) > 2 * HISTORY:
            self._forget_history(self._history[-HISTORY - 1].revision)

    def _forget_history(self, floor: int) -> None:
        del self._history[: bisect_right(self._history, floor, key=_revision_of)]
        self.floor = max(self.floor, floor)

    async def compact(self, revision: int) -> int:
        """Drop what was superseded up to a committed revision; returns the rows dropped.

        Raises `StoreError` when it could not be done; nothing has been dropped then.
        """
        if self._closed:
            raise errors.StoreClosed
        revision = min(revision, self.revision)
        doomed = [old for _, old in self._superseded[: self._superseded_at(revision)]]
        if not doomed:
            return 0
        loop = asyncio.get_running_loop()
        await loop.run_in_executor(self._thread, self._database.compact, revision, doomed)
        # Another compaction may have ended meanwhile: cut what is there now.
        del self._superseded[: self._superseded_at(revision)]
        self._forget_history(revision)
        return len(doomed)

    def _superseded_at(self, revision: int) -> int:
        return bisect_right(self._superseded, revision, key=itemgetter(0))

    async def close(self) -> None:
        """Take no more writes, commit what is staged, end the watches, let go of the file."""
        if self._closed:
            return
        self._closed = True
        if self._queue or self._in_flight:
            self._idle = asyncio.get_running_loop().create_future()
            await self._idle
        self._hub.close()
        await asyncio.get_running_loop().run_in_executor(self._thread, self._database.close)
        self._thread.shutdown()
