"""The undo file: what was there before, written before anything is changed.

It holds both volume objects and the claim as they were; it has no secrets, only their names, and
is for its owner alone all the same. Whoever finds such a file finds an adoption that may be
unfinished: repeating the command goes on with it.
"""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from holdfast.api import kinds, views
from holdfast.controllers.adoption import plan
from holdfast.kit import clock, files
from holdfast.runtime.client import Client, Object

_FORMAT = "holdfast.dev/adoption/1"


class RecordError(Exception):
    """The undo file cannot be read or written, or is another's: which, and what to do."""


@dataclass(frozen=True, slots=True)
class Record:
    """One adoption. `old` and `new` can be created as they are; `policy` is to be at the end.

    `uid` is the original volume's, and tells whether a file belongs to a volume.
    """

    name: str
    uid: str
    policy: str
    old: Object
    new: Object
    original: Object
    claim: Object | None
    server: str


async def of(client: Client, found: plan.Plan, server: str) -> Record:
    """Make the record of a plan."""
    reference = found.old["spec"].get("claimRef")
    claim = None
    if reference:
        items = (await client.list(kinds.CLAIM, reference["namespace"])).items
        claim = next((c for c in items if c["metadata"]["uid"] == reference.get("uid")), None)
    meta = found.old["metadata"]
    kept = {key: meta[key] for key in ("name", "labels", "annotations") if meta.get(key)}
    old = {
        "apiVersion": "v1",
        "kind": "PersistentVolume",
        "metadata": kept,
        "spec": plan.with_claim({**found.old["spec"], "persistentVolumeReclaimPolicy": "Retain"}),
    }
    return Record(
        found.name, str(meta["uid"]), found.policy, old, found.new, found.old, claim, server
    )


def write(path: Path, record: Record) -> None:
    """Write the file, for its owner only. Raises RecordError."""
    document = {
        "format": _FORMAT,
        "written": clock.rfc3339(clock.now()),
        "server": record.server,
        "name": record.name,
        "uid": record.uid,
        "policy": record.policy,
        "original": record.original,
        "claim": record.claim,
        "old": record.old,
        "new": record.new,
    }
    try:
        files.write_atomic(path, json.dumps(document, indent=2).encode(), mode=0o600)
    except OSError as error:
        raise RecordError(f"{path}: the undo file cannot be written: {error.strerror}") from error


def read(path: Path) -> Record:
    """Read what `write` wrote. Raises RecordError."""
    try:
        found: Any = json.loads(path.read_bytes())
        if found["format"] != _FORMAT:
            raise RecordError(f"{path}: is an undo file of another version: {found['format']}")
        return Record(
            name=str(found["name"]),
            uid=str(found["uid"]),
            policy=str(found["policy"]),
            old=dict(found["old"]),
            new=dict(found["new"]),
            original=dict(found["original"]),
            claim=found["claim"],
            server=str(found["server"]),
        )
    except OSError as error:
        raise RecordError(f"{path}: cannot be read: {error.strerror}") from error
    except (ValueError, LookupError, TypeError) as error:
        raise RecordError(f"{path}: is no undo file of holdfast adopt") from error


def is_over(record: Record, current: Object | None) -> bool:
    """Whether the file tells of an adoption that was undone since: what it holds may be old."""
    if current is None or current["metadata"]["uid"] == record.uid:
        return False
    old = views.volume(record.old).spec.source()[0]
    return views.volume(current).spec.source()[0] == old != "csi"


def with_size(record: Record, current: Object | None) -> Record:
    """Return the record with the size the volume has now: it may have grown since."""
    size = current["spec"].get("capacity") if current is not None else None
    if size is None or size == record.new["spec"].get("capacity"):
        return record
    old, new = (
        {**each, "spec": {**each["spec"], "capacity": size}} for each in (record.old, record.new)
    )
    return dataclasses.replace(record, old=old, new=new)


def for_volume(path: Path, name: str, server: str) -> Record | None:
    """Return the record in a file, None when there is none. Raises RecordError for another's."""
    if not path.exists():
        return None
    found = read(path)
    if found.name != name or found.server != server:
        raise RecordError(
            f"{path}: is the undo file of pv/{found.name} at {found.server}: name another with "
            "--record, or move it away"
        )
    return found
