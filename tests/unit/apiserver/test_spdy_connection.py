"""A SPDY connection over a real socket: whatever a client sends, it ends, and says why."""

from __future__ import annotations

import asyncio
import socket
import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from holdfast.apiserver.spdy import connection, frames, headers, links

# Streams that exist, existed, and never did; odd ones are the client's.
STREAMS = st.integers(1, 9)
NAMED = st.sampled_from([{}, {"streamtype": "error"}, {"streamtype": "refused"}])
FRAMES = st.one_of(
    st.builds(frames.SynStream, STREAMS, NAMED, st.booleans()),
    st.builds(frames.SynReply, STREAMS, NAMED, st.booleans()),
    st.builds(frames.Headers, STREAMS, NAMED, st.booleans()),
    st.builds(frames.Data, STREAMS, st.binary(max_size=50), st.booleans()),
    st.builds(frames.Reset, STREAMS),
    st.builds(frames.Ping, st.integers(0, 9)),
    st.builds(frames.WindowUpdate, STREAMS, st.integers(0, 100)),
    st.builds(frames.Settings, st.dictionaries(st.integers(0, 9), st.integers(0, 9), max_size=2)),
    st.builds(frames.GoAway, st.integers(0, 9)),
)


def encoded(*several: frames.Frame) -> bytes:
    encoder = frames.Encoder()
    return b"".join(map(encoder.encode, several))


class Server:
    """The server's end of a socket; every stream that it accepts is echoed."""

    def __init__(self) -> None:
        self.streams: list[connection.Stream] = []
        self.echoes: list[asyncio.Task[None]] = []

    def accept(self, stream: connection.Stream) -> None:
        if stream.headers.get("streamtype") == "refused":
            raise connection.Refused("not wanted")
        self.streams.append(stream)
        self.echoes.append(asyncio.create_task(self._echo(stream)))

    async def _echo(self, stream: connection.Stream) -> None:
        try:
            while data := await stream.read():
                await stream.write(data)
            await stream.close()
        except OSError:
            return


async def answered(sent: bytes, *, leaves: bool) -> tuple[bytes, Server]:
    """What the server says to these bytes, until it ends the connection."""
    ours, theirs = socket.socketpair()
    served = connection.Connection(links.UpgradedLink(*await asyncio.open_connection(sock=theirs)))
    reader, writer = await asyncio.open_connection(sock=ours)
    server = Server()

    async def serve() -> None:
        await served.serve(server.accept)
        await served.close()

    serving = asyncio.create_task(serve())
    writer.write(sent)
    if leaves:
        writer.write_eof()
    async with asyncio.timeout(10):
        said = await reader.read()
        await serving
        await asyncio.gather(*server.echoes)
    writer.close()
    return said, server


def check_over(said: bytes, server: Server) -> list[frames.Frame]:
    """Every stream knows that it is over, and the goodbye is the last that was said."""

    async def check() -> None:
        for stream in server.streams:
            while await stream.read():
                pass
            with pytest.raises(OSError, match="closed"):
                await stream.write(b"x")

    asyncio.run(check())
    heard = list(frames.Decoder().feed(said))
    assert isinstance(heard[-1], frames.GoAway)
    return heard


@settings(deadline=None, max_examples=150)
@given(st.lists(FRAMES, max_size=8), st.data())
def test_whatever_order_frames_come_in_the_connection_ends_cleanly(
    several: list[frames.Frame], data: st.DataObject
) -> None:
    sent = encoded(*several)
    # The last frame may be cut short.
    sent = sent[: data.draw(st.integers(0, len(sent)))]
    check_over(*asyncio.run(answered(sent, leaves=True)))


@settings(deadline=None, max_examples=150)
@given(st.lists(FRAMES, min_size=1, max_size=4), st.binary(max_size=60), st.data())
def test_bytes_that_are_no_frames_end_the_connection_cleanly(
    several: list[frames.Frame], noise: bytes, data: st.DataObject
) -> None:
    sent = bytearray(encoded(*several))
    for _ in range(data.draw(st.integers(0, 3))):
        sent[data.draw(st.integers(0, len(sent) - 1))] ^= data.draw(st.integers(1, 255))
    check_over(*asyncio.run(answered(bytes(sent) + noise, leaves=True)))


def bomb() -> bytes:
    block = headers.Deflater().deflate({"a": "0" * 10_000_000})
    body = struct.pack("!IIBB", 1, 0, 0, 0) + block
    return struct.pack("!II", 1 << 31 | 3 << 16 | 1, len(body)) + body


@pytest.mark.parametrize(
    "sent",
    [
        struct.pack("!II", 1 << 31 | 3 << 16 | 1, 0xFFFFFF),
        bomb(),
        encoded(frames.SynStream(1)) + struct.pack("!II", 3, 0xFFFFFF) + b"x",
        encoded(frames.SynStream(1), frames.Data(2, b"x")),
        encoded(frames.SynStream(1), frames.Headers(5)),
        encoded(frames.SynStream(1), frames.Reset(3)),
        encoded(frames.SynStream(1), frames.SynStream(1)),
        encoded(frames.SynStream(3), frames.SynStream(1)),
        encoded(frames.SynReply(2)),
    ],
    ids=["length", "bomb", "data", "even", "headers", "reset", "twice", "backwards", "reply"],
)
def test_a_broken_protocol_is_not_waited_out(sent: bytes) -> None:
    said, server = asyncio.run(answered(sent, leaves=False))
    goodbye = check_over(said, server)[-1]
    assert isinstance(goodbye, frames.GoAway)
    assert goodbye.status == frames.PROTOCOL_ERROR


def test_what_comes_late_for_a_stream_that_was_is_left_alone() -> None:
    refused = frames.SynStream(3, {"streamtype": "refused"})
    late: list[frames.Frame] = [
        frames.Data(1, b"x"),
        frames.Reset(1),
        frames.Headers(3),
        frames.Data(3, b"x"),
    ]
    sent = encoded(frames.SynStream(1), frames.Reset(1), refused, *late, frames.Ping(5))
    heard = check_over(*asyncio.run(answered(sent, leaves=True)))
    assert frames.Ping(5) in heard
    assert frames.GoAway(3) == heard[-1]
