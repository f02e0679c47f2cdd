"""The containers of one machine: started detached, found again, ended, forgotten.

Each attempt to run a container has a directory `containers/<owner>/<name>/<number>/`:
`about.json` (what was started), `process.json` (who it is), `status` (bubblewrap's report:
the first process, and the exit code), `log`, `message` and `view/`, the mounted root. A
container that only sleeps is bubblewrap alone; one that runs a command has the companion
`shim` around it for its log and its clients.

The processes do not depend on Holdfast. After a restart `load` finds them by number and
start time, so that a number given to another process is not taken for them, and waits for
them on a pidfd like before. The invariant: an attempt is over only when its first process
is gone, and only then are its mounts removed; nothing here is ever polled.
"""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import json
import logging
import os
import shutil
import signal
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import msgspec

from holdfast.backends import errors, mountinfo
from holdfast.kit import clock, files, process
from holdfast.node import processes, sandbox, shim

log = logging.getLogger("holdfast.node")

ABOUT, PROCESS, STATUS, LOG, MESSAGE, SOCKET, VIEW = (
    *("about.json", "process.json", "status", "log", "message", "attach.sock"),
    "view",
)
KILLED = 128 + signal.SIGKILL
START_FAILED = 128
KEPT = 2  # attempts of a container whose logs stay
ENTER_SECONDS = 5.0
_SETTLE_STEP = 0.01


class About(msgspec.Struct, frozen=True, omit_defaults=True):
    """What was started; `sleeps` says why the command itself does not run."""

    started: str
    sleeps: str = ""
    terminal: bool = False
    stdin: bool = False
    identity: sandbox.Identity = sandbox.Identity()


@dataclass(frozen=True, slots=True)
class Ended:
    """How an attempt ended; `began` is False when its program was never started."""

    code: int
    at: datetime.datetime
    known: bool = True
    began: bool = True
    message: str = ""


class Attempt:
    """One run of a container. `done` is set as soon as its process is gone."""

    def __init__(self, owner: str, name: str, number: int, directory: Path, about: About) -> None:
        self.owner = owner
        self.name = name
        self.number = number
        self.directory = directory
        self.about = about
        self.done = asyncio.Event()
        # Filled in by `Containers.settle`, once `done` is set.
        self.ended: Ended | None = None
        self.pid = 0

    @property
    def log(self) -> Path:
        return self.directory / LOG

    @property
    def running(self) -> bool:
        return not self.done.is_set()

    def leader(self) -> int:
        """The first process inside, as bubblewrap reported it; 0 when there is none."""
        return int(self._reported().get("child-pid", 0))

    def _reported(self) -> dict[str, int]:
        found: dict[str, int] = {}
        with contextlib.suppress(FileNotFoundError):
            for line in (self.directory / STATUS).read_text().splitlines():
                with contextlib.suppress(ValueError):
                    found |= json.loads(line)
        return found

    def outcome(self) -> Ended:
        """Read how it ended. Blocks."""
        reported = self._reported()
        try:
            modified = (self.directory / STATUS).stat().st_mtime
        except FileNotFoundError:
            modified = self.directory.stat().st_mtime
        at = datetime.datetime.fromtimestamp(modified, datetime.UTC)
        message = processes.head(self.directory / MESSAGE)
        if "exit-code" in reported:
            return Ended(reported["exit-code"], at, message=message)
        if "child-pid" in reported:
            return Ended(KILLED, clock.now(), known=False, message=message)
        return Ended(START_FAILED, at, began=False)


