"""Carries commands into the namespaces of a process on this machine.

A cluster whose nodes are network and mount namespaces needs no ssh: a file names the process that
is a node's init, and `nsenter` goes there. Meant for tests and trials on one machine.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from holdfast.heketi import errors
from holdfast.heketi.executors import turns
from holdfast.heketi.executors.protocol import Output
from holdfast.kit import locks, process


class NamespaceTransport:
    """See `protocol.Transport`; `inits` gives, by host, the file with its init's process id."""

    def __init__(self, inits: Mapping[str, Path]) -> None:
        self._inits = inits
        self._locks = locks.KeyedLocks()

    async def run(
        self, host: str, argv: Sequence[str], *, timeout: float = 600.0, check: bool = True
    ) -> Output:
        """See the protocol."""
        if host not in self._inits:
            raise errors.Unreachable(host, argv[0], "nsexec.inits does not name this host")
        async with self._locks.hold(host):
            try:
                pid = self._inits[host].read_text().strip()
            except OSError as error:
                raise errors.Unreachable(host, argv[0], f"the node is down: {error}") from error
            enter = ["nsenter", "-t", pid, "-m", "-u", "-n", "-p", "--"]
            done = await _run([*enter, *turns.taken(argv)], host, timeout)
        if "nsenter: cannot open /proc/" in done.stderr:
            raise errors.Unreachable(host, argv[0], "the node is down")
        turns.judge(host, argv, done, check)
        return done

    async def close(self) -> None:
        """Nothing is kept open."""


async def _run(argv: Sequence[str], host: str, timeout: float) -> Output:
    try:
        done = await process.run(argv, timeout=timeout)
    except process.CommandTimedOut as error:
        raise errors.Unreachable(host, argv[0], f"no answer within {timeout:g} s") from error
    except process.CommandFailed as error:
        said = error.stdout.decode(errors="replace")
        return Output(error.code, said, error.stderr.decode(errors="replace"))
    return Output(0, done.stdout.decode(errors="replace"), done.stderr.decode(errors="replace"))
