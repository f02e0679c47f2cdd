"""Starting where things are wrong: a full disk, a damaged store, no rights, what a crash left.

Each refusal is one line that says what, where and what to do, and leaves the volumes alone.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import machine
import manifests

NewMachine = Callable[[], machine.Machine]
NOBODY = 65534


def _refused(where: machine.Machine, *options: str) -> str:
    """Start, in the foreground and detached; both are refused with the same line."""
    told = set()
    for mode in ((), ("--detach",)):
        arguments = ("up", "--node-name", machine.NODE, *options, *mode)
        done = where.holdfast(*arguments, check=False)
        assert done.returncode == 1, done.stdout + done.stderr
        lines = [line for line in done.stderr.splitlines() if line.startswith("Error: ")]
        assert len(lines) == 1
        assert "Traceback" not in done.stderr
        told |= set(lines)
    assert len(told) == 1, told
    return told.pop()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 4 MiB."""
    disk = tmp_path / "small"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", disk], check=True)
    yield disk
    subprocess.run(["umount", "--lazy", disk], check=False)


def _fill(disk: Path) -> Path:
    filler = disk / "filler"
    with filler.open("wb", buffering=0) as stream:
        for size in (1 << 16, 1 << 12, 1):
            try:
                while True:
                    stream.write(bytes(size))
            except OSError:
                continue
    return filler


@pytest.mark.root
def test_a_disk_that_is_full_refuses_writes_and_nothing_else(
    small_disk: Path, kubectl_path: Path
) -> None:
    where = machine.Machine(small_disk, kubectl_path)
    where.log = small_disk.parent / "up.log"
    try:
        where.start()
        where.kubectl("create", "configmap", "before", "--from-literal=a=b")
        filler = _fill(small_disk)
        printed = where.kubectl("create", "configmap", "during", "--from-literal=a=b", check=False)
        assert f"the disk of {where.data_dir}/state.db is full" in printed
        assert "Free space there, then try again" in printed
        assert where.kubectl("get", "configmap", "-o", "name").split() == ["configmap/before"]
        filler.unlink()
        where.kubectl("create", "configmap", "after", "--from-literal=a=b")
        where.kill()
        where.start()
        names = where.kubectl("get", "configmap", "-o", "name").split()
        assert names == ["configmap/after", "configmap/before"]
    finally:
        where.dispose()


@pytest.mark.root
def test_a_start_on_a_full_disk_serves_what_there_is(
    small_disk: Path, kubectl_path: Path, tmp_path: Path
) -> None:
    where = machine.Machine(small_disk, kubectl_path)
    where.log = tmp_path / "up.log"
    try:
        where.start()
        where.kubectl("create", "configmap", "before", "--from-literal=a=b")
        where.stop()
        # A start needs a few blocks for its notes; what is left is too little for the store.
        spare = small_disk / "spare"
        spare.write_bytes(bytes(32 << 10))
        filler = _fill(small_disk)
        spare.unlink()
        where.start()
        assert "configmap/before" in where.kubectl("get", "configmap", "-o", "name")
        assert "Traceback" not in where.log.read_text()
        filler.unlink()
        machine.eventually(lambda: where.row("node", machine.NODE)[1] == "Ready")
    finally:
        where.dispose()


@pytest.mark.root
def test_a_start_with_no_block_left_says_that_the_disk_is_full(
    small_disk: Path, kubectl_path: Path
) -> None:
    where = machine.Machine(small_disk, kubectl_path)
    where.log = small_disk.parent / "up.log"
    where.start().stop()
    _fill(small_disk)
    done = where.holdfast("up", check=False)
    assert done.returncode == 1
    assert done.stderr.startswith(f"Error: cannot use the data directory {where.data_dir}: ")
    assert "No space left on device; free space there" in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("damage", ["foreign", "cut", "scribbled"])
