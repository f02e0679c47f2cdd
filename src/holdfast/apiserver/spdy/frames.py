"""SPDY/3.1's frames: records, and what turns them into bytes and back.

A control frame is complete before it is read, and limited; a data frame may be 16 MB long, so
its data comes out in the pieces in which it arrives, the last with `fin`. The decoder takes the
byte stream cut anywhere. Both sides are stateful because headers are (see `headers`).
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from holdfast.apiserver.spdy.headers import LIMIT, Deflater, Inflater, ProtocolError

VERSION = 3
_FIN, _UNIDIRECTIONAL = 1, 2
_ID = 0x7FFFFFFF
_SYN_STREAM, _SYN_REPLY, _RESET, _SETTINGS = 1, 2, 3, 4
_PING, _GOAWAY, _HEADERS, _WINDOW = 6, 7, 8, 9
# Why a stream is reset; the first is also a reason to go away.
PROTOCOL_ERROR, REFUSED_STREAM, CANCEL = 1, 3, 5


@dataclass(frozen=True, slots=True)
class SynStream:
    """Opens a stream."""

    stream: int
    headers: Mapping[str, str] = field(default_factory=dict)
    fin: bool = False
    unidirectional: bool = False
    associated: int = 0
    priority: int = 0


@dataclass(frozen=True, slots=True)
class SynReply:
    """Accepts a stream; its opener waits for that."""

    stream: int
    headers: Mapping[str, str] = field(default_factory=dict)
    fin: bool = False


@dataclass(frozen=True, slots=True)
class Headers:
    """More headers of a stream."""

    stream: int
    headers: Mapping[str, str] = field(default_factory=dict)
    fin: bool = False


@dataclass(frozen=True, slots=True)
class Data:
    """Bytes of a stream; with `fin` its sender has no more."""

    stream: int
    data: bytes = b""
    fin: bool = False


@dataclass(frozen=True, slots=True)
class Reset:
    """Ends a stream both ways, at once."""

    stream: int
    status: int = CANCEL


@dataclass(frozen=True, slots=True)
class Settings:
    """Values by identifier; nothing depends on them here."""

    values: Mapping[int, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Ping:
    """To be sent back as it came; a client's numbers are odd, a server's even."""

    number: int


@dataclass(frozen=True, slots=True)
class GoAway:
    """Ends the connection; `last` is the last stream that was accepted."""

    last: int
    status: int = 0


@dataclass(frozen=True, slots=True)
class WindowUpdate:
    """More room for a stream (0: the connection)."""

    stream: int
    room: int


Frame = SynStream | SynReply | Headers | Data | Reset | Settings | Ping | GoAway | WindowUpdate


class Encoder:
    """Turns frames into bytes; those with headers have to be sent in the order of encoding."""

    def __init__(self) -> None:
        self._deflater = Deflater()

    def encode(self, frame: Frame) -> bytes:
        """The bytes of one frame; data of 16 MiB or more has to be split by the caller."""
        match frame:
            case Data():
                return _packed(frame.stream, _FIN * frame.fin, frame.data)
            case SynStream():
                flags = _FIN * frame.fin | _UNIDIRECTIONAL * frame.unidirectional
                fixed = struct.pack("!IIBB", frame.stream, frame.associated, frame.priority << 5, 0)
                return _control(_SYN_STREAM, flags, fixed + self._deflater.deflate(frame.headers))
            case SynReply() | Headers():
                kind = _SYN_REPLY if isinstance(frame, SynReply) else _HEADERS
                fixed = struct.pack("!I", frame.stream)
                block = self._deflater.deflate(frame.headers)
                return _control(kind, _FIN * frame.fin, fixed + block)
            case Reset():
                return _control(_RESET, 0, struct.pack("!II", frame.stream, frame.status))
            case Settings():
                pairs = (struct.pack("!II", key, value) for key, value in frame.values.items())
                body = struct.pack("!I", len(frame.values)) + b"".join(pairs)
                return _control(_SETTINGS, 0, body)
            case Ping():
                return _control(_PING, 0, struct.pack("!I", frame.number))
            case GoAway():
                return _control(_GOAWAY, 0, struct.pack("!II", frame.last, frame.status))
            case WindowUpdate():
                return _control(_WINDOW, 0, struct.pack("!II", frame.stream, frame.room))


def _control(kind: int, flags: int, body: bytes) -> bytes:
    return _packed(1 << 31 | VERSION << 16 | kind, flags, body)


def _packed(word: int, flags: int, body: bytes) -> bytes:
    if len(body) >= 1 << 24:
        raise ValueError(f"{len(body)} bytes do not fit into one frame")
    return struct.pack("!II", word, flags << 24 | len(body)) + body


class Decoder:
    """Turns bytes into frames. After a `ProtocolError` it must not be used any more."""

    def __init__(self) -> None:
        self._inflater = Inflater()
        self._unread = bytearray()
        # The stream, the flags and the bytes that are still to come of a data frame.
        self._data: tuple[int, int, int] | None = None

    def feed(self, data: bytes) -> Iterator[Frame]:
        """The frames that these bytes complete. Raises `ProtocolError`, frames before it first."""
        self._unread += data
        while True:
            frame: Frame | None
            if self._data is not None:
                frame = self._piece(*self._data)
            elif len(self._unread) >= 8:
                frame = self._next()
            else:
                return
            if frame is None:
                return
            yield frame

    def _next(self) -> Frame | None:
        word, rest = struct.unpack_from("!II", self._unread)
        flags, length = rest >> 24, rest & 0xFFFFFF
        if not word >> 31:
            if not word:
                raise ProtocolError("a data frame names no stream")
            del self._unread[:8]
            self._data = (word, flags, length)
            return self._piece(*self._data)
        version, kind = word >> 16 & 0x7FFF, word & 0xFFFF
        if version != VERSION:
            raise ProtocolError(f"a frame of SPDY version {version}; {VERSION} is spoken here")
        if length > LIMIT:
            raise ProtocolError(f"a control frame of {length} bytes; {LIMIT} are the limit")
        if len(self._unread) < 8 + length:
            return None
        body = bytes(self._unread[8 : 8 + length])
        del self._unread[: 8 + length]
        try:
            return self._control(kind, flags, body)
        except struct.error as error:
            raise ProtocolError(f"a control frame of type {kind} is too short") from error

    def _piece(self, stream: int, flags: int, left: int) -> Data | None:
        piece = bytes(self._unread[:left])
        if left and not piece:
            return None
        del self._unread[:left]
        left -= len(piece)
        self._data = (stream, flags, left) if left else None
        return Data(stream, piece, not left and bool(flags & _FIN))

    def _control(self, kind: int, flags: int, body: bytes) -> Frame:
        fin = bool(flags & _FIN)
        match kind:
            case 1:
                stream, associated, priority, _ = struct.unpack_from("!IIBB", body)
                headers = self._inflater.inflate(body[10:])
                one_way = bool(flags & _UNIDIRECTIONAL)
                opened = _stream(stream)
                return SynStream(opened, headers, fin, one_way, associated & _ID, priority >> 5)
            case 2 | 8:
                (stream,) = struct.unpack_from("!I", body)
                headers = self._inflater.inflate(body[4:])
                made = SynReply if kind == _SYN_REPLY else Headers
                return made(_stream(stream), headers, fin)
            case 3:
                stream, status = struct.unpack("!II", body)
                return Reset(_stream(stream), status)
            case 4:
                return Settings(_settings(body))
            case 6:
                return Ping(*struct.unpack("!I", body))
            case 7:
                last, status = struct.unpack("!II", body)
                return GoAway(last & _ID, status)
            case 9:
                stream, room = struct.unpack("!II", body)
                return WindowUpdate(stream & _ID, room & _ID)
        raise ProtocolError(f"control frames of type {kind} are not known")


def _stream(number: int) -> int:
    if not number & _ID:
        raise ProtocolError("a control frame names no stream")
    return number & _ID


def _settings(body: bytes) -> dict[int, int]:
    (count,) = struct.unpack_from("!I", body)
    if len(body) != 4 + 8 * count:
        raise ProtocolError("the number of settings is not that of the frame")
    pairs = struct.iter_unpack("!II", body[4:])
    return {key & 0xFFFFFF: value for key, value in pairs}
