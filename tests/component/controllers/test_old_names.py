"""Volumes with an in-tree source: attached under the CSI name Kubernetes gives them, or mounted.

The registry's tables are replaced by ones with test backends, so that what is tested is how the
controllers use the tables.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from cluster import NODE, Cluster
from holdfast.api import kinds
from holdfast.backends import errors as backend_errors
from holdfast.backends import mountinfo, names, registry
from holdfast.backends.protocol import Connected, MountSource, VolumeHandle
from holdfast.controllers import attachments
from holdfast.testing.attachable import Storage, StorageNode

pytestmark = pytest.mark.root

Object = dict[str, Any]
DRIVER = "cinder.csi.openstack.org"
IN_TREE = "kubernetes.io/cinder"


def cinder_source(made: names.Made) -> Object:
    return {"cinder": {"volumeID": made.volume.id, "fsType": "ext4"}}


def read_cinder(
    spec: Mapping[str, Any], annotations: Mapping[str, str] | None
) -> VolumeHandle | None:
    return VolumeHandle(spec["cinder"]["volumeID"])


def read_nfs(spec: Mapping[str, Any], annotations: Mapping[str, str] | None) -> VolumeHandle | None:
    source = spec["nfs"]
    return VolumeHandle(f"{source['server']}:{source['path']}", {"path": source["path"]})


class FileServer:
    """A node side that shows directories and keeps what it was asked."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.asked: list[VolumeHandle] = []
        self.connected: set[str] = set()

    async def connect(self, volume: VolumeHandle, context: Mapping[str, str]) -> Connected:
        self.asked.append(volume)
        self.connected.add(volume.id)
        place = self.root / volume.context["path"].strip("/")
        place.mkdir(parents=True, exist_ok=True)
        return MountSource(place, enforced=True)

    async def disconnect(self, volume: VolumeHandle) -> None:
        self.connected.discard(volume.id)


class Systems:
    """The test's storage systems."""

    def __init__(self, root: Path) -> None:
        self.storage = Storage(root / "cinder")
        self.files = FileServer(root / "nfs")
        self.no_library = False

    def open_cinder(self, instances: registry.Instances, directory: Path) -> Storage:
        if self.no_library:
            raise ModuleNotFoundError("No module named 'openstack'", name="openstack")
        return self.storage


@pytest.fixture
async def systems(
    cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Systems]:
    await cluster.crash()
    made = Systems(tmp_path)
    local = {k: v for k, v in registry.PROVISIONERS.items() if v.backend == "local"}
    cinder = {
        IN_TREE: names.Provisioner(IN_TREE, "cinder", cinder_source),
        DRIVER: names.Provisioner(DRIVER, "cinder", names.csi_source),
    }
    sources = {k: v for k, v in registry.SOURCES.items() if v.backend == "local"}
    sources["cinder"] = names.Source("cinder", read_cinder, driver=DRIVER)
    sources["nfs"] = names.Source("nfs", read_nfs)
    sides = {
        "local": registry.NODE_SIDES["local"],
        "cinder": lambda i, d: StorageNode(made.storage, "server-1", max_volumes=2),
        "nfs": lambda i, d: made.files,
    }
    monkeypatch.setattr(registry, "PROVISIONERS", {**local, **cinder})
    monkeypatch.setattr(registry, "SOURCES", sources)
    monkeypatch.setattr(registry, "DRIVERS", {"local.holdfast.dev": "local", DRIVER: "cinder"})
    monkeypatch.setattr(registry, "BACKENDS", {"cinder": made.open_cinder})
    monkeypatch.setattr(registry, "NODE_SIDES", sides)
    await cluster.start()
    await cluster.until(kinds.CSI_NODE, NODE, lambda o: DRIVER in str(o.get("spec")))
    await cluster.create(
        kinds.STORAGE_CLASS, "old", provisioner=IN_TREE, parameters={"type": "fast"}
    )
    yield made


