"""What survives: kill -9 at random moments, a full disk, another process that holds the file.

The writers are child processes of this very file, so that killing them is real.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import holdfast
from holdfast.store import errors
from holdfast.store.log import Store
from holdfast.store.records import Record

BUCKET = "core/things"
SOURCE = Path(holdfast.__file__).resolve().parent.parent
ROUNDS = 6


def value_of(revision: int) -> bytes:
    """A value that tells whether it is whole, of a size that goes from bytes to pages."""
    return json.dumps({"revision": revision, "filler": "x" * (revision * 97 % 9000)}).encode()


def build(revision: int) -> tuple[bytes, dict[str, Any]]:
    return value_of(revision), {}


def build_big(revision: int) -> tuple[bytes, dict[str, Any]]:
    return b'"%b"' % (b"x" * 200_000), {}


# The child


async def write_forever(path: Path) -> None:
    """Write pairs, delete, compact; print what has been acknowledged, and nothing else."""
    store = Store.open(path)
    await asyncio.gather(*(_write(store, number) for number in range(8)))


async def _write(store: Store, writer: int) -> None:
    for turn in range(10**9):
        change = store.delete if turn % 3 == 2 else store.put
        # Staged in one step, so in one transaction: both halves survive, or none.
        pair = [change(BUCKET, f"{writer}/{half}", build) for half in "ab"]
        for done in pair:
            record = await done
            print(record.revision, record.key, change == store.delete, flush=True)
        if writer == 0 and turn % 50 == 49:
            await store.compact(store.revision - 100)


async def hold(path: Path) -> None:
    """Keep the store open until killed."""
    store = Store.open(path)
    print("open", flush=True)
    await asyncio.sleep(600)
    await store.close()


async def fill_up(path: Path) -> None:
    """Write with a limit on the size of files until it fails; then report and go on."""
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (400_000, resource.RLIM_INFINITY))
    store = Store.open(path)
    kept = await _put_until_it_fails(store)
    print(len(kept), store.revision, flush=True)
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    print((await store.put(BUCKET, "after", build)).revision, flush=True)
    await store.close()


@contextlib.contextmanager
def child(role: str, path: Path) -> Iterator[subprocess.Popen[str]]:
    argv = [sys.executable, "-P", str(Path(__file__)), role, str(path)]
    env = {**os.environ, "PYTHONPATH": str(SOURCE)}
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True, env=env) as process:
        try:
            yield process
        finally:
            process.kill()


# kill -9


def run_and_kill(path: Path, seconds: float) -> list[tuple[int, str, bool]]:
    """Let a child write for a while and kill it; returns what it had acknowledged."""
    with child("write_forever", path) as process:
        assert process.stdout is not None
        lines = [process.stdout.readline()]
        time.sleep(seconds)
        process.kill()
        # A line cut short was not said.
        lines += [line for line in process.stdout if line.endswith("\n")]
    fields = [line.split() for line in lines]
    return [(int(revision), key, deleted == "True") for revision, key, deleted in fields]


def check(store: Store, acknowledged: dict[str, tuple[int, bool]]) -> None:
    found = {record.key: record for record in store.scan(BUCKET)}
    for key, (revision, deleted) in acknowledged.items():
        record = found.get(key)
        assert store.revision >= revision
        if record is None:
            # Deleted then, or by a later write that was not acknowledged any more.
            assert deleted or store.revision > revision
        else:
            assert record.revision > revision or (record.revision == revision and not deleted)
    for record in found.values():
        assert record.value == value_of(record.revision)
    for writer in range(8):
        first, second = found.get(f"{writer}/a"), found.get(f"{writer}/b")
        assert (first is None) == (second is None)
        assert first is None or second is None or second.revision == first.revision + 1


async def check_changes(store: Store, acknowledged: list[tuple[int, str, bool]]) -> None:
    """Every acknowledged change since the floor is in the history, in order, whole."""
    if store.revision == store.floor:
        return
    events = await store.watch(BUCKET, store.floor).batch()
    assert [e.revision for e in events] == [*range(store.floor + 1, store.revision + 1)]
    changes = {e.revision: (e.record.key, e.type == "DELETED") for e in events}
    for revision, key, deleted in acknowledged:
        if revision > store.floor:
            assert changes[revision] == (key, deleted)


async def test_what_was_acknowledged_survives_kill_9(tmp_path: Path) -> None:
    path = tmp_path / "state.db"
    chance = random.Random(20)
    last: dict[str, tuple[int, bool]] = {}
    highest = 0
    for _ in range(ROUNDS):
        acknowledged = run_and_kill(path, chance.uniform(0.0, 0.3))
        assert acknowledged[0][0] > highest, "revisions went back after a restart"
        last |= {key: (revision, deleted) for revision, key, deleted in acknowledged}
        store = Store.open(path)
        check(store, last)
        await check_changes(store, acknowledged)
        highest = store.revision
        await store.close()
    assert highest > 200, "the children wrote too little for the test to mean anything"


def test_a_store_held_by_another_process_is_refused_until_that_dies(tmp_path: Path) -> None:
    path = tmp_path / "state.db"
    with child("hold", path) as process:
        assert process.stdout is not None and process.stdout.readline() == "open\n"
        with pytest.raises(errors.StoreLocked, match="in use by another process; stop it"):
            Store.open(path)
        process.kill()
        process.wait()
        asyncio.run(Store.open(path).close())


# No room


async def _put_until_it_fails(store: Store, limit: int = 20_000) -> list[Record]:
    kept: list[Record] = []
    for number in range(limit):
        batch = [store.put(BUCKET, f"{number}/{half}", build) for half in "ab"]
        outcome = await asyncio.gather(*batch, return_exceptions=True)
        failed = [each for each in outcome if isinstance(each, BaseException)]
        if failed:
            assert len(failed) == len(batch), "half a batch was kept"
            assert all(isinstance(e, errors.StoreFull | errors.StoreUnwritable) for e in failed)
            return kept
        kept += [each for each in outcome if isinstance(each, Record)]
    raise AssertionError("the disk never filled up")


def on_disk(path: Path, copy: Path) -> list[tuple[str, int, bytes]]:
    """What a restart would find: read from a copy of the files, while the store is open."""
    copy.mkdir()
    for file in path.parent.glob(f"{path.name}*"):
        shutil.copy(file, copy / file.name)
    store = Store.open(copy / path.name)
    found = [(r.key, r.revision, r.value) for r in store.scan(BUCKET)]
    store._database.close()
    return found


def in_memory(store: Store) -> list[tuple[str, int, bytes]]:
    return [(r.key, r.revision, r.value) for r in store.scan(BUCKET)]


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 1 MiB."""
    mount = tmp_path / "small"
    mount.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(mount)], check=True)
    try:
        yield mount
    finally:
        subprocess.run(["umount", "--lazy", str(mount)], check=True)


