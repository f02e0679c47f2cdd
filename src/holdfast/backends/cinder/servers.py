"""What Nova says of a server: its disks, and whether it can still write to them.

Only two answers allow a volume to be taken from a server by force: it is gone,
or it is off - shut down, shelved, or on a compute host that an operator has
declared dead (forced down) after making sure of it. `ACTIVE` on a host that
does not answer is neither: the host may have lost its network only, and the
server may be writing at this moment. Nor is a server that Nova does not know:
another project's is not shown either, so what counts is that this project had
one of this id, which Nova remembers by what was done to it.

Who may see what: states are for everybody, the state of the compute host is
for administrators by Nova's default policy.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from holdfast.backends import errors
from holdfast.backends.cinder.clouds import Cloud, is_uuid
from holdfast.backends.protocol import NodeState

Record = Mapping[str, Any]

# From 2.16 on the state of the host is part of the server.
_VERSION = "2.16"
_OFF = frozenset({"SHUTOFF", "SHELVED", "SHELVED_OFFLOADED", "SOFT_DELETED"})
# From 2.21 on what was done to a deleted server is told, too.
_MEMORY = "2.21"
_ENDS = frozenset({"delete", "forceDelete"})
EVACUATE = (
    "make sure that the host is off, then let an administrator evacuate the server "
    "(openstack server evacuate) or delete it"
)


async def get(cloud: Cloud, server: str) -> Record:
    """Return Nova's record of a server. Raises errors.NotFound."""
    if not is_uuid(server):
        raise errors.NotFound(
            f'node id "{server}" is no server of Nova',
            f"Nova of {cloud.instance.where}",
            "the node registers with its server's uuid; run `holdfast check openstack` on it",
        )
    answer = await cloud.request("compute", "GET", f"/servers/{server}", version=_VERSION)
    found: Record = answer["server"]
    return found


async def disks(cloud: Cloud, server: str) -> list[Record]:
    """Return the volumes Nova has attached to a server. Raises errors.NotFound."""
    answer = await cloud.request("compute", "GET", f"/servers/{server}/os-volume_attachments")
    found: list[Record] = answer["volumeAttachments"]
    return found


async def disk(cloud: Cloud, server: str, volume: str) -> Record | None:
    """Return Nova's attachment of a volume to a server, None without one or without the server."""
    try:
        found = await disks(cloud, server)
    except errors.NotFound:
        return None
    return next((each for each in found if each["volumeId"] == volume), None)


async def state(cloud: Cloud, server: str) -> NodeState:
    """Return whether a server can still write, and how that is known."""
    if not is_uuid(server):
        return NodeState("unknown", f'node id "{server}" is no server of Nova')
    try:
        found = await get(cloud, server)
    except errors.NotFound:
        return await _gone(cloud, server)
    status, task = str(found["status"]), found.get("OS-EXT-STS:task_state")
    named = f'server "{found["name"]}" ({server})'
    if status == "DELETED":
        return NodeState("gone", f"{named} is deleted")
    if host := await down_host(cloud, found):
        if host.forced:
            return NodeState("stopped", f"{named}: its compute host {host} is forced down")
        if status not in _OFF:
            return NodeState(
                "unknown",
                f"{named} may still be running: its compute host {host} does not answer, "
                f"and Nova's last word is {status}; {EVACUATE}",
            )
    if status in _OFF and not task:
        return NodeState("stopped", f"{named} is {status}")
    if task:
        return NodeState("running", f"{named} is {status}, and Nova is busy with it ({task})")
    if status in ("ERROR", "UNKNOWN") and found.get("OS-EXT-STS:power_state") != 1:
        return NodeState("unknown", f"{named} is {status}: nobody knows whether it runs")
    return NodeState("running", f"{named} is {status}")


async def _gone(cloud: Cloud, server: str) -> NodeState:
    """Tell a server that is deleted from one that these credentials may not see."""
    try:
        answer = await cloud.request(
            "compute", "GET", f"/servers/{server}/os-instance-actions", version=_MEMORY
        )
        done = {str(each["action"]) for each in answer["instanceActions"]}
    except (errors.NotFound, errors.Unauthorized):
        done = set()
    if done & _ENDS:
        return NodeState("gone", f"Nova has deleted server {server}")
    return NodeState(
        "unknown",
        f"Nova of {cloud.instance.where} has no server {server} and remembers none: it was deleted "
        "long ago, or is in another project or cloud and may still be running",
    )


class Host(str):
    """A compute host that is down; `forced` when an operator said so."""

    forced: bool = False


async def down_host(cloud: Cloud, server: Record) -> Host | None:
    """Return the server's compute host when it is known to be down.

    None also where these credentials may not see it.
    """
    name = server.get("OS-EXT-SRV-ATTR:host")
    if not name or server.get("host_status") not in ("DOWN", "UNKNOWN"):
        return None
    host = Host(name)
    try:
        answer = await cloud.request(
            "compute",
            "GET",
            "/os-services",
            query={"host": str(name), "binary": "nova-compute"},
            version=_VERSION,
        )
    except errors.Unauthorized:
        return host
    host.forced = any(each.get("forced_down") for each in answer["services"])
    return host
