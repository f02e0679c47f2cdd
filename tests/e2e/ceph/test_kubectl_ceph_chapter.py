"""The Ceph how-to, step by step with kubectl on a real cluster; then everything that went wrong.

Manifests are the document's; addresses and keys are the cluster's. The pod's command prints what
the document looks at with `kubectl exec`.
"""

from __future__ import annotations

import base64
import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

import machine
from servers.ceph.cluster import Cluster
from servers.ceph.pools import Pool

pytestmark = [pytest.mark.e2e, pytest.mark.root, pytest.mark.timeout(240)]

MIB = 1 << 20


def _secret(name: str, key: str, namespace: str = "default", type_: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": name, "namespace": namespace},
        "data": {"key": base64.b64encode(key.encode()).decode()},
    }
    return found | ({"type": type_} if type_ else {})


def _claim(name: str, size: str, class_name: str | None = None) -> dict[str, Any]:
    spec: dict[str, Any] = {
        "accessModes": ["ReadWriteOnce", "ReadOnlyMany"],
        "resources": {"requests": {"storage": size}},
    }
    if class_name is not None:
        spec["storageClassName"] = class_name
    return {
        "kind": "PersistentVolumeClaim",
        "apiVersion": "v1",
        "metadata": {"name": name},
        "spec": spec,
    }


def _pod(name: str, claim: str) -> dict[str, Any]:
    container = {
        "name": "ceph-ubuntu",
        "image": "phusion/baseimage",
        "command": ["sh", "-c", "df -hT; date >> /mnt/runs; sync; exec sleep 1000000"],
        "volumeMounts": [{"name": "ceph-mnt", "mountPath": "/mnt", "readOnly": False}],
    }
    volume = {"name": "ceph-mnt", "persistentVolumeClaim": {"claimName": claim}}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name},
        "spec": {"containers": [container], "volumes": [volume]},
    }


def _class(ceph: Cluster, pool: Pool, provisioner: str) -> dict[str, Any]:
    parameters = {
        "monitors": ceph.monitor,
        "adminId": "admin",
        "adminSecretName": "ceph-secret",
        "adminSecretNamespace": "kube-system",
        "pool": pool.name,
        "userId": pool.user,
        "userSecretName": "ceph-kube-secret",
        "userSecretNamespace": "default",
        "fsType": "ext4",
        "imageFormat": "2",
        "imageFeatures": "layering",
    }
    return {
        "apiVersion": "storage.k8s.io/v1",
        "kind": "StorageClass",
        "metadata": {
            "name": "ceph-rbd",
            "annotations": {"storageclass.beta.kubernetes.io/is-default-class": "true"},
        },
        "provisioner": provisioner,
        "parameters": parameters,
    }


def _static(ceph: Cluster, pool: str, **changes: Any) -> dict[str, Any]:
    source = {
        "monitors": [ceph.monitor],
        "pool": pool,
        "image": "image1",
        "user": "admin",
        "secretRef": {"name": "ceph-secret"},
        "fsType": "ext4",
        **changes,
    }
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolume",
        "metadata": {"name": "ceph-pv"},
        "spec": {
            "capacity": {"storage": "1Gi"},
            "accessModes": ["ReadWriteOnce", "ReadOnlyMany"],
            "rbd": {key: value for key, value in source.items() if value is not None},
            "persistentVolumeReclaimPolicy": "Retain",
        },
    }


def _mounted(where: machine.Machine, pod: str) -> list[str]:
    """The pod's line of `df -hT` for /mnt: device, type, size, ..."""

    def look() -> list[str] | None:
        lines = where.kubectl("logs", pod, check=False).splitlines()
        return next((line.split() for line in lines if line.endswith(" /mnt")), None)

    return machine.eventually(look, 60, f"df in pod {pod}")


def _await_runs(mount: Path, count: int) -> None:
    """Wait until the pods have written so many lines in all: data survives."""
    seen = mount / "runs"
    machine.eventually(lambda: len(seen.read_text().splitlines()) == count, 20, "the data")


def _gone(where: machine.Machine, pod: str) -> None:
    where.kubectl("delete", "pod", pod, "--grace-period=1")
    where.wait_until_gone("pod", pod, 60)


