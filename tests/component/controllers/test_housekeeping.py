"""Namespaces, events and nodes over time, against a real API."""

from __future__ import annotations

import asyncio
import datetime
from typing import TYPE_CHECKING, Any

from holdfast.api import kinds
from holdfast.controllers import nodes
from holdfast.controllers.events_ttl import EventExpiry
from holdfast.controllers.namespaces import NamespaceDeletion
from holdfast.controllers.nodes import NodeLifecycle
from holdfast.kit import clock

if TYPE_CHECKING:
    from plane import Plane

Object = dict[str, Any]


def gone(obj: Object | None) -> bool:
    return obj is None


def condition(obj: Object | None, type: str) -> Object:
    entries = (obj or {}).get("status", {}).get("conditions") or ()
    return next((entry for entry in entries if entry["type"] == type), {})


def taints(obj: Object | None) -> set[tuple[str, str]]:
    entries = (obj or {}).get("spec", {}).get("taints") or ()
    return {(entry["key"], entry["effect"]) for entry in entries}


# --- namespaces ---------------------------------------------------------------


async def test_a_deleted_namespace_takes_its_content_along(plane: Plane) -> None:
    plane.start(NamespaceDeletion(plane.client, plane.informers, plane.recorder))
    await plane.create(kinds.NAMESPACE, "team")
    await plane.create(kinds.CONFIG_MAP, "cm", "team", data={"a": "1"})
    await plane.create(kinds.SECRET, "s", "team")
    await plane.create(kinds.CONFIG_MAP, "other", data={"a": "1"})
    await plane.client.delete(kinds.NAMESPACE, "team")
    await plane.until(kinds.NAMESPACE, "team", gone)
    assert await plane.find(kinds.CONFIG_MAP, "cm", "team") is None
    assert await plane.find(kinds.SECRET, "s", "team") is None
    assert await plane.find(kinds.CONFIG_MAP, "other") is not None


async def test_a_namespace_waits_for_what_has_finalizers_and_says_so(plane: Plane) -> None:
    plane.start(NamespaceDeletion(plane.client, plane.informers, plane.recorder))
    await plane.create(kinds.NAMESPACE, "team")
    metadata = {"finalizers": ["example.com/keep"]}
    await plane.create(kinds.CONFIG_MAP, "cm", "team", metadata=metadata)
    await plane.client.delete(kinds.NAMESPACE, "team")
    waiting = await plane.until(
        kinds.NAMESPACE,
        "team",
        lambda obj: condition(obj, "NamespaceContentRemaining").get("status") == "True",
    )
    text = condition(waiting, "NamespaceFinalizersRemaining")["message"]
    assert text.endswith("example.com/keep in 1 resource instances")
    assert waiting is not None and waiting["status"]["phase"] == "Terminating"
    released = {"metadata": {"finalizers": None}}
    await plane.client.patch(kinds.CONFIG_MAP, "cm", released, "team")
    await plane.until(kinds.NAMESPACE, "team", gone)


async def test_a_deletion_begun_before_the_controller_ran_is_finished(plane: Plane) -> None:
    await plane.create(kinds.NAMESPACE, "team")
    await plane.create(kinds.CONFIG_MAP, "cm", "team")
    await plane.client.delete(kinds.NAMESPACE, "team")
    assert await plane.find(kinds.NAMESPACE, "team") is not None
    plane.start(NamespaceDeletion(plane.client, plane.informers, plane.recorder))
    await plane.until(kinds.NAMESPACE, "team", gone)


# --- events -------------------------------------------------------------------


async def make_event(plane: Plane, name: str, age: float) -> None:
    stamp = clock.rfc3339(clock.now() - datetime.timedelta(seconds=age))
    involved = {"kind": "ConfigMap", "namespace": "default", "name": "cm"}
    fields = {"reason": "R", "message": "m", "type": "Normal", "lastTimestamp": stamp}
    await plane.create(kinds.EVENT, name, involvedObject=involved, **fields)


