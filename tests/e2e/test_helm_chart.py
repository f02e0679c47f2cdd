"""The chart through the real helm, and the packages of the image."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from machine import PYTHONPATH, ROOT

pytestmark = pytest.mark.e2e


SETTINGS = (
    (),
    (
        "serviceMonitor.enabled=true",
        "serviceMonitor.labels.release=prometheus",
        "controller.snapshotController=true",
        "controller.arguments={--except=ceph.com/rbd,--take-over=rbd.csi.ceph.com}",
        "controller.replicas=3",
        "node.nodeSelector.disk=fast",
        "imagePullSecrets={one,two}",
        r"drivers.csi\.vsphere\.vmware\.com.enabled=true",
    ),
    ("existingSecret=mine", "node.kubeletDir=/var/lib/k0s/kubelet"),
)


def _by_name(text: str) -> dict[str, Any]:
    found = [each for each in yaml.safe_load_all(text) if each]
    return {f"{each['kind']}/{each['metadata']['name']}": each for each in found}


@pytest.fixture(scope="module")
def helm() -> str:
    done = subprocess.run(
        [ROOT / "tools" / "servers" / "helm"], capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


@pytest.mark.parametrize("settings", SETTINGS, ids=["plain", "much", "own secret"])
def test_helm_gives_what_install_prints(
    helm: str, tmp_path: Path, settings: tuple[str, ...]
) -> None:
    config = tmp_path / "holdfast.toml"
    config.write_text('[rbd.ceph]\nmonitors = ["10.0.0.1:6789"]  # {{ .Values.image }} "ü"\n')
    chosen = [r"drivers.rbd\.holdfast\.dev.enabled=true", "createNamespace=true", *settings]
    options = [word for setting in chosen for word in ("--set", setting)]
    by_helm = subprocess.run(
        [
            *(helm, "template", "holdfast", ROOT / "deploy" / "chart", "--namespace", "storage"),
            *("--kube-version", "1.32.0", "--set-file", f"config={config}", *options),
        ],
        capture_output=True,
        text=True,
        check=True,
    )
    printed = subprocess.run(
        [
            *(sys.executable, "-m", "holdfast.cli", "install", "--print", "-n", "storage"),
            *("--config", str(config), *options),
        ],
        env={"PYTHONPATH": PYTHONPATH},
        capture_output=True,
        text=True,
        check=True,
    )
    assert _by_name(printed.stdout) == _by_name(by_helm.stdout)


def test_helm_finds_nothing_wrong_with_the_chart(helm: str) -> None:
    done = subprocess.run(
        [helm, "lint", "--strict", ROOT / "deploy" / "chart"], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout


def test_debian_has_every_package_of_the_image() -> None:
    text = (ROOT / "deploy" / "Dockerfile").read_text()
    installs = re.findall(r"apt-get install (.*?)(?= &&)", text.replace("\\\n", " "), re.S)
    names = {word for each in installs for word in each.split() if not word.startswith("-")}
    assert "glusterfs-client" in names
    for name in sorted(names):
        done = subprocess.run(["apt-cache", "show", name], capture_output=True, check=False)
        assert done.returncode == 0, f"Debian has no package {name}"
