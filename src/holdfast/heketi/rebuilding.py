"""A lost database, filled again from the cluster itself; and a comparison of the two.

Everything needed is there: GlusterFS knows volumes, options and the order of bricks, every volume
carries its id as an option, and disks carry the ids of devices and bricks in their names. Nodes
get new ids. One address per node must be given, because glusterd knows only the storage side.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
from msgspec.structs import replace

from holdfast.heketi import entries, errors, importing, interchange
from holdfast.heketi.entries import (
    ARBITER,
    GIB,
    NORMAL,
    Brick,
    Cluster,
    Device,
    Durability,
    Node,
    Volume,
)
from holdfast.heketi.executors.gluster import ID_OPTION
from holdfast.heketi.executors.protocol import BrickFacts, Disk, VolumeFacts
from holdfast.heketi.service import Service
from holdfast.heketi.state import State
from holdfast.heketi.work import specs

_OURS = ("user.heketi.",)


class NodeToAsk(msgspec.Struct):
    """A node of the cluster: where commands run, where bricks are served, its zone."""

    manage: str
    storage: str = ""
    zone: int = 1


class RebuildBody(msgspec.Struct):
    """POST /db/rebuild."""

    nodes: list[NodeToAsk] = []


async def rebuild(service: Service, body: RebuildBody) -> dict[str, Any]:
    """Read the nodes and put what is there; the report names what could not be placed."""
    if not body.nodes:
        raise errors.Invalid("validation failed: nodes: cannot be blank.")
    importing.check_empty(service.state)
    cluster = Cluster(id=entries.new_id())
    nodes = {
        (each.storage or each.manage): Node(
            id=entries.new_id(),
            cluster=cluster.id,
            zone=each.zone,
            manage=each.manage,
            storage=each.storage or each.manage,
        )
        for each in body.nodes
    }
    volumes = await service.executor.list_volumes(body.nodes[0].manage)
    devices, facts, free = await _disks(service, nodes)
    builder = _Builder(cluster, nodes, facts)
    for volume in volumes:
        builder.volume(volume)
    devices = [replace(each, foreign=builder.foreign(each, free[each.id])) for each in devices]
    importing.check_empty(service.state)
    with service.state.transaction() as transaction:
        transaction.put(cluster, *nodes.values(), *devices, *builder.volumes, *builder.bricks)
    return {
        "cluster": cluster.id,
        "nodes": len(nodes),
        "devices": len(devices),
        "volumes": len(builder.volumes),
        "bricks": len(builder.bricks),
        "left_out": builder.left_out,
    }


async def _disks(
    service: Service, nodes: Mapping[str, Node]
) -> tuple[list[Device], dict[tuple[str, str], BrickFacts], dict[str, int]]:
    """Devices with bricks of ours, the bricks by storage address and path, what is free."""
    devices: list[Device] = []
    free: dict[str, int] = {}
    facts: dict[tuple[str, str], BrickFacts] = {}
    for address, node in nodes.items():
        found = await service.executor.find_bricks(node.manage, None)
        for text in sorted({brick.disk for brick in found}):
            key, _, name = text.partition(" ")
            here = await service.executor.measure_disk(node.manage, Disk(key, name))
            free[key] = here.free
            devices.append(
                Device(
                    id=key,
                    node=node.id,
                    name=name,
                    total=here.total,
                    extent=here.extent,
                    uuid=here.uuid,
                    paths=list(here.paths),
                )
            )
        for brick in found:
            facts[address, brick.path] = brick
    return devices, facts, free


class _Builder:
    def __init__(
        self,
        cluster: Cluster,
        nodes: Mapping[str, Node],
        facts: Mapping[tuple[str, str], BrickFacts],
    ) -> None:
        self._cluster = cluster
        self._nodes = nodes
        self._facts = facts
        self.volumes: list[Volume] = []
        self.bricks: list[Brick] = []
        self.left_out: list[str] = []

    def volume(self, there: VolumeFacts) -> None:
        found = []
        for address in there.bricks:
            host, _, path = address.partition(":")
            brick = self._facts.get((host, path))
            if brick is None:
                self.left_out.append(f"volume {there.name}: its brick {address} was not found")
                return
            found.append((address, path, brick))
        key = there.options.get(ID_OPTION) or entries.new_id()
        kind = self._durability(there)
        data = [brick for address, _, brick in found if address not in there.arbiters]
        # Sets that came with an expansion have bricks of another size.
        sets = [found[at : at + there.set_size] for at in range(0, len(found), there.set_size)]
        parts = sum(max(brick.size for _, _, brick in each) for each in sets) * kind.parts
        size = max(1, round(parts / GIB))
        pools = [brick.pool_size / brick.size for brick in data]
        self.volumes.append(
            Volume(
                id=key,
                name=there.name,
                cluster=self._cluster.id,
                size=size,
                durability=kind,
                gid=max(brick.gid for brick in data),
                options=_options(there.options),
                snapshot=max(pools) > 1.01,
                factor=round(max(pools), 2),
            )
        )
        self.bricks += [
            self._brick(key, index, brick, path, address in there.arbiters)
            for index, (address, path, brick) in enumerate(found)
        ]

    def foreign(self, device: Device, free: int) -> int:
        """What of a device is taken by something that is in no volume: it stays taken."""
        ours = sum(brick.space for brick in self.bricks if brick.device == device.id)
        return max(0, device.total - free - ours) if free >= 0 else 0

    def _brick(self, volume: str, index: int, brick: BrickFacts, path: str, arbiter: bool) -> Brick:
        return Brick(
            id=brick.id,
            device=brick.disk.partition(" ")[0],
            volume=volume,
            size=brick.size,
            pool_size=brick.pool_size,
            pool_metadata=brick.pool_metadata,
            position=index,
            path=path,
            kind=ARBITER if arbiter else NORMAL,
            pool="" if brick.pool == f"tp_{brick.id}" else brick.pool,
            lv="" if brick.lv == f"brick_{brick.id}" else brick.lv,
        )

    def _durability(self, there: VolumeFacts) -> Durability:
        if there.type == "replicate":
            return Durability(type="replicate", replica=there.replica)
        if there.type == "disperse":
            data = there.set_size - there.redundancy
            return Durability(type="disperse", data=data, redundancy=there.redundancy)
        return Durability()


# What glusterd sets on its own when a volume is made.
_DEFAULTS = (
    "transport.address-family",
    "storage.fips-mode-rchecksum",
    "nfs.disable",
    "performance.client-io-threads",
    "cluster.granular-entry-heal",
)


def _options(found: Mapping[str, str]) -> list[str]:
    return [
        f"{key} {value}"
        for key, value in sorted(found.items())
        if key != ID_OPTION and key not in _DEFAULTS
    ]


async def examine(service: Service) -> dict[str, Any]:
    """Compare the database with what GlusterFS and the nodes have."""
    state = service.state
    report: list[str] = []
    clusters = []
    for cluster in state.all(Cluster):
        nodes = state.below(cluster, Node)
        if not nodes or not service.executor.real:
            clusters.append({"clusterheketiid": cluster.id, "volumes": []})
            continue
        try:
            there = await service.engine.on_any(cluster.id, service.executor.list_volumes)
        except errors.ExecutionFailed as error:
            report.append(f"cluster {cluster.id} cannot be asked: {error}")
            continue
        report += _differences(state, cluster, there)
        report += await _orphans(service, nodes)
        names = [volume.name for volume in there]
        clusters.append({"clusterheketiid": cluster.id, "volumes": names})
    return {"heketidb": interchange.dump(state), "report": report, "clusters": clusters}


def _differences(state: State, cluster: Cluster, there: Sequence[VolumeFacts]) -> list[str]:
    ours = {each.name: each for each in state.below(cluster, Volume) if not each.pending}
    theirs = {each.name: each for each in there}
    report = [
        f"volume {name} is in the database and not in gluster"
        for name in ours
        if name not in theirs
    ]
    for name, facts in theirs.items():
        volume = ours.get(name)
        if volume is None:
            report.append(f"volume {name} is in gluster and not in the database")
            continue
        mine = {specs.address(state, brick) for brick in state.bricks_of(volume)}
        for brick in sorted(mine ^ set(facts.bricks)):
            where = "the database" if brick in mine else "gluster"
            report.append(f"volume {name}: brick {brick} is only in {where}")
    return report


async def _orphans(service: Service, nodes: Sequence[Node]) -> list[str]:
    report = []
    for node in nodes:
        try:
            found = await service.executor.find_bricks(node.manage, None)
        except errors.ExecutionFailed as error:
            report.append(f"node {node.id} cannot be asked: {error}")
            continue
        report += [
            f"brick {brick.id} on node {node.id} is not in the database"
            for brick in found
            if service.state.find(Brick, brick.id) is None
        ]
    return report
