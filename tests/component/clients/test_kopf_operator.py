"""The example operator, run by kopf against a real `holdfast up`."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import machine
from machine import Machine, eventually

OPERATOR = machine.ROOT / "examples" / "20-operator" / "operator.py"
_FINALIZER = "kopf.zalando.org/KopfFinalizerMarker"


@pytest.fixture
def operator(cluster: Machine, tmp_path: Path) -> Iterator[Path]:
    """The operator at work; the path is its log."""
    log = tmp_path / "operator.log"
    options = ["--standalone", "--all-namespaces"]
    with log.open("wb") as stream:
        process = subprocess.Popen(
            [sys.executable, "-m", "kopf", "run", *options, str(OPERATOR)],
            env=cluster.environment(),
            stdout=stream,
            stderr=stream,
        )
    try:
        eventually(lambda: "authentication has finished" in log.read_text(), 30, "kopf has begun")
        yield log
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(20)


def _claim() -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": "kopf", "labels": {"backup": "yes", "schedule": "daily"}},
        "spec": {
            "accessModes": ["ReadWriteOnce"],
            "storageClassName": "plain",
            "resources": {"requests": {"storage": "16Mi"}},
        },
    }


def _annotation(cluster: Machine, key: str) -> str:
    claim = cluster.get("pvc", "kopf")
    assert claim is not None
    found: str = claim["metadata"].get("annotations", {}).get(f"backup.example.com/{key}", "")
    return found


def test_an_operator_follows_a_claim_from_birth_to_death(cluster: Machine, operator: Path) -> None:
    cluster.apply(_claim())
    size = eventually(lambda: _annotation(cluster, "size"), 30, operator.read_text())
    assert size == "16Mi"
    claim = cluster.wait_for_phase("pvc", "kopf", "Bound")
    assert _FINALIZER in claim["metadata"]["finalizers"]
    assert [each["type"] for each in claim["status"]["conditions"]] == ["BackedUp"]
    cluster.kubectl("label", "pvc", "kopf", "schedule=weekly", "--overwrite")
    change = eventually(lambda: _annotation(cluster, "schedule"), 30, operator.read_text())
    assert change == "daily to weekly"
    cluster.kubectl("delete", "pvc", "kopf", "--timeout=30s")
    said = cluster.wait_for_event("kopf", "BackupEnded")
    assert said == "the backup of kopf has ended"
    assert " ERROR " not in operator.read_text()
