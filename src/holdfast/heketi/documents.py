"""The JSON that clients read: keys, their order and which are left out, as Heketi's Go types have.

Answers are compact with a newline at the end; `<`, `>` and `&` are written as Go writes them. An id
that leads nowhere is left out of a list or shown with what is known: it never breaks an answer.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

import msgspec

from holdfast.heketi.entries import BlockVolume, Brick, Cluster, Device, Node, Volume
from holdfast.heketi.state import State

_GO = {ord("<"): "\\u003c", ord(">"): "\\u003e", ord("&"): "\\u0026"}


def encode(document: Any, indent: int | None = None) -> bytes:
    """As Go's encoder writes it."""
    if indent is None:
        text = msgspec.json.encode(document)
        if not any(each in text for each in b"<>&"):
            return text + b"\n"
        return text.decode().translate(_GO).encode() + b"\n"
    return json.dumps(document, indent=indent, ensure_ascii=False).translate(_GO).encode() + b"\n"


def cluster(state: State, entry: Cluster) -> dict[str, Any]:
    """GET /clusters/{id}."""
    return {
        "id": entry.id,
        "nodes": [node.id for node in state.below(entry, Node)],
        "volumes": [each.id for each in state.below(entry, Volume) if not each.pending],
        "block": entry.block,
        "file": entry.file,
        "blockvolumes": [each.id for each in state.below(entry, BlockVolume)],
    }


def node(state: State, entry: Node) -> dict[str, Any]:
    """GET /nodes/{id}."""
    document: dict[str, Any] = {
        "zone": entry.zone,
        "hostnames": {"manage": [entry.manage], "storage": [entry.storage]},
        "cluster": entry.cluster,
    }
    if entry.tags:
        document["tags"] = dict(sorted(entry.tags.items()))
    document["id"] = entry.id
    document["state"] = entry.state
    found = [each for each in state.below(entry, Device) if not each.pending]
    document["devices"] = [device(state, each) for each in found]
    return document


def device(state: State, entry: Device) -> dict[str, Any]:
    """GET /devices/{id}."""
    document: dict[str, Any] = {"name": entry.name}
    if entry.tags:
        document["tags"] = dict(sorted(entry.tags.items()))
    used = state.used(entry)
    document["storage"] = {"total": entry.total, "free": max(0, entry.total - used), "used": used}
    document["id"] = entry.id
    if entry.paths:
        document["paths"] = entry.paths
    if entry.uuid:
        document["pv_uuid"] = entry.uuid
    document["state"] = entry.state
    found = [each for each in state.below(entry, Brick) if not each.pending]
    document["bricks"] = [brick(state, each) for each in found]
    return document


def brick(state: State, entry: Brick) -> dict[str, Any]:
    """A brick, inside of others."""
    where = state.node_of(entry)
    return {
        "id": entry.id,
        "path": entry.path,
        "device": entry.device,
        "node": where.id if where is not None else "",
        "volume": entry.volume,
        "size": entry.size,
    }


def _durability(entry: Volume) -> dict[str, Any]:
    kind = entry.durability
    replicate = {"replica": kind.replica} if kind.replica else {}
    amounts = {"data": kind.data, "redundancy": kind.redundancy}
    disperse = {key: value for key, value in amounts.items() if value}
    return {"type": kind.type, "replicate": replicate, "disperse": disperse}


def volume(state: State, entry: Volume) -> dict[str, Any]:
    """GET /volumes/{id}."""
    document: dict[str, Any] = {
        "size": entry.size,
        "name": entry.name,
        "durability": _durability(entry),
    }
    if entry.gid:
        document["gid"] = entry.gid
    if entry.options:
        document["glustervolumeoptions"] = entry.options
    if entry.block:
        document["block"] = True
    # Go writes a whole number without its fraction.
    factor = int(entry.factor) if entry.factor == int(entry.factor) else entry.factor
    document["snapshot"] = {"enable": entry.snapshot, "factor": factor}
    document["id"] = entry.id
    document["cluster"] = entry.cluster
    document["mount"] = _mount(state, entry)
    document["blockinfo"] = _block_info(state, entry)
    document["bricks"] = [
        brick(state, each) for each in state.below(entry, Brick) if not each.pending
    ]
    return document


def volumes(state: State, found: Iterable[Volume]) -> list[dict[str, Any]]:
    """Many of them."""
    return [volume(state, each) for each in found]


def hosts(state: State, entry: Volume) -> list[str]:
    """The addresses a volume can be mounted from: all nodes of its cluster, bricks' nodes first."""
    own = state.find(Cluster, entry.cluster)
    if own is None:
        return []
    nodes = state.below(own, Node)
    usable = [each.storage for each in nodes if each.state == "online"]
    return usable + [each.storage for each in nodes if each.state != "online"]


def _mount(state: State, entry: Volume) -> dict[str, Any]:
    found = hosts(state, entry)
    first = found[0] if found else ""
    return {
        "glusterfs": {
            "hosts": found,
            "device": f"{first}:{entry.name}",
            "options": {"backup-volfile-servers": ",".join(found[1:])},
        }
    }


def _block_info(state: State, entry: Volume) -> dict[str, Any]:
    if not entry.block:
        return {}
    inside = state.below(entry, BlockVolume)
    taken = sum(int(each.info.get("size") or 0) for each in inside)
    reserved = entry.size - entry.size * 98 // 100
    found: dict[str, Any] = {
        "freesize": entry.size - reserved - taken,
        "reservedsize": reserved,
        "blockvolume": [each.id for each in inside],
        "restriction": entry.restriction,
    }
    return {key: value for key, value in found.items() if value}


def block_volume(entry: BlockVolume) -> dict[str, Any]:
    """GET /blockvolumes/{id}."""
    return {
        **entry.info,
        "id": entry.id,
        "cluster": entry.cluster,
        "blockhostingvolume": entry.hosting,
    }
