"""Looking after running containers: the hook after their start, and their probes.

One task per container that has any of these, from its start (or from the agent's) to its
end. Containers without them cost nothing. What the probes say is asked for with `verdict`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any

from holdfast.controllers.nodeagent import hooks, probing
from holdfast.controllers.nodeagent.containerspecs import Container, Probe
from holdfast.controllers.nodeagent.probing import Verdict
from holdfast.controllers.nodeagent.stopping import Stopping
from holdfast.node.containers import Attempt, Containers
from holdfast.runtime.recorder import Recorder

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
        hook = container.lifecycle.post_start
        wanted = probes or (hook is not None and hook.exec is not None)
        if not wanted or attempt in self._watches or attempt.about.sleeps:
            return
        assert self._group is not None, "not running"

        async def run(command: list[str], seconds: float) -> tuple[int, str]:
            return await hooks.run(self._containers, attempt, command, seconds)

        def failed(kind: str, output: str) -> None:
            text = f"{kind} probe failed: {output}"
            self._recorder.event(dict(pod), "Warning", "Unhealthy", text)

        def kill(kind: str) -> None:
            text = f"Container {container.name} failed {kind.lower()} probe, will be restarted"
            self._stopping.end(attempt, pod, container, self._grace(pod, probes[kind]), text)

        watch = probing.Watch(
            probes, attempt.done, run, failed, kill, lambda: self._changed(attempt.owner)
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
            hook = container.lifecycle.post_start
            hooked = attempt.directory / HOOKED
            if hook is not None and hook.exec is not None and not hooked.exists():
                hooked.touch()
                command = hook.exec.command
                code, output = await hooks.run(self._containers, attempt, command, HOOK_SECONDS)
                if code != 0 and attempt.running:
                    text = f"PostStartHook failed: {output}"
                    self._recorder.event(dict(pod), "Warning", "FailedPostStartHook", text)
                    said = f"Container {container.name} failed its PostStartHook"
                    self._stopping.end(attempt, pod, container, GRACE, said)
                    return
            await watch.probe()
            await attempt.done.wait()
        finally:
            self._watches.pop(attempt, None)

    def _grace(self, pod: Mapping[str, Any], probe: Probe) -> float:
        own = probe.termination_grace_period_seconds
        whole = pod["spec"].get("terminationGracePeriodSeconds", GRACE)
        return float(own if own is not None else whole)
