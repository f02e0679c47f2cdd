"""The status of a pod in the words of a kubelet.

`of` tells what the pod's containers do. Where containers cannot be run, `running` stands
in: a pod runs as soon as its volumes are mounted and until it is deleted, and its init
containers count as completed. Only those fields are built that the agent owns; other
conditions of the pod are kept.

The invariant: a status that says nothing new is not written, and the time a container
started at never changes while it runs, also across restarts of the agent.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from holdfast.api import views
from holdfast.controllers import conditions
from holdfast.controllers.nodeagent.states import COMMANDS_RUN, Progress
from holdfast.kit import clock

Status = dict[str, Any]


def creating(obj: Mapping[str, Any], address: str, broken: Mapping[str, str]) -> Status:
    """Status of a pod whose volumes are not all mounted.

    `broken` names containers that cannot be made although the volumes are there,
    with the reason.
    """
    pod = views.pod(obj)
    names = [container.name for container in pod.spec.containers]
    waiting = f"containers with unready status: [{' '.join(names)}]"
    not_ready = ("False", "ContainersNotReady", waiting)
    return _status(
        obj,
        "Pending",
        address,
        [("Initialized", "True", "", ""), ("Ready", *not_ready), ("ContainersReady", *not_ready)],
        [_waiting(container, broken.get(container.name)) for container in pod.spec.containers],
        [_waiting(container, None) for container in pod.spec.init_containers],
    )


def of(obj: Mapping[str, Any], address: str, progress: Progress) -> Status:
    """Status of a pod whose containers are run; it has the address of the machine."""
    pod = views.pod(obj)
    ended = progress.phase in views.FINISHED
    unready = [each.container.name for each in progress.main if not each.ready]
    ready: tuple[str, str, str] = ("True", "", "")
    if ended:
        ready = ("False", "PodCompleted" if progress.phase == "Succeeded" else "PodFailed", "")
    elif unready:
        text = f"containers with unready status: [{' '.join(unready)}]"
        ready = ("False", "ContainersNotReady", text)
    initialized: tuple[str, str, str] = ("True", "", "")
    if not progress.initialized:
        names = [each.container.name for each in progress.init if not each.ready]
        text = f"containers with incomplete status: [{' '.join(names)}]"
        initialized = ("False", "ContainersNotInitialized", text)
    elif progress.phase == "Succeeded":
        initialized = ("True", "PodCompleted", "")
    status = _status(
        obj,
        progress.phase,
        address,
        [
            ("Initialized", *initialized),
            ("Ready", *_gated(pod, obj, ready)),
            ("ContainersReady", *ready),
            (COMMANDS_RUN, *_commands_run(progress)),
        ],
        [each.entry() for each in progress.main],
        [each.entry() for each in progress.init],
    )
    return {**status, "podIP": address, "podIPs": [{"ip": address}]}


def not_run(why: str) -> tuple[str, str, str, str]:
    """The condition of a pod on a machine that cannot run containers."""
    return (COMMANDS_RUN, "False", "ContainersNotRun", why)


def _commands_run(progress: Progress) -> tuple[str, str, str]:
    if not progress.sleeps:
        return ("True", "", "")
    text = "; ".join(f"container {name} sleeps: {why}" for name, why in progress.sleeps.items())
    return ("False", "CommandNotHere", text)


def _gated(
    pod: views.Pod, obj: Mapping[str, Any], ready: tuple[str, str, str]
) -> tuple[str, str, str]:
    """Ready also needs the conditions that the pod's readiness gates name."""
    existing = {entry.type: entry.status for entry in pod.status.conditions}
    gates = [each.get("conditionType", "") for each in obj["spec"].get("readinessGates") or ()]
    if ready[0] != "True" or all(existing.get(gate) == "True" for gate in gates):
        return ready
    return ("False", "ReadinessGatesNotReady", "the status of pod readiness gates is not True")


