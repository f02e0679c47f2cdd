"""One CSI cycle of a local volume, next to the same calls to the kernel alone.

A cycle is CreateVolume, NodeStage, NodePublish, NodeUnpublish, NodeUnstage and
DeleteVolume of a volume in directory layout, over the unix socket. The kernel's part is
what cannot be left out: making and removing the directories, the record and its flushes,
two bind mounts and their unmounts. Needs root.
"""

from __future__ import annotations

import os
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.report import Figure
from holdfast.csi.wire import csi_pb2
from holdfast.kit import files
from holdfast.node import syscalls
from holdfast.testing import csiclient

CYCLES = 200
WARM = 20
TARGET = 8.0
HOST_PATH_DRIVER = 17.0

_KERNEL = "kernel"
_DRIVER = "local.holdfast.dev"
_MOUNT = csi_pb2.VolumeCapability(
    mount=csi_pb2.VolumeCapability.MountVolume(),
    access_mode=csi_pb2.VolumeCapability.AccessMode(mode="SINGLE_NODE_WRITER"),
)


def cycle() -> list[Figure]:
    """Measure both and compare them."""
    if os.geteuid() != 0:
        raise SystemExit("csi-cycle: mounting needs root")
    directory = Path(tempfile.mkdtemp(prefix="holdfast-bench-"))
    process = _started(directory)
    try:
        with csiclient.connect(directory / "csi.sock") as client:
            # Turn by turn, so that what else the machine does is the same for both.
            steps = _measure(
                lambda number: (
                    _cycle(client, directory, f"volume-{number}")
                    | {_KERNEL: _kernel(directory / "kernel", f"v{number}")}
                )
            )
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(60)
    shutil.rmtree(directory, ignore_errors=True)
    alone = steps.pop(_KERNEL)
    total = sum(steps.values())
    what = "CSI cycle, directory layout"
    return [
        Figure(what, total, "ms", TARGET, HOST_PATH_DRIVER, less=True),
        *(Figure(f"{what}: {name}", value, "ms", less=True) for name, value in steps.items()),
        Figure("the same kernel calls alone", alone, "ms", less=True),
        Figure(f"{what}: more than the kernel's", total - alone, "ms", less=True),
        Figure(f"{what}, in kernel cycles", total / alone, "times", less=True),
    ]


def _measure(once: Callable[[int], dict[str, float]]) -> dict[str, float]:
    """Return the median of each step in milliseconds."""
    found = [once(number) for number in range(WARM + CYCLES)][WARM:]
    return {name: statistics.median(each[name] for each in found) * 1000 for name in found[0]}


def _cycle(client: csiclient.Client, directory: Path, name: str) -> dict[str, float]:
    times: dict[str, float] = {}

    def timed(call: str, run: Callable[[], Any]) -> Any:
        began = time.perf_counter()
        answer = run()
        times[call] = time.perf_counter() - began
        return answer

    staging, target = str(directory / "stage"), str(directory / "target")
    asked = csi_pb2.CreateVolumeRequest(
        name=name,
        capacity_range=csi_pb2.CapacityRange(required_bytes=1 << 20),
        volume_capabilities=[_MOUNT],
        parameters={"layout": "directory"},
    )
    made = timed("CreateVolume", lambda: client.controller.CreateVolume(asked))
    volume = made.volume
    staged = csi_pb2.NodeStageVolumeRequest(
        volume_id=volume.volume_id,
        staging_target_path=staging,
        volume_capability=_MOUNT,
        volume_context=volume.volume_context,
    )
    published = csi_pb2.NodePublishVolumeRequest(
        volume_id=volume.volume_id,
        staging_target_path=staging,
        target_path=target,
        volume_capability=_MOUNT,
        volume_context=volume.volume_context,
    )
    node = client.node
    timed("NodeStage", lambda: node.NodeStageVolume(staged))
    timed("NodePublish", lambda: node.NodePublishVolume(published))
    unpublished = csi_pb2.NodeUnpublishVolumeRequest(volume_id=volume.volume_id, target_path=target)
    unstaged = csi_pb2.NodeUnstageVolumeRequest(
        volume_id=volume.volume_id, staging_target_path=staging
    )
    deleted = csi_pb2.DeleteVolumeRequest(volume_id=volume.volume_id)
    timed("NodeUnpublish", lambda: node.NodeUnpublishVolume(unpublished))
    timed("NodeUnstage", lambda: node.NodeUnstageVolume(unstaged))
    timed("DeleteVolume", lambda: client.controller.DeleteVolume(deleted))
    return times


def _kernel(root: Path, name: str) -> float:
    """Do what the cycle makes the kernel do, and return the seconds."""
    root.mkdir(exist_ok=True)
    staging, target = root / "staging", root / "target"
    began = time.perf_counter()
    unfinished, volume = root / f".new-{name}", root / name
    unfinished.mkdir()
    (unfinished / "data").mkdir()
    descriptor = os.open(unfinished / "record", os.O_WRONLY | os.O_CREAT, 0o600)
    os.write(descriptor, b"x" * 300)
    os.fsync(descriptor)
    os.close(descriptor)
    unfinished.rename(volume)
    files.fsync_dir(root)
    for source, place in ((volume / "data", staging), (staging, target)):
        place.mkdir()
        syscalls.mount(str(source), str(place), "", syscalls.MS_BIND)
        syscalls.mount("none", str(place), "", syscalls.MS_PRIVATE)
    for place in (target, staging):
        syscalls.unmount(str(place))
        place.rmdir()
    grave = volume.rename(root / f".deleted-{name}")
    files.fsync_dir(root)
    (grave / "data").rmdir()
    (grave / "record").unlink()
    grave.rmdir()
    return time.perf_counter() - began


def _started(directory: Path) -> subprocess.Popen[bytes]:
    socket = directory / "csi.sock"
    arguments = ["csi", "--data-dir", str(directory / "data"), "--endpoint", f"unix://{socket}"]
    process = subprocess.Popen(
        [sys.executable, "-m", "holdfast.cli", *arguments, "--driver", _DRIVER],
        stdout=subprocess.PIPE,
        stderr=(directory / "log").open("w"),
    )
    assert process.stdout is not None
    if not process.stdout.readline():
        raise RuntimeError(f"the driver did not start: {(directory / 'log').read_text()}")
    return process
