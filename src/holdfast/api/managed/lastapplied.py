"""The annotation of client-side apply, for those who move on to server-side apply.

An object that kubectl applied from the client has its configuration in an annotation, and its
fields belong to kubectl's updates. When the same kubectl applies on the server for the first
time, that is no conflict for what stands unchanged since; and while the annotation is there, it
is kept up to date. Only the writer named `kubectl` is treated so.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import msgspec

from holdfast.api.managed import checking, comparing, declaring, items, sets
from holdfast.api.managed.sets import FieldSet
from holdfast.api.managed.types import Type

ANNOTATION: Final = "kubectl.kubernetes.io/last-applied-configuration"
MANAGER: Final = "kubectl"
_MOST_BYTES: Final = 256 * 1024

Object = Mapping[str, Any]


def unchanged(live: Object, type: Type) -> FieldSet:
    """The fields of the annotation that the object still has as they were applied."""
    text = (live["metadata"].get("annotations") or {}).get(ANNOTATION)
    if not text:
        return sets.LEAF
    try:
        last = msgspec.json.decode(text)
        if not isinstance(last, dict) or last.get("apiVersion") != live.get("apiVersion"):
            return sets.LEAF
        checking.check(last, type)
        changed, removed = comparing.compare(last, live, type)
        kept = sets.difference(declaring.declared(last, type), changed)
    except (ValueError, checking.TypedError, items.ItemError):
        # The annotation is anybody's to write; what cannot be read says nothing.
        return sets.LEAF
    return sets.difference(kept, removed)


def kept_up(obj: dict[str, Any], config: Object) -> dict[str, Any]:
    """The object with its annotation, if it has one, replaced by the new configuration."""
    annotations = obj["metadata"].get("annotations") or {}
    if not annotations.get(ANNOTATION):
        return obj
    said = dict(config)
    meta = dict(config.get("metadata") or {})
    if isinstance(meta.get("annotations"), Mapping):
        meta["annotations"] = {k: v for k, v in meta["annotations"].items() if k != ANNOTATION}
        said["metadata"] = meta
    text = msgspec.json.encode(said, order="deterministic").decode() + "\n"
    renewed = {**annotations, ANNOTATION: text}
    if sum(len(k.encode()) + len(v.encode()) for k, v in renewed.items()) > _MOST_BYTES:
        del renewed[ANNOTATION]
    return {**obj, "metadata": {**obj["metadata"], "annotations": renewed}}
