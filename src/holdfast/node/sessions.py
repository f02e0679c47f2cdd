"""Talking to programs in containers: a new one beside the container's, or the container itself.

An `Execution` is a program started inside a running sandbox; it belongs to its client and
goes with it. An `Attachment` is a client of the container's companion; the container does
not notice it come and go. Both are read, written and resized alike.

The invariant: data is read only when the client takes it, so a slow client slows its
program and never fills memory; and no program outlives an execution that was closed.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import select
import struct
import termios
from collections.abc import Callable, Sequence
from pathlib import Path

from holdfast.kit import process
from holdfast.node import processes, sandbox, shim
from holdfast.node.containers import SOCKET, Attempt

STDOUT, STDERR = shim.STDOUT, shim.STDERR
_CHUNK = 32 * 1024
_TIOCGPTN = 0x80045430
_TIOCSPTLCK = 0x40045431


class Execution:
    """A program inside a sandbox and the near ends of its streams."""

    def __init__(
        self, child: process.Child, outputs: dict[int, int], stdin: int, terminal: bool
    ) -> None:
        self._child = child
        self._end = os.dup(child.pidfd)
        self._outputs = outputs  # descriptor -> channel
        self._input = stdin
        self._terminal = terminal
        for descriptor in {*outputs, stdin} - {-1}:
            os.set_blocking(descriptor, False)

    async def read(self) -> tuple[int, bytes] | None:
        """The next piece of output and its channel; None when no more will come."""
        while True:
            over = _is_readable(self._end)
            for descriptor, channel in list(self._outputs.items()):
                try:
                    data = os.read(descriptor, _CHUNK)
                except BlockingIOError:
                    continue
                except OSError:
                    data = b""  # how a terminal says that its last user is gone
                if data:
                    return channel, data
                self._close_output(descriptor)
            if over:
                return None
            await _until(asyncio.get_running_loop().add_reader, (*self._outputs, self._end))

    async def write(self, data: bytes) -> None:
        """Give it input; input for a program that does not want any more is dropped."""
        view = memoryview(data)
        while view and self._input >= 0:
            try:
                view = view[os.write(self._input, view) :]
            except BlockingIOError:
                await _until(asyncio.get_running_loop().add_writer, (self._input,))
            except OSError:
                self._close_input()

    async def end_input(self) -> None:
        """Say that no more input comes; a terminal cannot be told."""
        if not self._terminal:
            self._close_input()

    async def resize(self, columns: int, rows: int) -> None:
        """Tell the terminal its size."""
        if self._terminal:
            with contextlib.suppress(OSError):
                size = struct.pack("HHHH", rows, columns, 0, 0)
                fcntl.ioctl(self._input, termios.TIOCSWINSZ, size)

    async def result(self) -> int:
        """Wait for its end and return the exit code, as a shell would count it."""
        code = await self._child.wait()
        return code if code >= 0 else 128 - code

    async def close(self) -> None:
        """End it with all it started, if that is still necessary, and let go of it."""
        if not self._child.ended:
            await asyncio.to_thread(processes.kill_family, self._child.pid)
            self._child.kill_session()
            await self._child.wait()
        for descriptor in list(self._outputs):
            self._close_output(descriptor)
        self._close_input()
        if self._end >= 0:
            os.close(self._end)
            self._end = -1

    def _close_output(self, descriptor: int) -> None:
        del self._outputs[descriptor]
        if descriptor != self._input:
            os.close(descriptor)

    def _close_input(self) -> None:
        if self._input >= 0 and self._input not in self._outputs:
            os.close(self._input)
            self._input = -1


def execute(
    leader: int,
    env: dict[str, str],
    identity: sandbox.Identity,
    argv: Sequence[str],
    *,
    stdin: bool = False,
    terminal: bool = False,
) -> Execution:
    """Start a program in the sandbox of `leader`. Raises OSError, kit.process.CommandFailed."""
    entering = sandbox.enter(leader, identity, argv, terminal=terminal)
    # What changes how programs are loaded must not reach the one that runs outside.
    clean = {name: value for name, value in env.items() if not name.startswith("LD_")}
    if terminal:
        return _with_terminal(leader, entering, {"TERM": "xterm", **clean}, identity)
    with contextlib.ExitStack() as stack:
        out, child_out = os.pipe()
        err, child_err = os.pipe()
        child_in, ours = os.pipe() if stdin else (-1, -1)
        for descriptor in {child_out, child_err, child_in} - {-1}:
            stack.callback(os.close, descriptor)
        try:
            child = process.spawn(
                entering,
                stdin=child_in if stdin else None,
                stdout=child_out,
                stderr=child_err,
                env=clean,
            )
        except process.CommandFailed:
            for descriptor in {out, err, ours} - {-1}:
                os.close(descriptor)
            raise
    return Execution(child, {out: STDOUT, err: STDERR}, ours, False)


def _with_terminal(
    leader: int, argv: Sequence[str], env: dict[str, str], identity: sandbox.Identity
) -> Execution:
    """Start it on a terminal of the sandbox's own /dev/pts, so that it can name it."""
    devices = f"/proc/{leader}/root/dev"
    master = os.open(f"{devices}/ptmx", os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC)
    try:
        fcntl.ioctl(master, _TIOCSPTLCK, struct.pack("i", 0))
        number = struct.unpack("i", fcntl.ioctl(master, _TIOCGPTN, b"\0" * 4))[0]
        name = f"{devices}/pts/{number}"
        os.chown(name, identity.user, -1)
        child = process.spawn(argv, stdin=name, env=env)
    except (OSError, process.CommandFailed):
        os.close(master)
        raise
    return Execution(child, {master: STDOUT}, master, True)


