"""Rules for `metadata`, which are the same for every kind.

`create` checks a whole metadata, `update` what may change in one and the parts
that did change. A part equal to the stored one is not looked at again: it was
checked when it came in. Kubernetes repeats some of these complaints two or three
times in one answer; here each is reported once.

The server itself fills uid, creationTimestamp, deletionTimestamp and
resourceVersion before these rules run, so they only guard against mistakes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

from holdfast.api import fields
from holdfast.api.fields import Cause
from holdfast.api.validation import names

Object = dict[str, Any]

MAX_ANNOTATIONS: Final = 256 * 1024
"""Bytes of all keys and values together."""

_PLAIN_FINALIZERS: Final = frozenset({"kubernetes", "orphan", "foregroundDeletion"})
_IMMUTABLE: Final = (
    "name",
    "namespace",
    "uid",
    "creationTimestamp",
    "deletionTimestamp",
    "deletionGracePeriodSeconds",
)


def create(meta: Object, *, namespaced: bool, check: names.Checker) -> list[Cause]:
    """Check the metadata of a new object; `check` is the grammar of its name."""
    said: list[Cause] = []
    prefix = meta.get("generateName")
    if prefix:
        said += _each("metadata.generateName", prefix, names.generated(check)(prefix))
    name = meta.get("name")
    if not name:
        said.append(fields.required("metadata.name", "name or generateName is required"))
    else:
        said += _each("metadata.name", name, check(name))
    if namespaced:
        said += _namespace(meta.get("namespace"))
    for part, rule in _PARTS.items():
        if part in meta:
            said += rule(meta[part])
    return said


def update(new: Object, old: Object) -> list[Cause]:
    """Check what changed between two versions of one object's metadata."""
    said: list[Cause] = []
    for part in _IMMUTABLE:
        if new.get(part) != old.get(part):
            said.append(fields.immutable(f"metadata.{part}", new.get(part, "")))
    if new.get("generation", 0) < old.get("generation", 0):
        path = "metadata.generation"
        said.append(fields.invalid(path, new.get("generation", 0), "must not be decremented"))
    if "deletionTimestamp" in old:
        said += _no_new_finalizers(new, old)
    for part, rule in _PARTS.items():
        value = new.get(part)
        if value is not None and value != old.get(part):
            said += rule(value)
    return said


def labels(value: Object, path: str = "metadata.labels") -> list[Cause]:
    """Check the keys and values of a map of labels."""
    said: list[Cause] = []
    for key, text in value.items():
        said += _each(path, key, names.qualified(key))
        said += _each(path, text, names.label_value(text))
    return said


def notes(value: Object, path: str = "metadata.annotations") -> list[Cause]:
    """Check the keys of a map of annotations and the size of the whole."""
    said: list[Cause] = []
    size = 0
    for key, text in value.items():
        # Keys may have capitals anywhere, so the prefix is checked in lower case.
        said += _each(path, key, names.qualified(key.lower()))
        size += len(key) + len(text)
    if size > MAX_ANNOTATIONS // 4 and _byte_size(value) > MAX_ANNOTATIONS:
        said.append(fields.too_long(path, MAX_ANNOTATIONS))
    return said


def finalizers(value: Sequence[str]) -> list[Cause]:
    """Check finalizer names: qualified, or one of the few plain ones."""
    path = "metadata.finalizers"
    said: list[Cause] = []
    for index, name in enumerate(value):
        said += _each(path, name, names.qualified(name))
        if "/" not in name and name not in _PLAIN_FINALIZERS:
            rule = "name is neither a standard finalizer name nor is it fully qualified"
            said.append(fields.invalid(f"{path}[{index}]", name, rule))
    if "orphan" in value and "foregroundDeletion" in value:
        rule = "finalizer orphan and foregroundDeletion cannot be both set"
        said.append(fields.invalid(path, list(value), rule))
    return said


def _owners(value: Sequence[Object]) -> list[Cause]:
    path = "metadata.ownerReferences"
    said: list[Cause] = []
    for owner in value:
        version = owner.get("apiVersion", "")
        if not version.rpartition("/")[2] or version.count("/") > 1:
            said.append(fields.invalid(f"{path}.apiVersion", version, "version must not be empty"))
        for part in ("kind", "name", "uid"):
            if not owner.get(part):
                said.append(fields.invalid(f"{path}.{part}", "", f"{part} must not be empty"))
        if version == "v1" and owner.get("kind") == "Event":
            rule = "/v1, Kind=Event is disallowed from being an owner"
            said.append(fields.invalid(path, owner, rule))
    managing = [owner for owner in value if owner.get("controller")]
    if len(managing) > 1:
        first, second = (
            f"{owner.get('kind', '')}/{owner.get('name', '')}" for owner in managing[:2]
        )
        rule = (
            "Only one reference can have Controller set to true. "
            f'Found "true" in references for {first} and {second}'
        )
        said.append(fields.invalid(path, list(value), rule))
    return said


_PARTS: Final[dict[str, Callable[[Any], list[Cause]]]] = {
    "labels": labels,
    "annotations": notes,
    "finalizers": finalizers,
    "ownerReferences": _owners,
}


def _namespace(name: str | None) -> list[Cause]:
    if not name:
        return [fields.required("metadata.namespace")]
    return _each("metadata.namespace", name, names.label(name))


def _no_new_finalizers(new: Object, old: Object) -> list[Cause]:
    added = sorted(set(new.get("finalizers", ())) - set(old.get("finalizers", ())))
    if not added:
        return []
    listed = ", ".join(fields.quote(name) for name in added)
    rule = (
        "no new finalizers can be added if the object is being deleted, "
        f"found new finalizers []string{{{listed}}}"
    )
    return [fields.forbidden("metadata.finalizers", rule)]


def _byte_size(value: Object) -> int:
    return sum(len(key.encode()) + len(text.encode()) for key, text in value.items())


def _each(path: str, value: object, texts: Sequence[str]) -> list[Cause]:
    return [fields.invalid(path, value, text) for text in texts] if texts else []
