"""Snapshots in Cinder: made under a name, found again by it, removed when nothing needs them."""

from __future__ import annotations

import asyncio

from holdfast.backends import errors
from holdfast.backends.cinder import records
from holdfast.backends.cinder.clouds import Cloud
from holdfast.backends.cinder.parameters import GIB
from holdfast.backends.cinder.records import Record
from holdfast.backends.protocol import Snapshot

SECONDS = 120.0
_FIRST_PAUSE, _LAST_PAUSE = 0.2, 2.0


async def create(cloud: Cloud, name: str, volume: str) -> Record:
    """Take the snapshot, or return the one of this name. Raises AlreadyExists for another's."""
    where = f"Cinder of {cloud.instance.where}"
    found = await _of_name(cloud, name)
    for each in [each for each in found if each["status"] in ("error", "deleting")]:
        await delete(cloud, each["id"])
    living = [each for each in found if each["status"] not in ("error", "deleting")]
    if living:
        record = records.oldest(living)
        if record["volume_id"] != volume:
            raise errors.AlreadyExists(
                f'snapshot "{name}" exists and is of volume {record["volume_id"]}', where
            )
        for each in living:
            if records.is_twin(each, record):
                await delete(cloud, each["id"])
    else:
        record = await _take(cloud, name, volume)
    record = await _settled(cloud, record)
    if record["status"] != "available":
        said = await records.explain(cloud, "snapshot", record["id"])
        await delete(cloud, record["id"])
        raise records.failure(f'snapshot "{name}" of {volume} could not be taken', said, where)
    return record


async def delete(cloud: Cloud, id: str) -> None:
    """Remove the snapshot and wait for its end. One that is gone is a success."""
    try:
        await cloud.request("block_storage", "DELETE", f"/snapshots/{id}")
    except errors.NotFound:
        return
    except errors.Invalid as error:
        # Cinder's 400 here is always about a state: in use, or being made.
        raise errors.Conflict(error.what, error.where, "tried again later") from error
    left = await _settled(cloud, {"id": id, "status": "deleting"}, going=True)
    if left["status"] != "gone":
        said = await records.explain(cloud, "snapshot", id)
        raise errors.Unavailable(
            f"snapshot {id} could not be deleted: {said or left['status']}",
            f"Cinder of {cloud.instance.where}",
            "tried again later; see the log of cinder-volume",
        )


async def delete_all(cloud: Cloud, id: str) -> None:
    """Remove the snapshot, and others that lost answers left under its name."""
    try:
        record = await get(cloud, id)
    except errors.NotFound:
        return
    if records.is_owned(record, cloud.instance.owner):
        # Before the snapshot itself: without it, nobody would look for them again.
        for each in await _of_name(cloud, record["name"]):
            if records.is_twin(each, record):
                await delete(cloud, each["id"])
    await delete(cloud, id)


async def get(cloud: Cloud, uuid: str) -> Record:
    """Return the snapshot's record. Raises errors.NotFound."""
    answer = await cloud.request("block_storage", "GET", f"/snapshots/{uuid}")
    found: Record = answer["snapshot"]
    return found


async def listed(cloud: Cloud) -> list[Record]:
    """Return all snapshots with our mark."""
    found: list[Record] = []
    query = {"limit": "500"}
    while True:
        answer = await cloud.request("block_storage", "GET", "/snapshots/detail", query=query)
        page = answer["snapshots"]
        found += [each for each in page if records.is_owned(each, cloud.instance.owner)]
        if not answer.get("snapshots_links"):
            return found
        query = {"limit": "500", "marker": page[-1]["id"]}


def snapshot_of(record: Record, id: str, source: str) -> Snapshot:
    """Return Cinder's record as ours."""
    created = str(record["created_at"]).split(".")[0].removesuffix("Z") + "Z"
    ready = record["status"] == "available"
    return Snapshot(id, source, int(record["size"]) * GIB, created, ready)


async def _take(cloud: Cloud, name: str, volume: str) -> Record:
    marks = records.marks_of_try(name, cloud.instance.owner)
    body = {"snapshot": {"volume_id": volume, "name": name, "force": True, "metadata": marks}}
    answer = await cloud.request("block_storage", "POST", "/snapshots", body)
    taken: Record = answer["snapshot"]
    return taken


async def _of_name(cloud: Cloud, name: str) -> list[Record]:
    answer = await cloud.request("block_storage", "GET", "/snapshots/detail", query={"name": name})
    return [
        each
        for each in answer["snapshots"]
        if each["name"] == name and records.is_owned(each, cloud.instance.owner)
    ]


async def _settled(cloud: Cloud, record: Record, *, going: bool = False) -> Record:
    """Wait until the snapshot is neither being made nor removed; `status: gone` once it is."""
    moving = ("deleting",) if going else ("creating", "backing-up")
    pause = _FIRST_PAUSE
    try:
        async with asyncio.timeout(SECONDS):
            while record["status"] in moving:
                await asyncio.sleep(pause)
                pause = min(_LAST_PAUSE, pause * 1.4)
                try:
                    record = await get(cloud, record["id"])
                except errors.NotFound:
                    return {"id": record["id"], "status": "gone"}
    except TimeoutError as error:
        raise errors.Unavailable(
            f"snapshot {record['id']} is still {record['status']} after {SECONDS:g} s",
            f"Cinder of {cloud.instance.where}",
            "waited for again later",
        ) from error
    return record
