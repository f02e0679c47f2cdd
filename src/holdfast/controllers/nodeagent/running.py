"""The containers of a pod, driven towards what the pod asks for.

Called for a pod whose volumes are mounted: init containers one after the other, then all
others, each started again by policy and back-off. What it finds is told in `states`, which
`status` turns into the pod's status. Stopping is the same in reverse: hook, signal, grace
period, kill; the volumes may go when the last container has.

The invariant: containers are looked up, never assumed: what runs is what `node.containers`
says, also right after a restart of the agent.
"""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from holdfast.backends import errors
from holdfast.controllers.nodeagent import containerspecs, programs, restarts, states
from holdfast.controllers.nodeagent.containerspecs import Container, Spec
from holdfast.controllers.nodeagent.environment import ConfigError, Environments
from holdfast.controllers.nodeagent.states import Progress, State
from holdfast.controllers.nodeagent.stopping import Stopping
from holdfast.controllers.nodeagent.watching import Watching
from holdfast.kit import clock, process
from holdfast.kit.backoff import Backoff
from holdfast.node import logfiles, sandbox
from holdfast.node.containers import Attempt, Containers
from holdfast.runtime.client import Client
from holdfast.runtime.recorder import Recorder

FIRST_RETRY, LAST_RETRY = 1.0, 60.0
LOG_LINES, LOG_BYTES = 80, 2048


