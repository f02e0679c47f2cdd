"""Cuts a lost node off from its images, and lets it back.

A client is refused by its address and nonce, which every Ceph user with the
`rbd` profile may ask for; refusing a whole address takes an administrator and
would hit others behind it. So the node is also written down as fenced, and its
own node side refuses to map anything until it is let back.
"""

from __future__ import annotations

import contextlib
import json
from typing import Any

from holdfast.backends import errors
from holdfast.backends.rbd import capacity, usage
from holdfast.backends.rbd.connections import Connection
from holdfast.backends.rbd.shelf import Shelf

# Longer than any repair.
SECONDS = 365 * 86400.0


def fence(shelf: Shelf, node: str) -> None:
    """Return when no client noted for `node` can write to images of this pool."""
    known = shelf.fenced.get(node) or {}
    addresses = set(known.get("addresses", ()))
    # First the note: a map that begins now is refused by the node itself.
    shelf.fenced.set(node, {"addresses": sorted(addresses)})
    # Every client that was ever noted, watching or not: the watch of a machine that lost its
    # network is gone after half a minute, and the machine goes on when the network is back.
    addresses |= usage.clients_of(shelf, node)
    shelf.fenced.set(node, {"addresses": sorted(addresses)})
    for address in sorted(addresses):
        blocklist(shelf.connection, "add", address)
    # OSDs refuse the client once they have the map that says so, and they have it when
    # they have answered somebody who has it.
    shelf.connection.rados.wait_for_latest_osdmap()
    for image in usage.held(shelf):
        usage.users(shelf, image)


def unfence(shelf: Shelf, node: str) -> None:
    """Let a node use images again. One that is not fenced is a success.

    Its old clients stay refused: one that lives on has data of before in its memory, and another
    node may have written since. The node itself takes them off when they have ended (`forgive`).
    """
    shelf.fenced.remove(node)


def forgive(connection: Connection, address: str) -> None:
    """Take a client of ours that has ended off the blocklist, where this user may do so.

    Ceph's rbd profile lets a user add entries and not remove them; what `holdfast prepare ceph`
    gives does. An entry that stays hits nobody: the next client has another nonce.
    """
    with contextlib.suppress(errors.Unauthorized):
        if is_blocklisted(connection, address):
            blocklist(connection, "rm", address)


def refuse_fenced(shelf: Shelf, node: str) -> None:
    """Raise errors.Conflict when this node is fenced."""
    if shelf.fenced.get(node) is not None:
        raise errors.Conflict(
            f"node {node} is fenced off from this pool",
            shelf.where,
            "let it back once it was restarted: remove the taint node.kubernetes.io/out-of-service",
        )


def is_blocklisted(connection: Connection, address: str) -> bool:
    """Return whether the cluster refuses a client."""
    listed = capacity.command(connection, "osd blocklist ls")
    return isinstance(listed, list) and any(each.get("addr") == address for each in listed)


def blocklist(connection: Connection, action: str, address: str) -> None:
    """Add an address with nonce to the cluster's blocklist, or take it off."""
    command: dict[str, Any] = {
        "prefix": "osd blocklist",
        "blocklistop": action,
        "addr": address,
    }
    if action == "add":
        command["expire"] = SECONDS
    code, _, said = connection.rados.mon_command(json.dumps(command), b"")
    if code == 0 or (action == "rm" and code == -2):
        return
    where = connection.access.place
    if code in (-1, -13):
        raise errors.Unauthorized(
            f"client.{connection.access.user} may not fence the client {address}",
            where,
            "give it the monitor caps that `holdfast prepare ceph --dry-run` shows; "
            f"or run: ceph osd blocklist {action} {address}",
        )
    raise errors.Unavailable(f"cannot fence the client {address} ({said or code})", where)
