"""Taking over a database of Heketi from its JSON dump.

What belonged to an unfinished operation there is left out and named in the report: whether it
exists on the nodes only the nodes can tell (`server state examine gluster`). An entry that leads
nowhere is left out too, instead of coming along and breaking things here. All or nothing is
imported, and only into an empty database.
"""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec.structs import replace

from holdfast.heketi import errors, interchange
from holdfast.heketi.entries import (
    NORMAL,
    BlockVolume,
    Brick,
    Cluster,
    Device,
    Durability,
    Entry,
    Node,
    Volume,
)
from holdfast.heketi.state import State


def load(state: State, document: dict[str, Any]) -> dict[str, Any]:
    """Import a dump; what was taken and what was left out, by kind."""
    check_empty(state)
    reader = _Reader(document)
    try:
        found = reader.read()
    except (KeyError, TypeError, AttributeError, ValueError, msgspec.ValidationError) as error:
        raise errors.Invalid(
            f"this is not a dump of a Heketi database ({type(error).__name__}: {error}); "
            "make one with `heketi-cli db dump` or `heketi db export`"
        ) from error
    with state.transaction() as transaction:
        transaction.put(*found)
    counts: dict[str, int] = {}
    for entry in found:
        name = type(entry).__name__.lower()
        counts[name] = counts.get(name, 0) + 1
    return {"imported": counts, "left_out": reader.left_out}


def check_empty(state: State) -> None:
    """Refuse a database that has something in it."""
    if state.count(Cluster) or state.count(Volume):
        raise errors.Conflict("The database is not empty; start with another glusterfs.db")