class PodContainers:
    """The containers of one node's pods; `hidden` are directories that none may see."""

    def __init__(
        self,
        client: Client,
        recorder: Recorder,
        root: Path,
        *,
        hidden: tuple[str, ...] = (),
        changed: Callable[[str], None],
    ) -> None:
        self.containers = Containers(root, changed)
        self._environments = Environments(client)
        self._recorder = recorder
        self._hidden = hidden
        self._restarts = restarts.Restarts()
        self._backoff = Backoff(FIRST_RETRY, LAST_RETRY)
        self._stopping = Stopping(self.containers, recorder)
        self._watching = Watching(self.containers, recorder, self._stopping, changed)

    async def load(self) -> list[str]:
        """Find what an earlier run left running; return the uids of its pods."""
        return await self.containers.load()

    async def run(self) -> None:
        """Own the tasks that stop and probe containers, until cancelled."""
        async with asyncio.TaskGroup() as group:
            self._stopping.begin(group)
            self._watching.begin(group)
            await asyncio.get_running_loop().create_future()

    # --- towards running ------------------------------------------------------

    async def reconcile(self, pod: Mapping[str, Any], volumes: Mapping[str, Path]) -> Progress:
        """Start what should run and does not; tell what is."""
        spec = containerspecs.of(pod)
        uid = pod["metadata"]["uid"]
        await self._settle(uid)
        init: list[State] = []
        for container in spec.init_containers:
            policy = _init_policy(container, spec)
            init.append(await self._drive(pod, spec, container, policy, volumes))
            if not states.lets_next_begin(init[-1], container):
                waiting = [states.waiting(each, "PodInitializing") for each in spec.containers]
                init += self._not_begun(spec, len(init))
                return states.progress(spec, init, waiting)
        main = await asyncio.gather(
            *(
                self._drive(pod, spec, container, spec.restart_policy, volumes)
                for container in spec.containers
            )
        )
        return states.progress(spec, init, main)

    async def observe(self, pod: Mapping[str, Any]) -> Progress:
        """Tell what is, without starting anything."""
        spec = containerspecs.of(pod)
        uid = pod["metadata"]["uid"]
        await self._settle(uid)
        init = [self._seen(uid, each) for each in spec.init_containers]
        return states.progress(spec, init, [self._seen(uid, each) for each in spec.containers])

    def _not_begun(self, spec: Spec, done: int) -> list[State]:
        return [states.waiting(each, "PodInitializing") for each in spec.init_containers[done:]]

    async def _settle(self, uid: str) -> None:
        for attempts in list(self.containers.of(uid).values()):
            for attempt in list(attempts):
                if not attempt.running:
                    await self.containers.settle(attempt)

    async def _drive(
        self,
        pod: Mapping[str, Any],
        spec: Spec,
        container: Container,
        policy: str,
        volumes: Mapping[str, Path],
    ) -> State:
        uid = pod["metadata"]["uid"]
        attempt = self.containers.latest(uid, container.name)
        number = 0
        if attempt is not None:
            if attempt.running:
                self._watching.watch(pod, attempt, container)
                return self._seen(uid, container)
            ended = attempt.ended
            assert ended is not None
            if not restarts.again(policy, ended.code):
                return self._seen(uid, container)
            started = clock.parse(attempt.about.started)
            key = (uid, container.name)
            number = attempt.number
            wait, whole = self._restarts.wait(key, number, started, ended.at, clock.now())
            if wait > 0:
                self._say_back_off(pod, container)
                return states.backing_off(self._seen(uid, container), pod, wait, whole)
            number += 1
        return await self._begin(pod, spec, container, volumes, number)

    async def _begin(
        self,
        pod: Mapping[str, Any],
        spec: Spec,
        container: Container,
        volumes: Mapping[str, Path],
        number: int,
    ) -> State:
        key = (pod["metadata"]["uid"], container.name)
        try:
            attempt = await self._start(pod, spec, container, volumes, number)
        except ConfigError as error:
            reason, text = "CreateContainerConfigError", str(error)
        except (errors.BackendError, OSError, process.CommandFailed) as error:
            reason, text = "CreateContainerError", str(error)
        else:
            self._backoff.forget(key)
            self._say_started(pod, container, attempt)
            self._watching.watch(pod, attempt, container)
            return self._seen(key[0], container)
        await self.containers.abandon(*key, number)
        self._recorder.event(dict(pod), "Warning", "Failed", f"Error: {text}")
        previous = self._seen(key[0], container)
        return states.failed_to_begin(previous, reason, text, self._backoff.next(key))

    async def _start(
        self,
        pod: Mapping[str, Any],
        spec: Spec,
        container: Container,
        volumes: Mapping[str, Path],
        number: int,
    ) -> Attempt:
        uid = pod["metadata"]["uid"]
        host = programs.hostname(pod, spec)
        env = await self._environments.of(pod, container, host)
        view = await self.containers.prepare(uid, container.name, number)
        directory = self.containers.directory(uid, container.name, number)

        def describe() -> tuple[sandbox.Program, Any]:
            binds = programs.binds(container, volumes, env, view, directory)
            return programs.describe(container, spec, env, binds, host=host, hidden=self._hidden)

        program, about = await asyncio.to_thread(describe)
        return await self.containers.start(uid, container.name, number, program, about)

    # --- towards nothing ------------------------------------------------------

    async def stop(self, uid: str, pod: Mapping[str, Any] | None) -> bool:
        """End the containers of a pod that is deleted or gone; whether none is left.

        Does not wait: the end of each container calls `changed`.
        """
        await self._settle(uid)
        running = [each[-1] for each in self.containers.of(uid).values() if each[-1].running]
        for attempt in running:
            self._stopping.stop(attempt, pod)
        return not running

    async def kill_all(self) -> None:
        """Kill every container of the node without a word, as a power cut does."""
        for uid in await self.load():
            for attempts in self.containers.of(uid).values():
                if attempts[-1].running:
                    await self.containers.signal(attempts[-1], signal.SIGKILL)
                    await attempts[-1].done.wait()

    async def forget(self, uid: str) -> None:
        """Remove the logs and all else that is kept of a pod."""
        await self.containers.forget(uid)
        self._restarts.forget(uid)

    # --- words ----------------------------------------------------------------

    def _seen(self, uid: str, container: Container) -> State:
        attempts = self.containers.of(uid).get(container.name, [])
        if not attempts:
            return states.waiting(container, "ContainerCreating")
        latest = attempts[-1]
        verdict = self._watching.verdict(latest)
        before = attempts[-2] if len(attempts) > 1 else None
        return states.of(container, latest, before, verdict, self._last_words)

    def _last_words(self, container: Container, attempt: Attempt) -> str:
        """The message a container left, or the end of its log where that is to stand in."""
        assert attempt.ended is not None
        message = attempt.ended.message
        wants_log = container.termination_message_policy == "FallbackToLogsOnError"
        failed = attempt.ended.code != 0 and wants_log
        if message or not (failed or not attempt.ended.began):
            return message
        wanted = logfiles.Wanted(tail=LOG_LINES)
        return b"".join(logfiles.read(attempt.log, wanted))[-LOG_BYTES:].decode(errors="replace")

    def _say_started(self, pod: Mapping[str, Any], container: Container, attempt: Attempt) -> None:
        said = self._recorder.event
        if attempt.about.sleeps:
            text = f"Container {container.name} only sleeps: {attempt.about.sleeps}"
            said(dict(pod), "Normal", "Sandboxed", text)
        said(dict(pod), "Normal", "Created", f"Created container: {container.name}")
        said(dict(pod), "Normal", "Started", f"Started container {container.name}")

    def _say_back_off(self, pod: Mapping[str, Any], container: Container) -> None:
        text = f"Back-off restarting failed container {container.name} in pod {states.full(pod)}"
        self._recorder.event(dict(pod), "Warning", "BackOff", text)


def _init_policy(container: Container, spec: Spec) -> str:
    """An init container ends once, unless it says that it is to stay."""
    if container.restart_policy == "Always":
        return "Always"
    return "Never" if spec.restart_policy == "Never" else "OnFailure"
