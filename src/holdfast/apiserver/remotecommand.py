"""Exec and attach over SPDY: Kubernetes' `v4.channel.k8s.io` and what came before.

The client opens one stream for each channel and names it in the header `streamtype`: `error`
for the outcome, `stdin`, `stdout`, `stderr`, and `resize` for the size of the terminal, which
exists from version 3. Version 4 gives the outcome as a Status, earlier ones as text when there
is something to complain about.

The invariant: a program lives no longer than its client's connection.
"""

from __future__ import annotations

import asyncio
import json
import logging
from typing import Any

import msgspec

from holdfast.apiserver import channels
from holdfast.apiserver.podstreams import Session
from holdfast.apiserver.spdy.connection import Connection, Refused, Stream
from holdfast.apiserver.spdy.links import Link

log = logging.getLogger("holdfast.apiserver")

V4, V3, V2, V1 = (f"{each}channel.k8s.io" for each in ("v4.", "v3.", "v2.", ""))
PROTOCOLS = (V4, V3, V2, V1)
_CHANNELS = {"stdout": channels.STDOUT, "stderr": channels.STDERR}
# Seconds a client has to open its streams.
_OPENING = 30.0
# Seconds a client has to leave when all was said; those who end first lose what is under way.
_LEAVING = 300.0
# A size is some 30 bytes; whatever is longer than this is none.
_SIZE_LIMIT = 4096


class RemoteCommand:
    """One upgraded connection and the program behind it."""

    def __init__(self, session: Session, query: channels.Query, protocol: str, link: Link) -> None:
        self._session = session
        self._protocol = protocol
        self._connection = Connection(link)
        self._streams: dict[str, Stream] = {}
        self._expected = _expected(query, protocol)
        self._complete = asyncio.Event()

    async def run(self) -> None:
        """Carry data both ways until either side has ended; then end the other."""
        serving = asyncio.create_task(self._connection.serve(self._accept))
        others = [asyncio.create_task(each) for each in (self._speak(), self._feed(), self._fit())]
        speaking = others[0]
        try:
            await asyncio.wait((serving, speaking), return_when=asyncio.FIRST_COMPLETED)
            if speaking.done():
                speaking.result()
                for stream in self._streams.values():
                    stream.discard()
                await asyncio.wait((serving,), timeout=_LEAVING)
        except (OSError, TimeoutError) as error:
            log.debug("exec or attach ended early", extra={"error": str(error)})
        finally:
            for task in (serving, *others):
                task.cancel()
            await asyncio.gather(serving, *others, return_exceptions=True)
            await self._session.close()
            await self._connection.close()

    def _accept(self, stream: Stream) -> None:
        name = stream.headers.get("streamtype", "")
        if name not in self._expected or name in self._streams:
            raise Refused(f"unexpected stream type: {name!r}")
        self._streams[name] = stream
        if len(self._streams) == len(self._expected):
            self._complete.set()

    async def _speak(self) -> None:
        async with asyncio.timeout(_OPENING):
            await self._complete.wait()
        named = {
            channel: self._streams[name]
            for name, channel in _CHANNELS.items()
            if name in self._streams
        }
        while (piece := await self._session.read()) is not None:
            channel, data = piece
            if channel in named:
                await named[channel].write(data)
        outcome = channels.outcome(await self._session.result())
        await self._streams["error"].write(self._worded(outcome))
        for stream in self._streams.values():
            await stream.close()

    def _worded(self, outcome: dict[str, Any]) -> bytes:
        if self._protocol == V4:
            return msgspec.json.encode(outcome)
        return str(outcome.get("message", "")).encode()

    async def _feed(self) -> None:
        await self._complete.wait()
        stream = self._streams.get("stdin")
        if stream is None:
            return
        while data := await stream.read():
            await self._session.write(data)
        await self._session.end_input()

    async def _fit(self) -> None:
        await self._complete.wait()
        stream = self._streams.get("resize")
        if stream is None:
            return
        text, decoder = "", json.JSONDecoder()
        while data := await stream.read():
            text = (text + data.decode("ascii", "replace")).lstrip()
            while text:
                try:
                    size, end = decoder.raw_decode(text)
                except (ValueError, RecursionError):
                    text = text[:_SIZE_LIMIT]
                    break
                text = text[end:].lstrip()
                if fits := channels.size_of(size):
                    await self._session.resize(*fits)


def _expected(query: channels.Query, protocol: str) -> set[str]:
    wanted = {
        "error": True,
        "stdin": query.stdin,
        "stdout": query.stdout,
        # A terminal has one output.
        "stderr": query.stderr and not query.terminal,
        "resize": query.terminal and protocol in (V4, V3),
    }
    return {name for name, is_wanted in wanted.items() if is_wanted}
