"""The kubeconfig: kubectl reads it, we read it back, nobody else can."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from holdfast.server import kubeconfig

ACCESS = kubeconfig.Access("https://127.0.0.1:6443", b"-----BEGIN CERTIFICATE-----\n", "s3cret")


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    path = kubeconfig.path_in(tmp_path)
    kubeconfig.write(path, ACCESS)
    assert kubeconfig.read(path) == ACCESS
    assert path.stat().st_mode & 0o777 == 0o600


def test_kubectl_understands_it(tmp_path: Path, kubectl_path: Path) -> None:
    path = kubeconfig.path_in(tmp_path)
    kubeconfig.write(path, ACCESS)
    argv = [
        str(kubectl_path),
        "--kubeconfig",
        str(path),
        "config",
        "view",
        "--minify",
        "--raw",
        "-o",
        "json",
    ]
    view = json.loads(subprocess.run(argv, check=True, capture_output=True).stdout)
    assert view["current-context"] == "holdfast"
    assert view["clusters"][0]["cluster"]["server"] == ACCESS.url
    assert view["users"][0]["user"]["token"] == ACCESS.token


def test_the_token_is_not_in_the_repr() -> None:
    assert "s3cret" not in repr(ACCESS)


def test_a_missing_file_says_how_to_get_one(tmp_path: Path) -> None:
    with pytest.raises(kubeconfig.KubeconfigError, match="start Holdfast first"):
        kubeconfig.read(tmp_path / "none")


@pytest.mark.parametrize("text", ["", "[]", "a: b", "clusters: 7", "{", "clusters: [{cluster: 1}]"])
def test_another_file_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "kubeconfig"
    path.write_text(text)
    with pytest.raises(kubeconfig.KubeconfigError, match="is no kubeconfig of Holdfast"):
        kubeconfig.read(path)
