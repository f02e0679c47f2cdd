"""What goes wrong with Ceph volumes: one event at the claim or pod, one line of `holdfast check`.

Each names the cause and what to do about it. All happen on a real cluster; a machine without
Ceph's Python modules, and one whose kernel lacks features, are this one with other mounts.
"""

from __future__ import annotations

import base64
import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import machine
import secluded
from servers.ceph import objects
from servers.ceph.cluster import Cluster
from servers.ceph.pools import Pool

pytestmark = [pytest.mark.e2e, pytest.mark.root, pytest.mark.timeout(240)]

COMMAND = "fast-diff object-map deep-flatten exclusive-lock"


class Trouble:
    """A class that cannot work, and what is said about it."""

    def __init__(self, where: machine.Machine, pool: Pool) -> None:
        self.where = where
        self._pool = pool

    def claim(self, *secrets: objects.Object, pool: Pool | None = None) -> str:
        """Create a claim that cannot be served and return what its one event says."""
        parameters = objects.in_tree(pool or self._pool)
        user = objects.secret("ceph-kube-secret", self._pool.key, "default", objects.IN_TREE)
        built = objects.storage_class("ceph-rbd", objects.IN_TREE, parameters)
        self.where.apply(user, *secrets, built, objects.claim("claim", "500Mi", "ceph-rbd"))
        self.where.wait_for_event("claim", "ProvisioningFailed", 40)
        found = [text for _, why, text in self.where.events("claim") if why == "ProvisioningFailed"]
        assert len(found) == 1, found
        return found[0]

    def check(self) -> str:
        """Return the one thing that `holdfast check ceph` finds wrong, with its remedy."""
        done = self.where.holdfast("check", "--json", "ceph", check=False)
        assert done.returncode == 1, done.stdout + done.stderr
        found = [each for each in json.loads(done.stdout) if each["severity"] == "error"]
        assert len(found) == 1, found
        return f"{found[0]['where']}: {found[0]['what']}; {found[0]['remedy']}"

    def end(self) -> None:
        """Take everything away. A claim whose volume was begun goes when Ceph can be asked."""
        kubectl = self.where.kubectl
        kubectl("-n", "kube-system", "delete", "secret", "ceph-secret", "--ignore-not-found")
        self.where.apply(_admin(self._pool.ceph))
        for kinds in ("pod,pvc", "pv,sc", "secret,event"):
            kubectl("delete", kinds, "--all", "--grace-period=1")
        kubectl("-n", "kube-system", "delete", "secret", "ceph-secret")


@pytest.fixture
def trouble(shared: machine.Machine, pool: Pool) -> Any:
    """A machine on which something is wrong; it is put right again at the end."""
    found = Trouble(shared, pool)
    yield found
    found.end()


def _admin(ceph: Cluster, namespace: str = "kube-system", type_: str = objects.IN_TREE) -> Any:
    return objects.secret("ceph-secret", ceph.key_of("admin"), namespace, type_)


def test_a_secret_of_the_wrong_type(trouble: Trouble, ceph: Cluster, pool: Pool) -> None:
    for said in (trouble.claim(_admin(ceph, type_="")), trouble.check()):
        assert "kube-system/ceph-secret" in said
        assert "its type is Opaque, kubernetes.io/rbd is needed" in said
    trouble.where.kubectl("-n", "kube-system", "delete", "secret", "ceph-secret")
    trouble.where.apply(_admin(ceph))
    trouble.where.wait_for_phase("pvc", "claim", "Bound", 60)
    trouble.where.kubectl("delete", "pvc", "claim")
    machine.eventually(lambda: not pool.images(), 60, "the image is removed")


def test_a_secret_in_the_wrong_namespace(trouble: Trouble, ceph: Cluster) -> None:
    for said in (trouble.claim(_admin(ceph, "default")), trouble.check()):
        assert "secret kube-system/ceph-secret: not found" in said
        assert "there is one of that name in namespace default" in said


