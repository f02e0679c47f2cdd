"""Rules for ResourceQuotas: which resources may be limited, and how."""

from __future__ import annotations

from typing import Final

from holdfast.api import fields, quantity
from holdfast.api.fields import Cause
from holdfast.api.validation import names
from holdfast.api.validation.rules import EMPTY, Object, Rules, each

_STANDARD: Final = frozenset(
    {
        "configmaps",
        "cpu",
        "ephemeral-storage",
        "limits.cpu",
        "limits.ephemeral-storage",
        "limits.memory",
        "memory",
        "persistentvolumeclaims",
        "pods",
        "replicationcontrollers",
        "requests.cpu",
        "requests.ephemeral-storage",
        "requests.memory",
        "requests.storage",
        "resourcequotas",
        "secrets",
        "services",
        "services.loadbalancers",
        "services.nodeports",
    }
)
_WHOLE: Final = frozenset(
    {
        "configmaps",
        "persistentvolumeclaims",
        "pods",
        "replicationcontrollers",
        "resourcequotas",
        "secrets",
        "services",
        "services.loadbalancers",
        "services.nodeports",
    }
)


class QuotaRules(Rules):
    """Rules of ResourceQuota."""

    def body(self, obj: Object) -> list[Cause]:
        """Check the limits."""
        said: list[Cause] = []
        for name, text in obj.get("spec", EMPTY).get("hard", EMPTY).items():
            said += _limit(name, text, f"spec.hard[{name}]")
        return said

    def transition(self, new: Object, old: Object) -> list[Cause]:
        """Check that the scopes stay."""
        was, now = (obj.get("spec", EMPTY).get("scopes") or [] for obj in (old, new))
        return [] if sorted(was) == sorted(now) else [fields.immutable("spec.scopes", now)]

    def status(self, new: Object, old: Object) -> list[Cause]:
        """Check limits and amounts used."""
        said: list[Cause] = []
        for part in ("hard", "used"):
            for name, text in new.get("status", EMPTY).get(part, EMPTY).items():
                said += _limit(name, text, f"status.{part}[{name}]")
        return said


def _limit(name: str, text: str, path: str) -> list[Cause]:
    said = each(path, name, names.qualified(name))
    hugepages = name.startswith(("hugepages-", "requests.hugepages-"))
    if not said and "/" not in name and name not in _STANDARD and not hugepages:
        said.append(fields.invalid(path, name, "must be a standard resource for quota"))
    if quantity.parse(text).nanos < 0:
        said.append(fields.invalid(path, text, "must be greater than or equal to 0"))
    whole = name in _WHOLE or name.startswith("count/")
    if whole and not quantity.parse(text).is_integer:
        said.append(fields.invalid(path, text, "must be an integer"))
    return said
