"""Reading the logs of containers: the end of one, what is newer than, and what is to come.

A log is at most two files, the set-aside older one and the current one; their lines are
`TIME STREAM F|P TEXT` (see `shim`), and a P line goes on with the next of its stream.
Following waits on inotify: a quiet container costs nothing. Reading starts at the right
place instead of filtering everything: the last lines are found from the end.

The invariant: what the container printed is given back byte for byte; a time stands only
where it is asked for, in front of each line.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from holdfast.kit import process
from holdfast.node import syscalls

_BLOCK = 64 * 1024
_LINES_AT_ONCE = 1000


@dataclass(frozen=True, slots=True)
class Wanted:
    """What of a log is wanted; `since` is a time as it stands in the log."""

    tail: int | None = None
    since: str = ""
    timestamps: bool = False
    limit: int | None = None


def older(path: Path) -> Path:
    """Where the part of a log that was set aside is."""
    return path.with_name(f"{path.name}.1")


def printed(line: bytes, *, timestamps: bool) -> bytes:
    """What a line of the log stands for; a line that is not one is given as it is."""
    parts = line.rstrip(b"\n").split(b" ", 3)
    if len(parts) < 4 or parts[2] not in (b"F", b"P"):
        return line
    text = parts[3] + (b"\n" if parts[2] == b"F" else b"")
    return parts[0] + b" " + text if timestamps else text


def read(path: Path, wanted: Wanted, until: int | None = None) -> Iterator[bytes]:
    """Yield the log as it is now, or up to a position in the current file. Blocks."""
    parts = [(each, None) for each in (older(path),) if each.exists()]
    files: list[_Part] = [*parts, *([(path, until)] if path.exists() else [])]
    lines = _last_lines(files, wanted.tail) if wanted.tail is not None else _lines(files)
    left = wanted.limit
    for line in lines:
        if wanted.since and line[: len(wanted.since)].decode(errors="replace") < wanted.since:
            continue
        text = printed(line, timestamps=wanted.timestamps)
        if left is not None:
            text = text[:left]
            left -= len(text)
        yield text
        if left == 0:
            return


# A file and how much of it counts; None for all.
_Part = tuple[Path, int | None]


def _lines(files: list[_Part]) -> Iterator[bytes]:
    for file, until in files:
        with file.open("rb") as stream:
            left = os.fstat(stream.fileno()).st_size if until is None else until
            for line in stream:
                left -= len(line)
                if left < 0:
                    break
                yield line


def _last_lines(files: list[_Part], count: int) -> list[bytes]:
    """The last lines that the container printed, counting parts as what they are part of."""
    if count <= 0:
        return []
    found: list[bytes] = []
    for file in reversed(files):
        found = _end_of(*file, count + 1) + found
        if _complete(found) > count:
            break
    # Cut off from the front until only so many whole lines are left.
    while _complete(found) > count:
        first = 0
        while first < len(found) and _is_part(found[first]):
            first += 1
        found = found[first + 1 :]
    return found


def _complete(lines: list[bytes]) -> int:
    whole = sum(1 for line in lines if not _is_part(line))
    return whole + (1 if lines and _is_part(lines[-1]) else 0)


def _is_part(line: bytes) -> bool:
    return line.split(b" ", 3)[2:3] == [b"P"]


def _end_of(file: Path, until: int | None, count: int) -> list[bytes]:
    """The last lines of a file that hold `count` whole ones, or all."""
    with file.open("rb") as stream:
        at = stream.seek(0, os.SEEK_END) if until is None else until
        data = b""
        while at > 0:
            step = min(_BLOCK, at)
            at -= step
            stream.seek(at)
            data = stream.read(step) + data
            lines = data.splitlines(keepends=True)
            # The first line may be cut off, unless the file begins with it.
            if at > 0 and _complete(lines[1:]) >= count:
                return lines[1:]
        return data.splitlines(keepends=True)


async def pieces(path: Path, wanted: Wanted, until: int | None = None) -> AsyncIterator[bytes]:
    """Yield what `read` does without holding up the event loop."""
    lines = read(path, wanted, until)
    while True:
        batch = await asyncio.to_thread(lambda: b"".join(itertools.islice(lines, _LINES_AT_ONCE)))
        if not batch:
            return
        yield batch


async def follow(
    path: Path, wanted: Wanted, ended: Callable[[], bool], end: Callable[[], Awaitable[object]]
) -> AsyncIterator[bytes]:
    """Yield the log, and what is added until the container has ended.

    `ended` tells whether it has, `end` waits for it.
    """
    with _Changes(path.parent) as changes, contextlib.ExitStack() as stack:
        stream = stack.enter_context(path.open("rb"))
        async for piece in pieces(path, wanted, stream.seek(0, os.SEEK_END)):
            yield piece
        rest = b""
        while True:
            over = ended()
            moved = _replaced(stream.fileno(), path)
            while data := stream.read(_BLOCK):
                *lines, rest = (rest + data).split(b"\n")
                for line in lines:
                    yield printed(line + b"\n", timestamps=wanted.timestamps)
            if moved:
                stream = stack.enter_context(path.open("rb"))
            elif over:
                return
            else:
                await changes.wait(end)


def _replaced(descriptor: int, path: Path) -> bool:
    try:
        return not os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False


class _Changes:
    """Wakes when something in a directory was written or renamed."""

    def __init__(self, directory: Path) -> None:
        self._descriptor = syscalls.watch_directory(str(directory))

    def __enter__(self) -> _Changes:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._descriptor)

    async def wait(self, end: Callable[[], Awaitable[object]]) -> None:
        waits = [
            asyncio.ensure_future(each) for each in (process.readable(self._descriptor), end())
        ]
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for each in waits:
                each.cancel()
            await asyncio.gather(*waits, return_exceptions=True)
        try:
            os.read(self._descriptor, _BLOCK)
        except BlockingIOError:
            return
