"""The official sidecars with `holdfast csi` as their driver, on a real control plane.

No controller of ours runs: csi-provisioner, csi-attacher, csi-resizer, csi-snapshotter and
snapshot-controller do their work over our sockets, for real Ceph and for local volumes.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import AsyncIterator, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import yaml

import drivers
from holdfast.api import errors, kinds
from holdfast.controllers.csidrivers import DriverObjects
from holdfast.runtime.http import HttpClient
from oncluster import storage
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


CRD = kinds.Kind(
    "apiextensions.k8s.io", "v1", "CustomResourceDefinition", "customresourcedefinitions", False
)


@pytest.fixture(scope="module")
def programs() -> Path:
    """The sidecars, built now if they are not there."""
    return sidecars.built()


@pytest.fixture
async def client(real_cluster: Cluster, programs: Path) -> AsyncIterator[HttpClient]:
    """The cluster, with the resources that the snapshotter works on."""
    async with real_cluster.access.client() as http:
        for file in sorted((programs / "crds").iterdir()):
            body = yaml.safe_load(file.read_text())
            name = body["metadata"]["name"]
            if await gone(http, CRD, name):
                await http.create(CRD, body)
            await until(partial(_established, http, name))
        yield http


async def _established(client: HttpClient, name: str) -> bool:
    found = await client.get(CRD, name)
    states = {e["type"]: e["status"] for e in (found.get("status") or {}).get("conditions") or ()}
    return states.get("Established") == "True"


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
    clone = await _claim_from(client, class_name, {"kind": "PersistentVolumeClaim", "name": claim})
    snapshot = f"snapshot-{secrets.token_hex(4)}"
    given = {
        "csi.storage.k8s.io/snapshotter-secret-name": "csi-rbd-secret",
        "csi.storage.k8s.io/snapshotter-secret-namespace": "kube-system",
    }
    a_class = {"driver": CEPH, "deletionPolicy": "Delete", "parameters": given}
    await _create(client, kinds.SNAPSHOT_CLASS, {"metadata": {"name": snapshot}, **a_class})
    source = {"persistentVolumeClaimName": claim}
    spec = {"volumeSnapshotClassName": snapshot, "source": source}
    await _create(client, kinds.SNAPSHOT, {"metadata": {"name": snapshot}, "spec": spec}, "default")

    async def ready() -> bool:
        found = await client.get(kinds.SNAPSHOT, snapshot, "default")
        return bool((found.get("status") or {}).get("readyToUse"))

    await until(ready, 60)
    reference = {"kind": "VolumeSnapshot", "name": snapshot, "apiGroup": kinds.SNAPSHOT.group}
    restored = await _claim_from(client, class_name, reference)
    await client.delete(kinds.SNAPSHOT, snapshot, "default")
    await until(partial(gone, client, kinds.SNAPSHOT, snapshot, "default"), 60)
    return [clone, restored]


async def _create(
    client: HttpClient, kind: kinds.Kind, body: Object, namespace: str | None = None
) -> None:
    # Objects of such resources have to say what they are.
    said = {"apiVersion": kind.api_version, "kind": kind.name}
    await client.create(kind, {**said, **body}, namespace)


async def _claim_from(client: HttpClient, class_name: str, source: Object) -> str:
    name = f"claim-{secrets.token_hex(4)}"
    spec = {
        "accessModes": ["ReadWriteOnce"],
        "storageClassName": class_name,
        "resources": {"requests": {"storage": "256Mi"}},
        "dataSource": source,
    }
    await client.create(kinds.CLAIM, {"metadata": {"name": name}, "spec": spec}, "default")
    await volume_of(client, name, 60)
    return name


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
