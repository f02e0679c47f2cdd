"""Writes Cinder's record of an attachment anew when only Nova has one left.

That is what `openstack volume set --state available --detached` leaves of a
volume in use: Nova still gives the server its disk and cannot take it away, as
Cinder says that there is nothing to detach; and the storage still exports the
volume, so Cinder cannot delete it. The record is made again, for the same
server, and both then let go in the usual order.

It is done only while Cinder says that nobody has the volume. What Nova says is
thereby made true once more, so nothing is taken from a server that writes.
"""

from __future__ import annotations

from holdfast.backends import errors
from holdfast.backends.cinder.clouds import Cloud
from holdfast.backends.cinder.records import Record

_VERSION = "3.54"
# What a call of this module leaves that ended between its two steps.
_BEGUN = frozenset({"reserved", "attaching", "error_attaching"})


async def restore(cloud: Cloud, found: Record, server: Record, device: str) -> bool:
    """Make the attachment of the volume to the server; False where that is not safe or refused."""
    if found.get("attachments") or found["status"] not in ("available", *_BEGUN):
        return False
    if not await _only_begun_here(cloud, found["id"], server["id"]):
        return False
    connector = {
        "host": server.get("OS-EXT-SRV-ATTR:host") or server.get("hostId") or server["id"],
        "mountpoint": device,
        "multipath": False,
        "os_type": "linux",
        "do_local_attach": False,
    }
    asked = {"volume_uuid": found["id"], "instance_uuid": server["id"], "connector": connector}
    try:
        made = await _ask(cloud, "POST", "/attachments", {"attachment": asked})
    except errors.BackendError:
        # Storage that wants to know the host's initiator cannot be told it from here.
        await _only_begun_here(cloud, found["id"], server["id"])
        return False
    id = made["attachment"]["id"]
    await _ask(cloud, "POST", f"/attachments/{id}/action", {"os-complete": {}})
    return True


async def _only_begun_here(cloud: Cloud, volume: str, server: str) -> bool:
    """Remove what was begun for the server; return whether nobody has anything of the volume."""
    answer = await cloud.request(
        "block_storage", "GET", "/attachments", query={"volume_id": volume}, version=_VERSION
    )
    for each in answer["attachments"]:
        if each.get("instance") != server or each["status"] not in _BEGUN:
            return False
        await _ask(cloud, "DELETE", f"/attachments/{each['id']}")
    return True


async def _ask(cloud: Cloud, method: str, path: str, body: Record | None = None) -> Record:
    answer: Record = await cloud.request("block_storage", method, path, body, version=_VERSION)
    return answer
