"""Deployments and replica sets on the real API, with a stand-in for the node."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Protocol

import pytest

import standin
from holdfast.api import kinds
from holdfast.controllers.workloads.deployments import Deployments
from holdfast.controllers.workloads.replicasets import ReplicaSets

Object = dict[str, Any]


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


@pytest.fixture
def node(plane: Plane) -> standin.Node:
    """A node that runs what the controllers make."""
    made = standin.Node(plane.client, plane.informers)
    plane.start(
        Deployments(plane.client, plane.informers, plane.recorder),
        ReplicaSets(plane.client, plane.informers, plane.recorder),
        made,
    )
    return made


def template(image: str = "app:1", labels: dict[str, str] | None = None) -> Object:
    return {
        "metadata": {"labels": labels or {"app": "web"}},
        "spec": {"containers": [{"name": "main", "image": image}]},
    }


def spec(replicas: int = 3, image: str = "app:1", **more: Any) -> Object:
    selector = {"matchLabels": {"app": "web"}}
    return {"replicas": replicas, "selector": selector, "template": template(image), **more}


async def sets_of(plane: Plane) -> dict[str, Object]:
    """The replica sets by the image of their template."""
    found = (await plane.client.list(kinds.REPLICA_SET)).items
    return {each["spec"]["template"]["spec"]["containers"][0]["image"]: each for each in found}


async def pods_of(plane: Plane) -> list[Object]:
    found = (await plane.client.list(kinds.POD)).items
    return [pod for pod in found if "deletionTimestamp" not in pod["metadata"]]


def done(obj: Object | None) -> bool:
    """Whether a deployment has rolled out, as kubectl decides it."""
    if obj is None:
        return False
    status, replicas = obj.get("status", {}), obj["spec"]["replicas"]
    counts = [status.get(k, 0) for k in ("replicas", "updatedReplicas", "availableReplicas")]
    return (
        status.get("observedGeneration") == obj["metadata"]["generation"]
        and counts == [replicas] * 3
    )


async def patch(plane: Plane, change: Object, name: str = "web") -> None:
    await plane.client.patch(kinds.DEPLOYMENT, name, change, "default")


def condition(obj: Object | None, type: str) -> Object:
    assert obj is not None
    return next(c for c in obj["status"]["conditions"] if c["type"] == type)


# --- replica sets -------------------------------------------------------------


async def test_a_replica_set_makes_and_removes_pods(plane: Plane, node: standin.Node) -> None:
    await plane.create(kinds.REPLICA_SET, "web", spec=spec(4))
    ready = await plane.until(
        kinds.REPLICA_SET, "web", lambda o: o is not None and o["status"].get("readyReplicas") == 4
    )
    assert ready["status"]["observedGeneration"] == 1
    pods = await pods_of(plane)
    assert all(pod["metadata"]["name"].startswith("web-") for pod in pods)
    (owner,) = pods[0]["metadata"]["ownerReferences"]
    assert (owner["kind"], owner["name"], owner["controller"]) == ("ReplicaSet", "web", True)
    await plane.client.patch(kinds.REPLICA_SET, "web", {"spec": {"replicas": 1}}, "default")
    await plane.until(
        kinds.REPLICA_SET, "web", lambda o: o is not None and o["status"]["replicas"] == 1
    )
    assert len(await pods_of(plane)) == 1

    async def all_said() -> bool:
        reasons = [reason for reason, _ in await plane.reasons("web")]
        counts = reasons.count("SuccessfulCreate"), reasons.count("SuccessfulDelete")
        return counts == (4, 3)

    await standin.until(all_said)


async def test_a_deleted_pod_is_replaced(plane: Plane, node: standin.Node) -> None:
    await plane.create(kinds.REPLICA_SET, "web", spec=spec(1))
    await plane.until(
        kinds.REPLICA_SET, "web", lambda o: o is not None and o["status"].get("readyReplicas") == 1
    )
    (first,) = await pods_of(plane)
    await plane.client.delete(kinds.POD, first["metadata"]["name"], "default")

    async def another() -> bool:
        pods = await pods_of(plane)
        return len(pods) == 1 and pods[0]["metadata"]["uid"] != first["metadata"]["uid"]

    await standin.until(another)


async def test_orphans_that_match_are_adopted_and_strangers_released(
    plane: Plane, node: standin.Node
) -> None:
    containers = template()["spec"]
    await plane.create(kinds.POD, "orphan", metadata={"labels": {"app": "web"}}, spec=containers)
    await plane.create(kinds.POD, "other", metadata={"labels": {"app": "db"}}, spec=containers)
    await plane.create(kinds.REPLICA_SET, "web", spec=spec(2))
    adopted = await plane.until(
        kinds.POD, "orphan", lambda o: o is not None and "ownerReferences" in o["metadata"]
    )
    assert adopted["metadata"]["ownerReferences"][0]["name"] == "web"
    await plane.until(
        kinds.REPLICA_SET, "web", lambda o: o is not None and o["status"].get("readyReplicas") == 2
    )
    assert len(await pods_of(plane)) == 3, "one was made beside the adopted one"
    relabelled = {"metadata": {"labels": {"app": "quarantined"}}}
    await plane.client.patch(kinds.POD, "orphan", relabelled, "default")
    await plane.until(
        kinds.POD, "orphan", lambda o: o is not None and "ownerReferences" not in o["metadata"]
    )
    await plane.until(
        kinds.REPLICA_SET, "web", lambda o: o is not None and o["status"].get("replicas") == 2
    )
    other = await plane.find(kinds.POD, "other")
    assert other is not None and "ownerReferences" not in other["metadata"]


async def test_a_template_the_api_refuses_is_tried_once_and_said(
    plane: Plane, node: standin.Node
) -> None:
    await plane.create(kinds.NAMESPACE, "going", metadata={"finalizers": ["example.com/hold"]})
    await plane.create(kinds.REPLICA_SET, "web", "going", spec=spec(5))
    await plane.until(
        kinds.REPLICA_SET, "web",
        lambda o: o is not None and o.get("status", {}).get("readyReplicas") == 5, "going",
    )  # fmt: skip
    await plane.client.delete(kinds.NAMESPACE, "going")
    more = {"spec": {"replicas": 6}}
    await plane.client.patch(kinds.REPLICA_SET, "web", more, "going")
    failed = await plane.until(
        kinds.REPLICA_SET, "web", lambda o: bool(o and o["status"].get("conditions")), "going"
    )
    said = condition(failed, "ReplicaFailure")
    assert (said["status"], said["reason"]) == ("True", "FailedCreate")
    assert "because it is being terminated" in said["message"]
    assert failed["status"]["replicas"] == 5


# --- deployments --------------------------------------------------------------


async def test_a_deployment_rolls_out_and_says_so(plane: Plane, node: standin.Node) -> None:
    await plane.create(kinds.DEPLOYMENT, "web", spec=spec(3))
    obj = await plane.until(kinds.DEPLOYMENT, "web", done)
    assert obj["metadata"]["annotations"]["deployment.kubernetes.io/revision"] == "1"
    assert condition(obj, "Available")["reason"] == "MinimumReplicasAvailable"
    progressing = condition(obj, "Progressing")
    (made,) = (await sets_of(plane)).values()
    name, digest = made["metadata"]["name"], made["metadata"]["labels"]["pod-template-hash"]
    assert name == f"web-{digest}"
    assert made["spec"]["selector"]["matchLabels"] == {"app": "web", "pod-template-hash": digest}
    assert progressing["message"] == f'ReplicaSet "{name}" has successfully progressed.'
    assert ("ScalingReplicaSet", f"Scaled up replica set {name} from 0 to 3") in (
        await plane.reasons("web")
    )


async def test_an_update_stays_within_its_margins(plane: Plane, node: standin.Node) -> None:
    steps = {"rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}}
    await plane.create(kinds.DEPLOYMENT, "web", spec=spec(4, strategy=steps))
    await plane.until(kinds.DEPLOYMENT, "web", done)
    least = 4

    def watch(old: Object | None, new: Object | None) -> None:
        nonlocal least
        pods = plane.informers.of(kinds.POD).all()
        ready = [
            pod for pod in pods
            if "deletionTimestamp" not in pod["metadata"]
            and any(c["type"] == "Ready" for c in pod["status"].get("conditions", ()))
        ]  # fmt: skip
        least = min(least, len(ready))

    plane.informers.of(kinds.POD).subscribe(watch)
    node.most_at_once = 0
    await patch(plane, {"spec": {"template": template("app:2")}})
    await plane.until(kinds.DEPLOYMENT, "web", done)
    assert (node.most_at_once, least) == (5, 4)
    sets = await sets_of(plane)
    assert sets["app:1"]["spec"]["replicas"] == 0
    assert sets["app:2"]["spec"]["replicas"] == 4


async def test_recreate_starts_nothing_before_all_old_pods_are_gone(
    plane: Plane, node: standin.Node
) -> None:
    await plane.create(kinds.DEPLOYMENT, "web", spec=spec(2, strategy={"type": "Recreate"}))
    await plane.until(kinds.DEPLOYMENT, "web", done)
    node.lost = True
    await patch(plane, {"spec": {"template": template("app:2")}})

    async def none_active() -> bool:
        return not await pods_of(plane)

    await standin.until(none_active)
    await asyncio.sleep(0.2)
    assert set(await sets_of(plane)) == {"app:1"}, "the old pods are still Terminating"
    node.lost = False
    node.look_again()
    await plane.until(kinds.DEPLOYMENT, "web", done)
    assert (await sets_of(plane))["app:2"]["spec"]["replicas"] == 2


async def test_going_back_takes_the_old_set_with_a_new_number(
    plane: Plane, node: standin.Node
) -> None:
    await plane.create(kinds.DEPLOYMENT, "web", spec=spec(2))
    await plane.until(kinds.DEPLOYMENT, "web", done)
    first = (await sets_of(plane))["app:1"]["metadata"]["uid"]
    for image in ("app:2", "app:1"):
        await patch(plane, {"spec": {"template": template(image)}})
        await plane.until(kinds.DEPLOYMENT, "web", done)
    sets = await sets_of(plane)
    assert sets["app:1"]["metadata"]["uid"] == first
    notes = sets["app:1"]["metadata"]["annotations"]
    assert notes["deployment.kubernetes.io/revision"] == "3"
    assert notes["deployment.kubernetes.io/revision-history"] == "1"


async def test_an_update_that_does_not_get_ready_stops_and_times_out(
    plane: Plane, node: standin.Node
) -> None:
    await plane.create(kinds.DEPLOYMENT, "web", spec=spec(4, progressDeadlineSeconds=1))
    await plane.until(kinds.DEPLOYMENT, "web", done)
    node.broken = {"app:2"}
    await patch(plane, {"spec": {"template": template("app:2")}})
    stuck = await plane.until(
        kinds.DEPLOYMENT, "web", lambda o: condition(o, "Progressing")["status"] == "False"
    )
    assert condition(stuck, "Progressing")["reason"] == "ProgressDeadlineExceeded"
    assert condition(stuck, "Available")["status"] == "True"
    assert stuck["status"]["availableReplicas"] == 3, "25% of 4 may be missing, no more"
    await patch(plane, {"spec": {"template": template("app:1")}})
    healed = await plane.until(kinds.DEPLOYMENT, "web", done)
    assert condition(healed, "Progressing")["reason"] == "NewReplicaSetAvailable"


async def test_a_paused_deployment_scales_but_does_not_update(
    plane: Plane, node: standin.Node
) -> None:
    await plane.create(kinds.DEPLOYMENT, "web", spec=spec(2))
    await plane.until(kinds.DEPLOYMENT, "web", done)
    await patch(plane, {"spec": {"paused": True, "replicas": 3, "template": template("app:2")}})
    paused = await plane.until(
        kinds.DEPLOYMENT, "web", lambda o: o is not None and o["status"].get("readyReplicas") == 3
    )
    assert condition(paused, "Progressing")["reason"] == "DeploymentPaused"
    assert set(await sets_of(plane)) == {"app:1"}
    await patch(plane, {"spec": {"paused": None}})
    await plane.until(kinds.DEPLOYMENT, "web", done)
    assert (await sets_of(plane))["app:2"]["spec"]["replicas"] == 3


async def test_scaling_during_an_update_is_shared_out(plane: Plane, node: standin.Node) -> None:
    await plane.create(kinds.DEPLOYMENT, "web", spec=spec(10))
    await plane.until(kinds.DEPLOYMENT, "web", done)
    node.broken = {"app:2"}
    await patch(plane, {"spec": {"template": template("app:2")}})

    async def sizes() -> dict[str, int]:
        return {image: each["spec"]["replicas"] for image, each in (await sets_of(plane)).items()}

    async def until_sizes(expected: dict[str, int]) -> None:
        async def reached() -> bool:
            return await sizes() == expected

        await standin.until(reached)

    await until_sizes({"app:1": 8, "app:2": 5})
    await patch(plane, {"spec": {"replicas": 20}})
    await until_sizes({"app:1": 15, "app:2": 10})


async def test_only_so_many_old_sets_are_kept(plane: Plane, node: standin.Node) -> None:
    await plane.create(kinds.DEPLOYMENT, "web", spec=spec(1, revisionHistoryLimit=1))
    await plane.until(kinds.DEPLOYMENT, "web", done)
    for image in ("app:2", "app:3", "app:4"):
        await patch(plane, {"spec": {"template": template(image)}})
        await plane.until(kinds.DEPLOYMENT, "web", done)

    async def only_two() -> bool:
        return set(await sets_of(plane)) == {"app:3", "app:4"}

    await standin.until(only_two)


async def test_a_restart_of_the_controllers_changes_nothing(
    plane: Plane, node: standin.Node
) -> None:
    await plane.create(kinds.DEPLOYMENT, "web", spec=spec(3))
    await plane.until(kinds.DEPLOYMENT, "web", done)
    await asyncio.sleep(0.2)
    before = (await plane.client.list(kinds.POD)).revision
    plane.start(
        Deployments(plane.client, plane.informers, plane.recorder),
        ReplicaSets(plane.client, plane.informers, plane.recorder),
    )
    await asyncio.sleep(0.3)
    assert (await plane.client.list(kinds.POD)).revision == before
