"""Runs external programs: the only module of Holdfast that starts one.

Arguments are always a list, never a shell line, and the locale is fixed to C
so that output can be parsed. The child leads its own session; a timeout or a
cancellation kills the whole process group and reaps the child before the
caller continues.

Output is collected in anonymous memory files rather than pipes: a program
that leaves a daemon behind (FUSE mounts do) would keep a pipe open and make
its caller wait for an end of file that never comes.

`run` is for a command whose output is wanted; `spawn` for a process that lives
on its own, perhaps longer than this one: it leads its own session and is known
by a pidfd, so a number that went to somebody else is never waited for or hit.

    CommandFailed            exit status other than zero
     +- CommandMissing       the program is not installed
     +- CommandTimedOut      killed after its time was up

Secrets go through `input` or `env`; `argv` appears in errors and logs.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import select
import shlex
import shutil
import signal
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

STDERR_LINES_SHOWN = 5
REAP_SECONDS = 5.0
# Signals that Python ignores and programs expect not to.
_PYTHONS = (signal.SIGPIPE, signal.SIGXFSZ)
# Where descriptors wait before `spawn` puts them into place; above the small numbers.
_HIGH = 500


@dataclass(frozen=True, slots=True)
class Completed:
    """What a successful command printed."""

    stdout: bytes
    stderr: bytes


class CommandFailed(Exception):
    """A command ended with an error; a negative `code` is the number of a signal."""

    def __init__(self, argv: Sequence[str], code: int, stderr: bytes, stdout: bytes = b"") -> None:
        super().__init__(tuple(argv), code, stderr)
        self.argv = tuple(argv)
        self.code = code
        self.stderr = stderr
        self.stdout = stdout

    def __str__(self) -> str:
        how = f"exit {self.code}" if self.code >= 0 else f"signal {-self.code}"
        return _with_stderr(f"{shlex.join(self.argv)} failed ({how})", self.stderr)


class CommandMissing(CommandFailed):
    """The program does not exist on this machine."""

    def __init__(self, program: str) -> None:
        super().__init__((program,), 127, b"")
        self.args = (program,)
        self.program = program

    def __str__(self) -> str:
        return (
            f"{self.program} was not found on this machine: "
            f"install the package that provides {self.program}, or add its directory to PATH"
        )


class CommandTimedOut(CommandFailed):
    """The program ran longer than allowed and was killed."""

    def __init__(self, argv: Sequence[str], seconds: float, stderr: bytes) -> None:
        super().__init__(argv, -signal.SIGKILL, stderr)
        self.args = (tuple(argv), seconds, stderr)
        self.seconds = seconds

    def __str__(self) -> str:
        said = f"{shlex.join(self.argv)} did not finish within {self.seconds:g} s and was killed"
        return _with_stderr(said, self.stderr)


async def run(
    argv: Sequence[str],
    *,
    input: bytes | None = None,
    timeout: float = 60.0,
    env: Mapping[str, str] | None = None,
) -> Completed:
    """Run a program to its end and return its output.

    `env` is added to this process's environment; `timeout` is in seconds.
    Raises CommandFailed or one of its subclasses.
    """
    with _memory_file("stdout") as stdout, _memory_file("stderr") as stderr:
        process = await _start(argv, input is not None, stdout, stderr, env)
        try:
            async with asyncio.timeout(timeout):
                if input is not None:
                    await _feed(process, input)
                code = await process.wait()
        except TimeoutError as error:
            raise CommandTimedOut(argv, timeout, _read(stderr)) from error
        finally:
            if process.returncode is None:
                await _kill(process)
        if code != 0:
            raise CommandFailed(argv, code, _read(stderr), _read(stdout))
        return Completed(_read(stdout), _read(stderr))


class Child:
    """A process started by `spawn`; `wait` it, or `abandon` it to outlive this process."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.pidfd = os.pidfd_open(pid)
        self._code: int | None = None

    async def wait(self) -> int:
        """Return the exit code once it has ended; a negative one is the number of a signal."""
        if self._code is None:
            await readable(self.pidfd)
        return self.reap()

    def reap(self) -> int:
        """Collect it when it has ended already, as its pidfd tells, and return the code."""
        if self._code is None:
            found = os.waitid(os.P_PIDFD, self.pidfd, os.WEXITED)
            assert found is not None
            os.close(self.pidfd)
            exited = found.si_code == os.CLD_EXITED
            self._code = found.si_status if exited else -found.si_status
        return self._code

    @property
    def ended(self) -> bool:
        """Whether it has been waited for."""
        return self._code is not None

    @property
    def running(self) -> bool:
        """Whether it has not ended yet."""
        if self._code is not None:
            return False
        poll = select.poll()
        poll.register(self.pidfd, select.POLLIN)
        return not poll.poll(0)

    def kill_session(self, number: signal.Signals = signal.SIGKILL) -> None:
        """Signal the process group it leads; nothing when it was waited for already."""
        if self._code is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.pid, number)


