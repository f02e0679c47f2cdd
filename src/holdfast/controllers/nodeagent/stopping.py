"""Ending containers: the hook, the signal, the grace period, the kill.

One task per container that is being stopped. A second request with less time left
shortens the first. The end itself is noticed where every end is, in `node.containers`.
"""

from __future__ import annotations

import asyncio
import logging
import signal
from collections.abc import Mapping
from typing import Any

from holdfast.controllers.nodeagent import containerspecs, hooks
from holdfast.controllers.nodeagent.containerspecs import Container
from holdfast.node.containers import Attempt, Containers
from holdfast.runtime.recorder import Recorder

log = logging.getLogger("holdfast.controllers")

# What a container gets between the signal and the kill even when its hook took all the time.
LEAST = 2.0


class Stopping:
    """The containers of a node that are being stopped."""

    def __init__(self, containers: Containers, recorder: Recorder) -> None:
        self._containers = containers
        self._recorder = recorder
        self._group: asyncio.TaskGroup | None = None
        self._tasks: dict[Attempt, tuple[asyncio.Task[None], float]] = {}

    def begin(self, group: asyncio.TaskGroup) -> None:
        """Give the group that owns the tasks."""
        self._group = group

    def is_stopping(self, attempt: Attempt) -> bool:
        """Whether a container is being ended."""
        return attempt in self._tasks

    def stop(self, attempt: Attempt, pod: Mapping[str, Any] | None) -> None:
        """Stop a container of a pod that is deleted; at once when the pod is gone."""
        if pod is None:
            self.end(attempt, None, None, 0.0, "")
            return
        spec = containerspecs.of(pod)
        grace = pod["metadata"].get("deletionGracePeriodSeconds")
        seconds = float(spec.termination_grace_period_seconds if grace is None else grace)
        container = spec.container(attempt.name)
        self.end(attempt, pod, container, seconds, f"Stopping container {attempt.name}")

    def end(
        self,
        attempt: Attempt,
        pod: Mapping[str, Any] | None,
        container: Container | None,
        seconds: float,
        message: str,
    ) -> None:
        """Have a container end within so many seconds, and say why."""
        assert self._group is not None, "not running"
        deadline = asyncio.get_running_loop().time() + seconds
        known = self._tasks.get(attempt)
        if known is not None and not known[0].done():
            if deadline > known[1] - 0.5:
                return
            known[0].cancel()
            container = None  # the hook has had its chance
        elif pod is not None and message:
            self._recorder.event(dict(pod), "Normal", "Killing", message)
        work = self._end(attempt, pod, container, deadline)
        self._tasks[attempt] = self._group.create_task(work), deadline
        self._tasks[attempt][0].add_done_callback(lambda _: self._clean(attempt))

    def _clean(self, attempt: Attempt) -> None:
        known = self._tasks.get(attempt)
        if known is not None and known[0].done():
            del self._tasks[attempt]

    async def _end(
        self,
        attempt: Attempt,
        pod: Mapping[str, Any] | None,
        container: Container | None,
        deadline: float,
    ) -> None:
        try:
            await self._hook(attempt, pod, container, deadline)
            left = deadline - asyncio.get_running_loop().time()
            if left > 0 or container is not None:
                await self._containers.signal(attempt, signal.SIGTERM)
                least = LEAST if container is not None and container.lifecycle.pre_stop else 0.0
                if await hooks.ends_within(attempt, max(left, least)):
                    return
            await self._containers.signal(attempt, signal.SIGKILL)
            await attempt.done.wait()
        except OSError as error:
            extra = {"container": attempt.name, "pod": attempt.owner, "error": str(error)}
            log.warning("container not stopped", extra=extra)

    async def _hook(
        self,
        attempt: Attempt,
        pod: Mapping[str, Any] | None,
        container: Container | None,
        deadline: float,
    ) -> None:
        hook = container.lifecycle.pre_stop if container is not None else None
        left = deadline - asyncio.get_running_loop().time()
        if hook is None or left <= 0 or attempt.about.sleeps:
            return
        assert container is not None

        def fell_back(text: str) -> None:
            if pod is not None:
                self._recorder.event(dict(pod), "Warning", "LifecycleHTTPFallback", text)

        try:
            await hooks.carry_out(self._containers, attempt, container, hook, left, fell_back)
        except hooks.HookFailed as error:
            extra = {"container": attempt.name, "pod": attempt.owner, "error": str(error)}
            log.warning("preStop hook failed", extra=extra)
            if pod is not None:
                text = "PreStopHook failed"
                self._recorder.event(dict(pod), "Warning", "FailedPreStopHook", text)
