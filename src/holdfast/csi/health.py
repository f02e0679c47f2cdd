"""`/healthz` over HTTP for kubelet's probes, without a sidecar or a web server.

The answer is 200 with `ok`, or 503 with one line for each thing that is wrong.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Sequence

from holdfast.backends import errors

_SECONDS = 5.0


async def serve(host: str, port: int, problems: Callable[[], Sequence[str]]) -> None:
    """Answer until cancelled. Raises errors.Unavailable when the port is taken."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError, TimeoutError, ValueError):
            async with asyncio.timeout(_SECONDS):
                request = await reader.readline()
                while (await reader.readline()).strip():
                    pass
                writer.write(_answer(request, problems()))
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


def _answer(request: bytes, problems: Sequence[str]) -> bytes:
    words = request.split()
    if len(words) < 2 or words[0] not in (b"GET", b"HEAD") or words[1] != b"/healthz":
        status, text = "404 Not Found", "only /healthz is here"
    elif problems:
        status, text = "503 Service Unavailable", "\n".join(problems)
    else:
        status, text = "200 OK", "ok"
    body = f"{text}\n".encode()
    head = f"HTTP/1.1 {status}\r\nContent-Type: text/plain\r\nContent-Length: {len(body)}\r\n"
    shown = b"" if words[:1] == [b"HEAD"] else body
    return head.encode() + b"Connection: close\r\n\r\n" + shown
