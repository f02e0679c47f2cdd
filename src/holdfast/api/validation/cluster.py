"""Rules for the kinds around workloads: Namespace, Node, Event, Lease.

These are the parts of Kubernetes' rules that protect what this control plane
itself relies on: phases, taints, the home of events, lease times.
"""

from __future__ import annotations

import dataclasses
from typing import Final

from holdfast.api import fields
from holdfast.api.fields import Cause
from holdfast.api.validation import amounts, names
from holdfast.api.validation.rules import EMPTY, Object, Rules, each

_TAINT_EFFECTS: Final = ("NoSchedule", "PreferNoSchedule", "NoExecute")


class NamespaceRules(Rules):
    """Rules of Namespace."""

    namespaced = False

    def check_name(self, name: str) -> tuple[str, ...]:
        """A namespace's name becomes a DNS label."""
        return names.label(name)

    def body(self, obj: Object) -> list[Cause]:
        """Check the names of the spec's own finalizers."""
        said: list[Cause] = []
        for name in obj.get("spec", EMPTY).get("finalizers") or ():
            said += each("spec.finalizers", name, names.qualified(name))
        return said

    def status(self, new: Object, old: Object) -> list[Cause]:
        """Check that the phase tells whether the namespace is being deleted."""
        phase = new.get("status", EMPTY).get("phase", "")
        deleted = "deletionTimestamp" in new.get("metadata", EMPTY)
        if deleted and phase != "Terminating":
            rule = "may only be 'Terminating' if `deletionTimestamp` is not empty"
            return [fields.invalid("status.Phase", phase, rule)]
        if not deleted and phase != "Active":
            rule = "may only be 'Active' if `deletionTimestamp` is empty"
            return [fields.invalid("status.Phase", phase, rule)]
        return []


class NodeRules(Rules):
    """Rules of Node."""

    namespaced = False

    def body(self, obj: Object) -> list[Cause]:
        """Check taints."""
        said: list[Cause] = []
        seen: set[tuple[str, str]] = set()
        for index, taint in enumerate(obj.get("spec", EMPTY).get("taints") or ()):
            said += _taint(taint, f"metadata.taints[{index}]", seen)
        return said

    def transition(self, new: Object, old: Object) -> list[Cause]:
        """Check that the provider's identity is given at most once."""
        was = old.get("spec", EMPTY).get("providerID", "")
        if not was or new.get("spec", EMPTY).get("providerID", "") == was:
            return []
        rule = 'node updates may not change providerID except from "" to valid'
        return [fields.forbidden("spec.providerID", rule)]

    def status(self, new: Object, old: Object) -> list[Cause]:
        """Check capacities and addresses."""
        status = new.get("status", EMPTY)
        said: list[Cause] = []
        for part in ("capacity", "allocatable"):
            for name, text in status.get(part, EMPTY).items():
                said += amounts.not_negative(
                    text, f"status.{part}.{name}", "must be greater than or equal to 0"
                )
        seen: list[Object] = []
        for index, address in enumerate(status.get("addresses") or ()):
            if address in seen:
                said.append(fields.duplicate(f"status.addresses[{index}]", address))
            seen.append(address)
        return said


class EventRules(Rules):
    """Rules of Event: it lives where the object it is about lives."""

    def create(self, obj: Object) -> list[Cause]:
        """Check the home first; Kubernetes accepts any further content."""
        return [*super().create(obj), *_home(obj)]


class LeaseRules(Rules):
    """Rules of Lease."""

    unconditional_update = False

    def body(self, obj: Object) -> list[Cause]:
        """Check durations and counters."""
        spec = obj.get("spec", EMPTY)
        said: list[Cause] = []
        seconds, changes = spec.get("leaseDurationSeconds"), spec.get("leaseTransitions")
        if seconds is not None and seconds <= 0:
            path = "spec.leaseDurationSeconds"
            said.append(fields.invalid(path, seconds, "must be greater than 0"))
        if changes is not None and changes < 0:
            path = "spec.leaseTransitions"
            said.append(fields.invalid(path, changes, "must be greater than or equal to 0"))
        return said


def _home(event: Object) -> list[Cause]:
    home = event.get("metadata", EMPTY).get("namespace", "")
    about = event.get("involvedObject", EMPTY).get("namespace", "")
    fits = home == about if about else home in ("default", "kube-system")
    if fits:
        return []
    rule = "does not match event.namespace"
    return [fields.invalid("involvedObject.namespace", about, rule)]


def _taint(taint: Object, at: str, seen: set[tuple[str, str]]) -> list[Cause]:
    key, value, effect = (taint.get(part, "") for part in ("key", "value", "effect"))
    said = each(f"{at}.key", key, names.qualified(key))
    said += each(f"{at}.value", value, names.label_value(value))
    if not effect:
        said.append(fields.required(f"{at}.effect"))
    elif effect not in _TAINT_EFFECTS:
        said.append(fields.not_supported(f"{at}.effect", effect, _TAINT_EFFECTS, in_order=True))
    if (key, effect) in seen:
        twice = fields.duplicate(at, taint)
        rule = "taints must be unique by key and effect pair"
        said.append(dataclasses.replace(twice, message=f"{twice.message}: {rule}"))
    seen.add((key, effect))
    return said
