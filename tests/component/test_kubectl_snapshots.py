"""Snapshots, growth and quotas as a person sees them, with the real kubectl."""

from __future__ import annotations

import json
from typing import Any

import pytest

import machine

pytestmark = [pytest.mark.root, pytest.mark.kubectl("1.24")]

Object = dict[str, Any]


def claim(name: str, size: str, **spec: Any) -> Object:
    full = {
        "accessModes": ["ReadWriteOnce"],
        "storageClassName": "local",
        "resources": {"requests": {"storage": size}},
        **spec,
    }
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": name},
        "spec": full,
    }


def test_a_snapshot_is_shown_and_restored(shared: machine.Machine) -> None:
    group = "snapshot.storage.k8s.io"
    shared.apply(
        claim("data", "32Mi"),
        {
            "apiVersion": f"{group}/v1",
            "kind": "VolumeSnapshotClass",
            "metadata": {"name": "snap"},
            "driver": "local.holdfast.dev",
            "deletionPolicy": "Delete",
        },
    )
    shared.wait_for_phase("pvc", "data", "Bound")
    snapshot = {
        "apiVersion": f"{group}/v1",
        "kind": "VolumeSnapshot",
        "metadata": {"name": "monday"},
        "spec": {
            "volumeSnapshotClassName": "snap",
            "source": {"persistentVolumeClaimName": "data"},
        },
    }
    shared.apply(snapshot)
    shared.kubectl("wait", "vs/monday", "--for=jsonpath={.status.readyToUse}=true", "--timeout=20s")
    heading, line = shared.kubectl("get", "vs", "monday").splitlines()
    assert heading.split() == [
        *("NAME", "READYTOUSE", "SOURCEPVC", "SOURCESNAPSHOTCONTENT", "RESTORESIZE"),
        *("SNAPSHOTCLASS", "SNAPSHOTCONTENT", "CREATIONTIME", "AGE"),
    ]
    assert line.split()[:5] == ["monday", "true", "data", "32Mi", "snap"]
    assert "local.holdfast.dev" in shared.kubectl("get", "vsc")
    # A second apply of the same manifest changes nothing.
    assert "unchanged" in shared.apply(snapshot)
    source = {"apiGroup": group, "kind": "VolumeSnapshot", "name": "monday"}
    shared.apply(claim("restored", "32Mi", dataSource=source))
    shared.wait_for_phase("pvc", "restored", "Bound")
    described = shared.kubectl("describe", "vs", "monday")
    assert "SnapshotReady" in described and "Ready To Use:" in described
    shared.kubectl("delete", "vs", "monday", "--timeout=20s")
    assert json.loads(shared.kubectl("get", "vsc", "-o", "json"))["items"] == []


def test_growth_is_described(shared: machine.Machine) -> None:
    shared.apply(claim("grows", "32Mi"))
    shared.wait_for_phase("pvc", "grows", "Bound")
    patch = {"spec": {"resources": {"requests": {"storage": "64Mi"}}}}
    shared.kubectl("patch", "pvc", "grows", "-p", json.dumps(patch))
    condition = "--for=condition=FileSystemResizePending"
    shared.kubectl("wait", "pvc/grows", condition, "--timeout=20s")
    described = shared.kubectl("describe", "pvc", "grows")
    assert "Waiting for user to (re-)start a pod to finish file system resize" in described
    assert "External resizer is resizing volume" in described


def test_a_quota_is_made_shown_and_kept(shared: machine.Machine) -> None:
    shared.kubectl("create", "namespace", "team")
    shared.kubectl("create", "quota", "storage", "-n", "team", "--hard=requests.storage=1Gi")
    shared.kubectl(
        "wait", "quota/storage", "-n", "team", "--for=jsonpath={.status.used}", "--timeout=20s"
    )
    assert "requests.storage: 0/1Gi" in shared.kubectl("get", "quota", "-n", "team")
    text = json.dumps(claim("big", "2Gi"))
    said = shared.kubectl("apply", "-n", "team", "-f", "-", stdin=text, check=False)
    assert (
        "exceeded quota: storage, requested: requests.storage=2Gi, "
        "used: requests.storage=0, limited: requests.storage=1Gi" in said
    )


def test_dependents_go_in_the_foreground(shared: machine.Machine) -> None:
    shared.kubectl("create", "configmap", "owner")
    uid = shared.kubectl("get", "configmap", "owner", "-o", "jsonpath={.metadata.uid}")
    owner = {"apiVersion": "v1", "kind": "ConfigMap", "name": "owner", "uid": uid}
    owner["blockOwnerDeletion"] = True  # type: ignore[assignment]
    metadata = {"name": "child", "ownerReferences": [owner]}
    shared.apply({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata})
    shared.kubectl("delete", "configmap", "owner", "--cascade=foreground", "--timeout=20s")
    assert shared.kubectl("get", "configmap", "child", "--ignore-not-found") == ""
