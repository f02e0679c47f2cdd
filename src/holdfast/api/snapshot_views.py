"""Frozen, typed views of the snapshot kinds; `api.views` says what a view is."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import msgspec

from holdfast.api.views import Fields, Meta, Reference, View

DEFAULT_CLASS: Final = "snapshot.storage.kubernetes.io/is-default-class"
MODE_CHANGE: Final = "snapshot.storage.kubernetes.io/allow-volume-mode-change"


class SnapshotClass(View, frozen=True):
    metadata: Meta
    driver: str = ""
    parameters: dict[str, str] | None = None
    deletion_policy: str = ""


class SnapshotSource(View, frozen=True):
    persistent_volume_claim_name: str | None = None
    volume_snapshot_content_name: str | None = None


class SnapshotSpec(View, frozen=True):
    source: SnapshotSource = SnapshotSource()
    volume_snapshot_class_name: str | None = None


class SnapshotStatus(View, frozen=True):
    bound_volume_snapshot_content_name: str = ""
    creation_time: str | None = None
    ready_to_use: bool = False
    restore_size: str = ""
    error: Fields | None = None


class Snapshot(View, frozen=True):
    metadata: Meta
    spec: SnapshotSpec = SnapshotSpec()
    status: SnapshotStatus = SnapshotStatus()

    @property
    def dynamic(self) -> bool:
        """Whether the snapshot is to be taken, not only to be found."""
        return self.spec.source.persistent_volume_claim_name is not None


class ContentSource(View, frozen=True):
    volume_handle: str | None = None
    snapshot_handle: str | None = None


class ContentSpec(View, frozen=True):
    volume_snapshot_ref: Reference = Reference()
    deletion_policy: str = ""
    driver: str = ""
    volume_snapshot_class_name: str | None = None
    source: ContentSource = ContentSource()
    source_volume_mode: str = ""


class ContentStatus(View, frozen=True):
    snapshot_handle: str = ""
    creation_time: int | None = None
    restore_size: int | None = None
    ready_to_use: bool = False
    error: Fields | None = None


class Content(View, frozen=True):
    metadata: Meta
    spec: ContentSpec = ContentSpec()
    status: ContentStatus = ContentStatus()

    def is_for(self, snapshot: Snapshot) -> bool:
        """Whether the content belongs to the snapshot (an empty uid reserves by name)."""
        reference = self.spec.volume_snapshot_ref
        return (reference.namespace, reference.name) == snapshot.metadata.key and reference.uid in (
            "",
            snapshot.metadata.uid,
        )


def snapshot_class(obj: Mapping[str, Any]) -> SnapshotClass:
    return msgspec.convert(obj, SnapshotClass)


def snapshot(obj: Mapping[str, Any]) -> Snapshot:
    return msgspec.convert(obj, Snapshot)


def content(obj: Mapping[str, Any]) -> Content:
    return msgspec.convert(obj, Content)
