"""What the API server asks of a node: logs, programs in containers, ports.

The server knows pods and HTTP, this knows containers; between them is the protocol
`apiserver.podstreams.PodRunner`, which this class fulfils without importing it. Errors are
those of the API, in the words a kubelet uses.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from typing import Any

from holdfast.api import errors
from holdfast.controllers.nodeagent import hooks
from holdfast.kit import process
from holdfast.node import logfiles, sessions
from holdfast.node.containers import Attempt, Containers


class PodRunner:
    """Serves one node; `obstacle` says why its containers are not run, or ""."""

    def __init__(self, containers: Containers, obstacle: Callable[[], str]) -> None:
        self._containers = containers
        self._obstacle = obstacle

    def check(self, pod: Mapping[str, Any], container: str, *, attach: bool) -> None:
        """Raise what `execute` or `attach` would, as far as it is known beforehand."""
        attempt = self._running(pod, container)
        if attach and attempt.about.sleeps:
            raise errors.BadRequest(
                f"container {container} only sleeps, there is nothing to attach to: "
                f"{attempt.about.sleeps}"
            )

    async def execute(
        self,
        pod: Mapping[str, Any],
        container: str,
        command: Sequence[str],
        *,
        stdin: bool,
        terminal: bool,
    ) -> sessions.Execution:
        """Start a program in a running container."""
        attempt = self._running(pod, container)
        try:
            return await hooks.execute(
                self._containers, attempt, command, stdin=stdin, terminal=terminal
            )
        except LookupError as error:
            raise _not_running(container) from error
        except (OSError, process.CommandFailed) as error:
            raise errors.InternalError.of(f"cannot execute in container: {error}") from error

    async def attach(self, pod: Mapping[str, Any], container: str) -> sessions.Attachment:
        """Join the streams of a running container."""
        self.check(pod, container, attach=True)
        attempt = self._running(pod, container)
        spec = next(each for each in pod["spec"]["containers"] if each["name"] == container)
        try:
            return await sessions.attach(attempt, last=bool(spec.get("stdinOnce")))
        except OSError as error:
            raise _not_running(container) from error

    def check_forward(self, pod: Mapping[str, Any]) -> None:
        """Raise when no container of the pod runs."""
        self._check()
        attempts = self._containers.of(pod["metadata"]["uid"]).values()
        if not any(each[-1].running for each in attempts if each):
            meta = pod["metadata"]
            raise errors.InternalError.of(
                "unable to upgrade connection: pod not found "
                f'("{meta["name"]}_{meta["namespace"]}")'
            )

    async def connect(
        self, pod: Mapping[str, Any], port: int
    ) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Connect to a port of the pod. Its network is the machine's, so that is loopback."""
        self.check_forward(pod)
        failures = []
        for protocol, host in (("IPv4", "127.0.0.1"), ("IPv6", "::1")):
            try:
                return await asyncio.open_connection(host, port)
            except OSError as error:
                failures.append(f"{protocol}: {_told(host, port, error)}")
        raise ConnectionRefusedError(
            f"failed to connect to localhost:{port} on this node, {', '.join(failures)}"
        )

    def logs(
        self,
        pod: Mapping[str, Any],
        container: str,
        *,
        previous: bool = False,
        follow: bool = False,
        tail: int | None = None,
        since: str = "",
        timestamps: bool = False,
        limit: int | None = None,
    ) -> AsyncIterator[bytes]:
        """The log of a container's latest attempt, or of the one before."""
        attempt = self._logged(pod, container, previous)
        wanted = logfiles.Wanted(tail, since, timestamps, limit)
        if attempt.about.sleeps:
            return _said(f"{container} only sleeps: {attempt.about.sleeps}\n".encode(), tail)
        if follow and attempt.running:
            return logfiles.follow(
                attempt.log, wanted, lambda: not attempt.running, attempt.done.wait
            )
        return logfiles.pieces(attempt.log, wanted)

    def _logged(self, pod: Mapping[str, Any], container: str, previous: bool) -> Attempt:
        self._check()
        name = pod["metadata"]["name"]
        attempts = self._containers.of(pod["metadata"]["uid"]).get(container, [])
        if previous:
            ended = [each for each in attempts[:-1] if not each.running]
            if not ended:
                raise errors.BadRequest(
                    f'previous terminated container "{container}" in pod "{name}" not found'
                )
            return ended[-1]
        if not attempts:
            why = _why(pod, container)
            raise errors.BadRequest(
                f'container "{container}" in pod "{name}" is waiting to start: {why}'
            )
        return attempts[-1]

    def _running(self, pod: Mapping[str, Any], container: str) -> Attempt:
        self._check()
        attempt = self._containers.latest(pod["metadata"]["uid"], container)
        if attempt is None or not attempt.running:
            raise _not_running(container)
        return attempt

    def _check(self) -> None:
        why = self._obstacle()
        if why:
            raise errors.ServiceUnavailable(f"containers are not run on this node: {why}")


def _not_running(container: str) -> errors.StatusError:
    return errors.InternalError.of(
        f'unable to upgrade connection: container not found ("{container}")'
    )


def _told(host: str, port: int, error: OSError) -> str:
    """An error in the words that clients know from Kubernetes."""
    reason = os.strerror(error.errno).lower() if error.errno else str(error)
    at = f"[{host}]" if ":" in host else host
    return f"dial {at}:{port}: connect: {reason}"


def _why(pod: Mapping[str, Any], container: str) -> str:
    status = pod.get("status", {})
    for entry in (
        *(status.get("containerStatuses") or ()),
        *(status.get("initContainerStatuses") or ()),
    ):
        if entry["name"] == container:
            return str(entry.get("state", {}).get("waiting", {}).get("reason", "ContainerCreating"))
    return "ContainerCreating"


async def _said(text: bytes, tail: int | None) -> AsyncIterator[bytes]:
    if tail != 0:
        yield text
