"""The companion of one container: a program of its own that outlives Holdfast.

It starts the sandbox, stamps what the container prints into a log, lets clients attach,
and ends when the container has ended. Holdfast may stop, crash and come back meanwhile.
bubblewrap writes the exit code to the status file itself.

Run as `python -I -S shim.py`, with the order (see `main`) on standard input and the
status file as descriptor 3. Only the standard library is imported, and little of it, so
that a machine can have many of these.

The invariant: the container never waits for a client. A client that does not read is
dropped; only the log can hold the container up.

Log lines are `TIME STREAM F|P TEXT`, P for a part of a longer line, as kubelets write them.
A client sends and gets frames: one byte for the channel, four for the length, the data.
"""

from __future__ import annotations

import fcntl
import json
import os
import select
import signal
import socket
import struct
import sys
import termios
import time
from pathlib import Path

STDIN, STDOUT, STDERR, RESIZE, END_OF_INPUT = 0, 1, 2, 4, 5
LOG_LIMIT = 10 * 1024 * 1024
LINE_LIMIT = 16 * 1024
CLIENT_LIMIT = 1024 * 1024
_CHUNK = 64 * 1024
_IGNORED = (signal.SIGHUP, signal.SIGINT, signal.SIGTERM, signal.SIGPIPE, signal.SIGXFSZ)
_NAMES = {STDOUT: b"stdout", STDERR: b"stderr"}


