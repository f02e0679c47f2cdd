"""What a create, an update or a patch makes of `managedFields`.

The writer owns from now on what it changed, and nobody else does; what it removed nobody owns.
What it left as it was changes nothing, so a write that repeats the object costs no one anything.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from holdfast.api.managed import comparing, entries, sets
from holdfast.api.managed.entries import Entry, Writer
from holdfast.api.managed.sets import FieldSet
from holdfast.api.managed.types import Type


def created(
    obj: Mapping[str, Any], type: Type, writer: Writer, time: str, reset: FieldSet
) -> list[Entry]:
    """The entries of a new object: one, or none when the writer set nothing that can be owned.

    `reset` is what the endpoint ignores of the object, which therefore is nobody's.
    """
    changed, _ = comparing.compare(type.blank, obj, type)
    owned = sets.without_trees(changed, reset)
    return [writer.entry(owned, time)] if owned else []


def updated(
    managed: Sequence[Entry],
    changed: FieldSet,
    removed: FieldSet,
    writer: Writer,
    time: str,
) -> list[Entry]:
    """The entries after a change, sorted; `managed` is not empty.

    An object whose owners were never recorded, or were reset, stays without until the first
    server-side apply, so callers leave empty lists alone.
    """
    result: list[Entry] = []
    own: Entry | None = None
    for entry in managed:
        if own is None and writer.has(entry):
            own = entry
            continue
        owned = entry["fieldsV1"]
        left = sets.difference(owned, changed) if changed else owned
        if removed:
            left = sets.difference(left, removed)
        if left is owned:
            result.append(entry)
        elif left:
            result.append({**entry, "fieldsV1": left})
    mine = _own(own, changed, removed, writer, time)
    if mine is not None:
        result.append(mine)
    return entries.ordered(entries.capped(result) if len(result) > 10 else result)


def _own(
    entry: Entry | None, changed: FieldSet, removed: FieldSet, writer: Writer, time: str
) -> Entry | None:
    """The writer's own entry; its time is that of the last change of a field it owns now."""
    before = sets.LEAF if entry is None else entry["fieldsV1"]
    owned = sets.difference(before, removed) if removed else before
    if changed:
        owned = sets.union(owned, changed)
    if not owned:
        return None
    if entry is not None and owned is before and (not changed or entry.get("time") == time):
        return entry
    return writer.entry(owned, time if changed or entry is None else entry.get("time"))
