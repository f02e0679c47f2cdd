"""What a class says about place and mounting: allowedTopologies and mountOptions."""

from __future__ import annotations

from typing import Any

import pytest

from cluster import NODE, Cluster
from holdfast.api import kinds
from holdfast.backends import mountinfo

HOST = "kubernetes.io/hostname"


async def make_class(cluster: Cluster, values: list[str], **obj: Any) -> None:
    expression = {"key": HOST, "values": values}
    await cluster.create(
        kinds.STORAGE_CLASS,
        "c",
        provisioner="local.holdfast.dev",
        parameters={"layout": "directory"},
        allowedTopologies=[{"matchLabelExpressions": [expression]}],
        **obj,
    )


async def test_a_volume_is_made_where_the_class_allows(cluster: Cluster) -> None:
    await cluster.until(kinds.NODE, NODE, lambda node: True)
    await make_class(cluster, ["elsewhere", NODE])
    await cluster.bound("data", "c", "1Mi")


async def test_no_volume_is_made_where_the_class_does_not_allow_it(cluster: Cluster) -> None:
    await cluster.until(kinds.NODE, NODE, lambda node: True)
    await make_class(cluster, ["elsewhere"])
    await cluster.make_claim("data", "c", "1Mi")
    text = "error generating accessibility requirements: no available topology found"
    await cluster.told("data", "ProvisioningFailed", text)


async def test_the_scheduler_keeps_to_the_class(cluster: Cluster) -> None:
    await cluster.until(kinds.NODE, NODE, lambda node: True)
    await make_class(cluster, ["elsewhere"], volumeBindingMode="WaitForFirstConsumer")
    await cluster.make_claim("data", "c", "1Mi")
    await cluster.create(
        kinds.POD,
        "p",
        spec={
            "containers": [{"name": "main", "image": "busybox"}],
            "volumes": [{"name": "data", "persistentVolumeClaim": {"claimName": "data"}}],
        },
    )
    text = "node(s) didn't find available persistent volumes to bind"
    await cluster.told("p", "FailedScheduling", text)
    claim = await cluster.find(kinds.CLAIM, "data")
    assert claim is not None
    assert "volume.kubernetes.io/selected-node" not in claim["metadata"].get("annotations", {})


@pytest.mark.root
async def test_mount_options_go_from_the_class_to_the_mount(cluster: Cluster) -> None:
    await cluster.create(
        kinds.STORAGE_CLASS,
        "c",
        provisioner="local.holdfast.dev",
        mountOptions=["noatime", "nodev"],
    )
    claim = await cluster.bound("data", "c", "32Mi")
    volume = await cluster.find(kinds.VOLUME, claim["spec"]["volumeName"])
    assert volume is not None and volume["spec"]["mountOptions"] == ["noatime", "nodev"]
    place = await cluster.run_pod("p", "data")
    assert {"noatime", "nodev"} <= set(mountinfo.at(place)[0].options)


@pytest.mark.root
async def test_a_mount_option_the_kernel_does_not_know_is_told(cluster: Cluster) -> None:
    await cluster.create(
        kinds.STORAGE_CLASS, "c", provisioner="local.holdfast.dev", mountOptions=["nosuchoption"]
    )
    claim = await cluster.bound("data", "c", "32Mi")
    await cluster.create(
        kinds.POD,
        "p",
        spec={
            "containers": [{"name": "main", "image": "busybox"}],
            "volumes": [{"name": "data", "persistentVolumeClaim": {"claimName": "data"}}],
        },
    )
    volume = claim["spec"]["volumeName"]
    text = await cluster.told("p", "FailedMount")
    assert text.startswith(f'MountVolume.SetUp failed for volume "{volume}" : ')