class Containers:
    """All attempts beneath `root`; `changed` is called with the owner when one has ended."""

    def __init__(self, root: Path, changed: Callable[[str], None]) -> None:
        self._root = root / "containers"
        self._changed = changed
        self._attempts: dict[str, dict[str, list[Attempt]]] = {}

    async def load(self) -> list[str]:
        """Find the containers an earlier run left; return their owners."""
        for attempt, alive in await asyncio.to_thread(lambda: list(self._found())):
            self._remember(attempt)
            if alive is None:
                attempt.done.set()
            else:
                self._watch(attempt, alive, None)
        return list(self._attempts)

    def of(self, owner: str) -> Mapping[str, list[Attempt]]:
        """The attempts of an owner's containers, the latest last."""
        return self._attempts.get(owner, {})

    def latest(self, owner: str, name: str) -> Attempt | None:
        attempts = self._attempts.get(owner, {}).get(name)
        return attempts[-1] if attempts else None

    def directory(self, owner: str, name: str, number: int) -> Path:
        """Where an attempt keeps everything; made by `prepare`."""
        return self._root / owner / name / str(number)

    async def prepare(self, owner: str, name: str, number: int) -> sandbox.View:
        """Make an attempt's directory and the place for its root, from nothing."""

        def make() -> sandbox.View:
            directory = self.directory(owner, name, number)
            view = sandbox.View(directory / VIEW)
            if directory.is_dir():
                # Left by a crash before anything was started in it.
                view.remove()
                _delete(directory)
            directory.mkdir(mode=0o700, parents=True)
            message = directory / MESSAGE
            message.touch()
            message.chmod(0o666)
            (directory / LOG).touch(mode=0o600)
            view.open()
            return view

        return await asyncio.to_thread(make)

    async def start(
        self, owner: str, name: str, number: int, program: sandbox.Program, about: About
    ) -> Attempt:
        """Start a prepared attempt. Raises backends.errors, OSError, kit.process.CommandFailed."""
        directory = self.directory(owner, name, number)
        view = sandbox.View(directory / VIEW)
        await asyncio.to_thread(view.make, program)
        child = _spawn(directory, view, program, about)
        attempt = Attempt(owner, name, number, directory, about)
        attempt.pid = child.pid
        files.write_atomic(directory / ABOUT, msgspec.json.encode(about))
        identity = processes.identify(child.pid)
        files.write_atomic(directory / PROCESS, msgspec.json.encode(identity))
        self._remember(attempt)
        self._watch(attempt, child.pidfd, child)
        return attempt

    async def abandon(self, owner: str, name: str, number: int) -> None:
        """Undo `prepare` for an attempt that could not be started; it holds volumes busy."""
        await asyncio.to_thread(_discard, self.directory(owner, name, number))

    async def settle(self, attempt: Attempt) -> Ended:
        """Note how an attempt ended and remove its mounts; may be repeated."""
        await attempt.done.wait()
        if attempt.ended is None:
            await asyncio.to_thread(_end_leftover, attempt)
            await asyncio.to_thread(sandbox.View(attempt.directory / VIEW).remove)
            attempt.ended = await asyncio.to_thread(attempt.outcome)
            await self._prune(attempt)
        return attempt.ended

    async def command(self, attempt: Attempt) -> tuple[int, int]:
        """The numbers of the first process inside and of the command, once it runs; else 0, 0.

        Right after a start the command is not there yet; a moment later it is, or never.
        """
        deadline = asyncio.get_running_loop().time() + ENTER_SECONDS
        while attempt.running and asyncio.get_running_loop().time() < deadline:
            leader = attempt.leader()
            command = processes.command_of(leader) if leader else 0
            if command:
                return leader, command
            await asyncio.sleep(_SETTLE_STEP)
        return 0, 0

    async def signal(self, attempt: Attempt, number: signal.Signals) -> None:
        """Send a signal to the command, or with SIGKILL to all there is."""
        if number != signal.SIGKILL:
            _, command = await self.command(attempt)
            if command:
                processes.send(command, number)
            return
        leader = attempt.leader()
        if attempt.running:
            processes.send(leader or attempt.pid, number)

    async def forget(self, owner: str) -> None:
        """Remove all that is kept of an owner, whose containers have ended."""
        for attempts in self.of(owner).values():
            for attempt in attempts:
                await self.settle(attempt)
        self._attempts.pop(owner, None)
        await asyncio.to_thread(_delete, self._root / owner)

    async def _prune(self, ended: Attempt) -> None:
        attempts = self._attempts.get(ended.owner, {}).get(ended.name, [])
        for old in attempts[:-KEPT]:
            if old.ended is not None:
                await asyncio.to_thread(_delete, old.directory)
                attempts.remove(old)

    def _remember(self, attempt: Attempt) -> None:
        attempts = self._attempts.setdefault(attempt.owner, {}).setdefault(attempt.name, [])
        attempts.append(attempt)

    def _watch(self, attempt: Attempt, pidfd: int, child: process.Child | None) -> None:
        loop = asyncio.get_running_loop()

        def ended() -> None:
            loop.remove_reader(pidfd)
            if child is None:
                os.close(pidfd)
            else:
                child.reap()
            attempt.done.set()
            self._changed(attempt.owner)

        loop.add_reader(pidfd, ended)

    def _found(self) -> Iterator[tuple[Attempt, int | None]]:
        for directory in sorted(self._root.glob("*/*/*"), key=_number):
            owner, name = directory.parent.parent.name, directory.parent.name
            try:
                about = msgspec.json.decode((directory / ABOUT).read_bytes(), type=About)
            except (FileNotFoundError, msgspec.DecodeError):
                _discard(directory)
                continue
            attempt = Attempt(owner, name, _number(directory), directory, about)
            pidfd = None
            with contextlib.suppress(FileNotFoundError, msgspec.DecodeError):
                raw = (directory / PROCESS).read_bytes()
                identity = msgspec.json.decode(raw, type=processes.Identity)
                attempt.pid, pidfd = identity.pid, processes.open_if_same(identity)
            yield attempt, pidfd


