"""The SQLite file: an append-only log of object revisions.

One row per change, its primary key the revision, so an append touches only the last page and a
load is one sequential scan. No other index is kept: the store knows in memory which rows are
superseded and names them by revision when it compacts. The file is opened exclusively, in WAL
mode with `synchronous=FULL`: a commit that returned is on the disk. Each row carries a checksum,
because SQLite notices a damaged page but not a damaged value.

A new store appears under its name whole or not at all, so an empty file there is never one that
was just begun: it is one that lost its content, and is refused like any other damage.

All methods block; the store calls them from its one writer thread.
"""

from __future__ import annotations

import contextlib
import errno
import os
import sqlite3
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple
from zlib import crc32

from holdfast.kit import files
from holdfast.store import errors

FORMAT = 1
# Marks the file as ours in its header ("Hold"), so a stray SQLite file is not taken for a store.
_APPLICATION_ID = 0x486F6C64
_FULL = {sqlite3.SQLITE_FULL}
_UNWRITABLE = {sqlite3.SQLITE_READONLY, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CANTOPEN}
_CORRUPT = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}
_LOCKED = {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED}

_SCHEMA = """
CREATE TABLE log (
    revision INTEGER PRIMARY KEY,
    bucket TEXT NOT NULL,
    key TEXT NOT NULL,
    created INTEGER NOT NULL,
    deleted INTEGER NOT NULL,
    value BLOB NOT NULL,
    checksum INTEGER NOT NULL
) STRICT;
CREATE TABLE meta (name TEXT PRIMARY KEY, value INTEGER NOT NULL) STRICT;
"""

# Rows below a floor are gone for good, so it never comes down again.
_RAISE_FLOOR = (
    "INSERT INTO meta VALUES ('compacted', ?) "
    "ON CONFLICT (name) DO UPDATE SET value = max(value, excluded.value)"
)


class Row(NamedTuple):
    """One change as it is on disk; `created` is the revision that first made the object."""

    revision: int
    bucket: str
    key: str
    created: int
    deleted: int
    value: bytes


def _checksum(row: Row) -> int:
    head = f"{row.revision} {row.created} {row.deleted} {row.bucket} {row.key} "
    return crc32(row.value, crc32(head.encode()))


