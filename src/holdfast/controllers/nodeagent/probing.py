"""Probes: is a container started, alive, ready?

Each running attempt whose container has probes is watched by one task per probe. The
startup probe goes first; the others begin when it has succeeded. Probes of containers that
only sleep are not carried out: they count as passed. What a probe asks is in `questions`.

The invariant: a verdict belongs to one attempt and goes with it.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field

from holdfast.controllers.nodeagent.containerspecs import Container, Probe
from holdfast.controllers.nodeagent.questions import Result

Ask = Callable[[Probe], Awaitable[Result]]
# How often a probe that could not ask tries again before it says so.
TRIES = 3


@dataclass(slots=True)
class Verdict:
    """What the probes of one attempt say now."""

    started: bool = True
    ready: bool = True


class Tally:
    """Counts results of one probe until they are many enough to change its answer."""

    def __init__(self, probe: Probe, answer: bool) -> None:
        self._probe = probe
        self._same = 0
        self._last: bool | None = None
        self.answer = answer

    def add(self, success: bool) -> bool:
        """Count a result; whether the threshold for it is reached now or was before."""
        self._same = self._same + 1 if success == self._last else 1
        self._last = success
        needed = self._probe.success_threshold if success else self._probe.failure_threshold
        if self._same < needed:
            return False
        self.answer = success
        return True


def of(container: Container, *, sleeps: bool) -> dict[str, Probe]:
    """The probes that are carried out, by kind."""
    named = {
        "Startup": container.startup_probe,
        "Liveness": container.liveness_probe,
        "Readiness": container.readiness_probe,
    }
    if sleeps:
        return {}
    return {kind: probe for kind, probe in named.items() if probe is not None and probe.asks}


@dataclass(slots=True)
class Watch:
    """The probes of one attempt at work.

    `ask` carries a probe out once; `tell` is told of each result that is no success (kind,
    result), `kill` when a container is to be restarted (kind), `changed` when the verdict is
    another. While `stopping` says that the container is being ended, only readiness is asked.
    """

    probes: dict[str, Probe]
    done: asyncio.Event
    ask: Ask
    tell: Callable[[str, Result], None]
    kill: Callable[[str], None]
    changed: Callable[[], None]
    stopping: Callable[[], bool] = lambda: False
    verdict: Verdict = field(default_factory=Verdict)

    def __post_init__(self) -> None:
        self.verdict = Verdict("Startup" not in self.probes, not self.probes.keys() & _GATES)

    async def probe(self) -> None:
        """Probe until the attempt is over."""
        if "Startup" in self.probes and not await self._start():
            return
        if not self.verdict.started:
            self.verdict.started = True
            self.verdict.ready = "Readiness" not in self.probes
            self.changed()
        async with asyncio.TaskGroup() as group:
            if "Liveness" in self.probes:
                group.create_task(self._live(self.probes["Liveness"]))
            if "Readiness" in self.probes:
                group.create_task(self._ready(self.probes["Readiness"]))

    async def _start(self) -> bool:
        probe = self.probes["Startup"]
        tally = Tally(probe, False)
        async for success in self._results("Startup", probe):
            if tally.add(success):
                if not success:
                    self.kill("Startup")
                return success
        return False

    async def _live(self, probe: Probe) -> None:
        tally = Tally(probe, True)
        async for success in self._results("Liveness", probe):
            if tally.add(success) and not success:
                self.kill("Liveness")
                return

    async def _ready(self, probe: Probe) -> None:
        tally = Tally(probe, False)
        async for success in self._results("Readiness", probe):
            if tally.add(success) and self.verdict.ready != success:
                self.verdict.ready = success
                self.changed()

    async def _results(self, kind: str, probe: Probe) -> AsyncIterator[bool]:
        pause = probe.initial_delay_seconds
        while not await self._over(pause):
            if kind in _ENDING and self.stopping():
                return
            result = await self._asked(probe)
            if self.done.is_set() or (kind in _ENDING and self.stopping()):
                return
            if result.answer != "success":
                self.tell(kind, result)
            if result.answer != "unknown":
                yield result.success
            pause = max(1, probe.period_seconds)

    async def _asked(self, probe: Probe) -> Result:
        result = await self.ask(probe)
        for _ in range(TRIES - 1):
            if result.answer != "unknown":
                break
            result = await self.ask(probe)
        return result

    async def _over(self, seconds: float) -> bool:
        """Wait so long, or until the attempt is over; whether it is."""
        if seconds <= 0:
            return self.done.is_set()
        try:
            async with asyncio.timeout(seconds):
                await self.done.wait()
        except TimeoutError:
            return False
        return True


_GATES = frozenset({"Startup", "Readiness"})
# Those whose failure ends the container.
_ENDING = frozenset({"Startup", "Liveness"})
