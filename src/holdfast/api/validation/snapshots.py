"""Rules for the snapshot kinds: those of their custom resource definitions, in the same words.

A snapshot and a content each have exactly one source, and keep it for life.
"""

from __future__ import annotations

from typing import Final

from holdfast.api import fields
from holdfast.api.fields import Cause
from holdfast.api.validation.rules import EMPTY, Object, Rules

_POLICIES: Final = ("Delete", "Retain")


class SnapshotClassRules(Rules):
    """Rules of VolumeSnapshotClass."""

    namespaced = False
    unconditional_update = False

    def same_body(self, new: Object, old: Object) -> bool:
        """A class has its fields at the top level instead of in a spec."""
        return all(new.get(name) == old.get(name) for name in ("driver", "deletionPolicy"))

    def body(self, obj: Object) -> list[Cause]:
        """Check driver and policy."""
        said = _policy(obj, "deletionPolicy")
        if not obj.get("driver"):
            said.append(fields.required("driver"))
        return said


class SnapshotRules(Rules):
    """Rules of VolumeSnapshot."""

    unconditional_update = False

    def body(self, obj: Object) -> list[Cause]:
        """Check source and class."""
        spec = obj.get("spec", EMPTY)
        said = _one_source(spec, "volumeSnapshotContentName", "persistentVolumeClaimName")
        if spec.get("volumeSnapshotClassName") == "":
            rule = "volumeSnapshotClassName must not be the empty string when set"
            said.append(fields.invalid("spec.volumeSnapshotClassName", "string", rule))
        return said

    def transition(self, new: Object, old: Object) -> list[Cause]:
        """Check that the source stays."""
        return _fixed_source(new, old, "persistentVolumeClaimName", "volumeSnapshotContentName")


class SnapshotContentRules(Rules):
    """Rules of VolumeSnapshotContent."""

    namespaced = False
    unconditional_update = False

    def body(self, obj: Object) -> list[Cause]:
        """Check driver, policy, source and the snapshot it belongs to."""
        spec = obj.get("spec", EMPTY)
        said = _policy(spec, "spec.deletionPolicy")
        if not spec.get("driver"):
            said.append(fields.required("spec.driver"))
        said += _one_source(spec, "volumeHandle", "snapshotHandle")
        reference = spec.get("volumeSnapshotRef", EMPTY)
        if not (reference.get("name") and reference.get("namespace")):
            rule = (
                "both spec.volumeSnapshotRef.name and spec.volumeSnapshotRef.namespace must be set"
            )
            said.append(fields.invalid("spec.volumeSnapshotRef", "object", rule))
        return said

    def transition(self, new: Object, old: Object) -> list[Cause]:
        """Check that source and mode stay."""
        said = _fixed_source(new, old, "volumeHandle", "snapshotHandle")
        was, now = (one.get("spec", EMPTY).get("sourceVolumeMode") for one in (old, new))
        if was is not None and now is None:
            said.append(fields.invalid("spec", "object", "sourceVolumeMode is required once set"))
        elif was is not None and now != was:
            rule = "sourceVolumeMode is immutable"
            said.append(fields.invalid("spec.sourceVolumeMode", "string", rule))
        return said


def _policy(holder: Object, path: str) -> list[Cause]:
    policy = holder.get("deletionPolicy")
    if not policy:
        return [fields.required(path)]
    return [] if policy in _POLICIES else [fields.not_supported(path, policy, _POLICIES)]


def _one_source(spec: Object, one: str, other: str) -> list[Cause]:
    source = spec.get("source", EMPTY)
    if (one in source) != (other in source):
        return []
    return [
        fields.invalid("spec.source", "object", f"exactly one of {one} and {other} must be set")
    ]


def _fixed_source(new: Object, old: Object, *names: str) -> list[Cause]:
    was, now = (obj.get("spec", EMPTY).get("source", EMPTY) for obj in (old, new))
    said = []
    for name in names:
        if name in was and name not in now:
            said.append(fields.invalid("spec.source", "object", f"{name} is required once set"))
        elif name in was and was[name] != now[name]:
            path = f"spec.source.{name}"
            said.append(fields.invalid(path, "string", f"{name} is immutable"))
    return said
