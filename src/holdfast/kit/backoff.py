"""Exponential back-off, counted separately for every key, and the pauses that follow from it.

`Backoff` only computes delays; waiting is the caller's business. A key that
succeeded must be forgotten, or its next failure starts where the last one
ended. There is no jitter: the callers are work queues inside one process, and
equal delays keep tests exact.
"""

from __future__ import annotations

import asyncio
from collections.abc import Hashable


class Backoff:
    """Delays in seconds: `first`, then multiplied by `factor` up to `cap`."""

    def __init__(self, first: float, cap: float, factor: float = 2.0) -> None:
        if first <= 0 or cap < first or factor < 1:
            raise ValueError(
                f"back-off needs 0 < first <= cap and factor >= 1, "
                f"not first={first} cap={cap} factor={factor}"
            )
        self._first = first
        self._cap = cap
        self._factor = factor
        self._delays: dict[Hashable, float] = {}

    def next(self, key: Hashable) -> float:
        """Return how long to wait before the next try, and count this failure."""
        previous = self._delays.get(key)
        delay = self._first if previous is None else min(self._cap, previous * self._factor)
        self._delays[key] = delay
        return delay

    def forget(self, key: Hashable) -> None:
        """Start again from `first` for this key; unknown keys are fine."""
        self._delays.pop(key, None)


class Pauses:
    """Till when keys rest, in the running event loop's time.

    Whoever writes down that something failed is woken by that write; it asks here before it tries
    again. A pause may be about something, such as a size: for another one there is none.
    """

    def __init__(self) -> None:
        self._pauses: dict[Hashable, tuple[Hashable, float]] = {}

    def begin(self, key: Hashable, seconds: float, about: Hashable = None) -> None:
        """Let the key rest for so long from now, whatever was before."""
        self._pauses[key] = about, asyncio.get_running_loop().time() + seconds

    def left(self, key: Hashable, about: Hashable = None) -> float:
        """Return how many seconds are left; 0 when there is no pause, or one about another."""
        if not self.had(key, about):
            return 0.0
        return max(0.0, self._pauses[key][1] - asyncio.get_running_loop().time())

    def had(self, key: Hashable, about: Hashable = None) -> bool:
        """Whether the key's last pause was about this, be it over or not."""
        return key in self._pauses and self._pauses[key][0] == about

    def end(self, key: Hashable) -> None:
        """Forget the key; unknown keys are fine."""
        self._pauses.pop(key, None)
