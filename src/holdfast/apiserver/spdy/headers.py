"""Header blocks: names and values behind their lengths, compressed by one zlib stream a side.

Every block continues the stream of the blocks before, so a block that is left out or not read
to its end ruins all that follow: after an error here the connection cannot go on. What a block
may inflate to is limited, because a few bytes can stand for very many.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Mapping

from holdfast.apiserver.spdy.dictionary import DICTIONARY

LIMIT = 64 * 1024
"""Bytes that the headers of one stream may take, inflated."""


class ProtocolError(Exception):
    """The other side sent what SPDY/3.1 does not allow; the connection has to end."""


class Deflater:
    """Compresses the blocks one side sends, in the order in which they are sent."""

    def __init__(self) -> None:
        self._stream = zlib.compressobj(zdict=DICTIONARY)

    def deflate(self, headers: Mapping[str, str]) -> bytes:
        """One block; values of the same name are separated by a zero byte."""
        parts = [struct.pack("!I", len(headers))]
        for name, value in headers.items():
            for text in (name.lower(), value):
                data = text.encode("latin-1")
                parts += (struct.pack("!I", len(data)), data)
        return self._stream.compress(b"".join(parts)) + self._stream.flush(zlib.Z_SYNC_FLUSH)


class Inflater:
    """Reads the blocks of the other side, in the order in which they come."""

    def __init__(self) -> None:
        self._stream = zlib.decompressobj(zdict=DICTIONARY)

    def inflate(self, block: bytes) -> dict[str, str]:
        """The headers of one block. Raises `ProtocolError`."""
        try:
            data = self._stream.decompress(block, LIMIT + 1)
        except zlib.error as error:
            raise ProtocolError(f"headers cannot be inflated: {error}") from error
        if len(data) > LIMIT or self._stream.unconsumed_tail:
            raise ProtocolError(f"the headers of a stream take more than {LIMIT} bytes")
        return _parse(data)


def _parse(data: bytes) -> dict[str, str]:
    headers: dict[str, str] = {}
    try:
        (count,) = struct.unpack_from("!I", data)
        at = 4
        for _ in range(count):
            name, at = _text(data, at)
            value, at = _text(data, at)
            if not name or name != name.lower() or name in headers:
                raise ProtocolError(f"the header {name!r} is empty, not in lower case or repeated")
            headers[name] = value
    except struct.error as error:
        raise ProtocolError("a block of headers ends too early") from error
    if at != len(data):
        raise ProtocolError("a block of headers goes on after its end")
    return headers


def _text(data: bytes, at: int) -> tuple[str, int]:
    (length,) = struct.unpack_from("!I", data, at)
    end = at + 4 + length
    if end > len(data):
        raise ProtocolError("a header is longer than its block")
    return data[at + 4 : end].decode("latin-1"), end
