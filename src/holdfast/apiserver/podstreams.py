"""The seam to what runs pods: logs, programs in containers, attaching, ports.

The API server answers requests about pods from its store, but a log and a running program
are on a node. `PodRunner` is all it knows of a node; the composition root hands in one per
node. Here is also what both sides have to agree on: which container is meant.
"""

from __future__ import annotations

import asyncio
import datetime
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any, Protocol

from holdfast.api import errors
from holdfast.apiserver.requests import Request
from holdfast.kit import clock

Pod = Mapping[str, Any]


class Session(Protocol):
    """A program that a client talks to. Channels: 1 its output, 2 its errors."""

    async def read(self) -> tuple[int, bytes] | None:
        """The next output and its channel; None when no more will come."""

    async def write(self, data: bytes) -> None:
        """Give it input; waits until it takes it."""

    async def end_input(self) -> None:
        """Say that no more input comes."""

    async def resize(self, columns: int, rows: int) -> None:
        """Tell its terminal the size; nothing without a terminal."""

    async def result(self) -> int:
        """Wait for the end and return the exit code."""

    async def close(self) -> None:
        """Let go; a program that was started for this session ends. May be repeated."""


class PodRunner(Protocol):
    """One node. Every method raises `StatusError` in the words a kubelet uses."""

    def check(self, pod: Pod, container: str, *, attach: bool) -> None:
        """Raise what `execute` or `attach` would, as far as it is known beforehand."""

    async def execute(
        self, pod: Pod, container: str, command: Sequence[str], *, stdin: bool, terminal: bool
    ) -> Session:
        """Start a program in a running container."""

    async def attach(self, pod: Pod, container: str) -> Session:
        """Join the streams of a running container."""

    def check_forward(self, pod: Pod) -> None:
        """Raise when nothing of the pod runs that could listen on a port."""

    async def connect(
        self, pod: Pod, port: int
    ) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Connect to a port of the pod. Raises also OSError, saying what was tried."""

    def logs(
        self,
        pod: Pod,
        container: str,
        *,
        previous: bool = False,
        follow: bool = False,
        tail: int | None = None,
        since: str = "",
        timestamps: bool = False,
        limit: int | None = None,
    ) -> AsyncIterator[bytes]:
        """The log; with `follow` until the container ends. `since` as it stands in a log."""


Runners = Mapping[str, PodRunner]


def runner_of(runners: Runners, pod: Pod) -> PodRunner:
    """The node a pod is on. Raises `BadRequest` before it has one."""
    name = pod["metadata"]["name"]
    node = pod.get("spec", {}).get("nodeName")
    if not node:
        raise errors.BadRequest(f"pod {name} does not have a host assigned")
    runner = runners.get(node)
    if runner is None:
        raise errors.ServiceUnavailable(
            f"the node {node} of pod {name} cannot be reached from here"
        )
    return runner


def container_of(pod: Pod, wanted: str) -> str:
    """The container that is meant; the only one where none is named. Raises `BadRequest`."""
    spec, name = pod["spec"], pod["metadata"]["name"]
    main = [each["name"] for each in spec["containers"]]
    first = [each["name"] for each in spec.get("initContainers") or ()]
    if wanted:
        if wanted not in (*main, *first):
            raise errors.BadRequest(f"container {wanted} is not valid for pod {name}")
        return wanted
    if len(main) == 1:
        return str(main[0])
    also = f" or one of the init containers: [{' '.join(first)}]" if first else ""
    raise errors.BadRequest(
        f"a container name must be specified for pod {name}, choose one of: "
        f"[{' '.join(main)}]{also}"
    )


def log_of(runners: Runners, pod: Pod, request: Request) -> AsyncIterator[bytes]:
    """The log a request asks for. Raises `StatusError` before anything is sent."""
    query = request.query
    container = container_of(pod, query.get("container", ""))
    if not pod.get("spec", {}).get("nodeName"):
        # Nothing can have been logged yet, which is an empty log and no mistake.
        return _nothing()
    return runner_of(runners, pod).logs(
        pod,
        container,
        previous=request.flag("previous"),
        follow=request.flag("follow"),
        tail=_number(query, "tailLines", 0),
        since=_since(query),
        timestamps=request.flag("timestamps"),
        limit=_number(query, "limitBytes", 1),
    )


async def _nothing() -> AsyncIterator[bytes]:
    none: tuple[bytes, ...] = ()
    for chunk in none:
        yield chunk


def _number(query: Mapping[str, str], name: str, least: int) -> int | None:
    text = query.get(name)
    if text is None:
        return None
    try:
        number = int(text)
    except ValueError as error:
        raise errors.BadRequest(f"{name}: {text!r} is not a number") from error
    if number < least:
        raise errors.BadRequest(f"{name}: Invalid value: {number}: must be {least} or greater")
    return number


def _since(query: Mapping[str, str]) -> str:
    seconds = _number(query, "sinceSeconds", 1)
    if seconds is not None:
        moment = clock.now() - datetime.timedelta(seconds=seconds)
    elif query.get("sinceTime"):
        try:
            moment = clock.parse(query["sinceTime"])
        except ValueError as error:
            raise errors.BadRequest(f"sinceTime: {error}") from error
    else:
        return ""
    # Without the Z, so that it compares with times that go on with fractions.
    return clock.rfc3339(moment).removesuffix("Z")
