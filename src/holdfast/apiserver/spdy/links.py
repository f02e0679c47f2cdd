"""What carries SPDY's bytes: a connection that was upgraded, or the messages of a WebSocket.

Both wait in `send` while the client takes nothing, and raise `OSError` when it is gone. A link
is used by one receiver and, under a lock of the connection, by one sender at a time.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import Protocol

from holdfast.apiserver.requests import Receive, Send

_CHUNK = 64 * 1024


class Link(Protocol):
    """Bytes both ways."""

    async def receive(self) -> bytes:
        """The next bytes; b"" when no more will come."""

    async def send(self, data: bytes) -> None:
        """Send, and wait while too much is under way. Raises OSError."""

    async def close(self) -> None:
        """End the connection once what was sent has gone. May be repeated."""


class UpgradedLink:
    """An HTTP connection after its upgrade."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    async def receive(self) -> bytes:
        """The next bytes; b"" when the client is gone, in whatever way."""
        try:
            return await self._reader.read(_CHUNK)
        except OSError:
            return b""

    async def send(self, data: bytes) -> None:
        """Send, and wait while the client takes nothing. Raises OSError."""
        self._writer.write(data)
        await self._writer.drain()

    async def close(self) -> None:
        """Close the connection; what was written before still goes out."""
        self._writer.close()


class WebSocketLink:
    """An accepted WebSocket whose binary messages are pieces of the byte stream."""

    def __init__(self, receive: Receive, send: Send) -> None:
        self._receive = receive
        self._send = send
        self._over = False

    async def receive(self) -> bytes:
        """The next message that is not empty; b"" when the client is gone."""
        while not self._over:
            message = await self._receive()
            self._over = message["type"] == "websocket.disconnect"
            if data := message.get("bytes"):
                return bytes(data)
        return b""

    async def send(self, data: bytes) -> None:
        """Send one message. Raises OSError."""
        await self._send({"type": "websocket.send", "bytes": data})

    async def close(self) -> None:
        """Say goodbye, which kubectl takes for the end of the connection."""
        if not self._over:
            self._over = True
            with contextlib.suppress(OSError):
                await self._send({"type": "websocket.close", "code": 1000})
