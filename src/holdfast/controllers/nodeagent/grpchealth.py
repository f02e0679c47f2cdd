"""Probes of type grpc: one call of the health service `grpc.health.v1.Health`.

The library grpcio is loaded when the first such probe runs, because only few pods have one.
The two messages have one field each, so they are written and read here.
"""

from __future__ import annotations

import asyncio
from types import ModuleType
from typing import Any, Final

from holdfast.controllers.nodeagent import connections, httpgets

METHOD: Final = "/grpc.health.v1.Health/Check"
SERVING: Final = 1
_STATUSES: Final = ("UNKNOWN", "SERVING", "NOT_SERVING", "SERVICE_UNKNOWN")


class Unhealthy(Exception):
    """The service did not say that it is well; the text is a kubelet's."""


class LibraryMissing(Exception):
    """This machine has no grpcio."""


async def check(host: str, port: int, service: str, seconds: float) -> None:
    """Ask once. Raises Unhealthy, LibraryMissing."""
    grpc = await asyncio.to_thread(_library)
    at = connections.joined(host, port)
    agent = f"kube-probe/{httpgets.VERSION}"
    options = [("grpc.primary_user_agent", agent), ("grpc.enable_http_proxy", 0)]
    deadline = asyncio.get_running_loop().time() + seconds
    async with grpc.aio.insecure_channel(at, options=options) as channel:
        try:
            async with asyncio.timeout_at(deadline):
                await channel.channel_ready()
        except TimeoutError as error:
            text = f'failed to connect service "{at}" within {seconds:g}s'
            raise Unhealthy(f"timeout: {text}: context deadline exceeded") from error
        call = channel.unary_unary(METHOD, _as_they_are, _as_they_are)
        try:
            left = max(0.001, deadline - asyncio.get_running_loop().time())
            answer: bytes = await call(_request(service), timeout=left)
        except grpc.aio.AioRpcError as error:
            raise Unhealthy(_told(error.code(), error.details() or "", seconds)) from error
    status = _status(answer)
    if status != SERVING:
        name = _STATUSES[status] if status < len(_STATUSES) else str(status)
        raise Unhealthy(f'service unhealthy (responded with "{name}")')


def _library() -> ModuleType:
    try:
        import grpc
    except ImportError as error:
        text = "probes of type grpc need the Python package grpcio: install holdfast[csi]"
        raise LibraryMissing(text) from error
    return grpc


def _told(code: Any, details: str, seconds: float) -> str:
    if code.name == "UNIMPLEMENTED":
        return (
            "error: this server does not implement the grpc health protocol "
            f"(grpc.health.v1.Health): {details}"
        )
    if code.name == "DEADLINE_EXCEEDED":
        return f"timeout: health rpc did not complete within {seconds:g}s"
    name = "".join(part.capitalize() for part in code.name.split("_"))
    return f"error: health rpc probe failed: rpc error: code = {name} desc = {details}"


def _as_they_are(message: bytes) -> bytes:
    return message


def _request(service: str) -> bytes:
    """HealthCheckRequest: field 1 is the name of the service."""
    name = service.encode()
    return b"\x0a" + _varint(len(name)) + name if name else b""


def _varint(number: int) -> bytes:
    built = bytearray()
    while number > 0x7F:
        built.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes((*built, number))


def _status(answer: bytes) -> int:
    """HealthCheckResponse: field 1 is the status, a small number; unknown when not there."""
    return answer[1] if len(answer) >= 2 and answer[0] == 0x08 else 0
