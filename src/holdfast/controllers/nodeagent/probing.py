"""Probes of type exec: is a container started, alive, ready?

Each running attempt whose container has probes is watched by one task per probe. The
startup probe goes first; the others begin when it has succeeded. Probes of other types
are not carried out, nor are those of containers that only sleep: they count as passed.

The invariant: a verdict belongs to one attempt and goes with it.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field

from holdfast.controllers.nodeagent.containerspecs import Container, Probe

Outcome = tuple[int, str]
Run = Callable[[list[str], float], Awaitable[Outcome]]


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
    return {
        kind: probe for kind, probe in named.items() if probe is not None and probe.exec is not None
    }


@dataclass(slots=True)
class Watch:
    """The probes of one attempt at work.

    `run` carries a command out; `failed` is told of each failure (kind, output) and `kill`
    when a container is to be restarted (kind); `changed` when the verdict is another.
    """

    probes: dict[str, Probe]
    done: asyncio.Event
    run: Run
    failed: Callable[[str, str], None]
    kill: Callable[[str], None]
    changed: Callable[[], None]
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
        assert probe.exec is not None
        pause = probe.initial_delay_seconds
        while not await self._over(pause):
            code, output = await self.run(probe.exec.command, max(1, probe.timeout_seconds))
            if self.done.is_set():
                return
            if code != 0:
                self.failed(kind, output)
            yield code == 0
            pause = max(1, probe.period_seconds)

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
