"""A real three-node GlusterFS cluster, and Heketi services on it."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest

import machine
from servers.gluster import Cluster

# Also of tests that run from another directory.
ENV = {**os.environ, "PYTHONPATH": str(machine.SOURCE)}


class Heketi:
    """Services on a cluster, one at a time, over the same database."""

    def __init__(self, cluster: Cluster, directory: Path) -> None:
        self.cluster = cluster
        self.directory = directory
        self.url = ""
        self._process: subprocess.Popen[bytes] | None = None
        self._ids: list[str] = []
        hosts = [cluster.address(node) for node in range(1, cluster.count + 1)]
        inits = {host: str(cluster.init_file(node)) for node, host in enumerate(hosts, 1)}
        self.config: dict[str, Any] = {
            "port": "0",
            "glusterfs": {
                "executor": "namespaces",
                "layout": "loop",
                "device_size_gb": 50,
                "db": str(directory / "heketi.db"),
                "loglevel": "warning",
                "disable_monitor_gluster_nodes": True,
                "disable_background_cleaner": True,
                "nsexec": {"fstab": "/var/lib/heketi/fstab", "inits": inits},
            },
        }

    @property
    def database(self) -> Path:
        """The service's file."""
        return Path(self.config["glusterfs"]["db"])

    def topology(self, *names: str) -> dict[str, Any]:
        """A topology file with these disks on every node."""
        nodes = [
            {
                "node": {
                    "hostnames": {
                        "manage": [self.cluster.address(node)],
                        "storage": [self.cluster.address(node)],
                    },
                    "zone": 1,
                },
                "devices": [str(self.cluster.disk(node) / name) for name in names],
            }
            for node in range(1, self.cluster.count + 1)
        ]
        return {"clusters": [{"nodes": nodes}]}

    def load(self, *names: str) -> str:
        """`topology load` of such a file; what it printed."""
        path = self.directory / "topology.json"
        path.write_text(json.dumps(self.topology(*names)))
        return self.cli("topology", "load", f"--json={path}")

    def start(self, at: int = 0, how: str = "before") -> Heketi:
        """Start a service that ends itself at a step; never with 0."""
        path = self.directory / "heketi.json"
        path.write_text(json.dumps(self.config))
        argv = [sys.executable, "-m", "holdfast.testing.heketi", str(path), str(at), how]
        with (self.directory / "service.log").open("ab") as log:
            self._process = subprocess.Popen(argv, env=ENV, stdout=subprocess.PIPE, stderr=log)
        assert self._process.stdout is not None
        port = self._process.stdout.readline().strip().decode()
        assert port, (self.directory / "service.log").read_text()[-3000:]
        self.url = f"http://127.0.0.1:{port}"
        return self

    def stop(self) -> None:
        """End it, if it still runs."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(30)
            assert self._process.stdout is not None
            self._process.stdout.close()
            self._process = None

    def ended(self) -> bool:
        """Whether it ends by itself; connections of a killed process close before it is gone."""
        assert self._process is not None
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(2)
        return self._process.returncode is not None

    def bricks(self, volume: dict[str, Any]) -> list[Path]:
        """Where the machine itself finds a volume's bricks, through the roots of the nodes."""
        numbers = {self.cluster.address(node): node for node in range(1, self.cluster.count + 1)}
        found = []
        for brick in volume["bricks"]:
            host = self.get(f"/nodes/{brick['node']}")["hostnames"]["manage"][0]
            pid = self.cluster.init_file(numbers[host]).read_text().strip()
            found.append(Path(f"/proc/{pid}/root{brick['path']}"))
        return found

    def restart(self) -> None:
        """End it and start one that stays."""
        self.stop()
        self.start()

    def ask(self, method: str, path: str, body: Any = None) -> httpx2.Response:
        """One request."""
        content = None if body is None else json.dumps(body)
        return httpx2.request(method, self.url + path, content=content, timeout=60)

    def get(self, path: str) -> Any:
        """A JSON document."""
        return self.ask("GET", path).raise_for_status().json()

    def wait(self, ticket: str, seconds: float = 90) -> httpx2.Response:
        """The result of an accepted request."""
        end = time.monotonic() + seconds
        while True:
            answer = self.ask("GET", ticket)
            if answer.headers.get("x-pending") != "true":
                return answer
            assert time.monotonic() < end, f"{ticket} is still pending"
            time.sleep(0.05)

    def done(self, method: str, path: str, body: Any = None) -> Any:
        """An accepted request and what it made; it must succeed."""
        answer = self.ask(method, path, body)
        assert answer.status_code == 202, answer.text
        result = self.wait(answer.headers["location"])
        assert result.status_code in (204, 303), result.text
        return self.get(result.headers["location"]) if result.status_code == 303 else None

    def cli(self, *words: str, code: int = 0) -> str:
        """Run heketi-cli against it; what it printed."""
        argv = [sys.executable, "-m", "holdfast.cli", "heketi-cli", *words]
        env = {**ENV, "HEKETI_CLI_SERVER": self.url}
        done = subprocess.run(argv, env=env, capture_output=True, text=True, timeout=120)
        assert done.returncode == code, done.stdout + done.stderr
        return done.stdout if code == 0 else done.stderr

    def check_agreement(self) -> None:
        """Database, glusterd, images, mounts and fstabs know the same volumes and bricks."""
        volumes = [self.get(f"/volumes/{key}") for key in self.get("/volumes")["volumes"]]
        assert sorted(each["name"] for each in volumes) == self.cluster.volumes()
        bricks = [brick for each in volumes for brick in each["bricks"]]
        known = sorted(brick["id"] for brick in bricks)
        found = sorted(re.findall(r"brick_([0-9a-f]{32})", " ".join(self.cluster.images())))
        assert found == known
        mounts = [brick["path"].removesuffix("/brick") for brick in bricks]
        assert self.cluster.mounted() == sorted(mounts)
        lines = re.findall(r"/brick_([0-9a-f]{32}) xfs", self.cluster.fstab())
        assert sorted(lines) == known
        counts = self.get("/operations")
        assert counts["total"] == 0, counts
        check = self.get("/db/check")
        assert check["totalinconsistencies"] == 0, check
        for each in volumes:
            info = self.cluster.run(1, "gluster", "--mode=script", "volume", "info", each["name"])
            assert sorted(re.findall(r"^Brick\d+: \S+?:(\S+)", info, re.M)) == sorted(
                brick["path"] for brick in each["bricks"]
            )
            assert "Status: Started" in info


