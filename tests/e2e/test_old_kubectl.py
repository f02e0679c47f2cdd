"""The kubectl of Debian 12 (1.20, five years older than the server speaks) against `holdfast up`.

It knows neither aggregated discovery nor OpenAPI v3: it validates with the v2 document, in
protobuf, before it sends anything.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from machine import Failed, Machine

pytestmark = pytest.mark.e2e

VOLUME: dict[str, Any] = {
    "apiVersion": "v1",
    "kind": "PersistentVolume",
    "metadata": {"name": "pv-old"},
    "spec": {
        "capacity": {"storage": "2Gi"},
        "accessModes": ["ReadWriteOnce"],
        "storageClassName": "manual",
        "hostPath": {"path": "/tmp/holdfast-old"},
    },
}
CLAIM: dict[str, Any] = {
    "apiVersion": "v1",
    "kind": "PersistentVolumeClaim",
    "metadata": {"name": "claim-old"},
    "spec": {
        "accessModes": ["ReadWriteOnce"],
        "storageClassName": "manual",
        "resources": {"requests": {"storage": "1Gi"}},
    },
}


@pytest.fixture(scope="module")
def old_kubectl(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Debian's kubectl, unpacked from its package."""
    directory = tmp_path_factory.mktemp("debian")
    apt = shutil.which("apt-get")
    if apt is None:
        pytest.fail("apt-get is missing: this test needs a Debian 12")
    package = "kubernetes-client=1.20.*"
    subprocess.run([apt, "download", package], cwd=directory, check=True, capture_output=True)
    [archive] = directory.glob("*.deb")
    subprocess.run(["dpkg", "-x", archive, directory], check=True, capture_output=True)
    return directory / "usr" / "bin" / "kubectl"


@pytest.fixture(scope="module")
def old(tmp_path_factory: pytest.TempPathFactory, old_kubectl: Path) -> Iterator[Machine]:
    """A machine whose kubectl is the old one."""
    machine = Machine(tmp_path_factory.mktemp("old"), old_kubectl)
    try:
        yield machine.start()
    finally:
        machine.dispose()


def test_it_is_the_old_one(old: Machine) -> None:
    text = old.kubectl("version")
    assert re.search(r'Client Version: .*GitVersion:"v1\.20\.', text)
    assert re.search(r'Server Version: .*GitVersion:"v1\.32\.', text)


def test_create_get_describe_apply_and_delete(old: Machine) -> None:
    made = old.kubectl("create", "-f", "-", stdin=json.dumps(VOLUME))
    assert made == "persistentvolume/pv-old created\n"
    assert old.apply(CLAIM) == "persistentvolumeclaim/claim-old created\n"
    old.wait_for_phase("pvc", "claim-old", "Bound")
    assert old.apply(CLAIM) == "persistentvolumeclaim/claim-old unchanged\n"

    head, row = old.kubectl("get", "pvc").splitlines()
    assert head.split()[:4] == ["NAME", "STATUS", "VOLUME", "CAPACITY"]
    assert row.split()[:6] == ["claim-old", "Bound", "pv-old", "2Gi", "RWO", "manual"]
    assert "persistentvolume/pv-old" in old.kubectl("get", "pv,pvc,sc", "-o", "name")
    described = re.sub(" +", " ", old.kubectl("describe", "pvc", "claim-old"))
    assert "Status: Bound" in described
    assert "Volume: pv-old" in described

    labelled = {**CLAIM, "metadata": {"name": "claim-old", "labels": {"a": "b"}}}
    assert old.apply(labelled) == "persistentvolumeclaim/claim-old configured\n"
    patched = old.kubectl("patch", "pv", "pv-old", "-p", '{"spec": {"mountOptions": ["ro"]}}')
    assert patched == "persistentvolume/pv-old patched\n"
    assert old.kubectl("delete", "pvc", "claim-old") == (
        'persistentvolumeclaim "claim-old" deleted\n'
    )
    old.wait_for_phase("pv", "pv-old", "Released")
    assert old.kubectl("delete", "pv", "pv-old") == 'persistentvolume "pv-old" deleted\n'


def test_generators_send_protobuf_or_json(old: Machine) -> None:
    assert old.kubectl("create", "namespace", "n") == "namespace/n created\n"
    made = old.kubectl("create", "secret", "generic", "s", "--from-literal=a=b")
    assert made == "secret/s created\n"
    assert (old.get("secret", "s") or {})["data"] == {"a": "Yg=="}
    assert old.kubectl("create", "configmap", "c") == "configmap/c created\n"
    assert old.kubectl("delete", "namespace", "n") == 'namespace "n" deleted\n'


def test_explain(old: Machine) -> None:
    text = old.kubectl("explain", "pvc.spec")
    assert re.search(r"KIND: +PersistentVolumeClaim", text)
    assert re.search(r"accessModes\s+<\[\]string>", text)


def test_an_unknown_field_is_found_before_anything_is_sent(old: Machine) -> None:
    wrong = {**VOLUME, "spec": {**VOLUME["spec"], "flavour": "mint"}}
    with pytest.raises(Failed) as failure:
        old.kubectl("create", "-f", "-", stdin=json.dumps(wrong))
    assert 'ValidationError(PersistentVolume.spec): unknown field "flavour"' in str(failure.value)
