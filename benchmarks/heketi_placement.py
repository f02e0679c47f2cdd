"""Placement beside Heketi's own: the same random topologies, filled until the first refusal.

Heketi's server is needed for the comparison, with its mock executor: name the program in
HOLDFAST_HEKETI, or have `heketi` on the PATH. Without it our own figures are printed alone. Each
topology gets one kind of volume, asked for until it is refused. HOLDFAST_TOPOLOGIES
says how many topologies there are (1,000).
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2

from benchmarks.report import Figure

SEED = 20
MOST_VOLUMES = 40
_DISPERSE = ((2, 1), (4, 2))


@dataclass(frozen=True)
class Case:
    """Nodes as (zone, number of disks), and the volume that is asked for."""

    nodes: tuple[tuple[int, int], ...]
    volume: dict[str, Any]
    set_size: int


def _case(chance: random.Random) -> Case:
    nodes = tuple((chance.randint(1, 3), chance.randint(1, 4)) for _ in range(chance.randint(2, 6)))
    kind = chance.choice(["none", "replicate", "replicate", "disperse", "arbiter"])
    durability: dict[str, Any] = {"type": kind}
    options = []
    set_size = 1
    if kind == "replicate":
        set_size = chance.choice([2, 3, 3])
        durability["replicate"] = {"replica": set_size}
    if kind == "arbiter":
        set_size = 3
        durability = {"type": "replicate", "replicate": {"replica": 3}}
        options.append("user.heketi.arbiter true")
    if kind == "disperse":
        data, redundancy = chance.choice(_DISPERSE)
        set_size = data + redundancy
        durability["disperse"] = {"data": data, "redundancy": redundancy}
    volume = {
        "size": chance.randint(100, 1500),
        "durability": durability,
        "glustervolumeoptions": options,
    }
    return Case(nodes, volume, set_size)


class _Service:
    def __init__(self, url: str) -> None:
        self._client = httpx2.Client(base_url=url, timeout=60, trust_env=False)

    def _send(self, method: str, path: str, body: Any = None) -> httpx2.Response:
        return self._client.request(method, path, json=body)

    def _done(self, path: str, body: Any) -> Any:
        answer = self._send("POST", path, body)
        if answer.status_code == 202:
            where = answer.headers["location"]
            while (answer := self._send("GET", where)).headers.get("x-pending") == "true":
                time.sleep(0.001)
            if answer.status_code == 303:
                return self._send("GET", answer.headers["location"]).json()
            assert answer.status_code == 204, answer.text
            return None
        assert answer.status_code == 500, answer.text
        return answer.text

    def fill(self, number: int, case: Case) -> int:
        """How many volumes it placed; every one is checked against the rules."""
        cluster = self._send("POST", "/clusters", {"file": True, "block": True}).json()["id"]
        for index, (zone, disks) in enumerate(case.nodes):
            name = f"t{number}n{index}"
            hosts = {"manage": [name], "storage": [f"{name}s"]}
            node = self._done("/nodes", {"cluster": cluster, "zone": zone, "hostnames": hosts})
            for disk in range(disks):
                self._done("/devices", {"node": node["id"], "name": f"/dev/sd{disk}"})
        for count in range(MOST_VOLUMES):
            made = self._done("/volumes", {**case.volume, "clusters": [cluster]})
            if isinstance(made, str):
                assert "No space" in made or "Unable to create volume" in made, made
                return count
            self._check(made, case)
        return MOST_VOLUMES

    def _check(self, made: dict[str, Any], case: Case) -> None:
        bricks = made["bricks"]
        assert len(bricks) <= 32 and len(bricks) % case.set_size == 0, made
        sets = len(bricks) // case.set_size
        for node in {brick["node"] for brick in bricks}:
            assert sum(brick["node"] == node for brick in bricks) <= sets, made


def _free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


@contextlib.contextmanager
def _serving(argv: list[str], directory: Path) -> Iterator[_Service]:
    directory.mkdir()
    port = _free_port()
    gluster = {
        "executor": "mock",
        "db": str(directory / "db"),
        "loglevel": "critical",
        "arbiter_min_size_mb": 16,
        "max_inflight_operations": 64,
    }
    config = directory / "heketi.json"
    config.write_text(json.dumps({"port": str(port), "glusterfs": gluster}))
    with (directory / "log").open("wb") as log:
        process = subprocess.Popen(
            [*argv, f"--config={config}", "--disable-auth"], stdout=log, stderr=log
        )
    url = f"http://127.0.0.1:{port}"
    try:
        for _ in range(200):
            with contextlib.suppress(httpx2.HTTPError):
                httpx2.get(f"{url}/hello", trust_env=False)
                break
            time.sleep(0.05)
        yield _Service(url)
    finally:
        process.terminate()
        process.wait(30)


def placement() -> list[Figure]:
    """Fill them all."""
    count = int(os.environ.get("HOLDFAST_TOPOLOGIES", "1000"))
    chance = random.Random(SEED)
    cases = [_case(chance) for _ in range(count)]
    theirs = os.environ.get("HOLDFAST_HEKETI") or shutil.which("heketi")
    with tempfile.TemporaryDirectory() as directory, contextlib.ExitStack() as stack:
        ours = stack.enter_context(
            _serving([sys.executable, "-m", "holdfast.cli", "heketi"], Path(directory, "ours"))
        )
        placed = [ours.fill(number, case) for number, case in enumerate(cases)]
        total = sum(placed)
        if theirs is None:
            return [Figure(f"heketi: volumes placed on {count} topologies", total, "volumes")]
        peer = stack.enter_context(_serving([theirs], Path(directory, "theirs")))
        reached = [peer.fill(number, case) for number, case in enumerate(cases)]
    fewer = sum(mine < other for mine, other in zip(placed, reached, strict=True))
    more = sum(mine > other for mine, other in zip(placed, reached, strict=True))
    what = f"heketi: volumes placed on {count} topologies"
    return [
        Figure(what, total, "volumes", sum(reached), sum(reached)),
        Figure("heketi: topologies with fewer volumes than Heketi", fewer, "of them", 0, less=True),
        Figure("heketi: topologies with more volumes than Heketi", more, "of them"),
    ]
