"""The HTTP server around the service: uvicorn on a TCP socket, with TLS where it is configured.

It leaves signals to its owner, who cancels it.
"""

from __future__ import annotations

import asyncio
import socket
from pathlib import Path

import uvicorn

from holdfast.heketi.http import App
from holdfast.kit import serving


async def serve(
    app: App,
    sock: socket.socket,
    *,
    certificate: Path | None = None,
    key: Path | None = None,
    started: asyncio.Event | None = None,
) -> None:
    """Serve until cancelled; `started` is set when requests are answered."""
    config = uvicorn.Config(
        app,
        http="httptools",
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
    await serving.serve(config, sock, started=started)
