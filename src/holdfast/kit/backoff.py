"""Exponential back-off, counted separately for every key.

The object only computes delays; waiting is the caller's business. A key that
succeeded must be forgotten, or its next failure starts where the last one
ended. There is no jitter: the callers are work queues inside one process, and
equal delays keep tests exact.
"""

from __future__ import annotations

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
