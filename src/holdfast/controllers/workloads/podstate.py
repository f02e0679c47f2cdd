"""What a pod counts as for the workload that keeps it: active, ready, available.

All functions read the plain object and change nothing. A pod that is being deleted is no longer
active, but it is still there: whoever must not have two pods of one name waits for it to go.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from holdfast.api import views
from holdfast.kit import clock

Pod = Mapping[str, Any]


def is_terminating(pod: Pod) -> bool:
    """Whether the pod is being deleted."""
    return "deletionTimestamp" in pod["metadata"]


def is_finished(pod: Pod) -> bool:
    """Whether its containers have ended for good."""
    return pod.get("status", {}).get("phase") in views.FINISHED


def is_active(pod: Pod) -> bool:
    """Whether it counts towards the number that is wanted."""
    return not is_terminating(pod) and not is_finished(pod)


def ready_since(pod: Pod) -> datetime | None:
    """Return since when the pod is ready; None while it is not."""
    for condition in pod.get("status", {}).get("conditions") or ():
        if condition.get("type") == "Ready" and condition.get("status") == "True":
            stamp = condition.get("lastTransitionTime")
            return clock.parse(stamp) if stamp else clock.now()
    return None


def is_ready(pod: Pod) -> bool:
    """Whether the pod says that it is ready."""
    return ready_since(pod) is not None


def available_in(pod: Pod, seconds: int) -> float | None:
    """Return in how many seconds a ready pod will have been ready for `seconds`; 0 = it has.

    None for a pod that is not ready.
    """
    since = ready_since(pod)
    if since is None:
        return None
    return max(0.0, seconds - (clock.now() - since).total_seconds()) if seconds else 0.0


def is_available(pod: Pod, seconds: int) -> bool:
    """Whether the pod has been ready for `seconds`."""
    return available_in(pod, seconds) == 0.0