def test_a_damaged_store_is_refused_and_left_as_it_is(
    running: machine.Machine, damage: str
) -> None:
    running.apply(*[manifests.claim(f"c{number}") for number in range(20)])
    running.stop()
    store = running.data_dir / "state.db"
    content = bytearray(store.read_bytes())
    if damage == "foreign":
        content = bytearray(b"this is no database" * 300)
    elif damage == "cut":
        content = content[: len(content) // 2 - 100]
    else:
        content[4096:] = os.urandom(len(content) - 4096)
    store.write_bytes(content)
    text = _refused(running, "--listen", "127.0.0.1:0")
    assert str(store) in text
    assert store.read_bytes() == content, "what may be repaired is not touched"


def test_a_taken_port_is_named(new_machine: NewMachine) -> None:
    where = new_machine()
    with socket.create_server(("127.0.0.1", 0)) as other:
        address = f"127.0.0.1:{other.getsockname()[1]}"
        text = _refused(where, "--listen", address)
    assert text == (
        f"Error: cannot listen on {address}: another program uses it; "
        "choose another port, or port 0 for any free one"
    )


def test_what_a_killed_process_left_deceives_nobody(running: machine.Machine) -> None:
    running.kill()
    assert (running.data_dir / "run.json").exists()
    assert "is not running" in running.holdfast("down").stdout
    status = running.holdfast("status", check=False)
    assert status.returncode == 1
    assert "not running" in status.stdout + status.stderr
    first = running.pid
    running.start()
    assert running.pid != first
    assert running.kubectl("get", "--raw", "/readyz") == "ok"


def test_a_reader_that_leaves_does_not_end_it(new_machine: NewMachine) -> None:
    """As in `holdfast up | head -1`."""
    where = new_machine()
    argv = [sys.executable, "-P", "-m", "holdfast.cli", "up", "--listen", "127.0.0.1:0"]
    read, write = os.pipe()
    os.close(read)
    serving = subprocess.Popen(
        [*argv, "--data-dir", str(where.data_dir)],
        stdin=subprocess.DEVNULL,
        stdout=write,
        stderr=subprocess.DEVNULL,
        env=where.environment(),
    )
    os.close(write)
    try:
        machine.eventually((where.data_dir / "run.json").exists)
        machine.eventually(
            lambda: where.kubectl("get", "--raw", "/readyz", check=False).startswith("ok")
        )
        assert "Stopped process" in where.holdfast("down").stdout
    finally:
        serving.kill()
        serving.wait()


def _python_of(user: int) -> str:
    """An interpreter that the user may run; the tester's may lie in a home of its own."""
    system = f"/usr/bin/python{sys.version_info.major}.{sys.version_info.minor}"
    for python in (sys.executable, system):
        argv = [python, "-c", "import holdfast.server.run"]
        env = {"PYTHONPATH": machine.PYTHONPATH}
        with contextlib.suppress(OSError):
            if subprocess.run(argv, user=user, group=user, env=env, check=False).returncode == 0:
                return python
    pytest.skip("no Python here that another user may run")


@pytest.fixture
def plain(kubectl_path: Path) -> Iterator[machine.Machine]:
    """A machine of a user without any rights, in a directory such a user can reach."""
    home = Path(tempfile.mkdtemp(prefix="holdfast-plain-"))
    user, python = None, sys.executable
    if os.geteuid() == 0:
        user, python = NOBODY, _python_of(NOBODY)
        os.chown(home, user, user)
    made = machine.Machine(home, kubectl_path, user=user, python=python)
    yield made
    made.dispose()
    shutil.rmtree(home, ignore_errors=True)


def test_a_plain_user_gets_a_claim_and_a_pod(plain: machine.Machine) -> None:
    plain.start()
    printed = plain.holdfast("demo").stdout
    assert "Bound" in printed
    assert "Running" in printed
    assert "not enforced" in printed or "no limit" in printed, "what is missing is said"
    claim = plain.get("pvc", "first-claim")
    assert claim is not None
    mount = plain.mount_of("first-pod", claim["spec"]["volumeName"])
    (mount / "file").write_text("kept")
    plain.kill()
    plain.start()
    assert (mount / "file").read_text() == "kept"
    plain.kubectl("delete", "pod/first-pod", "pvc/first-claim")
    machine.eventually(lambda: not plain.stored(), what="the volume is deleted")


def test_a_plain_user_is_told_what_an_image_needs(plain: machine.Machine) -> None:
    plain.start()
    plain.apply(manifests.claim("image"))
    text = plain.wait_for_event("image", "ProvisioningFailed")
    assert "run Holdfast as root, or write layout: directory in the class" in text


def test_a_directory_of_another_user_is_refused(plain: machine.Machine) -> None:
    if os.geteuid() != 0:
        pytest.skip("needs another user")
    plain.data_dir.mkdir(mode=0o700)
    text = _refused(plain, "--listen", "127.0.0.1:0")
    assert text == (
        f"Error: cannot use the data directory {plain.data_dir}: Permission denied; "
        "choose another --data-dir, or run as its owner"
    )
    for command in ("status", "down", "kubeconfig"):
        done = plain.holdfast(command, check=False)
        assert done.returncode == 1
        assert "Permission denied" in done.stderr
        assert done.stderr.count("\n") == 1


@pytest.mark.root
def test_down_with_unmount_leaves_nothing_in_use_and_loses_nothing(
    running: machine.Machine, tmp_path: Path
) -> None:
    kept = tmp_path / "of-the-host"
    kept.mkdir()
    (kept / "file").write_text("the host's")
    pod = manifests.pod("user", "held")
    pod["spec"]["volumes"].append({"name": "host", "hostPath": {"path": str(kept)}})
    mount = running.run_pod(pod, manifests.claim("held"))
    (mount / "file").write_text("the claim's")
    assert running.mounts()
    assert running.loops()

    done = running.holdfast("down", "--unmount")

    assert "mounts taken away" in done.stdout
    assert not running.mounts()
    assert not running.loops()
    assert (kept / "file").read_text() == "the host's"
    again = running.start()
    again.wait_for_phase("pod", "user", "Running")
    machine.eventually(lambda: again.loops(), what="the volume is back")
    place = again.mount_of("user", again.volume_of(pod))
    machine.eventually(lambda: (place / "file").exists(), what="the volume is mounted")
    assert (place / "file").read_text() == "the claim's"
