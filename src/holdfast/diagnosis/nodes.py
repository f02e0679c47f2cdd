"""Checks of Nodes against the machines behind them: which are nobody's, and which are misnamed.

A kubelet that is started with another name registers a second Node and leaves the first behind,
NotReady for ever. Software that looks machines up by the node's name then finds none, and fails
for all nodes at once: in-tree vSphere says "No VM found". So a lost node is compared with the
machines the storage system knows and with the nodes that are well.

Invariant: a node is called left behind only when no machine answers to it, or another node that is
Ready is surely the same machine.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from holdfast.api import kinds, views
from holdfast.backends import errors, registry
from holdfast.backends.protocol import Backend, Finding, MachineNamer, NodeObserver
from holdfast.controllers import attachments
from holdfast.runtime.client import Client, Object

_CHECK = "node"
_OVERRIDE = "kubelet's --hostname-override gives such nodes and, changed, leaves them behind"


async def check(client: Client, kind: str, backend: Backend) -> list[Finding]:
    """Test all nodes, where the storage system knows the machines by name."""
    if not isinstance(backend, MachineNamer):
        return []
    nodes = (await client.list(kinds.NODE)).items
    drivers = {name for name, found in registry.DRIVERS.items() if found == kind} | {kind}
    ids = {
        obj["metadata"]["name"]: attachments.node_id(obj, drivers)
        for obj in (await client.list(kinds.CSI_NODE)).items
    }
    found: list[Finding] = []
    for obj in nodes:
        try:
            found += await _node(obj, nodes, ids, backend)
        except errors.BackendError as error:
            where = f"node {obj['metadata']['name']}"
            found.append(Finding(_CHECK, "warning", error.what, where, error.remedy))
    return found


async def _node(
    obj: Object, nodes: Sequence[Object], ids: Mapping[str, str], backend: MachineNamer
) -> list[Finding]:
    node = views.node(obj)
    name = node.metadata.name
    id = ids.get(name) or node.spec.provider_id
    if not node.ready:
        return await _lost(obj, _twin(obj, nodes, ids), id, backend)
    if not id:
        # Not every machine of a cluster has to be one of this storage system's.
        return []
    names = await backend.machine_names(id)
    if not names:
        what = f"no machine answers to its id {id}, so no disk can be attached to it"
        remedy = "compare the node's providerID with the UUID in the VM's firmware"
        return [Finding(_CHECK, "error", what, f"node {name}", remedy)]
    if any(_first(name) == _first(each) for each in names):
        return [Finding(_CHECK, "ok", f"its machine is {names[0]}", f"node {name}")]
    what = f"its machine is called {' and '.join(names)}; what finds machines by name does not"
    remedy = "start the kubelet without --hostname-override, or rename the VM like the node"
    return [Finding(_CHECK, "warning", what, f"node {name}", remedy)]


async def _lost(obj: Object, twin: str, id: str, backend: MachineNamer) -> list[Finding]:
    name = obj["metadata"]["name"]
    where, remedy = f"node {name}", f"kubectl delete node {name}"
    if twin:
        what = f"it is NotReady, and its machine is node {twin} now; {_OVERRIDE}"
        return [Finding(_CHECK, "error", what, where, remedy)]
    known = id or _firmware(obj)
    names = await backend.machine_names(known) if known else ()
    if not names and not id:
        names = await backend.machine_names(name)
        known = name
    if not names:
        what = f"it is NotReady, and no machine answers to {known}; {_OVERRIDE}"
        return [Finding(_CHECK, "error", what, where, remedy)]
    said = f"machine {names[0]}"
    if isinstance(backend, NodeObserver):
        state = await backend.node_state(known)
        said = state.detail or said
    return [
        Finding(_CHECK, "warning", f"it is NotReady; {said}", where, "look at its kubelet's log")
    ]


def _twin(obj: Object, nodes: Sequence[Object], ids: Mapping[str, str]) -> str:
    """Return the Ready node that is the same machine; empty when none surely is."""
    name, own = obj["metadata"]["name"], _marks(obj)
    for other in nodes:
        others = other["metadata"]["name"]
        if others == name or not views.node(other).ready:
            continue
        mine, its = ids.get(name), ids.get(others)
        if mine and its:
            if mine == its:
                return str(others)
            continue
        if own & _marks(other):
            return str(others)
    return ""


def _marks(obj: Object) -> set[tuple[str, str]]:
    """What only one machine has: its firmware's UUID and its address."""
    found = {
        ("address", str(each.get("address", "")))
        for each in views.node(obj).status.addresses
        if each.get("type") == "InternalIP"
    }
    found.add(("uuid", _firmware(obj).lower()))
    return {(what, value) for what, value in found if value}


def _firmware(obj: Mapping[str, Any]) -> str:
    info = (obj.get("status") or {}).get("nodeInfo") or {}
    return str(info.get("systemUUID") or "")


def _first(name: str) -> str:
    return name.lower().split(".")[0]