def test_a_key_encoded_twice(trouble: Trouble, ceph: Cluster) -> None:
    twice = base64.b64encode(ceph.key_of("admin").encode()).decode()
    wrong = objects.secret("ceph-secret", twice, "kube-system", objects.IN_TREE)
    for said in (trouble.claim(wrong), trouble.check()):
        assert "base64" in said and "once" in said
        assert ceph.key_of("admin") not in said and twice not in said


def test_a_wrong_key(trouble: Trouble, pool: Pool) -> None:
    wrong = objects.secret("ceph-secret", pool.key, "kube-system", objects.IN_TREE)
    for said in (trouble.claim(wrong), trouble.check()):
        assert "the monitors refuse client.admin" in said
        assert "ceph auth get-key client.admin" in said


def test_a_pool_that_is_missing(trouble: Trouble, ceph: Cluster, pool: Pool) -> None:
    elsewhere = dataclasses.replace(pool, name="no-such-pool")
    for said in (trouble.claim(_admin(ceph), pool=elsewhere), trouble.check()):
        assert 'there is no pool "no-such-pool"' in said
        assert "holdfast prepare ceph --pool no-such-pool" in said


def test_no_key_on_the_node(trouble: Trouble, ceph: Cluster, pool: Pool) -> None:
    ceph.rbd("create", f"{pool.name}/image1", "-s", "16")
    absent = "/etc/ceph/holdfast-test-no-such.keyring"
    source = objects.rbd_source(pool, "image1", secretRef=None, keyring=absent)
    trouble.where.apply(objects.volume("ceph-pv", source), objects.claim("claim", "1Gi", ""))
    trouble.where.apply(objects.pod("pod", "claim"))
    for said in (trouble.where.wait_for_event("pod", "FailedMount", 60), trouble.check()):
        assert f"the volume names no Secret, and there is no keyring {absent} here" in said
        assert "add secretRef" in said
    ceph.rbd("rm", "--no-progress", f"{pool.name}/image1")


@pytest.fixture
def elsewhere(tmp_path: Path, kubectl_path: Path, pool: Pool) -> Any:
    """A function that starts Holdfast in mounts of its own, which commands prepare."""
    made: list[Trouble] = []

    def start(*commands: list[str]) -> Trouble:
        program = secluded.python(tmp_path, *commands)
        where = machine.Machine(tmp_path, kubectl_path, python=program).start()
        made.append(Trouble(where, pool))
        return made[-1]

    yield start
    for each in made:
        each.where.dispose()


def test_a_machine_without_the_bindings(elsewhere: Callable[..., Trouble], ceph: Cluster) -> None:
    trouble = elsewhere(["mount", "-t", "tmpfs", "none", "/usr/lib/python3/dist-packages"])
    for said in (trouble.claim(_admin(ceph)), trouble.check()):
        assert "Ceph's Python module rados is not on this machine" in said
        assert "apt-get install python3-rados python3-rbd" in said


def test_image_features_that_the_kernel_lacks(
    elsewhere: Callable[..., Trouble], ceph: Cluster, pool: Pool
) -> None:
    """`rbd create` gives an image features 61; the kernel says that it knows only the first."""
    daemon = "/usr/bin/qemu-storage-daemon"
    assert Path(daemon).exists()
    trouble = elsewhere(
        ["mount", "-t", "tmpfs", "none", "/sys/bus"],
        ["mkdir", "-p", "/sys/bus/rbd/devices"],
        ["sh", "-c", "echo 0x1 > /sys/bus/rbd/supported_features"],
        ["mount", "--bind", "/dev/null", daemon],
    )
    ceph.rbd("create", f"{pool.name}/image1", "-s", "16")
    source = objects.rbd_source(pool, "image1")
    trouble.where.apply(_admin(ceph, "default"), objects.volume("ceph-pv", source))
    trouble.where.apply(objects.claim("claim", "1Gi", ""), objects.pod("pod", "claim"))
    for said in (trouble.where.wait_for_event("pod", "FailedMount", 60), trouble.check()):
        assert "krbd: does not support exclusive-lock, object-map, fast-diff, deep-flatten" in said
        assert f"rbd feature disable {pool.name}/image1 {COMMAND}" in said
    ceph.rbd("rm", "--no-progress", f"{pool.name}/image1")
