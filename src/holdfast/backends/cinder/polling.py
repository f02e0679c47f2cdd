"""One poll of Cinder for everybody who waits for a volume.

A volume passes through states like `creating`; nobody tells when it leaves
them, so somebody has to ask. Forty waiters that ask each for themselves are
forty requests a round. Here a round is: one listing of the newest volumes for
those who wait for creations, one of the volumes in `deleting` for those who
wait for deletions, and single requests only for what a listing did not show.
The pause between rounds grows while nothing happens.

Invariant: the task that polls belongs to the `Poller`. It ends when nobody
waits, and `close` ends it.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from holdfast.backends import errors
from holdfast.backends.cinder.clouds import Cloud

FIRST_PAUSE, LAST_PAUSE, GROWTH = 0.2, 2.0, 1.4
# So many may be asked for one by one before a listing is cheaper.
SINGLE = 2
_MOVING = frozenset(
    [
        "creating",
        "downloading",
        "deleting",
        "extending",
        "attaching",
        "detaching",
        "reserved",
        "maintenance",
        "backing-up",
        "restoring-backup",
        "retyping",
        "uploading",
        "reverting",
        "error_managing",
        "awaiting-transfer",
        "unmanaging",
        "managing",
    ]
)

Why = Literal["created", "deleted", "other"]
Record = Mapping[str, Any]


@dataclass(eq=False, slots=True)
class _Waiter:
    id: str
    why: Why
    moving: frozenset[str]
    answer: asyncio.Future[Record | None]


class Poller:
    """The waiters of one cloud."""

    def __init__(self, cloud: Cloud) -> None:
        self._cloud = cloud
        self._waiters: list[_Waiter] = []
        self._task: asyncio.Task[None] | None = None
        self._changed = asyncio.Event()

    async def settled(
        self,
        id: str,
        why: Why,
        seconds: float,
        moving: frozenset[str] = _MOVING,
    ) -> Record | None:
        """Return the volume once its status is none of `moving`; None once it is gone.

        Raises what asking raised, and errors.Unavailable when time is up.
        """
        answer: asyncio.Future[Record | None] = asyncio.get_running_loop().create_future()
        waiter = _Waiter(id, why, moving, answer)
        self._waiters.append(waiter)
        self._changed.set()
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._run())
        try:
            async with asyncio.timeout(seconds):
                return await answer
        except TimeoutError as error:
            raise errors.Unavailable(
                f"volume {id} is not {_TENSE[why]} after {seconds:g} s",
                f"Cinder of {self._cloud.instance.where}",
                "waited for again later; `openstack volume service list` shows who works on it",
            ) from error
        finally:
            with contextlib.suppress(ValueError):
                self._waiters.remove(waiter)

    async def close(self) -> None:
        """End the polling."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task

    async def _run(self) -> None:
        pause = FIRST_PAUSE
        while self._waiters:
            self._changed.clear()
            # A newcomer makes the next pause short again, but does not end this one.
            await asyncio.sleep(pause)
            before = len(self._waiters)
            try:
                await self._round()
            except errors.BackendError as error:
                for each in self._waiters:
                    if not each.answer.done():
                        each.answer.set_exception(error)
            await asyncio.sleep(0)  # let those who have their answer leave
            moved = self._changed.is_set() or len(self._waiters) < before
            pause = FIRST_PAUSE if moved else min(LAST_PAUSE, pause * GROWTH)

    async def _round(self) -> None:
        waiting = [each for each in self._waiters if not each.answer.done()]
        known: dict[str, Record] = {}
        created = [each for each in waiting if each.why == "created"]
        if len(created) > SINGLE:
            query = {"sort": "created_at:desc", "limit": str(2 * len(created) + 10)}
            known |= await self._listed("/volumes/detail", query)
        deleted = [each for each in waiting if each.why == "deleted"]
        if len(deleted) > SINGLE:
            known |= {
                id: {"id": id, "status": "deleting"}
                for id in await self._listed("/volumes", {"status": "deleting"})
            }
        unseen = [each for each in waiting if each.id not in known]
        await asyncio.gather(*(self._one(each) for each in unseen))
        for each in waiting:
            if each.id in known:
                _tell(each, known[each.id])

    async def _listed(self, path: str, query: Mapping[str, str]) -> dict[str, Record]:
        answer = await self._cloud.request("block_storage", "GET", path, query=query)
        return {each["id"]: each for each in answer["volumes"]}

    async def _one(self, waiter: _Waiter) -> None:
        try:
            answer = await self._cloud.request("block_storage", "GET", f"/volumes/{waiter.id}")
        except errors.NotFound:
            _tell(waiter, None)
            return
        _tell(waiter, answer["volume"])


_TENSE: Mapping[Why, str] = {"created": "made", "deleted": "gone", "other": "in a steady state"}


def _tell(waiter: _Waiter, record: Record | None) -> None:
    if waiter.answer.done():
        return
    if record is None or record["status"] not in waiter.moving:
        waiter.answer.set_result(record)
