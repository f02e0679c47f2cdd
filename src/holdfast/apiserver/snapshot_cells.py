"""Columns of the snapshot kinds: those that their custom resource definitions print.

A cell is the value at a path of the object, and null where there is none, as the
reference prints custom resources; times are printed as ages.
"""

from __future__ import annotations

import dataclasses
from datetime import datetime
from typing import Any, Final

from holdfast.apiserver.cells import AGE, Column, Object, Printer, column, name, since

_AGE: Final = dataclasses.replace(AGE, type="date")


def _at(*path: str) -> Printer:
    def cell(obj: Object, now: datetime) -> Any:
        value: Any = obj
        for step in path:
            value = value.get(step) if isinstance(value, dict) else None
        return value

    return cell


def _taken(obj: Object, now: datetime) -> str | None:
    stamp = (obj.get("status") or {}).get("creationTime")
    return since(stamp, now) if stamp else None


CLASS: Final[tuple[Column, ...]] = (
    name("The class's name, unique in the cluster."),
    column("Driver", _at("driver"), "The driver that takes the snapshots."),
    column(
        "DeletionPolicy",
        _at("deletionPolicy"),
        "Whether stored snapshots go with their VolumeSnapshots.",
    ),
    _AGE,
)

CONTENT: Final[tuple[Column, ...]] = (
    name("The content's name, unique in the cluster."),
    column("ReadyToUse", _at("status", "readyToUse"), "Whether volumes can be made from it.").typed(
        "boolean"
    ),
    column(
        "RestoreSize", _at("status", "restoreSize"), "The least size of a restored volume in bytes."
    ).typed("integer"),
    column(
        "DeletionPolicy",
        _at("spec", "deletionPolicy"),
        "Whether the stored snapshot goes with its VolumeSnapshot.",
    ),
    column("Driver", _at("spec", "driver"), "The driver that keeps it."),
    column(
        "VolumeSnapshotClass",
        _at("spec", "volumeSnapshotClassName"),
        "The class it was taken with.",
    ),
    column(
        "VolumeSnapshot", _at("spec", "volumeSnapshotRef", "name"), "The snapshot it belongs to."
    ),
    column(
        "VolumeSnapshotNamespace",
        _at("spec", "volumeSnapshotRef", "namespace"),
        "The namespace of that snapshot.",
    ),
    _AGE,
)

SNAPSHOT: Final[tuple[Column, ...]] = (
    name("The snapshot's name, unique in its namespace."),
    column("ReadyToUse", _at("status", "readyToUse"), "Whether volumes can be made from it.").typed(
        "boolean"
    ),
    column(
        "SourcePVC",
        _at("spec", "source", "persistentVolumeClaimName"),
        "The claim it was taken of.",
    ),
    column(
        "SourceSnapshotContent",
        _at("spec", "source", "volumeSnapshotContentName"),
        "The content it was made for, if that existed before.",
    ),
    column("RestoreSize", _at("status", "restoreSize"), "The least size of a restored volume."),
    column("SnapshotClass", _at("spec", "volumeSnapshotClassName"), "The class it asks for."),
    column(
        "SnapshotContent",
        _at("status", "boundVolumeSnapshotContentName"),
        "The content it is bound to.",
    ),
    column("CreationTime", _taken, "Time since the moment whose data it holds.").typed("date"),
    _AGE,
)
