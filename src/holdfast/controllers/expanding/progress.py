"""How far the growth of a claim's volume is, as its status tells it.

A growth goes through ControllerResizeInProgress and, where a node has a part in it,
NodeResizePending and NodeResizeInProgress; then every trace of it is removed and the capacity is
the new one. Each function returns the piece of a status patch that takes one of these steps, or
None when the status shows the step already. A patch replaces the list of conditions whole, so it
has to carry the resourceVersion of the claim it was made from.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from holdfast.controllers import conditions

Object = dict[str, Any]

CONTROLLER: Final = "ControllerResizeInProgress"
CONTROLLER_INFEASIBLE: Final = "ControllerResizeInfeasible"
NODE_PENDING: Final = "NodeResizePending"
NODE: Final = "NodeResizeInProgress"
NODE_INFEASIBLE: Final = "NodeResizeInfeasible"
ON_NODE: Final = frozenset({NODE_PENDING, NODE, NODE_INFEASIBLE})

WAITING: Final = (
    "Waiting for user to (re-)start a pod to finish file system resize of volume on node."
)
_RESIZING = "Resizing"
_FILE_SYSTEM = "FileSystemResizePending"
_CONTROLLER_ERROR = "ControllerResizeError"
_NODE_ERROR = "NodeResizeError"
_OURS = frozenset({_RESIZING, _FILE_SYSTEM, _CONTROLLER_ERROR, _NODE_ERROR})


def state_of(claim: Mapping[str, Any]) -> str:
    """Return the state of the growth; "" when there is none."""
    states = (claim.get("status") or {}).get("allocatedResourceStatuses") or {}
    return str(states.get("storage", ""))


def begun(claim: Mapping[str, Any], size: str) -> Object | None:
    """The storage system is asked for `size` now."""
    return _step(claim, CONTROLLER, size, {_RESIZING: ""})


def refused(claim: Mapping[str, Any], size: str, why: str, *, infeasible: bool) -> Object | None:
    """The storage system did not give `size`; `infeasible` when asking again will not help."""
    state = CONTROLLER_INFEASIBLE if infeasible else CONTROLLER
    return _step(claim, state, size, {_RESIZING: "", _CONTROLLER_ERROR: why})


def awaits_node(claim: Mapping[str, Any], size: str) -> Object | None:
    """The storage has `size`; a node has to let the file system or the device follow."""
    return _step(claim, NODE_PENDING, size, {_FILE_SYSTEM: WAITING})


def on_node(claim: Mapping[str, Any]) -> Object | None:
    """The node is at it."""
    return _step(claim, NODE, None, {_FILE_SYSTEM: WAITING})


def failed_on_node(claim: Mapping[str, Any], why: str) -> Object | None:
    """The node could not do it; it is tried again."""
    return _step(claim, NODE, None, {_FILE_SYSTEM: WAITING, _NODE_ERROR: why})


def postponed_on_node(claim: Mapping[str, Any], why: str) -> Object | None:
    """The node can do it only when a pod starts."""
    return _step(claim, NODE_PENDING, None, {_FILE_SYSTEM: WAITING, _NODE_ERROR: why})


def finished(claim: Mapping[str, Any], capacity: str) -> Object:
    """The claim has the new capacity, and nothing is left to do."""
    return {
        "capacity": {"storage": capacity},
        "conditions": _conditions(claim, {}) or None,
        "allocatedResources": None,
        "allocatedResourceStatuses": None,
    }


def _step(
    claim: Mapping[str, Any], state: str, size: str | None, said: Mapping[str, str]
) -> Object | None:
    wanted: Object = {
        "conditions": _conditions(claim, said),
        "allocatedResourceStatuses": {"storage": state},
    }
    if size is not None:
        wanted["allocatedResources"] = {"storage": size}
    status = claim.get("status") or {}
    return None if wanted.items() <= status.items() else wanted


def _conditions(claim: Mapping[str, Any], said: Mapping[str, str]) -> list[Object]:
    """The claim's conditions with ours replaced by those named, which become true."""
    existing: list[Object] = list((claim.get("status") or {}).get("conditions") or ())
    others = [entry for entry in existing if entry.get("type") not in _OURS]
    ours = [
        conditions.condition(existing, type, "True", message=message)
        for type, message in said.items()
    ]
    return [*others, *ours]
