"""Columns of Pod and Node, whose status column is a summary of several fields.

A pod's one-word status is found by going through its containers: the first init
container that is not done decides, otherwise the first container that waits or has
ended with a reason. The same walk counts restarts and ready containers, so three
columns share it.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Final

from holdfast.apiserver.cells import AGE, Column, Object, Printer, column, name, since, wide

_NONE: Final = "<none>"
_UNKNOWN: Final = "<unknown>"
_ROLE_PREFIX: Final = "node-role.kubernetes.io/"
_ROLE: Final = "kubernetes.io/role"
_ENDED: Final = ("Failed", "Succeeded")


@dataclass(slots=True)
class _Summary:
    """What the containers of a pod say together."""

    reason: str
    ready: int = 0
    total: int = 0
    restarts: int = 0
    sidecar_restarts: int = 0
    last_restart: str = ""

    def count(self, container: Object) -> None:
        self.restarts += container.get("restartCount", 0)
        ended = container.get("lastState", {}).get("terminated") or {}
        # RFC 3339 stamps in UTC sort as text.
        self.last_restart = max(self.last_restart, ended.get("finishedAt") or "")


def _summary(pod: Object) -> _Summary:
    spec, status = pod.get("spec", {}), pod.get("status", {})
    found = _Summary(status.get("reason") or status.get("phase", ""))
    if _condition(status, "PodScheduled").get("reason") == "SchedulingGated":
        found.reason = "SchedulingGated"
    found.total = len(spec.get("containers") or ())
    waits = _read_init_containers(spec, status, found)
    if not waits or _condition(status, "Initialized").get("status") == "True":
        _read_containers(status, found)
    if "deletionTimestamp" in pod.get("metadata", {}):
        if status.get("reason") == "NodeLost":
            found.reason = "Unknown"
        elif status.get("phase") not in _ENDED:
            found.reason = "Terminating"
    return found


def _read_init_containers(spec: Object, status: Object, found: _Summary) -> bool:
    """Read the init containers up to the first that is not done; tell whether there is one."""
    declared = spec.get("initContainers") or ()
    sidecars = {c.get("name") for c in declared if c.get("restartPolicy") == "Always"}
    found.total += len(sidecars)
    for index, container in enumerate(status.get("initContainerStatuses") or ()):
        found.count(container)
        if container.get("name") in sidecars:
            found.sidecar_restarts += container.get("restartCount", 0)
        ended = container.get("state", {}).get("terminated")
        if ended is not None and not ended.get("exitCode"):
            continue
        if container.get("name") in sidecars and container.get("started"):
            found.ready += bool(container.get("ready"))
            continue
        waiting = (container.get("state", {}).get("waiting") or {}).get("reason", "")
        if ended is not None:
            found.reason = f"Init:{_end(ended)}"
        elif waiting and waiting != "PodInitializing":
            found.reason = f"Init:{waiting}"
        else:
            found.reason = f"Init:{index}/{len(declared)}"
        return True
    return False


def _read_containers(status: Object, found: _Summary) -> None:
    # Restarts of init containers that are done are history.
    found.restarts = found.sidecar_restarts
    running = False
    for container in reversed(status.get("containerStatuses") or ()):
        found.count(container)
        state = container.get("state", {})
        ended = state.get("terminated")
        waiting = (state.get("waiting") or {}).get("reason", "")
        if waiting:
            found.reason = waiting
        elif ended is not None:
            found.reason = _end(ended)
        elif container.get("ready") and "running" in state:
            running = True
            found.ready += 1
    if found.reason == "Completed" and running:
        # One container is done, another still runs.
        ready = _condition(status, "Ready").get("status") == "True"
        found.reason = "Running" if ready else "NotReady"


def _end(ended: Object) -> str:
    if ended.get("reason"):
        return str(ended["reason"])
    if ended.get("signal"):
        return f"Signal:{ended['signal']}"
    return f"ExitCode:{ended.get('exitCode', 0)}"


def _condition(status: Object, type: str) -> Object:
    for condition in status.get("conditions") or ():
        if condition.get("type") == type:
            found: Object = condition
            return found
    return {}


def _ready(pod: Object, now: datetime) -> str:
    found = _summary(pod)
    return f"{found.ready}/{found.total}"


def _pod_status(pod: Object, now: datetime) -> str:
    return _summary(pod).reason


def _restarts(pod: Object, now: datetime) -> str:
    found = _summary(pod)
    if found.restarts and found.last_restart:
        return f"{found.restarts} ({since(found.last_restart, now)} ago)"
    return str(found.restarts)


def _pod_address(pod: Object, now: datetime) -> str:
    status = pod.get("status", {})
    several = status.get("podIPs") or ()
    return (several[0].get("ip") if several else status.get("podIP")) or _NONE


def _gates(pod: Object, now: datetime) -> str:
    gates = pod.get("spec", {}).get("readinessGates") or ()
    if not gates:
        return _NONE
    states = [_condition(pod.get("status", {}), g.get("conditionType", "")) for g in gates]
    return f"{sum(s.get('status') == 'True' for s in states)}/{len(gates)}"


def _node_status(node: Object, now: datetime) -> str:
    ready = _condition(node.get("status", {}), "Ready")
    word = "Unknown"
    if ready:
        word = "Ready" if ready.get("status") == "True" else "NotReady"
    return f"{word},SchedulingDisabled" if node.get("spec", {}).get("unschedulable") else word


def _roles(node: Object, now: datetime) -> str:
    found: set[str] = set()
    for key, value in (node.get("metadata", {}).get("labels") or {}).items():
        if key.startswith(_ROLE_PREFIX):
            found.add(key.removeprefix(_ROLE_PREFIX))
        elif key == _ROLE:
            found.add(value)
    return ",".join(sorted(found - {""})) or _NONE


def _address(type: str) -> Printer:
    def cell(node: Object, now: datetime) -> str:
        for address in node.get("status", {}).get("addresses") or ():
            if address.get("type") == type:
                return str(address.get("address", ""))
        return _NONE

    return cell


def _node_info(field: str, missing: str) -> Printer:
    return lambda node, now: node.get("status", {}).get("nodeInfo", {}).get(field) or missing


POD: Final[tuple[Column, ...]] = (
    name(),
    column("Ready", _ready, "Ready containers out of all."),
    column("Status", _pod_status, "The pod's state in one word."),
    column("Restarts", _restarts, "How often containers were restarted, and when last."),
    AGE,
    wide("IP", _pod_address, "The pod's address."),
    wide("Node", lambda o, _: o.get("spec", {}).get("nodeName") or _NONE, "Where it runs."),
    wide(
        "Nominated Node",
        lambda o, _: o.get("status", {}).get("nominatedNodeName") or _NONE,
        "Where room is being made for it.",
    ),
    wide("Readiness Gates", _gates, "Fulfilled conditions out of those it asks for."),
)

NODE: Final[tuple[Column, ...]] = (
    name("The node's name, unique in the cluster."),
    column("Status", _node_status, "Ready or not, and whether pods may be placed on it."),
    column("Roles", _roles, "What the node is for, by its labels."),
    AGE,
    column("Version", _node_info("kubeletVersion", ""), "The version of its agent."),
    wide("Internal-IP", _address("InternalIP"), "Its address inside the cluster."),
    wide("External-IP", _address("ExternalIP"), "Its address outside the cluster."),
    wide("OS-Image", _node_info("osImage", _UNKNOWN), "Its operating system."),
    wide("Kernel-Version", _node_info("kernelVersion", _UNKNOWN), "Its kernel."),
    wide(
        "Container-Runtime",
        _node_info("containerRuntimeVersion", _UNKNOWN),
        "What runs its containers.",
    ),
)
