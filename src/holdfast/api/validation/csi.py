"""Rules for CSIDriver, CSINode and CSIStorageCapacity.

A driver's capabilities are declared by its CSIDriver object; two of them decide
how volumes are attached and may not change under running pods. CSINode lists the
drivers of one node; an entry comes and goes whole. Of a CSIStorageCapacity only the
amounts may change: it is about one class and one part of the cluster.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from holdfast.api import fields
from holdfast.api.fields import Cause
from holdfast.api.validation import amounts, names, selecting, sources
from holdfast.api.validation.rules import EMPTY, Object, Rules, each

_GROUP_POLICIES: Final = ("File", "None", "ReadWriteOnceWithFSType")
_LIFECYCLES: Final = ("Persistent", "Ephemeral")
_MUST_BE_SET: Final = (
    # Kubernetes reports the first of these under a name the field does not have.
    ("attachRequired", "spec.attachedRequired"),
    ("podInfoOnMount", "spec.podInfoOnMount"),
    ("storageCapacity", "spec.storageCapacity"),
)
_NODE_ID_LENGTH: Final = 256
_CAPACITY_FIXED: Final = ("nodeTopology", "storageClassName")


class DriverRules(Rules):
    """Rules of CSIDriver."""

    namespaced = False
    unconditional_update = False

    def body(self, obj: Object) -> list[Cause]:
        """Check the declared capabilities."""
        spec = obj.get("spec", EMPTY)
        said = [fields.required(path) for name, path in _MUST_BE_SET if spec.get(name) is None]
        policy = spec.get("fsGroupPolicy")
        if policy is not None and policy not in _GROUP_POLICIES:
            said.append(fields.not_supported("spec.fsGroupPolicy", policy, _GROUP_POLICIES))
        said += _tokens(spec.get("tokenRequests", ()))
        said += [
            fields.not_supported("spec.volumeLifecycleModes", mode, _LIFECYCLES, in_order=True)
            for mode in spec.get("volumeLifecycleModes", ())
            if mode not in _LIFECYCLES
        ]
        return said

    def transition(self, new: Object, old: Object) -> list[Cause]:
        """Check that attaching and life cycles stay."""
        now, was = new.get("spec", EMPTY), old.get("spec", EMPTY)
        fixed = (
            ("attachRequired", "spec.attachedRequired"),
            ("volumeLifecycleModes", "spec.volumeLifecycleModes"),
        )
        return [
            fields.immutable(path, now.get(name))
            for name, path in fixed
            if now.get(name) != was.get(name)
        ]


class CSINodeRules(Rules):
    """Rules of CSINode, which is named like its node."""

    namespaced = False
    unconditional_update = False

    def body(self, obj: Object) -> list[Cause]:
        """Check every driver's entry and that no driver has two."""
        said: list[Cause] = []
        seen: set[str] = set()
        for index, driver in enumerate(obj.get("spec", EMPTY).get("drivers") or ()):
            at = f"spec.drivers[{index}]"
            name = driver.get("name", "")
            said += sources.csi_driver_name(name, f"{at}.name")
            said += _node_driver(driver, at)
            if name in seen:
                said.append(fields.duplicate(f"{at}.name", name))
            seen.add(name)
        return said

    def transition(self, new: Object, old: Object) -> list[Cause]:
        """Check that entries present in both versions are the same."""
        was = {d.get("name"): d for d in old.get("spec", EMPTY).get("drivers") or ()}
        return [
            fields.immutable("CSINodeDriver", driver)
            for driver in new.get("spec", EMPTY).get("drivers") or ()
            if was.get(driver.get("name"), driver) != driver
        ]


class CapacityRules(Rules):
    """Rules of CSIStorageCapacity."""

    unconditional_update = False

    def same_body(self, new: Object, old: Object) -> bool:
        """A capacity has its fields at the top level instead of in a spec."""
        return all(new.get(name) == old.get(name) for name in ("capacity", *_CAPACITY_FIXED))

    def body(self, obj: Object) -> list[Cause]:
        """Check the nodes, the class and the amount; Kubernetes takes any maximum."""
        said = selecting.label_selector(obj.get("nodeTopology", EMPTY), "nodeTopology")
        name = obj.get("storageClassName", "")
        said += each("storageClassName", name, names.subdomain(name))
        if (amount := obj.get("capacity")) is not None:
            rule = "must be greater than or equal to 0"
            said += amounts.not_negative(amount, "capacity", rule)
        return said

    def transition(self, new: Object, old: Object) -> list[Cause]:
        """Check that what the room is of stays."""
        return [
            fields.immutable(name, new.get(name))
            for name in _CAPACITY_FIXED
            if new.get(name) != old.get(name)
        ]


def _tokens(requests: Sequence[Object]) -> list[Cause]:
    said: list[Cause] = []
    seen: set[str] = set()
    for index, request in enumerate(requests):
        at = f"spec.tokenRequests[{index}]"
        audience = request.get("audience", "")
        if audience in seen:
            said.append(fields.duplicate(f"{at}.audience", audience))
        seen.add(audience)
        seconds = request.get("expirationSeconds")
        if seconds is not None and seconds < 600:
            rule = "may not specify a duration less than 10 minutes"
            said.append(fields.invalid(f"{at}.expirationSeconds", seconds, rule))
        elif seconds is not None and seconds > 1 << 32:
            rule = "may not specify a duration larger than 2^32 seconds"
            said.append(fields.invalid(f"{at}.expirationSeconds", seconds, rule))
    return said


def _node_driver(driver: Object, at: str) -> list[Cause]:
    said: list[Cause] = []
    node_id = driver.get("nodeID", "")
    if not node_id:
        said.append(fields.required(f"{at}.nodeID"))
    elif len(node_id) > _NODE_ID_LENGTH:
        rule = f"must be {_NODE_ID_LENGTH} characters or less"
        said.append(fields.invalid(f"{at}.nodeID", node_id, rule))
    count = driver.get("allocatable", EMPTY).get("count")
    if count is not None and count < 0:
        rule = "must be greater than or equal to 0"
        said.append(fields.invalid(f"{at}.allocatable.count", count, rule))
    keys: list[str] = driver.get("topologyKeys") or []
    for place, key in enumerate(keys):
        # Complaints about keys name the driver, not the list or the key.
        if not key:
            said.append(fields.required(at))
        if key in keys[:place]:
            said.append(fields.duplicate(at, key))
        said += each(at, key, names.qualified(key))
    return said
