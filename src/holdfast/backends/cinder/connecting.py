"""Attaches volumes without Nova: by Cinder's own attachment API, to a host by name.

For machines that are no servers of Nova but can reach the storage. The node is
known by its host name; Cinder exports the volume to it and says how to connect.
What comes back goes to the node in the open, so the only type of connection
served is `local`: a block device that is on the machine already. Others may
hold a password (iSCSI with CHAP), and are refused.

A member of a project is not shown whom an attachment is for. The mount point,
which Cinder keeps and shows, says it: `/dev/holdfast/HOST`.
"""

from __future__ import annotations

import platform
from collections.abc import Mapping

from holdfast.backends import errors
from holdfast.backends.cinder import attaching, records
from holdfast.backends.cinder.clouds import Cloud
from holdfast.backends.cinder.polling import Poller
from holdfast.backends.cinder.records import Record

_VERSION = "3.54"
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
            if found["status"] == "reserved":
                await self._drop_reservations(id)
            elif found["status"] not in ("available", "in-use"):
                raise errors.Conflict(f"volume {id} is {found['status']}", self._where)
            mine = await self._begin(id, node)
        made = await self._ask("GET", f"/attachments/{mine}")
        device = await self._device(made, mine)
        if made["status"] != "attached":
            await self._ask("POST", f"/attachments/{mine}/action", {"os-complete": {}})
        return {**attaching.context_of(found, device), "connection": LOCAL}

    async def detach(self, id: str, node: str) -> None:
        """Take the volume from the host. One that is not there is a success."""
        try:
            found = await attaching.volume(self._cloud, id)
        except errors.NotFound:
            return
        if mine := records.attachment_to(found, node):
            await self._drop(mine)
            await self._poller.settled(id, "other", attaching.DETACH_SECONDS)

    def _refuse_elsewhere(self, found: Record) -> None:
        others = records.servers_of(found)
        if others and not found.get("multiattach"):
            hosts = ", ".join(each or "a host that is not named" for each in others)
            raise errors.Conflict(
                f"volume {found['id']} is attached to {hosts}",
                self._where,
                "it follows when it is detached there",
            )

    async def _begin(self, id: str, node: str) -> str:
        connector = {
            "host": node,
            "ip": "127.0.0.1",
            "platform": platform.machine(),
            "os_type": "linux",
            "multipath": False,
            "mountpoint": f"{records.HOSTS}{node}",
        }
        body = {"attachment": {"volume_uuid": id, "connector": connector, "mode": "rw"}}
        return str((await self._ask("POST", "/attachments", body))["id"])

    async def _drop_reservations(self, id: str) -> None:
        """Remove what a creation left that ended between its two steps; no host has it."""
        answer = await self._cloud.request(
            "block_storage", "GET", "/attachments", query={"volume_id": id}, version=_VERSION
        )
        for each in answer["attachments"]:
            if each["status"] == "reserved" and not each.get("instance"):
                await self._drop(str(each["id"]))

    async def _device(self, made: Record, attachment: str) -> str:
        info = made.get("connection_info") or {}
        kind = str(info.get("driver_volume_type") or "")
        if kind == LOCAL and info.get("device_path"):
            return str(info["device_path"])
        await self._drop(attachment)
        raise errors.Unsupported(
            f"Cinder offers a connection of type {kind or 'unknown'}, which needs Nova",
            self._where,
            'run the node as a server of this cloud and set attach = "nova"',
        )

    async def _ask(self, method: str, path: str, body: Record | None = None) -> Record:
        answer = await self._cloud.request("block_storage", method, path, body, version=_VERSION)
        found: Record = (answer or {}).get("attachment") or {}
        return found

    async def _drop(self, attachment: str) -> None:
        try:
            await self._ask("DELETE", f"/attachments/{attachment}")
        except errors.NotFound:
            return
