"""`/healthz` for kubelet's probes and `/metrics` for Prometheus, without a web server.

The answer of `/healthz` is 200 with `ok`, or 503 with one line for each thing that is wrong.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Sequence

from prometheus_client import REGISTRY, CollectorRegistry, generate_latest

from holdfast.backends import errors

_SECONDS = 5.0
_EXPOSITION = "text/plain; version=0.0.4; charset=utf-8"


async def serve(
    host: str,
    port: int,
    problems: Callable[[], Sequence[str]],
    metrics: CollectorRegistry = REGISTRY,
) -> None:
    """Answer until cancelled. Raises errors.Unavailable when the port is taken."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError, TimeoutError, ValueError):
            async with asyncio.timeout(_SECONDS):
                request = await reader.readline()
                while (await reader.readline()).strip():
                    pass
                writer.write(_answer(request, problems, metrics))
                await writer.drain()
        writer.close()

    try:
        server = await asyncio.start_server(answer, host, port, limit=8192)
    except OSError as error:
        raise errors.Unavailable(
            f"cannot be listened on ({error.strerror})", f"{host}:{port}", "choose another port"
        ) from error
    async with server:
        await server.serve_forever()


def _answer(
    request: bytes, problems: Callable[[], Sequence[str]], metrics: CollectorRegistry
) -> bytes:
    words = request.split()
    path = words[1] if len(words) > 1 and words[0] in (b"GET", b"HEAD") else b""
    kind = "text/plain"
    if path == b"/metrics":
        status, body, kind = "200 OK", generate_latest(metrics), _EXPOSITION
    elif path != b"/healthz":
        status, body = "404 Not Found", b"only /healthz and /metrics are here\n"
    elif wrong := problems():
        status, body = "503 Service Unavailable", ("\n".join(wrong) + "\n").encode()
    else:
        status, body = "200 OK", b"ok\n"
    head = f"HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n"
    shown = b"" if words[:1] == [b"HEAD"] else body
    return head.encode() + b"Connection: close\r\n\r\n" + shown
