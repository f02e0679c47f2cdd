"""The JSON that clients read: keys, their order and which are left out, as Heketi's Go types have.

Answers are compact with a newline at the end; `<`, `>` and `&` are written as Go writes them. An id
that leads nowhere is left out of a list or shown with what is known: it never breaks an answer.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
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


def node(
    state: State, entry: Node, bricks: Mapping[str, msgspec.Raw] | None = None
) -> dict[str, Any]:
    """GET /nodes/{id}; `bricks` are documents that were written already."""
    document: dict[str, Any] = {
        "zone": entry.zone,
        "hostnames": {
            "manage": [entry.manage, *entry.more_manage],
            "storage": [entry.storage, *entry.more_storage],
        },
        "cluster": entry.cluster,
    }
    if entry.tags:
        document["tags"] = dict(sorted(entry.tags.items()))
    document["id"] = entry.id
    document["state"] = entry.state
    found = [each for each in state.below(entry, Device) if not each.pending]
    document["devices"] = [device(state, each, bricks) for each in found]
    return document


def device(
    state: State, entry: Device, bricks: Mapping[str, msgspec.Raw] | None = None
) -> dict[str, Any]:
    """GET /devices/{id}; see `node`."""
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
    if bricks is not None:
        document["bricks"] = _chosen(state, entry, bricks)
    else:
        document["bricks"] = _bricks(state, entry)
    return document


def _bricks(state: State, owner: Volume | Device) -> list[dict[str, Any]]:
    return [brick(state, each) for each in state.below(owner, Brick) if not each.pending]


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
    return _volume(state, entry, hosts(state, entry), _bricks(state, entry))


def _volume(
    state: State, entry: Volume, addresses: Sequence[str], bricks: Sequence[Any]
) -> dict[str, Any]:
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
    document["mount"] = _mount(entry, addresses)
    document["blockinfo"] = _block_info(state, entry)
    document["bricks"] = bricks
    return document


def topology(state: State) -> dict[str, Any]:
    """GET /topology. Every brick is in it twice, so it is written once and used twice."""
    bricks = {
        each.id: msgspec.Raw(msgspec.json.encode(brick(state, each)))
        for each in state.all(Brick)
        if not each.pending
    }
    return {"clusters": [_whole(state, each, bricks) for each in state.all(Cluster)]}


def _whole(state: State, entry: Cluster, bricks: Mapping[str, msgspec.Raw]) -> dict[str, Any]:
    nodes = state.below(entry, Node)
    hosts = _hosts(nodes)
    return {
        "volumes": [
            _volume(state, each, hosts, _chosen(state, each, bricks))
            for each in state.below(entry, Volume)
            if not each.pending
        ],
        "nodes": [node(state, each, bricks) for each in nodes],
        "id": entry.id,
        "block": entry.block,
        "file": entry.file,
    }


def _chosen(
    state: State, owner: Volume | Device, bricks: Mapping[str, msgspec.Raw]
) -> list[msgspec.Raw]:
    return [bricks[key] for key in state.ids_below(owner, Brick) if key in bricks]


def hosts(state: State, entry: Volume) -> list[str]:
    """The addresses a volume can be mounted from: all nodes of its cluster, bricks' nodes first."""
    own = state.find(Cluster, entry.cluster)
    if own is None:
        return []
    return _hosts(state.below(own, Node))


def _hosts(nodes: Iterable[Node]) -> list[str]:
    usable = [each.storage for each in nodes if each.state == "online"]
    return usable + [each.storage for each in nodes if each.state != "online"]


def _mount(entry: Volume, found: Sequence[str]) -> dict[str, Any]:
    first = found[0] if found else ""
    return {
        "glusterfs": {
            "hosts": list(found),
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
