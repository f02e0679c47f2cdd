"""The HTTP server around the API: uvicorn on a TCP address with TLS, or on a unix socket.

It runs in the caller's event loop and leaves signals alone; the owner cancels it. Stopping ends
the watches first, so that no client holds the server up.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Iterator
from pathlib import Path

import uvicorn

from holdfast.apiserver.http import Api
from holdfast.apiserver.upgrading import HttpConnection

# A request that is being answered when the server stops gets this long, in seconds.
_GRACE = 3
# A WebSocket that takes no input for a while, because its program does not, does not answer
# pings either; only after this time, in seconds, its client counts as gone.
_PATIENCE = 300


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


def listen(host: str, port: int) -> socket.socket:
    """A listening TCP socket; port 0 picks a free one. Raises OSError naming the address."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind((host, port))
        sock.listen(1024)
    except OSError as error:
        sock.close()
        raise OSError(error.errno, f"cannot listen on {host}:{port}: {error.strerror}") from error
    return sock


def listen_unix(path: Path) -> socket.socket:
    """A listening unix socket."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    sock.bind(str(path))
    sock.listen(1024)
    return sock


async def serve(
    api: Api,
    sock: socket.socket,
    *,
    certificate: Path | None = None,
    key: Path | None = None,
    started: asyncio.Event | None = None,
) -> None:
    """Serve until cancelled; `started` is set when connections are answered."""
    config = uvicorn.Config(
        api,
        http=HttpConnection,
        ws="websockets-sansio",
        ws_per_message_deflate=False,
        ws_ping_timeout=_PATIENCE,
        lifespan="off",
        interface="asgi3",
        log_config=None,
        access_log=False,
        server_header=False,
        date_header=False,
        proxy_headers=False,
        timeout_keep_alive=300,
        timeout_graceful_shutdown=_GRACE,
        ssl_certfile=certificate,
        ssl_keyfile=key,
    )
    server = _Server(config, started)
    serving = asyncio.ensure_future(server.serve(sockets=[sock]))
    try:
        await asyncio.shield(serving)
    finally:
        api.close()
        server.stop()
        await serving
