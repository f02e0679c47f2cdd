"""Server-side apply: one writer's configuration against the object and its other owners.

The configuration is merged in; what the writer declared last time and does not declare any more
is removed, unless somebody else owns it too; where the result changes a field that others own,
that is a conflict, which fails the request, or with `force` takes the field from them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from holdfast.api.managed import (
    checking,
    comparing,
    conflicts,
    declaring,
    entries,
    items,
    merging,
    removing,
    sets,
)
from holdfast.api.managed.entries import Entry, Writer
from holdfast.api.managed.sets import FieldSet
from holdfast.api.managed.types import Type

Object = Mapping[str, Any]


class Application(NamedTuple):
    """One request to apply: whose configuration, and what the endpoint ignores of it."""

    config: Object
    writer: Writer
    time: str
    force: bool = False
    reset: FieldSet = sets.LEAF


class Outcome(NamedTuple):
    """The object after the apply, not decoded yet, and its owners; None = the live object."""

    obj: dict[str, Any] | None
    managed: list[Entry]


def apply(live: Object, managed: Sequence[Entry], type: Type, asked: Application) -> Outcome:
    """Apply to an object; raises `checking.TypedError`, `conflicts.ApplyConflict`.

    `live` is the object without managedFields, `type.blank` when there is none yet.
    """
    checking.check(asked.config, type)
    try:
        return _apply(live, managed, type, asked)
    except items.ItemError as error:
        raise checking.TypedError(str(error)) from error


def _apply(live: Object, managed: Sequence[Entry], type: Type, asked: Application) -> Outcome:
    writer = asked.writer
    mine = next((entry for entry in managed if writer.has(entry)), None)
    others = [entry for entry in managed if entry is not mine]
    merged = merging.merge(live, asked.config, type)
    owned = declaring.declared(asked.config, type)
    owned = sets.without_trees(owned, asked.reset) if asked.reset else owned
    if mine is not None and mine["fieldsV1"]:
        # All of the configuration counts here, the name and other metadata nobody owns included.
        known = declaring.everything(asked.config, type)
        known = sets.without_trees(known, asked.reset) if asked.reset else known
        for entry in others:
            known = sets.union(known, entry["fieldsV1"])
        merged = _pruned(merged, mine["fieldsV1"], known, type)
    changed, removed = comparing.compare(live, merged, type)
    if asked.reset:
        changed = sets.without_trees(changed, asked.reset)
        removed = sets.without_trees(removed, asked.reset)
    if not asked.force:
        found = conflicts.find(others, changed)
        if found:
            raise conflicts.ApplyConflict(found)
    left = entries.without(entries.without(others, changed), removed)
    same = merged == live
    time = asked.time if not same else None if mine is None else mine.get("time")
    if owned:
        left.append(writer.entry(owned, time))
    return Outcome(None if same else merged, entries.ordered(left))


def _pruned(merged: dict[str, Any], last: FieldSet, known: FieldSet, type: Type) -> dict[str, Any]:
    """The object without what the writer declared last time and nobody declares now."""
    had = sets.with_structures(last, type)
    pruned = removing.remove(merged, had, type)
    everything = sets.with_structures(declaring.everything(merged, type), type)
    # Back comes what somebody owns,
    kept = sets.union(
        sets.with_structures(declaring.everything(pruned, type), type),
        sets.with_structures(known, type),
    )
    pruned = removing.remove(merged, sets.difference(everything, kept), type)
    # and what went only because it stood inside of something else.
    left = sets.with_structures(declaring.everything(pruned, type), type)
    gone = sets.intersection(sets.difference(everything, left), had)
    return removing.remove(merged, gone, type)
