"""The listening socket, and the URL clients reach it by.

The socket is bound before anything else starts: a taken port is then one clear
error (or, for the default port, a free one instead), and the URL is final when
the kubeconfig and the certificate are written.
"""

from __future__ import annotations

import errno
import ipaddress
import socket

from holdfast.server import config

_BACKLOG = 1024


class AddressError(Exception):
    """The address cannot be listened on: which, why, what to do."""


def bind(listen: config.Listen) -> socket.socket:
    """Bind and listen; raises AddressError. The default port gives way to a free one."""
    try:
        return _bind(listen.host, listen.port)
    except OSError as error:
        if error.errno == errno.EADDRINUSE and listen.fallback:
            return bind(config.Listen(listen.host, 0, fallback=False))
        raise AddressError(f"cannot listen on {listen}: {_reason(error, listen.port)}") from error


def url_of(bound: socket.socket) -> str:
    """Give the https URL by which this machine reaches the socket."""
    host, port = bound.getsockname()[:2]
    if ipaddress.ip_address(host.split("%")[0]).is_unspecified:
        host = "::1" if bound.family == socket.AF_INET6 else "127.0.0.1"
    return f"https://{config.Listen(host, port)}"


def is_loopback(bound: socket.socket) -> bool:
    """Say whether only this machine can reach the socket."""
    return ipaddress.ip_address(bound.getsockname()[0].split("%")[0]).is_loopback


def _bind(host: str, port: int) -> socket.socket:
    family, kind, proto, _, target = socket.getaddrinfo(
        host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )[0]
    bound = socket.socket(family, kind, proto)
    try:
        # Without this a restart would fail while old connections linger in TIME_WAIT.
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind(target)
        bound.listen(_BACKLOG)
        bound.setblocking(False)
    except BaseException:
        bound.close()
        raise
    return bound


def _reason(error: OSError, port: int) -> str:
    if isinstance(error, socket.gaierror):
        return f"{error.strerror}; give an address of this machine, for example 127.0.0.1:{port}"
    if error.errno == errno.EADDRINUSE:
        return "another program uses it; choose another port, or port 0 for any free one"
    if error.errno == errno.EACCES:
        return "ports below 1024 need root; choose a higher one"
    if error.errno == errno.EADDRNOTAVAIL:
        return "this machine has no such address"
    return error.strerror or str(error)
