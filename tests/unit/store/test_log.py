"""Writing, failing and closing: the order of things around one commit."""

from __future__ import annotations

import asyncio
import contextlib
import json
import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from holdfast.store import errors, log, watch
from holdfast.store.log import Store
from holdfast.store.records import Record

BUCKET = "core/things"


def build(revision: int) -> tuple[bytes, dict[str, Any]]:
    obj = {"revision": revision}
    return json.dumps(obj).encode(), obj


def put(store: Store, key: str) -> asyncio.Future[Record]:
    return store.put(BUCKET, key, build)


@asynccontextmanager
async def opened(path: Path) -> AsyncIterator[Store]:
    store = Store.open(path)
    try:
        yield store
    finally:
        await store.close()


def poison(path: Path) -> None:
    """Make the file refuse a row whose key is `poison`, in the middle of whatever batch."""
    with contextlib.closing(sqlite3.connect(path)) as sql:
        sql.execute(
            "CREATE TRIGGER refuse BEFORE INSERT ON log WHEN new.key = 'poison' "
            "BEGIN SELECT RAISE(ABORT, 'poisoned'); END"
        )
        sql.commit()


def keys(store: Store) -> list[str]:
    return [record.key for record in store.scan(BUCKET)]


async def test_nothing_is_visible_before_it_is_on_disk(tmp_path: Path) -> None:
    async with opened(tmp_path / "s") as store:
        watcher = store.watch(BUCKET, 0)
        done = put(store, "a")
        staged = store.latest(BUCKET, "a")
        assert staged is not None and staged.revision == 1
        assert (store.get(BUCKET, "a"), store.revision, store.scan(BUCKET)) == (None, 0, [])
        assert await done is store.get(BUCKET, "a")
        assert [event.record.key for event in await watcher.batch()] == ["a"]


async def test_a_build_that_raises_leaves_no_trace(tmp_path: Path) -> None:
    def broken(revision: int) -> tuple[bytes, dict[str, Any]]:
        raise LookupError(f"cannot build {revision}")

    async with opened(tmp_path / "s") as store:
        first = put(store, "a")
        for write in (store.put, store.delete):
            with pytest.raises(LookupError, match="cannot build 2"):
                write(BUCKET, "a", broken)
        second = put(store, "b")
        assert [(await first).revision, (await second).revision] == [1, 2]
        assert store.get(BUCKET, "a") is not None


async def test_a_cancelled_waiter_does_not_undo_its_write(tmp_path: Path) -> None:
    async def wait(done: asyncio.Future[Record]) -> None:
        await done

    async with opened(tmp_path / "s") as store:
        waiter = asyncio.create_task(wait(put(store, "a")))
        await asyncio.sleep(0)
        waiter.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiter
        assert (await put(store, "b")).revision == 2
        assert keys(store) == ["a", "b"]
    async with opened(tmp_path / "s") as store:
        assert keys(store) == ["a", "b"]


async def test_a_row_that_fails_takes_its_batch_and_all_behind_it(tmp_path: Path) -> None:
    path = tmp_path / "s"
    async with opened(path) as store:
        await put(store, "kept")
    poison(path)
    async with opened(path) as store:
        watcher = store.watch(BUCKET, store.revision)
        batch = [put(store, key) for key in ("a", "kept", "poison", "b")]
        await asyncio.sleep(0)
        behind = [put(store, "c"), store.delete(BUCKET, "kept", build)]
        assert store.latest(BUCKET, "kept") is None
        failed = await asyncio.gather(*batch, *behind, return_exceptions=True)
        assert [type(error) for error in failed] == [errors.StoreError] * 6
        assert "poisoned" in str(failed[0]) and str(path) in str(failed[0])
        latest = store.latest(BUCKET, "kept")
        assert latest is not None and latest.revision == 1
        assert (keys(store), store.revision, store.latest(BUCKET, "a")) == (["kept"], 1, None)
        # The store goes on, and the watcher sees only what was committed.
        assert (await put(store, "d")).revision == 2
        assert [event.record.key for event in await watcher.batch()] == ["d"]
    async with opened(path) as store:
        assert keys(store) == ["d", "kept"]


async def test_a_value_that_cannot_be_stored_does_not_block_the_next_batch(tmp_path: Path) -> None:
    async with opened(tmp_path / "s") as store:
        refused = [put(store, "a"), put(store, "half a character: \ud800")]
        outcome = await asyncio.gather(*refused, return_exceptions=True)
        assert all(isinstance(error, UnicodeEncodeError) for error in outcome)
        assert (await put(store, "b")).revision == 1
        assert keys(store) == ["b"]


async def test_writes_staged_together_are_one_commit(tmp_path: Path) -> None:
    path = tmp_path / "s"
    async with opened(path) as store:
        watcher = store.watch(BUCKET, 0)
        await asyncio.gather(*(put(store, f"{number:03}") for number in range(100)))
        assert len(await watcher.batch()) == 100


