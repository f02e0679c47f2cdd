"""`holdfast up`, `down`, `status`, `kubeconfig` and `demo` as a user types them."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import machine

NewMachine = Callable[[], machine.Machine]


@pytest.fixture
def detached(new_machine: NewMachine) -> Iterator[machine.Machine]:
    """A machine started with --detach, and stopped at the end."""
    made = new_machine()
    made.holdfast("up", "--detach", "--listen", "127.0.0.1:0", "--node-name", machine.NODE)
    yield made
    made.holdfast("down")


def _run_info(made: machine.Machine) -> dict[str, object]:
    info: dict[str, object] = json.loads((made.data_dir / "run.json").read_text())
    return info


def test_up_says_what_it_started_and_where(running: machine.Machine) -> None:
    text = running.log.read_text()
    for expected in (running.url, f"process {running.pid}", str(running.kubeconfig), machine.NODE):
        assert expected in text


def test_kubectl_works_with_the_printed_kubeconfig(running: machine.Machine) -> None:
    path = running.holdfast("kubeconfig", "--path").stdout.strip()
    assert path == str(running.kubeconfig)
    assert running.holdfast("kubeconfig").stdout == Path(path).read_text()
    assert running.kubectl("get", "--raw", "/readyz") == "ok"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_stops_it_cleanly(running: machine.Machine, number: signal.Signals) -> None:
    assert running.stop(number) == 0
    assert "volumes and their data are unchanged" in running.log.read_text()
    assert "Traceback" not in running.log.read_text()
    assert not (running.data_dir / "run.json").exists()


def test_a_second_up_says_who_holds_the_directory(running: machine.Machine) -> None:
    for options in ((), ("--detach",)):
        second = running.holdfast("up", *options, check=False)
        assert second.returncode == 1
        assert f"process {running.pid} at {running.url}" in second.stderr
    assert running.kubectl("get", "--raw", "/readyz") == "ok"


def test_a_killed_one_is_started_again_on_the_same_directory(running: machine.Machine) -> None:
    running.kill()
    assert running.holdfast("status", check=False).returncode == 1
    running.start()
    assert running.kubectl("get", "--raw", "/readyz") == "ok"


def test_detach_returns_when_the_api_answers(detached: machine.Machine) -> None:
    assert detached.kubectl("get", "--raw", "/readyz") == "ok"
    pid = _run_info(detached)["pid"]
    assert isinstance(pid, int)
    assert os.getsid(pid) == pid, "it must outlive the terminal it was started from"


def test_down_stops_it_and_may_be_repeated(detached: machine.Machine) -> None:
    pid = _run_info(detached)["pid"]
    assert f"Stopped process {pid}" in detached.holdfast("down").stdout
    command = Path(f"/proc/{pid}/cmdline")
    assert not command.exists() or not command.read_bytes(), "it is still there"
    assert "is not running" in detached.holdfast("down").stdout


def test_detach_hands_on_why_the_child_failed(new_machine: NewMachine) -> None:
    made = new_machine()
    with socket.create_server(("127.0.0.1", 0)) as other:
        taken = other.getsockname()[1]
        done = made.holdfast("up", "--detach", "--listen", f"127.0.0.1:{taken}", check=False)
    assert done.returncode == 1
    assert done.stderr.startswith(f"Error: cannot listen on 127.0.0.1:{taken}: another program")
    assert done.stderr.count("\n") == 1


def test_status_shows_what_runs(running: machine.Machine) -> None:
    text = running.holdfast("status").stdout
    assert running.url in text
    assert f"{running.pid}, up " in text
    assert re.search(r"nodes +1 \(1 Ready\)", text)
    assert "no problems" in text


def test_status_says_why_a_claim_is_pending(running: machine.Machine) -> None:
    running.apply(
        {
            "apiVersion": "v1",
            "kind": "PersistentVolumeClaim",
            "metadata": {"name": "stuck"},
            "spec": {
                "accessModes": ["ReadWriteOnce"],
                "storageClassName": "absent",
                "resources": {"requests": {"storage": "1Gi"}},
            },
        }
    )

    def shown() -> str | None:
        text = running.holdfast("status").stdout
        return text if 'storageclass.storage.k8s.io "absent" not found' in text else None

    assert "pvc default/stuck is Pending: " in machine.eventually(shown)


def test_the_demo_ends_with_a_bound_claim_and_a_running_pod(running: machine.Machine) -> None:
    first = running.holdfast("demo").stdout
    claim = running.get("pvc", "first-claim")
    assert claim is not None
    assert claim["status"]["phase"] == "Bound"
    pod = running.get("pod", "first-pod")
    assert pod is not None
    assert pod["status"]["phase"] == "Running"
    assert claim["spec"]["volumeName"] in first
    assert str(running.kubeconfig) in first
    assert running.holdfast("demo").stdout.count(claim["spec"]["volumeName"]) >= 1


@pytest.mark.root
def test_the_published_quickstart_applies_with_kubectl(running: machine.Machine) -> None:
    examples = machine.ROOT / "examples" / "01-quickstart"
    running.kubectl("apply", "-f", str(examples))
    running.wait_for_phase("pod", "first-pod", "Running")
    running.kubectl("delete", "-f", str(examples / "pod.yaml"))
    running.kubectl("delete", "-f", str(examples / "claim.yaml"))
    machine.eventually(lambda: running.kubectl("get", "pv", "-o", "name") == "", what="no volume")


def test_the_token_is_in_no_argument_and_no_log(running: machine.Machine) -> None:
    token = (running.data_dir / "pki" / "tokens").read_text().split(",", 1)[0]
    assert token in running.kubeconfig.read_text()
    running.holdfast("demo")
    assert token not in running.log.read_text()
    assert token not in Path(f"/proc/{running.pid}/cmdline").read_text()


def test_up_in_a_directory_that_cannot_be_made_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    argv = [sys.executable, "-m", "holdfast.cli", "up", "--data-dir", str(tmp_path / "file" / "x")]
    done = subprocess.run(
        argv,
        env={"PYTHONPATH": str(machine.SOURCE), "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
    )
    assert done.returncode == 1
    assert done.stderr.startswith("Error: cannot")
    assert done.stderr.count("\n") == 1
