"""Stateful sets on the real API, with a stand-in for the node."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Protocol

import pytest

import standin
from holdfast.api import kinds
from holdfast.controllers.workloads.statefulsets import StatefulSets

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
    """A node that runs what the controller makes."""
    made = standin.Node(plane.client, plane.informers)
    plane.start(StatefulSets(plane.client, plane.informers, plane.recorder), made)
    return made


def template(image: str = "db:1") -> Object:
    return {
        "metadata": {"labels": {"app": "db"}},
        "spec": {"containers": [{"name": "main", "image": image}]},
    }


def claim_template(name: str = "data") -> Object:
    resources = {"requests": {"storage": "1Gi"}}
    spec = {"accessModes": ["ReadWriteOnce"], "resources": resources}
    return {"metadata": {"name": name, "labels": {"tier": "gold"}}, "spec": spec}


def spec(replicas: int = 3, image: str = "db:1", **more: Any) -> Object:
    selector = {"matchLabels": {"app": "db"}}
    made = {"serviceName": "db", "replicas": replicas, "selector": selector}
    return {**made, "template": template(image), **more}


async def start(plane: Plane, **more: Any) -> Object:
    await plane.create(kinds.STATEFUL_SET, "db", spec=spec(**more))
    return await plane.until(kinds.STATEFUL_SET, "db", settled)


def settled(obj: Object | None) -> bool:
    """Whether all pods are there, ready and of the present template."""
    if obj is None:
        return False
    status, replicas = obj["status"], obj["spec"]["replicas"]
    counts = [status.get(k, 0) for k in ("replicas", "readyReplicas", "updatedReplicas")]
    seen = status.get("observedGeneration") == obj["metadata"]["generation"]
    same = status.get("currentRevision") == status.get("updateRevision")
    return seen and same and counts == [replicas] * 3


async def change(plane: Plane, **parts: Any) -> None:
    await plane.client.patch(kinds.STATEFUL_SET, "db", {"spec": parts}, "default")


async def pods_of(plane: Plane) -> dict[str, Object]:
    return {pod["metadata"]["name"]: pod for pod in (await plane.client.list(kinds.POD)).items}


async def images(plane: Plane) -> dict[str, str]:
    found = await pods_of(plane)
    return {name: pod["spec"]["containers"][0]["image"] for name, pod in found.items()}


def order_of(plane: Plane) -> list[tuple[str, str]]:
    """What happens to pods from now on: made and gone, in order."""
    seen: list[tuple[str, str]] = []

    def watch(old: Object | None, new: Object | None) -> None:
        if old is None and new is not None:
            seen.append(("made", new["metadata"]["name"]))
        elif old is not None and new is None:
            seen.append(("gone", old["metadata"]["name"]))

    plane.informers.of(kinds.POD).subscribe(watch)
    return seen


async def test_pods_are_made_one_after_the_other_with_names_that_stay(
    plane: Plane, node: standin.Node
) -> None:
    order = order_of(plane)
    await start(plane, volumeClaimTemplates=[claim_template()])
    assert order == [("made", "db-0"), ("made", "db-1"), ("made", "db-2")]
    pod = (await pods_of(plane))["db-1"]
    labels, name = pod["metadata"]["labels"], "db-1"
    assert labels["statefulset.kubernetes.io/pod-name"] == name
    assert labels["apps.kubernetes.io/pod-index"] == "1"
    assert (pod["spec"]["hostname"], pod["spec"]["subdomain"]) == ("db-1", "db")
    assert pod["spec"]["volumes"] == [
        {"name": "data", "persistentVolumeClaim": {"claimName": "data-db-1"}}
    ]
    claim = await plane.find(kinds.CLAIM, "data-db-1")
    assert claim is not None
    assert claim["metadata"]["labels"] == {"tier": "gold", "app": "db"}
    assert "ownerReferences" not in claim["metadata"]

    async def said() -> bool:
        events = await plane.reasons("db")
        made = "create Claim data-db-1 Pod db-1 in StatefulSet db success"
        return {
            ("SuccessfulCreate", made),
            ("SuccessfulCreate", "create Pod db-1 in StatefulSet db successful"),
        } <= set(events)

    await standin.until(said)


async def test_a_pod_that_is_not_ready_holds_up_the_next(plane: Plane, node: standin.Node) -> None:
    node.broken = {"db:1"}
    await plane.create(kinds.STATEFUL_SET, "db", spec=spec())
    await plane.until(kinds.POD, "db-0", lambda o: bool(o and o["status"]["phase"] == "Running"))
    await asyncio.sleep(0.2)
    assert set(await pods_of(plane)) == {"db-0"}


async def test_parallel_pods_wait_for_nobody(plane: Plane, node: standin.Node) -> None:
    node.broken = {"db:1"}
    parallel = spec(podManagementPolicy="Parallel")
    await plane.create(kinds.STATEFUL_SET, "db", spec=parallel)
    await plane.until(kinds.POD, "db-2", lambda o: o is not None)
    assert set(await pods_of(plane)) == {"db-0", "db-1", "db-2"}


async def test_scaling_down_takes_the_highest_first_and_keeps_the_claims(
    plane: Plane, node: standin.Node
) -> None:
    await start(plane, volumeClaimTemplates=[claim_template()])
    order = order_of(plane)
    order.clear()
    await change(plane, replicas=1)
    await plane.until(kinds.STATEFUL_SET, "db", settled)
    assert order == [("gone", "db-2"), ("gone", "db-1")]
    assert await plane.find(kinds.CLAIM, "data-db-2") is not None
    await change(plane, replicas=2)
    await plane.until(kinds.STATEFUL_SET, "db", settled)
    claims = (await plane.client.list(kinds.CLAIM)).items
    assert len(claims) == 3, "the claim of db-1 was used again"


async def test_an_update_goes_from_the_highest_down_one_by_one(
    plane: Plane, node: standin.Node
) -> None:
    await start(plane)
    order = order_of(plane)
    order.clear()
    await change(plane, template=template("db:2"))
    await plane.until(kinds.STATEFUL_SET, "db", settled)
    names = ("db-2", "db-1", "db-0")
    assert order == [(what, name) for name in names for what in ("gone", "made")]
    assert set((await images(plane)).values()) == {"db:2"}
    revisions = (await plane.client.list(kinds.CONTROLLER_REVISION)).items
    assert sorted(each["revision"] for each in revisions) == [1, 2]
    patch = revisions[0]["data"]["spec"]["template"]
    assert patch["$patch"] == "replace"


async def test_a_partition_keeps_the_low_numbers_as_they_are(
    plane: Plane, node: standin.Node
) -> None:
    await start(plane)
    partition = {"type": "RollingUpdate", "rollingUpdate": {"partition": 2}}
    await change(plane, template=template("db:2"), updateStrategy=partition)

    async def only_the_last() -> bool:
        return await images(plane) == {"db-0": "db:1", "db-1": "db:1", "db-2": "db:2"}

    await standin.until(only_the_last)
    await plane.client.delete(kinds.POD, "db-0", "default")

    async def back() -> bool:
        found = (await pods_of(plane)).get("db-0")
        return bool(found and found["status"]["phase"] == "Running")

    await standin.until(back)
    assert (await images(plane))["db-0"] == "db:1", "replaced from the old template"
    obj = await plane.find(kinds.STATEFUL_SET, "db")
    assert obj is not None
    assert obj["status"]["currentRevision"] != obj["status"]["updateRevision"]


async def test_on_delete_waits_until_somebody_deletes(plane: Plane, node: standin.Node) -> None:
    await start(plane, updateStrategy={"type": "OnDelete"})
    await change(plane, template=template("db:2"))
    await asyncio.sleep(0.3)
    assert set((await images(plane)).values()) == {"db:1"}
    await plane.client.delete(kinds.POD, "db-1", "default")

    async def replaced() -> bool:
        return (await images(plane)).get("db-1") == "db:2"

    await standin.until(replaced)


async def test_an_update_stops_at_a_pod_that_does_not_get_ready(
    plane: Plane, node: standin.Node
) -> None:
    await start(plane)
    node.broken = {"db:2"}
    await change(plane, template=template("db:2"))

    async def stuck() -> bool:
        return (await images(plane)).get("db-2") == "db:2"

    await standin.until(stuck)
    await asyncio.sleep(0.2)
    assert (await images(plane))["db-1"] == "db:1"


@pytest.mark.parametrize("policy", ["OrderedReady", "Parallel"])
async def test_there_are_never_two_pods_of_one_number(
    plane: Plane, node: standin.Node, policy: str
) -> None:
    await start(plane, podManagementPolicy=policy)
    node.lost = True
    first = (await pods_of(plane))["db-1"]["metadata"]["uid"]
    await plane.client.delete(kinds.POD, "db-1", "default")
    await asyncio.sleep(0.3)
    kept = (await pods_of(plane))["db-1"]["metadata"]
    assert kept["uid"] == first and "deletionTimestamp" in kept, "it was not replaced"
    # Somebody who knows that the node is off deletes it by force.
    await plane.client.delete(kinds.POD, "db-1", "default", grace=0)
    made = await plane.until(
        kinds.POD, "db-1", lambda o: o is not None and o["metadata"]["uid"] != first
    )
    assert "deletionTimestamp" not in made["metadata"]


async def test_a_pod_that_ended_is_made_anew(plane: Plane, node: standin.Node) -> None:
    await start(plane, replicas=1)
    first = (await pods_of(plane))["db-0"]["metadata"]["uid"]
    failed = {"status": {"phase": "Failed"}}
    await plane.client.patch(kinds.POD, "db-0", failed, "default", subresource="status")
    await plane.until(kinds.POD, "db-0", lambda o: bool(o and o["metadata"]["uid"] != first))
    text = "StatefulSet default/db is recreating failed Pod db-0"

    async def said() -> bool:
        return ("RecreatingFailedPod", text) in await plane.reasons("db")

    await standin.until(said)


async def test_the_retention_policy_gives_claims_their_owners(
    plane: Plane, node: standin.Node
) -> None:
    policy = {"whenDeleted": "Delete", "whenScaled": "Delete"}
    await start(
        plane,
        replicas=2,
        volumeClaimTemplates=[claim_template()],
        persistentVolumeClaimRetentionPolicy=policy,
    )

    def owners(claim: Object | None) -> list[str]:
        assert claim is not None
        return [each["kind"] for each in claim["metadata"].get("ownerReferences", ())]

    assert owners(await plane.find(kinds.CLAIM, "data-db-1")) == ["StatefulSet"]
    node.lost = True
    await change(plane, replicas=1)
    await plane.until(kinds.CLAIM, "data-db-1", lambda o: owners(o) == ["Pod"])
    await change(plane, persistentVolumeClaimRetentionPolicy={"whenDeleted": "Retain"})
    await plane.until(kinds.CLAIM, "data-db-0", lambda o: owners(o) == [])


async def test_numbers_may_begin_anywhere(plane: Plane, node: standin.Node) -> None:
    await start(plane, replicas=2, ordinals={"start": 5})
    assert set(await pods_of(plane)) == {"db-5", "db-6"}


async def test_a_claim_that_is_being_deleted_holds_its_pod_up(
    plane: Plane, node: standin.Node
) -> None:
    held = {"finalizers": ["example.com/hold"]}
    body = claim_template()["spec"]
    await plane.create(kinds.CLAIM, "data-db-0", metadata=held, spec=body)
    await plane.client.delete(kinds.CLAIM, "data-db-0", "default")
    made = spec(1, volumeClaimTemplates=[claim_template()])
    await plane.create(kinds.STATEFUL_SET, "db", spec=made)

    async def said() -> bool:
        return any("is being deleted" in text for _, text in await plane.reasons("db"))

    await standin.until(said)
    assert await pods_of(plane) == {}
    release = {"metadata": {"finalizers": None}}
    await plane.client.patch(kinds.CLAIM, "data-db-0", release, "default")
    await plane.until(kinds.STATEFUL_SET, "db", settled)
