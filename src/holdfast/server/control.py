"""The control socket: how commands steer the running process beside its Kubernetes API.

`control.sock` in the data directory is a unix socket only its owner can open. A command sends one
line of JSON and gets one line back: `{"do": "stop", "node": "NAME"}` and `{"ok": ...}` or
`{"error": "..."}`. What has a place in the Kubernetes API is not done here.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
from pathlib import Path
from typing import Any

import msgspec

from holdfast.server.machines import Machines, NodesError

log = logging.getLogger("holdfast.server")

NAME = "control.sock"
_TIMEOUT = 60.0


class ControlError(Exception):
    """The running process refused or cannot be reached: why, what to do."""


def path_in(data_dir: Path) -> Path:
    """Return where the socket of a data directory is."""
    return data_dir / NAME


async def serve(data_dir: Path, machines: Machines) -> None:
    """Answer commands until cancelled."""
    path = path_in(data_dir)
    path.unlink(missing_ok=True)
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    # The directory is opened first: the path of a socket may have only 107 bytes.
    directory = os.open(data_dir, os.O_PATH)
    try:
        sock.bind(f"/proc/self/fd/{directory}/{NAME}")
        path.chmod(0o600)
    finally:
        os.close(directory)

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            said = await _obey(machines, await reader.readline())
            writer.write(msgspec.json.encode(said) + b"\n")
            await writer.drain()
        except (ConnectionError, ValueError) as error:
            log.debug("command not answered", extra={"error": str(error)})
        finally:
            writer.close()

    server = await asyncio.start_unix_server(answer, sock=sock)
    try:
        async with server:
            await server.serve_forever()
    finally:
        path.unlink(missing_ok=True)


async def _obey(machines: Machines, line: bytes) -> dict[str, Any]:
    try:
        asked = msgspec.json.decode(line, type=dict[str, str])
    except msgspec.DecodeError as error:
        return {"error": f"not understood: {error}"}
    verbs = {"start": machines.start, "stop": machines.stop, "cut": machines.cut}
    verb = asked.get("do", "")
    try:
        if verb in verbs:
            await verbs[verb](asked.get("node", ""))
        elif verb != "list":
            return {"error": f"unknown command {verb!r}"}
    except NodesError as error:
        return {"error": str(error)}
    return {"ok": dict(machines.states)}


def ask(data_dir: Path, verb: str, node: str = "") -> dict[str, str]:
    """Send a command and return the states of all nodes. Raises ControlError; blocks."""
    directory = _open(data_dir)
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
            sock.settimeout(_TIMEOUT)
            sock.connect(f"/proc/self/fd/{directory}/{NAME}")
            sock.sendall(msgspec.json.encode({"do": verb, "node": node}) + b"\n")
            with sock.makefile("rb") as stream:
                line = stream.readline()
    except OSError as error:
        raise ControlError(
            f"Holdfast does not answer on {path_in(data_dir)} ({error}): see `holdfast status`"
        ) from error
    finally:
        os.close(directory)
    said = msgspec.json.decode(line or b'{"error": "it ended while it was asked"}')
    if "error" in said:
        raise ControlError(str(said["error"]))
    states: dict[str, str] = said["ok"]
    return states


def _open(data_dir: Path) -> int:
    try:
        return os.open(data_dir, os.O_PATH)
    except OSError as error:
        raise ControlError(f"Holdfast is not running on {data_dir}: {error.strerror}") from error
