"""Upgrades of an HTTP connection to something that is not a WebSocket.

uvicorn knows WebSockets and answers any other upgrade as if it had not been asked for. Its
protocol gets one addition here: the scope of a request that asks for an upgrade carries a
function that hands the connection over, with which `spdy_link` answers 101. Everything else,
WebSockets among it, takes the way it always took.

The invariant: a connection that was handed over belongs to the task that asked for it, and to
nobody else; uvicorn takes its client for gone.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from holdfast.api import errors
from holdfast.apiserver.requests import Request
from holdfast.apiserver.spdy import links

SPDY = "SPDY/3.1"
_EXTENSION = "holdfast.upgrade"
_VERSION_HEADER = b"x-stream-protocol-version"

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]
_HandOver = Callable[[], Streams]


class HttpConnection(HttpToolsProtocol):
    """uvicorn's HTTP protocol, which can let go of its connection."""

    def on_headers_complete(self) -> None:
        """A request is there, and its application starts."""
        if self.parser.should_upgrade():
            # An extension is a dict by ASGI's definition, and may hold anything.
            self.scope["extensions"] = {_EXTENSION: {"hand_over": self._hand_over}}
        super().on_headers_complete()

    def _unsupported_upgrade_warning(self) -> None:
        # The application answers, and says what it does not do.
        return

    def _hand_over(self) -> Streams:
        """Let go of the connection. Raises OSError when it is gone."""
        if self.transport.is_closing():
            raise ConnectionResetError("the client went away before the upgrade")
        self.flow.resume_reading()
        reader = asyncio.StreamReader(loop=self.loop)
        protocol = asyncio.StreamReaderProtocol(reader, loop=self.loop)
        self.transport.set_protocol(protocol)
        protocol.connection_made(self.transport)
        self.connections.discard(self)
        self.cycle.disconnected = True
        self.cycle.message_event.set()
        return reader, asyncio.StreamWriter(self.transport, protocol, reader, self.loop)


def asks_for_spdy(request: Request) -> bool:
    """Whether a request came to be upgraded to SPDY, over a server that can do that."""
    wanted = request.header(b"upgrade").lower() == SPDY.lower()
    return wanted and _EXTENSION in (request.scope.get("extensions") or {})


def negotiate(request: Request, spoken: Sequence[str]) -> str:
    """The first of the client's protocols that is spoken here; "" when it names none.

    Raises `Forbidden`, as Kubernetes does, when there is none in common.
    """
    offered = [
        each.strip()
        for name, value in request.scope["headers"]
        if name == _VERSION_HEADER
        for each in value.decode("latin-1").split(",")
    ]
    found = next((each for each in offered if each in spoken), "")
    if offered and not found:
        raise errors.Forbidden(
            f"unable to upgrade: unable to negotiate protocol: client supports "
            f"[{' '.join(offered)}], server accepts [{' '.join(spoken)}]"
        )
    return found


async def spdy_link(request: Request, protocol: str) -> links.UpgradedLink:
    """Answer 101 and return what the connection has become. Raises OSError."""
    hand_over: _HandOver = request.scope["extensions"][_EXTENSION]["hand_over"]
    reader, writer = hand_over()
    head = [b"HTTP/1.1 101 Switching Protocols", b"connection: Upgrade", b"upgrade: SPDY/3.1"]
    if protocol:
        head.append(_VERSION_HEADER + b": " + protocol.encode("latin-1"))
    link = links.UpgradedLink(reader, writer)
    try:
        await link.send(b"\r\n".join(head) + b"\r\n\r\n")
    except BaseException:
        await link.close()
        raise
    return link
