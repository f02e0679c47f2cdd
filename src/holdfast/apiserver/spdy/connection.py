"""A SPDY connection and its streams, the server's side.

The counterpart, spdystream, neither keeps windows nor tells any: it takes data as fast as TCP
brings it. So a sender here is slowed by TCP alone, and a receiver stops reading the connection
while `_UNREAD` bytes of all its streams wait for a reader; then a slow stream holds up the
others, as it does in a kubelet.

The invariant: what `serve` accepted is told of every end. Once the client is gone, or broke the
protocol, every stream reads as ended and refuses to be written.
"""

from __future__ import annotations

import asyncio
import collections
import logging
from collections.abc import Callable, Mapping

from holdfast.apiserver.spdy import frames
from holdfast.apiserver.spdy.headers import ProtocolError
from holdfast.apiserver.spdy.links import Link

log = logging.getLogger("holdfast.apiserver")

# Bytes that may wait to be read from the streams of one connection.
_UNREAD = 4 * 1024 * 1024
# Streams a client may have open at once.
_STREAMS = 1024
# A client is written to this often, in seconds, so that one that died is noticed at the latest
# then, even while nothing is read from it.
_PING = 15.0
_CHUNK = 32 * 1024


class Refused(Exception):
    """Raised for a stream nobody wants; the text is for the log."""


class Stream:
    """One stream that the client opened. One reader, one writer."""

    def __init__(self, connection: Connection, number: int, headers: Mapping[str, str]) -> None:
        self.number = number
        self.headers = headers
        self.was_reset = False
        self._connection = connection
        self._pieces: collections.deque[bytes] = collections.deque()
        self._changed = asyncio.Event()
        self._heard_all = False
        self._said_all = False
        self._unwanted = False

    async def read(self) -> bytes:
        """The next bytes; b"" when no more will come (`was_reset` tells how that came)."""
        while not self._pieces:
            if self._heard_all:
                return b""
            self._changed.clear()
            await self._changed.wait()
        piece = self._pieces.popleft()
        self._connection.took(len(piece))
        return piece

    async def write(self, data: bytes) -> None:
        """Send bytes, and wait while the client takes none. Raises OSError when it is gone."""
        view = memoryview(data)
        for at in range(0, len(view), _CHUNK):
            if self._said_all:
                raise BrokenPipeError(f"stream {self.number} is closed")
            await self._connection.send(frames.Data(self.number, bytes(view[at : at + _CHUNK])))

    async def close(self) -> None:
        """Say that no more bytes come; the client may go on. May be repeated; raises OSError."""
        if not self._said_all:
            self._said_all = True
            await self._connection.send(frames.Data(self.number, fin=True))
            self._connection.settle(self)

    async def reset(self) -> None:
        """End it both ways. May be repeated; raises OSError."""
        if not self.over:
            self.end(reset=True)
            self._connection.settle(self)
            await self._connection.send(frames.Reset(self.number, frames.CANCEL))

    def discard(self) -> None:
        """Drop what comes from now on, so that it holds nothing up."""
        self._unwanted = True
        self._connection.took(sum(map(len, self._pieces)))
        self._pieces.clear()

    @property
    def over(self) -> bool:
        """Whether both sides have said all."""
        return self._heard_all and self._said_all

    # For the connection

    def hear(self, data: bytes, *, fin: bool) -> int:
        """Take what came; returns how many bytes now wait for the reader."""
        if self._heard_all:
            return 0
        self._heard_all = fin
        wanted = data if not self._unwanted else b""
        if wanted:
            self._pieces.append(wanted)
        self._changed.set()
        return len(wanted)

    def end(self, *, reset: bool) -> None:
        """The client reset it or is gone."""
        self.was_reset = self.was_reset or reset
        self._heard_all = self._said_all = True
        self._changed.set()


