"""Virtual time: a loop whose clock jumps to the next timer when nothing else is to be done."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

RunVirtually = Callable[[Coroutine[Any, Any, None]], float]


class _VirtualLoop(asyncio.SelectorEventLoop):
    _now = 0.0

    def time(self) -> float:
        return self._now

    def _run_once(self) -> None:
        ready, scheduled = self._ready, self._scheduled  # type: ignore[attr-defined]
        if not ready and scheduled:
            self._now = max(self._now, scheduled[0].when())
        super()._run_once()  # type: ignore[misc]


@pytest.fixture
def run_virtually() -> RunVirtually:
    """A function that runs a coroutine without waiting; returns the seconds it believes it took."""

    def run(work: Coroutine[Any, Any, None]) -> float:
        with asyncio.Runner(loop_factory=_VirtualLoop) as runner:
            runner.run(work)
            return runner.get_loop().time()

    return run
