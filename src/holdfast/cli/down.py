"""`holdfast down`: stop the process that runs on a data directory.

The process is found through the lock, never by a bare pid from a file, and is
signalled through a pidfd, so what is stopped is what was found. Nothing it
serves is taken away: pods and mounted volumes stay, and the next `up` goes on
from there. With ``--unmount`` they are let go of as well, which has to happen
before the data directory is moved or removed.
"""

from __future__ import annotations

import asyncio
import os
import select
import signal
from pathlib import Path

import click

from holdfast.cli import terminal
from holdfast.server import rundir

_POLL_MILLISECONDS = 50


@click.command("down")
@terminal.data_dir_option
@click.option(
    "--timeout", type=click.FloatRange(min=0), default=60.0, show_default=True, metavar="SECONDS"
)
@click.option(
    "--unmount",
    is_flag=True,
    help="Also end the pods' containers and unmount their volumes; do this before the data "
    "directory is moved or removed. The next `up` brings them back.",
)
def command(data_dir: Path, timeout: float, unmount: bool) -> None:
    """Stop Holdfast and wait until it has stopped. Volumes and their data stay."""
    _down(data_dir, timeout)
    if unmount:
        _release(data_dir)


def _release(data_dir: Path) -> None:
    from holdfast.node import releasing

    # Nothing may start on the directory while its mounts go.
    with rundir.hold(data_dir):
        for node in sorted((data_dir / "nodes").glob("*")):
            done = asyncio.run(releasing.release(node))
            terminal.say(
                f"Node {node.name}: containers ended {done.containers}, "
                f"mounts taken away {done.mounts}."
            )


def _down(data_dir: Path, timeout: float) -> None:
    holder = rundir.holder(data_dir)
    if holder is None:
        terminal.say(f"Holdfast is not running on {data_dir}.")
        return
    if holder.pid is None:
        raise terminal.CommandError(
            f"another process is just starting or stopping on {data_dir}: try again"
        )
    with terminal.Progress(f"stopping process {holder.pid}") as progress:
        if not _stop(data_dir, holder.pid, timeout, progress):
            raise terminal.CommandError(
                f"process {holder.pid} has not stopped after {timeout:g} s: see holdfast.log in "
                f"{data_dir}; `kill -9 {holder.pid}` loses nothing that was acknowledged"
            )
    terminal.say(f"Stopped process {holder.pid}; volumes and their data are unchanged.")


def _stop(data_dir: Path, pid: int, timeout: float, progress: terminal.Progress) -> bool:
    """Ask the process to stop and say whether it did in time."""
    try:
        process = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        # The pid could have gone to another process before the pidfd was opened.
        current = rundir.holder(data_dir)
        if current is None or current.pid != pid:
            return True
        signal.pidfd_send_signal(process, signal.SIGTERM)
        poll = select.poll()
        poll.register(process, select.POLLIN)
        while not poll.poll(_POLL_MILLISECONDS):
            if progress.seconds > timeout:
                return False
            progress.tick()
        return True
    except ProcessLookupError:
        return True
    except PermissionError as error:
        raise terminal.CommandError(
            f"process {pid} belongs to another user: run as that user or as root"
        ) from error
    finally:
        os.close(process)
