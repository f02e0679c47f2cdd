"""`holdfast prepare ceph` on a real cluster: what it makes is enough, and no more."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

import machine
from servers.ceph.cluster import CephFailed, Cluster

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(180)]


def _run(running: machine.Machine, *arguments: str) -> subprocess.CompletedProcess[str]:
    argv = [sys.executable, "-P", "-m", "holdfast.cli", "prepare", "ceph"]
    argv += ["--data-dir", str(running.data_dir), *arguments]
    environment = running.environment()
    return subprocess.run(argv, env=environment, capture_output=True, text=True, timeout=90)


def _prepare(running: machine.Machine, ceph: Cluster, *more: str) -> tuple[str, str]:
    where = ("--conf", str(ceph.configuration), "--monitors", ceph.monitor, "--pg-num", "8")
    done = _run(running, *where, *more)
    assert done.returncode == 0, done.stderr
    return done.stdout, done.stderr


def test_a_dry_run_changes_nothing(running: machine.Machine, ceph: Cluster) -> None:
    out, said = _prepare(running, ceph, "--dry-run", "--pool", "dry", "--user", "dry")
    assert "would make: pool dry with 8 placement groups" in said
    assert "would make: user client.dry: mon 'profile rbd, allow command" in said
    assert "dry" not in ceph.ceph("osd", "pool", "ls").split()
    with pytest.raises(CephFailed):
        ceph.key_of("dry")
    kinds = [each["kind"] for each in yaml.safe_load_all(out)]
    assert kinds == ["Secret", "StorageClass"]


def test_what_is_prepared_serves_claims_and_may_be_prepared_again(
    running: machine.Machine, ceph: Cluster
) -> None:
    chosen = ("--pool", "ready", "--user", "ready", "--default", "--apply")
    _, first = _prepare(running, ceph, *chosen)
    assert "created secret kube-system/ceph-rbd" in first
    assert "created storageclass ceph-rbd" in first
    out, second = _prepare(running, ceph, *chosen)
    assert "made:" not in second and "found: pool ready" in second
    assert ceph.key_of("ready") not in out + first + second
    claim = {
        "kind": "PersistentVolumeClaim",
        "apiVersion": "v1",
        "metadata": {"name": "claim"},
        "spec": {
            "accessModes": ["ReadWriteOnce"],
            "resources": {"requests": {"storage": "100Mi"}},
        },
    }
    running.apply(claim)
    running.wait_for_phase("pvc", "claim", "Bound")
    assert len(ceph.images("ready")) == 1
    done = running.holdfast("check", "--json", "ceph", check=False)
    worse = [each for each in json.loads(done.stdout) if each["severity"] == "error"]
    assert worse == [] and done.returncode == 0
    running.kubectl("delete", "pvc", "claim")
    machine.eventually(lambda: not ceph.images("ready"), 60, "the image is removed")


def test_a_user_with_too_few_rights_gets_those_it_needs(
    running: machine.Machine, ceph: Cluster, tmp_path: Path
) -> None:
    """The rights of the field report: they cannot fence, so locks of lost nodes stay."""
    old = ("mon", "allow r", "osd", "allow class-read object_prefix rbd_children")
    ceph.ceph("auth", "get-or-create", "client.poor", *old)
    key = ceph.key_of("poor")
    target = tmp_path / "ceph.yaml"
    chosen = ("--pool", "poor", "--user", "poor", "--output", str(target))
    _, said = _prepare(running, ceph, *chosen, "--provisioner", "kubernetes.io/rbd")
    assert "made: rights of client.poor" in said
    assert ceph.key_of("poor") == key
    assert "profile rbd pool=poor" in ceph.ceph("auth", "get", "client.poor")
    assert target.stat().st_mode & 0o777 == 0o600
    secret, storage_class = yaml.safe_load_all(target.read_text())
    assert secret["type"] == "kubernetes.io/rbd"
    assert storage_class["parameters"]["adminId"] == "poor"


def test_a_user_of_two_pools_keeps_the_rights_it_has(
    running: machine.Machine, ceph: Cluster
) -> None:
    for pool in ("shared-a", "shared-b"):
        _prepare(running, ceph, "--pool", pool, "--user", "shared")
        if pool == "shared-a":
            rights = ("mon", "profile rbd", "osd", f"profile rbd pool={pool}", "mds", "allow r")
            ceph.ceph("auth", "caps", "client.shared", *rights)
    (entry,) = json.loads(ceph.ceph("auth", "get", "client.shared", "--format", "json"))
    assert entry["caps"]["osd"] == "profile rbd pool=shared-a, profile rbd pool=shared-b"
    assert entry["caps"]["mds"] == "allow r"
    assert entry["caps"]["mon"].count("profile rbd") == 1
    said = [
        _prepare(running, ceph, "--pool", pool, "--user", "shared")[1]
        for pool in ("shared-a", "shared-a", "shared-b")
    ]
    assert ["made:" in each for each in said] == [True, False, False]


def test_a_secret_of_another_type_is_not_half_changed(
    running: machine.Machine, ceph: Cluster
) -> None:
    chosen = ("--pool", "types", "--user", "types", "--apply", "--secret-name", "typed")
    _prepare(running, ceph, *chosen, "--class-name", "first")
    before = running.get("secret", "typed", "kube-system")
    where = ("--conf", str(ceph.configuration), "--monitors", ceph.monitor)
    more = ("--class-name", "second", "--provisioner", "kubernetes.io/rbd")
    done = _run(running, *where, *chosen, *more)
    assert done.returncode == 1
    assert "type Opaque, and kubernetes.io/rbd is needed" in done.stderr
    assert running.get("secret", "typed", "kube-system") == before
    assert running.get("sc", "second") is None
    # The remedy, typed.
    running.kubectl("-n", "kube-system", "delete", "secret", "typed")
    _, said = _prepare(running, ceph, *chosen, *more)
    assert "created secret kube-system/typed" in said


def test_without_a_configuration_the_error_says_what_to_do(
    running: machine.Machine, tmp_path: Path
) -> None:
    done = _run(running, "--conf", str(tmp_path / "none.conf"))
    assert done.returncode == 1
    assert "copy /etc/ceph/ceph.conf of a monitor here" in done.stderr
