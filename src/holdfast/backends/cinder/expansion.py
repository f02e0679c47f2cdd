"""Makes volumes larger, also while they are used.

Growing a volume in use came with microversion 3.42; an older Cinder grows it
when it is detached. Cinder charges the quota first, so a growth that fails
leaves `error_extending`, which only an administrator resets.
"""

from __future__ import annotations

from holdfast.backends import errors
from holdfast.backends.cinder import parameters, records
from holdfast.backends.cinder.clouds import Cloud
from holdfast.backends.cinder.polling import Poller
from holdfast.backends.cinder.records import Record

ONLINE = (3, 42)
SECONDS = 120.0
_EXTENDING = frozenset({"extending"})


async def grow(cloud: Cloud, poller: Poller, record: Record, size: int) -> Record:
    """Return the volume with at least `size` bytes. Raises Conflict, Exhausted, Unavailable."""
    wanted, id = parameters.gibibytes(size), record["id"]
    where = f"Cinder of {cloud.instance.where}"
    if record["status"] == "extending":
        record = await _settled(poller, id, where)
    if int(record["size"]) >= wanted:
        return record
    if record["status"] == "error_extending":
        raise await _stuck(cloud, id, where)
    version = ""
    if record["status"] == "in-use":
        newest = await cloud.run(lambda endpoint: endpoint.newest("block_storage"))
        if newest < ONLINE:
            raise errors.Conflict(
                f"volume {id} is in use, and this Cinder grows detached volumes only",
                where,
                "stop the pods that use it; it grows as soon as it is detached",
            )
        version = "3.42"
    body = {"os-extend": {"new_size": wanted}}
    await cloud.request("block_storage", "POST", f"/volumes/{id}/action", body, version=version)
    grown = await _settled(poller, id, where)
    if grown["status"] == "error_extending" or int(grown["size"]) < wanted:
        raise await _stuck(cloud, id, where)
    return grown


async def _settled(poller: Poller, id: str, where: str) -> Record:
    found = await poller.settled(id, "other", SECONDS, _EXTENDING)
    if found is None:
        raise errors.NotFound(f"volume {id} was removed while it grew", where)
    return found


async def _stuck(cloud: Cloud, id: str, where: str) -> errors.BackendError:
    said = await records.explain(cloud, "volume", id)
    return errors.Unavailable(
        f"volume {id} could not be grown: {said or 'Cinder gives no reason'}",
        where,
        f"when its status stays error_extending, an administrator resets it: "
        f"openstack volume set --state available {id}",
    )
