"""Attaches volumes to servers through Nova, and puts right what was left half done.

Nova and Cinder each keep a record of an attachment, and a crash in one of them
leaves the two disagreeing: Cinder says `reserved` or `attaching` and Nova knows
nothing, or the other way round. So neither is believed alone:

    Nova has it    Cinder has it   attached (after waiting for Cinder to finish)
    Nova has it    Cinder not      Cinder's record is made again, Nova is told to detach;
                                   the next try attaches anew
    Nova not       Cinder has it   what Nova left: Cinder's record is removed
    neither                        free, once what was begun is taken back

A volume that stays `detaching` while Nova has it was asked for and forgotten; it
goes back to `in-use`, and Nova is told again.

Repairs come only after both had time to finish by themselves, and each is tried
once per call. Cinder itself refuses to drop what Nova still uses,
so a wrong guess here cannot take a disk from a server that writes.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from holdfast.backends import errors
from holdfast.backends.cinder import records, reservations, restoring, servers
from holdfast.backends.cinder.clouds import Cloud
from holdfast.backends.cinder.parameters import GIB
from holdfast.backends.cinder.polling import Poller
from holdfast.backends.cinder.records import Record

SETTLE_SECONDS = 20.0
ATTACH_SECONDS = 60.0
DETACH_SECONDS = 60.0
# Nova asks a guest for its disk eight times and waits 20 s each time.
FORGOTTEN_SECONDS = 180.0
# Nova asks for it before it shares a volume.
_SHARED_VERSION = "2.60"
_PASSING = frozenset({"attaching", "detaching", "reserved", "creating", "downloading", "extending"})


async def volume(cloud: Cloud, id: str) -> Record:
    """Return Cinder's record of a volume. Raises errors.NotFound."""
    answer = await cloud.request("block_storage", "GET", f"/volumes/{id}")
    found: Record = answer["volume"]
    return found


def context_of(record: Record, device: str) -> dict[str, str]:
    """Return what the node side needs to find the volume and to be sure of it."""
    return {
        "device": device,
        "serial": str(record["id"]),
        "size": str(int(record["size"]) * GIB),
    }


