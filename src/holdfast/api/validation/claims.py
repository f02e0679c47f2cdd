"""Rules for PersistentVolumeClaims: what a claim must say, and the little that may change.

After creation the spec is fixed but for four doors: the volume's name may be
filled in once, the class may be filled in where none was given, the class of the
old annotation may move into the field, and the request of a bound claim may
change (never to the recorded capacity or less when it shrinks).

That growing needs a class that allows it is not checked here: it needs the class
object and is answered with 403 by the write path.
"""

from __future__ import annotations

from typing import Final

from holdfast.api import fields, quantity
from holdfast.api.fields import Cause
from holdfast.api.validation import amounts, names, selecting
from holdfast.api.validation.rules import EMPTY, Object, Rules, each

_SOURCE: Final = fields.Go('field.Path{name:"dataSource", index:""}')
_SPEC_IS_FIXED: Final = (
    "spec is immutable after creation except resources.requests and "
    "volumeAttributesClassName for bound claims"
)
_RESIZE_STATES: Final = (
    "ControllerResizeInProgress",
    "ControllerResizeInfeasible",
    "NodeResizeInProgress",
    "NodeResizeInfeasible",
    "NodeResizePending",
)

_SOURCE_FIELDS: Final = ("dataSource", "dataSourceRef")


class ClaimRules(Rules):
    """Rules of PersistentVolumeClaim."""

    def body(self, obj: Object) -> list[Cause]:
        """Check the spec."""
        spec = obj.get("spec", EMPTY)
        said: list[Cause] = []
        modes = spec.get("accessModes")
        if not modes:
            said.append(fields.required("spec.accessModes", "at least 1 access mode is required"))
        if "selector" in spec:
            said += selecting.label_selector(spec["selector"], "spec.selector")
        if modes:
            said += amounts.access_modes(modes, "spec.accessModes")
        size = _request(spec)
        if size is None:
            said.append(fields.required("spec.resources[storage]"))
        else:
            said += amounts.positive(size, "spec.resources[storage]")
        said += amounts.class_name(spec)
        said += amounts.volume_mode(spec)
        if "dataSource" in spec or "dataSourceRef" in spec:
            said += _sources(spec)
        return said

    def transition(self, new: Object, old: Object) -> list[Cause]:
        """Check that the spec changed through one of the four doors only."""
        said = _beta_class(new, old)
        new_spec, old_spec = new.get("spec", EMPTY), old.get("spec", EMPTY)
        if new_spec == old_spec:
            return said
        if _without_allowed_changes(new, old) != old_spec:
            said.append(fields.forbidden("spec", _SPEC_IS_FIXED))
        said += _shrinking(new_spec, old)
        if new_spec.get("volumeMode") != old_spec.get("volumeMode"):
            said.append(fields.immutable("volumeMode", new_spec.get("volumeMode")))
        name = "volumeAttributesClassName"
        if new_spec.get(name) != old_spec.get(name):
            rule = "update is forbidden when the VolumeAttributesClass feature gate is disabled"
            said.append(fields.forbidden(f"spec.{name}", rule))
        return said

    def status(self, new: Object, old: Object) -> list[Cause]:
        """Check amounts and resize states; phases are free text for the API."""
        status = new.get("status", EMPTY)
        said: list[Cause] = []
        for name, text in status.get("capacity", EMPTY).items():
            said += amounts.in_bytes(text, f"status.capacity[{name}]")
        for name, state in status.get("allocatedResourceStatuses", EMPTY).items():
            path = "status.allocatedResourceStatus"
            said += _resource_name(name, path)
            if state not in _RESIZE_STATES:
                said.append(fields.not_supported(path, fields.Go(name), _RESIZE_STATES))
        for name, text in status.get("allocatedResources", EMPTY).items():
            path = "status.allocatedResources"
            wrong = _resource_name(name, path)
            said += wrong or amounts.in_bytes(text, f"{path}[{name}]")
        return said

    def update(self, new: Object, old: Object) -> list[Cause]:
        """As ever; but a claim that named a group of its source may name any now."""
        said = super().update(new, old)
        spec = old.get("spec", EMPTY)
        if not any((spec.get(part) or EMPTY).get("apiGroup") for part in _SOURCE_FIELDS):
            return said
        kept = {f"spec.{part}.apiGroup" for part in _SOURCE_FIELDS}
        return [cause for cause in said if cause.field not in kept]

    def warnings(self, new: Object, old: Object | None) -> list[str]:
        """Warn of the legacy class annotation and of fractions of a byte."""
        said: list[str] = []
        if amounts.BETA_CLASS in new.get("metadata", EMPTY).get("annotations", EMPTY):
            said.append(
                f"metadata.annotations[{amounts.BETA_CLASS}]: deprecated since v1.8; "
                'use "storageClassName" attribute instead'
            )
        for part in ("requests", "limits"):
            bounds = new.get("spec", EMPTY).get("resources", EMPTY).get(part, EMPTY)
            size = bounds.get("storage")
            if size is not None and amounts.has_fraction(size):
                said.append(
                    f"spec.resources.{part}[storage]: fractional byte value {fields.quote(size)} "
                    "is invalid, must be an integer"
                )
        return said


