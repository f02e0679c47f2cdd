"""What one probe asks once: a command, an HTTP request, a connection, a gRPC call.

`probing` decides when to ask and what follows; this asks. A result of `unknown` means that
nothing could be asked, as with a port that the container does not have: it is told and does
not count.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Literal

from holdfast.controllers.nodeagent import connections, grpchealth, httpgets
from holdfast.controllers.nodeagent.containerspecs import Container, HttpGetAction, Probe

# Carries out a command within so many seconds: exit code and output.
Run = Callable[[list[str], float], Awaitable[tuple[int, str]]]


@dataclass(frozen=True, slots=True)
class Result:
    """What came of asking; a warning counts as success."""

    answer: Literal["success", "warning", "failure", "unknown"]
    output: str = ""

    @property
    def success(self) -> bool:
        return self.answer in ("success", "warning")


GOOD = Result("success")


async def ask(probe: Probe, container: Container, run: Run) -> Result:
    """Ask once, within the probe's time."""
    seconds = float(max(1, probe.timeout_seconds))
    try:
        if probe.exec is not None:
            code, output = await run(probe.exec.command, seconds)
            return Result("success" if code == 0 else "failure", output)
        if probe.http_get is not None:
            return await _over_http(probe.http_get, container, seconds)
        if probe.tcp_socket is not None:
            port = connections.resolve(probe.tcp_socket.port, container)
            host = probe.tcp_socket.host or connections.POD_HOST
            await connections.reach(host, port, seconds)
        elif probe.grpc is not None:
            service = probe.grpc.service or ""
            await grpchealth.check(connections.POD_HOST, probe.grpc.port, service, seconds)
    except (connections.ConnectionFailed, grpchealth.Unhealthy) as error:
        return Result("failure", str(error))
    except (connections.PortUnknown, grpchealth.LibraryMissing) as error:
        return Result("unknown", str(error))
    return GOOD


async def _over_http(action: HttpGetAction, container: Container, seconds: float) -> Result:
    request = httpgets.request_of(action, container, "probe")
    try:
        answer = await httpgets.get(request, seconds)
    except httpgets.RequestFailed as error:
        return Result("failure", str(error))
    except httpgets.AnswerBroken as error:
        return Result("unknown", str(error))
    if not 200 <= answer.code < 400:
        # Without the body, which may hold what is not for everybody who reads events.
        return Result("failure", f"HTTP probe failed with statuscode: {answer.code}")
    if answer.code >= 300:
        return Result("warning", f"Probe terminated redirects, Response body: {answer.body}")
    return GOOD
