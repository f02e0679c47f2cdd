"""topology.json from words: `NAME[=ADDRESS][@ZONE]:DEVICE[,DEVICE...]`, one for each node.

NAME is what the node is managed by (its Kubernetes node name, or a host for ssh), ADDRESS where it
serves bricks.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Sequence
from dataclasses import dataclass

from holdfast.backends import errors

_NODE = re.compile(
    r"(?P<name>[A-Za-z0-9.-]+)(=(?P<address>[A-Za-z0-9.-]+|\[[0-9A-Fa-f:]+\]))?(@(?P<zone>\d+))?"
    r":(?P<devices>/.+)"
)
_DEVICE = re.compile(r"/[a-zA-Z0-9_.:/-]+")


@dataclass(frozen=True, slots=True)
class NodeWords:
    """One node as it was given."""

    name: str
    address: str
    zone: int
    devices: tuple[str, ...]


def parse(words: Sequence[str]) -> list[NodeWords]:
    """Read all nodes. Raises errors.Invalid that names the one that is wrong."""
    found = [_node(text) for text in words]
    for key, what in (("name", "node"), ("address", "address")):
        values = [getattr(each, key) for each in found]
        twice = next((value for value in values if values.count(value) > 1), None)
        if twice is not None:
            raise errors.Invalid(f"{what} {twice} is given twice", "--node")
    return found


def _node(text: str) -> NodeWords:
    match = _NODE.fullmatch(text)
    if match is None:
        raise errors.Invalid(
            f'"{text}" is no node', "--node", "write NAME[=ADDRESS][@ZONE]:/dev/sdb[,/dev/sdc]"
        )
    devices = tuple(match["devices"].split(","))
    for device in devices:
        if not _DEVICE.fullmatch(device) or "/../" in f"{device}/":
            raise errors.Invalid(f'"{device}" is no path of a device', f"--node {text}")
    if len(set(devices)) < len(devices):
        raise errors.Invalid("a device is given twice", f"--node {text}")
    address = (match["address"] or match["name"]).strip("[]")
    zone = int(match["zone"] or 1)
    if zone < 1:
        raise errors.Invalid("zones count from 1", f"--node {text}")
    return NodeWords(match["name"], address, zone, devices)


def document(nodes: Sequence[NodeWords]) -> dict[str, object]:
    """Return what `heketi-cli topology load` reads."""
    listed = [
        {
            "node": {
                "hostnames": {"manage": [each.name], "storage": [each.address]},
                "zone": each.zone,
            },
            "devices": list(each.devices),
        }
        for each in nodes
    ]
    return {"clusters": [{"nodes": listed}]}


def warnings(nodes: Sequence[NodeWords]) -> list[str]:
    """Return what will be missed later."""
    found = []
    if len(nodes) < 3:
        found.append(f"{len(nodes)} nodes: classes make three replicas unless they say otherwise")
    named = [each.address for each in nodes if not _is_address(each.address)]
    if named:
        found.append(f"{', '.join(named)}: give ADDRESS as an IP address, or Endpoints go stale")
    return found


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True
