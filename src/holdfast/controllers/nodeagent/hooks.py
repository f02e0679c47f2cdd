"""Commands the agent runs inside containers: hooks and probes.

They are ordinary executions, with a time limit; what does not finish in time is ended with
all it started and counts as failed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

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
