"""Port-forward: Kubernetes' `portforward.k8s.io`, over SPDY however that comes.

For each connection the client opens two streams with the same `requestid`, `data` and `error`,
both with the `port`. Bytes go between `data` and the port until both sides have ended; `error`
carries the text of what went wrong and is closed when the port has said all.

The invariant: no connection into a pod outlives the connection of its client.
"""

from __future__ import annotations

import asyncio
import logging

from holdfast.api import errors
from holdfast.apiserver.podstreams import Pod, PodRunner
from holdfast.apiserver.spdy.connection import Connection, Refused, Stream
from holdfast.apiserver.spdy.links import Link

log = logging.getLogger("holdfast.apiserver")

PROTOCOL = "portforward.k8s.io"
# The name of the WebSocket protocol in which kubectl sends SPDY since 1.31.
TUNNELLED = f"SPDY/3.1+{PROTOCOL}"
_CHUNK = 64 * 1024
# Seconds a client has for the second stream of a pair.
_PAIRING = 30.0
# Connections of one client; it may reset streams and open others before their tasks end.
_CONNECTIONS = 1024


class _Pair:
    """The two streams of one connection."""

    def __init__(self) -> None:
        self.streams: dict[str, Stream] = {}
        self.complete = asyncio.Event()

    def add(self, kind: str, stream: Stream) -> None:
        if kind in self.streams:
            raise Refused(f"{kind} stream already assigned")
        self.streams[kind] = stream
        if len(self.streams) == 2:
            self.complete.set()


class Forwarding:
    """One client and all the connections it makes to one pod."""

    def __init__(self, pod: Pod, runner: PodRunner, link: Link) -> None:
        self._pod = pod
        self._runner = runner
        self._connection = Connection(link)
        self._pairs: dict[str, _Pair] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    async def run(self) -> None:
        """Forward until the client ends."""
        try:
            await self._connection.serve(self._accept)
        finally:
            tasks = list(self._tasks)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await self._connection.close()

    def _accept(self, stream: Stream) -> None:
        port = stream.headers.get("port", "")
        if not port.isdecimal() or not 0 < int(port[:6]) < 1 << 16:
            raise Refused(f"unable to parse {port!r} as a port")
        kind = stream.headers.get("streamtype", "")
        if kind not in ("data", "error"):
            raise Refused(f"invalid stream type {kind!r}")
        # Clients of long ago do not number requests, but open the error stream just before.
        number = stream.number if kind == "error" else stream.number - 2
        name = stream.headers.get("requestid") or str(number)
        if name not in self._pairs and len(self._tasks) >= _CONNECTIONS:
            raise Refused(f"there are {_CONNECTIONS} connections already")
        pair = self._pairs.get(name) or _Pair()
        pair.add(kind, stream)
        if name not in self._pairs:
            self._pairs[name] = pair
            task = asyncio.create_task(self._serve_pair(name, pair, int(port)))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _serve_pair(self, name: str, pair: _Pair, port: int) -> None:
        try:
            async with asyncio.timeout(_PAIRING):
                await pair.complete.wait()
            # The number may come again from now on.
            del self._pairs[name]
            await self._forward(port, pair.streams["data"], pair.streams["error"])
        except (OSError, TimeoutError) as error:
            log.debug("port forwarding ended early", extra={"error": str(error)})
        finally:
            self._pairs.pop(name, None)
            for stream in pair.streams.values():
                stream.discard()
        for stream in pair.streams.values():
            await self._leave(stream)

    async def _leave(self, stream: Stream) -> None:
        try:
            await stream.reset()
        except OSError as error:
            log.debug("client left before its stream", extra={"error": str(error)})

    async def _forward(self, port: int, data: Stream, said: Stream) -> None:
        try:
            reader, writer = await self._runner.connect(self._pod, port)
        except (OSError, errors.StatusError) as error:
            meta = self._pod["metadata"]
            await said.write(
                f"error forwarding port {port} to pod {meta['name']}, uid {meta['uid']}: "
                f"{error}".encode()
            )
            await said.close()
            await data.close()
            return
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(_carry_in(data, writer))
                group.create_task(_carry_out(reader, data, said))
        except* OSError as several:
            log.debug("a forwarded connection broke", extra={"error": str(several.exceptions[0])})
        finally:
            writer.transport.abort()


async def _carry_in(data: Stream, writer: asyncio.StreamWriter) -> None:
    """From the client to the port. Raises OSError when the client gave up."""
    while piece := await data.read():
        writer.write(piece)
        await writer.drain()
    if data.was_reset:
        raise ConnectionResetError("the client reset its stream")
    writer.write_eof()


async def _carry_out(reader: asyncio.StreamReader, data: Stream, said: Stream) -> None:
    """From the port to the client, which waits for the end of `said`, too."""
    while piece := await reader.read(_CHUNK):
        await data.write(piece)
    await said.close()
    await data.close()
