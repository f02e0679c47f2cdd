"""Conditions in an object's status: one entry per type, changed by copy.

``made`` answers with the piece of a merge patch that sets a condition, or None
when the object already says so. A merge patch replaces lists whole, so callers
send the object's resourceVersion along: a condition another writer added in
between must not be lost.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from holdfast.kit import clock


def made(
    obj: Mapping[str, Any], type: str, status: str, *, reason: str = "", message: str = ""
) -> dict[str, Any] | None:
    """Return {"conditions": [...]} with the condition set, or None when nothing changes."""
    existing: list[dict[str, Any]] = list(obj.get("status", {}).get("conditions") or ())
    entry = condition(existing, type, status, reason=reason, message=message)
    if entry in existing:
        return None
    others = [other for other in existing if other.get("type") != type]
    return {"conditions": [*others, entry]}


def condition(
    existing: list[dict[str, Any]], type: str, status: str, *, reason: str = "", message: str = ""
) -> dict[str, Any]:
    """Build a condition; its transition time moves only when its status does."""
    old = next((other for other in existing if other.get("type") == type), {})
    same = old.get("status") == status and "lastTransitionTime" in old
    entry: dict[str, Any] = {
        "type": type,
        "status": status,
        "lastTransitionTime": old["lastTransitionTime"] if same else clock.rfc3339(clock.now()),
    }
    if reason:
        entry["reason"] = reason
    if message:
        entry["message"] = message
    return entry
