"""Volumes of a service by name, and the group ids they use.

Heketi can only list ids, so a name is found by reading every volume; a volume's name and group id
never change, so each is read once. Group ids are chosen from a place that follows from the volume's
name: a repeat after a lost answer, or a restart, chooses the same one.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Iterable, Set

from holdfast.backends import errors
from holdfast.backends.gluster import documents
from holdfast.backends.gluster.rest import Credentials, Service

_AT_ONCE = 6


class VolumeIndex:
    """What is known of one service's volumes."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._known: dict[str, documents.Volume] = {}
        # Ids of groups promised to volumes by name, until they are seen in a list.
        self.promised: dict[str, int] = {}
        # One reading after the other: an older list must not replace a newer one.
        self._lock = asyncio.Lock()

    async def refresh(self, who: Credentials) -> None:
        """Read the volumes that are new, and forget those that are gone."""
        async with self._lock:
            await self._read(who)
        for each in self._known.values():
            self.promised.pop(each.name, None)

    async def _read(self, who: Credentials) -> None:
        listed = await self._service.get("/volumes", documents.VolumeList, who)
        ids = listed.volumes or []
        self._known = {key: self._known[key] for key in ids if key in self._known}
        turns = asyncio.Semaphore(_AT_ONCE)

        async def read(key: str) -> None:
            async with turns:
                try:
                    found = await self._service.get(f"/volumes/{key}", documents.Volume, who)
                except errors.NotFound:
                    return  # gone meanwhile, or listed by mistake
                self._known[key] = found

        new = [key for key in ids if key not in self._known]
        for finished in await asyncio.gather(*map(read, new), return_exceptions=True):
            if isinstance(finished, BaseException):
                raise finished

    def named(self, name: str) -> str | None:
        """Return the id of the volume with this name; `refresh` before."""
        return next((key for key, each in self._known.items() if each.name == name), None)

    def all(self) -> list[documents.Volume]:
        """Return all volumes as they were when they were first read: sizes may be old."""
        return list(self._known.values())

    def gids(self) -> set[int]:
        """Return the group ids that are taken."""
        return {each.gid for each in self._known.values() if each.gid} | {*self.promised.values()}


def choose_gid(name: str, allowed: range, taken: Set[int]) -> int:
    """Return a free group id for a volume. Raises Exhausted."""
    start = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big") % len(allowed)
    for gid in _from(allowed, start):
        if gid not in taken:
            return gid
    raise errors.Exhausted(
        f"all {len(allowed)} group ids from {allowed[0]} to {allowed[-1]} are taken",
        "gidMin, gidMax",
        "use a class with a larger range",
    )


def _from(allowed: range, start: int) -> Iterable[int]:
    yield from allowed[start:]
    yield from allowed[:start]
