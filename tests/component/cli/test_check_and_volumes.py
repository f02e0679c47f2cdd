"""`holdfast check` and `holdfast volumes` beside a running Holdfast, and without one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import machine


def make_claim(name: str, **spec: Any) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": name},
        "spec": {
            "accessModes": ["ReadWriteOnce"],
            "resources": {"requests": {"storage": "4Mi"}},
            "storageClassName": "plain",
            **spec,
        },
    }


def make_class(name: str, **fields: Any) -> dict[str, Any]:
    return {
        "apiVersion": "storage.k8s.io/v1",
        "kind": "StorageClass",
        "metadata": {"name": name},
        "provisioner": "local.holdfast.dev",
        "parameters": {"layout": "directory"},
        **fields,
    }


def findings(found: machine.Machine, *arguments: str) -> tuple[int, list[dict[str, str]]]:
    done = found.holdfast("check", "--json", *arguments, check=False)
    read: list[dict[str, str]] = json.loads(done.stdout)
    return done.returncode, read


def test_what_is_well_is_checked_and_said(running: machine.Machine) -> None:
    running.apply(make_class("plain"))
    done = running.holdfast("check")
    assert "class plain: its parameters can be used" in done.stdout
    assert " 0 wrong" in done.stdout
    code, found = findings(running, "local")
    assert code == 0
    assert {each["kind"] for each in found} == {"local"}


def test_a_class_that_cannot_work_is_named_with_its_remedy(running: machine.Machine) -> None:
    secret = {
        "csi.storage.k8s.io/provisioner-secret-name": "key",
        "csi.storage.k8s.io/provisioner-secret-namespace": "storage",
    }
    running.apply(
        make_class("lost", parameters={"layout": "directory", **secret}),
        make_class("half", parameters={"csi.storage.k8s.io/provisioner-secret-name": "key"}),
        make_class("typo", provisioner="local.holdfast.de"),
    )
    running.kubectl("create", "secret", "generic", "key", "--from-literal=key=x")
    code, found = findings(running)
    assert code == 1
    told = {each["where"]: each for each in found}
    lost = told["class lost, secret storage/key"]
    assert lost["severity"] == "error"
    assert "there is one of that name in namespace default" in lost["remedy"]
    assert told["class half"]["severity"] == "error"
    assert told["class typo"]["remedy"] == "did you mean local.holdfast.dev?"
    text = running.holdfast("check", check=False).stdout
    assert "-> did you mean local.holdfast.dev?" in text


def test_a_secret_that_is_encoded_twice_is_found(running: machine.Machine) -> None:
    parameters = {
        "layout": "directory",
        "csi.storage.k8s.io/provisioner-secret-name": "key",
        "csi.storage.k8s.io/provisioner-secret-namespace": "default",
    }
    running.apply(make_class("c", parameters=parameters))
    # base64 of "correct horse battery", as data once more in base64.
    running.kubectl("create", "secret", "generic", "key", "--from-literal=key=Y29ycmVjdCBob3JzZSBiYXR0ZXJ5")  # fmt: skip  # noqa: E501
    code, found = findings(running)
    assert code == 1
    assert [each["what"] for each in found if each["severity"] == "error"] == [
        'the value of "key" is base64 of base64'
    ]
    assert "correct horse" not in json.dumps(found) and "Y29y" not in json.dumps(found)


def test_without_an_api_the_rest_is_checked(tmp_path: Path, new_machine: Any) -> None:
    made = new_machine()
    code, found = findings(made)
    assert code == 0
    api = [each for each in found if each["kind"] == "api"]
    assert api[0]["severity"] == "warning" and "holdfast up" in api[0]["remedy"]
    assert {each["kind"] for each in found} >= {"local", "api"}


def test_an_unknown_system_is_refused(running: machine.Machine) -> None:
    done = running.holdfast("check", "locl", check=False)
    assert done.returncode == 1
    assert "did you mean local?" in done.stderr


@pytest.mark.root
def test_every_volume_is_shown_with_its_claim_id_and_node(running: machine.Machine) -> None:
    running.apply(make_class("plain"), make_claim("data"))
    claim = running.wait_for_phase("pvc", "data", "Bound")
    name = claim["spec"]["volumeName"]
    spec = {
        "containers": [{"name": "main", "image": "busybox"}],
        "volumes": [{"name": "data", "persistentVolumeClaim": {"claimName": "data"}}],
    }
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"}, "spec": spec}
    running.apply(pod)
    running.wait_for_phase("pod", "p", "Running")
    [entry] = json.loads(running.holdfast("volumes", "--json").stdout)
    assert entry == {
        "claim": "default/data",
        "volume": name,
        "status": "Bound",
        "size": "4Mi",
        "backend": "local",
        "id": name,
        "node": machine.NODE,
        "problem": "",
    }
    header, row = running.holdfast("volumes").stdout.splitlines()
    assert header.split()[:3] == ["CLAIM", "VOLUME", "STATUS"]
    assert row.split()[:3] == ["default/data", name, "Bound"]


def test_orphans_and_lost_volumes_are_found(running: machine.Machine) -> None:
    running.apply(make_class("plain"), make_claim("kept"), make_claim("lost"))
    kept, lost = (
        running.wait_for_phase("pvc", name, "Bound")["spec"]["volumeName"]
        for name in ("kept", "lost")
    )
    volumes = running.data_dir / "volumes"
    orphan = "pvc-00000000-0000-0000-0000-000000000001"
    (volumes / lost).rename(volumes / orphan)
    note = volumes / orphan / "volume.json"
    note.write_text(note.read_text().replace(lost, orphan))
    done = running.holdfast("volumes", "--json", check=False)
    assert done.returncode == 1
    problems = {each["id"]: each["problem"] for each in json.loads(done.stdout)}
    assert problems == {
        kept: "",
        lost: "missing: not in the storage system",
        orphan: "orphan: no volume object",
    }


def test_the_cluster_kubectl_would_use_is_asked_where_no_holdfast_was_started(
    running: machine.Machine, tmp_path: Path
) -> None:
    running.apply(make_class("plain"), make_claim("data"))
    running.wait_for_phase("pvc", "data", "Bound")
    env = {**os.environ, "HOLDFAST_DATA_DIR": str(tmp_path), "KUBECONFIG": str(running.kubeconfig)}
    command = [sys.executable, "-m", "holdfast.cli"]
    done = subprocess.run([*command, "volumes"], env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "default/data" in done.stdout and "missing" not in done.stdout
    assert "local could not be asked: " in done.stderr and "--data-dir" in done.stderr
    done = subprocess.run([*command, "check"], env=env, capture_output=True, text=True)
    assert "class plain: its parameters can be used" in done.stdout
    del env["KUBECONFIG"]
    env["HOME"] = str(tmp_path)
    done = subprocess.run([*command, "volumes"], env=env, capture_output=True, text=True)
    assert done.returncode == 1
    assert f"no Holdfast was started in {tmp_path}: holdfast up" in done.stderr