@pytest.fixture(scope="module")
def gluster() -> Iterator[Cluster]:
    """Three connected nodes."""
    directory = Path(tempfile.mkdtemp(prefix=f"hf-f6-{os.getpid()}-"))
    with Cluster(directory) as cluster:
        yield cluster
    # Nothing is mounted below it once the nodes are gone; what is mounted must not be emptied.
    if str(directory) not in Path("/proc/mounts").read_text():
        shutil.rmtree(directory)


@pytest.fixture
def heketi(gluster: Cluster, tmp_path: Path) -> Iterator[Heketi]:
    """A running service; what it made is deleted at the end."""
    service = Heketi(gluster, tmp_path).start()
    try:
        yield service
        service.restart()
        for key in service.get("/volumes")["volumes"]:
            service.done("DELETE", f"/volumes/{key}")
        for cluster in service.get("/clusters")["clusters"]:
            for node in service.get(f"/clusters/{cluster}")["nodes"]:
                for device in service.get(f"/nodes/{node}")["devices"]:
                    _forget(service, device)
    finally:
        service.stop()


def _forget(service: Heketi, device: dict[str, Any]) -> None:
    for state in ("offline", "failed"):
        if device["state"] != "failed":
            service.done("POST", f"/devices/{device['id']}/state", {"state": state})
    service.done("DELETE", f"/devices/{device['id']}")
