"""Files that are no store, or no longer one; places where none can be."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import sqlite3
import stat
from pathlib import Path
from typing import Any

import pytest

from holdfast.store import errors
from holdfast.store.database import Database
from holdfast.store.log import Store

BUCKET = "core/things"
PAGE = 4096


def build(revision: int) -> tuple[bytes, dict[str, Any]]:
    return b'{"filler":"%b"}' % (b"%07d" % revision * 130), {}


async def fill(path: Path, count: int = 200) -> None:
    """A store of about 60 pages, closed."""
    store = Store.open(path)
    await asyncio.gather(*(store.put(BUCKET, f"{n}", build) for n in range(count)))
    await store.close()


def refused(path: Path, kind: type[errors.StoreError] = errors.StoreCorrupt) -> str:
    """The text with which opening is refused; the directory is as it was before."""
    before = {each.name: each.read_bytes() for each in path.parent.glob("*")}
    with pytest.raises(kind) as caught:
        Store.open(path)
    assert type(caught.value) is kind
    assert {each.name: each.read_bytes() for each in path.parent.glob("*")} == before
    text = str(caught.value)
    assert str(path) in text
    return text


def overwrite(path: Path, offset: int, data: bytes) -> None:
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(data)


def test_a_new_store_is_readable_by_its_owner_only(tmp_path: Path) -> None:
    asyncio.run(fill(tmp_path / "s", 1))
    assert [each.name for each in tmp_path.iterdir()] == ["s"]
    assert stat.S_IMODE((tmp_path / "s").stat().st_mode) == 0o600


def test_a_file_of_garbage_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "s"
    path.write_bytes(random.Random(1).randbytes(3 * PAGE))
    text = refused(path)
    assert "damaged" in text and "nothing was changed" in text and "backup" in text


async def test_a_store_with_a_garbled_header_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "s"
    await fill(path)
    overwrite(path, 0, b"not a database, not any more")
    assert "damaged" in refused(path)


@pytest.mark.parametrize("seed", range(12))
async def test_overwritten_bytes_anywhere_are_noticed(tmp_path: Path, seed: int) -> None:
    path = tmp_path / "s"
    await fill(path)
    chance = random.Random(seed)
    length = chance.choice([1, 16, 512, PAGE])
    # Beyond the first page, whose header has bytes that mean nothing.
    offset = chance.randrange(PAGE, path.stat().st_size - length)
    before = path.read_bytes()[offset : offset + length]
    junk = bytes(byte ^ chance.randrange(1, 256) for byte in before)
    overwrite(path, offset, junk)
    try:
        store = Store.open(path)
    except errors.StoreCorrupt as error:
        assert "damaged" in str(error)
    else:
        # The bytes were free space: then everything must be there, and right.
        records = store.scan(BUCKET)
        await store.close()
        assert len(records) == 200
        assert all(record.value == build(record.revision)[0] for record in records)


async def test_one_flipped_bit_in_a_value_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "s"
    await fill(path)
    content = path.read_bytes()
    place = content.index(b"0000123" * 100) + 350
    overwrite(path, place, bytes([content[place] ^ 1]))
    assert "revision 123 does not match its checksum" in refused(path)


async def test_a_value_on_overflow_pages_is_checked_too(tmp_path: Path) -> None:
    path = tmp_path / "s"
    store = Store.open(path)
    await store.put(BUCKET, "big", lambda _: (b'"%b"' % (b"x" * 100_000), {}))
    await store.close()
    overwrite(path, path.stat().st_size // 2 + 100, b"y" * 10)
    assert "does not match its checksum" in refused(path)


async def test_a_key_that_is_no_text_any_more_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "s"
    store = Store.open(path)
    await store.put(BUCKET, "recognise-me", build)
    await store.close()
    overwrite(path, path.read_bytes().index(b"recognise-me"), b"\xff\xfe\xfd")
    assert "damaged" in refused(path)


@pytest.mark.parametrize("pages", [0, 1, 3, 20])
async def test_a_truncated_store_is_refused(tmp_path: Path, pages: int) -> None:
    path = tmp_path / "s"
    await fill(path)
    os.truncate(path, pages * PAGE)
    assert "damaged" in refused(path)


async def test_a_store_cut_in_the_middle_of_a_page_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "s"
    await fill(path)
    os.truncate(path, path.stat().st_size - PAGE - 1000)
    assert "damaged" in refused(path)


def test_a_write_ahead_log_without_its_store_is_not_taken_for_a_new_store(tmp_path: Path) -> None:
    (tmp_path / "s-wal").write_bytes(b"acknowledged writes are in here")
    assert "only its -wal file is there" in refused(tmp_path / "s")


def test_another_programs_sqlite_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "s"
    with contextlib.closing(sqlite3.connect(path)) as sql:
        sql.execute("CREATE TABLE bookmarks (url TEXT)")
    assert "not a Holdfast store" in refused(path)


async def test_a_store_without_its_tables_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "s"
    await fill(path, 1)
    with contextlib.closing(sqlite3.connect(path)) as sql:
        sql.execute("PRAGMA journal_mode=DELETE")
        sql.execute("DROP TABLE meta")
    assert "its tables are missing" in refused(path)


async def test_a_newer_format_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "s"
    await fill(path, 1)
    with contextlib.closing(sqlite3.connect(path)) as sql:
        sql.execute("PRAGMA journal_mode=DELETE")
        sql.execute("PRAGMA user_version=7")
    assert "store format 7, this program reads format 1" in refused(path)


async def test_a_store_that_is_open_cannot_be_opened_again(tmp_path: Path) -> None:
    path = tmp_path / "s"
    store = Store.open(path)
    with pytest.raises(errors.StoreLocked, match="in use by another process") as caught:
        Store.open(path)
    assert str(path) in str(caught.value)
    assert (await store.put(BUCKET, "a", build)).revision == 1
    await store.close()
    await fill(path, 1)


def test_a_missing_directory_is_named(tmp_path: Path) -> None:
    path = tmp_path / "missing" / "s"
    with pytest.raises(errors.StoreUnwritable, match="No such file or directory") as caught:
        Store.open(path)
    assert str(path) in str(caught.value) and "check that its directory exists" in str(caught.value)


def test_a_directory_in_its_place_is_refused(tmp_path: Path) -> None:
    (tmp_path / "s").mkdir()
    with pytest.raises(errors.StoreUnwritable, match="cannot be written"):
        Store.open(tmp_path / "s")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_directory_without_permission_is_refused(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(errors.StoreUnwritable, match="Permission denied"):
        Store.open(tmp_path / "s")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
async def test_a_file_without_permission_is_refused(tmp_path: Path) -> None:
    await fill(tmp_path / "s", 1)
    (tmp_path / "s").chmod(0o400)
    with pytest.raises(errors.StoreUnwritable):
        Store.open(tmp_path / "s")


def test_two_that_make_a_store_at_once_get_the_same_one(tmp_path: Path) -> None:
    """Whoever is second to place the file must not replace the first one's."""
    path = tmp_path / "s"
    store = Store.open(path)
    inode = path.stat().st_ino
    store._database._create()
    assert path.stat().st_ino == inode
    asyncio.run(store.close())


def test_the_floor_never_comes_down(tmp_path: Path) -> None:
    """A lower compaction may end later; what the higher one dropped stays dropped."""
    with contextlib.closing(Database(tmp_path / "s")) as database:
        database.compact(5, [1, 2])
        database.compact(3, [])
        assert database.compacted() == 5