def test_the_static_volume(running: machine.Machine, ceph: Cluster, pool: Pool) -> None:
    running.apply(_secret("ceph-secret", ceph.key_of("admin")))
    ceph.rbd("create", f"{pool.name}/image1", "-s", "1024")
    running.apply(_static(ceph, pool.name), _claim("ceph-claim", "1Gi", ""))
    running.wait_for_phase("pvc", "ceph-claim", "Bound")
    for run in (1, 2):
        running.apply(_pod("ceph-pod", "ceph-claim"))
        running.wait_for_phase("pod", "ceph-pod", "Running", 60)
        found = _mounted(running, "ceph-pod")
        assert found[1] == "ext4"
        assert 900 < int(found[2].removesuffix("M")) <= 1024
        _await_runs(running.mount_of("ceph-pod", "ceph-pv"), run)
        _gone(running, "ceph-pod")
    machine.eventually(lambda: "Watchers: none" in _status(ceph, pool, "image1"), 30, "unmapped")
    ceph.rbd("rm", "--no-progress", f"{pool.name}/image1")


def _status(ceph: Cluster, pool: Pool, image: str) -> str:
    return ceph.rbd("status", f"{pool.name}/{image}")


@pytest.mark.parametrize("provisioner", ["kubernetes.io/rbd", "ceph.com/rbd", "csi"])
def test_the_dynamic_volume(
    running: machine.Machine, ceph: Cluster, pool: Pool, provisioner: str
) -> None:
    type_ = "kubernetes.io/rbd"
    running.apply(
        _secret("ceph-secret", ceph.key_of("admin"), "kube-system", type_),
        _secret("ceph-kube-secret", pool.key, "default", type_),
        _class(ceph, pool, "rbd.holdfast.dev" if provisioner == "csi" else provisioner),
        _claim("ceph-sc-claim", "500Mi"),
    )
    bound = running.wait_for_phase("pvc", "ceph-sc-claim", "Bound")
    volume = running.get("pv", bound["spec"]["volumeName"])
    assert volume is not None
    if provisioner == "csi":
        assert volume["spec"]["csi"]["driver"] == "rbd.holdfast.dev"
    else:
        assert volume["spec"]["rbd"]["user"] == pool.user
        assert volume["spec"]["rbd"]["secretRef"]["name"] == "ceph-kube-secret"
        assert volume["spec"]["rbd"]["image"].startswith("kubernetes-dynamic-pvc-")
    assert running.row("pvc", "ceph-sc-claim")[3:6] == ["500Mi", "RWO,ROX", "ceph-rbd"]
    assert len(pool.images()) == 1
    for run in (1, 2):
        running.apply(_pod("ceph-sc-pod", "ceph-sc-claim"))
        running.wait_for_phase("pod", "ceph-sc-pod", "Running", 60)
        found = _mounted(running, "ceph-sc-pod")
        assert found[1] == "ext4"
        assert 430 < int(found[2].removesuffix("M")) <= 500
        _await_runs(running.mount_of("ceph-sc-pod", bound["spec"]["volumeName"]), run)
        _gone(running, "ceph-sc-pod")
    running.kubectl("delete", "pvc", "ceph-sc-claim")
    machine.eventually(lambda: not pool.images(), 60, "the image is removed")
    # The name is free once the image is in the trash; its objects go after that.
    machine.eventually(lambda: not pool.leftovers(), 20, "nothing is left of the image")
    assert pool.key not in running.log.read_text()


def _failed(running: machine.Machine, ceph: Cluster, pool: Pool, *objects: dict[str, Any]) -> str:
    """Create a claim that cannot be served and return what its event says."""
    running.apply(*objects, _class(ceph, pool, "kubernetes.io/rbd"))
    running.apply(_claim("ceph-sc-claim", "500Mi"))
    return running.wait_for_event("ceph-sc-claim", "ProvisioningFailed", 40)


def _check(running: machine.Machine) -> str:
    """What `holdfast check ceph` has to say besides what is well."""
    done = running.holdfast("check", "--json", "ceph", check=False)
    assert done.returncode == 1, done.stdout + done.stderr
    found = [each for each in json.loads(done.stdout) if each["severity"] == "error"]
    return "\n".join(f"{each['what']} {each['where']} {each['remedy']}" for each in found)


TYPE = "kubernetes.io/rbd"