def spawn(
    argv: Sequence[str],
    *,
    stdin: int | str | None = None,
    stdout: int | None = None,
    stderr: int | None = None,
    inherit: Sequence[int] = (),
    env: Mapping[str, str] | None = None,
) -> Child:
    """Start a program in a session of its own, without waiting for anything.

    The streams are descriptors, None for nothing; `stdin` may be the path of a terminal,
    which is all three streams but does not control the session yet. `inherit` become descriptors
    3, 4, ... of the child; nothing else is passed on. `env`, when given, is its whole
    environment. Raises CommandFailed or CommandMissing.
    """
    search = dict(os.environ if env is None else env)
    program = shutil.which(argv[0], path=os.environ.get("PATH"))
    if program is None:
        raise CommandMissing(argv[0])
    actions: list[tuple[int, ...] | tuple[int, int, str, int, int]] = []
    if isinstance(stdin, str):
        actions.append((os.POSIX_SPAWN_OPEN, 0, stdin, os.O_RDWR | os.O_NOCTTY, 0))
        streams: list[int | None] = [0, 0]
    else:
        actions.append(_stream(0, stdin))
        streams = [stdout, stderr]
    actions += [_stream(number, stream) for number, stream in enumerate(streams, 1)]
    # First out of the way, then into place: a target may be the number of a source.
    high = [fcntl.fcntl(each, fcntl.F_DUPFD_CLOEXEC, _HIGH) for each in inherit]
    actions += [(os.POSIX_SPAWN_DUP2, each, 3 + index) for index, each in enumerate(high)]
    _keep_from_children()
    try:
        pid = os.posix_spawn(
            program,
            list(argv),
            search,
            file_actions=actions,
            setsid=True,
            setsigmask=(),
            setsigdef=_PYTHONS,
        )
    except OSError as error:
        raise CommandFailed(argv, 126, str(error.strerror or error).encode()) from error
    finally:
        for each in high:
            os.close(each)
    return Child(pid)


def _keep_from_children() -> None:
    """Mark what this process was started with: Python marks only what it opens itself."""
    for number in [int(path.name) for path in Path("/proc/self/fd").iterdir()]:
        # One of them is the directory that was being listed, closed by now.
        with contextlib.suppress(OSError):
            if number > 2 and os.get_inheritable(number):
                os.set_inheritable(number, False)


def _stream(number: int, stream: int | None) -> tuple[int, ...] | tuple[int, int, str, int, int]:
    if stream is None:
        return (os.POSIX_SPAWN_OPEN, number, os.devnull, os.O_RDWR, 0)
    return (os.POSIX_SPAWN_DUP2, stream, number)


async def readable(descriptor: int) -> None:
    """Wait until a descriptor can be read from; a pidfd can when its process has ended."""
    loop = asyncio.get_running_loop()
    # A descriptor has one reader per loop; a duplicate gives every waiter its own.
    watched = os.dup(descriptor)
    found: asyncio.Future[None] = loop.create_future()

    def wake() -> None:
        if not found.done():
            found.set_result(None)

    try:
        loop.add_reader(watched, wake)
        await found
    finally:
        loop.remove_reader(watched)
        os.close(watched)


async def _start(
    argv: Sequence[str],
    with_input: bool,
    stdout: int,
    stderr: int,
    env: Mapping[str, str] | None,
) -> asyncio.subprocess.Process:
    try:
        return await asyncio.create_subprocess_exec(
            *argv,
            stdin=asyncio.subprocess.PIPE if with_input else asyncio.subprocess.DEVNULL,
            stdout=stdout,
            stderr=stderr,
            env={**os.environ, "LC_ALL": "C", **(env or {})},
            start_new_session=True,
        )
    except FileNotFoundError as error:
        raise CommandMissing(argv[0]) from error
    except OSError as error:
        # 126 is what a shell reports for a program that exists but cannot be run.
        raise CommandFailed(argv, 126, str(error.strerror or error).encode()) from error


async def _feed(process: asyncio.subprocess.Process, data: bytes) -> None:
    """Write standard input; a program that ends without reading it is not an error here."""
    stdin = process.stdin
    assert stdin is not None
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
        stdin.write(data)
        await stdin.drain()
    stdin.close()
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
        await stdin.wait_closed()


async def _kill(process: asyncio.subprocess.Process) -> None:
    """Kill the process group and reap the child."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    # A process stuck in the kernel (a dead NFS server) survives SIGKILL until
    # its call returns; the event loop reaps it then and the caller goes on now.
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(REAP_SECONDS):
            await process.wait()


@contextlib.contextmanager
def _memory_file(name: str) -> Iterator[int]:
    descriptor = os.memfd_create(name)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _read(descriptor: int) -> bytes:
    """Return the whole file, leaving the offset that the child shares alone."""
    return os.pread(descriptor, os.fstat(descriptor).st_size, 0)


def _with_stderr(said: str, stderr: bytes) -> str:
    lines = [line.strip() for line in stderr.decode(errors="replace").splitlines() if line.strip()]
    return f"{said}: {'; '.join(lines[-STDERR_LINES_SHOWN:])}" if lines else said
