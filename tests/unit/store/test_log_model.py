"""The store against a model: a dict, a revision counter and a list of changes."""

from __future__ import annotations

import asyncio
import json
import shutil
import tempfile
from collections.abc import Coroutine
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from holdfast.store import errors
from holdfast.store.log import Store
from holdfast.store.records import Event, Record
from holdfast.store.watch import Watcher

BUCKETS = st.sampled_from(["core/pods", "core/nodes"])
KEYS = st.sampled_from(["a/1", "a/2", "ab/1", "b/1", "b/é"])
FRACTIONS = st.floats(0, 1)
Op = tuple[bool, str, str]
OPS = st.tuples(st.booleans(), BUCKETS, KEYS)


class Change(NamedTuple):
    revision: int
    bucket: str
    key: str
    type: str
    created: int
    value: bytes

    @classmethod
    def of(cls, event: Event) -> Change:
        r = event.record
        return cls(r.revision, r.bucket, r.key, event.type, r.created, r.value)


@dataclass
class Model:
    """What the store should be."""

    changes: list[Change] = field(default_factory=list)
    revision: int = 0
    floor: int = 0
    # Rows a compaction may drop: the revision that superseded them.
    superseded: list[int] = field(default_factory=list)

    def at(self, bucket: str, revision: int) -> dict[str, Change]:
        objects: dict[str, Change] = {}
        for change in self.changes:
            if change.revision <= revision and change.bucket == bucket:
                if change.type == "DELETED":
                    objects.pop(change.key, None)
                else:
                    objects[change.key] = change
        return objects

    def now(self, bucket: str) -> dict[str, Change]:
        return self.at(bucket, self.revision)

    def apply(self, delete: bool, bucket: str, key: str, value: bytes) -> None:
        old = self.now(bucket).get(key)
        self.revision += 1
        kind = "DELETED" if delete else "MODIFIED" if old else "ADDED"
        created = old.created if old else self.revision
        self.changes.append(Change(self.revision, bucket, key, kind, created, value))
        self.superseded += [self.revision] * ((old is not None) + delete)

    def compact(self, revision: int) -> int:
        revision = min(revision, self.revision)
        dropped = [number for number in self.superseded if number <= revision]
        if dropped:
            self.superseded = [number for number in self.superseded if number > revision]
            self.floor = max(self.floor, revision)
        return len(dropped)


def document(revision: int, key: str) -> dict[str, Any]:
    return {"key": key, "revision": revision}


def compare(records: list[Record], expected: dict[str, Change]) -> None:
    assert [record.key for record in records] == sorted(expected)
    for record in records:
        change = expected[record.key]
        assert (record.revision, record.created, record.value) == (
            change.revision,
            change.created,
            change.value,
        )
        assert record.obj == document(record.revision, record.key)


