"""Rules for StorageClasses.

What decides how volumes are made (provisioner, parameters, policy, binding mode)
is fixed once the class exists; who wants another mix makes another class.
"""

from __future__ import annotations

from typing import Final

from holdfast.api import fields
from holdfast.api.fields import Cause
from holdfast.api.validation import names, selecting
from holdfast.api.validation.rules import EMPTY, Object, Rules, each

MAX_PARAMETERS: Final = 512
MAX_PARAMETER_BYTES: Final = 256 * 1024

_POLICIES: Final = ("Delete", "Retain")
_BINDING_MODES: Final = ("Immediate", "WaitForFirstConsumer")
_CHECKED: Final = (
    "provisioner",
    "parameters",
    "reclaimPolicy",
    "volumeBindingMode",
    "allowedTopologies",
)


class StorageClassRules(Rules):
    """Rules of StorageClass."""

    namespaced = False

    def same_body(self, new: Object, old: Object) -> bool:
        """A class has its fields at the top level instead of in a spec."""
        return all(new.get(name) == old.get(name) for name in _CHECKED)

    def body(self, obj: Object) -> list[Cause]:
        """Check provisioner, parameters, policy, binding mode and topologies."""
        provisioner = obj.get("provisioner", "")
        if provisioner:
            said = each("provisioner", provisioner, names.qualified(provisioner.lower()))
        else:
            said = [fields.required("provisioner")]
        said += _parameters(obj.get("parameters", EMPTY))
        policy = obj.get("reclaimPolicy")
        if policy and policy not in _POLICIES:
            said.append(fields.not_supported("reclaimPolicy", policy, _POLICIES))
        mode = obj.get("volumeBindingMode")
        if mode is None:
            said.append(fields.required("volumeBindingMode"))
        elif mode not in _BINDING_MODES:
            said.append(fields.not_supported("volumeBindingMode", mode, _BINDING_MODES))
        said += selecting.topologies(obj.get("allowedTopologies", ()), "allowedTopologies")
        return said

    def transition(self, new: Object, old: Object) -> list[Cause]:
        """Check that what makes volumes stays."""
        said = [
            fields.forbidden(name, f"updates to {name} are forbidden.")
            for name in ("parameters", "provisioner", "reclaimPolicy")
            if (new.get(name) or None) != (old.get(name) or None)
        ]
        mode = new.get("volumeBindingMode")
        if mode != old.get("volumeBindingMode"):
            said.append(fields.immutable("volumeBindingMode", mode))
        return said

    def warnings(self, new: Object, old: Object | None) -> list[str]:
        """Warn of node labels that newer clusters no longer set."""
        said: list[str] = []
        for index, term in enumerate(new.get("allowedTopologies", ())):
            for place, item in enumerate(term.get("matchLabelExpressions", ())):
                text = selecting.OLD_LABELS.get(item.get("key", ""))
                if text:
                    at = f"allowedTopologies[{index}].matchLabelExpressions[{place}].key"
                    said.append(f"{at}: {text}")
        return said


def _parameters(parameters: Object) -> list[Cause]:
    said: list[Cause] = []
    if len(parameters) > MAX_PARAMETERS:
        said.append(fields.too_long("parameters", MAX_PARAMETERS))
        return said
    size = 0
    for key, value in parameters.items():
        if not key:
            said.append(fields.invalid("parameters", key, "field can not be empty."))
        size += len(key.encode()) + len(value.encode())
    if size > MAX_PARAMETER_BYTES:
        said.append(fields.too_long("parameters", MAX_PARAMETER_BYTES))
    return said