async def test_close_commits_what_is_staged_and_in_flight(tmp_path: Path) -> None:
    store = Store.open(tmp_path / "s")
    watcher = store.watch(BUCKET, 0)
    writes = [put(store, "in flight")]
    await asyncio.sleep(0)
    writes.append(put(store, "staged"))
    await store.close()
    assert [done.result().revision for done in writes] == [1, 2]
    assert len(await watcher.batch()) == 2
    assert await watcher.batch() == [] and watcher.closed and not watcher.overflowed
    async with opened(tmp_path / "s") as store:
        assert keys(store) == ["in flight", "staged"]


async def test_a_closed_store_refuses_writes_and_can_be_closed_again(tmp_path: Path) -> None:
    store = Store.open(tmp_path / "s")
    accepted = put(store, "a")
    closing = asyncio.create_task(store.close())
    await asyncio.sleep(0)
    late = put(store, "too late")
    await closing
    assert accepted.result().revision == 1
    for refused in (late, put(store, "b"), store.delete(BUCKET, "a", build)):
        with pytest.raises(errors.StoreClosed, match="the store is closed"):
            await refused
    with pytest.raises(errors.StoreClosed):
        await store.compact(1)
    await store.close()
    async with opened(tmp_path / "s") as store:
        assert keys(store) == ["a"]


async def test_the_last_state_of_a_deleted_object_is_kept_for_watchers(tmp_path: Path) -> None:
    async with opened(tmp_path / "s") as store:
        await put(store, "a")
        deleted = await store.delete(BUCKET, "a", build)
        assert (deleted.revision, deleted.created) == (2, 1)
        again = await put(store, "a")
        assert again.created == 3
    async with opened(tmp_path / "s") as store:
        events = await store.watch(BUCKET, 1).batch()
        assert [(e.type, e.revision, e.record.obj) for e in events] == [
            ("DELETED", 2, {"revision": 2}),
            ("ADDED", 3, {"revision": 3}),
        ]
        assert json.loads(events[0].line) == {"type": "DELETED", "object": {"revision": 2}}


async def test_memory_keeps_a_bounded_history(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log, "HISTORY", 10)
    async with opened(tmp_path / "s") as store:
        for _ in range(25):
            await put(store, "a")
        assert 25 - 2 * 10 <= store.floor <= 25 - 10
        for revision in range(store.floor, 26):
            found = store.scan_at(BUCKET, revision)
            assert [record.revision for record in found] == [revision]
        with pytest.raises(errors.Compacted, match=f"the oldest one kept is {store.floor}"):
            store.watch(BUCKET, store.floor - 1)


async def test_compaction_shrinks_the_file_to_what_is_alive(tmp_path: Path) -> None:
    path = tmp_path / "s"
    async with opened(path) as store:
        for number in range(20):
            await put(store, f"{number % 2}")
        await store.delete(BUCKET, "0", build)
        assert await store.compact(10**9) == 20
        assert await store.compact(10**9) == 0
    with contextlib.closing(sqlite3.connect(path)) as sql:
        assert sql.execute("SELECT revision FROM log").fetchall() == [(20,)]
    async with opened(path) as store:
        assert (store.revision, store.floor, keys(store)) == (21, 21, ["1"])
        assert (await put(store, "new")).revision == 22


async def test_a_slow_watcher_is_cut_off_and_a_quick_one_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watch, "LIMIT", 5)
    async with opened(tmp_path / "s") as store:
        slow, quick = store.watch(BUCKET, 0), store.watch(BUCKET, 0)
        seen = []
        for number in range(6):
            await put(store, f"{number}")
            seen += [event.revision for event in await quick.batch()]
        assert (slow.overflowed, slow.closed, await slow.batch()) == (True, True, [])
        assert (seen, quick.closed, store.watchers()) == ([1, 2, 3, 4, 5, 6], False, 1)
        await put(store, "more")
        assert await slow.batch() == []


async def test_a_reader_that_waits_is_woken_by_a_change_and_by_the_end(tmp_path: Path) -> None:
    async with opened(tmp_path / "s") as store:
        watcher = store.watch(BUCKET, 0)
        other = store.watch("core/others", 0)
        waiting = [asyncio.create_task(each.batch()) for each in (watcher, other)]
        await put(store, "a")
        assert [event.revision for event in await waiting[0]] == [1]
        assert not waiting[1].done()
        other.close()
        assert await waiting[1] == []


async def test_a_reader_cancelled_while_waiting_loses_nothing(tmp_path: Path) -> None:
    async with opened(tmp_path / "s") as store:
        watcher = store.watch(BUCKET, 0)
        waiting = asyncio.create_task(watcher.batch())
        await asyncio.sleep(0)
        done = put(store, "a")
        done.add_done_callback(lambda _: waiting.cancel())
        await done
        await asyncio.gather(waiting, return_exceptions=True)
        if waiting.cancelled():
            assert [event.revision for event in await watcher.batch()] == [1]
        else:
            assert [event.revision for event in waiting.result()] == [1]


async def test_every_watch_ends_with_the_store(tmp_path: Path) -> None:
    store = Store.open(tmp_path / "s")
    waiting = asyncio.create_task(store.watch(BUCKET, 0).batch())
    await asyncio.sleep(0)
    await store.close()
    assert await waiting == []
    assert store.watchers() == 0
