"""Carries commands to nodes by ssh. The host's key is checked against known_hosts, always.

One connection per host is kept and opened anew when it broke. The private key is read from the
file that the settings name; nothing of it appears in errors. With `sudo`, commands run as root.
asyncssh is loaded when a transport is made: a machine without it can use the other executors.
"""

from __future__ import annotations

import asyncio
import importlib
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from holdfast.heketi import errors
from holdfast.heketi.executors import turns
from holdfast.heketi.executors.protocol import Output
from holdfast.kit import locks

_CONNECT_SECONDS = 15


@dataclass(frozen=True, slots=True)
class SshSettings:
    """Who connects and how; `known_hosts` None means ~/.ssh/known_hosts."""

    keyfile: Path
    user: str = "heketi"
    port: int = 22
    sudo: bool = False
    known_hosts: Path | None = None


class SshTransport:
    """See `protocol.Transport`."""

    def __init__(self, settings: SshSettings) -> None:
        try:
            self._ssh: Any = importlib.import_module("asyncssh")
        except ImportError as error:
            raise errors.Refused(
                "the ssh executor needs asyncssh, which is not installed: pip install asyncssh"
            ) from error
        self._settings = settings
        self._connections: dict[str, Any] = {}
        self._locks = locks.KeyedLocks()

    async def run(
        self, host: str, argv: Sequence[str], *, timeout: float = 600.0, check: bool = True
    ) -> Output:
        """See the protocol."""
        words = turns.taken(argv)
        line = shlex.join(["sudo", "-n", *words] if self._settings.sudo else words)
        async with self._locks.hold(host):
            done = await self._carry(host, argv, line, timeout)
        turns.judge(host, argv, done, check)
        return done

    async def _carry(self, host: str, argv: Sequence[str], line: str, timeout: float) -> Output:
        try:
            connection = await self._connection(host)
            async with asyncio.timeout(timeout):
                done = await connection.run(line, check=False)
        except TimeoutError as error:
            raise errors.Unreachable(host, argv[0], f"no answer within {timeout:g} s") from error
        except (OSError, self._ssh.Error) as error:
            await self._drop(host)
            raise errors.Unreachable(host, f"ssh for {argv[0]}", _said(error)) from error
        code = done.exit_status if done.exit_status is not None else -1
        return Output(code, str(done.stdout or ""), str(done.stderr or ""))

    async def _connection(self, host: str) -> Any:
        known = self._connections.get(host)
        if known is not None and not known.is_closed():
            return known
        options: dict[str, Any] = {}
        if self._settings.known_hosts is not None:
            options["known_hosts"] = str(self._settings.known_hosts)
        self._connections[host] = await self._ssh.connect(
            host,
            port=self._settings.port,
            username=self._settings.user,
            client_keys=[str(self._settings.keyfile)],
            agent_path=None,
            connect_timeout=_CONNECT_SECONDS,
            keepalive_interval=30,
            **options,
        )
        return self._connections[host]

    async def _drop(self, host: str) -> None:
        connection = self._connections.pop(host, None)
        if connection is not None:
            connection.close()

    async def close(self) -> None:
        """See the protocol."""
        for connection in self._connections.values():
            connection.close()
            await connection.wait_closed()
        self._connections.clear()


def _said(error: Exception) -> str:
    text = str(error) or type(error).__name__
    if "Host key is not trusted" in text:
        text += "; add the node's key to known_hosts (ssh-keyscan, and compare it)"
    return text
