"""Sending: a complete answer, or a stream that ends when either side wants it to."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass

from holdfast.apiserver.requests import Receive, Send

JSON = b"application/json"


@dataclass(frozen=True, slots=True)
class Answer:
    """A body with its status code, type and `Warning` texts."""

    body: bytes
    code: int = 200
    content_type: bytes = JSON
    warnings: Sequence[str] = ()
    headers: Sequence[tuple[bytes, bytes]] = ()


def _warning(text: str) -> tuple[bytes, bytes]:
    """An RFC 7234 warning header; newlines and quotes would break out of it."""
    flat = " ".join(text.split()).replace("\\", "\\\\").replace('"', '\\"')
    return b"warning", f'299 - "{flat}"'.encode()


async def send_answer(send: Send, answer: Answer) -> None:
    """Send a complete answer."""
    headers = [
        (b"content-type", answer.content_type),
        (b"content-length", b"%d" % len(answer.body)),
        (b"cache-control", b"no-cache, private"),
        *answer.headers,
        *map(_warning, answer.warnings),
    ]
    await send({"type": "http.response.start", "status": answer.code, "headers": headers})
    await send({"type": "http.response.body", "body": answer.body})


async def send_stream(
    send: Send, receive: Receive, chunks: AsyncIterator[bytes], close: Callable[[], None]
) -> None:
    """Send chunks until they end; `close` is called when the client leaves first."""
    headers = [(b"content-type", JSON), (b"cache-control", b"no-cache, private")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    # An empty chunk makes the server send the headers now: a client waits for them.
    await send({"type": "http.response.body", "body": b"", "more_body": True})
    gone = asyncio.ensure_future(_disconnected(receive))
    gone.add_done_callback(lambda _: close())
    try:
        async for chunk in chunks:
            await send({"type": "http.response.body", "body": chunk, "more_body": True})
        if not gone.done():
            await send({"type": "http.response.body", "body": b""})
    finally:
        gone.cancel()


async def send_text(send: Send, receive: Receive, chunks: AsyncIterator[bytes]) -> None:
    """Send text as it comes; stop asking for it when the client leaves."""
    headers = [(b"content-type", b"text/plain"), (b"cache-control", b"no-cache, private")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": b"", "more_body": True})
    sending = asyncio.ensure_future(_send_all(send, chunks))
    gone = asyncio.ensure_future(_disconnected(receive))
    try:
        await asyncio.wait((sending, gone), return_when=asyncio.FIRST_COMPLETED)
        if sending.done():
            sending.result()
            await send({"type": "http.response.body", "body": b""})
    finally:
        for task in (sending, gone):
            task.cancel()
        await asyncio.gather(sending, gone, return_exceptions=True)


async def _send_all(send: Send, chunks: AsyncIterator[bytes]) -> None:
    async for chunk in chunks:
        await send({"type": "http.response.body", "body": chunk, "more_body": True})


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
