"""The program that serves an image is killed: the pod is told, and the next one has the volume.

What is mounted broken here is in mounts of its own, because others on the machine stumble over it.
"""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

import machine
import secluded
from holdfast.node import devices
from servers.ceph import objects
from servers.ceph.pools import Pool

pytestmark = [pytest.mark.e2e, pytest.mark.root, pytest.mark.timeout(240)]


@pytest.fixture
def site(pool: Pool, tmp_path: Path, kubectl_path: Path) -> Iterator[machine.Machine]:
    """A machine that knows the cluster."""
    made = machine.Machine(tmp_path, kubectl_path, python=secluded.python(tmp_path))
    made.data_dir.mkdir()
    named = f'[node]\nname = "{machine.NODE}"\n'
    (made.data_dir / "holdfast.toml").write_text(named + pool.settings)
    try:
        yield made.start()
    finally:
        made.dispose()
        _detach_dead()


def _detach_dead() -> None:
    """After a failure: a file that was mounted in mounts that are gone has no path any more."""
    for path in Path("/sys/block").glob("loop*/loop/backing_file"):
        device = Path("/dev") / path.parents[1].name
        if path.read_text().strip() == "/" and devices.is_lost(device):
            subprocess.run(["losetup", "--detach", device], check=False)


def _daemons(site: machine.Machine) -> list[int]:
    maps = site.data_dir / "nodes" / machine.NODE / "backends" / "rbd" / "maps"
    pids = [int(path.read_text()) for path in maps.glob("*/pid")]
    return [pid for pid in pids if Path(f"/proc/{pid}").exists()]


def _write(site: machine.Machine, pod: str, name: str) -> str:
    """Write a file in a pod and say what came of it."""
    script = f"echo kept > /mnt/{name} && sync /mnt/{name} && echo written"
    return site.kubectl("exec", pod, "--", "sh", "-c", script, check=False)


def test_a_killed_daemon_is_told_and_the_next_pod_has_the_volume(
    site: machine.Machine, pool: Pool
) -> None:
    site.apply(
        objects.storage_class("ceph-rbd", "rbd.holdfast.dev", {"clusterID": "main"}),
        objects.claim("claim", "320Mi", "ceph-rbd"),
        objects.pod("first", "claim", "exec sleep 1000000"),
    )
    site.wait_for_phase("pod", "first", "Running", 60)
    assert "written" in _write(site, "first", "before")
    (pid,) = _daemons(site)
    os.kill(pid, signal.SIGKILL)

    told = site.wait_for_event("first", "VolumeConditionAbnormal", 20)
    assert f"qemu-storage-daemon (process {pid}) that served the image has ended" in told
    assert f"gives I/O errors ({pool.name}/" in told and "delete the pod" in told
    checked = site.holdfast("check", "ceph", check=False)
    assert checked.returncode == 1 and f"(process {pid})" in checked.stdout
    assert "written" not in _write(site, "first", "lost")

    site.apply(objects.pod("second", "claim", "cat /mnt/before; ls /mnt; exec sleep 1000000"))
    site.wait_for_phase("pod", "second", "Running", 60)
    assert "written" in _write(site, "second", "after")
    assert "written" not in _write(site, "first", "lost")
    site.kubectl("delete", "pod", "first", "--now")
    site.wait_until_gone("pod", "first", 60)
    assert "written" in _write(site, "second", "later")
    seen = site.kubectl("logs", "second").split()
    assert "kept" in seen and "lost" not in seen
    assert len(site.loops()) == 1

    site.kubectl("delete", "pod", "second", "--now")
    site.wait_until_gone("pod", "second", 60)
    assert site.loops() == set() and _daemons(site) == []
    assert "VolumeConditionAbnormal" not in [why for _, why, _ in site.events("second")]
    site.kubectl("delete", "pvc", "claim")
    machine.eventually(lambda: not pool.images(), 60, "the image is removed")


# A disk that a FUSE server shows is mounted, the server is killed, then another one is formatted.
DEAD = r"""
set -e
cd "$1"
truncate -s 256M served blank
: > shown
qemu-storage-daemon --pidfile "$1/pid" --blockdev driver=file,filename="$1/served",node-name=d \
    --export type=fuse,id=e,node-name=d,mountpoint="$1/shown",writable=on &
until [ "$(stat -c %s shown)" -gt 0 ]; do sleep 0.05; done
dead=$(losetup --find --show shown)
blank=$(losetup --find --show blank)
trap 'umount --lazy mounted shown; losetup --detach $dead; losetup --detach $blank' EXIT
mkfs.ext4 -q "$dead"
mkdir mounted
mount "$dead" mounted
kill -9 $!
wait $! || true
echo "$dead"
"$2" -c "$3" "$blank"
"""
MAKE = """
import asyncio, sys
from pathlib import Path
from holdfast.backends import errors
from holdfast.backends.protocol import Device
from holdfast.node import filesystems
device = Device(Path(sys.argv[1]), "a loop device", 256 << 20)
try:
    asyncio.run(filesystems.make(device, "btrfs"))
except errors.Unavailable as error:
    print(error)
"""


def test_btrfs_over_a_dead_mount_names_that_mount(tmp_path: Path) -> None:
    program = secluded.python(tmp_path)
    argv = ["unshare", "--mount", "--propagation", "private", "bash", "-c", DEAD, "sh"]
    done = subprocess.run(
        [*argv, str(tmp_path), program, MAKE],
        env={**os.environ, "PYTHONPATH": machine.PYTHONPATH},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    device, _, said = done.stdout.partition("\n")
    mounted = f"{tmp_path}/mounted"
    assert f"the program that served it has ended: {mounted} ({device} on" in said
    assert f"umount --lazy {mounted} {tmp_path}/shown; losetup --detach {device}" in said