def _spawn(
    directory: Path, view: sandbox.View, program: sandbox.Program, about: About
) -> process.Child:
    said = sandbox.arguments(program, view.root)
    argv = sandbox.command(program, session=not about.terminal, bound=not about.sleeps)
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND | os.O_CLOEXEC
    with contextlib.ExitStack() as stack:

        def kept(descriptor: int) -> int:
            stack.callback(os.close, descriptor)
            return descriptor

        status = kept(os.open(directory / STATUS, flags, 0o600))
        if about.sleeps:
            arguments = kept(_memory("".join(f"{each}\0" for each in said).encode()))
            output = kept(os.open(directory / LOG, flags, 0o600))
            streams = (arguments, status)
            return process.spawn(argv, stdout=output, stderr=output, inherit=streams)
        order = {
            "argv": argv,
            "arguments": said,
            "log": str(directory / LOG),
            "socket": str(directory / SOCKET),
            "tty": about.terminal,
            "stdin": about.stdin,
        }
        companion = [sys.executable, "-I", "-S", shim.__file__]
        errors_to = kept(os.open(directory / "shim.log", flags, 0o600))
        said_to = kept(_memory(json.dumps(order).encode()))
        return process.spawn(companion, stdin=said_to, stderr=errors_to, inherit=(status,))


def _memory(data: bytes) -> int:
    """A descriptor to read the data from; nothing is written to a disk."""
    descriptor = os.memfd_create("arguments")
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]
    os.lseek(descriptor, 0, os.SEEK_SET)
    return descriptor


def _discard(directory: Path) -> None:
    """Remove an attempt that a crash left half-made, with a container it may have started."""
    attempt = Attempt("", "", 0, directory, About(""))
    try:
        _end_leftover(attempt)
        sandbox.View(directory / VIEW).remove()
    except (errors.BackendError, OSError) as error:
        log.warning("container not removed", extra={"path": str(directory), "error": str(error)})
        return
    _delete(directory)


def _end_leftover(attempt: Attempt) -> None:
    """Kill what is inside a sandbox whose outer process was killed by somebody. Blocks."""
    leader = attempt.leader()
    if leader and processes.mounts_mention(leader, str(attempt.directory)):
        processes.end(leader)


def _delete(directory: Path) -> None:
    """Remove what is kept of containers, never through a mount: that would be somebody's data."""
    if mountinfo.beneath(directory):
        raise errors.Conflict("something is still mounted there", str(directory))
    shutil.rmtree(directory, ignore_errors=True)


def _number(directory: Path) -> int:
    return int(directory.name) if directory.name.isdigit() else 0