class Log:
    """The log file; a full one is set aside as `.1`, replacing the one before."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._rest = {STDOUT: b"", STDERR: b""}
        self._open()

    def _open(self) -> None:
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
        self._file = os.open(self._path, flags, 0o600)
        self._size = os.fstat(self._file).st_size

    def write(self, channel: int, data: bytes) -> None:
        """Write whole lines; keep the start of an unfinished one."""
        lines = (self._rest[channel] + data).split(b"\n")
        self._rest[channel] = lines.pop()
        out = [self._line(channel, b"F", line) for line in lines]
        while len(self._rest[channel]) >= LINE_LIMIT:
            part = self._rest[channel][:LINE_LIMIT]
            self._rest[channel] = self._rest[channel][LINE_LIMIT:]
            out.append(self._line(channel, b"P", part))
        self._append(b"".join(out))

    def close(self) -> None:
        """Write the unfinished lines."""
        for channel, rest in self._rest.items():
            if rest:
                self._append(self._line(channel, b"P", rest))
        os.close(self._file)

    def _line(self, channel: int, tag: bytes, text: bytes) -> bytes:
        now = time.time_ns()
        stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(now // 10**9))
        return b"%s.%09dZ %s %s %s\n" % (stamp.encode(), now % 10**9, _NAMES[channel], tag, text)

    def _append(self, data: bytes) -> None:
        try:
            if self._size > LOG_LIMIT:
                os.close(self._file)
                os.rename(self._path, f"{self._path}.1")  # noqa: PTH104 - no pathlib here
                self._open()
            while data:
                written = os.write(self._file, data)
                self._size += written
                data = data[written:]
        except OSError:
            # A full disk costs log lines, not the container.
            pass


class Client:
    """Somebody who is attached."""

    def __init__(self, connection: socket.socket) -> None:
        connection.setblocking(False)
        self.connection = connection
        self.received = b""
        self.waiting = b""

    def fileno(self) -> int:
        """Make it something to select on."""
        return self.connection.fileno()

    def send(self, channel: int, data: bytes) -> bool:
        """Send what the client takes now, keep the rest; False when it is too far behind."""
        self.waiting += struct.pack("!BI", channel, len(data)) + data
        return self.flush() and len(self.waiting) <= CLIENT_LIMIT

    def flush(self) -> bool:
        """Send what waits; False when the client is gone."""
        try:
            sent = self.connection.send(self.waiting) if self.waiting else 0
        except BlockingIOError:
            return True
        except OSError:
            return False
        self.waiting = self.waiting[sent:]
        return True

    def frames(self) -> list[tuple[int, bytes]] | None:
        """Read what it sent; None when it is gone."""
        try:
            data = self.connection.recv(_CHUNK)
        except BlockingIOError:
            return []
        except OSError:
            return None
        if not data:
            return None
        self.received += data
        found = []
        while len(self.received) >= 5:
            channel, length = struct.unpack_from("!BI", self.received)
            if len(self.received) < 5 + length:
                break
            found.append((channel, self.received[5 : 5 + length]))
            self.received = self.received[5 + length :]
        return found


class Shim:
    """The loop between one container, its log and its clients."""

    def __init__(self, log: Log, listener: socket.socket) -> None:
        self._log = log
        self._listener = listener
        self._clients: list[Client] = []
        self._outputs: dict[int, int] = {}  # descriptor -> channel
        self._input = -1
        self._terminal = False
        self._to_write = b""
        self._end_input = False

    def run(self, child: int, outputs: dict[int, int], stdin: int, terminal: bool) -> None:
        """Copy until the container has ended and all it printed is in the log."""
        self._outputs, self._input, self._terminal = outputs, stdin, terminal
        end = os.pidfd_open(child)
        ended = False
        while not ended or self._outputs:
            readers = [*self._outputs, self._listener, *self._clients, *(() if ended else (end,))]
            writers: list[int | Client] = [each for each in self._clients if each.waiting]
            if self._to_write and self._input >= 0:
                writers.append(self._input)
            # Output left behind by a process that is gone comes at once or never.
            ready, writable, _ = select.select(readers, writers, [], 0.2 if ended else None)
            if ended and not any(each in self._outputs for each in ready):
                break
            ended = ended or end in ready
            for each in ready:
                self._serve(each)
            for each in writable:
                self._serve_writable(each)
        self._log.close()

    def _serve(self, ready: int | Client | socket.socket) -> None:
        if isinstance(ready, Client):
            self._heard(ready)
        elif ready is self._listener:
            self._clients.append(Client(self._listener.accept()[0]))
        elif ready in self._outputs:
            self._printed(ready)

    def _serve_writable(self, ready: int | Client) -> None:
        if isinstance(ready, int):
            self._feed()
        elif not ready.flush():
            self._drop(ready)

    def _printed(self, descriptor: int) -> None:
        channel = self._outputs[descriptor]
        try:
            data = os.read(descriptor, _CHUNK)
        except OSError:
            # A terminal whose last user is gone says so with an error.
            data = b""
        if not data:
            del self._outputs[descriptor]
            return
        self._log.write(channel, data)
        for client in list(self._clients):
            if not client.send(channel, data):
                self._drop(client)

    def _heard(self, client: Client) -> None:
        frames = client.frames()
        if frames is None:
            self._drop(client)
            return
        for channel, data in frames:
            if channel == STDIN and self._input >= 0:
                self._to_write += data
            elif channel == END_OF_INPUT:
                self._end_input = True
            elif channel == RESIZE and self._terminal:
                columns, rows = struct.unpack("!HH", data)
                size = struct.pack("HHHH", rows, columns, 0, 0)
                fcntl.ioctl(self._input, termios.TIOCSWINSZ, size)
        self._feed()

    def _feed(self) -> None:
        if self._input < 0:
            return
        try:
            if self._to_write:
                self._to_write = self._to_write[os.write(self._input, self._to_write) :]
        except BlockingIOError:
            return
        except OSError:
            self._to_write = b""
            self._end_input = True
        if self._end_input and not self._to_write and not self._terminal:
            os.close(self._input)
            self._input = -1

    def _drop(self, client: Client) -> None:
        if client in self._clients:
            self._clients.remove(client)
            client.connection.close()


def main() -> None:
    """Carry out the order: argv, arguments, log, socket, tty, stdin, stdin_once."""
    order = json.loads(sys.stdin.buffer.read())
    for number in _IGNORED:
        signal.signal(number, signal.SIG_IGN)
    os.chdir("/")
    listener = _listen(order["socket"])
    log = Log(order["log"])
    arguments = os.memfd_create("arguments")
    os.write(arguments, "".join(f"{each}\0" for each in order["arguments"]).encode())
    os.lseek(arguments, 0, os.SEEK_SET)
    start = _with_terminal if order["tty"] else _with_pipes
    child, outputs, stdin = start(order["argv"], arguments, order["stdin"])
    os.close(arguments)
    os.close(3)
    Shim(log, listener).run(child, outputs, stdin, order["tty"])
    os.waitpid(child, 0)


def _listen(path: str) -> socket.socket:
    """Listen on a path that may be longer than an address of a socket."""
    listener = socket.socket(socket.AF_UNIX)
    directory, _, name = path.rpartition("/")
    holder = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    Path(path).unlink(missing_ok=True)
    listener.bind(f"/proc/self/fd/{holder}/{name}")
    listener.listen(8)
    os.close(holder)
    return listener


_Started = tuple[int, dict[int, int], int]


def _with_pipes(argv: list[str], arguments: int, with_input: bool) -> _Started:
    out, child_out = os.pipe()
    err, child_err = os.pipe()
    child_in, stdin = os.pipe() if with_input else (os.open(os.devnull, os.O_RDWR), -1)
    streams = (child_in, child_out, child_err)
    actions = [(os.POSIX_SPAWN_DUP2, each, number) for number, each in enumerate(streams)]
    pid = _spawn(argv, actions, arguments)
    for each in streams:
        os.close(each)
    if stdin >= 0:
        os.set_blocking(stdin, False)
    return pid, {out: STDOUT, err: STDERR}, stdin


def _with_terminal(argv: list[str], arguments: int, with_input: bool) -> _Started:
    ours, theirs = os.openpty()
    name = os.ttyname(theirs)
    # It becomes the controlling terminal inside, of the session that the command leads.
    actions = [
        (os.POSIX_SPAWN_OPEN, 0, name, os.O_RDWR | os.O_NOCTTY, 0),
        (os.POSIX_SPAWN_DUP2, 0, 1),
        (os.POSIX_SPAWN_DUP2, 0, 2),
    ]
    pid = _spawn(argv, actions, arguments)
    os.close(theirs)
    os.set_blocking(ours, False)
    return pid, {ours: STDOUT}, ours


def _spawn(argv: list[str], actions: list, arguments: int) -> int:  # type: ignore[type-arg]
    # Descriptor 3 is the status file already, and stays where bubblewrap expects it last.
    status = fcntl.fcntl(3, fcntl.F_DUPFD_CLOEXEC, 100)
    source = fcntl.fcntl(arguments, fcntl.F_DUPFD_CLOEXEC, 100)
    moved = [(os.POSIX_SPAWN_DUP2, source, 3), (os.POSIX_SPAWN_DUP2, status, 4)]
    # What is ignored here would stay ignored in the container, even for its own handlers.
    pid = os.posix_spawnp(
        argv[0],
        argv,
        os.environ,
        file_actions=[*actions, *moved],
        setsid=True,
        setsigmask=(),
        setsigdef=_IGNORED,
    )
    os.close(status)
    os.close(source)
    return pid


if __name__ == "__main__":
    main()
