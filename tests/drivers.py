"""A real `holdfast csi` or `holdfast node serve` for tests: started, killed, started again.

Everything it makes lies below one directory; what is left mounted there at the end is
unmounted and its loop devices are detached.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType

import machine
from holdfast.csi.wire import csi_pb2

LOCAL = "local.holdfast.dev"
NODE = "node-1"
MOUNT = csi_pb2.VolumeCapability(
    mount=csi_pb2.VolumeCapability.MountVolume(),
    access_mode=csi_pb2.VolumeCapability.AccessMode(mode="SINGLE_NODE_WRITER"),
)
BLOCK = csi_pb2.VolumeCapability(
    block=csi_pb2.VolumeCapability.BlockVolume(),
    access_mode=csi_pb2.VolumeCapability.AccessMode(mode="SINGLE_NODE_WRITER"),
)


class Driver:
    """One process; a context manager that leaves nothing behind."""

    def __init__(
        self,
        directory: Path,
        driver: str = LOCAL,
        options: Sequence[str] = (),
        *,
        program: Sequence[str] = ("-m", "holdfast.cli"),
    ) -> None:
        """`program` is what Python runs; the arguments of `holdfast csi` follow it."""
        self.directory = directory
        self.socket = directory / "csi.sock"
        self.log = directory / "driver.log"
        self._arguments = [
            *("csi", "--endpoint", f"unix://{self.socket}", "--driver", driver),
            *("--node-name", NODE, "--log-level", "debug", *options),
        ]
        self._program = program
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def process(self) -> subprocess.Popen[bytes]:
        """The running process."""
        assert self._process is not None, "not started"
        return self._process

    def start(self, **environment: str) -> Driver:
        """Start it and wait until it serves."""
        name, *rest = self._arguments
        self._launch([name, "--data-dir", str(self.directory / "data"), *rest], environment)
        return self

    def start_for_kubelet(self, kubelet: Path, *options: str) -> Driver:
        """Start `holdfast node serve` instead."""
        data = ["--data-dir", str(self.directory / "data"), "--kubelet-dir", str(kubelet)]
        arguments = ["node", "serve", *data, "--driver", LOCAL, "--node-name", NODE, *options]
        self._launch(arguments, {})
        return self

    def stop(self) -> int:
        """Stop it in order and return its exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(30)

    def kill(self) -> None:
        """Kill it without warning, or see that it did so itself."""
        self.process.kill()
        self.process.wait(30)

    def __enter__(self) -> Driver:
        """Use it; `start` is the caller's."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Kill it if it still runs, and release what it left mounted."""
        if self._process is not None and self._process.poll() is None:
            self.kill()
        machine.release(self.directory)

    def _launch(self, arguments: Sequence[str], environment: dict[str, str]) -> None:
        before = self.log.stat().st_size if self.log.exists() else 0
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-P", *self._program, *arguments],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={
                    "PATH": os.environ["PATH"],
                    "PYTHONPATH": machine.PYTHONPATH,
                    "HOME": str(self.directory),
                    **environment,
                },
            )

        def serves() -> bool:
            said = self.log.read_bytes()[before:].decode()
            if self.process.poll() is not None:
                raise machine.Failed(f"the driver ended:\n{said}")
            return "Serving " in said

        machine.eventually(serves, 30, "the driver serves")


@contextlib.contextmanager
def short_directory() -> Iterator[Path]:
    """A directory whose path is short enough for sockets; removed unless something is mounted."""
    path = Path(tempfile.mkdtemp(prefix="hf-csi-", dir="/tmp"))
    yield path
    left = mounted_below(path)
    assert left == [], f"still mounted: {left}"
    shutil.rmtree(path)


def mounted_below(directory: Path) -> list[str]:
    """Give the mount points below a directory."""
    rows = [row.split()[4] for row in Path("/proc/self/mountinfo").read_text().splitlines()]
    return [point for point in rows if point.startswith(f"{directory}/")]


def loops_below(directory: Path) -> list[str]:
    """Give the files below a directory that have a loop device."""
    found = []
    for path in Path("/sys/block").glob("loop*/loop/backing_file"):
        with contextlib.suppress(OSError):
            found.append(path.read_text().strip())
    return [file for file in found if file.startswith(f"{directory}/")]
