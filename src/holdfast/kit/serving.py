"""An HTTP server inside a program: uvicorn, owned by whoever started it.

Both HTTP services of Holdfast, the Kubernetes API and Heketi's, run in it. It takes no signals and
does not poll: it serves until its caller is cancelled, and then finishes what it is answering.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Callable, Iterator

import uvicorn

# A request that is being answered when the server stops gets this long, in seconds.
GRACE = 3


class _Server(uvicorn.Server):
    """uvicorn that does not take over the process's signals, and tells when it listens."""

    def __init__(self, config: uvicorn.Config, started: asyncio.Event | None) -> None:
        super().__init__(config)
        self._started_event = started
        self._stopping = asyncio.Event()

    def stop(self) -> None:
        """Make `serve` finish what it is answering and return."""
        self.should_exit = True
        self._stopping.set()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self._started_event is not None:
            self._started_event.set()

    async def main_loop(self) -> None:
        # The original looks ten times a second whether to stop, and at what is not used here.
        await self._stopping.wait()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


async def serve(
    config: uvicorn.Config,
    sock: socket.socket,
    *,
    started: asyncio.Event | None = None,
    close: Callable[[], None] = lambda: None,
) -> None:
    """Serve until cancelled; `started` is set when requests are answered.

    `close` is called before the last answers are waited for, to end those that would not end.
    """
    server = _Server(config, started)
    serving = asyncio.ensure_future(server.serve(sockets=[sock]))
    try:
        await asyncio.shield(serving)
    finally:
        close()
        server.stop()
        await serving
