"""Which secret reaches which call of a storage, and what is said when one is missing or wrong."""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from cluster import NODE, Cluster
from holdfast.api import kinds
from holdfast.controllers import secrets
from holdfast.controllers.provisioners import Served
from holdfast.controllers.snapshots import writes
from holdfast.testing import guarded
from holdfast.testing.guarded import DRIVER, GuardedNode, GuardedStorage

pytestmark = pytest.mark.root

Object = dict[str, Any]
USES = {
    "provisioner": "create",
    "controller-publish": "attach",
    "node-stage": "connect",
    "controller-expand": "expand",
}


def parameters(namespace: str = "storage") -> dict[str, str]:
    """Parameters of a class that names a secret of its own for each use."""
    found = {}
    for use, name in USES.items():
        found[f"csi.storage.k8s.io/{use}-secret-name"] = name
        found[f"csi.storage.k8s.io/{use}-secret-namespace"] = namespace
    return found


async def make_secret(
    cluster: Cluster, name: str, value: str, namespace: str = "storage", **fields: Any
) -> Object:
    data = {"key": base64.b64encode(value.encode()).decode()}
    meta = {"namespace": namespace}
    return await cluster.create(kinds.SECRET, name, metadata=meta, data=data, **fields)


@pytest.fixture
async def storage(cluster: Cluster, tmp_path: Path) -> AsyncIterator[GuardedStorage]:
    await cluster.crash()
    made = GuardedStorage(tmp_path / "storage")
    cluster.extra = {DRIVER: Served(guarded.PROVISIONER, made)}
    cluster.extra_sides = {DRIVER: GuardedNode(made, "machine-1")}
    await cluster.start()
    await cluster.until(kinds.CSI_NODE, NODE, lambda o: DRIVER in str(o.get("spec")))
    await cluster.create(kinds.NAMESPACE, "storage")
    await cluster.create(
        kinds.STORAGE_CLASS,
        "c",
        provisioner=DRIVER,
        allowVolumeExpansion=True,
        parameters={"colour": "blue", **parameters()},
    )
    yield made


async def all_secrets(cluster: Cluster) -> None:
    for name in (*USES.values(), "snapshot"):
        await make_secret(cluster, name, f"key-{name}")


async def test_every_call_gets_the_secret_that_the_class_names_for_it(
    cluster: Cluster, storage: GuardedStorage
) -> None:
    await all_secrets(cluster)
    claim = await cluster.bound("data", "c", "1Mi")
    name = claim["spec"]["volumeName"]
    assert storage.parameters == [{"colour": "blue"}], "what is only about secrets is not passed"
    volume = await cluster.find(kinds.VOLUME, name)
    assert volume is not None
    assert volume["spec"]["csi"]["volumeHandle"] == f"pool:{name}"
    assert volume["spec"]["csi"]["nodeStageSecretRef"] == {
        "name": "connect",
        "namespace": "storage",
    }
    annotations = volume["metadata"]["annotations"]
    assert annotations[secrets.DELETION_NAME] == "create"
    assert annotations[secrets.DELETION_NAMESPACE] == "storage"
    place = await cluster.run_pod("p", "data")
    (place / "file").write_text("x")
    await cluster.request("data", "2Mi")
    await cluster.until(kinds.CLAIM, "data", lambda o: o["status"]["capacity"]["storage"] == "2Mi")
    await cluster.stop_pod("p")
    # The class is not needed any more: the volume remembers its secret.
    await cluster.client.delete(kinds.STORAGE_CLASS, "c")
    await cluster.client.delete(kinds.CLAIM, "data", "default")
    await cluster.gone(kinds.VOLUME, name)
    assert (await storage.list_volumes()).volumes == []


async def test_no_secret_is_written_to_the_disk_of_a_node(
    cluster: Cluster, storage: GuardedStorage
) -> None:
    await all_secrets(cluster)
    await cluster.bound("data", "c", "1Mi")
    await cluster.run_pod("p", "data")
    kept = cluster.data_dir / "nodes" / NODE
    written = [p for part in ("pods", "staging") for p in (kept / part).rglob("*") if p.is_file()]
    assert "volume.json" in {p.name for p in written}, "the volume has a record"
    assert [p for p in written if b"key-connect" in p.read_bytes()] == []
    # A new agent takes down what an old one set up, without a secret.
    await cluster.crash()
    await cluster.start()
    await cluster.client.delete(kinds.SECRET, "connect", "storage")
    await cluster.stop_pod("p")


