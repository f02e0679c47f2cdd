"""A provisioner that is killed: makes one volume per child process, and dies at a chosen step.

    python creator.py MONITOR POOL USER DIRECTORY NAME:STEP [NAME:STEP ...]     (key on stdin)

A step is one thing the backend does to the cluster. Odd steps kill before it, even ones after;
step 0 lives. Prints NAME:EXITCODE for each.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from holdfast.backends.protocol import VolumeRequest
from holdfast.backends.rbd import bindings, omap, owner
from holdfast.backends.rbd.backend import RbdBackend


class Countdown:
    """Counts what is done to the cluster, and kills this process at its time."""

    def __init__(self, at: int) -> None:
        self.left = at

    def around(self, work: Callable[..., Any]) -> Callable[..., Any]:
        """Return `work` with a chance to die before and after it."""

        def counted(*args: Any, **kwargs: Any) -> Any:
            self._tick()
            result = work(*args, **kwargs)
            self._tick()
            return result

        return counted

    def _tick(self) -> None:
        self.left -= 1
        if self.left == 0:
            os.kill(os.getpid(), signal.SIGKILL)


class Module:
    """A module of Ceph with some of its names replaced."""

    def __init__(self, real: Any, **replaced: Any) -> None:
        self._real = real
        self.__dict__.update(replaced)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)


def _counted(countdown: Countdown) -> None:
    real = bindings.load()

    library = real.rbd.RBD
    counted_library = type("RBD", (library,), {"create": countdown.around(library.create)})
    owner.write = countdown.around(owner.write)
    replaced = Module(real.rbd, RBD=counted_library)
    found = bindings.Bindings(real.rados, replaced)
    bindings.load = lambda *args: found
    omap.Table.set = countdown.around(omap.Table.set)  # type: ignore[method-assign]


async def _create(monitor: str, pool: str, user: str, key: str, directory: Path, name: str) -> None:
    backend = RbdBackend({}, directory)
    parameters = {"monitors": monitor, "pool": pool, "adminId": user}
    await backend.create_volume(VolumeRequest(name, 64 << 20, parameters, secrets={"key": key}))
    await backend.close()


def main(monitor: str, pool: str, user: str, directory: str, *orders: str) -> None:
    """Fork a child for each order, one after the other."""
    key = sys.stdin.read().strip()
    for order in orders:
        name, _, step = order.rpartition(":")
        child = os.fork()
        if child == 0:
            _counted(Countdown(int(step)))
            asyncio.run(_create(monitor, pool, user, key, Path(directory), name))
            os._exit(0)
        _, status = os.waitpid(child, 0)
        print(f"{name}:{os.waitstatus_to_exitcode(status)}")


if __name__ == "__main__":
    main(*sys.argv[1:])
