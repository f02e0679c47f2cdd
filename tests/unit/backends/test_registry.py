"""Provisioner names, the PersistentVolume sources they write, and the way back."""

from __future__ import annotations

import pytest

from holdfast.backends import errors, names, registry, secretrefs
from holdfast.backends.local import legacy
from holdfast.backends.names import Made, Provisioner
from holdfast.backends.protocol import Volume, VolumeRequest
from holdfast.backends.secretrefs import ClaimIdentity, SecretRef, SnapshotIdentity

REQUEST = VolumeRequest("pvc-1", 1 << 20)
IMAGE = Volume("pvc-1", 1 << 20, {"path": "/v/pvc-1/disk.img", "layout": "image", "fsType": "xfs"})
DIRECTORY = Volume(
    "pvc-1", 1 << 20, {"path": "/v/pvc-1/data", "layout": "directory", "fsType": "ext4"}
)


def entry(name: str) -> Provisioner:
    found = registry.find(name)
    assert found is not None
    return found


def test_local_volumes_get_a_local_source_with_the_file_system_of_an_image() -> None:
    def source(volume: Volume, request: VolumeRequest) -> dict[str, object]:
        return entry("local.holdfast.dev").source(Made(volume, request, "local.holdfast.dev"))

    assert source(IMAGE, REQUEST) == {"local": {"path": "/v/pvc-1/disk.img", "fsType": "xfs"}}
    assert source(DIRECTORY, REQUEST) == {"local": {"path": "/v/pvc-1/data"}}
    raw = VolumeRequest("pvc-1", 1 << 20, mode="Block")
    assert source(IMAGE, raw) == {"local": {"path": "/v/pvc-1/disk.img"}}


def test_the_host_path_provisioner_implies_directories() -> None:
    host_path = entry("kubernetes.io/host-path")
    assert host_path.parameters(None) == {"layout": "directory"}
    assert host_path.parameters({"path": "/x"}) == {"path": "/x", "layout": "directory"}
    with pytest.raises(errors.Invalid, match="leave it out"):
        host_path.parameters({"layout": "image"})
    assert host_path.source(Made(DIRECTORY, REQUEST, host_path.name)) == {
        "hostPath": {"path": "/v/pvc-1/data", "type": "Directory"}
    }


def test_a_misspelt_provisioner_gets_a_suggestion() -> None:
    assert registry.find("local.holdfast.de") is None
    assert registry.nearest("local.holdfast.de") == "local.holdfast.dev"


@pytest.mark.parametrize("provisioner", ["local.holdfast.dev", "kubernetes.io/host-path"])
def test_a_volume_of_ours_is_found_by_its_id(provisioner: str) -> None:
    spec = entry(provisioner).source(Made(DIRECTORY, REQUEST, provisioner))
    found = registry.handle_of(spec, {legacy.PROVISIONED_BY: provisioner})
    assert found is not None
    backend, handle = found
    assert (backend, handle.id) == ("local", "pvc-1")
    assert handle.context["path"] == "/v/pvc-1/data"


def test_a_static_volume_is_known_by_its_path_only() -> None:
    spec = {"local": {"path": "/v/pvc-1/data", "fsType": "xfs"}, "volumeMode": "Block"}
    found = registry.handle_of(spec, {})
    assert found is not None
    assert found[1].id == "/v/pvc-1/data"
    assert (found[1].fs_type, found[1].mode) == ("xfs", "Block")


def test_other_sources_belong_to_others() -> None:
    assert registry.handle_of({"nfs": {"server": "s", "path": "/"}}) is None
    assert registry.handle_of({}) is None


def test_every_backend_named_in_a_table_exists() -> None:
    # The local backend is opened for each node, by whoever knows the nodes.
    known = {"local", *registry.BACKENDS}
    assert {entry.backend for entry in registry.PROVISIONERS.values()} <= known
    assert set(registry.DRIVERS.values()) <= known
    assert {source.backend for source in registry.SOURCES.values()} <= known
    assert set(registry.NODE_SIDES) == known


