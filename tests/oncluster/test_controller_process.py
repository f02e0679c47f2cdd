"""`holdfast controller` as a process: killed in the middle, refused with a reason, healthy."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest

import machine
from holdfast.api import kinds
from holdfast.runtime.http import HttpClient
from oncluster.place import Cluster
from oncluster.test_controller import NODE, gone, make_claim, make_class, stored, until, volume_of
from servers.kubernetes.controlplane import ASSETS

PROGRAM = (sys.executable, "-m", "holdfast.cli", "controller")


def environment(**more: str) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if name != "KUBECONFIG"}
    return {**kept, "PYTHONPATH": str(machine.SOURCE), "HOME": "/nonexistent", **more}


@contextmanager
def running(cluster: Cluster, data: Path, *options: str) -> Iterator[subprocess.Popen[bytes]]:
    arguments = ["--kubeconfig", str(cluster.kubeconfig), "--data-dir", str(data)]
    arguments += ["--local-node", NODE, "--lease-namespace", "kube-system", *options]
    with (data / "log").open("ab") as log:
        process = subprocess.Popen([*PROGRAM, *arguments], env=environment(), stderr=log)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


@pytest.fixture
async def client(real_cluster: Cluster) -> AsyncIterator[HttpClient]:
    async with real_cluster.access.client() as http:
        yield http


needs_kubernetes = pytest.mark.skipif(
    ASSETS not in os.environ, reason=f"{ASSETS} names no programs of Kubernetes"
)


@needs_kubernetes
async def test_a_controller_that_is_killed_again_and_again_makes_each_volume_once(
    real_cluster: Cluster, client: HttpClient, tmp_path: Path
) -> None:
    data = tmp_path / "data"
    data.mkdir()
    class_name = await make_class(client, "local.holdfast.dev", parameters={"layout": "directory"})
    names = [await make_claim(client, class_name) for _ in range(40)]
    # No farewell, so each successor waits until the lease has run out; not to wait, there is none.
    for pause in (0.9, 1.1, 1.4):
        with running(real_cluster, data, "--no-leader-elect"):
            await asyncio.sleep(pause)
    with running(real_cluster, data, "--no-leader-elect"):
        volumes = [await volume_of(client, name, 60) for name in names]
        handles = sorted(each["spec"]["csi"]["volumeHandle"] for each in volumes)
        assert stored(tmp_path) == handles
        assert len(set(handles)) == len(names)
        for name in names:
            await client.delete(kinds.CLAIM, name, "default")
        for each in volumes:
            name = each["metadata"]["name"]
            await until(partial(gone, client, kinds.VOLUME, name), 60)
    assert stored(tmp_path) == []


@needs_kubernetes
async def test_a_replica_tells_that_it_is_healthy_and_leads_and_gives_its_lease_back(
    real_cluster: Cluster, client: HttpClient, tmp_path: Path
) -> None:
    data = tmp_path / "data"
    data.mkdir()
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with running(real_cluster, data, "--health", f"127.0.0.1:{port}") as process:
        await until(lambda: _fetch(port, "metrics", b"holdfast_controller_leading 1.0"), 60)
        assert await _fetch(port, "healthz", b"ok")
        process.send_signal(signal.SIGTERM)
        assert await asyncio.to_thread(process.wait, 20) == 0
    lease = await client.get(kinds.LEASE, "holdfast-controller", "kube-system")
    assert lease["spec"].get("holderIdentity", "") == ""


async def _fetch(port: int, path: str, wanted: bytes) -> bool:
    def read() -> bool:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/{path}", timeout=5) as answer:
                return wanted in answer.read()
        except OSError:
            return False

    return await asyncio.to_thread(read)


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ((), "there is no cluster to talk to"),
        (("--kubeconfig", "/none"), "/none: cannot be read"),
    ],
)
def test_without_a_cluster_it_says_what_to_give(
    tmp_path: Path, arguments: tuple[str, ...], text: str
) -> None:
    done = subprocess.run(
        [*PROGRAM, "--data-dir", str(tmp_path), *arguments],
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert text in done.stderr
    assert "Traceback" not in done.stderr


def test_a_cluster_that_does_not_answer_is_named(tmp_path: Path) -> None:
    config = tmp_path / "config"
    config.write_text(
        "current-context: a\ncontexts: [{name: a, context: {cluster: a}}]\n"
        "clusters: [{name: a, cluster: {server: 'http://127.0.0.1:9'}}]\n"
    )
    started = time.monotonic()
    done = subprocess.run(
        [*PROGRAM, "--data-dir", str(tmp_path), "--kubeconfig", str(config)],
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1 and time.monotonic() - started < 20
    assert "http://127.0.0.1:9" in done.stderr and "Traceback" not in done.stderr
