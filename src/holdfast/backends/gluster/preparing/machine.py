"""Tests one machine that is to be a GlusterFS node; nothing is changed.

A disk is only taken when nothing is on it: no signature, no partition, no mount. Ports count as
free when nobody listens on them.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Iterable, Sequence
from pathlib import Path

from holdfast.backends import errors, mountinfo, tools
from holdfast.backends.protocol import Finding
from holdfast.kit import process

# glusterd, its RDMA twin, and the sshd of containers that gluster-kubernetes ran.
PORTS = (24007, 24008, 2222)
BRICK_PORTS = range(49152, 49252)
MODULES = ("dm_snapshot", "dm_mirror", "dm_thin_pool")
_PROGRAMS = ("glusterd", "mkfs.xfs", "lvcreate")
_LOADED = Path("/sys/module")


async def check(
    devices: Sequence[str],
    ports: Iterable[int] = (*PORTS, *BRICK_PORTS),
) -> list[Finding]:
    """Test disks, ports, kernel modules and programs of this machine."""
    found = [await _device(path) for path in devices]
    taken = [port for port in ports if _listened_to(port)]
    if taken:
        what = f"ports in use: {', '.join(map(str, taken[:8]))}"
        remedy = "a glusterd that runs already is well; anything else has to go"
        found.append(Finding("ports", "warning", what, "", remedy))
    else:
        what = "24007, 24008, 2222 and 49152-49251 are free"
        found.append(Finding("ports", "ok", what))
    missing = await asyncio.to_thread(_unloaded)
    if missing:
        what = f"kernel modules are not loaded: {', '.join(missing)}"
        remedy = (
            f"modprobe -a {' '.join(missing)}, and name them in /etc/modules-load.d/gluster.conf"
        )
        found.append(Finding("modules", "error", what, "", remedy))
    else:
        found.append(Finding("modules", "ok", f"{', '.join(MODULES)} are there"))
    for program in _PROGRAMS:
        if tools.missing(program):
            package = {"glusterd": "glusterfs-server", "lvcreate": "lvm2"}.get(
                program, tools.package_of(program)
            )
            remedy = f"install the package {package}; not needed where glusterd runs in a pod"
            found.append(Finding("programs", "warning", f"{program} is missing", "", remedy))
    return found


def _unloaded() -> list[str]:
    return [name for name in MODULES if not (_LOADED / name).exists()]


def _listened_to(port: int) -> bool:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            sock.bind(("0.0.0.0", port))
        except OSError:
            return True
    return False


async def _device(path: str) -> Finding:
    wrong = await asyncio.to_thread(_obstacle, Path(path))
    if wrong is not None:
        return wrong
    try:
        said = await process.run(["wipefs", "--no-act", "--noheadings", "--output", "TYPE", path])
    except process.CommandFailed as error:
        raise errors.Unavailable(f"cannot be looked at: {error}", path) from error
    signatures = said.stdout.decode().split()
    if signatures:
        remedy = f"when nothing on it is needed: wipefs --all {path}"
        return Finding("device", "error", f"holds {', '.join(signatures)}", path, remedy)
    return Finding("device", "ok", "is bare", path)


def _obstacle(place: Path) -> Finding | None:
    """Say why the disk cannot be taken, as far as the kernel knows."""
    path = str(place)
    if not place.is_block_device():
        what = "is no block device" if place.exists() else "is not there"
        return Finding("device", "error", what, path, "see lsblk for the names of disks")
    number = place.stat().st_rdev
    shown = f"{os.major(number)}:{os.minor(number)}"
    uses = [each.point for each in mountinfo.read() if each.device == shown]
    if uses:
        return Finding("device", "error", f"is mounted at {uses[0]}", path, "choose another disk")
    kernel = Path("/sys/class/block") / place.resolve().name
    if (kernel / "size").read_text().strip() == "0":
        return Finding("device", "error", "has no size", path, "see lsblk for the names of disks")
    parts = [each.name for each in kernel.glob(f"{kernel.name}*")]
    if parts:
        what = f"has partitions: {', '.join(sorted(parts))}"
        return Finding("device", "error", what, path, "choose a bare disk")
    return None
