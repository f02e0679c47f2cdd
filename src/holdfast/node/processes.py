"""Processes of this machine: who they are, whether they still are, and signals to them.

A number alone says little: it may have been given to another process since. A process is
known by its number, the time it started and the boot it belongs to, and is signalled
through a pidfd. A process that has ended but was not collected yet counts as gone.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
from pathlib import Path

import msgspec

MESSAGE_LIMIT = 4096


class Identity(msgspec.Struct, frozen=True):
    """A process for good; `start` in clock ticks after `boot`."""

    pid: int
    start: int
    boot: str


def identify(pid: int) -> Identity:
    """Describe a process; one that is gone already gets a start that none has."""
    try:
        start = _start_of(pid)
    except (OSError, ValueError):
        start = -1
    return Identity(pid, start, _boot())


def open_if_same(identity: Identity) -> int | None:
    """Return a pidfd of the process, None when it is gone. The caller closes it."""
    if identity.boot != _boot():
        return None
    try:
        pidfd = os.pidfd_open(identity.pid)
    except OSError:
        return None
    with contextlib.suppress(OSError, ValueError):
        if _start_of(identity.pid) == identity.start:
            return pidfd
    os.close(pidfd)
    return None


def send(pid: int, number: signal.Signals) -> None:
    """Send a signal; a process that is gone is no error."""
    with contextlib.suppress(ProcessLookupError):
        pidfd = os.pidfd_open(pid)
        try:
            signal.pidfd_send_signal(pidfd, number)
        finally:
            os.close(pidfd)


def command_of(leader: int) -> int:
    """The command that the first process of a sandbox started; 0 while there is none.

    It is the process the sandbox knows as its second; before it becomes the command it
    still is bubblewrap.
    """
    try:
        children = Path(f"/proc/{leader}/task/{leader}/children").read_text().split()
    except OSError:
        return 0
    for child in map(int, children):
        if _number_inside(child) == 2 and name_of(child) not in ("", "bwrap", "setpriv", "setsid"):
            return child
    return 0


def environment_of(pid: int) -> dict[str, str]:
    """The environment a process was started with; empty when it is gone."""
    try:
        raw = Path(f"/proc/{pid}/environ").read_bytes()
    except OSError:
        return {}
    pairs = (each.partition(b"=") for each in raw.split(b"\0") if b"=" in each)
    return {os.fsdecode(name): os.fsdecode(value) for name, _, value in pairs}


def end(pid: int, seconds: float = 5.0) -> None:
    """Kill a process and wait until it is gone. Blocks."""
    with contextlib.suppress(ProcessLookupError):
        pidfd = os.pidfd_open(pid)
        try:
            signal.pidfd_send_signal(pidfd, signal.SIGKILL)
            poll = select.poll()
            poll.register(pidfd, select.POLLIN)
            poll.poll(seconds * 1000)
        finally:
            os.close(pidfd)


def mounts_mention(pid: int, text: str) -> bool:
    """Whether a process sees a mount that is described with this text."""
    try:
        return text.encode() in Path(f"/proc/{pid}/mountinfo").read_bytes()
    except OSError:
        return False


def kill_family(pid: int) -> None:
    """Kill a process with its descendants and all that is in one of their sessions."""
    known: dict[int, tuple[int, int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError, ValueError):
                fields = _stat(int(entry.name))
                known[int(entry.name)] = int(fields[1]), int(fields[3])
    family = {pid}
    while found := {each for each, (parent, _) in known.items() if parent in family} - family:
        family |= found
    sessions = {known[each][1] for each in family if each in known}
    for each, (_, session) in known.items():
        if each in family or session in sessions:
            send(each, signal.SIGKILL)


def name_of(pid: int) -> str:
    """The name of the program, "" when the process is gone."""
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip()
    except OSError:
        return ""


def head(path: Path, limit: int = MESSAGE_LIMIT) -> str:
    """The start of a text file; "" when there is none."""
    try:
        with path.open("rb") as stream:
            return stream.read(limit).decode(errors="replace")
    except OSError:
        return ""


def _number_inside(pid: int) -> int:
    with contextlib.suppress(OSError, ValueError):
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("NSpid:"):
                return int(line.split()[-1])
    return 0


def _start_of(pid: int) -> int:
    return int(_stat(pid)[19])


def _stat(pid: int) -> list[str]:
    """The fields of /proc/PID/stat from the state on; the name before may hold anything."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()


def _boot() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
