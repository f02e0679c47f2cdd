"""Clears attachments that somebody began and never finished.

A Nova or a Holdfast that is killed between two steps leaves a volume `reserved`
or `attaching` that nobody has: it can be neither attached nor deleted. What was
begun is taken back after it had time to get finished, and only if Nova, asked
for each server it was begun for, does not know of it.

Older Novas begin without a record; then the state itself is taken back.
"""

from __future__ import annotations

from holdfast.backends import errors
from holdfast.backends.cinder import servers
from holdfast.backends.cinder.clouds import Cloud
from holdfast.backends.cinder.records import Record

VERSION = "3.27"
# A volume in these states is nobody's yet.
BEGUN = frozenset({"reserved", "attaching"})
_UNFINISHED = frozenset({"reserved", "attaching", "detached", "error_attaching"})


async def clear(cloud: Cloud, volume: str, *, hosts: bool = False) -> bool:
    """Take back what was begun with the volume; False when there was nothing to take back.

    With `hosts` also what is being connected to a machine that is no server; else such a machine
    is somebody else's, and may be slow. Raises errors.Conflict while anybody is at it.
    """
    answer = await cloud.request(
        "block_storage", "GET", "/attachments", query={"volume_id": volume}, version=VERSION
    )
    found = [each for each in answer["attachments"] if each["status"] in _UNFINISHED]
    for each in found:
        await _clear_one(cloud, each, hosts)
    if answer["attachments"]:
        return bool(found)
    await cloud.request("block_storage", "POST", f"/volumes/{volume}/action", {"os-unreserve": {}})
    return False


async def drop(cloud: Cloud, attachment: str) -> None:
    """Remove one of Cinder's attachments. One that is gone is a success."""
    try:
        await cloud.request(
            "block_storage", "DELETE", f"/attachments/{attachment}", version=VERSION
        )
    except errors.NotFound:
        return


async def _clear_one(cloud: Cloud, attachment: Record, hosts: bool) -> None:
    server = str(attachment.get("instance") or "")
    volume = attachment["volume_id"]
    if server and await servers.disk(cloud, server, volume) is not None:
        raise errors.Conflict(
            f"volume {volume} is being attached to server {server}",
            f"Nova of {cloud.instance.where}",
            "it follows when it is detached there",
        )
    if not server and not hosts and attachment["status"] == "attaching":
        raise errors.Conflict(
            f"volume {volume} is being attached to a machine that is no server of Nova",
            f"Cinder of {cloud.instance.where}",
            f"once nobody connects it: openstack --os-volume-api-version 3.27 volume attachment "
            f"delete {attachment['id']}",
        )
    await drop(cloud, str(attachment["id"]))