class Database:
    """The open file."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._ensure()
        try:
            self._sql = sqlite3.connect(
                path, timeout=0.2, isolation_level=None, check_same_thread=False
            )
        except sqlite3.Error as error:
            raise self._translate(error) from error
        try:
            self._prepare()
        except sqlite3.Error as error:
            self._sql.close()
            raise self._translate(error) from error
        except errors.StoreError:
            self._sql.close()
            raise

    def _ensure(self) -> None:
        """Make the file if there is none."""
        try:
            if not self.path.exists():
                if self.path.with_name(f"{self.path.name}-wal").exists():
                    raise errors.StoreCorrupt(self._damaged("only its -wal file is there"))
                self._create()
            elif self.path.stat().st_size == 0:
                raise errors.StoreCorrupt(self._damaged("the file is empty"))
        except OSError as error:
            raise self._unusable(error) from error

    def _create(self) -> None:
        """Put an empty store under the path in one step; leave one alone that is there first."""
        image = _empty_store()
        number, name = tempfile.mkstemp(dir=self.path.parent, prefix=f"{self.path.name}.new-")
        try:
            with os.fdopen(number, "wb") as file:
                file.write(image)
                file.flush()
                os.fsync(file.fileno())
            self._place(name)
        finally:
            Path(name).unlink(missing_ok=True)
        files.fsync_dir(self.path.parent)

    def _place(self, name: str) -> None:
        try:
            os.link(name, self.path)
        except FileExistsError:
            pass
        except OSError:
            # A file system without hard links.
            Path(name).rename(self.path)

    def _prepare(self) -> None:
        sql = self._sql
        sql.execute("PRAGMA locking_mode=EXCLUSIVE")
        # A transaction that writes takes the lock for good, before anything is read.
        sql.execute("BEGIN EXCLUSIVE")
        sql.execute("COMMIT")
        self._verify()
        sql.execute("PRAGMA journal_mode=WAL")
        sql.execute("PRAGMA synchronous=FULL")

    def _verify(self) -> None:
        sql = self._sql
        if sql.execute("PRAGMA application_id").fetchone()[0] != _APPLICATION_ID:
            raise errors.StoreCorrupt(
                f"{self.path} is a SQLite file but not a Holdfast store; "
                "move it away or choose another data directory"
            )
        version = sql.execute("PRAGMA user_version").fetchone()[0]
        if version != FORMAT:
            raise errors.StoreCorrupt(
                f"{self.path} has store format {version}, this program reads format {FORMAT}; "
                "use the version of Holdfast that wrote it"
            )
        verdict = sql.execute("PRAGMA quick_check(1)").fetchone()[0]
        if verdict != "ok":
            raise errors.StoreCorrupt(self._damaged(str(verdict).splitlines()[-1]))
        tables = {name for (name,) in sql.execute("SELECT name FROM sqlite_schema")}
        if not tables >= {"log", "meta"}:
            raise errors.StoreCorrupt(self._damaged("its tables are missing"))

    def _damaged(self, why: str) -> str:
        return (
            f"the store {self.path} is damaged ({why}); nothing was changed. Restore the file "
            "(with its -wal file) from a backup, or move both away to start empty"
        )

    def compacted(self) -> int:
        """The revision up to which superseded rows have been dropped."""
        row = self._sql.execute("SELECT value FROM meta WHERE name='compacted'").fetchone()
        return int(row[0]) if row else 0

    def rows(self) -> Iterator[Row]:
        """Every row, oldest first; raises `StoreCorrupt` at one that is not as it was written."""
        try:
            for *columns, checksum in self._sql.execute(
                "SELECT revision, bucket, key, created, deleted, value, checksum "
                "FROM log ORDER BY revision"
            ):
                row = Row(*columns)
                if _checksum(row) != checksum:
                    why = f"revision {row.revision} does not match its checksum"
                    raise errors.StoreCorrupt(self._damaged(why))
                yield row
        except sqlite3.Error as error:
            # Also text that is no UTF-8, for which SQLite has no code.
            if not hasattr(error, "sqlite_errorcode"):
                raise errors.StoreCorrupt(self._damaged(str(error))) from error
            raise self._translate(error) from error

    def append(self, rows: Iterable[Row]) -> None:
        """Write the rows in one transaction; on return they are on the disk."""
        values = [(*row, _checksum(row)) for row in rows]
        self._transact("INSERT INTO log VALUES (?,?,?,?,?,?,?)", values)

    def compact(self, revision: int, superseded: Iterable[int]) -> None:
        """Drop the rows of the given revisions and remember `revision` as the new floor."""
        self._transact(
            "DELETE FROM log WHERE revision=?", [(number,) for number in superseded], revision
        )

    def _transact(
        self, statement: str, rows: Iterable[tuple[object, ...]], floor: int | None = None
    ) -> None:
        sql = self._sql
        try:
            sql.execute("BEGIN IMMEDIATE")
            sql.executemany(statement, rows)
            if floor is not None:
                sql.execute(_RAISE_FLOOR, (floor,))
            sql.execute("COMMIT")
        except BaseException as error:
            # Whatever went wrong, an open transaction would fail every later one.
            if sql.in_transaction:
                with contextlib.suppress(sqlite3.Error):
                    sql.execute("ROLLBACK")
            if isinstance(error, sqlite3.Error):
                raise self._translate(error) from error
            raise

    def _translate(self, error: sqlite3.Error) -> errors.StoreError:
        code = getattr(error, "sqlite_errorcode", 0) & 0xFF
        where = self.path
        if code in _FULL:
            return self._full()
        if code in _LOCKED:
            return errors.StoreLocked(
                f"{where} is in use by another process; stop it, or choose another data directory"
            )
        if code in _CORRUPT:
            return errors.StoreCorrupt(self._damaged(str(error)))
        if code in _UNWRITABLE:
            return self._unwritable(error)
        return errors.StoreError(f"{where}: {error}")

    def _unusable(self, error: OSError) -> errors.StoreError:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            return self._full()
        return self._unwritable(error.strerror or error)

    def _full(self) -> errors.StoreFull:
        return errors.StoreFull(
            f"the disk of {self.path} is full; the write was not made and nothing else was lost. "
            "Free space there, then try again"
        )

    def _unwritable(self, why: object) -> errors.StoreUnwritable:
        return errors.StoreUnwritable(
            f"{self.path} cannot be written ({why}); check that its directory exists, its "
            "permissions, its file system and the free space there"
        )

    def close(self) -> None:
        """Fold the write-ahead log into the file and let go of it."""
        self._sql.close()


def _empty_store() -> bytes:
    """The bytes of a store file without rows."""
    with contextlib.closing(sqlite3.connect(":memory:", isolation_level=None)) as sql:
        sql.executescript(
            f"{_SCHEMA}PRAGMA application_id={_APPLICATION_ID};PRAGMA user_version={FORMAT};"
        )
        return sql.serialize()
