"""Lets a machine go of everything a stopped node agent left in use: for `down --unmount`.

Pods and mounts outlive the process on purpose. Before the data directory is moved, backed up
whole or removed they have to go, and `rm -rf` is no way to do it: a host path that is mounted
below would be emptied with it. Containers are ended, mounts beneath the node's directory are
taken away in reverse order, and the loop devices that carried them are detached. Volumes,
records and the API's objects stay; the next start mounts what its pods need again.

The invariant: nothing is deleted here, and nothing outside the given directory is touched.
"""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path
from typing import NamedTuple

from holdfast.backends import mountinfo
from holdfast.node import devices, mounts
from holdfast.node.containers import Attempt, Containers

# How long a container may take to end after SIGTERM, in seconds.
GRACE_SECONDS = 10.0


class Released(NamedTuple):
    """How many of each were let go of."""

    containers: int
    mounts: int


async def release(node_root: Path) -> Released:
    """Let go of all that is in use beneath a node's directory; may be repeated.

    Raises backends.errors.Conflict, saying who holds it, when a mount is busy.
    """
    containers = await _end_containers(node_root)
    return Released(containers, await asyncio.to_thread(_unmount_beneath, node_root))


async def _end_containers(node_root: Path) -> int:
    containers = Containers(node_root, lambda owner: None)
    owners = await containers.load()
    attempts = [
        attempt for owner in owners for tries in containers.of(owner).values() for attempt in tries
    ]
    running = [attempt for attempt in attempts if attempt.running]
    await asyncio.gather(*(_end(containers, attempt) for attempt in running))
    for attempt in attempts:
        await containers.settle(attempt)
    return len(running)


async def _end(containers: Containers, attempt: Attempt) -> None:
    await containers.signal(attempt, signal.SIGTERM)
    try:
        async with asyncio.timeout(GRACE_SECONDS):
            await attempt.done.wait()
    except TimeoutError:
        await containers.signal(attempt, signal.SIGKILL)
        await attempt.done.wait()


def _unmount_beneath(node_root: Path) -> int:
    found = mountinfo.beneath(node_root)
    loops = devices.LoopDevices()
    for mount in reversed(found):
        mounts.unmount(Path(mount.point))
    for mount in found:
        # A raw block volume is the device's own node, mounted from devtmpfs.
        name = mount.root if mount.fs_type == "devtmpfs" else mount.source
        device = Path("/dev") / Path(name).name
        if devices.is_loop(device):
            loops.detach_device(device)
    return len(found)
