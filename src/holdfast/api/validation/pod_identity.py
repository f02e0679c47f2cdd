"""Rules for who the containers of a pod run as, and whose its volumes become.

Of the security contexts these parts alone are checked: they decide who may read and write the
files of a volume. The others pass through.
"""

from __future__ import annotations

from typing import Final

from holdfast.api import fields
from holdfast.api.fields import Cause
from holdfast.api.validation.rules import Object

_IDS: Final = ("runAsUser", "runAsGroup", "fsGroup")
_CHANGES: Final = ("Always", "OnRootMismatch")
_SHARED: Final = "ShareProcessNamespace and HostPID cannot both be enabled"


def of_pod(spec: Object) -> list[Cause]:
    """Check `spec.securityContext` and those of the containers."""
    context = spec.get("securityContext") or {}
    path = "spec.securityContext"
    said = _ids(context, path)
    for index, group in enumerate(context.get("supplementalGroups") or ()):
        said += _id(group, f"{path}.supplementalGroups[{index}]")
    policy = context.get("fsGroupChangePolicy")
    if policy is not None and policy not in _CHANGES:
        said.append(fields.not_supported(f"{path}.fsGroupChangePolicy", policy, _CHANGES))
    if spec.get("hostPID") and spec.get("shareProcessNamespace"):
        said.append(fields.invalid(f"{path}.shareProcessNamespace", True, _SHARED))
    for part in ("containers", "initContainers"):
        for index, container in enumerate(spec.get(part) or ()):
            own = container.get("securityContext") or {}
            said += _ids(own, f"spec.{part}[{index}].securityContext")
    return said


def _ids(context: Object, path: str) -> list[Cause]:
    return [
        cause
        for part in _IDS
        if context.get(part) is not None
        for cause in _id(context[part], f"{path}.{part}")
    ]


def _id(number: int, path: str) -> list[Cause]:
    if 0 <= number < 1 << 31:
        return []
    return [fields.invalid(path, number, "must be between 0 and 2147483647, inclusive")]