def _request(spec: Object) -> str | None:
    size: str | None = spec.get("resources", EMPTY).get("requests", EMPTY).get("storage")
    return size


def _annotation(obj: Object) -> str | None:
    value: str | None = obj.get("metadata", EMPTY).get("annotations", EMPTY).get(amounts.BETA_CLASS)
    return value


def _sources(spec: Object) -> list[Cause]:
    source, reference = spec.get("dataSource"), spec.get("dataSourceRef")
    said: list[Cause] = []
    if source is not None:
        said += _source(source, "spec.dataSource")
    if reference is not None:
        said += _source(reference, "spec.dataSourceRef")
    if source is None or reference is None:
        return said
    if reference.get("namespace"):
        rule = "may not be specified when dataSourceRef.namespace is specified"
        said.append(fields.invalid("spec", _SOURCE, rule))
    elif any(source.get(part) != reference.get(part) for part in ("apiGroup", "kind", "name")):
        said.append(fields.invalid("spec", _SOURCE, "must match dataSourceRef"))
    return said


def _source(source: Object, path: str) -> list[Cause]:
    said: list[Cause] = []
    kind, group = source.get("kind", ""), source.get("apiGroup")
    if not source.get("name"):
        said.append(fields.required(f"{path}.name"))
    if not kind:
        said.append(fields.required(f"{path}.kind"))
    if group:
        said += each(f"{path}.apiGroup", group, names.subdomain(group))
    elif kind != "PersistentVolumeClaim":
        rule = "must be 'PersistentVolumeClaim' when referencing the default apiGroup"
        said.append(fields.invalid(path, kind, rule))
    if source.get("namespace"):
        name = source["namespace"]
        said += each(f"{path}.namespace", name, names.label(name))
    return said


def _moves_from_annotation(new: Object, old: Object) -> bool:
    was = _annotation(old)
    return (
        was is not None
        and "storageClassName" not in old.get("spec", EMPTY)
        and new.get("spec", EMPTY).get("storageClassName") == was
        and _annotation(new) in (None, was)
    )


def _beta_class(new: Object, old: Object) -> list[Cause]:
    now, was = _annotation(new) or "", _annotation(old) or ""
    if now == was or _moves_from_annotation(new, old):
        return []
    return [fields.immutable(f"metadata.annotations.{amounts.BETA_CLASS}", now)]


def _without_allowed_changes(new: Object, old: Object) -> Object:
    """Return the new spec with every permitted change undone; it must equal the old one."""
    new_spec, old_spec = new.get("spec", EMPTY), old.get("spec", EMPTY)
    undone = dict(new_spec)
    if not old_spec.get("volumeName"):
        undone.pop("volumeName", None)
    was = _annotation(old)
    if "storageClassName" not in old_spec and was in (None, new_spec.get("storageClassName")):
        undone.pop("storageClassName", None)
    # A changed attributes class gets a complaint of its own.
    _restore(undone, old_spec, "volumeAttributesClassName")
    bound = old.get("status", EMPTY).get("phase") == "Bound"
    resources = new_spec.get("resources", EMPTY)
    if bound:
        # An empty map of requests was left out when the claim was decoded.
        requests = dict(resources.get("requests", EMPTY))
        _restore(requests, old_spec.get("resources", EMPTY).get("requests", EMPTY), "storage")
        undone["resources"] = {**resources, "requests": requests}
    return undone


def _restore(target: Object, source: Object, name: str) -> None:
    if name in source:
        target[name] = source[name]
    else:
        target.pop(name, None)


def _shrinking(new_spec: Object, old: Object) -> list[Cause]:
    now, was = _request(new_spec) or "0", _request(old.get("spec", EMPTY)) or "0"
    if now == was:
        return []
    size = quantity.parse(now)
    recorded = old.get("status", EMPTY).get("capacity", EMPTY).get("storage", "0")
    if size >= quantity.parse(was) or size > quantity.parse(recorded):
        return []
    rule = "field can not be less than status.capacity"
    return [fields.forbidden("spec.resources.requests.storage", rule)]


def _resource_name(name: str, path: str) -> list[Cause]:
    wrong = names.qualified(name)
    if wrong:
        return each(path, name, wrong)
    native = "/" not in name or "kubernetes.io/" in name
    return [fields.not_supported(path, name, ("storage",))] if native and name != "storage" else []
