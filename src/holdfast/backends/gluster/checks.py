"""Checks of a Heketi service and of the clusters behind it, for `holdfast check gluster`.

The service is asked for what it knows: nodes, devices, room, work that failed. Whether bricks are
up and files are healed only GlusterFS knows, see `health`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from holdfast.backends import errors
from holdfast.backends.gluster import documents, health
from holdfast.backends.gluster.documents import GIB, KIB, Device, Node
from holdfast.backends.gluster.rest import Credentials, Service
from holdfast.backends.protocol import Finding

# Below this part of its room a cluster is nearly full.
_NEARLY_FULL = 0.1


@dataclass(frozen=True, slots=True)
class ClusterState:
    """A cluster, its nodes and volumes as the service knows them."""

    id: str
    nodes: Sequence[Node]
    volumes: Sequence[str]

    def usable_devices(self) -> list[Device]:
        """Return the devices on which bricks may be made."""
        return [
            device
            for node in self.nodes
            if node.state == "online"
            for device in node.devices or ()
            if device.state == "online"
        ]


async def read_clusters(
    service: Service, who: Credentials, wanted: Sequence[str] = ()
) -> list[ClusterState]:
    """Read clusters with their nodes. Raises BackendError."""
    keys = list(wanted)
    if not keys:
        keys = (await service.get("/clusters", documents.ClusterList, who)).clusters or []
    found = []
    for key in keys:
        cluster = await service.get(f"/clusters/{key}", documents.Cluster, who)
        nodes = [await service.get(f"/nodes/{node}", Node, who) for node in cluster.nodes or ()]
        found.append(ClusterState(cluster.id, nodes, cluster.volumes or ()))
    return found


async def of_service(
    service: Service,
    who: Credentials,
    where: str,
    clusters: Sequence[str] = (),
    *,
    exposed: bool = False,
) -> list[Finding]:
    """Test a service from its address down to its bricks; nothing is changed."""
    place = where or service.url
    found: list[Finding] = []
    try:
        said = await service.hello()
        found.append(Finding("service", "ok", f"{service.url} answers: {said[:60]}", place))
        states = await read_clusters(service, who, clusters)
    except errors.BackendError as error:
        return [*found, Finding("service", "error", error.what, place, error.remedy)]
    if exposed:
        found.append(_exposed(place))
    if not states:
        remedy = "heketi-cli topology load --json=topology.json (holdfast prepare gluster topology)"
        found.append(Finding("clusters", "error", "there is no cluster", place, remedy))
    for state in states:
        found += _of_cluster(state)
        found += await health.of_cluster(state.nodes)
    return [*found, *await _operations(service, who, place)]


def _exposed(place: str) -> Finding:
    what = "restuserkey: everyone who may read classes can read the key"
    return Finding("key", "warning", what, place, "use secretNamespace and secretName")


def _of_cluster(state: ClusterState) -> list[Finding]:
    where = f"cluster {state.id}"
    found = []
    for node in state.nodes:
        if node.state != "online":
            remedy = f"heketi-cli node enable {node.id}, when it is well"
            found.append(Finding("node", "warning", f"{node.label} is {node.state}", where, remedy))
        for device in node.devices or ():
            if device.state != "online":
                what = f"{device.name} of {node.label} is {device.state}: nothing is put on it"
                remedy = f"heketi-cli device enable {device.id}, or device remove"
                found.append(Finding("device", "warning", what, where, remedy))
    return [*found, _room(state, where)]


def _room(state: ClusterState, where: str) -> Finding:
    devices = state.usable_devices()
    total = sum(device.storage.total for device in devices)
    free = sum(device.storage.free for device in devices)
    online = sum(node.state == "online" for node in state.nodes)
    what = (
        f"{online} of {len(state.nodes)} nodes and {len(devices)} devices usable, "
        f"{len(state.volumes)} volumes, {free * KIB // GIB} of {total * KIB // GIB} GiB free"
    )
    if online < 3:
        remedy = "replicate:3 needs three nodes: heketi-cli node add"
        return Finding("cluster", "warning", what, where, remedy)
    if free < total * _NEARLY_FULL:
        return Finding("cluster", "warning", what, where, "heketi-cli device add")
    return Finding("cluster", "ok", what, where)


async def _operations(service: Service, who: Credentials, place: str) -> list[Finding]:
    try:
        listed = await service.get("/operations/pending", documents.OperationList, who)
    except errors.NotFound:
        return []  # a Heketi before version 8
    except errors.BackendError as error:
        return [Finding("operations", "error", error.what, place, error.remedy)]
    stuck = [each for each in listed.pendingoperations or () if each.status]
    if not stuck:
        return []
    kinds = ", ".join(sorted({each.type_name for each in stuck}))
    what = f"{len(stuck)} operations ended in the middle ({kinds}) and hold room"
    remedy = "heketi-cli server operations list, then cleanup"
    return [Finding("operations", "warning", what, place, remedy)]
