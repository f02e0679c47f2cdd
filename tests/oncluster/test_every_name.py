"""A claim of every old and new class name, from nothing to nothing.

Ceph and Cinder are real, the vCenter is simulated.

Provisioned as a `csi` volume, bound and attached by Kubernetes' own controllers, used on this
machine through the CSI drivers of `holdfast node serve`, grown, detached, deleted.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

import drivers
from holdfast.api import kinds, quantity
from holdfast.backends import mountinfo
from holdfast.controllers.csidrivers import DriverObjects
from holdfast.runtime.http import HttpClient
from oncluster import storage
from oncluster.kubelet import Kubelet
from oncluster.place import Cluster
from oncluster.storage import DRIVERS, MACHINE, NAMES, NODE, Name, Systems
from oncluster.test_controller import (
    controller,
    gone,
    make_claim,
    make_class,
    until,
    volume_of,
)

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.root,
    pytest.mark.timeout(400),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.filterwarnings("ignore::openstack.warnings._RemovedInSDKWarning"),
]
Object = dict[str, Any]


@pytest.fixture(scope="module")
def kubelet_directory(systems: Systems) -> Iterator[Path]:
    """Where kubelet would have its files; the drivers of all names serve there."""
    with drivers.short_directory() as directory:
        (directory / "data").mkdir(mode=0o700)
        (directory / "data" / "holdfast.toml").write_text(systems.configuration())
        note = directory / "data" / "csi" / "backends" / "vsphere"
        note.mkdir(parents=True)
        (note / "vm-uuid").write_text(systems.vcenter.uuid_of(MACHINE))
        more = [part for name in DRIVERS for part in ("--driver", name)]
        with drivers.Driver(directory) as driver:
            driver.start_for_kubelet(directory / "k", *more)
            yield directory / "k"
            assert driver.stop() == 0


@pytest.fixture
async def kubelet(client: HttpClient, kubelet_directory: Path) -> AsyncIterator[Kubelet]:
    """This machine as the cluster's node."""
    made = Kubelet(client, kubelet_directory, NODE)
    await made.register(DRIVERS)
    yield made
    await made.leave()


@pytest.mark.parametrize("name", NAMES, ids=[each.provisioner for each in NAMES])
async def test_a_volume_of_each_name_lives_as_one_of_csi(
    cluster: Cluster,
    client: HttpClient,
    kubelet: Kubelet,
    systems: Systems,
    tmp_path: Path,
    name: Name,
) -> None:
    await storage.write_secrets(client, systems.pool)
    await DriverObjects(client, dict.fromkeys(DRIVERS, True)).run()
    class_name = await make_class(
        client,
        name.provisioner,
        parameters=dict(name.parameters(systems)),
        allowVolumeExpansion=True,
    )
    async with controller(cluster, tmp_path, storage=systems.instances()):
        claim = await make_claim(client, class_name, name.size)
        volume = await volume_of(client, claim, 60)
        _check_object(volume, name)
        pod = await kubelet.start_pod(claim)
        await _use(client, kubelet, volume, claim, name)
        await kubelet.delete_pod(pod)
        await until(partial(kubelet.detached, volume), 60)
        await client.delete(kinds.CLAIM, claim, "default")
        await until(partial(gone, client, kinds.VOLUME, volume["metadata"]["name"]), 60)
    assert systems.stored(name.driver) == []
    await _no_failure(client, claim, volume)


def _check_object(volume: Object, name: Name) -> None:
    annotations, source = volume["metadata"]["annotations"], volume["spec"]["csi"]
    assert source["driver"] == name.driver
    assert annotations["pv.kubernetes.io/provisioned-by"] == name.driver
    assert "pv.kubernetes.io/migrated-to" not in annotations
    assert "external-provisioner.volume.kubernetes.io/finalizer" in volume["metadata"]["finalizers"]
    assert source["fsType"] == "ext4"
    assert volume["spec"]["capacity"]["storage"] == (name.given or name.size)


async def _use(
    client: HttpClient, kubelet: Kubelet, volume: Object, claim: str, name: Name
) -> None:
    """Mount the volume where the pod would, write, grow it under the writer, and let it go."""
    pv = volume["metadata"]["name"]
    attached = await until(partial(kubelet.attached, volume), 60)
    held = (await client.get(kinds.VOLUME, pv))["metadata"]["finalizers"]
    assert f"external-attacher/{name.driver.replace('.', '-')}" in held
    target = await kubelet.mount(volume, attached)
    try:
        (target / "kept").write_text(pv)
        size, grown = (
            quantity.parse(each).bytes() for each in (name.given or name.size, name.grown)
        )
        had = await kubelet.capacity(volume)
        assert 0.8 * size < had <= size
        await _grow(client, claim, pv, name.grown)
        if not await kubelet.grow(volume, grown):
            # This kernel grows no mounted file system for us; a restarted pod has the grown one.
            await kubelet.unmount(volume)
            await kubelet.mount(volume, attached)
            assert await kubelet.grow(volume, grown)
        assert 0.8 * grown < await kubelet.capacity(volume) <= grown
        assert [each.fs_type for each in mountinfo.at(target)] == ["ext4"]
        assert (target / "kept").read_text() == pv
    finally:
        await kubelet.unmount(volume)
    assert mountinfo.at(target) == []


async def _grow(client: HttpClient, claim: str, pv: str, size: str) -> None:
    patch = {"spec": {"resources": {"requests": {"storage": size}}}}
    await client.patch(kinds.CLAIM, claim, patch, "default")

    async def waits_for_node() -> bool:
        found = await client.get(kinds.CLAIM, claim, "default")
        conditions = {each["type"] for each in found["status"].get("conditions") or ()}
        volume = await client.get(kinds.VOLUME, pv)
        ready = volume["spec"]["capacity"]["storage"] == size
        return ready and "FileSystemResizePending" in conditions

    await until(waits_for_node, 60)


async def _no_failure(client: HttpClient, claim: str, volume: Object) -> None:
    """Nothing of ours complained; Kubernetes itself may say that it has no such plug-in."""
    names = {claim, volume["metadata"]["name"]}
    said = [
        each["message"]
        for each in (await client.list(kinds.EVENT)).items
        if each["involvedObject"]["name"] in names
        and each["type"] == "Warning"
        and each["source"].get("component") != "persistentvolume-controller"
    ]
    assert said == []