class Connection:
    """One client."""

    def __init__(self, link: Link) -> None:
        self._link = link
        self._encoder = frames.Encoder()
        self._decoder = frames.Decoder()
        self._streams: dict[int, Stream] = {}
        self._last = 0
        self._unread = 0
        self._room = asyncio.Event()
        self._sending = asyncio.Lock()
        self._said_goodbye = False

    async def serve(self, accept: Callable[[Stream], None]) -> None:
        """Receive until the client ends; `accept` gets each new stream and may raise `Refused`."""
        pinging = asyncio.create_task(self._ping())
        try:
            while data := await self._link.receive():
                for frame in self._decoder.feed(data):
                    if isinstance(frame, frames.GoAway):
                        return
                    await self._take(frame, accept)
                    await self._wait_for_room()
        except ProtocolError as error:
            log.warning("SPDY connection ended", extra={"error": str(error)})
            await self._say_goodbye(frames.PROTOCOL_ERROR)
        except OSError as error:
            log.debug("SPDY connection broke", extra={"error": str(error)})
        finally:
            pinging.cancel()
            await asyncio.gather(pinging, return_exceptions=True)
            for stream in self._streams.values():
                stream.end(reset=True)
            self._streams.clear()

    async def close(self) -> None:
        """Tell the client that it is over, if it is still there, and close the link."""
        await self._say_goodbye(0)
        await self._link.close()

    # For the streams

    async def send(self, frame: frames.Frame) -> None:
        """Send one frame. Raises OSError."""
        async with self._sending:
            if self._said_goodbye:
                raise BrokenPipeError("the connection is over")
            await self._link.send(self._encoder.encode(frame))

    def took(self, size: int) -> None:
        """So many bytes have found their reader."""
        self._unread -= size
        self._room.set()

    def settle(self, stream: Stream) -> None:
        """Forget a stream when both sides have said all."""
        if stream.over:
            self._streams.pop(stream.number, None)

    async def _wait_for_room(self) -> None:
        while self._unread > _UNREAD:
            self._room.clear()
            await self._room.wait()

    async def _take(self, frame: frames.Frame, accept: Callable[[Stream], None]) -> None:
        match frame:
            case frames.SynStream():
                await self._open(frame, accept)
            case frames.Data() | frames.Headers():
                self._check_opened(frame.stream)
                stream = self._streams.get(frame.stream)
                if stream is not None:
                    data = frame.data if isinstance(frame, frames.Data) else b""
                    self._unread += stream.hear(data, fin=frame.fin)
                    self.settle(stream)
            case frames.Reset():
                self._check_opened(frame.stream)
                if gone := self._streams.pop(frame.stream, None):
                    gone.end(reset=True)
            case frames.SynReply():
                raise ProtocolError(f"stream {frame.stream} is answered, but was never opened")
            case frames.Ping() if frame.number % 2:
                await self.send(frame)

    def _check_opened(self, number: int) -> None:
        """Raise `ProtocolError` unless there is or was such a stream; what was may be late."""
        if number > self._last or not number % 2:
            raise ProtocolError(f"stream {number} was never opened")

    async def _open(self, frame: frames.SynStream, accept: Callable[[Stream], None]) -> None:
        number = frame.stream
        if number <= self._last or not number % 2:
            raise ProtocolError(f"stream {number} comes after stream {self._last}")
        self._last = number
        stream = Stream(self, number, frame.headers)
        try:
            if len(self._streams) >= _STREAMS:
                raise Refused(f"there are {_STREAMS} streams already")
            accept(stream)
        except Refused as error:
            log.debug("SPDY stream refused", extra={"error": str(error)})
            await self.send(frames.Reset(number, frames.REFUSED_STREAM))
            return
        self._streams[number] = stream
        stream.hear(b"", fin=frame.fin)
        await self.send(frames.SynReply(number))

    async def _ping(self) -> None:
        number = 0
        while True:
            await asyncio.sleep(_PING)
            number = number % 0x7FFFFFFE + 2
            try:
                await self.send(frames.Ping(number))
            except OSError:
                break
        # Whoever waits for room would not hear that the client is gone.
        for stream in list(self._streams.values()):
            stream.end(reset=True)
            stream.discard()

    async def _say_goodbye(self, status: int) -> None:
        if self._said_goodbye:
            return
        self._said_goodbye = True
        try:
            async with asyncio.timeout(1), self._sending:
                await self._link.send(self._encoder.encode(frames.GoAway(self._last, status)))
        except (OSError, TimeoutError) as error:
            log.debug("client left without goodbye", extra={"error": str(error)})
