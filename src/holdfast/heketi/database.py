"""The SQLite file of the Heketi service: one row per entry, its value as JSON.

Opened exclusively, in WAL mode with `synchronous=FULL`: a commit that returned is on the disk, and
two services never share a file. Each phase of an operation is one transaction, so a crash leaves
the state before it or after it.
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterable, Iterator
from pathlib import Path

FORMAT = 1
# Marks the file as ours in its header ("HfHk").
_APPLICATION_ID = 0x4866486B
_SCHEMA = """
CREATE TABLE IF NOT EXISTS entries (
    kind TEXT NOT NULL,
    id TEXT NOT NULL,
    value BLOB NOT NULL,
    PRIMARY KEY (kind, id)
) STRICT, WITHOUT ROWID;
"""


class DatabaseError(Exception):
    """The file cannot be used: which, why, what to do."""


class Database:
    """The open file. All methods block."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._sql = sqlite3.connect(path, timeout=0.5, isolation_level=None)
        except (OSError, sqlite3.Error) as error:
            raise self._translate(error) from error
        try:
            self._prepare()
        except (sqlite3.Error, DatabaseError) as error:
            self._sql.close()
            if isinstance(error, DatabaseError):
                raise
            raise self._translate(error) from error

    def _prepare(self) -> None:
        sql = self._sql
        sql.execute("PRAGMA locking_mode=EXCLUSIVE")
        sql.execute("BEGIN EXCLUSIVE")
        known = sql.execute("PRAGMA application_id").fetchone()[0]
        tables = sql.execute("SELECT count(*) FROM sqlite_schema").fetchone()[0]
        if known != _APPLICATION_ID and tables:
            raise DatabaseError(
                f"{self.path} is a SQLite file of something else; name another one in glusterfs.db"
            )
        version = sql.execute("PRAGMA user_version").fetchone()[0]
        if tables and version != FORMAT:
            raise DatabaseError(
                f"{self.path} has format {version}, this program reads format {FORMAT}; "
                "use the version of Holdfast that wrote it"
            )
        sql.execute(_SCHEMA)
        sql.execute(f"PRAGMA application_id={_APPLICATION_ID}")
        sql.execute(f"PRAGMA user_version={FORMAT}")
        sql.execute("COMMIT")
        sql.execute("PRAGMA journal_mode=WAL")
        sql.execute("PRAGMA synchronous=FULL")

    def rows(self) -> Iterator[tuple[str, str, bytes]]:
        """Every entry: kind, id, value."""
        try:
            yield from self._sql.execute("SELECT kind, id, value FROM entries")
        except sqlite3.Error as error:
            raise self._translate(error) from error

    def write(self, changes: Iterable[tuple[str, str, bytes | None]]) -> None:
        """Put (or, without a value, remove) entries in one transaction."""
        sql = self._sql
        try:
            sql.execute("BEGIN IMMEDIATE")
            for kind, key, value in changes:
                if value is None:
                    sql.execute("DELETE FROM entries WHERE kind=? AND id=?", (kind, key))
                else:
                    sql.execute(
                        "INSERT INTO entries VALUES (?,?,?) "
                        "ON CONFLICT (kind, id) DO UPDATE SET value=excluded.value",
                        (kind, key, value),
                    )
            sql.execute("COMMIT")
        except BaseException as error:
            if sql.in_transaction:
                with contextlib.suppress(sqlite3.Error):
                    sql.execute("ROLLBACK")
            if isinstance(error, sqlite3.Error):
                raise self._translate(error) from error
            raise

    def image(self) -> bytes:
        """The whole database as the bytes of a file, for a backup."""
        with contextlib.closing(sqlite3.connect(":memory:")) as copy:
            self._sql.backup(copy)
            return copy.serialize()

    def close(self) -> None:
        """Fold the write-ahead log into the file and let go of it."""
        self._sql.close()

    def _translate(self, error: Exception) -> DatabaseError:
        if "locked" in str(error):
            return DatabaseError(
                f"{self.path} is in use by another process; stop it, or name another glusterfs.db"
            )
        if "not a database" in str(error):
            return DatabaseError(
                f"{self.path} is no SQLite file. A database of Heketi itself (BoltDB) is taken "
                "over with `heketi db export` there and `holdfast heketi --import FILE` here"
            )
        return DatabaseError(
            f"{self.path}: {error}; check the disk and the directory's permissions"
        )