class NovaAttaching:
    """Attaching in one cloud that has Nova."""

    def __init__(self, cloud: Cloud, poller: Poller) -> None:
        self._cloud = cloud
        self._poller = poller
        self._nova = f"Nova of {cloud.instance.where}"
        # When a volume was first seen `detaching` without our having asked in this call.
        self._detaching: dict[str, float] = {}

    async def attach(self, id: str, server: str) -> Mapping[str, str]:
        """Attach the volume. Raises Conflict, Exhausted, NotFound, Unavailable."""
        found = await self._settled(id)
        disk = await servers.disk(self._cloud, server, id)
        ours = records.attachment_to(found, server)
        if disk is not None and ours and found["status"] == "in-use":
            return context_of(found, str(disk.get("device") or ""))
        if disk is not None and ours and found["status"] == "detaching":
            await self._take_back(found, server)
        elif disk is not None:
            await self._undo(id, server, found)
        elif ours:
            await self._drop(found, server)
        elif found["status"] in reservations.BEGUN:
            if not await reservations.clear(self._cloud, id):
                await self._refuse_begun(id)
        elif found["status"] not in ("available", "in-use"):
            raise await self._refusal(found)
        else:
            await self._refuse_elsewhere(found)
            return await self._attach(found, server)
        raise errors.Conflict(
            f"volume {id}: Nova and Cinder disagreed about server {server}, which was put right",
            self._nova,
            "attached at the next try",
        )

    async def detach(self, id: str, server: str) -> None:
        """Detach the volume. Raises Conflict while Nova cannot, Unavailable."""
        try:
            found = await volume(self._cloud, id)
        except errors.NotFound:
            return
        disk = await servers.disk(self._cloud, server, id)
        if disk is None and not records.attachment_to(found, server):
            return
        if disk is None:
            found = await self._settled(id)
            if records.attachment_to(found, server):
                await self._drop(found, server)
            return
        await self._detach(found, server)

    async def release(self, id: str) -> Record:
        """Return the volume after what was begun with it is taken back. Raises Conflict."""
        found = await self._settled(id)
        if found["status"] in reservations.BEGUN:
            await reservations.clear(self._cloud, id)
            found = await volume(self._cloud, id)
        return found

    async def _attach(self, found: Record, server: str) -> Mapping[str, str]:
        id = found["id"]
        record = await servers.get(self._cloud, server)
        if host := await servers.down_host(self._cloud, record):
            raise errors.Conflict(
                f'server "{record["name"]}" is on compute host {host}, which is down',
                self._nova,
                servers.EVACUATE,
            )
        body = {"volumeAttachment": {"volumeId": id}}
        path = f"/servers/{server}/os-volume_attachments"
        version = _SHARED_VERSION if found.get("multiattach") else ""
        try:
            await self._cloud.request("compute", "POST", path, body, version=version)
        except errors.Invalid as error:
            # Nova says 400 for a volume that another request has just taken.
            raise errors.Conflict(error.what, error.where, "tried again later") from error
        taken = frozenset({"available", "attaching", "reserved"})
        if records.servers_of(found):
            taken = frozenset({"attaching", "reserved"})
        attached = await self._poller.settled(id, "other", ATTACH_SECONDS, taken)
        disk = await servers.disk(self._cloud, server, id)
        if attached is None or disk is None or not records.attachment_to(attached, server):
            said = await records.explain(self._cloud, "volume", id)
            raise errors.Unavailable(
                f"volume {id} did not get attached to server {server}: {said or 'no reason given'}",
                self._nova,
                "tried again later; see the log of nova-compute",
            )
        return context_of(attached, str(disk.get("device") or ""))

    async def _detach(self, found: Record, server: str) -> None:
        id = found["id"]
        record = await servers.get(self._cloud, server)
        if host := await servers.down_host(self._cloud, record):
            raise errors.Conflict(
                f'server "{record["name"]}" is on compute host {host}, which is down, so Nova '
                f"cannot detach volume {id}",
                self._nova,
                servers.EVACUATE,
            )
        if found["status"] != "detaching":
            self._detaching.pop(id, None)
            await self._let_go(found, record)
        elif self._is_forgotten(id):
            await self._roll_back(id)
            await self._let_go(found, record)
        await self._await_detached(found, server)
        self._detaching.pop(id, None)

    def _is_forgotten(self, id: str) -> bool:
        """Return whether a volume has been `detaching` for longer than Nova ever takes."""
        now = asyncio.get_running_loop().time()
        return now - self._detaching.setdefault(id, now) >= FORGOTTEN_SECONDS

    async def _roll_back(self, id: str) -> None:
        path = f"/volumes/{id}/action"
        await self._cloud.request("block_storage", "POST", path, {"os-roll_detaching": {}})
        self._detaching.pop(id, None)

    async def _take_back(self, found: Record, server: str) -> None:
        """The server that is to have the volume has it, and somebody began to take it away."""
        if not self._is_forgotten(found["id"]):
            raise errors.Conflict(
                f"volume {found['id']} is being detached from server {server}",
                self._nova,
                f"waited for {FORGOTTEN_SECONDS:g} s, then taken back",
            )
        await self._roll_back(found["id"])

    async def _refuse_begun(self, id: str) -> None:
        found = await volume(self._cloud, id)
        if found["status"] in reservations.BEGUN:
            raise await self._refusal(found)

    async def _let_go(self, found: Record, server: Record) -> None:
        """Tell Nova to detach; once more with Cinder's record restored, where Cinder has none."""
        path = f"/servers/{server['id']}/os-volume_attachments/{found['id']}"
        try:
            await self._cloud.request("compute", "DELETE", path)
        except errors.NotFound:
            return
        except (errors.Invalid, errors.Conflict) as error:
            disk = await servers.disk(self._cloud, server["id"], found["id"]) or {}
            device = str(disk.get("device") or "")
            if not await restoring.restore(self._cloud, found, server, device):
                raise self._refused_detach(found, server["id"], error) from error
            await self._cloud.request("compute", "DELETE", path)

    def _refused_detach(
        self, found: Record, server: str, error: errors.BackendError
    ) -> errors.BackendError:
        if records.attachment_to(found, server):
            return errors.Conflict(error.what, error.where, "tried again later")
        # Cinder was reset by hand, and its record could not be made again.
        return errors.Conflict(
            f"Nova lists volume {found['id']} on server {server} and cannot detach it, as Cinder "
            f"knows of no such attachment ({error.what})",
            self._nova,
            "restart of the server (openstack server reboot --hard) lets Nova look again",
        )

    async def _await_detached(self, found: Record, server: str) -> None:
        id, pause = found["id"], 0.2
        try:
            async with asyncio.timeout(DETACH_SECONDS):
                while True:
                    disk = await servers.disk(self._cloud, server, id)
                    try:
                        now = await volume(self._cloud, id)
                    except errors.NotFound:
                        return
                    if disk is None:
                        # One that was restored is not the one that Nova knew and removed.
                        if mine := records.attachment_to(now, server):
                            await reservations.drop(self._cloud, mine)
                        return
                    await asyncio.sleep(pause)
                    pause = min(2.0, pause * 1.4)
        except TimeoutError as error:
            raise errors.Conflict(
                f"Nova was told to detach volume {id} from server {server} and has not done so "
                f"after {DETACH_SECONDS:g} s: the guest does not give the disk back",
                self._nova,
                "tried again later; a hard reboot of the server ends it",
            ) from error

    async def _settled(self, id: str) -> Record:
        """Return the volume after it had time to leave a passing state."""
        found = await volume(self._cloud, id)
        if found["status"] not in _PASSING:
            return found
        try:
            settled = await self._poller.settled(id, "other", SETTLE_SECONDS, _PASSING)
        except errors.Unavailable:
            # Not moved by itself: whoever was at work is gone, or the service is.
            settled = await volume(self._cloud, id)
        if settled is None:
            raise errors.NotFound(f"volume {id} is gone", f"Cinder of {self._cloud.instance.where}")
        return settled

    async def _refuse_elsewhere(self, found: Record) -> None:
        others = [each for each in records.servers_of(found) if each]
        if not others or found.get("multiattach"):
            return
        state = await servers.state(self._cloud, others[0])
        raise errors.Conflict(
            f"volume {found['id']} is attached to another server: {state.detail}",
            self._nova,
            "it follows when it is detached there"
            if state.power == "running"
            else "waiting until that server is off or gone, as it may still write",
        )

    async def _refusal(self, found: Record) -> errors.BackendError:
        said = await records.explain(self._cloud, "volume", found["id"])
        reason = f": {said}" if said else ""
        return errors.Conflict(
            f"volume {found['id']} is {found['status']}{reason}",
            f"Cinder of {self._cloud.instance.where}",
            "an administrator can set it right: openstack volume set --state available "
            f"{found['id']}, once nothing uses it",
        )

    async def _undo(self, id: str, server: str, found: Record) -> None:
        """Nova has the disk, Cinder does not say so: let both give it up."""
        await self._let_go(found, await servers.get(self._cloud, server))
        await self._await_detached(found, server)

    async def _drop(self, found: Record, server: str) -> None:
        await reservations.drop(self._cloud, records.attachment_to(found, server))
