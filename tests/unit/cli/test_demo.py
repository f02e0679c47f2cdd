"""The demo's own parts; that it works is shown in tests/component/cli."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

import machine
from holdfast.cli import demo

EXAMPLES = machine.ROOT / "examples" / "01-quickstart"


@pytest.mark.parametrize("name", ["class", "claim", "pod"])
def test_the_packaged_quickstart_is_the_published_one(name: str) -> None:
    assert demo.manifest(name) == yaml.safe_load((EXAMPLES / f"{name}.yaml").read_text())


def test_the_mount_of_a_pod_is_found_below_the_node(tmp_path: Path) -> None:
    mount = tmp_path / "nodes/n1/pods/uid-1/volumes/kubernetes.io~local-volume/pvc-1/mount"
    mount.mkdir(parents=True)
    assert demo.mount_of(tmp_path, "uid-1", "pvc-1") == mount
    assert demo.mount_of(tmp_path, "uid-2", "pvc-1") is None
