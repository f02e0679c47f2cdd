"""The status a node agent writes for a pod."""

from __future__ import annotations

from typing import Any

from holdfast.controllers.nodeagent import status


def pod(**current: Any) -> dict[str, Any]:
    containers = [{"name": "web", "image": "nginx"}, {"name": "log", "image": "busybox"}]
    return {
        "metadata": {"name": "p", "namespace": "ns", "uid": "u"},
        "spec": {"containers": containers, "initContainers": [{"name": "first", "image": "i"}]},
        "status": {"phase": "Pending", **current},
    }


def conditions(built: dict[str, Any]) -> dict[str, str]:
    return {entry["type"]: entry["status"] for entry in built["conditions"]}


def test_before_the_volumes_are_mounted_the_containers_are_being_created() -> None:
    built = status.creating(pod(), "10.0.0.1", {})
    assert built["phase"] == "Pending" and built["hostIP"] == "10.0.0.1"
    states = [entry["state"] for entry in built["containerStatuses"]]
    assert states == [{"waiting": {"reason": "ContainerCreating"}}] * 2
    assert conditions(built)["Ready"] == "False" and conditions(built)["PodScheduled"] == "True"
    ready = next(entry for entry in built["conditions"] if entry["type"] == "Ready")
    assert ready["message"] == "containers with unready status: [web log]"


def test_a_container_that_cannot_be_made_says_why() -> None:
    built = status.creating(pod(), "10.0.0.1", {"log": "bad subPath"})
    web, log = built["containerStatuses"]
    assert web["state"]["waiting"]["reason"] == "ContainerCreating"
    assert log["state"]["waiting"] == {
        "reason": "CreateContainerConfigError",
        "message": "bad subPath",
    }


def test_with_its_volumes_the_pod_runs_and_has_no_address_of_its_own() -> None:
    built = status.running(pod(), "10.0.0.1")
    assert built["phase"] == "Running" and "podIP" not in built
    assert all(entry["ready"] and entry["started"] for entry in built["containerStatuses"])
    assert set(conditions(built).values()) == {"True"}
    assert built["initContainerStatuses"][0]["state"]["terminated"]["reason"] == "Completed"


def test_a_status_that_says_nothing_new_is_empty() -> None:
    first = status.running(pod(), "10.0.0.1")
    running = pod(**first)
    assert status.difference(running, status.running(running, "10.0.0.1")) == {}


def test_the_start_of_a_container_and_foreign_conditions_are_kept() -> None:
    first = status.running(pod(), "10.0.0.1")
    for entry in first["containerStatuses"]:
        entry["state"]["running"]["startedAt"] = "2020-01-01T00:00:00Z"
    foreign = {"type": "example.com/gate", "status": "True"}
    first["conditions"] = [foreign, *first["conditions"]]
    again = status.running(pod(**first), "10.0.0.1")
    started = {e["state"]["running"]["startedAt"] for e in again["containerStatuses"]}
    assert started == {"2020-01-01T00:00:00Z"}
    assert again["conditions"][0] == foreign


def test_a_transition_time_moves_only_with_its_status() -> None:
    before = status.creating(pod(), "10.0.0.1", {})
    for entry in before["conditions"]:
        entry["lastTransitionTime"] = "2020-01-01T00:00:00Z"
    after = status.running(pod(**before), "10.0.0.1")
    moved = {e["type"]: e["lastTransitionTime"] > "2020" for e in after["conditions"]}
    times = {e["type"]: e["lastTransitionTime"] for e in after["conditions"]}
    assert times["Initialized"] == times["PodScheduled"] == "2020-01-01T00:00:00Z"
    assert moved["Ready"] and times["Ready"] > "2026"
