"""The SQLite file: an append-only log of object revisions.

One row per change, its primary key the revision, so an append touches only the last page and a
load is one sequential scan. No other index is kept: the store knows in memory which rows are
superseded and names them by revision when it compacts. The file is opened exclusively, in WAL
mode with `synchronous=FULL`: a commit that returned is on the disk.

All methods block; the store calls them from its one writer thread.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

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
    value BLOB NOT NULL
) STRICT;
CREATE TABLE meta (name TEXT PRIMARY KEY, value INTEGER NOT NULL) STRICT;
"""


class Row(NamedTuple):
    """One change as it is on disk; `created` is the revision that first made the object."""

    revision: int
    bucket: str
    key: str
    created: int
    deleted: int
    value: bytes


class Database:
    """The open file."""

    def __init__(self, path: Path) -> None:
        self.path = path
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

    def _prepare(self) -> None:
        sql = self._sql
        sql.execute("PRAGMA locking_mode=EXCLUSIVE")
        # A transaction that writes takes the lock for good, before anything is read.
        sql.execute("BEGIN EXCLUSIVE")
        sql.execute("COMMIT")
        # A new file: nothing in it and nobody's mark on it.
        marked = sql.execute("PRAGMA application_id").fetchone()[0] != 0
        if not marked and not sql.execute("SELECT 1 FROM sqlite_schema").fetchone():
            sql.execute("PRAGMA journal_mode=WAL")
            sql.executescript(
                f"BEGIN;{_SCHEMA}PRAGMA application_id={_APPLICATION_ID};"
                f"PRAGMA user_version={FORMAT};COMMIT;"
            )
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
            raise errors.StoreCorrupt(self._damaged(str(verdict)))

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
        """Every row, oldest first."""
        try:
            for row in self._sql.execute(
                "SELECT revision, bucket, key, created, deleted, value FROM log ORDER BY revision"
            ):
                yield Row(*row)
        except sqlite3.Error as error:
            raise self._translate(error) from error

    def append(self, rows: Iterable[Row]) -> None:
        """Write the rows in one transaction; on return they are on the disk."""
        self._transact("INSERT INTO log VALUES (?,?,?,?,?,?)", rows)

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
                sql.execute("INSERT OR REPLACE INTO meta VALUES ('compacted', ?)", (floor,))
            sql.execute("COMMIT")
        except sqlite3.Error as error:
            if sql.in_transaction:
                sql.execute("ROLLBACK")
            raise self._translate(error) from error

    def _translate(self, error: sqlite3.Error) -> errors.StoreError:
        code = getattr(error, "sqlite_errorcode", 0) & 0xFF
        where = self.path
        if code in _FULL:
            return errors.StoreFull(
                f"the disk of {where} is full; the write was not made and nothing else was lost. "
                "Free space there, then try again"
            )
        if code in _LOCKED:
            return errors.StoreLocked(
                f"{where} is in use by another process; stop it, or choose another data directory"
            )
        if code in _CORRUPT:
            return errors.StoreCorrupt(self._damaged(str(error)))
        if code in _UNWRITABLE:
            return errors.StoreUnwritable(
                f"{where} cannot be written ({error}); check its permissions, its file system "
                "and the free space there"
            )
        return errors.StoreError(f"{where}: {error}")

    def close(self) -> None:
        """Fold the write-ahead log into the file and let go of it."""
        self._sql.close()
