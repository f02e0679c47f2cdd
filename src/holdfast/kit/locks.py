"""One asyncio lock per key, created on demand and forgotten when idle.

Work on different keys (volumes, devices) goes on in parallel; work on one key
is done one after the other, in the order of arrival. Memory use follows the
number of keys in use, not the number of keys ever seen.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Hashable


class KeyedLocks:
    """A family of locks. Belongs to one event loop; not safe for threads."""

    def __init__(self) -> None:
        self._entries: dict[Hashable, _Entry] = {}

    def __len__(self) -> int:
        """Return how many keys are held or waited for."""
        return len(self._entries)

    def is_held(self, key: Hashable) -> bool:
        """Return whether somebody holds the lock of `key` or waits for it."""
        return key in self._entries

    @contextlib.asynccontextmanager
    async def hold(self, key: Hashable) -> AsyncIterator[None]:
        """Hold the lock of `key` for the duration of the block; not re-entrant."""
        entry = self._entries.get(key)
        if entry is None:
            entry = self._entries[key] = _Entry()
        entry.users += 1
        try:
            async with entry.lock:
                yield
        finally:
            entry.users -= 1
            if entry.users == 0:
                del self._entries[key]


class _Entry:
    """A lock and the number of tasks that hold it or wait for it."""

    __slots__ = ("lock", "users")

    def __init__(self) -> None:
        self.lock = asyncio.Lock()
        self.users = 0
