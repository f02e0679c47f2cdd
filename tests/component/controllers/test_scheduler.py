"""The scheduler against a real API: what it writes on pods, claims and volumes."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from holdfast.api import kinds, views
from holdfast.controllers.scheduling.scheduler import EXCLUSIVE_CLAIM, Scheduler

if TYPE_CHECKING:
    from plane import Plane

Object = dict[str, Any]
HOSTNAME = "kubernetes.io/hostname"


async def make_node(plane: Plane, name: str = "n1", **labels: str) -> None:
    await plane.create(kinds.NODE, name, metadata={"labels": {HOSTNAME: name, **labels}})
    ready = {"type": "Ready", "status": "True", "reason": "KubeletReady"}
    patch = {"status": {"conditions": [ready]}}
    await plane.client.patch(kinds.NODE, name, patch, subresource="status")


async def make_pod(plane: Plane, name: str, *claims: str, **spec: Any) -> Object:
    volumes = [{"name": c, "persistentVolumeClaim": {"claimName": c}} for c in claims]
    containers = [{"name": "c", "image": "busybox"}]
    full = {"containers": containers, "volumes": volumes, **spec}
    return await plane.create(kinds.POD, name, spec=full)


async def make_class(plane: Plane, name: str, mode: str = "WaitForFirstConsumer") -> None:
    await plane.create(
        kinds.STORAGE_CLASS, name, provisioner="local.holdfast.dev", volumeBindingMode=mode
    )


async def make_claim(plane: Plane, name: str, storage_class: str) -> Object:
    spec = {
        "accessModes": ["ReadWriteOnce"],
        "resources": {"requests": {"storage": "1Gi"}},
        "storageClassName": storage_class,
    }
    return await plane.create(kinds.CLAIM, name, spec=spec)


async def make_volume(plane: Plane, name: str, storage_class: str, node: str) -> None:
    expression = {"key": HOSTNAME, "operator": "In", "values": [node]}
    spec = {
        "capacity": {"storage": "1Gi"},
        "accessModes": ["ReadWriteOnce"],
        "storageClassName": storage_class,
        "local": {"path": "/srv/x"},
        "nodeAffinity": {"required": {"nodeSelectorTerms": [{"matchExpressions": [expression]}]}},
    }
    await plane.create(kinds.VOLUME, name, spec=spec)
    patch = {"status": {"phase": "Available"}}
    await plane.client.patch(kinds.VOLUME, name, patch, subresource="status")


async def bind(plane: Plane, claim: str, volume: str) -> None:
    """Do what the binder does at the end of a binding."""
    patch = {
        "metadata": {"annotations": {views.BIND_COMPLETED: "yes"}},
        "spec": {"volumeName": volume},
    }
    await plane.client.patch(kinds.CLAIM, claim, patch, "default")
    phase = {"status": {"phase": "Bound"}}
    await plane.client.patch(kinds.CLAIM, claim, phase, "default", subresource="status")


def on(node: str) -> Any:
    return lambda obj: obj is not None and obj["spec"].get("nodeName") == node


NO_HELP = " preemption: 0/1 nodes are available: 1 Preemption is not helpful for scheduling."
NO_VICTIMS = " preemption: 0/1 nodes are available: 1 No preemption victims found for incoming pod."


def refused(text: str, outcome: str = NO_HELP) -> Any:
    text += outcome

    def holds(obj: Object | None) -> bool:
        for condition in (obj or {}).get("status", {}).get("conditions") or ():
            if condition["type"] == "PodScheduled" and condition["status"] == "False":
                return bool(condition["reason"] == "Unschedulable" and condition["message"] == text)
        return False

    return holds


@pytest.fixture
async def scheduling(plane: Plane) -> Plane:
    plane.start(Scheduler(plane.client, plane.informers, plane.recorder))
    return plane


async def test_a_pod_gets_a_ready_node_and_an_event(scheduling: Plane) -> None:
    await make_node(scheduling)
    await make_pod(scheduling, "p")
    await scheduling.until(kinds.POD, "p", on("n1"))
    await asyncio.sleep(0.1)
    assert ("Scheduled", "Successfully assigned default/p to n1") in await scheduling.reasons("p")


async def test_a_pod_waits_for_a_node_and_is_woken_by_it(scheduling: Plane) -> None:
    await make_pod(scheduling, "p")
    await scheduling.until(kinds.POD, "p", refused("no nodes available to schedule pods", ""))
    await make_node(scheduling)
    await scheduling.until(kinds.POD, "p", on("n1"))
    assert ("FailedScheduling", "no nodes available to schedule pods") in await scheduling.reasons(
        "p"
    )


async def test_pods_spread_over_nodes(scheduling: Plane) -> None:
    await make_node(scheduling, "n1")
    await make_node(scheduling, "n2")
    for index in range(6):
        await make_pod(scheduling, f"p{index}")
    chosen = [
        await scheduling.until(kinds.POD, f"p{i}", lambda o: bool(o and o["spec"].get("nodeName")))
        for i in range(6)
    ]
    nodes = [pod["spec"]["nodeName"] for pod in chosen if pod]
    assert sorted(nodes) == ["n1"] * 3 + ["n2"] * 3


async def test_a_cordoned_node_is_used_once_it_is_uncordoned(scheduling: Plane) -> None:
    await make_node(scheduling)
    await scheduling.client.patch(kinds.NODE, "n1", {"spec": {"unschedulable": True}})
    await asyncio.sleep(0.05)
    await make_pod(scheduling, "p")
    text = "0/1 nodes are available: 1 node(s) were unschedulable."
    await scheduling.until(kinds.POD, "p", refused(text))
    await scheduling.client.patch(kinds.NODE, "n1", {"spec": {"unschedulable": None}})
    await scheduling.until(kinds.POD, "p", on("n1"))


async def test_a_missing_claim_is_named_and_its_creation_wakes_the_pod(scheduling: Plane) -> None:
    await make_node(scheduling)
    await make_class(scheduling, "quick", "Immediate")
    await make_pod(scheduling, "p", "c")
    text = '0/1 nodes are available: persistentvolumeclaim "c" not found.'
    await scheduling.until(kinds.POD, "p", refused(text))
    await make_claim(scheduling, "c", "quick")
    text = "0/1 nodes are available: pod has unbound immediate PersistentVolumeClaims."
    await scheduling.until(kinds.POD, "p", refused(text))
    await make_volume(scheduling, "pv1", "quick", "n1")
    await bind(scheduling, "c", "pv1")
    await scheduling.until(kinds.POD, "p", on("n1"))


async def test_a_volume_elsewhere_keeps_the_pod_from_the_node(scheduling: Plane) -> None:
    await make_node(scheduling)
    await make_class(scheduling, "quick", "Immediate")
    await make_claim(scheduling, "c", "quick")
    await make_volume(scheduling, "pv1", "quick", "n2")
    await bind(scheduling, "c", "pv1")
    await make_pod(scheduling, "p", "c")
    text = "0/1 nodes are available: 1 node(s) had volume node affinity conflict."
    await scheduling.until(kinds.POD, "p", refused(text))
    await make_node(scheduling, "n2")
    await scheduling.until(kinds.POD, "p", on("n2"))


async def test_a_waiting_claim_takes_a_volume_of_the_right_node(scheduling: Plane) -> None:
    await make_node(scheduling, "n1")
    await make_node(scheduling, "n2")
    await make_class(scheduling, "slow")
    await make_volume(scheduling, "pv1", "slow", "n2")
    claim = await make_claim(scheduling, "c", "slow")
    await make_pod(scheduling, "p", "c", nodeSelector={HOSTNAME: "n2"})
    volume = await scheduling.until(
        kinds.VOLUME, "pv1", lambda obj: bool(obj and "claimRef" in obj["spec"])
    )
    assert volume is not None
    assert volume["spec"]["claimRef"]["uid"] == claim["metadata"]["uid"]
    assert volume["metadata"]["annotations"][views.BOUND_BY_CONTROLLER] == "yes"
    pod = await scheduling.find(kinds.POD, "p")
    assert pod is not None and "nodeName" not in pod["spec"]
    await bind(scheduling, "c", "pv1")
    await scheduling.until(kinds.POD, "p", on("n2"))


async def test_a_waiting_claim_without_a_volume_is_given_a_node(scheduling: Plane) -> None:
    await make_node(scheduling)
    await make_class(scheduling, "slow")
    await make_claim(scheduling, "c", "slow")
    await make_pod(scheduling, "p", "c")
    annotations = views.SELECTED_NODE
    await scheduling.until(
        kinds.CLAIM,
        "c",
        lambda o: bool(o and o["metadata"].get("annotations", {}).get(annotations) == "n1"),
    )
    await make_volume(scheduling, "pv1", "slow", "n1")
    await bind(scheduling, "c", "pv1")
    await scheduling.until(kinds.POD, "p", on("n1"))


async def test_a_selection_that_is_taken_back_is_made_again_later(scheduling: Plane) -> None:
    await make_node(scheduling)
    await make_class(scheduling, "slow")
    await make_claim(scheduling, "c", "slow")
    await make_pod(scheduling, "p", "c")

    def selected(obj: Object | None) -> bool:
        return bool(obj and views.SELECTED_NODE in obj["metadata"].get("annotations", {}))

    await scheduling.until(kinds.CLAIM, "c", selected)
    await asyncio.sleep(0.05)
    patch = {"metadata": {"annotations": {views.SELECTED_NODE: None}}}
    await scheduling.client.patch(kinds.CLAIM, "c", patch, "default")
    await asyncio.sleep(0.3)
    assert not selected(await scheduling.find(kinds.CLAIM, "c"))
    await scheduling.until(kinds.CLAIM, "c", selected, seconds=3)


async def test_pods_of_other_schedulers_and_gated_pods_are_left_alone(scheduling: Plane) -> None:
    await make_node(scheduling)
    await make_pod(scheduling, "other", schedulerName="mine")
    await make_pod(scheduling, "gated", schedulingGates=[{"name": "example.com/wait"}])
    await make_pod(scheduling, "plain")
    await scheduling.until(kinds.POD, "plain", on("n1"))
    for name in ("other", "gated"):
        pod = await scheduling.find(kinds.POD, name)
        assert pod is not None and "nodeName" not in pod["spec"]


async def test_a_claim_for_one_pod_at_a_time_passes_from_pod_to_pod(scheduling: Plane) -> None:
    await make_node(scheduling)
    await make_class(scheduling, "quick", "Immediate")
    spec = {
        "accessModes": ["ReadWriteOncePod"],
        "resources": {"requests": {"storage": "1Gi"}},
        "storageClassName": "quick",
    }
    await scheduling.create(kinds.CLAIM, "c", spec=spec)
    await make_volume(scheduling, "pv1", "quick", "n1")
    await bind(scheduling, "c", "pv1")
    await make_pod(scheduling, "first", "c")
    await scheduling.until(kinds.POD, "first", on("n1"))
    await make_pod(scheduling, "second", "c")
    text = f"0/1 nodes are available: 1 {EXCLUSIVE_CLAIM}."
    await scheduling.until(kinds.POD, "second", refused(text, NO_VICTIMS))
    await scheduling.client.delete(kinds.POD, "first", "default", grace=0)
    await scheduling.until(kinds.POD, "second", on("n1"))


async def test_a_volume_of_another_zone_keeps_the_pod_from_the_node(scheduling: Plane) -> None:
    zone = "topology.kubernetes.io/zone"
    await make_node(scheduling, "n1", **{zone: "a"})
    await make_class(scheduling, "quick", "Immediate")
    await make_claim(scheduling, "c", "quick")
    await make_volume(scheduling, "pv1", "quick", "n1")
    await scheduling.client.patch(kinds.VOLUME, "pv1", {"metadata": {"labels": {zone: "b"}}})
    await bind(scheduling, "c", "pv1")
    await make_pod(scheduling, "p", "c")
    text = "0/1 nodes are available: 1 node(s) had no available volume zone."
    await scheduling.until(kinds.POD, "p", refused(text))
    await scheduling.client.patch(kinds.VOLUME, "pv1", {"metadata": {"labels": {zone: "a"}}})
    await scheduling.until(kinds.POD, "p", on("n1"))


async def test_a_disk_in_use_keeps_the_pod_from_the_node(scheduling: Plane) -> None:
    await make_node(scheduling)
    source = {"rbd": {"monitors": ["m:6789"], "image": "i"}}
    disk = {"volumes": [{"name": "d", **source}]}
    await make_pod(scheduling, "first", **disk)
    await scheduling.until(kinds.POD, "first", on("n1"))
    await make_pod(scheduling, "second", **disk)
    text = "0/1 nodes are available: 1 node(s) had no available disk."
    await scheduling.until(kinds.POD, "second", refused(text, NO_VICTIMS))
    await scheduling.client.delete(kinds.POD, "first", "default", grace=0)
    await scheduling.until(kinds.POD, "second", on("n1"))


async def test_a_pod_is_placed_when_its_last_gate_is_gone(scheduling: Plane) -> None:
    await make_node(scheduling)
    made = await make_pod(scheduling, "p", schedulingGates=[{"name": "example.com/later"}])
    assert made["status"]["conditions"][0]["reason"] == "SchedulingGated"
    await asyncio.sleep(0.1)
    found = await scheduling.find(kinds.POD, "p")
    assert found is not None and "nodeName" not in found["spec"]
    await scheduling.client.patch(kinds.POD, "p", {"spec": {"schedulingGates": None}}, "default")
    await scheduling.until(kinds.POD, "p", on("n1"))


async def test_a_scheduler_that_starts_late_finds_its_pods(plane: Plane) -> None:
    await make_node(plane)
    await make_pod(plane, "p")
    plane.start(Scheduler(plane.client, plane.informers, plane.recorder))
    await plane.until(kinds.POD, "p", on("n1"))


async def test_a_pod_that_is_refused_is_written_once(scheduling: Plane) -> None:
    await make_node(scheduling)
    await make_pod(scheduling, "p", "missing")
    text = '0/1 nodes are available: persistentvolumeclaim "missing" not found.'
    first = await scheduling.until(kinds.POD, "p", refused(text))
    await make_class(scheduling, "a-class")
    await make_class(scheduling, "another")
    await asyncio.sleep(0.2)
    assert await scheduling.find(kinds.POD, "p") == first
