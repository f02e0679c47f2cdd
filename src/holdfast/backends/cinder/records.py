"""What Cinder's records mean: owner, size, attachments, and the errors they stand for.

A volume of ours has two marks in its metadata: who owns it, and the name it was
made under. The marks, not the display name, decide what is ours, as anybody may
give a volume any name. A third mark is of the one request that made it: Cinder
restores a backup with the name and all marks of the volume it was taken of, so
only another mark there tells what a lost answer left from somebody's copy.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from typing import Any

from holdfast.backends import errors
from holdfast.backends.cinder.clouds import Cloud
from holdfast.backends.cinder.parameters import GIB, ZONE, CinderParameters
from holdfast.backends.protocol import Volume, VolumeRequest

OWNER, NAME, FS_TYPE, SOURCE, TRY = (
    "holdfast.dev/owner",
    "holdfast.dev/name",
    "holdfast.dev/fs-type",
    "holdfast.dev/source",
    "holdfast.dev/try",
)
# Cinder shows members neither host nor connector of an attachment, but the place in the guest.
# Where there is no guest, that place names the host.
HOSTS = "/dev/holdfast/"
# What no volume comes out of by waiting.
FAILED = frozenset({"error", "error_deleting", "error_restoring", "error_managing"})
USABLE = frozenset({"available", "in-use", "extending", "attaching", "detaching", "reserved"})

Record = Mapping[str, Any]


def metadata_of(request: VolumeRequest, chosen: CinderParameters, owner: str) -> dict[str, str]:
    """Return the marks of a volume to be made, by one request only."""
    source = f"{request.source.kind}:{request.source.id}" if request.source else ""
    marks = {**marks_of_try(request.name, owner), FS_TYPE: chosen.fs_type}
    return {**marks, SOURCE: source} if source else marks


def marks_of_try(name: str, owner: str) -> dict[str, str]:
    """Return the marks of one request to make something under a name."""
    return {OWNER: owner, NAME: name, TRY: secrets.token_hex(8)}


def is_twin(record: Record, other: Record) -> bool:
    """Return whether two requests for one name made these; False for a copy of the other."""
    mine, its = record.get("metadata") or {}, other.get("metadata") or {}
    tries = mine.get(TRY), its.get(TRY)
    same = all(mine.get(key) == its.get(key) for key in (OWNER, NAME))
    return same and None not in tries and tries[0] != tries[1]


def is_owned(record: Record, owner: str) -> bool:
    """Return whether a volume or snapshot has our mark."""
    return bool((record.get("metadata") or {}).get(OWNER) == owner)


def volume_of(record: Record, id: str, ignore_volume_az: bool) -> Volume:
    """Return Cinder's record as ours."""
    context = {"fsType": (record.get("metadata") or {}).get(FS_TYPE) or "ext4"}
    if record["status"] not in USABLE:
        context = {"state": "incomplete", "status": str(record["status"])}
    zone = record.get("availability_zone")
    topology = {ZONE: str(zone)} if zone and not ignore_volume_az else None
    return Volume(id, int(record["size"]) * GIB, context, topology, node_expansion=True)


def servers_of(record: Record) -> list[str]:
    """Return the servers (or hosts, without Nova) that a volume is attached to."""
    return [_user(each) for each in record.get("attachments") or ()]


def attachment_to(record: Record, node: str) -> str:
    """Return the id of Cinder's attachment to a server or host, '' without one."""
    for each in record.get("attachments") or ():
        # What else a node's id says of a host may change while a volume is attached.
        if _user(each).partition("?")[0] == node.partition("?")[0]:
            return str(each.get("attachment_id") or "")
    return ""


def _user(attachment: Record) -> str:
    device = str(attachment.get("device") or "")
    host = device.removeprefix(HOSTS) if device.startswith(HOSTS) else ""
    return str(attachment.get("server_id") or host or attachment.get("host_name") or "")


async def listed(cloud: Cloud, path: str, **query: str) -> list[Record]:
    """Return all volumes that a query finds; Cinder gives at most 1000 in one answer."""
    found: list[Record] = []
    asked = {**query, "limit": "500"}
    while True:
        answer = await cloud.request("block_storage", "GET", path, query=asked)
        found += answer["volumes"]
        if not answer.get("volumes_links"):
            return found
        asked["marker"] = answer["volumes"][-1]["id"]


def oldest(records: Sequence[Record]) -> Record:
    """Return the record that everybody agrees on among several of one name."""
    return min(records, key=lambda each: (str(each.get("created_at")), str(each["id"])))


async def explain(cloud: Cloud, kind: str, id: str) -> str:
    """Return what Cinder's message API says of a failed volume or snapshot; '' for nothing."""
    if await cloud.run(lambda endpoint: endpoint.newest("block_storage")) < (3, 5):
        return ""
    query = {"resource_uuid": id, "sort": "created_at:desc", "limit": "5"}
    try:
        answer = await cloud.request(
            "block_storage", "GET", "/messages", query=query, version="3.5"
        )
    except errors.BackendError:
        # The failure itself is told either way; its reason is an extra.
        return ""
    said = [str(each.get("user_message") or "") for each in answer.get("messages") or ()]
    return " / ".join(dict.fromkeys(text for text in said if text))


def failure(what: str, said: str, where: str) -> errors.BackendError:
    """Return the error for a volume that Cinder could not make, from its own explanation."""
    low = said.lower()
    text = f"{what}: {said}" if said else f"{what}, and Cinder gives no reason"
    if any(word in low for word in ("could not find", "no valid", "capacity", "exceed", "space")):
        remedy = (
            "no storage backend fits the type, zone and size: free some room, or correct the "
            "class's type and availability (`openstack volume backend pool list --long` shows "
            "what each backend has left)"
        )
        return errors.Exhausted(text, where, remedy)
    return errors.Unavailable(text, where, "tried again later; see the log of cinder-volume")
