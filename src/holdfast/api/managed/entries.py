"""The list in `metadata.managedFields`: one entry per writer, kind of write and subresource.

An entry's set is its `fieldsV1`, see `sets`. Entries that stand in the store were written by
this package and are in canonical form; what a client sends goes through `given` first.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, Literal, NamedTuple

from holdfast.api.managed import elements, sets
from holdfast.api.managed.sets import FieldSet

Entry = dict[str, Any]
Operation = Literal["Apply", "Update"]
_MOST_UPDATERS: Final = 10
_ANCIENT: Final = "ancient-changes"


class Writer(NamedTuple):
    """Who writes, and how; `api_version` is that of the request."""

    manager: str
    operation: Operation
    api_version: str
    subresource: str = ""

    def has(self, entry: Entry) -> bool:
        """Whether an entry is this writer's: one that applies is the same in every version."""
        return (
            entry["manager"] == self.manager
            and entry["operation"] == self.operation
            and entry.get("subresource", "") == self.subresource
            and (self.operation == "Apply" or entry["apiVersion"] == self.api_version)
        )

    def entry(self, owned: FieldSet, time: str | None) -> Entry:
        """The writer's entry."""
        made: Entry = {
            "manager": self.manager,
            "operation": self.operation,
            "apiVersion": self.api_version,
        }
        if time:
            made["time"] = time
        made["fieldsType"] = "FieldsV1"
        made["fieldsV1"] = owned
        if self.subresource:
            made["subresource"] = self.subresource
        return made


class EntryError(ValueError):
    """An entry that a client made wrong."""


def given(listed: Iterable[Mapping[str, Any]]) -> list[Entry]:
    """Entries as a client sent them, in canonical form; raises `EntryError`."""
    found: dict[tuple[str, ...], Entry] = {}
    for number, entry in enumerate(listed):
        if entry.get("operation") not in ("Apply", "Update"):
            raise EntryError("operation must be `Apply` or `Update`")
        if not entry.get("apiVersion"):
            raise EntryError("apiVersion must not be empty")
        if entry.get("fieldsType") != "FieldsV1":
            raise EntryError(f"entry {number}: fieldsType must be FieldsV1")
        try:
            owned = sets.canonical(entry.get("fieldsV1") or {})
        except elements.ElementError as error:
            raise EntryError(f"entry {number}: {error}") from error
        writer = Writer(
            entry.get("manager", ""),
            entry["operation"],
            entry["apiVersion"],
            entry.get("subresource", ""),
        )
        version = "" if writer.operation == "Apply" else writer.api_version
        key = (writer.manager, writer.operation, version, writer.subresource)
        found[key] = writer.entry(owned, entry.get("time"))
    return list(found.values())


def is_reset(listed: object) -> bool:
    """Whether a client asks to forget all owners: an empty list, or one empty entry."""
    return listed in ([], [{}])


def ordered(entries: list[Entry]) -> list[Entry]:
    """Entries as Kubernetes sorts them: those that apply first, then by time and name."""
    if len(entries) > 1:
        entries.sort(key=_order)
    return entries


def _order(entry: Entry) -> tuple[str, ...]:
    return (
        entry["operation"],
        entry.get("time", ""),
        entry["manager"],
        entry["apiVersion"],
        entry.get("subresource", ""),
    )


def capped(entries: list[Entry]) -> list[Entry]:
    """At most ten writers that update; the oldest become one entry of all of them."""
    updaters = [entry for entry in entries if entry["operation"] == "Update"]
    excess = len(updaters) - _MOST_UPDATERS
    if excess <= 0:
        return entries
    updaters.sort(key=_order)
    version = updaters[0]["apiVersion"]
    merged = [entry for entry in updaters if entry["apiVersion"] == version][: excess + 1]
    owned: FieldSet = sets.LEAF
    for entry in merged:
        owned = sets.union(owned, entry["fieldsV1"])
    kept = [entry for entry in entries if not any(entry is gone for gone in merged)]
    ancient = Writer(_ANCIENT, "Update", version)
    return [*kept, ancient.entry(owned, merged[-1].get("time"))]


def without(entries: Sequence[Entry], taken: FieldSet) -> list[Entry]:
    """The entries without the members of a set; an entry left with nothing is gone."""
    result = []
    for entry in entries:
        left = sets.difference(entry["fieldsV1"], taken)
        if left is entry["fieldsV1"]:
            result.append(entry)
        elif left:
            result.append({**entry, "fieldsV1": left})
    return result