async def test_a_missing_secret_is_told_on_the_claim_and_waited_for(
    cluster: Cluster, storage: GuardedStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(secrets, "RETRY_SECONDS", 0.2)
    await cluster.make_claim("data", "c", "1Mi")
    text = await cluster.told("data", "ProvisioningFailed")
    assert text == (
        "secret storage/create: not found; kubectl -n storage create secret generic create ..."
    )
    await all_secrets(cluster)
    await cluster.in_phase(kinds.CLAIM, "data", "Bound")


async def test_a_secret_in_another_namespace_is_named(
    cluster: Cluster, storage: GuardedStorage
) -> None:
    await make_secret(cluster, "create", "key-create", "default")
    await cluster.make_claim("data", "c", "1Mi")
    text = await cluster.told("data", "ProvisioningFailed")
    assert "there is one of that name in namespace default" in text


async def test_a_wrong_key_is_the_storages_answer(
    cluster: Cluster, storage: GuardedStorage
) -> None:
    await make_secret(cluster, "create", "wrong")
    await cluster.make_claim("data", "c", "1Mi")
    text = await cluster.told("data", "ProvisioningFailed")
    assert "the key does not fit" in text and "wrong" not in text


async def test_a_node_without_its_secret_says_so_and_mounts_when_it_is_there(
    cluster: Cluster, storage: GuardedStorage
) -> None:
    await all_secrets(cluster)
    await cluster.client.delete(kinds.SECRET, "connect", "storage")
    await cluster.bound("data", "c", "1Mi")
    pod = {
        "nodeName": NODE,
        "containers": [{"name": "main", "image": "busybox"}],
        "volumes": [{"name": "data", "persistentVolumeClaim": {"claimName": "data"}}],
    }
    await cluster.create(kinds.POD, "p", spec=pod)
    text = await cluster.told("p", "FailedMount")
    assert "secret storage/connect: not found" in text
    await make_secret(cluster, "connect", "key-connect")
    await cluster.in_phase(kinds.POD, "p", "Running")


async def test_what_was_made_for_a_claim_that_is_gone_is_found_by_its_request(
    cluster: Cluster, storage: GuardedStorage
) -> None:
    await all_secrets(cluster)
    gate = storage.hold("create_volume")
    await cluster.make_claim("data", "c", "1Mi")
    held = await cluster.until(
        kinds.CLAIM, "data", lambda o: "holdfast.dev/provisioning" in o["metadata"]["finalizers"]
    )
    await cluster.client.delete(kinds.CLAIM, "data", "default")
    await cluster.crash()
    # The call was on its way: the storage has made the volume, nobody has heard of it.
    gate.set()
    (storage.root / f"pvc-{held['metadata']['uid']}").mkdir(parents=True)
    await cluster.start()
    await cluster.gone(kinds.CLAIM, "data")
    assert (await storage.list_volumes()).volumes == []


async def test_without_its_class_what_was_begun_is_kept_and_told(
    cluster: Cluster, storage: GuardedStorage
) -> None:
    await all_secrets(cluster)
    gate = storage.hold("create_volume")
    await cluster.make_claim("data", "c", "1Mi")
    held = await cluster.until(
        kinds.CLAIM, "data", lambda o: "holdfast.dev/provisioning" in o["metadata"]["finalizers"]
    )
    storage_class = await cluster.find(kinds.STORAGE_CLASS, "c")
    assert storage_class is not None
    await cluster.client.delete(kinds.STORAGE_CLASS, "c")
    await cluster.client.delete(kinds.CLAIM, "data", "default")
    await cluster.crash()
    gate.set()
    (storage.root / f"pvc-{held['metadata']['uid']}").mkdir(parents=True)
    await cluster.start()
    text = await cluster.told("data", "ProvisioningCleanupFailed")
    assert 'StorageClass "c" is gone' in text
    assert await cluster.find(kinds.CLAIM, "data") is not None
    again = {key: storage_class[key] for key in ("provisioner", "parameters")}
    await cluster.create(kinds.STORAGE_CLASS, "c", **again)
    await cluster.gone(kinds.CLAIM, "data")
    assert (await storage.list_volumes()).volumes == []


async def test_a_snapshot_gets_its_own_secret_and_its_class_parameters(
    cluster: Cluster, storage: GuardedStorage
) -> None:
    await all_secrets(cluster)
    await cluster.bound("data", "c", "1Mi")
    await cluster.create(
        kinds.SNAPSHOT_CLASS,
        "s",
        driver=DRIVER,
        deletionPolicy="Delete",
        parameters={
            "depth": "3",
            "csi.storage.k8s.io/snapshotter-secret-name": "snapshot",
            "csi.storage.k8s.io/snapshotter-secret-namespace": "storage",
        },
    )
    source = {"persistentVolumeClaimName": "data"}
    spec = {"volumeSnapshotClassName": "s", "source": source}
    await cluster.create(kinds.SNAPSHOT, "snap", spec=spec)
    snapshot = await cluster.until(
        kinds.SNAPSHOT, "snap", lambda o: bool((o.get("status") or {}).get("readyToUse"))
    )
    assert storage.parameters[-1] == {"depth": "3"}
    name = snapshot["status"]["boundVolumeSnapshotContentName"]
    content = await cluster.find(kinds.SNAPSHOT_CONTENT, name)
    assert content is not None
    annotations = content["metadata"]["annotations"]
    assert (annotations[writes.DELETION_NAME], annotations[writes.DELETION_NAMESPACE]) == (
        "snapshot",
        "storage",
    )
    assert list(storage.root.glob("*.snap"))
    await cluster.client.delete(kinds.SNAPSHOT_CLASS, "s")
    await cluster.client.delete(kinds.SNAPSHOT, "snap", "default")
    await cluster.gone(kinds.SNAPSHOT_CONTENT, name)
    assert list(storage.root.glob("*.snap")) == []
