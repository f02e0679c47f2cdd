"""Checks the database, and repairs it: what leads nowhere, what is used up, what nobody finishes.

Links in both directions cannot disagree here, because only one direction is stored. What remains
are entries whose owner is missing, devices with more on them than they hold, and marks of
operations that are gone. A repair removes entries and marks; nodes and volumes are not touched.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from msgspec.structs import replace

from holdfast.heketi.entries import (
    BlockVolume,
    Brick,
    Cluster,
    Device,
    Entry,
    Node,
    Operation,
    Volume,
)
from holdfast.heketi.state import State

_OWNERS: dict[type[Entry], tuple[tuple[str, type[Entry]], ...]] = {
    Node: (("cluster", Cluster),),
    Device: (("node", Node),),
    Volume: (("cluster", Cluster),),
    Brick: (("device", Device), ("volume", Volume)),
    BlockVolume: (("cluster", Cluster), ("hosting", Volume)),
}
_BUCKETS: tuple[tuple[str, type[Entry]], ...] = (
    ("clusters", Cluster),
    ("volumes", Volume),
    ("bricks", Brick),
    ("nodes", Node),
    ("devices", Device),
    ("blockvolumes", BlockVolume),
)


def check(state: State) -> dict[str, Any]:
    """What is wrong, as Heketi's `db check` has it."""
    document: dict[str, Any] = {}
    for name, kind in _BUCKETS:
        document[name] = _bucket(state, state.all(kind))
    document["dbattributes"] = _summary(0, 0, 0, [])
    document["pendingoperations"] = _operations(state)
    document["totalinconsistencies"] = sum(
        len(bucket["inconsistencies"] or []) for bucket in document.values()
    )
    return document


def _bucket(state: State, found: list[Any]) -> dict[str, Any]:
    texts: list[str] = []
    bad = 0
    for entry in found:
        wrong = [*_links(state, entry), *_pending(state, entry), *_content(state, entry)]
        texts += wrong
        bad += bool(wrong)
    pending = sum(1 for entry in found if getattr(entry, "pending", ""))
    return _summary(len(found), pending, bad, texts)


def _summary(total: int, pending: int, bad: int, texts: list[str]) -> dict[str, Any]:
    return {
        "total": total,
        "pending": pending,
        "ok": total - bad,
        "notok": bad,
        "inconsistencies": texts or None,
    }


def _name(entry: Entry) -> str:
    return f"{type(entry).__name__} {entry.id}"


def _links(state: State, entry: Entry) -> list[str]:
    return [
        f"{_name(entry)} refers to unknown {field} {getattr(entry, field)}"
        for field, kind in _OWNERS.get(type(entry), ())
        if state.find(kind, getattr(entry, field)) is None
    ]


def _pending(state: State, entry: Entry) -> list[str]:
    operation = getattr(entry, "pending", "")
    if operation and state.find(Operation, operation) is None:
        return [f"{_name(entry)} is marked by unknown operation {operation}"]
    return []


def _content(state: State, entry: Entry) -> list[str]:
    if isinstance(entry, Device) and state.used(entry) > entry.total:
        return [f"{_name(entry)} has {state.used(entry)} KiB used of {entry.total}"]
    if isinstance(entry, Volume) and not entry.pending and not state.count_below(entry, Brick):
        return [f"{_name(entry)} has no bricks"]
    return []


def _operations(state: State) -> dict[str, Any]:
    found = state.all(Operation)
    texts = []
    for operation in found:
        if operation.parent and state.find(Operation, operation.parent) is None:
            texts.append(f"{_name(operation)} belongs to unknown operation {operation.parent}")
    return _summary(len(found), len(found), len(texts), texts)


def repair(state: State) -> dict[str, Any]:
    """Remove what is wrong and can be removed; what was done, and what is left."""
    done: list[str] = []
    fixes: tuple[Callable[[Entry], Entry | None], ...] = (
        lambda entry: None if _links(state, entry) else entry,
        lambda entry: replace(entry, pending="") if _pending(state, entry) else entry,
    )
    # An owner that goes leaves others without one, so this repeats until nothing changes.
    while _pass(state, fixes, done):
        continue
    return {"repaired": done, "check": check(state)}


def _pass(
    state: State, fixes: tuple[Callable[[Entry], Entry | None], ...], done: list[str]
) -> bool:
    before = len(done)
    with state.transaction() as transaction:
        for _, kind in _BUCKETS:
            for entry in state.all(kind):
                fixed: Entry | None = entry
                for fix in fixes:
                    fixed = None if fixed is None else fix(fixed)
                if fixed is None:
                    transaction.remove(entry)
                    done.append(f"removed {_name(entry)}: it led nowhere")
                elif fixed is not entry:
                    transaction.put(fixed)
                    done.append(f"cleared the mark of {_name(entry)}")
    return len(done) > before
