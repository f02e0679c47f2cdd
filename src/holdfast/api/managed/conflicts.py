"""Fields that an apply would take from their owners, and how the refusal reads."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import msgspec

from holdfast.api import fields
from holdfast.api.managed import elements, sets
from holdfast.api.managed.entries import Entry
from holdfast.api.managed.sets import FieldSet

REASON = "FieldManagerConflict"


class Conflict(NamedTuple):
    """One field and one owner, as shown to the user: `"m1" using v1`."""

    owner: str
    path: tuple[str, ...]

    @property
    def field(self) -> str:
        """The path as shown to the user."""
        return "".join(map(elements.printed, self.path))


class ApplyConflict(Exception):
    """An apply that needs force; the text is the one the user reads."""

    def __init__(self, found: list[Conflict]) -> None:
        self.conflicts = found
        super().__init__(_message(found))

    def causes(self) -> list[fields.Cause]:
        """One cause per field and owner."""
        return [
            fields.Cause(found.field, REASON, f"conflict with {found.owner}")
            for found in self.conflicts
        ]


def find(owners: Iterable[Entry], changed: FieldSet) -> list[Conflict]:
    """The conflicts with each owner of a changed field, owners sorted by name."""
    found = []
    for entry in sorted(owners, key=_name):
        taken = sets.intersection(entry["fieldsV1"], changed)
        found += [Conflict(_shown(entry), path) for path in sets.paths(taken)]
    return found


def _name(entry: Entry) -> bytes:
    """What Kubernetes sorts owners by: the identifying part of the entry as JSON."""
    parts = {"manager": entry["manager"], "operation": entry["operation"]}
    if entry["operation"] == "Update":
        parts["apiVersion"] = entry["apiVersion"]
    if "subresource" in entry:
        parts["subresource"] = entry["subresource"]
    return msgspec.json.encode(parts)


def _shown(entry: Entry) -> str:
    text = fields.quote(entry["manager"])
    if subresource := entry.get("subresource"):
        text += f" with subresource {fields.quote(subresource)}"
    return f"{text} using {entry['apiVersion']}" if entry["operation"] == "Update" else text


def _message(found: list[Conflict]) -> str:
    if len(found) == 1:
        only = found[0]
        return f"Apply failed with 1 conflict: conflict with {only.owner}: {only.field}"
    lines: list[str] = []
    owner = ""
    for each in found:
        if each.owner != owner:
            owner = each.owner
            lines.append(f"conflicts with {owner}:")
        lines.append(f"- {each.field}")
    return f"Apply failed with {len(found)} conflicts: " + "\n".join(lines)