def test_a_secret_of_the_wrong_type(running: machine.Machine, ceph: Cluster, pool: Pool) -> None:
    wrong = _secret("ceph-secret", ceph.key_of("admin"), "kube-system")
    right = _secret("ceph-kube-secret", pool.key, "default", TYPE)
    said = _failed(running, ceph, pool, wrong, right)
    assert "its type is Opaque, kubernetes.io/rbd is needed" in said
    assert "kubernetes.io/rbd is needed" in _check(running)
    running.kubectl("-n", "kube-system", "delete", "secret", "ceph-secret")
    running.apply(_secret("ceph-secret", ceph.key_of("admin"), "kube-system", TYPE))
    running.wait_for_phase("pvc", "ceph-sc-claim", "Bound", 60)
    running.kubectl("delete", "pvc", "ceph-sc-claim")
    machine.eventually(lambda: not pool.images(), 60, "the image is removed")


def test_a_secret_in_the_wrong_namespace(
    running: machine.Machine, ceph: Cluster, pool: Pool
) -> None:
    wrong = _secret("ceph-secret", ceph.key_of("admin"), "default", TYPE)
    right = _secret("ceph-kube-secret", pool.key, "default", TYPE)
    said = _failed(running, ceph, pool, wrong, right)
    assert "secret kube-system/ceph-secret: not found" in said
    assert "there is one of that name in namespace default" in said
    assert "kube-system/ceph-secret" in _check(running)


def test_a_key_encoded_twice(running: machine.Machine, ceph: Cluster, pool: Pool) -> None:
    twice = base64.b64encode(ceph.key_of("admin").encode()).decode()
    wrong = _secret("ceph-secret", twice, "kube-system", TYPE)
    right = _secret("ceph-kube-secret", pool.key, "default", TYPE)
    said = _failed(running, ceph, pool, wrong, right)
    assert "encoded with base64 once too often" in said
    assert ceph.key_of("admin") not in said and twice not in said
    assert "base64" in _check(running)


def test_a_wrong_key(running: machine.Machine, ceph: Cluster, pool: Pool) -> None:
    wrong = _secret("ceph-secret", pool.key, "kube-system", TYPE)
    right = _secret("ceph-kube-secret", pool.key, "default", TYPE)
    said = _failed(running, ceph, pool, wrong, right)
    assert "the monitors refuse client.admin" in said
    assert "ceph auth get-key client.admin" in said
    assert "the monitors refuse client.admin" in _check(running)


def test_a_pool_that_is_missing(running: machine.Machine, ceph: Cluster, pool: Pool) -> None:
    secrets = (
        _secret("ceph-secret", ceph.key_of("admin"), "kube-system", TYPE),
        _secret("ceph-kube-secret", pool.key, "default", TYPE),
    )
    elsewhere = dataclasses.replace(pool, name="no-such-pool")
    said = _failed(running, ceph, elsewhere, *secrets)
    assert 'there is no pool "no-such-pool"' in said
    assert "holdfast prepare ceph --pool no-such-pool" in said
    assert 'there is no pool "no-such-pool"' in _check(running)


def test_no_key_on_the_node(running: machine.Machine, ceph: Cluster, pool: Pool) -> None:
    ceph.rbd("create", f"{pool.name}/image1", "-s", "16")
    absent = "/etc/ceph/holdfast-test-no-such.keyring"
    running.apply(_static(ceph, pool.name, secretRef=None, keyring=absent))
    running.apply(_claim("ceph-claim", "1Gi", ""), _pod("ceph-pod", "ceph-claim"))
    said = running.wait_for_event("ceph-pod", "FailedMount", 60)
    assert f"the volume names no Secret, and there is no keyring {absent} here" in said
    assert "add secretRef" in said
    running.kubectl("delete", "pod", "ceph-pod", "--grace-period=0", "--force")
    ceph.rbd("rm", "--no-progress", f"{pool.name}/image1")


def test_missing_bindings(tmp_path: Path) -> None:
    """Where no directory has the modules, the error names the packages; see bindings.load."""
    from holdfast.backends import errors
    from holdfast.backends.rbd import bindings

    missing = bindings._missing("rados", [tmp_path])
    assert "apt-get install python3-rados python3-rbd" in str(missing)
    (tmp_path / "rados.cpython-399-x86_64-linux-gnu.so").touch()
    other = bindings._missing("rados", [tmp_path])
    assert isinstance(other, errors.Unavailable)
    assert "for Python 3.99; Holdfast runs with Python 3." in str(other)
