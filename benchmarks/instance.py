"""A Holdfast of one's own: started in a new data directory, watched from outside, thrown away."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import msgspec

from benchmarks.wire import Cluster

_UP = (sys.executable, "-m", "holdfast.cli", "up", "--listen", "127.0.0.1:0")
_TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class Instance:
    """A running Holdfast; `started` is the monotonic time its process was started at."""

    pid: int
    data_dir: Path
    started: float
    ready: float

    @property
    def cluster(self) -> Cluster:
        """Its API."""
        return Cluster(self.data_dir / "kubeconfig")

    def cpu_seconds(self) -> float:
        """User and system time used so far."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / _TICKS

    def resident_mib(self) -> float:
        """Resident memory."""
        for line in Path(f"/proc/{self.pid}/status").read_text().splitlines():
            if line.startswith("VmRSS:"):
                return int(line.split()[1]) / 1024
        raise RuntimeError(f"process {self.pid} has no memory figures")


@contextmanager
def instance(settings: str = "") -> Iterator[Instance]:
    """Start one with a `holdfast.toml`, stop it at the end and remove all it made."""
    directory = Path(tempfile.mkdtemp(prefix="holdfast-bench-"))
    if settings:
        (directory / "holdfast.toml").write_text(settings)
    started = time.monotonic()
    process = subprocess.Popen(
        [*_UP, "--data-dir", str(directory)],
        stdout=subprocess.DEVNULL,
        stderr=(directory / "log").open("w"),
    )
    try:
        _wait_for(directory / "run.json", process)
        ready = time.monotonic()
        info = msgspec.json.decode((directory / "run.json").read_bytes())
        yield Instance(info["pid"], directory, started, ready)
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(60)
        shutil.rmtree(directory, ignore_errors=True)


def _wait_for(path: Path, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 30
    while not path.exists():
        if process.poll() is not None or time.monotonic() > deadline:
            raise RuntimeError(f"holdfast did not start: {(path.parent / 'log').read_text()}")
        time.sleep(0.005)
