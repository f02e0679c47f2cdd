"""Speaks QMP, the control protocol of QEMU's programs: one JSON object per line.

The socket lies in a directory whose path may be longer than a socket's address
can be, so it is reached through a descriptor of the directory.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

SECONDS = 20.0
_LINE = 1 << 20


class QmpError(Exception):
    """The other side answered with an error, or not at all; the text never holds a secret."""


class Qmp:
    """An open connection. One command at a time."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    async def execute(self, command: str, **arguments: Any) -> Any:
        """Send a command and return its answer. Raises QmpError."""
        message: dict[str, Any] = {"execute": command}
        if arguments:
            message["arguments"] = arguments
        try:
            async with asyncio.timeout(SECONDS):
                self._writer.write(json.dumps(message).encode() + b"\n")
                await self._writer.drain()
                return await self._answer(command)
        except TimeoutError as error:
            raise QmpError(f"{command}: no answer within {SECONDS:g} s") from error
        except OSError as error:
            raise QmpError(f"{command}: {error.strerror or error}") from error

    async def _answer(self, command: str) -> Any:
        while True:
            message = await self.read()
            if "error" in message:
                raise QmpError(f"{command}: {message['error'].get('desc', 'failed')}")
            if "return" in message:
                return message["return"]

    async def read(self) -> dict[str, Any]:
        """Return the next message, which may be an event."""
        line = await self._reader.readline()
        if not line:
            raise QmpError("the connection was closed")
        content: dict[str, Any] = json.loads(line)
        return content


@contextlib.asynccontextmanager
async def connected(path: Path, seconds: float = SECONDS) -> AsyncIterator[Qmp]:
    """Connect to the socket at `path`. Raises QmpError when nobody is there."""
    try:
        async with asyncio.timeout(seconds):
            reader, writer = await _open(path)
            session = Qmp(reader, writer)
            await session.read()
    except TimeoutError as error:
        raise QmpError(f"no greeting within {seconds:g} s") from error
    except OSError as error:
        raise QmpError(error.strerror or str(error)) from error
    try:
        await session.execute("qmp_capabilities")
        yield session
    finally:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()


def listen(path: Path) -> socket.socket:
    """Make a listening socket at `path` for a program that is started next."""
    with _directory(path) as descriptor:
        with contextlib.suppress(FileNotFoundError):
            path.unlink()
        listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            listening.bind(f"/proc/self/fd/{descriptor}/{path.name}")
            listening.listen(8)
            # QEMU looks for connections that another of its threads may have taken meanwhile, and
            # must not wait for the next one there: nobody would be answered.
            listening.setblocking(False)
        except OSError:
            listening.close()
            raise
    return listening


async def _open(path: Path) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    with _directory(path) as descriptor:
        address = f"/proc/self/fd/{descriptor}/{path.name}"
        return await asyncio.open_unix_connection(address, limit=_LINE)


@contextlib.contextmanager
def _directory(path: Path) -> Any:
    descriptor = os.open(path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield descriptor
    finally:
        os.close(descriptor)
