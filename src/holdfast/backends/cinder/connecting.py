"""Attaches volumes without Nova: by Cinder's own attachment API, to a host by name.

For machines that are no servers of Nova but can reach the storage. The node is
known by its host name and, where it has os-brick, by what storage must know of
it; Cinder exports the volume to it and says how to connect. That may hold a
password (iSCSI with CHAP), so it does not go to the node in the open: the node
is told the attachment, and asks Cinder for the connection with its own login.

A member of a project is not shown whom an attachment is for. The mount point,
which Cinder keeps and shows, says it: `/dev/holdfast/NODE`.
"""

from __future__ import annotations

import platform
from collections.abc import Mapping

from holdfast.backends import errors
from holdfast.backends.cinder import attaching, brick, records, reservations
from holdfast.backends.cinder.clouds import Cloud
from holdfast.backends.cinder.polling import Poller
from holdfast.backends.cinder.records import Record

_VERSION = "3.54"
# A block device that is on the machine already: the one type that needs no library.
LOCAL = "local"


class CinderAttaching:
    """Attaching in one cloud without Nova."""

    def __init__(self, cloud: Cloud, poller: Poller) -> None:
        self._cloud = cloud
        self._poller = poller
        self._where = f"Cinder of {cloud.instance.where}"

    async def attach(self, id: str, node: str) -> Mapping[str, str]:
        """Attach the volume to the host. Raises Conflict, Unsupported, Unavailable."""
        found = await attaching.volume(self._cloud, id)
        mine = records.attachment_to(found, node)
        if not mine:
            self._refuse_elsewhere(found)
            if found["status"] in reservations.BEGUN:
                await self.release(id)
            elif found["status"] not in ("available", "in-use"):
                raise errors.Conflict(f"volume {id} is {found['status']}", self._where)
            mine = await self._begin(id, node)
        made = await self._ask("GET", f"/attachments/{mine}")
        kind, device = await self._kind(made, mine, node)
        if made["status"] != "attached":
            await self._ask("POST", f"/attachments/{mine}/action", {"os-complete": {}})
        told = {"connection": kind, "attachment": mine}
        return {**attaching.context_of(found, device), **told}

    async def detach(self, id: str, node: str) -> None:
        """Take the volume from the host. One that is not there is a success."""
        try:
            found = await attaching.volume(self._cloud, id)
        except errors.NotFound:
            return
        if mine := records.attachment_to(found, node):
            await self._drop(mine)
            await self._poller.settled(id, "other", attaching.DETACH_SECONDS)

    async def release(self, id: str) -> Record:
        """Return the volume after what was begun with it is taken back: no host has it."""
        try:
            settled = await self._poller.settled(
                id, "other", attaching.SETTLE_SECONDS, reservations.BEGUN
            )
        except errors.Unavailable:
            await reservations.clear(self._cloud, id, hosts=True)
            return await attaching.volume(self._cloud, id)
        return settled or await attaching.volume(self._cloud, id)

    def _refuse_elsewhere(self, found: Record) -> None:
        others = records.servers_of(found)
        if others and not found.get("multiattach"):
            hosts = ", ".join(brick.host_of(each) or "a host that is not named" for each in others)
            raise errors.Conflict(
                f"volume {found['id']} is attached to {hosts}",
                self._where,
                "it follows when it is detached there",
            )

    async def _begin(self, id: str, node: str) -> str:
        connector = {
            "ip": "127.0.0.1",
            **brick.connector_of(node),
            "host": brick.host_of(node),
            "platform": platform.machine(),
            "os_type": "linux",
            "multipath": False,
            "mountpoint": f"{records.HOSTS}{node}",
        }
        body = {"attachment": {"volume_uuid": id, "connector": connector, "mode": "rw"}}
        return str((await self._ask("POST", "/attachments", body))["id"])

    async def _kind(self, made: Record, attachment: str, node: str) -> tuple[str, str]:
        """Return the type of the connection, and its device where that is known already."""
        info = made.get("connection_info") or {}
        kind = str(info.get("driver_volume_type") or "")
        if kind == LOCAL and info.get("device_path"):
            return kind, str(info["device_path"])
        if kind and brick.connector_of(node):
            return kind, ""
        await self._drop(attachment)
        raise errors.Unsupported(
            f"Cinder offers a connection of type {kind or 'unknown'}, for which node "
            f"{brick.host_of(node)} needs os-brick",
            self._where,
            "install it on the node: pip install 'holdfast[os-brick]'; or run the node as a "
            'server of this cloud and set attach = "nova"',
        )

    async def _ask(self, method: str, path: str, body: Record | None = None) -> Record:
        answer = await self._cloud.request("block_storage", method, path, body, version=_VERSION)
        found: Record = (answer or {}).get("attachment") or {}
        return found

    async def _drop(self, attachment: str) -> None:
        await reservations.drop(self._cloud, attachment)


async def connection_of(cloud: Cloud, attachment: str) -> Record:
    """Return how to connect the volume of an attachment; it may hold a password."""
    answer = await cloud.request(
        "block_storage", "GET", f"/attachments/{attachment}", version=_VERSION
    )
    found: Record = answer["attachment"].get("connection_info") or {}
    return found