@pytest.mark.root
async def test_a_full_disk_loses_nothing_and_writes_go_on_when_there_is_room(
    small_disk: Path, tmp_path: Path
) -> None:
    ballast = small_disk / "ballast"
    ballast.write_bytes(b"x" * 300_000)
    path = small_disk / "state.db"
    store = Store.open(path)
    kept = await _put_until_it_fails(store)
    watcher = store.watch(BUCKET, store.revision)
    with pytest.raises(errors.StoreFull, match="is full; the write was not made") as caught:
        await store.put(BUCKET, "one more", build_big)
    assert str(path) in str(caught.value) and "Free space there" in str(caught.value)
    assert store.revision == kept[-1].revision
    assert store.latest(BUCKET, "one more") is None
    assert len(store.scan(BUCKET)) == len(kept)
    assert on_disk(path, tmp_path / "full") == in_memory(store)

    ballast.unlink()
    assert (await store.put(BUCKET, "one more", build_big)).revision == kept[-1].revision + 1
    assert [event.record.key for event in await watcher.batch()] == ["one more"]
    assert on_disk(path, tmp_path / "freed") == in_memory(store)
    await store.close()
    store = Store.open(path)
    assert len(store.scan(BUCKET)) == len(kept) + 1
    await store.close()


@pytest.mark.root
async def test_a_store_filled_up_can_be_opened_and_read(small_disk: Path) -> None:
    path = small_disk / "state.db"
    store = Store.open(path)
    kept = await _put_until_it_fails(store)
    with pytest.raises(errors.StoreFull):
        await store.put(BUCKET, "one more", build_big)
    await store.close()
    store = Store.open(path)
    assert [(r.key, r.revision) for r in store.scan(BUCKET)] == sorted(
        (r.key, r.revision) for r in kept
    )
    await store.close()


@pytest.mark.root
def test_no_store_is_begun_on_a_full_disk(small_disk: Path) -> None:
    with contextlib.suppress(OSError):
        (small_disk / "ballast").write_bytes(b"x" * 2_000_000)
    with pytest.raises(errors.StoreFull, match="is full"):
        Store.open(small_disk / "state.db")
    assert [each.name for each in small_disk.iterdir()] == ["ballast"]


async def test_a_file_that_may_not_grow_fails_the_batch_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "state.db"
    with child("fill_up", path) as process:
        output, _ = process.communicate(timeout=30)
    assert process.returncode == 0
    kept, revision, after = map(int, output.split())
    assert kept > 10 and revision == kept and after == revision + 1
    store = Store.open(path)
    records = store.scan(BUCKET)
    assert len(records) == kept + 1
    assert all(record.value == value_of(record.revision) for record in records)
    await store.close()


if __name__ == "__main__":
    asyncio.run(globals()[sys.argv[1]](Path(sys.argv[2])))
