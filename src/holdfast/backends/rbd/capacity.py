"""Reads how much room a pool has, as `ceph df` does."""

from __future__ import annotations

import json
from typing import Any

from holdfast.backends import errors
from holdfast.backends.protocol import Capacity
from holdfast.backends.rbd.connections import Connection


def measure(connection: Connection, pool: str) -> Capacity:
    """Return a pool's room. Raises errors.Unavailable where Ceph does not know it."""
    answer = command(connection, "df")
    for each in answer.get("pools", ()):
        if each.get("name") == pool:
            stats = each.get("stats", {})
            available = int(stats.get("max_avail") or 0)
            stored = int(stats.get("stored") or stats.get("bytes_used") or 0)
            if available + stored == 0:
                break
            return Capacity(available + stored, available)
    raise errors.Unavailable(
        f'Ceph does not know the room of pool "{pool}"',
        connection.access.place,
        "usage is counted by an active manager: start ceph-mgr, and look at `ceph df`",
    )


def command(connection: Connection, prefix: str, **arguments: str) -> Any:
    """Ask the monitors and return the decoded answer. Raises backends.errors."""
    text = json.dumps({"prefix": prefix, "format": "json", **arguments})
    code, out, said = connection.rados.mon_command(text, b"")
    if code in (-1, -13):
        raise errors.Unauthorized(
            f"client.{connection.access.user} may not ask for `ceph {prefix}`",
            connection.access.place,
            "give it the monitor caps `profile rbd`",
        )
    if code:
        raise errors.Unavailable(
            f"`ceph {prefix}` failed ({said or code})", connection.access.place
        )
    # Some commands print a remark behind their JSON.
    return json.JSONDecoder().raw_decode(out.decode().lstrip())[0] if out.strip() else {}
