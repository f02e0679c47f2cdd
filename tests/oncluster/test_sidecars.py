"""The official sidecars with `holdfast csi` as their driver, on a real control plane.

No controller of ours runs: csi-provisioner, csi-attacher, csi-resizer, csi-snapshotter and
snapshot-controller do their work over our sockets, for real Ceph and for local volumes.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

import drivers
from holdfast.api import errors, kinds
from holdfast.controllers.csidrivers import DriverObjects
from holdfast.runtime.http import HttpClient
from oncluster import snapshots, storage
from oncluster.kubelet import Kubelet
from oncluster.place import Cluster
from oncluster.test_controller import bound, gone, make_claim, make_class, until, volume_of
from servers import sidecars
from servers.ceph.pools import Pool
from servers.kubernetes.controlplane import ASSETS

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.root,
    pytest.mark.timeout(1800),
    pytest.mark.skipif(ASSETS not in os.environ, reason=f"{ASSETS} names no programs"),
]
Object = dict[str, Any]
CEPH = "rbd.csi.ceph.com"
NODE = drivers.NODE
EVERYTHING = (
    "csi-provisioner",
    "csi-attacher",
    "csi-resizer",
    "csi-snapshotter",
    "snapshot-controller",
)


@pytest.fixture(scope="module")
def programs() -> Path:
    """The sidecars, built now if they are not there."""
    return sidecars.built()


@pytest.fixture
async def client(real_cluster: Cluster, programs: Path) -> AsyncIterator[HttpClient]:
    """The cluster, with the resources that the snapshotter works on."""
    async with real_cluster.access.client() as http:
        await snapshots.install(http, programs)
        yield http


@pytest.fixture
def directory() -> Iterator[Path]:
    """A directory whose path is short enough for sockets."""
    with drivers.short_directory() as path:
        (path / "data").mkdir(mode=0o700)
        yield path


async def test_ceph_volumes_live_and_die_by_the_sidecars(
    client: HttpClient, real_cluster: Cluster, directory: Path, pool: Pool, programs: Path
) -> None:
    await storage.write_secrets(client, pool)
    await DriverObjects(client, {CEPH: True}).run()
    (directory / "data" / "holdfast.toml").write_text(storage.section(pool))
    parameters = storage.ceph_csi(pool)
    class_name = await make_class(client, CEPH, parameters=parameters, allowVolumeExpansion=True)
    with drivers.Driver(directory, CEPH) as driver:
        driver.start()
        kubelet = Kubelet(client, directory / "k", NODE, {CEPH: driver.socket})
        await kubelet.register([CEPH])
        config = real_cluster.kubeconfig
        with sidecars.running(programs, directory, driver.socket, config, *EVERYTHING):
            claim = await make_claim(client, class_name, "100000000")
            volume = await volume_of(client, claim, 60)
            _check_provisioned(volume)
            await _use(client, kubelet, volume, claim)
            copies = await _copies(client, class_name, claim)
            await _delete_all(client, [claim, *copies])
        await kubelet.leave()
        assert driver.stop() == 0
    assert pool.images() == []
    assert pool.leftovers() == set()


def _check_provisioned(volume: Object) -> None:
    source, annotations = volume["spec"]["csi"], volume["metadata"]["annotations"]
    assert source["driver"] == annotations["pv.kubernetes.io/provisioned-by"] == CEPH
    assert source["nodeStageSecretRef"] == {"name": "csi-rbd-secret", "namespace": "kube-system"}
    assert source["volumeAttributes"]["storage.kubernetes.io/csiProvisionerIdentity"]
    # 100000000 bytes are no whole number of MiB; the image's own size is what the volume says.
    assert volume["spec"]["capacity"]["storage"] == "96Mi"


async def _use(client: HttpClient, kubelet: Kubelet, volume: Object, claim: str) -> None:
    """Attach, mount, grow, detach."""
    pod = await kubelet.start_pod(claim)
    attached = await until(partial(kubelet.attached, volume), 60)
    target = await kubelet.mount(volume, attached)
    try:
        (target / "kept").write_text("kept")
    finally:
        await kubelet.unmount(volume)
    await _grow(client, claim, volume)
    await kubelet.mount(volume, attached)
    try:
        assert (target / "kept").read_text() == "kept"
        assert await kubelet.capacity(volume) > 200 << 20
    finally:
        await kubelet.unmount(volume)
    await kubelet.delete_pod(pod)
    await until(partial(kubelet.detached, volume), 60)


async def _grow(client: HttpClient, claim: str, volume: Object) -> None:
    patch = {"spec": {"resources": {"requests": {"storage": "256Mi"}}}}
    await client.patch(kinds.CLAIM, claim, patch, "default")

    async def grown() -> bool:
        found = await client.get(kinds.VOLUME, volume["metadata"]["name"])
        return bool(found["spec"]["capacity"]["storage"] == "256Mi")

    await until(grown, 60)


async def _copies(client: HttpClient, class_name: str, claim: str) -> list[str]:
    """A clone, and a snapshot's restoration; the snapshot is deleted when it is restored."""
    origin = {"kind": "PersistentVolumeClaim", "name": claim}
    clone = await snapshots.claim_from(client, class_name, origin)
    snapshot = await snapshots.take(client, CEPH, claim)
    restored = await snapshots.claim_from(client, class_name, snapshots.reference(snapshot))
    await snapshots.delete(client, snapshot)
    return [clone, restored]


