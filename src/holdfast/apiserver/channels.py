"""Exec and attach over WebSocket: Kubernetes' channel protocol, versions 4 and 5.

Every binary message begins with the number of its channel: 0 input, 1 output, 2 errors,
3 the outcome as a Status, 4 the size of the terminal. Version 5 adds 255, which closes the
channel whose number follows: how a client ends its input.

The invariant: a program lives no longer than its client's connection. The connection is
watched even while the program takes no input: at most `_BACKLOG` messages wait for it.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import parse_qsl

import msgspec

from holdfast.api import errors
from holdfast.apiserver.podstreams import Session
from holdfast.apiserver.requests import Receive, Scope, Send

PROTOCOLS = ("v5.channel.k8s.io", "v4.channel.k8s.io")
STDIN, STDOUT, STDERR, ERROR, RESIZE, CLOSE = 0, 1, 2, 3, 4, 255
_BACKLOG = 64
# How often a client is checked on while its program takes no input, in seconds.
_CHECK = 15.0


class Query:
    """What an exec or attach asks for."""

    def __init__(self, scope: Scope) -> None:
        pairs = parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True)
        values = dict(pairs)
        self.command = [value for name, value in pairs if name == "command"]
        self.container = values.get("container", "")
        self.stdin = _true(values, "stdin")
        self.stdout = _true(values, "stdout")
        self.stderr = _true(values, "stderr")
        self.terminal = _true(values, "tty")

    def check(self, *, command: bool) -> None:
        """Refuse what makes no sense. Raises `BadRequest`."""
        if command and not self.command:
            raise errors.BadRequest("you must specify at least one command for the container")
        if not (self.stdin or self.stdout or self.stderr):
            raise errors.BadRequest("you must specify at least 1 of stdin, stdout, stderr")


def _true(values: Mapping[str, str], name: str) -> bool:
    return values.get(name, "").lower() in ("1", "true", "t")


def protocol_of(scope: Scope, spoken: Sequence[str] = PROTOCOLS) -> str:
    """The version of the protocol to speak. Raises `BadRequest` when there is none in common."""
    offered = scope.get("subprotocols") or ()
    for known in spoken:
        if known in offered:
            return known
    raise errors.BadRequest(
        f"unable to upgrade: none of the client's protocols {list(offered)} is spoken here; "
        f"these are: {', '.join(spoken)}"
    )


async def refuse(scope: Scope, send: Send, error: errors.StatusError) -> None:
    """Answer a handshake with an error instead of a connection."""
    if "websocket.http.response" not in (scope.get("extensions") or {}):
        await send({"type": "websocket.close", "code": 1008})
        return
    headers = [(b"content-type", b"application/json")]
    start = {"type": "websocket.http.response.start", "status": error.code, "headers": headers}
    await send(start)
    body = msgspec.json.encode(error.status())
    await send({"type": "websocket.http.response.body", "body": body})


class Conversation:
    """One accepted connection and the program behind it."""

    def __init__(self, session: Session, query: Query, receive: Receive, send: Send) -> None:
        self._session = session
        self._query = query
        self._receive = receive
        self._send = send
        self._heard: asyncio.Queue[bytes] = asyncio.Queue(_BACKLOG)

    async def run(self) -> None:
        """Carry data both ways until either side has ended; then end the other."""
        tasks = [
            asyncio.create_task(each) for each in (self._speak(), self._listen(), self._feed())
        ]
        speaking, listening, _ = tasks
        try:
            await asyncio.wait((speaking, listening), return_when=asyncio.FIRST_COMPLETED)
            if speaking.done():
                speaking.result()
        except OSError:
            # The connection broke while something was sent.
            return
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await self._session.close()

    async def _speak(self) -> None:
        wanted = {STDOUT: self._query.stdout, STDERR: self._query.stderr}
        while (piece := await self._session.read()) is not None:
            channel, data = piece
            if wanted.get(channel):
                await self._say(channel, data)
        ended = outcome(await self._session.result())
        await self._say(ERROR, msgspec.json.encode(ended))
        await self._send({"type": "websocket.close", "code": 1000})

    async def _say(self, channel: int, data: bytes) -> None:
        await self._send({"type": "websocket.send", "bytes": bytes((channel,)) + data})

    async def _listen(self) -> None:
        """Receive until the client is gone; what is for the program waits in the backlog."""
        while True:
            message = await self._receive()
            if message["type"] == "websocket.disconnect":
                return
            data = message.get("bytes") or (message.get("text") or "").encode()
            while data:
                try:
                    async with asyncio.timeout(_CHECK):
                        await self._heard.put(data)
                        break
                except TimeoutError:
                    # Nothing is received while the backlog is full: ask whether somebody is
                    # still there. An empty message says nothing to a client.
                    await self._say(STDOUT, b"")

    async def _feed(self) -> None:
        while True:
            message = await self._heard.get()
            channel, data = message[0], message[1:]
            if channel == STDIN and self._query.stdin and data:
                await self._session.write(data)
            elif channel == RESIZE:
                await self._resize(data)
            elif channel == CLOSE and data[:1] == bytes((STDIN,)):
                await self._session.end_input()

    async def _resize(self, data: bytes) -> None:
        try:
            fits = size_of(json.loads(data))
        except ValueError:
            return
        if fits:
            await self._session.resize(*fits)


def size_of(size: object) -> tuple[int, int] | None:
    """The columns and rows a client tells; None when these are none."""
    if not isinstance(size, dict):
        return None
    columns, rows = size.get("Width"), size.get("Height")
    if not isinstance(columns, int) or not isinstance(rows, int):
        return None
    return (columns, rows) if 0 <= columns < 1 << 16 and 0 <= rows < 1 << 16 else None


def outcome(code: int) -> dict[str, Any]:
    """How a program ended, as the Status that clients read its exit code from."""
    if code == 0:
        return {"metadata": {}, "status": "Success"}
    return {
        "metadata": {},
        "status": "Failure",
        "message": f"command terminated with non-zero exit code: exit status {code}",
        "reason": "NonZeroExitCode",
        "details": {"causes": [{"reason": "ExitCode", "message": str(code)}]},
    }
