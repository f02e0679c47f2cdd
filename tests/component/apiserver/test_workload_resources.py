"""Workloads over the API: generations, the scale and eviction subresources, default tolerations."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx2
import pytest

from holdfast.api import kinds
from holdfast.testing import apiserver

Object = dict[str, Any]
DEPLOYMENTS = "/apis/apps/v1/namespaces/default/deployments"
MERGE = {"Content-Type": "application/merge-patch+json"}


@pytest.fixture
async def api(tmp_path: Path) -> AsyncIterator[httpx2.AsyncClient]:
    async with apiserver.api_server(tmp_path) as server:
        transport = httpx2.AsyncHTTPTransport(uds=str(server.socket))
        headers = {"Authorization": f"Bearer {apiserver.TOKEN}"}
        async with httpx2.AsyncClient(
            transport=transport, base_url="http://holdfast", headers=headers
        ) as client:
            yield client


def deployment(**spec: Any) -> Object:
    pod = {"containers": [{"name": "main", "image": "app:1"}]}
    return {
        "metadata": {"name": "web"},
        "spec": {
            "replicas": 2,
            "selector": {
                "matchLabels": {"app": "web"},
                "matchExpressions": [{"key": "tier", "operator": "NotIn", "values": ["b", "a"]}],
            },
            "template": {"metadata": {"labels": {"app": "web"}}, "spec": pod},
            **spec,
        },
    }


async def test_a_generation_counts_changes_of_the_spec_only(api: httpx2.AsyncClient) -> None:
    made = (await api.post(DEPLOYMENTS, json=deployment() | {"status": {"replicas": 9}})).json()
    assert made["metadata"]["generation"] == 1
    assert made.get("status", {}).get("replicas") is None
    labelled = {"metadata": {"labels": {"a": "b"}, "generation": 7}}
    same = (await api.patch(f"{DEPLOYMENTS}/web", json=labelled, headers=MERGE)).json()
    assert same["metadata"]["generation"] == 1
    paused = {"spec": {"paused": True}}
    changed = (await api.patch(f"{DEPLOYMENTS}/web", json=paused, headers=MERGE)).json()
    assert changed["metadata"]["generation"] == 2
    status = {"status": {"observedGeneration": 2, "replicas": 1}}
    seen = (await api.patch(f"{DEPLOYMENTS}/web/status", json=status, headers=MERGE)).json()
    assert (seen["metadata"]["generation"], seen["status"]["replicas"]) == (2, 1)


async def test_a_workload_is_read_and_written_through_its_scale(api: httpx2.AsyncClient) -> None:
    await api.post(DEPLOYMENTS, json=deployment())
    scale = (await api.get(f"{DEPLOYMENTS}/web/scale")).json()
    assert (scale["kind"], scale["apiVersion"]) == ("Scale", "autoscaling/v1")
    assert scale["spec"] == {"replicas": 2}
    assert scale["status"] == {"replicas": 0, "selector": "app=web,tier notin (a,b)"}
    scale["spec"]["replicas"] = 5
    put = await api.put(f"{DEPLOYMENTS}/web/scale", json=scale)
    assert put.json()["spec"] == {"replicas": 5}
    stale = await api.put(f"{DEPLOYMENTS}/web/scale", json=scale)
    assert (stale.status_code, stale.json()["reason"]) == (409, "Conflict")
    none = {"spec": {"replicas": 0}}
    patched = await api.patch(f"{DEPLOYMENTS}/web/scale", json=none, headers=MERGE)
    assert patched.json()["spec"] == {}
    found = (await api.get(f"{DEPLOYMENTS}/web")).json()
    assert (found["spec"]["replicas"], found["metadata"]["generation"]) == (0, 3)


async def test_a_scale_obeys_the_rules_of_counts(api: httpx2.AsyncClient) -> None:
    await api.post(DEPLOYMENTS, json=deployment())
    less = {"spec": {"replicas": -1}}
    refused = await api.patch(f"{DEPLOYMENTS}/web/scale", json=less, headers=MERGE)
    assert refused.status_code == 422
    assert refused.json()["message"] == (
        'Scale.autoscaling "web" is invalid: spec.replicas: Invalid value: -1: '
        "must be greater than or equal to 0"
    )
    words = {"kind": "Scale", "apiVersion": "autoscaling/v1", "spec": {"replicas": "many"}}
    assert (await api.put(f"{DEPLOYMENTS}/web/scale", json=words)).status_code == 400
    assert (await api.get("/api/v1/namespaces/default/pods/x/scale")).status_code == 404
    assert (await api.delete(f"{DEPLOYMENTS}/web/scale")).status_code == 405


PODS = "/api/v1/namespaces/default/pods"
POD: Object = {
    "metadata": {"name": "p"},
    "spec": {"containers": [{"name": "main", "image": "app:1"}]},
}


async def test_an_eviction_deletes_the_pod_and_says_why(api: httpx2.AsyncClient) -> None:
    bound = {**POD, "spec": {**POD["spec"], "nodeName": "n1"}}
    await api.post(PODS, json=bound)
    body: Object = {
        "kind": "Eviction",
        "apiVersion": "policy/v1",
        "metadata": {"name": "p", "namespace": "default"},
        "deleteOptions": {"gracePeriodSeconds": 7},
    }
    dry = await api.post(f"{PODS}/p/eviction?dryRun=All", json=body)
    assert dry.status_code == 201
    assert "deletionTimestamp" not in (await api.get(f"{PODS}/p")).json()["metadata"]
    answer = await api.post(f"{PODS}/p/eviction", json=body)
    assert (answer.status_code, answer.json()["status"]) == (201, "Success")
    pod = (await api.get(f"{PODS}/p")).json()
    assert pod["metadata"]["deletionGracePeriodSeconds"] == 7
    (condition,) = [c for c in pod["status"]["conditions"] if c["type"] == "DisruptionTarget"]
    assert condition["reason"] == "EvictionByEvictionAPI"


async def test_an_eviction_is_refused_for_another_pod_or_none(api: httpx2.AsyncClient) -> None:
    await api.post(PODS, json=POD)
    wrong: Object = {"kind": "Eviction", "apiVersion": "policy/v1", "metadata": {"name": "q"}}
    assert (await api.post(f"{PODS}/p/eviction", json=wrong)).status_code == 400
    other = {**wrong, "deleteOptions": {"preconditions": {"uid": "not-its-uid"}}}
    other["metadata"] = {"name": "p"}
    assert (await api.post(f"{PODS}/p/eviction", json=other)).status_code == 409
    assert (await api.post(f"{PODS}/q/eviction", json=wrong)).status_code == 404
    assert (await api.get(f"{PODS}/p/eviction")).status_code == 405


async def test_a_pod_tolerates_a_lost_node_for_five_minutes(api: httpx2.AsyncClient) -> None:
    made = (await api.post(PODS, json=POD)).json()
    assert made["spec"]["tolerations"] == [
        {"key": f"node.kubernetes.io/{key}", "operator": "Exists", "effect": "NoExecute",
         "tolerationSeconds": 300}
        for key in ("not-ready", "unreachable")
    ]  # fmt: skip


async def test_a_pod_that_says_how_long_keeps_its_word(api: httpx2.AsyncClient) -> None:
    own = [
        {"key": "node.kubernetes.io/unreachable", "operator": "Exists", "effect": "NoExecute"},
        {"key": "gpu", "operator": "Exists", "effect": "NoSchedule"},
    ]
    spec = {**POD["spec"], "tolerations": own}
    made = (await api.post(PODS, json={**POD, "spec": spec})).json()
    assert made["spec"]["tolerations"][:2] == own
    assert [each["key"] for each in made["spec"]["tolerations"][2:]] == [
        "node.kubernetes.io/not-ready"
    ]
    everything = {**POD["spec"], "tolerations": [{"operator": "Exists"}]}
    body = {"metadata": {"name": "all"}, "spec": everything}
    made = (await api.post(PODS, json=body)).json()
    assert made["spec"]["tolerations"] == [{"operator": "Exists"}]


async def test_discovery_says_what_the_subresources_take(api: httpx2.AsyncClient) -> None:
    apps = (await api.get("/apis/apps/v1")).json()["resources"]
    scale = next(entry for entry in apps if entry["name"] == "statefulsets/scale")
    taken = (scale["group"], scale["version"], scale["kind"])
    assert taken == ("autoscaling", "v1", "Scale")
    core = (await api.get("/api/v1")).json()["resources"]
    eviction = next(entry for entry in core if entry["name"] == "pods/eviction")
    assert (eviction["group"], eviction["version"]) == ("policy", "v1")
    names = {entry["name"]: entry.get("shortNames") for entry in apps}
    assert names["deployments"] == ["deploy"] and names["statefulsets"] == ["sts"]
    assert {kind.plural for kind in kinds.ALL if kind.group == "apps"} <= set(names)
