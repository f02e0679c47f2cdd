"""Provisioner names, the PersistentVolume sources they write, and the way back."""

from __future__ import annotations

from pathlib import Path

import pytest

from holdfast.backends import errors, registry
from holdfast.backends.local import legacy
from holdfast.backends.protocol import Volume, VolumeRequest

REQUEST = VolumeRequest("pvc-1", 1 << 20)
IMAGE = Volume("pvc-1", 1 << 20, {"path": "/v/pvc-1/disk.img", "layout": "image", "fsType": "xfs"})
DIRECTORY = Volume(
    "pvc-1", 1 << 20, {"path": "/v/pvc-1/data", "layout": "directory", "fsType": "ext4"}
)


def entry(name: str) -> registry.Provisioner:
    found = registry.find(name)
    assert found is not None
    return found


def test_local_volumes_get_a_local_source_with_the_file_system_of_an_image() -> None:
    source = entry("local.holdfast.dev").pv_source
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
    assert host_path.pv_source(DIRECTORY, REQUEST) == {
        "hostPath": {"path": "/v/pvc-1/data", "type": "Directory"}
    }


def test_a_misspelt_provisioner_gets_a_suggestion() -> None:
    assert registry.find("local.holdfast.de") is None
    assert registry.nearest("local.holdfast.de") == "local.holdfast.dev"


@pytest.mark.parametrize("provisioner", ["local.holdfast.dev", "kubernetes.io/host-path"])
def test_a_volume_of_ours_is_found_by_its_id(provisioner: str) -> None:
    spec = entry(provisioner).pv_source(DIRECTORY, REQUEST)
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
    for provisioner in registry.PROVISIONERS.values():
        assert provisioner.backend in registry.BACKENDS
    assert set(registry.NODE_SIDES) == set(registry.SOURCES) == set(registry.BACKENDS)
    assert registry.BACKENDS["local"](Path("/nowhere"), "n").clones
