"""Looking after running containers: the hook after their start, and their probes.

One task per container that has any of these, from its start (or from the agent's) to its
end. Containers without them cost nothing. What the probes say is asked for with `verdict`.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from typing import Any

from holdfast.controllers.nodeagent import hooks, probing, questions
from holdfast.controllers.nodeagent.containerspecs import Container, Probe
from holdfast.controllers.nodeagent.probing import Verdict
from holdfast.controllers.nodeagent.questions import Result
from holdfast.controllers.nodeagent.stopping import Stopping
from holdfast.node.containers import Attempt, Containers
from holdfast.runtime.recorder import Recorder

log = logging.getLogger("holdfast.controllers")

HOOK_SECONDS = 300.0
GRACE = 30
# Made in an attempt's directory, so that a restart of the agent does not repeat the hook.
HOOKED = "hooked"


class Watching:
    """The probes and start hooks of a node's containers."""

    def __init__(
        self,
        containers: Containers,
        recorder: Recorder,
        stopping: Stopping,
        changed: Callable[[str], None],
    ) -> None:
        self._containers = containers
        self._recorder = recorder
        self._stopping = stopping
        self._changed = changed
        self._group: asyncio.TaskGroup | None = None
        self._watches: dict[Attempt, probing.Watch] = {}

    def begin(self, group: asyncio.TaskGroup) -> None:
        """Give the group that owns the tasks."""
        self._group = group

    def verdict(self, attempt: Attempt) -> Verdict:
        """What is known of a container's readiness; all is well where nothing is asked."""
        watch = self._watches.get(attempt)
        return watch.verdict if watch is not None else Verdict()

    def watch(self, pod: Mapping[str, Any], attempt: Attempt, container: Container) -> None:
        """Look after a running container; once, however often it is asked for."""
        probes = probing.of(container, sleeps=bool(attempt.about.sleeps))
        wanted = probes or container.lifecycle.post_start is not None
        if not wanted or attempt in self._watches or attempt.about.sleeps:
            return
        assert self._group is not None, "not running"

        async def run(command: list[str], seconds: float) -> tuple[int, str]:
            return await hooks.run(self._containers, attempt, command, seconds)

        async def ask(probe: Probe) -> Result:
            return await questions.ask(probe, container, run)

        def tell(kind: str, result: Result) -> None:
            reason, verb = _TOLD[result.answer]
            text = f"{kind} probe {verb}: {result.output}"
            self._recorder.event(dict(pod), "Warning", reason, text)

        def kill(kind: str) -> None:
            text = f"Container {container.name} failed {kind.lower()} probe, will be restarted"
            self._stopping.end(attempt, pod, container, self._grace(pod, probes[kind]), text)

        watch = probing.Watch(
            probes,
            attempt.done,
            ask,
            tell,
            kill,
            lambda: self._changed(attempt.owner),
            lambda: self._stopping.is_stopping(attempt),
        )
        self._watches[attempt] = watch
        self._group.create_task(self._look_after(pod, attempt, container, watch))

    async def _look_after(
        self,
        pod: Mapping[str, Any],
        attempt: Attempt,
        container: Container,
        watch: probing.Watch,
    ) -> None:
        try:
            if await self._hook(pod, attempt, container):
                await watch.probe()
                await attempt.done.wait()
        finally:
            self._watches.pop(attempt, None)

    async def _hook(self, pod: Mapping[str, Any], attempt: Attempt, container: Container) -> bool:
        """Carry out the hook after the start, once; whether the container is to stay."""
        hook = container.lifecycle.post_start
        hooked = attempt.directory / HOOKED
        if hook is None or hooked.exists():
            return True
        hooked.touch()

        def tell(reason: str, text: str) -> None:
            self._recorder.event(dict(pod), "Warning", reason, text)

        try:
            await hooks.carry_out(
                *(self._containers, attempt, container, hook, HOOK_SECONDS),
                lambda text: tell("LifecycleHTTPFallback", text),
            )
        except hooks.HookFailed as error:
            if not attempt.running:
                return False
            extra = {"container": attempt.name, "pod": attempt.owner, "error": str(error)}
            log.warning("postStart hook failed", extra=extra)
            tell("FailedPostStartHook", "PostStartHook failed")
            whole = float(pod["spec"].get("terminationGracePeriodSeconds", GRACE))
            self._stopping.end(attempt, pod, container, whole, "FailedPostStartHook")
            return False
        return True

    def _grace(self, pod: Mapping[str, Any], probe: Probe) -> float:
        own = probe.termination_grace_period_seconds
        whole = pod["spec"].get("terminationGracePeriodSeconds", GRACE)
        return float(own if own is not None else whole)


# The reason and the verb of an event about what a probe found.
_TOLD = {
    "failure": ("Unhealthy", "failed"),
    "unknown": ("Unhealthy", "errored"),
    "warning": ("ProbeWarning", "warning"),
}
