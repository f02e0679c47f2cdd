"""ResourceQuotas: what they refuse, and the status that follows."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from cluster import Cluster
from holdfast.api import errors, kinds

Object = dict[str, Any]
OF_CLASS = "c.storageclass.storage.k8s.io"


async def make_quota(cluster: Cluster, name: str, **hard: str) -> None:
    spec = {"hard": {key.replace("__", "."): value for key, value in hard.items()}}
    await cluster.create(kinds.RESOURCE_QUOTA, name, spec=spec)


def used(**wanted: str) -> Any:
    expected = {key.replace("__", "."): value for key, value in wanted.items()}
    return lambda quota: (quota.get("status") or {}).get("used") == expected


async def test_storage_beyond_the_quota_is_refused_in_kubernetes_words(cluster: Cluster) -> None:
    await cluster.make_class("c", layout="directory")
    await make_quota(cluster, "q", requests__storage="3Mi", persistentvolumeclaims="5")
    await cluster.make_claim("one", "c", "2Mi")
    with pytest.raises(errors.Forbidden) as caught:
        await cluster.make_claim("two", "c", "2Mi")
    assert caught.value.message == (
        'persistentvolumeclaims "two" is forbidden: exceeded quota: q, '
        "requested: requests.storage=2Mi, used: requests.storage=2Mi, limited: requests.storage=3Mi"
    )
    assert caught.value.code == 403
    await cluster.make_claim("three", "c", "1Mi")
    await cluster.until(
        kinds.RESOURCE_QUOTA, "q", used(requests__storage="3Mi", persistentvolumeclaims="2")
    )


async def test_every_limit_that_is_exceeded_is_named(cluster: Cluster) -> None:
    await make_quota(cluster, "q", requests__storage="1Mi", persistentvolumeclaims="0")
    with pytest.raises(errors.Forbidden) as caught:
        await cluster.make_claim("one", "c", "2Mi")
    assert caught.value.message.endswith(
        "requested: persistentvolumeclaims=1,requests.storage=2Mi, "
        "used: persistentvolumeclaims=0,requests.storage=0, "
        "limited: persistentvolumeclaims=0,requests.storage=1Mi"
    )


async def test_a_class_has_limits_of_its_own(cluster: Cluster) -> None:
    spec = {
        "hard": {f"{OF_CLASS}/requests.storage": "2Mi", f"{OF_CLASS}/persistentvolumeclaims": "1"}
    }
    await cluster.create(kinds.RESOURCE_QUOTA, "q", spec=spec)
    await cluster.make_claim("other", "d", "9Mi")
    await cluster.make_claim("one", "c", "1Mi")
    with pytest.raises(errors.Forbidden, match=f"requested: {OF_CLASS}/persistentvolumeclaims=1"):
        await cluster.make_claim("two", "c", "1Mi")
    wanted = {f"{OF_CLASS}/requests.storage": "1Mi", f"{OF_CLASS}/persistentvolumeclaims": "1"}
    await cluster.until(
        kinds.RESOURCE_QUOTA, "q", lambda q: (q.get("status") or {}).get("used") == wanted
    )


async def test_growing_counts_and_shrinking_the_wish_does_not(cluster: Cluster) -> None:
    await cluster.make_class("c", layout="directory")
    await cluster.bound("data", "c", "1Mi")
    await make_quota(cluster, "q", requests__storage="2Mi")
    with pytest.raises(errors.Forbidden, match=r"requested: requests\.storage=2Mi"):
        await cluster.request("data", "3Mi")
    await cluster.request("data", "2Mi")
    await cluster.until(kinds.RESOURCE_QUOTA, "q", used(requests__storage="2Mi"))


async def test_what_is_deleted_is_free_again(cluster: Cluster) -> None:
    await make_quota(cluster, "q", persistentvolumeclaims="1")
    await cluster.make_claim("one", "c", "1Mi")
    await cluster.client.delete(kinds.CLAIM, "one", "default")
    await cluster.gone(kinds.CLAIM, "one")
    await cluster.make_claim("two", "c", "1Mi")
    await cluster.until(kinds.RESOURCE_QUOTA, "q", used(persistentvolumeclaims="1"))


async def test_two_claims_of_one_moment_do_not_both_take_the_last(cluster: Cluster) -> None:
    await make_quota(cluster, "q", persistentvolumeclaims="3")
    made = await asyncio.gather(
        *(cluster.make_claim(f"claim-{n}", "c", "1Mi") for n in range(10)), return_exceptions=True
    )
    refused = [one for one in made if isinstance(one, errors.Forbidden)]
    assert len(refused) == 7


async def test_other_namespaces_and_other_kinds(cluster: Cluster) -> None:
    await cluster.create(kinds.NAMESPACE, "other")
    spec = {"hard": {"persistentvolumeclaims": "0", "configmaps": "1", "count/secrets": "0"}}
    await cluster.create(kinds.RESOURCE_QUOTA, "q", metadata={"namespace": "other"}, spec=spec)
    await cluster.make_claim("here", "c", "1Mi")
    there = {"namespace": "other"}
    await cluster.create(kinds.CONFIG_MAP, "one", metadata=there, data={})
    with pytest.raises(errors.Forbidden, match="requested: configmaps=1, used: configmaps=1"):
        await cluster.create(kinds.CONFIG_MAP, "two", metadata=there, data={})
    with pytest.raises(errors.Forbidden, match="requested: count/secrets=1"):
        await cluster.create(kinds.SECRET, "s", metadata=there)
    quota = await cluster.until(
        kinds.RESOURCE_QUOTA,
        "q",
        lambda q: ((q.get("status") or {}).get("used") or {}).get("configmaps") == "1",
        "other",
    )
    assert quota["status"]["hard"] == spec["hard"]
    changed = {"spec": {"hard": {"count/secrets": None, "persistentvolumeclaims": "4"}}}
    await cluster.client.patch(kinds.RESOURCE_QUOTA, "q", changed, "other")
    await cluster.until(
        kinds.RESOURCE_QUOTA,
        "q",
        lambda q: q["status"]["hard"] == {"persistentvolumeclaims": "4", "configmaps": "1"},
        "other",
    )


def wanting(name: str = "c", **amounts: str) -> Object:
    return {"name": name, "image": "i", "resources": {"requests": amounts}}


async def test_pods_share_out_processor_and_memory_until_they_are_over(cluster: Cluster) -> None:
    await make_quota(cluster, "q", requests__cpu="1", memory="1Gi", pods="2")
    # No node takes it, so that its phase is the one written here.
    one = {
        "containers": [wanting(cpu="800m", memory="1Mi")],
        "nodeSelector": {"machine": "elsewhere"},
    }
    await cluster.create(kinds.POD, "one", spec=one)
    await cluster.until(
        kinds.RESOURCE_QUOTA, "q", used(requests__cpu="800m", memory="1Mi", pods="1")
    )
    with pytest.raises(errors.Forbidden) as caught:
        await cluster.create(kinds.POD, "two", spec=one)
    assert caught.value.message == (
        'pods "two" is forbidden: exceeded quota: q, '
        "requested: requests.cpu=800m, used: requests.cpu=800m, limited: requests.cpu=1"
    )
    over = {"status": {"phase": "Succeeded"}}
    await cluster.client.patch(kinds.POD, "one", over, "default", subresource="status")
    await cluster.until(kinds.RESOURCE_QUOTA, "q", used(requests__cpu="0", memory="0", pods="0"))
    await cluster.create(kinds.POD, "two", spec=one)


async def test_containers_say_how_much_they_want_of_what_is_limited(cluster: Cluster) -> None:
    await make_quota(cluster, "q", requests__cpu="1", memory="1Gi")
    with pytest.raises(errors.Forbidden) as caught:
        await cluster.create(
            kinds.POD, "one", spec={"containers": [wanting(memory="1Mi"), wanting("d")]}
        )
    assert caught.value.message == (
        'pods "one" is forbidden: failed quota: q: '
        "must specify memory for: d; requests.cpu for: c,d"
    )


async def test_a_quota_with_a_scope_counts_the_pods_in_it(cluster: Cluster) -> None:
    spec = {"hard": {"pods": "1"}, "scopes": ["BestEffort"]}
    await cluster.create(kinds.RESOURCE_QUOTA, "q", spec=spec)
    await cluster.create(kinds.POD, "asks", spec={"containers": [wanting(cpu="1m")]})
    await cluster.create(kinds.POD, "modest", spec={"containers": [wanting()]})
    await cluster.until(kinds.RESOURCE_QUOTA, "q", used(pods="1"))
    with pytest.raises(errors.Forbidden, match="requested: pods=1, used: pods=1, limited: pods=1"):
        await cluster.create(kinds.POD, "second", spec={"containers": [wanting()]})
