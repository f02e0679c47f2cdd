"""What the agent does for containers at their start and before their end, and commands in them.

Commands are ordinary executions with a time limit, for hooks and probes alike; what does not
finish in time is ended with all it started and counts as failed. A hook of type `httpGet` asks
and takes any answer; `sleep` waits; `tcpSocket` fails, as it always did in Kubernetes.

The invariant: what a hook printed or was answered goes into no event: it may hold secrets.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from holdfast.controllers.nodeagent import connections, httpgets
from holdfast.controllers.nodeagent.containerspecs import Container, Hook, HttpGetAction
from holdfast.kit import process
from holdfast.node import processes, sessions
from holdfast.node.containers import Attempt, Containers

NOT_FOUND = 127


async def execute(
    containers: Containers,
    attempt: Attempt,
    argv: Sequence[str],
    *,
    stdin: bool = False,
    terminal: bool = False,
) -> sessions.Execution:
    """Start a command in a running container. Raises LookupError, OSError, CommandFailed."""
    leader, command = await containers.command(attempt)
    if not leader:
        raise LookupError(f"container {attempt.name} is not running")
    env = processes.environment_of(command)
    who = attempt.about.identity
    return sessions.execute(leader, env, who, argv, stdin=stdin, terminal=terminal)


async def run(
    containers: Containers, attempt: Attempt, argv: Sequence[str], seconds: float
) -> tuple[int, str]:
    """Run a command to its end and return its exit code and output; -1 for a late one."""
    try:
        async with asyncio.timeout(seconds):
            execution = await execute(containers, attempt, argv)
            code, printed = await sessions.run_to_end(execution)
    except TimeoutError:
        return -1, f"command timed out: {' '.join(argv)} timed out after {seconds:g}s"
    except (LookupError, OSError, process.CommandFailed) as error:
        return NOT_FOUND, str(error)
    return code, printed.decode(errors="replace").strip()


# Told with the message of an event.
Tell = Callable[[str], None]


class HookFailed(Exception):
    """A hook could not be carried out or failed; the text is for the log."""


async def carry_out(
    containers: Containers,
    attempt: Attempt,
    container: Container,
    hook: Hook,
    seconds: float,
    fell_back: Tell,
) -> None:
    """Do what a hook says within so many seconds. Raises HookFailed.

    `fell_back` is told when a request over TLS was answered only without.
    """
    if hook.exec is not None:
        code, _ = await run(containers, attempt, hook.exec.command, seconds)
        if code != 0:
            raise HookFailed("the command ran too long" if code < 0 else f"exit code {code}")
    elif hook.http_get is not None:
        await _ask(hook.http_get, container, seconds, fell_back)
    elif hook.sleep is not None:
        await ends_within(attempt, min(seconds, float(hook.sleep.seconds)))
    else:
        raise HookFailed("invalid handler: only exec, httpGet and sleep can be carried out")


async def _ask(action: HttpGetAction, container: Container, seconds: float, told: Tell) -> None:
    try:
        request = httpgets.request_of(action, container, "lifecycle")
        try:
            await httpgets.get(request, seconds)
        except httpgets.RequestFailed as error:
            if connections.NOT_TLS not in str(error):
                raise
            await httpgets.get(request.plain, seconds)
            at = httpgets.address(request)
            told(
                f"request to HTTPS lifecycle hook {at} got HTTP response, retry with HTTP succeeded"
            )
    except httpgets.AnswerBroken:
        return  # it was asked, and it began to answer
    except (httpgets.RequestFailed, connections.PortUnknown) as error:
        raise HookFailed(str(error)) from error


async def ends_within(attempt: Attempt, seconds: float) -> bool:
    """Wait so long for the end of a container; whether it came."""
    try:
        async with asyncio.timeout(max(0.0, seconds)):
            await attempt.done.wait()
    except TimeoutError:
        return False
    return True
