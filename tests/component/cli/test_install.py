"""`holdfast install`: what it prints is accepted, field by field, by the API itself."""

from __future__ import annotations

import subprocess
import sys

import machine

ACCEPTED = ("Namespace", "ServiceAccount", "Secret", "CSIDriver", "Deployment")


def install(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "holdfast.cli", "install", *arguments],
        env={"PYTHONPATH": machine.PYTHONPATH},
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_manifests_of_served_kinds_are_accepted_strictly(shared: machine.Machine) -> None:
    done = install("--print", "--storage", "local", "--set", "serviceMonitor.enabled=true")
    assert done.returncode == 0, done.stderr
    documents = [each for each in done.stdout.split("---\n") if each.strip()]
    served = [
        each for each in documents if f"kind: {_kind(each)}\n" in each and _kind(each) in ACCEPTED
    ]
    assert {_kind(each) for each in served} == set(ACCEPTED)
    shared.kubectl("create", "namespace", "holdfast")
    for document in served:
        if _kind(document) in ("Namespace", "CSIDriver"):
            continue
        shared.kubectl("apply", "--server-side", "--validate=true", "-f", "-", stdin=document)
    shared.kubectl("-n", "holdfast", "get", "deployment", "holdfast-controller")
    shared.kubectl("delete", "namespace", "holdfast", "--wait=false")


def _kind(document: str) -> str:
    return next(line for line in document.splitlines() if line.startswith("kind: "))[6:]


def test_nothing_is_printed_without_a_driver() -> None:
    done = install("--print")
    assert done.returncode == 1
    assert "no driver is to be installed" in done.stderr
    assert install().returncode == 2
    assert install("--print", "--storage", "cephh").returncode == 1


def test_the_values_can_be_read() -> None:
    done = install("--values")
    assert "serviceMonitor:" in done.stdout
    assert "# What can be set." in done.stdout
