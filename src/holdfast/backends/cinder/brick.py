"""os-brick: connects volumes to a machine that is no server of Nova, whatever their transport.

os-brick runs as a program of its own (`brick_program`), under Holdfast's Python
or the one that `os_brick` in the configuration names. What is connected is
noted in the node's private directory before it is connected, so that it can be
taken away again after a crash and without Cinder; the note has no passwords.

A node that has os-brick registers with what storage must know of it:
`HOST?ip=10.0.0.5&initiator=iqn...`. `connector_of` reads that.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import json
import socket
import sys
import urllib.parse
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from holdfast.backends import errors
from holdfast.backends.cinder.clouds import Cloud
from holdfast.kit import files, process

PROGRAM = Path(__file__).with_name("brick_program.py")
CONNECT_SECONDS = 180.0
# Kubernetes' limit for the id of a node.
_MOST_LETTERS = 192
_KEYS = ("ip", "initiator", "nqn", "wwpns", "wwnns")
_LISTS = ("wwpns", "wwnns")
_SECRET = ("password", "secret", "auth_", "keyring", "discovery_auth")

Connection = Mapping[str, Any]


def interpreter(cloud: Cloud) -> str:
    """Return the Python that runs os-brick; '' where there is none."""
    if cloud.instance.os_brick is not None:
        return str(cloud.instance.os_brick)
    return sys.executable if importlib.util.find_spec("os_brick") is not None else ""


def host_of(node: str) -> str:
    """Return the host name in a node's id."""
    return node.partition("?")[0]


def connector_of(node: str) -> dict[str, Any]:
    """Return what storage is told of a node, from the node's id; empty without os-brick."""
    told = dict(urllib.parse.parse_qsl(node.partition("?")[2]))
    return {key: value.split(",") if key in _LISTS else value for key, value in told.items()}


def node_id(host: str, properties: Connection) -> str:
    """Return the id of a node with these properties. Raises errors.Unsupported."""
    told = {}
    for key in _KEYS:
        value = properties.get(key)
        if value:
            told[key] = ",".join(value) if key in _LISTS else str(value)
    if len(_written(host, told)) > _MOST_LETTERS:
        told.pop("wwnns", None)
    id = _written(host, told)
    if len(id) > _MOST_LETTERS:
        raise errors.Unsupported(
            f"what storage must know of this machine has {len(id)} letters, and a node's id "
            f"{_MOST_LETTERS} at most",
            host,
            "too many ports or too long a name of the initiator",
        )
    return id


class Brick:
    """os-brick on this machine, for one node and one Python.

    `directory` is private to the node: os-brick's locks and the notes are in there.
    """

    def __init__(self, python: str, directory: Path) -> None:
        self._python = python
        self._directory = directory / "os-brick"

    async def properties(self, host: str, towards: str) -> Connection:
        """Return what storage must know of this machine, seen from the address `towards`."""
        ip = await asyncio.to_thread(_own_address, towards)
        answer = await self._ask({"command": "properties", "ip": ip, "host": host})
        found: Connection = answer["properties"]
        return found

    async def connect(self, id: str, connection: Connection) -> Path:
        """Connect a volume, or find it connected, and return its device or file."""
        without = {key: value for key, value in connection.items() if not _is_secret(key)}
        noted = {"python": self._python, "connection": without}
        self._write(id, noted)
        answer = await self._ask({"command": "connect", "connection": connection})
        device = answer["device"]
        self._write(id, {**noted, "device": device})
        return Path(str(device["path"]))

    async def extend(self, connection: Connection) -> None:
        """Let this machine see that a volume has grown."""
        await self._ask({"command": "extend", "connection": connection})

    async def disconnect(self, id: str) -> None:
        """Take a volume from this machine; one that is not noted is a success."""
        note = self._note(id)
        try:
            noted = json.loads(note.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return
        if await asyncio.to_thread(Path(noted["python"]).exists):
            # The cloud's configuration may be gone by now, and is not needed.
            self._python = noted["python"]
        await self._ask({"command": "disconnect", **noted})
        note.unlink(missing_ok=True)

    def _note(self, id: str) -> Path:
        return self._directory / f"{id}.json"

    def _write(self, id: str, noted: Mapping[str, Any]) -> None:
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        files.write_atomic(self._note(id), json.dumps(noted).encode())

    async def _ask(self, question: Mapping[str, Any]) -> Mapping[str, Any]:
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        asked = json.dumps({**question, "directory": str(self._directory)}).encode()
        where = f"os-brick ({self._python or 'no Python has it'})"
        if not self._python:
            raise _missing(where)
        try:
            # -I: the modules beside the program are not its libraries.
            done = await process.run(
                [self._python, "-I", str(PROGRAM)], input=asked, timeout=CONNECT_SECONDS
            )
            answer: Mapping[str, Any] = json.loads(done.stdout)
        except (process.CommandFailed, ValueError) as error:
            raise errors.Unavailable(f"did not answer: {error}", where) from error
        if "missing" in answer:
            raise _missing(where)
        if "error" in answer:
            raise errors.Unavailable(
                f"cannot {question['command']}: {answer['error']}",
                where,
                "see that the machine has the transport's tools (open-iscsi, nvme-cli, "
                "multipath-tools, ceph-common) and reaches the storage",
            )
        return answer


def _missing(where: str) -> errors.Unsupported:
    return errors.Unsupported(
        "os-brick is not installed",
        where,
        "install it on the node: pip install 'holdfast[os-brick]'; or name a Python that has "
        'it: os_brick = "/opt/os-brick/bin/python" in [cinder.NAME]',
    )


def _written(host: str, told: Mapping[str, str]) -> str:
    query = urllib.parse.urlencode(told, safe=":,.")
    return f"{host}?{query}" if query else host


def _is_secret(key: str) -> bool:
    return any(part in key for part in _SECRET)


def _own_address(towards: str) -> str:
    """Return the address that packets to a service leave with; none is sent."""
    found = urllib.parse.urlsplit(towards)
    with contextlib.suppress(OSError):
        family, kind, number, _, address = socket.getaddrinfo(
            found.hostname, found.port or 443, type=socket.SOCK_DGRAM
        )[0]
        with socket.socket(family, kind, number) as probe:
            probe.connect(address)
            return str(probe.getsockname()[0])
    return "127.0.0.1"
