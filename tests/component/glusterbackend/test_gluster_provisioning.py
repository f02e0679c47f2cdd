"""Claims of an authenticated Heketi service: whose key it is, and what goes when the class goes."""

from __future__ import annotations

import base64

import heketiservice
from cluster import Cluster
from heketiservice import Served
from holdfast.api import kinds

GLUSTERFS = "kubernetes.io/glusterfs"


async def _secret(cluster: Cluster, key: str) -> None:
    data = {"key": base64.b64encode(key.encode()).decode()}
    await cluster.create(kinds.SECRET, "heketi-secret", type=GLUSTERFS, data=data)


async def _class(cluster: Cluster, name: str, **parameters: str) -> None:
    await cluster.create(
        kinds.STORAGE_CLASS,
        name,
        provisioner=GLUSTERFS,
        parameters={"restuser": "admin", **parameters},
        allowVolumeExpansion=True,
    )


async def test_the_key_of_a_secret_makes_grows_and_deletes_a_volume(
    cluster: Cluster, heketi: Served
) -> None:
    named = {"secretNamespace": "default", "secretName": "heketi-secret"}
    await _class(cluster, "slow", resturl=heketi.url, customEpNamePrefix="shop", **named)
    await cluster.make_claim("data", "slow", "1Gi")
    assert "heketi-secret" in await cluster.told("data", "ProvisioningFailed")
    await _secret(cluster, heketiservice.ADMIN)
    claim = await cluster.until(
        kinds.CLAIM, "data", lambda obj: obj["status"].get("phase") == "Bound", seconds=40
    )
    volume = await cluster.find(kinds.VOLUME, claim["spec"]["volumeName"])
    assert volume is not None
    endpoints = f"shop-{claim['metadata']['uid']}"
    assert volume["spec"]["glusterfs"]["endpoints"] == endpoints
    assert heketiservice.ADMIN not in str(volume)
    await cluster.until(kinds.ENDPOINTS, endpoints, lambda obj: bool(obj["subsets"]))
    await cluster.client.delete(kinds.STORAGE_CLASS, "slow")
    await cluster.client.delete(kinds.CLAIM, "data", "default")
    await cluster.gone(kinds.VOLUME, volume["metadata"]["name"], seconds=40)
    await cluster.gone(kinds.ENDPOINTS, endpoints)
    await cluster.gone(kinds.SERVICE, endpoints)
    assert (await heketi.running.get("/volumes"))["volumes"] == []


async def test_the_key_in_a_class_is_kept_until_its_volumes_are_gone(
    cluster: Cluster, heketi: Served
) -> None:
    await _class(cluster, "joe", resturl=heketi.url, restuserkey=heketiservice.ADMIN)
    await cluster.make_claim("data", "joe", "1Gi")
    claim = await cluster.in_phase(kinds.CLAIM, "data", "Bound")
    await cluster.client.delete(kinds.STORAGE_CLASS, "joe")
    await cluster.crash()
    await cluster.start()
    await cluster.client.delete(kinds.CLAIM, "data", "default")
    await cluster.gone(kinds.VOLUME, claim["spec"]["volumeName"], seconds=40)
    assert (await heketi.running.get("/volumes"))["volumes"] == []
