"""When a container that has ended starts again: policy and crash-loop back-off.

The first restart comes at once. Each further one waits, counted from the end of the last
attempt: 10 s, then twice as long every time, up to five minutes. A container that ran for
ten minutes starts from the beginning.

The invariant: the waiting time follows from how often a container was started, so a
restart of the agent does not shorten it.
"""

from __future__ import annotations

import datetime
from collections.abc import Hashable

FIRST = 10.0
LAST = 300.0
HEALTHY = 600.0


def again(policy: str, code: int) -> bool:
    """Whether a container that ended with this code is started again."""
    return policy == "Always" or (policy == "OnFailure" and code != 0)


def delay(number: int) -> float:
    """Seconds between the end of attempt `number` (from 0) and the next start."""
    return 0.0 if number == 0 else float(min(LAST, FIRST * 2 ** min(number - 1, 10)))


class Restarts:
    """Remembers at which attempt of each container counting began anew."""

    def __init__(self) -> None:
        self._base: dict[Hashable, int] = {}

    def wait(
        self,
        key: Hashable,
        number: int,
        started: datetime.datetime,
        ended: datetime.datetime,
        now: datetime.datetime,
    ) -> tuple[float, float]:
        """Return (seconds until the next start, the whole delay it is part of)."""
        if (ended - started).total_seconds() >= HEALTHY:
            self._base[key] = number
        whole = delay(number - self._base.get(key, 0))
        return max(0.0, whole - (now - ended).total_seconds()), whole

    def forget(self, owner: str) -> None:
        """Drop what is known of a pod's containers; keys are (owner, name)."""
        for key in [key for key in self._base if isinstance(key, tuple) and key[0] == owner]:
            del self._base[key]
