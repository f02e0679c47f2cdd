"""What belongs to what: ephemeral claims, and objects whose owners go."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from cluster import NODE, Cluster
from holdfast.api import kinds

Object = dict[str, Any]


def owned_by(*owners: Object, block: bool = True) -> list[Object]:
    return [
        {
            "apiVersion": owner["apiVersion"],
            "kind": owner["kind"],
            "name": owner["metadata"]["name"],
            "uid": owner["metadata"]["uid"],
            "blockOwnerDeletion": block,
        }
        for owner in owners
    ]


async def make(
    cluster: Cluster, name: str, *owners: Object, block: bool = True, **meta: Any
) -> Object:
    metadata = {**meta, "ownerReferences": owned_by(*owners, block=block)} if owners else meta
    return await cluster.create(kinds.CONFIG_MAP, name, metadata=metadata, data={})


async def delete(cluster: Cluster, name: str, policy: str | None = None) -> None:
    await cluster.client.delete(kinds.CONFIG_MAP, name, "default", propagation=policy)


async def stays(cluster: Cluster, name: str) -> Object:
    await asyncio.sleep(0.3)
    found = await cluster.find(kinds.CONFIG_MAP, name)
    assert found is not None
    return found


async def test_dependents_go_with_their_last_owner(cluster: Cluster) -> None:
    one, two = await make(cluster, "one"), await make(cluster, "two")
    await make(cluster, "child", one, two)
    grandchild = await make(cluster, "middle", one)
    await make(cluster, "leaf", grandchild)
    await delete(cluster, "one")
    for name in ("middle", "leaf"):
        await cluster.gone(kinds.CONFIG_MAP, name)
    child = await cluster.until(
        kinds.CONFIG_MAP, "child", lambda o: len(o["metadata"]["ownerReferences"]) == 1
    )
    assert child["metadata"]["ownerReferences"][0]["name"] == "two"
    await delete(cluster, "two")
    await cluster.gone(kinds.CONFIG_MAP, "child")


async def test_an_owner_that_never_was_is_gone(cluster: Cluster) -> None:
    one = await make(cluster, "one")
    ghost = {**one, "metadata": {**one["metadata"], "uid": "another-life"}}
    await make(cluster, "child", ghost)
    await cluster.gone(kinds.CONFIG_MAP, "child")


async def test_an_owner_of_a_kind_nobody_serves_is_not_gone(cluster: Cluster) -> None:
    stranger = {
        "apiVersion": "example.org/v1",
        "kind": "Thing",
        "metadata": {"name": "x", "uid": "y"},
    }
    await make(cluster, "child", stranger)
    await stays(cluster, "child")


async def test_an_owner_of_another_namespace_does_not_count(cluster: Cluster) -> None:
    await cluster.create(kinds.NAMESPACE, "other")
    far = await make(cluster, "far", namespace="other")
    await make(cluster, "child", far)
    await cluster.gone(kinds.CONFIG_MAP, "child")
    near = await make(cluster, "near")
    volume = {
        "capacity": {"storage": "1Gi"},
        "accessModes": ["ReadWriteOnce"],
        "hostPath": {"path": "/x"},
    }
    meta = {"ownerReferences": owned_by(near)}
    await cluster.create(kinds.VOLUME, "pv", metadata=meta, spec=volume)
    await delete(cluster, "near")
    await cluster.told("pv", "OwnerRefInvalidNamespace")
    assert await cluster.find(kinds.VOLUME, "pv") is not None


async def test_in_the_foreground_an_owner_goes_last(cluster: Cluster) -> None:
    owner = await make(cluster, "owner")
    held = await make(cluster, "child", owner, finalizers=["example.org/held"])
    await make(cluster, "free", owner, block=False, finalizers=["example.org/held"])
    await make(cluster, "leaf", held)
    await delete(cluster, "owner", "Foreground")
    found = await stays(cluster, "owner")
    assert found["metadata"]["finalizers"] == ["foregroundDeletion"]
    await cluster.gone(kinds.CONFIG_MAP, "leaf")
    child = await cluster.until(
        kinds.CONFIG_MAP, "child", lambda o: "deletionTimestamp" in o["metadata"]
    )
    assert "example.org/held" in child["metadata"]["finalizers"]
    patch = {"metadata": {"finalizers": None}}
    await cluster.client.patch(kinds.CONFIG_MAP, "child", patch, "default")
    await cluster.gone(kinds.CONFIG_MAP, "owner")
    # One that does not block may outlive its owner.
    assert await cluster.find(kinds.CONFIG_MAP, "free") is not None
    await cluster.client.patch(kinds.CONFIG_MAP, "free", patch, "default")
    await cluster.gone(kinds.CONFIG_MAP, "free")


async def test_orphans_stay_and_forget_their_owner(cluster: Cluster) -> None:
    owner = await make(cluster, "owner")
    await make(cluster, "child", owner)
    await delete(cluster, "owner", "Orphan")
    await cluster.gone(kinds.CONFIG_MAP, "owner")
    child = await stays(cluster, "child")
    assert "ownerReferences" not in child["metadata"]


async def test_the_policy_may_change_while_an_owner_waits(cluster: Cluster) -> None:
    owner = await make(cluster, "owner")
    await make(cluster, "child", owner, finalizers=["example.org/held"])
    await delete(cluster, "owner", "Foreground")
    await stays(cluster, "owner")
    await delete(cluster, "owner", "Background")
    await cluster.gone(kinds.CONFIG_MAP, "owner")
    assert await cluster.find(kinds.CONFIG_MAP, "child") is not None
    patch = {"metadata": {"finalizers": None}}
    await cluster.client.patch(kinds.CONFIG_MAP, "child", patch, "default")


async def test_what_was_left_over_is_collected_after_a_restart(cluster: Cluster) -> None:
    owner = await make(cluster, "owner")
    await make(cluster, "child", owner)
    await cluster.crash()
    await delete(cluster, "owner")
    await cluster.start()
    await cluster.gone(kinds.CONFIG_MAP, "child")


# Generic ephemeral volumes


def pod(name: str, size: str = "1Mi") -> Object:
    template = {
        "metadata": {"labels": {"of": name}},
        "spec": {
            "accessModes": ["ReadWriteOnce"],
            "storageClassName": "c",
            "resources": {"requests": {"storage": size}},
        },
    }
    return {
        "containers": [
            {
                "name": "main",
                "image": "busybox",
                "volumeMounts": [{"name": "scratch", "mountPath": "/scratch"}],
            }
        ],
        "volumes": [{"name": "scratch", "ephemeral": {"volumeClaimTemplate": template}}],
        "terminationGracePeriodSeconds": 0,
    }


@pytest.mark.root
async def test_an_ephemeral_volume_lives_as_long_as_its_pod(cluster: Cluster) -> None:
    await cluster.make_class("c", layout="directory")
    made = await cluster.create(kinds.POD, "p", spec=pod("p"))
    await cluster.in_phase(kinds.POD, "p", "Running")
    claim = await cluster.find(kinds.CLAIM, "p-scratch")
    assert claim is not None and claim["metadata"]["labels"] == {"of": "p"}
    assert claim["metadata"]["ownerReferences"] == [
        {
            "apiVersion": "v1",
            "kind": "Pod",
            "name": "p",
            "uid": made["metadata"]["uid"],
            "controller": True,
            "blockOwnerDeletion": True,
        }
    ]
    places = cluster.data_dir / "nodes" / NODE / "pods" / made["metadata"]["uid"]
    assert len(list(places.glob("volumes/*/*/mount"))) == 1
    await cluster.client.delete(kinds.POD, "p", "default")
    await cluster.gone(kinds.CLAIM, "p-scratch")
    await cluster.gone(kinds.VOLUME, claim["spec"]["volumeName"])


async def test_a_claim_of_that_name_that_is_not_the_pods_is_left_alone(cluster: Cluster) -> None:
    await cluster.make_class("c", layout="directory")
    await cluster.bound("p-scratch", "c", "1Mi")
    await cluster.create(kinds.POD, "p", spec=pod("p"))
    text = "PVC default/p-scratch was not created for pod default/p (pod is not owner)"
    await cluster.told("p", "FailedScheduling", text)
    await cluster.told("p", "FailedBinding", f"ephemeral volume scratch: {text}")
    claim = await cluster.find(kinds.CLAIM, "p-scratch")
    assert claim is not None and "ownerReferences" not in claim["metadata"]


async def test_a_claim_that_a_quota_refuses_is_told_on_the_pod(cluster: Cluster) -> None:
    spec = {"hard": {"persistentvolumeclaims": "0"}}
    await cluster.create(kinds.RESOURCE_QUOTA, "q", spec=spec)
    await cluster.create(kinds.POD, "p", spec=pod("p"))
    await cluster.told("p", "FailedBinding", "exceeded quota: q")
    await cluster.client.delete(kinds.RESOURCE_QUOTA, "q", "default")
    await cluster.until(kinds.CLAIM, "p-scratch", lambda claim: True)