class Attachment:
    """A client of a container's companion."""

    def __init__(
        self, attempt: Attempt, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self._attempt = attempt
        self._reader = reader
        self._writer = writer

    async def read(self) -> tuple[int, bytes] | None:
        """The next piece of output and its channel; None when the container has ended."""
        try:
            channel, length = struct.unpack("!BI", await self._reader.readexactly(5))
            return channel, await self._reader.readexactly(length)
        except (asyncio.IncompleteReadError, ConnectionError):
            return None

    async def write(self, data: bytes) -> None:
        """Give the container input."""
        await self._send(shim.STDIN, data)

    async def end_input(self) -> None:
        """The container keeps its input open for the next client, unless it is its last."""

    async def resize(self, columns: int, rows: int) -> None:
        """Tell the container's terminal its size."""
        await self._send(shim.RESIZE, struct.pack("!HH", columns, rows))

    async def result(self) -> int:
        """Attaching has no exit code of its own."""
        return 0

    async def close(self) -> None:
        """Leave; the container goes on."""
        self._writer.close()
        with contextlib.suppress(OSError):
            await self._writer.wait_closed()

    async def _send(self, channel: int, data: bytes) -> None:
        with contextlib.suppress(ConnectionError):
            self._writer.write(struct.pack("!BI", channel, len(data)) + data)
            await self._writer.drain()


class LastAttachment(Attachment):
    """One whose leaving ends the container's input (`stdinOnce`)."""

    async def end_input(self) -> None:
        """Close the container's input."""
        await self._send(shim.END_OF_INPUT, b"")

    async def close(self) -> None:
        """Leave, and close the container's input."""
        await self.end_input()
        await super().close()


async def attach(attempt: Attempt, *, last: bool) -> Attachment:
    """Connect to a running container's companion. Raises OSError."""
    holder = os.open(attempt.directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        path = Path(f"/proc/self/fd/{holder}", SOCKET)
        reader, writer = await asyncio.open_unix_connection(path)
    finally:
        os.close(holder)
    return (LastAttachment if last else Attachment)(attempt, reader, writer)


async def run_to_end(execution: Execution, limit: int = 10 * 1024) -> tuple[int, bytes]:
    """Wait for a program and return its exit code and the start of what it printed."""
    printed = b""
    try:
        while (piece := await execution.read()) is not None:
            printed += piece[1][: max(0, limit - len(printed))]
        return await execution.result(), printed
    finally:
        await execution.close()


def _is_readable(descriptor: int) -> bool:
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    return bool(poll.poll(0))


async def _until(add: Callable[..., object], descriptors: Sequence[int]) -> None:
    """Wait until one of the descriptors is ready."""
    loop = asyncio.get_running_loop()
    ready: asyncio.Future[None] = loop.create_future()

    def wake() -> None:
        if not ready.done():
            ready.set_result(None)

    remove = loop.remove_writer if add == loop.add_writer else loop.remove_reader
    for descriptor in descriptors:
        add(descriptor, wake)
    try:
        await ready
    finally:
        for descriptor in descriptors:
            remove(descriptor)
