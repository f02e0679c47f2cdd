"""What pods use of a quota, and which pods a quota's scopes choose."""

from __future__ import annotations

from typing import Any

import pytest

from holdfast.api import kinds, podusage, usage

Object = dict[str, Any]


def container(name: str = "c", **resources: Object) -> Object:
    return {"name": name, "image": "i", "resources": resources}


def sidecar(name: str, **resources: Object) -> Object:
    return {**container(name, **resources), "restartPolicy": "Always"}


def pod(*containers: Object, **spec: Any) -> Object:
    return {"metadata": {"name": "p"}, "spec": {"containers": list(containers), **spec}}


def used(obj: Object) -> dict[str, str]:
    return {name: amount.canonical() for name, amount in podusage.of(obj).items()}


def test_containers_add_up_and_requests_count_under_both_names() -> None:
    one = container("a", requests={"cpu": "200m", "memory": "1Gi"}, limits={"cpu": "1"})
    two = container("b", requests={"cpu": "100m", "ephemeral-storage": "5Mi"})
    assert used(pod(one, two)) == {
        "cpu": "300m",
        "requests.cpu": "300m",
        "memory": "1Gi",
        "requests.memory": "1Gi",
        "ephemeral-storage": "5Mi",
        "requests.ephemeral-storage": "5Mi",
        "limits.cpu": "1",
    }


def test_the_largest_init_container_counts_where_it_wants_more_than_all_others() -> None:
    small = pod(
        container(requests={"cpu": "1"}), initContainers=[container("i", requests={"cpu": "500m"})]
    )
    large = pod(
        container(requests={"cpu": "1"}),
        initContainers=[
            container("i", requests={"cpu": "3"}),
            container("j", requests={"cpu": "2"}),
        ],
    )
    assert (used(small)["cpu"], used(large)["cpu"]) == ("1", "3")


def test_a_sidecar_runs_beside_the_init_containers_after_it_and_all_containers() -> None:
    before = [container("i", requests={"cpu": "3"}), sidecar("s", requests={"cpu": "1"})]
    obj = pod(container(requests={"cpu": "1"}), initContainers=before)
    assert used(obj)["cpu"] == "3"
    obj = pod(container(requests={"cpu": "1"}), initContainers=before[::-1])
    assert used(obj)["cpu"] == "4"
    obj = pod(container(requests={"cpu": "5"}), initContainers=before)
    assert used(obj)["cpu"] == "6"


def test_overhead_adds_to_requests_and_to_limits_that_are_there() -> None:
    only_cpu = container(requests={"cpu": "1"}, limits={"cpu": "1"})
    found = used(pod(only_cpu, overhead={"cpu": "250m", "memory": "8Mi"}))
    assert found["requests.cpu"] == found["limits.cpu"] == "1250m"
    assert found["requests.memory"] == "8Mi"
    assert "limits.memory" not in found


def test_devices_count_by_request_alone_and_large_pages_by_both_names() -> None:
    asked = {"example.com/card": "2", "hugepages-2Mi": "4Mi"}
    found = used(pod(container(requests=asked, limits=asked)))
    assert found == {
        "requests.example.com/card": "2",
        "hugepages-2Mi": "4Mi",
        "requests.hugepages-2Mi": "4Mi",
    }
    assert usage.counted_by("requests.example.com/card") == (kinds.POD,)
    assert usage.counted_by("example.com/card") == ()
    assert usage.counted_by("gold.storageclass.storage.k8s.io/requests.storage") == (kinds.CLAIM,)


def test_a_pod_that_is_over_uses_nothing_but_its_object() -> None:
    obj = pod(container(requests={"cpu": "1"})) | {"status": {"phase": "Succeeded"}}
    assert set(usage.of(kinds.POD, obj)) == {"count/pods"}


def test_containers_must_say_what_is_limited_of_processor_and_memory_only() -> None:
    obj = pod(
        container("b", requests={"cpu": "1"}),
        container("a", limits={"memory": "1Mi"}, requests={"memory": "1Mi"}),
        initContainers=[container("i", requests={"cpu": "1", "memory": "1Mi"})],
    )
    limited = ("requests.cpu", "memory", "limits.ephemeral-storage", "pods")
    assert podusage.unsaid(obj, limited) == "memory for: b; requests.cpu for: a"
    assert podusage.unsaid(obj, ["limits.cpu"]) == "limits.cpu for: a,b,i"
    assert podusage.unsaid(obj, ["requests.ephemeral-storage"]) == ""


ASKING = pod(container(requests={"cpu": "1m"}))
ASKING_FOR_ZERO = pod(container(requests={"cpu": "0"}))
BRIEF = pod(container(), activeDeadlineSeconds=5)
GOLD = pod(container(), priorityClassName="gold")
TERM = {"labelSelector": {}, "topologyKey": "k"}
NEAR = pod(
    container(),
    affinity={"podAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [TERM]}},
)
ABROAD = pod(
    container(),
    affinity={
        "podAntiAffinity": {
            "preferredDuringSchedulingIgnoredDuringExecution": [
                {"weight": 1, "podAffinityTerm": {**TERM, "namespaceSelector": {}}}
            ]
        }
    },
)


@pytest.mark.parametrize(
    ("scope", "inside", "outside"),
    [
        ("BestEffort", ASKING_FOR_ZERO, ASKING),
        ("NotBestEffort", ASKING, ASKING_FOR_ZERO),
        ("Terminating", BRIEF, ASKING),
        ("NotTerminating", ASKING, BRIEF),
        ("PriorityClass", GOLD, ASKING),
        ("CrossNamespacePodAffinity", ABROAD, NEAR),
    ],
)
def test_a_scope_chooses_pods(scope: str, inside: Object, outside: Object) -> None:
    quota = {"spec": {"scopes": [scope], "hard": {"pods": "1"}}}
    assert usage.covers(quota, kinds.POD, inside)
    assert not usage.covers(quota, kinds.POD, outside)
    assert not usage.covers(quota, kinds.CLAIM, {"metadata": {}, "spec": {}})


@pytest.mark.parametrize(
    ("operator", "values", "gold", "without"),
    [
        ("In", ["gold", "iron"], True, False),
        ("In", ["iron"], False, False),
        ("NotIn", ["gold"], False, True),
        ("NotIn", ["iron"], True, True),
        ("Exists", [], True, False),
        ("DoesNotExist", [], False, True),
    ],
)
def test_priorities_choose_as_labels_do(
    operator: str, values: list[str], gold: bool, without: bool
) -> None:
    match = {"scopeName": "PriorityClass", "operator": operator, "values": values}
    quota = {"spec": {"scopeSelector": {"matchExpressions": [match]}}}
    assert usage.covers(quota, kinds.POD, GOLD) is gold
    assert usage.covers(quota, kinds.POD, ASKING) is without
