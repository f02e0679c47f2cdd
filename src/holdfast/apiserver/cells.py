"""What a table's columns are made of: the column itself and the cells many kinds share.

A printer takes the object and the time that ages are counted to, and returns a
JSON scalar. Ages and class names follow Kubernetes to the letter, because scripts
cut tables into columns.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from holdfast.kit import clock

Object = dict[str, Any]
Printer = Callable[[Object, datetime], Any]

BETA_CLASS: Final = "volume.beta.kubernetes.io/storage-class"

_SHORT_MODES: Final = (
    ("ReadWriteOnce", "RWO"),
    ("ReadOnlyMany", "ROX"),
    ("ReadWriteMany", "RWX"),
    ("ReadWriteOncePod", "RWOP"),
)


@dataclass(frozen=True, slots=True)
class Column:
    """One column; `priority` 1 hides it without `-o wide`."""

    title: str
    cell: Printer
    description: str
    type: str = "string"
    format: str = ""
    priority: int = 0

    def definition(self) -> dict[str, Any]:
        """Return the wire form."""
        return {
            "name": self.title,
            "type": self.type,
            "format": self.format,
            "description": self.description,
            "priority": self.priority,
        }

    def typed(self, type: str) -> Column:
        """Return the column with another JSON type."""
        return dataclasses.replace(self, type=type)

    def formatted(self, format: str) -> Column:
        """Return the column with a format; `name` marks the one that names the object."""
        return dataclasses.replace(self, format=format)


def column(title: str, cell: Printer, description: str) -> Column:
    """Make a column that is always shown."""
    return Column(title, cell, description)


def wide(title: str, cell: Printer, description: str) -> Column:
    """Make a column that is shown with `-o wide`."""
    return Column(title, cell, description, priority=1)


def name(description: str = "The object's name, unique in its namespace.") -> Column:
    """Make the column that names the object."""
    return Column("Name", object_name, description, format="name")


def object_name(obj: Object, now: datetime) -> str:
    """Print `metadata.name`."""
    found: str = obj.get("metadata", {}).get("name", "")
    return found


def since(stamp: str | None, now: datetime) -> str:
    """Print the time from an RFC 3339 stamp to `now`."""
    return clock.age((now - clock.parse(stamp)).total_seconds()) if stamp else "<unknown>"


def age(obj: Object, now: datetime) -> str:
    """Print the time since the object was created."""
    return since(obj.get("metadata", {}).get("creationTimestamp"), now)


AGE: Final = Column("Age", age, "Time since the object was created.")


def access_modes(modes: list[str] | None) -> str:
    """Print access modes by their initials, in Kubernetes' order."""
    return ",".join(short for long, short in _SHORT_MODES if long in modes) if modes else ""


def class_name(obj: Object, now: datetime) -> str:
    """Print the class; the legacy annotation wins over the field."""
    found: str | None = (obj.get("metadata", {}).get("annotations") or {}).get(BETA_CLASS)
    return obj.get("spec", {}).get("storageClassName", "") if found is None else found


def label_text(labels: Mapping[str, str] | None) -> str:
    """Print a map of labels as a selector."""
    if not labels:
        return "<none>"
    return ",".join(f"{key}={labels[key]}" for key in sorted(labels))
