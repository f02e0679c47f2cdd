"""The HTTP server around the API: uvicorn on a TCP address with TLS, or on a unix socket.

It runs in the caller's event loop and leaves signals alone; the owner cancels it. Stopping ends
the watches first, so that no client holds the server up.
"""

from __future__ import annotations

import asyncio
import socket
from pathlib import Path

import uvicorn

from holdfast.apiserver.http import Api
from holdfast.apiserver.upgrading import HttpConnection
from holdfast.kit import serving

# A WebSocket that takes no input for a while, because its program does not, does not answer
# pings either; only after this time, in seconds, its client counts as gone.
_PATIENCE = 300


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
        timeout_graceful_shutdown=serving.GRACE,
        ssl_certfile=certificate,
        ssl_keyfile=key,
    )
    await serving.serve(config, sock, started=started, close=api.close)
