"""TCP connections from the node agent to what pods listen on.

Probes and hooks of types `httpGet` and `tcpSocket` go through here. What goes wrong is told in
the words of Go's network library, because those are what a kubelet's events show and what
people search for.

The invariant: every connection that was opened is dropped by whoever opened it, at once and
without waiting for the other side.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import os
import socket
import ssl
from collections.abc import AsyncIterator

from holdfast.controllers.nodeagent.containerspecs import Container

# Pods share the machine's network, so what they listen on is there.
POD_HOST = "127.0.0.1"
NOT_TLS = "http: server gave HTTP response to HTTPS client"

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class ConnectionFailed(Exception):
    """Nobody could be reached, or the other side broke off; the text says which."""


class PortUnknown(Exception):
    """A probe or hook names a port that its container does not have."""


def resolve(port: int | str, container: Container) -> int:
    """The number of a port given by number or by name. Raises PortUnknown."""
    number = port if isinstance(port, int) else _named(port, container)
    if not 0 < number < 65536:
        raise PortUnknown(f"invalid port number: {number}")
    return number


def _named(name: str, container: Container) -> int:
    found = next((each.container_port for each in container.ports if each.name == name), None)
    if found is not None:
        return found
    digits = name[1:] if name[:1] in ("+", "-") else name
    if not (digits.isascii() and digits.isdigit()):
        raise PortUnknown(f'strconv.Atoi: parsing "{name}": invalid syntax')
    if len(digits) > 18:
        raise PortUnknown(f'strconv.Atoi: parsing "{name}": value out of range')
    return int(name)


def joined(host: str, port: int) -> str:
    """Host and port as one address, an IPv6 host in brackets."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


@contextlib.asynccontextmanager
async def opened(host: str, port: int, *, tls: bool = False) -> AsyncIterator[Streams]:
    """Connect, with `tls` without looking at certificates. Raises ConnectionFailed."""
    try:
        streams = await asyncio.open_connection(
            host, port, ssl=_tls() if tls else None, server_hostname=host if tls else None
        )
    except ssl.SSLError as error:
        raise ConnectionFailed(_tls_told(error)) from error
    except (socket.gaierror, UnicodeError) as error:
        raise ConnectionFailed(f"dial tcp: lookup {host}: no such host") from error
    except OSError as error:
        raise ConnectionFailed(_dial_told(host, port, error)) from error
    try:
        yield streams
    except ssl.SSLError as error:
        raise ConnectionFailed(_tls_told(error)) from error
    except OSError as error:
        own, peer = (streams[1].get_extra_info(name) for name in ("sockname", "peername"))
        at = f"{joined(*own[:2])}->{joined(*peer[:2])}" if own and peer else joined(host, port)
        raise ConnectionFailed(f"read tcp {at}: read: {_reason(error)}") from error
    finally:
        streams[1].transport.abort()


async def reach(host: str, port: int, seconds: float) -> None:
    """See that somebody accepts connections there. Raises ConnectionFailed."""
    try:
        async with asyncio.timeout(seconds), opened(host, port):
            pass
    except TimeoutError as error:
        raise ConnectionFailed(f"dial tcp {joined(host, port)}: i/o timeout") from error


@functools.cache
def _tls() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def _dial_told(host: str, port: int, error: OSError) -> str:
    if isinstance(error, ConnectionResetError):
        return "EOF"  # in the middle of the TLS handshake
    return f"dial tcp {joined(host, port)}: connect: {_reason(error)}"


def _tls_told(error: ssl.SSLError) -> str:
    if error.reason in ("WRONG_VERSION_NUMBER", "HTTP_REQUEST", "RECORD_LAYER_FAILURE"):
        return NOT_TLS
    return f"tls: {(error.reason or str(error)).lower().replace('_', ' ')}"


def _reason(error: OSError) -> str:
    """What the system calls the error."""
    if isinstance(error, ConnectionResetError):
        return "connection reset by peer"
    return os.strerror(error.errno).lower() if error.errno else str(error)
