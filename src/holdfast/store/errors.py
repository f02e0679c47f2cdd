"""What can go wrong with the store.

StoreError
├── StoreCorrupt      the file is not a store, or is damaged
├── StoreLocked       another process has the file open
├── StoreFull         no room on the disk: nothing of the failed batch was kept
├── StoreUnwritable   the file or its file system refuses writes
├── StoreClosed       a write came after `close`
├── Compacted         a reader asked for history that is gone
└── FutureRevision    a reader asked for a revision that does not exist yet

Every text says what happened, where (the file) and what to do.
"""

from __future__ import annotations


class StoreError(Exception):
    """Any failure of the store."""


class StoreCorrupt(StoreError):
    """The file is not a Holdfast store, or SQLite finds it damaged."""


class StoreLocked(StoreError):
    """Another process holds the file."""


class StoreFull(StoreError):
    """The disk is full; the write did not happen."""


class StoreUnwritable(StoreError):
    """The file system refuses the write; the write did not happen."""


class StoreClosed(StoreError):
    """The store has been closed; the write did not happen."""

    def __init__(self) -> None:
        super().__init__("the store is closed and takes no more writes; start the server again")


class Compacted(StoreError):
    """The history before `floor` has been dropped."""

    def __init__(self, revision: int, floor: int) -> None:
        super().__init__(f"revision {revision} has been compacted; the oldest one kept is {floor}")
        self.revision = revision
        self.floor = floor


class FutureRevision(StoreError):
    """The reader is ahead of the store."""

    def __init__(self, revision: int, current: int) -> None:
        super().__init__(f"revision {revision} does not exist yet; the current one is {current}")
        self.revision = revision
        self.current = current