def running(obj: Mapping[str, Any], address: str, why: str = "") -> Status:
    """Status of a pod whose volumes are mounted; `why` its containers are not run."""
    pod = views.pod(obj)
    started = _started(obj) or clock.rfc3339(clock.now())
    fine = ("True", "", "")
    return _status(
        obj,
        "Running",
        address,
        [
            ("Initialized", *fine),
            ("Ready", *fine),
            ("ContainersReady", *fine),
            *([not_run(why)] if why else []),
        ],
        [_running(pod, container, started) for container in pod.spec.containers],
        [_completed(pod, container, started) for container in pod.spec.init_containers],
    )


def difference(obj: Mapping[str, Any], status: Status) -> Status:
    """Return the fields of the status that the object does not show yet."""
    current: Mapping[str, Any] = obj.get("status") or {}
    return {key: value for key, value in status.items() if current.get(key) != value}


def _status(
    obj: Mapping[str, Any],
    phase: str,
    address: str,
    states: Sequence[tuple[str, str, str, str]],
    containers: list[Status],
    init_containers: list[Status],
) -> Status:
    current: Mapping[str, Any] = obj.get("status") or {}
    status: Status = {
        "phase": phase,
        "hostIP": address,
        "hostIPs": [{"ip": address}],
        "startTime": current.get("startTime") or clock.rfc3339(clock.now()),
        "conditions": _conditions(current, [*states, ("PodScheduled", "True", "", "")]),
        "containerStatuses": containers,
    }
    if init_containers:
        status["initContainerStatuses"] = init_containers
    return status


def _conditions(
    current: Mapping[str, Any], states: Sequence[tuple[str, str, str, str]]
) -> list[Status]:
    existing: list[Status] = list(current.get("conditions") or ())
    ours = {
        type: conditions.condition(existing, type, state, reason=reason, message=message)
        for type, state, reason, message in states
    }
    # Entries stay where they are, so that an unchanged list compares as unchanged.
    kept = [_refreshed(entry, ours.pop(entry["type"], None)) for entry in existing]
    return [*kept, *ours.values()]


def _refreshed(entry: Status, wanted: Status | None) -> Status:
    if wanted is None:
        return entry
    said = ("type", "status", "reason", "message")
    return entry if all(entry.get(key) == wanted.get(key) for key in said) else wanted


def _waiting(container: views.Container, broken: str | None) -> Status:
    state = {"reason": "ContainerCreating"}
    if broken is not None:
        state = {"reason": "CreateContainerConfigError", "message": broken}
    return {
        "name": container.name,
        "state": {"waiting": state},
        "lastState": {},
        "ready": False,
        "restartCount": 0,
        "image": container.image,
        "imageID": "",
        "started": False,
    }


def _running(pod: views.Pod, container: views.Container, started: str) -> Status:
    return {
        "name": container.name,
        "state": {"running": {"startedAt": started}},
        "lastState": {},
        "ready": True,
        "restartCount": 0,
        "image": container.image,
        "imageID": "",
        "containerID": _container_id(pod, container),
        "started": True,
    }


def _completed(pod: views.Pod, container: views.Container, at: str) -> Status:
    done = {
        "exitCode": 0,
        "reason": "Completed",
        "startedAt": at,
        "finishedAt": at,
        "containerID": _container_id(pod, container),
    }
    return {
        "name": container.name,
        "state": {"terminated": done},
        "lastState": {},
        "ready": True,
        "restartCount": 0,
        "image": container.image,
        "imageID": "",
        "containerID": _container_id(pod, container),
        "started": False,
    }


def _container_id(pod: views.Pod, container: views.Container) -> str:
    return f"holdfast://{pod.metadata.uid}/{container.name}"


def _started(obj: Mapping[str, Any]) -> str | None:
    for entry in obj.get("status", {}).get("containerStatuses") or ():
        started: str | None = entry.get("state", {}).get("running", {}).get("startedAt")
        if started:
            return started
    return None