async def _delete_all(client: HttpClient, claims: list[str]) -> None:
    volumes = [(await volume_of(client, name))["metadata"]["name"] for name in claims]
    for name in claims:
        await client.delete(kinds.CLAIM, name, "default")
    for name in volumes:
        await until(partial(gone, client, kinds.VOLUME, name), 90)


async def test_a_local_volume_is_made_where_its_pod_is_to_run(
    client: HttpClient, real_cluster: Cluster, directory: Path, programs: Path
) -> None:
    await DriverObjects(client, {drivers.LOCAL: False}).run()
    class_name = await make_class(
        client,
        drivers.LOCAL,
        parameters={"layout": "directory"},
        volumeBindingMode="WaitForFirstConsumer",
    )
    with drivers.Driver(directory) as driver:
        driver.start()
        kubelet = Kubelet(client, directory / "k", NODE, {drivers.LOCAL: driver.socket})
        await kubelet.register([drivers.LOCAL])
        config = real_cluster.kubeconfig
        with sidecars.running(programs, directory, driver.socket, config, EVERYTHING[0]):
            claim = await make_claim(client, class_name)
            await _select(client, claim)
            volume = await volume_of(client, claim, 60)
            terms = volume["spec"]["nodeAffinity"]["required"]["nodeSelectorTerms"]
            assert [e["values"] for t in terms for e in t["matchExpressions"]] == [[NODE]]
            # Nothing attaches it: the CSIDriver says so, and it is mounted as it is.
            target = await kubelet.mount(volume, {"status": {}})
            (target / "kept").write_text("kept")
            await kubelet.unmount(volume)
            await _delete_all(client, [claim])
        await kubelet.leave()
        assert driver.stop() == 0


async def _select(client: HttpClient, claim: str) -> None:
    """Say what the scheduler would: that the pod is to run on the node."""
    chosen = {"metadata": {"annotations": {"volume.kubernetes.io/selected-node": NODE}}}
    await client.patch(kinds.CLAIM, claim, chosen, "default")


async def test_a_mistake_is_told_by_the_sidecar_in_our_words(
    client: HttpClient, real_cluster: Cluster, directory: Path, programs: Path
) -> None:
    class_name = await make_class(client, drivers.LOCAL, parameters={"layuot": "directory"})
    with drivers.Driver(directory) as driver:
        driver.start()
        kubelet = Kubelet(client, directory / "k", NODE, {drivers.LOCAL: driver.socket})
        await kubelet.register([drivers.LOCAL])
        config = real_cluster.kubeconfig
        with sidecars.running(programs, directory, driver.socket, config, EVERYTHING[0]):
            claim = await make_claim(client, class_name)

            async def told() -> str:
                events = (await client.list(kinds.EVENT, "default")).items
                said = [e for e in events if e["involvedObject"]["name"] == claim]
                return "".join(e["message"] for e in said if e["reason"] == "ProvisioningFailed")

            message = await until(told, 60)
            assert "InvalidArgument" in message
            assert 'unknown parameter "layuot"' in message
            assert 'did you mean "layout"?' in message
            assert await bound(client, claim) is None
            await client.delete(kinds.CLAIM, claim, "default")
            await until(partial(gone, client, kinds.CLAIM, claim, "default"), 60)
        await kubelet.leave()
        with pytest.raises(errors.NotFound):
            await client.get(kinds.NODE, NODE)
        assert driver.stop() == 0