class StoreMachine(RuleBasedStateMachine):
    @initialize()
    def open(self) -> None:
        self.directory = Path(tempfile.mkdtemp())
        self.runner = asyncio.Runner()
        self.model = Model()
        self.watches: list[tuple[Watcher, int, list[Change]]] = []
        self.store = Store.open(self.directory / "state.db")

    def run(self, work: Coroutine[Any, Any, Any]) -> Any:
        return self.runner.run(work)

    def stage(self, op: Op) -> asyncio.Future[Record]:
        delete, bucket, key = op
        write = self.store.delete if delete else self.store.put
        made: list[bytes] = []

        def build(revision: int) -> tuple[bytes, dict[str, Any]]:
            obj = document(revision, key)
            made.append(json.dumps(obj).encode())
            return made[-1], obj

        done = write(bucket, key, build)
        self.model.apply(delete, bucket, key, made[-1])
        latest = self.store.latest(bucket, key)
        assert (latest is None) == delete
        assert latest is None or latest.revision == self.model.revision
        return done

    @rule(op=OPS)
    def write_one(self, op: Op) -> None:
        async def work() -> None:
            record = await self.stage(op)
            assert record.revision == self.model.revision

        self.run(work())

    @rule(ops=st.lists(OPS, min_size=2, max_size=8), pauses=st.sets(st.integers(0, 7)))
    def write_concurrently(self, ops: list[Op], pauses: set[int]) -> None:
        async def work() -> None:
            first = self.model.revision + 1
            staged = []
            for number, op in enumerate(ops):
                staged.append(self.stage(op))
                if number in pauses:
                    # The batch so far leaves for the disk; what follows is staged behind it.
                    await asyncio.sleep(0)
            records = await asyncio.gather(*staged)
            assert [r.revision for r in records] == [*range(first, first + len(ops))]

        self.run(work())

    @rule(fraction=FRACTIONS)
    def compact(self, fraction: float) -> None:
        revision = round(fraction * self.model.revision)
        assert self.run(self.store.compact(revision)) == self.model.compact(revision)

    @rule(one=FRACTIONS, other=FRACTIONS)
    def compact_twice_at_once(self, one: float, other: float) -> None:
        marks = [round(f * self.model.revision) for f in (one, other)]

        async def work() -> None:
            await asyncio.gather(*(self.store.compact(mark) for mark in marks))

        self.run(work())
        superseded = self.model.superseded
        for mark in marks:
            # Each has seen what was there at the start, and raises the floor to its own mark.
            self.model.superseded = list(superseded)
            self.model.compact(mark)
        self.model.superseded = [number for number in superseded if number > max(marks)]

    @rule()
    def compact_everything_and_restart(self) -> None:
        self.compact(1.0)
        self.restart()

    @rule()
    def restart(self) -> None:
        self.check_watches()
        self.run(self.store.close())
        assert all(watcher.closed for watcher, _, _ in self.watches)
        self.watches.clear()
        self.store = Store.open(self.directory / "state.db")

    @rule(bucket=BUCKETS, fraction=FRACTIONS)
    def watch_from_a_kept_revision(self, bucket: str, fraction: float) -> None:
        after = self.model.floor + round(fraction * (self.model.revision - self.model.floor))
        self.watches.append((self.store.watch(bucket, after), after, []))

    @rule(bucket=BUCKETS, fraction=FRACTIONS, prefix=st.sampled_from(["", "a", "a/", "b/"]))
    def look_back(self, bucket: str, fraction: float, prefix: str) -> None:
        revision = self.model.floor + round(fraction * (self.model.revision - self.model.floor))
        expected = self.model.at(bucket, revision)
        found = self.store.scan_at(bucket, revision, prefix)
        compare(found, {k: v for k, v in expected.items() if k.startswith(prefix)})
        now = self.model.now(bucket)
        compare(
            self.store.scan(bucket, prefix), {k: v for k, v in now.items() if k.startswith(prefix)}
        )

    @rule(bucket=BUCKETS, distance=st.integers(1, 5))
    def ask_for_what_is_not_kept(self, bucket: str, distance: int) -> None:
        for read in (self.store.watch, self.store.scan_at):
            with pytest.raises(errors.FutureRevision):
                read(bucket, self.model.revision + distance)
            if self.model.floor:
                with pytest.raises(errors.Compacted):
                    read(bucket, max(0, self.model.floor - distance))

    @invariant()
    def store_equals_model(self) -> None:
        assert self.store.revision == self.model.revision
        assert self.store.floor == self.model.floor
        for bucket in ("core/pods", "core/nodes"):
            expected = self.model.now(bucket)
            compare(self.store.scan(bucket), expected)
            assert self.store.count(bucket) == len(expected)
            for key in ("a/1", "a/2", "ab/1", "b/1", "b/é"):
                record = self.store.get(bucket, key)
                assert record is self.store.latest(bucket, key)
                assert (record is None) == (key not in expected)

    @invariant()
    def check_watches(self) -> None:
        async def drain() -> None:
            for watcher, after, seen in self.watches:
                expected = [
                    c
                    for c in self.model.changes
                    if c.revision > after and c.bucket == watcher.bucket
                ]
                if len(expected) > len(seen):
                    seen += [Change.of(event) for event in await watcher.batch()]
                assert seen == expected

        self.run(drain())

    def teardown(self) -> None:
        if hasattr(self, "store"):
            self.run(self.store.close())
            self.runner.close()
            shutil.rmtree(self.directory)


StoreMachine.TestCase.settings = settings(
    max_examples=60, stateful_step_count=30, deadline=None, derandomize=True
)
TestTheStoreIsTheModel = StoreMachine.TestCase