class _Reader:
    def __init__(self, document: dict[str, Any]) -> None:
        self._document = document
        # Dumps of an old Heketi have no flags, which its own upgrade takes as all of them.
        noted = (document.get("dbattributeentries") or {}).get(interchange.FLAGS) or {}
        self._has_flags = noted.get("Value") == "yes"
        self.left_out: list[str] = []

    def _items(self, name: str) -> list[tuple[str, dict[str, Any]]]:
        if "clusterentries" not in self._document:
            raise KeyError("clusterentries")
        return sorted((self._document.get(name) or {}).items())

    def read(self) -> list[Entry]:
        clusters = [self._cluster(key, each) for key, each in self._items("clusterentries")]
        known = {each.id for each in clusters}
        nodes = self._keep(
            [self._node(key, each) for key, each in self._items("nodeentries")], "cluster", known
        )
        volumes = self._keep(self._volumes(), "cluster", known)
        found = self._bricks()
        taken: dict[str, int] = {}
        for brick in found:
            taken[brick.device] = taken.get(brick.device, 0) + brick.space
        devices = [
            self._device(key, each, taken.get(key, 0)) for key, each in self._items("deviceentries")
        ]
        devices = self._keep(devices, "node", {each.id for each in nodes})
        bricks = self._keep(found, "device", {each.id for each in devices})
        bricks = self._keep(bricks, "volume", {each.id for each in volumes})
        blocks = self._keep(self._blocks(), "hosting", {each.id for each in volumes})
        return [*clusters, *nodes, *devices, *volumes, *bricks, *blocks]

    def _keep(self, found: list[Any], field: str, known: set[str]) -> list[Any]:
        for entry in found:
            if getattr(entry, field) not in known:
                name = type(entry).__name__.lower()
                self.left_out.append(f"{name} {entry.id}: its {field} is not there")
        return [entry for entry in found if getattr(entry, field) in known]

    def _pending(self, each: dict[str, Any]) -> bool:
        return bool((each.get("Pending") or {}).get("Id"))

    def _skip(self, kind: str, key: str, each: dict[str, Any]) -> bool:
        if self._pending(each):
            self.left_out.append(f"{kind} {key}: it belongs to an unfinished operation")
        return self._pending(each)

    def _cluster(self, key: str, each: dict[str, Any]) -> Cluster:
        info = each["Info"]
        if not self._has_flags:
            return Cluster(id=key)
        return Cluster(id=key, file=bool(info.get("file")), block=bool(info.get("block")))

    def _node(self, key: str, each: dict[str, Any]) -> Node:
        info = each["Info"]
        hosts = info["hostnames"]
        return msgspec.convert(
            {
                "id": key,
                "cluster": info["cluster"],
                "zone": info["zone"],
                "manage": hosts["manage"][0],
                "storage": hosts["storage"][0],
                "more_manage": hosts["manage"][1:],
                "more_storage": hosts["storage"][1:],
                "tags": info.get("tags") or {},
                "state": each.get("State") or "online",
            },
            Node,
        )

    def _device(self, key: str, each: dict[str, Any], bricks: int) -> Device:
        info = each["Info"]
        storage = info["storage"]
        return msgspec.convert(
            {
                "id": key,
                "node": each["NodeId"],
                "name": info["name"],
                "total": storage["total"],
                "foreign": max(0, storage["used"] - bricks),
                "extent": each.get("ExtentSize") or 4096,
                "tags": info.get("tags") or {},
                "state": each.get("State") or "online",
                "uuid": info.get("pv_uuid") or "",
                "paths": info.get("paths") or [],
            },
            Device,
        )

    def _volumes(self) -> list[Volume]:
        found = []
        for key, each in self._items("volumeentries"):
            if self._skip("volume", key, each):
                continue
            info = each["Info"]
            kind = info.get("durability") or {}
            replicate, disperse = kind.get("replicate") or {}, kind.get("disperse") or {}
            options = each.get("GlusterVolumeOptions") or info.get("glustervolumeoptions") or []
            snapshot = info.get("snapshot") or {}
            found.append(
                Volume(
                    id=key,
                    name=info["name"],
                    cluster=info["cluster"],
                    size=int(info["size"]),
                    durability=Durability(
                        type=kind.get("type") or "none",
                        replica=replicate.get("replica") or 0,
                        data=disperse.get("data") or 0,
                        redundancy=disperse.get("redundancy") or 0,
                    ),
                    gid=info.get("gid") or 0,
                    options=[text for text in options if text],
                    block=bool(info.get("block")),
                    snapshot=bool(snapshot.get("enable")),
                    factor=float(snapshot.get("factor") or 1.0),
                    restriction=(info.get("blockinfo") or {}).get("restriction") or "",
                )
            )
        return found

    def _bricks(self) -> list[Brick]:
        order = {
            brick: index
            for _, each in self._items("volumeentries")
            for index, brick in enumerate(each.get("Bricks") or [])
        }
        found = []
        for key, each in self._items("brickentries"):
            if self._skip("brick", key, each):
                continue
            info = each["Info"]
            pool = each.get("LvmThinPool") or ""
            found.append(
                Brick(
                    id=key,
                    device=info["device"],
                    volume=info["volume"],
                    size=info["size"],
                    pool_size=each["TpSize"],
                    pool_metadata=each["PoolMetadataSize"],
                    position=each.get("Position", order.get(key, 0)),
                    path=info["path"],
                    kind=each.get("SubType") or NORMAL,
                    pool="" if pool == f"tp_{key}" else pool,
                    lv=each.get("LvmLv") or "",
                )
            )
        return _counted_once(found)

    def _blocks(self) -> list[BlockVolume]:
        found = []
        for key, each in self._items("blockvolumeentries"):
            if self._skip("block volume", key, each):
                continue
            info = each["Info"]
            found.append(
                BlockVolume(
                    id=key, cluster=info["cluster"], hosting=info["blockhostingvolume"], info=info
                )
            )
        return found


def _counted_once(bricks: list[Brick]) -> list[Brick]:
    """Heketi notes the size of a pool at every brick in it, clones included; here one has it."""
    holders: dict[tuple[str, str], Brick] = {}
    # The brick that the pool was made for comes last and so wins, where it is still there.
    for brick in sorted(bricks, key=lambda each: (each.space > 0, not each.pool)):
        holders[brick.device, brick.pool_name] = brick
    return [
        brick
        if holders[brick.device, brick.pool_name] is brick
        else replace(brick, pool_size=0, pool_metadata=0)
        for brick in bricks
    ]
