"""Snapshots taken, found, restored and deleted, and clones; on real volumes."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Any

import pytest

from cluster import Cluster
from holdfast.api import kinds
from holdfast.backends import errors as backend_errors
from holdfast.backends.local.backend import LocalBackend
from holdfast.backends.protocol import Snapshot, Volume, VolumeRequest

Object = dict[str, Any]
PREFIX = "snapshot.storage.kubernetes.io"
BOUND = f"{PREFIX}/volumesnapshot-bound-protection"
CONTENT_BOUND = f"{PREFIX}/volumesnapshotcontent-bound-protection"
CLAIM_SOURCE = f"{PREFIX}/pvc-as-source-protection"
CLONING = "provisioner.storage.kubernetes.io/cloning-protection"
DRIVER = "local.holdfast.dev"


async def make_class(
    cluster: Cluster, name: str = "snap", policy: str = "Delete", *, default: bool = False
) -> None:
    annotations = {f"{PREFIX}/is-default-class": "true"} if default else {}
    await cluster.create(
        kinds.SNAPSHOT_CLASS,
        name,
        metadata={"annotations": annotations},
        driver=DRIVER,
        deletionPolicy=policy,
    )


async def take(cluster: Cluster, name: str, claim: str, **spec: Any) -> Object:
    source = {"persistentVolumeClaimName": claim}
    return await cluster.create(kinds.SNAPSHOT, name, spec={"source": source, **spec})


def ready(obj: Object) -> bool:
    return bool((obj.get("status") or {}).get("readyToUse"))


def failed(text: str) -> Any:
    def holds(obj: Object) -> bool:
        error = (obj.get("status") or {}).get("error") or {}
        return text in error.get("message", "")

    return holds


def of_snapshot(name: str) -> Object:
    return {
        "dataSource": {
            "apiGroup": "snapshot.storage.k8s.io",
            "kind": "VolumeSnapshot",
            "name": name,
        }
    }


def of_claim(name: str) -> Object:
    return {"dataSource": {"kind": "PersistentVolumeClaim", "name": name}}


async def directory(cluster: Cluster, claim: str) -> Path:
    """Where the content of a directory volume lies."""
    found = await cluster.in_phase(kinds.CLAIM, claim, "Bound")
    volume = await cluster.find(kinds.VOLUME, found["spec"]["volumeName"])
    assert volume is not None
    return Path(volume["spec"]["local"]["path"])


def kept(cluster: Cluster) -> list[str]:
    return sorted(path.name for path in (cluster.data_dir / "volumes/.snapshots").glob("*"))


@pytest.fixture
async def data(cluster: Cluster) -> Path:
    """A bound claim `data` of class `c` that holds a file."""
    await cluster.make_class("c", layout="directory")
    await cluster.bound("data", "c", "2Mi")
    place = await directory(cluster, "data")
    (place / "file").write_text("first")
    return place


async def test_a_snapshot_is_taken_and_restored(cluster: Cluster, data: Path) -> None:
    await make_class(cluster)
    made = await take(cluster, "s", "data", volumeSnapshotClassName="snap")
    snapshot = await cluster.until(kinds.SNAPSHOT, "s", ready)
    uid = made["metadata"]["uid"]
    status = snapshot["status"]
    assert status["boundVolumeSnapshotContentName"] == f"snapcontent-{uid}"
    assert status["restoreSize"] == "2Mi" and status["creationTime"] and "error" not in status
    assert BOUND in snapshot["metadata"]["finalizers"]
    content = await cluster.find(kinds.SNAPSHOT_CONTENT, f"snapcontent-{uid}")
    assert content is not None and content["metadata"]["finalizers"] == [CONTENT_BOUND]
    assert content["status"]["snapshotHandle"] == f"snapshot-{uid}"
    assert content["status"]["restoreSize"] == 2 << 20 and content["status"]["readyToUse"]
    assert content["spec"]["sourceVolumeMode"] == "Filesystem"
    (data / "file").write_text("second")
    await cluster.bound("restored", "c", "3Mi", **of_snapshot("s"))
    assert (await directory(cluster, "restored") / "file").read_text() == "first"
    said = await cluster.events("s")
    assert [reason for reason, _ in said] == [
        "CreatingSnapshot",
        "SnapshotCreated",
        "SnapshotReady",
    ]
    assert said[0][1] == "Waiting for a snapshot default/s to be created by the CSI driver."
    assert said[1][1] == "Snapshot default/s was successfully created by the CSI driver."
    assert said[2][1] == "Snapshot default/s is ready to use."
    claim = await cluster.until(
        kinds.CLAIM, "data", lambda c: CLAIM_SOURCE not in c["metadata"]["finalizers"]
    )
    assert claim["metadata"]["finalizers"] == ["kubernetes.io/pvc-protection"]


@pytest.mark.root
async def test_a_disk_image_is_restored_larger_with_its_file_system(cluster: Cluster) -> None:
    await cluster.make_class("c", fsType="ext4")
    await make_class(cluster, default=True)
    await cluster.bound("data", "c", "32Mi")
    place = await cluster.run_pod("writer", "data")
    (place / "file").write_text("kept")
    await cluster.stop_pod("writer")
    await take(cluster, "s", "data")
    await cluster.until(kinds.SNAPSHOT, "s", ready)
    await cluster.bound("restored", "c", "64Mi", **of_snapshot("s"))
    place = await cluster.run_pod("reader", "restored")
    assert (place / "file").read_text() == "kept"


async def test_the_default_class_of_the_driver_is_filled_in(cluster: Cluster, data: Path) -> None:
    await take(cluster, "s", "data")
    text = "Failed to set default snapshot class with error cannot find default snapshot class"
    await cluster.until(kinds.SNAPSHOT, "s", failed(text))
    await cluster.told("s", "SetDefaultSnapshotClassFailed", text)
    await make_class(cluster, "other")
    await make_class(cluster, "snap", default=True)
    snapshot = await cluster.until(kinds.SNAPSHOT, "s", ready)
    assert snapshot["spec"]["volumeSnapshotClassName"] == "snap"
    assert "error" not in snapshot["status"]


async def test_two_default_classes_are_one_too_many(cluster: Cluster, data: Path) -> None:
    await make_class(cluster, "one", default=True)
    await make_class(cluster, "two", default=True)
    await take(cluster, "s", "data")
    await cluster.until(kinds.SNAPSHOT, "s", failed("2 default snapshot classes were found"))


async def test_deleting_a_snapshot_deletes_what_is_kept(cluster: Cluster, data: Path) -> None:
    await make_class(cluster, default=True)
    made = await take(cluster, "s", "data")
    await cluster.until(kinds.SNAPSHOT, "s", ready)
    assert kept(cluster) == [f"snapshot-{made['metadata']['uid']}"]
    await cluster.client.delete(kinds.SNAPSHOT, "s", "default")
    await cluster.gone(kinds.SNAPSHOT, "s")
    assert (
        await cluster.find(kinds.SNAPSHOT_CONTENT, f"snapcontent-{made['metadata']['uid']}") is None
    )
    assert kept(cluster) == []


async def test_a_retained_snapshot_can_be_found_again(cluster: Cluster, data: Path) -> None:
    await make_class(cluster, policy="Retain", default=True)
    made = await take(cluster, "s", "data")
    await cluster.until(kinds.SNAPSHOT, "s", ready)
    handle = f"snapshot-{made['metadata']['uid']}"
    await cluster.client.delete(kinds.SNAPSHOT, "s", "default")
    await cluster.gone(kinds.SNAPSHOT, "s")
    name = f"snapcontent-{made['metadata']['uid']}"
    assert await cluster.find(kinds.SNAPSHOT_CONTENT, name) is not None
    await cluster.client.delete(kinds.SNAPSHOT_CONTENT, name)
    await cluster.gone(kinds.SNAPSHOT_CONTENT, name)
    assert kept(cluster) == [handle]
    source = {"volumeSnapshotContentName": "again"}
    await cluster.create(kinds.SNAPSHOT, "found", spec={"source": source})
    await cluster.until(kinds.SNAPSHOT, "found", failed("VolumeSnapshotContent is missing"))
    await cluster.create(
        kinds.SNAPSHOT_CONTENT,
        "again",
        spec={
            "deletionPolicy": "Delete",
            "driver": DRIVER,
            "source": {"snapshotHandle": handle},
            "volumeSnapshotRef": {"name": "found", "namespace": "default"},
        },
    )
    found = await cluster.until(kinds.SNAPSHOT, "found", ready)
    content = await cluster.find(kinds.SNAPSHOT_CONTENT, "again")
    assert content is not None
    assert content["spec"]["volumeSnapshotRef"]["uid"] == found["metadata"]["uid"]
    await cluster.bound("restored", "c", "2Mi", **of_snapshot("found"))
    assert (await directory(cluster, "restored") / "file").read_text() == "first"
    await cluster.client.delete(kinds.SNAPSHOT, "found", "default")
    await cluster.gone(kinds.SNAPSHOT_CONTENT, "again")
    assert kept(cluster) == []


async def test_a_content_of_another_snapshot_is_refused(cluster: Cluster) -> None:
    await cluster.create(
        kinds.SNAPSHOT_CONTENT,
        "content",
        spec={
            "deletionPolicy": "Retain",
            "driver": DRIVER,
            "source": {"snapshotHandle": "x"},
            "volumeSnapshotRef": {"name": "mine", "namespace": "default"},
        },
    )
    source = {"volumeSnapshotContentName": "content"}
    await cluster.create(kinds.SNAPSHOT, "yours", spec={"source": source})
    text = "VolumeSnapshotContent [content] is bound to a different snapshot"
    await cluster.until(kinds.SNAPSHOT, "yours", failed(text))
    await cluster.create(kinds.SNAPSHOT, "mine", spec={"source": source})
    text = "Failed to check and update snapshot content: "
    await cluster.until(kinds.SNAPSHOT, "mine", failed(text))


async def test_a_bound_content_outlives_its_deletion(cluster: Cluster, data: Path) -> None:
    await make_class(cluster, default=True)
    made = await take(cluster, "s", "data")
    await cluster.until(kinds.SNAPSHOT, "s", ready)
    name = f"snapcontent-{made['metadata']['uid']}"
    await cluster.client.delete(kinds.SNAPSHOT_CONTENT, name)
    await asyncio.sleep(0.3)
    assert await cluster.find(kinds.SNAPSHOT_CONTENT, name) is not None
    assert kept(cluster) == [f"snapshot-{made['metadata']['uid']}"]
    await cluster.client.delete(kinds.SNAPSHOT, "s", "default")
    await cluster.gone(kinds.SNAPSHOT_CONTENT, name)
    await cluster.gone(kinds.SNAPSHOT, "s")


async def test_a_claim_that_is_not_bound_cannot_be_kept_yet(cluster: Cluster) -> None:
    await cluster.make_class("c", layout="directory")
    await make_class(cluster, default=True)
    await take(cluster, "s", "data")
    await cluster.until(kinds.SNAPSHOT, "s", failed('persistentvolumeclaim "data" not found'))
    await cluster.make_claim("data", "later", "1Mi")
    text = "the PVC data is not yet bound to a PV, will not attempt to take a snapshot"
    await cluster.until(kinds.SNAPSHOT, "s", failed(text))
    await cluster.make_class("later", layout="directory")
    await cluster.until(kinds.SNAPSHOT, "s", ready)


async def test_the_claim_stays_while_its_snapshot_is_taken(
    cluster: Cluster, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, go = LocalBackend.create_snapshot, asyncio.Event()

    async def slow(self: LocalBackend, name: str, volume: str, **_: Any) -> Snapshot:
        await go.wait()
        return await real(self, name, volume)

    monkeypatch.setattr(LocalBackend, "create_snapshot", slow)
    await make_class(cluster, default=True)
    await take(cluster, "s", "data")
    await cluster.until(kinds.CLAIM, "data", lambda c: CLAIM_SOURCE in c["metadata"]["finalizers"])
    await cluster.client.delete(kinds.CLAIM, "data", "default")
    await asyncio.sleep(0.3)
    assert await cluster.find(kinds.CLAIM, "data") is not None
    go.set()
    await cluster.until(kinds.SNAPSHOT, "s", ready)
    await cluster.gone(kinds.CLAIM, "data")
    await cluster.bound("restored", "c", "2Mi", **of_snapshot("s"))
    assert (await directory(cluster, "restored") / "file").read_text() == "first"


async def test_a_failure_of_the_storage_is_told_and_tried_again(
    cluster: Cluster, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, tries = LocalBackend.create_snapshot, 0

    async def failing(self: LocalBackend, name: str, volume: str, **_: Any) -> Snapshot:
        nonlocal tries
        tries += 1
        if tries == 1:
            raise backend_errors.Unavailable("the storage does not answer")
        return await real(self, name, volume)

    monkeypatch.setattr(LocalBackend, "create_snapshot", failing)
    await make_class(cluster, default=True)
    await take(cluster, "s", "data")
    text = "Failed to create snapshot: the storage does not answer"
    await cluster.until(kinds.SNAPSHOT, "s", failed(text))
    assert tries == 1
    snapshot = await cluster.until(kinds.SNAPSHOT, "s", ready)
    assert tries == 2 and "error" not in snapshot["status"]
    name = snapshot["status"]["boundVolumeSnapshotContentName"]
    await cluster.told(name, "SnapshotCreationFailed", text)


async def test_a_deletion_that_fails_is_tried_again_after_a_pause(
    cluster: Cluster, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, tries = LocalBackend.delete_snapshot, list[float]()

    async def failing(self: LocalBackend, *arguments: Any, **more: Any) -> None:
        tries.append(time.monotonic())
        if len(tries) == 1:
            raise backend_errors.Unavailable("the storage does not answer")
        await real(self, *arguments, **more)

    monkeypatch.setattr(LocalBackend, "delete_snapshot", failing)
    await make_class(cluster, default=True)
    made = await take(cluster, "s", "data")
    await cluster.until(kinds.SNAPSHOT, "s", ready)
    await cluster.client.delete(kinds.SNAPSHOT, "s", "default")
    content = f"snapcontent-{made['metadata']['uid']}"
    await cluster.told(content, "SnapshotDeleteError", "the storage does not answer")
    await cluster.gone(kinds.SNAPSHOT_CONTENT, content)
    assert kept(cluster) == []
    assert len(tries) == 2 and tries[1] - tries[0] > 0.9


@pytest.mark.parametrize("moment", ["before", "after"])
async def test_a_crash_while_a_snapshot_is_taken_leaves_nothing(
    cluster: Cluster, data: Path, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    real, reached = LocalBackend.create_snapshot, asyncio.Event()

    async def hang(self: LocalBackend, name: str, volume: str, **_: Any) -> Snapshot:
        if moment == "after":
            await real(self, name, volume)
        reached.set()
        await asyncio.Event().wait()
        raise AssertionError

    await make_class(cluster, default=True)
    with monkeypatch.context() as patch:
        patch.setattr(LocalBackend, "create_snapshot", hang)
        await take(cluster, "kept", "data")
        await take(cluster, "dropped", "data")
        await asyncio.wait_for(reached.wait(), 5)
        await asyncio.sleep(0.2)
        await cluster.crash()
    await cluster.client.delete(kinds.SNAPSHOT, "dropped", "default")
    await cluster.start()
    snapshot = await cluster.until(kinds.SNAPSHOT, "kept", ready)
    await cluster.gone(kinds.SNAPSHOT, "dropped")
    assert kept(cluster) == [f"snapshot-{snapshot['metadata']['uid']}"]


async def test_a_snapshot_stays_while_a_claim_is_restored_from_it(
    cluster: Cluster, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, go = LocalBackend.create_volume, asyncio.Event()

    async def slow(self: LocalBackend, request: VolumeRequest) -> Volume:
        await go.wait()
        return await real(self, request)

    await make_class(cluster, default=True)
    await take(cluster, "s", "data")
    await cluster.until(kinds.SNAPSHOT, "s", ready)
    monkeypatch.setattr(LocalBackend, "create_volume", slow)
    await cluster.make_claim("restored", "c", "2Mi", **of_snapshot("s"))
    await cluster.told("restored", "Provisioning")
    await cluster.client.delete(kinds.SNAPSHOT, "s", "default")
    await cluster.told("s", "SnapshotDeletePending", "Snapshot is being used to restore a PVC")
    assert await cluster.find(kinds.SNAPSHOT, "s") is not None
    go.set()
    await cluster.in_phase(kinds.CLAIM, "restored", "Bound")
    await cluster.gone(kinds.SNAPSHOT, "s")


async def test_a_restore_waits_for_its_snapshot(cluster: Cluster, data: Path) -> None:
    await cluster.make_claim("restored", "c", "2Mi", **of_snapshot("s"))
    text = "error getting handle for DataSource Type VolumeSnapshot by Name s: "
    await cluster.told("restored", "ProvisioningFailed", text)
    await make_class(cluster, default=True)
    await take(cluster, "s", "data")
    await cluster.in_phase(kinds.CLAIM, "restored", "Bound")


@pytest.mark.parametrize(
    ("size", "mode", "text"),
    [
        ("1Mi", "Filesystem", "requested volume size 1048576 is less than the size 2097152"),
        ("2Mi", "Block", "modifies the mode of the source volume but does not have permission"),
    ],
)
async def test_a_restore_that_does_not_fit_is_refused(
    cluster: Cluster, data: Path, size: str, mode: str, text: str
) -> None:
    await make_class(cluster, default=True)
    await take(cluster, "s", "data")
    await cluster.until(kinds.SNAPSHOT, "s", ready)
    await cluster.make_claim("restored", "c", size, volumeMode=mode, **of_snapshot("s"))
    await cluster.told("restored", "ProvisioningFailed", text)
    claim = await cluster.find(kinds.CLAIM, "restored")
    assert claim is not None and claim["status"]["phase"] == "Pending"


async def test_a_clone_has_the_content_and_is_independent(cluster: Cluster, data: Path) -> None:
    await cluster.bound("clone", "c", "3Mi", **of_claim("data"))
    place = await directory(cluster, "clone")
    assert (place / "file").read_text() == "first"
    (place / "file").write_text("changed")
    assert (data / "file").read_text() == "first"
    await cluster.until(kinds.CLAIM, "data", lambda c: CLONING not in c["metadata"]["finalizers"])


async def test_the_source_of_a_clone_stays_while_it_is_copied(
    cluster: Cluster, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, go = LocalBackend.create_volume, asyncio.Event()

    async def slow(self: LocalBackend, request: VolumeRequest) -> Volume:
        await go.wait()
        return await real(self, request)

    monkeypatch.setattr(LocalBackend, "create_volume", slow)
    await cluster.make_claim("clone", "c", "2Mi", **of_claim("data"))
    await cluster.until(kinds.CLAIM, "data", lambda c: CLONING in c["metadata"]["finalizers"])
    await cluster.client.delete(kinds.CLAIM, "data", "default")
    await asyncio.sleep(0.2)
    assert await cluster.find(kinds.CLAIM, "data") is not None
    go.set()
    await cluster.in_phase(kinds.CLAIM, "clone", "Bound")
    await cluster.gone(kinds.CLAIM, "data")
    assert (await directory(cluster, "clone") / "file").read_text() == "first"


@pytest.mark.parametrize(
    ("size", "mode", "text"),
    [
        ("1Mi", "Filesystem", "new PVC request must be greater than or equal in size"),
        ("2Mi", "Block", "must have the same volume mode for cloning.  Source is Filesystem"),
    ],
)
async def test_a_clone_that_does_not_fit_is_refused(
    cluster: Cluster, data: Path, size: str, mode: str, text: str
) -> None:
    await cluster.make_claim("clone", "c", size, volumeMode=mode, **of_claim("data"))
    await cluster.told("clone", "ProvisioningFailed", text)


async def test_a_clone_waits_until_its_source_is_bound(cluster: Cluster) -> None:
    await cluster.make_class("c", layout="directory")
    await cluster.make_claim("data", "later", "1Mi")
    await cluster.make_claim("clone", "c", "1Mi", **of_claim("data"))
    text = "the PVC DataSource data must have a status of Bound.  Got Pending"
    await cluster.told("clone", "ProvisioningFailed", text)
    await cluster.make_class("later", layout="directory")
    await cluster.in_phase(kinds.CLAIM, "clone", "Bound")


async def test_a_claim_of_another_namespace_is_no_source(cluster: Cluster, data: Path) -> None:
    await cluster.create(kinds.NAMESPACE, "other")
    spec = {
        "accessModes": ["ReadWriteOnce"],
        "resources": {"requests": {"storage": "2Mi"}},
        "storageClassName": "c",
        **of_claim("data"),
    }
    await cluster.create(kinds.CLAIM, "clone", metadata={"namespace": "other"}, spec=spec)
    text = 'error getting PVC data (namespace "other") from api server'
    await cluster.told("clone", "ProvisioningFailed", text)
