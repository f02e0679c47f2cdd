"""Removes volumes and waits until they are gone.

Cinder refuses to delete what is attached or has snapshots, and forgets to say
which; the errors here name them. A volume on its way between two states is
waited for.
"""

from __future__ import annotations

from holdfast.backends import errors
from holdfast.backends.cinder import records
from holdfast.backends.cinder.clouds import Cloud
from holdfast.backends.cinder.polling import Poller
from holdfast.backends.cinder.records import Record

DELETE_SECONDS = 120.0
SETTLE_SECONDS = 30.0
_ON_ITS_WAY = frozenset({"creating", "downloading", "extending", "detaching", "retyping"})


async def remove(cloud: Cloud, poller: Poller, record: Record) -> None:
    """Delete the volume of this record and wait for its end.

    Raises errors.Conflict for one in use, errors.Unavailable when Cinder fails.
    """
    id, where = record["id"], f"Cinder of {cloud.instance.where}"
    current: Record | None = record
    if record["status"] in _ON_ITS_WAY:
        current = await poller.settled(id, "other", SETTLE_SECONDS, _ON_ITS_WAY)
    if current is None:
        return
    if current.get("attachments"):
        servers = ", ".join(each or "an unnamed host" for each in records.servers_of(current))
        raise errors.Conflict(
            f"volume {id} is attached to {servers}", where, "detach it from there first"
        )
    if current["status"] == "error_deleting":
        raise await _stuck(cloud, current, where)
    if current["status"] != "deleting" and not await _asked(cloud, id, where):
        return
    left = await poller.settled(id, "deleted", DELETE_SECONDS, frozenset({"deleting"}))
    if left is None:
        return
    raise await _stuck(cloud, left, where)


async def _stuck(cloud: Cloud, record: Record, where: str) -> errors.BackendError:
    id, status = record["id"], record["status"]
    said = await records.explain(cloud, "volume", id)
    remedy = "tried again later; see the log of cinder-volume"
    if status == "error_deleting":
        # Cinder deletes no volume in this state, however often it is asked.
        remedy = (
            "see the log of cinder-volume; when its cause is gone, an administrator lets it be "
            f"tried again: openstack volume set --state error {id}"
        )
    return errors.Unavailable(
        f"volume {id} could not be deleted and is {status}: {said or 'no reason given'}",
        where,
        remedy,
    )


async def _asked(cloud: Cloud, id: str, where: str) -> bool:
    """Ask Cinder to delete; False when the volume is gone already."""
    try:
        await cloud.request("block_storage", "DELETE", f"/volumes/{id}")
    except errors.NotFound:
        return False
    except (errors.Conflict, errors.Invalid) as error:
        raise errors.Conflict(
            await _dependants(cloud, id) or error.what, where, "tried again later"
        ) from error
    return True


async def _dependants(cloud: Cloud, id: str) -> str:
    answer = await cloud.request(
        "block_storage", "GET", "/snapshots/detail", query={"volume_id": id}
    )
    snapshots = [f"{each['name'] or each['id']} ({each['status']})" for each in answer["snapshots"]]
    if not snapshots:
        return ""
    return f"volume {id} has snapshots, which have to go first: {', '.join(snapshots)}"
