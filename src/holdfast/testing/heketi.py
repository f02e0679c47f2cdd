"""A Heketi service that kills itself, -9, at a chosen step: `python -m holdfast.testing.heketi`.

A step is a command on a node or a commit of the database. `before` a step it never happens;
`during` a command it goes on running on the node while the service is gone already, and of a commit
only the answer is lost. What is on the nodes and in the file then is what a crash would have left.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

from holdfast.heketi import settings as heketi_settings
from holdfast.heketi.database import Database
from holdfast.heketi.executors.nodes import NodeExecutor
from holdfast.heketi.executors.protocol import Output, Transport
from holdfast.heketi.service import Service
from holdfast.heketi.state import State
from holdfast.server import heketi

# Long enough for a command to have been started on its node, too short for most to end.
_STARTED_SECONDS = 0.02


class Countdown:
    """Counts steps from 1 and ends the process at one of them; never with 0."""

    def __init__(self, at: int, *, during: bool) -> None:
        self._left = at
        self.during = during

    def due(self) -> bool:
        """Count a step; whether it is the one."""
        self._left -= 1
        return self._left == 0

    def kill(self) -> None:
        """End this process as a power cut would."""
        os.kill(os.getpid(), signal.SIGKILL)


class CutTransport:
    """A transport that may end the process at a command."""

    def __init__(self, transport: Transport, countdown: Countdown) -> None:
        self._transport = transport
        self._countdown = countdown

    async def run(
        self, host: str, argv: Sequence[str], *, timeout: float = 600.0, check: bool = True
    ) -> Output:
        """See `Transport.run`."""
        work = self._transport.run(host, argv, timeout=timeout, check=check)
        if self._countdown.due():
            if self._countdown.during:
                task = asyncio.ensure_future(work)
                await asyncio.wait({task}, timeout=_STARTED_SECONDS)
            self._countdown.kill()
        return await work

    async def close(self) -> None:
        """See `Transport.close`."""
        await self._transport.close()


class CutDatabase(Database):
    """A database that may end the process at a commit."""

    def __init__(self, path: Path, countdown: Countdown) -> None:
        super().__init__(path)
        self._countdown = countdown

    def write(self, changes: Iterable[tuple[str, str, bytes | None]]) -> None:
        """See `Database.write`."""
        due = self._countdown.due()
        if due and not self._countdown.during:
            self._countdown.kill()
        super().write(changes)
        if due:
            self._countdown.kill()


async def serve(config: Path, at: int, *, during: bool) -> None:
    """Serve without authentication; the port is the first line on standard output."""
    settings = heketi_settings.load(config, {}, authenticate=False)
    countdown = Countdown(at, during=during)
    transport = CutTransport(heketi.transport_of(settings.executor), countdown)
    layout = heketi.layout_of(settings.executor, transport)
    executor = NodeExecutor(transport, layout, settings.executor.timeout)
    state = State(CutDatabase(settings.database, countdown))
    await heketi.run(Service(settings, state, executor), None, lambda port: print(port, flush=True))


def main(argv: Sequence[str]) -> None:
    """CONFIG [STEP before|during]."""
    at = int(argv[1]) if len(argv) > 1 else 0
    asyncio.run(serve(Path(argv[0]), at, during=argv[2:] == ["during"]))


if __name__ == "__main__":
    main(sys.argv[1:])
