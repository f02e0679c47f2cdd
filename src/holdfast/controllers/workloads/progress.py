"""How far a deployment is: the counts and conditions of its status.

The condition Progressing remembers when something last happened (`lastUpdateTime`); when nothing
happens for `progressDeadlineSeconds`, it becomes False, and `kubectl rollout status` gives up.
Available says whether enough pods serve, whatever the update does.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from holdfast.controllers.workloads import rollout
from holdfast.kit import clock

Object = dict[str, Any]

COMPLETE = "NewReplicaSetAvailable"
TIMED_OUT = "ProgressDeadlineExceeded"
PAUSED = "DeploymentPaused"
RESUMED = "DeploymentResumed"
_AVAILABLE = ("True", "MinimumReplicasAvailable", "Deployment has minimum availability.")
_UNAVAILABLE = (
    "False",
    "MinimumReplicasUnavailable",
    "Deployment does not have minimum availability.",
)


def condition_of(obj: Object, type: str) -> Object | None:
    """Return a condition of the status."""
    for each in obj.get("status", {}).get("conditions") or ():
        if each.get("type") == type:
            found: Object = each
            return found
    return None


def counts(deployment: Object, sets: Sequence[Object], new: Object | None) -> Object:
    """Count the pods of all replica sets."""
    available = rollout.counted(sets, "availableReplicas")
    return {
        "observedGeneration": deployment["metadata"].get("generation", 0),
        "replicas": rollout.counted(sets, "replicas"),
        "updatedReplicas": rollout.counted([new], "replicas") if new is not None else 0,
        "readyReplicas": rollout.counted(sets, "readyReplicas"),
        "availableReplicas": available,
        "unavailableReplicas": max(0, rollout.total(sets) - available),
    }


def is_complete(deployment: Object, status: Object) -> bool:
    """Whether all wanted pods are of the present template and available, and no others exist."""
    replicas = rollout.wanted(deployment)
    same = ("updatedReplicas", "replicas", "availableReplicas")
    return all(status.get(field, 0) == replicas for field in same)


def conditions_of(
    deployment: Object, status: Object, sets: Sequence[Object], new: Object | None
) -> list[Object]:
    """Return the conditions that go with new counts."""
    _, missing = rollout.margins(deployment)
    enough = status["availableReplicas"] >= rollout.wanted(deployment) - missing
    made = [_made(deployment, "Available", *(_AVAILABLE if enough else _UNAVAILABLE))]
    if (progressing := _progressing(deployment, status, new)) is not None:
        made.append(progressing)
    failure = next((f for each in sets if (f := condition_of(each, "ReplicaFailure"))), None)
    if failure is not None:
        said = (failure["status"], failure.get("reason", ""), failure.get("message", ""))
        made.append(_made(deployment, "ReplicaFailure", *said))
    types = {each["type"] for each in made} | {"ReplicaFailure"}
    existing = deployment.get("status", {}).get("conditions") or ()
    return [*(each for each in existing if each["type"] not in types), *made]


def _progressing(deployment: Object, status: Object, new: Object | None) -> Object | None:
    old = condition_of(deployment, "Progressing")
    if deployment["spec"].get("progressDeadlineSeconds") is None:
        return None
    if deployment["spec"].get("paused"):
        if old is not None and old.get("reason") in (TIMED_OUT, PAUSED):
            return old
        return _made(deployment, "Progressing", "Unknown", PAUSED, "Deployment is paused")
    if old is not None and old.get("reason") == PAUSED:
        return _made(deployment, "Progressing", "Unknown", RESUMED, "Deployment is resumed")
    name = _subject(deployment, new)
    if is_complete(deployment, status):
        text = f"{name} has successfully progressed."
        return _made(deployment, "Progressing", "True", COMPLETE, text)
    if old is not None and old.get("reason") == COMPLETE and _is_updated(status):
        # Pods that come and go after an update are no part of it.
        return old
    if old is None or _has_moved(deployment, status):
        text = f"{name} is progressing."
        return _made(deployment, "Progressing", "True", "ReplicaSetUpdated", text, touch=True)
    if deadline_in(deployment, status) == 0.0:
        text = f"{name} has timed out progressing."
        return _made(deployment, "Progressing", "False", TIMED_OUT, text)
    return old


def deadline_in(deployment: Object, status: Object) -> float | None:
    """Return the seconds until an update without progress counts as failed; None if never."""
    limit = deployment["spec"].get("progressDeadlineSeconds")
    old = condition_of(deployment, "Progressing")
    waiting = limit is not None and old is not None and old.get("reason") != COMPLETE
    if not waiting or deployment["spec"].get("paused") or is_complete(deployment, status):
        return None
    assert old is not None and limit is not None
    stamp = old.get("lastUpdateTime") or old.get("lastTransitionTime")
    since = clock.parse(stamp) if stamp else clock.now()
    left = limit - (clock.now() - since).total_seconds()
    return max(0.0, float(left))


def begun(deployment: Object, reason: str, text: str) -> list[Object]:
    """Return the conditions with Progressing saying that an update begins."""
    made = _made(deployment, "Progressing", "True", reason, text, touch=True)
    existing = deployment.get("status", {}).get("conditions") or ()
    return [*(each for each in existing if each["type"] != "Progressing"), made]


def _is_updated(status: Object) -> bool:
    return bool(status["replicas"] == status["updatedReplicas"])


def _has_moved(deployment: Object, status: Object) -> bool:
    before = deployment.get("status", {})

    def old_pods(counted: Object) -> int:
        return int(counted.get("replicas", 0)) - int(counted.get("updatedReplicas", 0))

    grown = any(
        status[field] > before.get(field, 0)
        for field in ("updatedReplicas", "readyReplicas", "availableReplicas")
    )
    return grown or old_pods(status) < old_pods(before)


def _subject(deployment: Object, new: Object | None) -> str:
    if new is not None:
        return f'ReplicaSet "{new["metadata"]["name"]}"'
    return f'Deployment "{deployment["metadata"]["name"]}"'


def _made(
    deployment: Object, type: str, status: str, reason: str, text: str, *, touch: bool = False
) -> Object:
    """Build a condition; one that says the same is kept as it is unless it is to be touched."""
    old = condition_of(deployment, type)
    now = clock.rfc3339(clock.now())
    if old is not None and not touch:
        said = (old["status"], old.get("reason", ""), old.get("message", ""))
        if said == (status, reason, text):
            return old
    same = old is not None and old["status"] == status
    since = old["lastTransitionTime"] if old is not None and same else now
    return {
        "type": type,
        "status": status,
        "lastUpdateTime": now,
        "lastTransitionTime": since,
        "reason": reason,
        "message": text,
    }