async def test_old_events_go_and_fresh_ones_stay(plane: Plane) -> None:
    await make_event(plane, "old", 3700)
    await make_event(plane, "fresh", 10)
    plane.start(EventExpiry(plane.client, plane.informers, plane.recorder))
    await plane.until(kinds.EVENT, "old", gone)
    assert await plane.find(kinds.EVENT, "fresh") is not None


async def test_an_event_goes_when_its_time_is_up_unless_it_happened_again(plane: Plane) -> None:
    plane.start(EventExpiry(plane.client, plane.informers, plane.recorder, ttl=3.0))
    await make_event(plane, "once", 2)
    await make_event(plane, "again", 2)
    again = {"count": 2, "lastTimestamp": clock.rfc3339(clock.now())}
    await plane.client.patch(kinds.EVENT, "again", again, "default")
    await plane.until(kinds.EVENT, "once", gone)
    assert await plane.find(kinds.EVENT, "again") is not None
    await plane.until(kinds.EVENT, "again", gone)


# --- nodes --------------------------------------------------------------------


async def make_node(plane: Plane, ready: str = "True") -> None:
    await plane.create(kinds.NODE, "n1", spec={"taints": [{"key": "mine", "effect": "NoSchedule"}]})
    patch = {"status": {"conditions": [{"type": "Ready", "status": ready, "reason": "R"}]}}
    await plane.client.patch(kinds.NODE, "n1", patch, subresource="status")


async def renew(plane: Plane) -> None:
    spec = {"holderIdentity": "n1", "renewTime": clock.rfc3339_micro(clock.now())}
    if await plane.find(kinds.LEASE, "n1", nodes.LEASES) is None:
        await plane.create(kinds.LEASE, "n1", nodes.LEASES, spec=spec)
    else:
        await plane.client.patch(kinds.LEASE, "n1", {"spec": spec}, nodes.LEASES)


async def test_a_silent_node_becomes_unknown_and_tainted_and_comes_back(plane: Plane) -> None:
    plane.start(NodeLifecycle(plane.client, plane.informers, plane.recorder, grace=0.6))
    await make_node(plane)
    await renew(plane)
    lost = await plane.until(
        kinds.NODE, "n1", lambda obj: (nodes.UNREACHABLE, "NoExecute") in taints(obj)
    )
    assert condition(lost, "Ready")["status"] == "Unknown"
    assert condition(lost, "Ready")["message"] == "Kubelet stopped posting node status."
    assert ("mine", "NoSchedule") in taints(lost)
    # The agent is back: it renews, and reports its conditions itself.
    await renew(plane)
    ready = {"status": {"conditions": [{"type": "Ready", "status": "True", "reason": "R"}]}}
    await plane.client.patch(kinds.NODE, "n1", ready, subresource="status")
    await plane.until(kinds.NODE, "n1", lambda obj: taints(obj) == {("mine", "NoSchedule")})


async def test_a_node_that_renews_its_lease_is_left_alone(plane: Plane) -> None:
    plane.start(NodeLifecycle(plane.client, plane.informers, plane.recorder, grace=0.5))
    await make_node(plane)
    for _ in range(8):
        await renew(plane)
        await asyncio.sleep(0.15)
    node = await plane.find(kinds.NODE, "n1")
    assert condition(node, "Ready")["status"] == "True"
    assert taints(node) == {("mine", "NoSchedule")}


async def test_a_node_that_reports_not_ready_is_tainted_at_once(plane: Plane) -> None:
    plane.start(NodeLifecycle(plane.client, plane.informers, plane.recorder))
    await make_node(plane, ready="False")
    wanted = {(nodes.NOT_READY, effect) for effect in nodes.EFFECTS}
    await plane.until(kinds.NODE, "n1", lambda obj: wanted <= taints(obj))