async def test_an_old_class_makes_an_old_source_that_is_attached_under_the_new_name(
    cluster: Cluster, systems: Systems
) -> None:
    claim = await cluster.bound("data", "old", "1Mi")
    assert claim["metadata"]["annotations"]["volume.kubernetes.io/storage-provisioner"] == DRIVER
    name = claim["spec"]["volumeName"]
    volume = await cluster.find(kinds.VOLUME, name)
    assert volume is not None
    assert volume["spec"]["cinder"]["volumeID"] == name
    annotations = volume["metadata"]["annotations"]
    assert annotations["pv.kubernetes.io/provisioned-by"] == IN_TREE
    assert annotations["pv.kubernetes.io/migrated-to"] == DRIVER
    place = await cluster.run_pod("p", "data")
    assert systems.storage.attached[name] == {"server-1"}
    found = await cluster.find(kinds.VOLUME_ATTACHMENT, attachments.name_of(name, DRIVER, NODE))
    assert found is not None and found["spec"]["attacher"] == DRIVER
    node = await cluster.until(kinds.NODE, NODE, lambda o: "volumesInUse" in o["status"])
    assert node["status"]["volumesInUse"] == [f"kubernetes.io/csi/{DRIVER}^{name}"]
    (place / "file").write_text("x")
    assert (systems.storage.root / name / "file").read_text() == "x"
    await cluster.stop_pod("p")
    await cluster.gone(kinds.VOLUME_ATTACHMENT, found["metadata"]["name"])
    assert systems.storage.attached[name] == set()
    await cluster.client.delete(kinds.CLAIM, "data", "default")
    await cluster.gone(kinds.VOLUME, name)
    assert not (systems.storage.root / name).exists()


async def test_every_driver_has_its_objects(cluster: Cluster, systems: Systems) -> None:
    driver = await cluster.until(kinds.CSI_DRIVER, DRIVER, lambda o: True)
    assert driver["spec"]["attachRequired"] is True
    local = await cluster.until(kinds.CSI_DRIVER, "local.holdfast.dev", lambda o: True)
    assert local["spec"]["attachRequired"] is False
    found = await cluster.find(kinds.CSI_NODE, NODE)
    assert found is not None
    entry = next(e for e in found["spec"]["drivers"] if e["name"] == DRIVER)
    assert entry["nodeID"] == "server-1" and entry["allocatable"] == {"count": 2}


async def test_a_limit_that_changes_is_entered_anew(cluster: Cluster, systems: Systems) -> None:
    await cluster.crash()
    sides = dict(registry.NODE_SIDES)
    sides["cinder"] = lambda i, d: StorageNode(systems.storage, "server-1", max_volumes=7)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(registry, "NODE_SIDES", sides)
        await cluster.start()
        await cluster.until(kinds.CSI_NODE, NODE, lambda o: "7" in str(o["spec"]["drivers"]))


async def test_a_missing_library_is_told_on_the_claim(cluster: Cluster, systems: Systems) -> None:
    systems.no_library = True
    await cluster.make_claim("data", "old", "1Mi")
    text = await cluster.told("data", "ProvisioningFailed")
    assert "the library openstack is missing, which the cinder backend needs" in text
    await cluster.make_class("local", layout="directory")
    await cluster.bound("other", "local", "1Mi")


async def test_pods_share_a_volume_they_name_themselves(cluster: Cluster, systems: Systems) -> None:
    volume = {"name": "files", "nfs": {"server": "files.example", "path": "/export"}}
    spec = {
        "nodeName": NODE,
        "containers": [{"name": "main", "image": "busybox"}],
        "volumes": [volume],
        "terminationGracePeriodSeconds": 1,
    }
    for name in ("one", "two"):
        await cluster.create(kinds.POD, name, spec=spec)
        await cluster.in_phase(kinds.POD, name, "Running")
    assert await cluster.told("one", "SuccessfulMountVolume") == (
        'MountVolume.SetUp succeeded for volume "files" '
    )
    assert list((cluster.data_dir / "nodes" / NODE / "pods").glob("*/volumes/kubernetes.io~nfs/*"))
    await cluster.stop_pod("one")
    assert systems.files.connected == {"files.example:/export"}
    await cluster.stop_pod("two")
    assert systems.files.connected == set()


async def test_mount_options_reach_a_side_that_mounts_itself(
    cluster: Cluster, systems: Systems
) -> None:
    await cluster.create(
        kinds.VOLUME,
        "static",
        spec={
            "capacity": {"storage": "1Mi"},
            "accessModes": ["ReadWriteMany"],
            "nfs": {"server": "files.example", "path": "/other"},
            "mountOptions": ["nfsvers=4.2", "noexec"],
            "storageClassName": "",
        },
    )
    await cluster.bound("data", "", "1Mi", accessModes=["ReadWriteMany"])
    place = await cluster.run_pod("p", "data")
    assert systems.files.asked[-1].options == ("nfsvers=4.2", "noexec")
    staged = cluster.data_dir / "nodes" / NODE / "staging" / "static"
    assert "noexec" in mountinfo.at(staged)[-1].options
    assert place.is_dir()


async def test_a_storage_that_does_not_attach_is_told_on_the_pod(
    cluster: Cluster, systems: Systems
) -> None:
    systems.storage.fail("attach", backend_errors.Unavailable("Nova does not answer"))
    await cluster.bound("data", "old", "1Mi")
    await cluster.run_pod("p", "data")
    assert "Nova does not answer" in await cluster.told("p", "FailedAttachVolume")
