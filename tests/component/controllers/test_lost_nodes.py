"""Eviction by taint and the removal of pods whose node is gone, on the real API."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Protocol

import standin
from holdfast.api import kinds
from holdfast.api.views import OUT_OF_SERVICE
from holdfast.controllers.eviction import TaintEviction
from holdfast.controllers.nodes import NodeLifecycle
from holdfast.controllers.podgc import PodRemoval
from holdfast.kit import clock

Object = dict[str, Any]
TAINT = "example.com/broken"


class Plane(Protocol):
    """See the fixture `plane`."""

    client: Any
    informers: Any
    recorder: Any

    def start(self, *components: Any) -> Any: ...
    async def create(
        self, kind: kinds.Kind, name: str, namespace: str = "", **o: Any
    ) -> Object: ...
    async def find(
        self, kind: kinds.Kind, name: str, namespace: str = "default"
    ) -> Object | None: ...
    async def until(self, kind: kinds.Kind, name: str, holds: Callable[[Object | None], bool], namespace: str = "default", *, seconds: float = 10.0) -> Object: ...  # fmt: skip  # noqa: E501
    async def reasons(self, name: str) -> list[tuple[str, str]]: ...


async def make_node(plane: Plane, ready: str = "True") -> None:
    await plane.create(kinds.NODE, "n1")
    patch = {"status": {"conditions": [{"type": "Ready", "status": ready, "reason": "R"}]}}
    await plane.client.patch(kinds.NODE, "n1", patch, subresource="status")


async def make_pod(plane: Plane, name: str = "p", tolerations: list[Object] | None = None) -> None:
    spec: Object = {"nodeName": "n1", "containers": [{"name": "main", "image": "app:1"}]}
    if tolerations is not None:
        spec["tolerations"] = tolerations
    await plane.create(kinds.POD, name, spec=spec)
    ready = {"type": "Ready", "status": "True", "lastTransitionTime": clock.rfc3339(clock.now())}
    status = {"status": {"phase": "Running", "conditions": [ready]}}
    await plane.client.patch(kinds.POD, name, status, "default", subresource="status")


async def taint(plane: Plane, key: str | None, effect: str = "NoExecute") -> None:
    stamp = clock.rfc3339(clock.now())
    taints = [{"key": key, "effect": effect, "timeAdded": stamp}] if key else None
    await plane.client.patch(kinds.NODE, "n1", {"spec": {"taints": taints}})


def going(obj: Object | None) -> bool:
    return obj is not None and "deletionTimestamp" in obj["metadata"]


def condition(obj: Object, type: str) -> Object:
    return next(c for c in obj["status"]["conditions"] if c["type"] == type)


async def test_a_pod_that_tolerates_nothing_leaves_at_once(plane: Plane) -> None:
    plane.start(TaintEviction(plane.client, plane.informers, plane.recorder))
    await make_node(plane)
    await make_pod(plane)
    await taint(plane, TAINT)
    pod = await plane.until(kinds.POD, "p", going)
    said = condition(pod, "DisruptionTarget")
    assert (said["status"], said["reason"]) == ("True", "DeletionByTaintManager")

    async def noted() -> bool:
        text = "Marking for deletion Pod default/p"
        return ("TaintManagerEviction", text) in await plane.reasons("p")

    await standin.until(noted)
    assert await plane.find(kinds.POD, "p") is not None, "it stays until its node lets it go"


async def test_a_pod_leaves_when_its_patience_is_over_or_never(plane: Plane) -> None:
    plane.start(TaintEviction(plane.client, plane.informers, plane.recorder))
    await make_node(plane)
    base = {"key": TAINT, "operator": "Exists", "effect": "NoExecute"}
    await make_pod(plane, "patient", [{**base, "tolerationSeconds": 2}])
    await make_pod(plane, "stoic", [base])
    await make_pod(plane, "scheduler-only", [base])
    start = asyncio.get_running_loop().time()
    await taint(plane, TAINT)
    await plane.until(kinds.POD, "patient", going)
    # The taint's time has whole seconds, so up to one of them is over already.
    assert 0.9 < asyncio.get_running_loop().time() - start < 3.5
    assert not going(await plane.find(kinds.POD, "stoic"))


async def test_a_taint_that_goes_in_time_calls_it_off(plane: Plane) -> None:
    plane.start(TaintEviction(plane.client, plane.informers, plane.recorder))
    await make_node(plane)
    patience = {
        "key": TAINT,
        "operator": "Exists",
        "effect": "NoExecute",
        "tolerationSeconds": 2,
    }
    await make_pod(plane, "p", [patience])
    await taint(plane, TAINT)
    await asyncio.sleep(0.3)
    await taint(plane, None)

    async def noted() -> bool:
        text = "Cancelling deletion of Pod default/p"
        return ("TaintManagerEviction", text) in await plane.reasons("p")

    await standin.until(noted)
    await asyncio.sleep(2.2)
    assert not going(await plane.find(kinds.POD, "p"))


async def test_other_effects_move_nobody(plane: Plane) -> None:
    plane.start(TaintEviction(plane.client, plane.informers, plane.recorder))
    await make_node(plane)
    await make_pod(plane)
    await taint(plane, TAINT, "NoSchedule")
    await asyncio.sleep(0.3)
    assert not going(await plane.find(kinds.POD, "p"))


async def test_the_pods_of_a_lost_node_are_not_ready(plane: Plane) -> None:
    await make_node(plane)
    await make_pod(plane)
    plane.start(NodeLifecycle(plane.client, plane.informers, plane.recorder, grace=0.3))
    pod = await plane.until(
        kinds.POD, "p", lambda o: o is not None and condition(o, "Ready")["status"] == "False"
    )
    assert condition(pod, "Ready")["reason"] == "NodeNotReady"
    assert pod["status"]["phase"] == "Running", "it may well go on where it is"


async def test_out_of_service_removes_only_what_is_going_on_a_node_that_is_not_ready(
    plane: Plane,
) -> None:
    plane.start(PodRemoval(plane.client, plane.informers, plane.recorder))
    await make_node(plane)
    await make_pod(plane, "going")
    await make_pod(plane, "staying")
    await plane.client.delete(kinds.POD, "going", "default")
    await taint(plane, OUT_OF_SERVICE)
    await asyncio.sleep(0.3)
    assert going(await plane.find(kinds.POD, "going")), "the node is ready: it is not off"
    off = {"status": {"conditions": [{"type": "Ready", "status": "Unknown", "reason": "R"}]}}
    await plane.client.patch(kinds.NODE, "n1", off, subresource="status")
    await plane.until(kinds.POD, "going", lambda o: o is None)
    assert await plane.find(kinds.POD, "staying") is not None


async def test_the_pods_of_a_deleted_node_go_after_a_while(plane: Plane) -> None:
    removal = PodRemoval(plane.client, plane.informers, plane.recorder, quarantine=0.5)
    plane.start(removal)
    await make_node(plane)
    await make_pod(plane)
    await plane.client.delete(kinds.NODE, "n1")
    await asyncio.sleep(0.2)
    assert await plane.find(kinds.POD, "p") is not None
    await plane.until(kinds.POD, "p", lambda o: o is None)


async def test_a_node_that_is_made_anew_in_time_keeps_its_pods(plane: Plane) -> None:
    plane.start(PodRemoval(plane.client, plane.informers, plane.recorder, quarantine=0.6))
    await make_node(plane)
    await make_pod(plane)
    await plane.client.delete(kinds.NODE, "n1")
    await asyncio.sleep(0.1)
    await make_node(plane)
    await asyncio.sleep(0.9)
    assert await plane.find(kinds.POD, "p") is not None
