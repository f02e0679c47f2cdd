"""SPDY's frames: what is encoded is decoded, however it is cut; hostile bytes are refused."""

from __future__ import annotations

import itertools
import struct
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.apiserver.spdy import frames, headers
from holdfast.apiserver.spdy.dictionary import DICTIONARY

NUMBERS = st.integers(1, 0x7FFFFFFF)
WORDS = st.integers(0, 0xFFFFFFFF)
NAMES = st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1, max_size=20)
VALUES = st.text(st.characters(max_codepoint=255), max_size=60)
HEADERS = st.dictionaries(NAMES.map(str.lower), VALUES, max_size=6)
FRAMES = st.one_of(
    st.builds(
        frames.SynStream,
        NUMBERS,
        HEADERS,
        st.booleans(),
        st.booleans(),
        st.integers(0, 0x7FFFFFFF),
        st.integers(0, 7),
    ),
    st.builds(frames.SynReply, NUMBERS, HEADERS, st.booleans()),
    st.builds(frames.Headers, NUMBERS, HEADERS, st.booleans()),
    st.builds(frames.Data, NUMBERS, st.binary(max_size=300), st.booleans()),
    st.builds(frames.Reset, NUMBERS, WORDS),
    st.builds(frames.Settings, st.dictionaries(st.integers(0, 0xFFFFFF), WORDS, max_size=5)),
    st.builds(frames.Ping, WORDS),
    st.builds(frames.GoAway, st.integers(0, 0x7FFFFFFF), WORDS),
    st.builds(frames.WindowUpdate, st.integers(0, 0x7FFFFFFF), st.integers(0, 0x7FFFFFFF)),
)


def encoded(*several: frames.Frame) -> bytes:
    encoder = frames.Encoder()
    return b"".join(map(encoder.encode, several))


def decoded(data: bytes) -> list[frames.Frame]:
    return list(frames.Decoder().feed(data))


def joined(several: list[frames.Frame]) -> list[frames.Frame]:
    """Pieces of one stream's data put together up to its end, which is where cuts do not show."""
    out: list[frames.Frame] = []
    for frame in several:
        last = out[-1] if out else None
        if (
            isinstance(frame, frames.Data)
            and isinstance(last, frames.Data)
            and last.stream == frame.stream
            and not last.fin
        ):
            out[-1] = frames.Data(frame.stream, last.data + frame.data, frame.fin)
        else:
            out.append(frame)
    return out


def control(kind: int, body: bytes, *, flags: int = 0, version: int = 3) -> bytes:
    return struct.pack("!II", 1 << 31 | version << 16 | kind, flags << 24 | len(body)) + body


@given(st.lists(FRAMES, max_size=8), st.lists(st.integers(0, 2000), max_size=12))
def test_frames_come_out_as_they_went_in_however_the_bytes_are_cut(
    several: list[frames.Frame], cuts: list[int]
) -> None:
    data = encoded(*several)
    assert decoded(data) == several
    places = [0, *sorted(min(cut, len(data)) for cut in cuts), len(data)]
    decoder = frames.Decoder()
    out = [
        frame
        for begin, end in itertools.pairwise(places)
        for frame in decoder.feed(data[begin:end])
    ]
    assert joined(out) == joined(several)


@given(st.binary(max_size=400))
def test_any_bytes_are_frames_or_a_protocol_error(data: bytes) -> None:
    decoder = frames.Decoder()
    try:
        for byte in data:
            list(decoder.feed(bytes((byte,))))
    except headers.ProtocolError:
        return


@given(st.lists(FRAMES, min_size=1, max_size=4), st.data())
def test_a_broken_byte_never_gets_past_as_another_error(
    several: list[frames.Frame], data: st.DataObject
) -> None:
    sent = bytearray(encoded(*several))
    sent[data.draw(st.integers(0, len(sent) - 1))] ^= data.draw(st.integers(1, 255))
    try:
        decoded(bytes(sent))
    except headers.ProtocolError:
        return


def test_the_dictionary_is_the_one_of_the_draft() -> None:
    # zlib names the dictionary by this checksum in the first bytes of a stream.
    assert (len(DICTIONARY), zlib.adler32(DICTIONARY)) == (1423, 0xE3C6A7C2)


def test_what_kubectl_sends_is_understood() -> None:
    # Recorded from kubectl 1.20: the first stream of `kubectl exec`.
    sent = bytes.fromhex(
        "80030001000000290000000100000000000078f9e3c6a7c2"
        "62606060 04a7b392a2d4c45c6851c29a0a0a6800000000ffff"
    )
    assert decoded(sent) == [frames.SynStream(1, {"streamtype": "error"})]


def test_data_comes_in_pieces_before_its_frame_is_complete() -> None:
    decoder = frames.Decoder()
    head = struct.pack("!II", 5, 1 << 24 | 0xFFFFFF)
    assert list(decoder.feed(head)) == []
    assert list(decoder.feed(b"abc")) == [frames.Data(5, b"abc")]
    rest = 0xFFFFFF - 3
    assert list(decoder.feed(b"x" * rest)) == [frames.Data(5, b"x" * rest, fin=True)]


def bomb() -> bytes:
    block = headers.Deflater().deflate({"a": "0" * 10_000_000})
    assert len(block) < headers.LIMIT
    return control(1, struct.pack("!IIBB", 1, 0, 0, 0) + block)


def forged(block: bytes) -> bytes:
    stream = zlib.compressobj(zdict=DICTIONARY)
    packed = stream.compress(block) + stream.flush(zlib.Z_SYNC_FLUSH)
    return control(2, struct.pack("!I", 1) + packed)


def pair(name: bytes, value: bytes) -> bytes:
    return struct.pack("!I", len(name)) + name + struct.pack("!I", len(value)) + value


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (struct.pack("!II", 1 << 31 | 3 << 16 | 1, 0xFFFFFF), "are the limit"),
        (bomb(), "take more than"),
        (control(6, b"\0\0\0\1", version=2), "version 2"),
        (control(99, b""), "not known"),
        (control(6, b"\0"), "too short"),
        (control(7, b"\0" * 12), "too short"),
        (control(4, struct.pack("!I", 0xFFFFFFFF)), "number of settings"),
        (control(3, struct.pack("!II", 0, 1)), "names no stream"),
        (struct.pack("!II", 0, 4), "names no stream"),
        (control(2, b"\0\0\0\1nonsense"), "cannot be inflated"),
        (forged(struct.pack("!I", 0xFFFFFFFF)), "too early"),
        (forged(struct.pack("!II", 1, 0xFFFFFFF0)), "longer than its block"),
        (forged(struct.pack("!I", 0) + b"x"), "after its end"),
        (forged(struct.pack("!I", 2) + pair(b"a", b"1") * 2), "repeated"),
        (forged(struct.pack("!I", 1) + pair(b"A", b"1")), "lower case"),
    ],
)
def test_hostile_frames_are_refused(data: bytes, words: str) -> None:
    with pytest.raises(headers.ProtocolError, match=words):
        decoded(data)


def test_more_data_than_a_frame_holds_is_not_encoded() -> None:
    with pytest.raises(ValueError, match="do not fit"):
        frames.Encoder().encode(frames.Data(1, bytes(1 << 24)))