def test_the_secrets_of_a_class_reach_the_source_by_name() -> None:
    parameters = {
        "csi.storage.k8s.io/provisioner-secret-name": "admin",
        "csi.storage.k8s.io/provisioner-secret-namespace": "ceph",
        "csi.storage.k8s.io/node-stage-secret-name": "${pvc.annotations['team']}",
        "csi.storage.k8s.io/node-stage-secret-namespace": "${pvc.namespace}",
        "csi.storage.k8s.io/fstype": "xfs",
        "pool": "kube",
    }
    claim = ClaimIdentity("web", "data", "pvc-1", {"team": "blue"})
    refs = secretrefs.of_class(parameters, claim)
    assert refs.provision == SecretRef("ceph", "admin")
    assert refs.stage == SecretRef("web", "blue")
    assert refs.attach is None
    assert secretrefs.strip(parameters) == {"pool": "kube", "fsType": "xfs"}
    source = names.csi_source(Made(IMAGE, REQUEST, "rbd.csi.ceph.com", refs))["csi"]
    assert source["nodeStageSecretRef"] == {"name": "blue", "namespace": "web"}
    assert "controllerPublishSecretRef" not in source
    assert registry.node_secret({"csi": source}, "ignored") == SecretRef("web", "blue")


@pytest.mark.parametrize(
    ("parameters", "text"),
    [
        ({"csi.storage.k8s.io/provisioner-secret-name": "a"}, "provisioner-secret-namespace"),
        (
            {
                "csi.storage.k8s.io/provisioner-secret-name": "${pvc.nam}",
                "csi.storage.k8s.io/provisioner-secret-namespace": "b",
            },
            "known there: .*pvc.name",
        ),
        (
            {
                "csi.storage.k8s.io/provisioner-secret-name": "a",
                "csi.storage.k8s.io/provisioner-secret-namespace": "${pvc.annotations['x']}",
            },
            "unknown placeholder",
        ),
    ],
)
def test_a_class_that_names_half_a_secret_is_refused(parameters: dict[str, str], text: str) -> None:
    with pytest.raises(errors.Invalid, match=text):
        secretrefs.of_class(parameters, ClaimIdentity("web", "data", "pvc-1"))


def snapshotter(name: str, namespace: str) -> dict[str, str]:
    prefix = "csi.storage.k8s.io/snapshotter-secret-"
    return {f"{prefix}name": name, f"{prefix}namespace": namespace}


def test_the_secret_of_a_snapshot_may_be_named_after_it_and_lie_beside_it() -> None:
    snapshot = SnapshotIdentity("web", "monday", "snapcontent-1")

    def found(name: str, namespace: str) -> SecretRef | None:
        return secretrefs.of_snapshot_class(snapshotter(name, namespace), snapshot)

    own = "${volumesnapshot.name}.${volumesnapshot.namespace}"
    assert found(own, "${volumesnapshot.namespace}") == SecretRef("web", "monday.web")
    content = "${volumesnapshotcontent.name}"
    assert found(content, content) == SecretRef("snapcontent-1", "snapcontent-1")
    assert secretrefs.of_snapshot_class({}, snapshot) is None


@pytest.mark.parametrize(
    ("name", "namespace"),
    [
        ("a", "${volumesnapshot.name}"),
        ("${pvc.name}", "b"),
        ("${pv.name}", "b"),
        ("${pvc.annotations['x']}", "b"),
    ],
)
def test_a_snapshot_s_secret_is_not_found_by_what_only_claims_have(
    name: str, namespace: str
) -> None:
    snapshot = SnapshotIdentity("web", "monday", "snapcontent-1")
    with pytest.raises(errors.Invalid, match=r"VolumeSnapshotClass parameters.*known there"):
        secretrefs.of_snapshot_class(snapshotter(name, namespace), snapshot)


def test_a_key_with_the_reserved_prefix_that_means_nothing_is_refused() -> None:
    with pytest.raises(errors.Invalid, match="reserved"):
        secretrefs.strip({"csi.storage.k8s.io/fs-type": "xfs"})
