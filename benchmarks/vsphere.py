"""vSphere volumes against a simulated vCenter: many claims at once, attaching, calls per claim.

What counts is Holdfast's own time and the number of calls a real vCenter would be asked. The
simulator's time is measured where it is waited for, at the socket, and printed apart. Besides
the clock there is the processor's time, which other work on the machine does not lengthen.
"""

from __future__ import annotations

import asyncio
import http.client
import json
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import median

from benchmarks import claims
from benchmarks.instance import Instance, instance
from benchmarks.report import Figure

CLAIMS = 50
PAIRS = 10
CROWD = 200
OWN_TARGET = 10.0  # milliseconds
GIB = 1 << 30


def volumes() -> list[Figure]:
    """Measure creates, attaches and detaches; needs what `make e2e` installs."""
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))
    from servers.vsphere.vcenter import VCenter

    with tempfile.TemporaryDirectory(prefix="hf-bench-") as scratch:
        vcenter = VCenter(Path(scratch) / "vcenter", "-ds", "2")
        try:
            node = vcenter.uuid_of("/DC0/vm/DC0_C0_RP0_VM0")
            settings = vcenter.settings(default_datastore="LocalDS_0")
            own = asyncio.run(_measure(settings, node, Path(scratch) / "own"))
            own += _crowded(Path(scratch) / "crowded")
            lines = [f"{key} = {json.dumps(value)}" for key, value in settings.items()]
            with instance("\n".join(["[vsphere.bench]", *lines])) as run:
                return [*asyncio.run(_claims(run)), *own]
        finally:
            vcenter.stop()


async def _claims(run: Instance) -> list[Figure]:
    """Make claims from outside, as users do."""
    where = {"datastore": "LocalDS_0"}
    await claims.add_class(run, "vsphere", "kubernetes.io/vsphere-volume", where)
    await claims.bind(run, [claims.claim("first", "vsphere")])
    many = [claims.claim(f"burst-{number}", "vsphere") for number in range(CLAIMS)]
    rate, _ = await claims.bind(run, many, "burst-")
    seconds = CLAIMS / rate
    return [Figure(f"vSphere: {CLAIMS} claims, the last Bound", seconds, "s", 3.0, less=True)]


def _crowded(directory: Path) -> list[Figure]:
    """Attach in a vCenter with many VMs, all of which might have the disk."""
    from servers.vsphere.vcenter import VCenter

    vcenter = VCenter(directory, "-vm", str(CROWD // 2))
    try:
        node = vcenter.uuid_of("/DC0/vm/DC0_C0_RP0_VM0")
        found = asyncio.run(_measure(vcenter.settings(), node, directory / "own"))
    finally:
        vcenter.stop()
    return [
        replace(each, what=f"{each.what}, {CROWD} VMs", target=None)
        for each in found
        if each.what.startswith("vSphere: attach, our processor")
    ]


async def _measure(settings: dict[str, object], node: str, directory: Path) -> list[Figure]:
    from holdfast.backends.protocol import VolumeRequest
    from holdfast.backends.vsphere.backend import VsphereBackend

    backend = VsphereBackend({"bench": settings}, directory)
    try:
        await backend.create_volume(VolumeRequest("warm", GIB))
        before, begun = Counter(backend.gateway.calls()), time.perf_counter()
        made = await asyncio.gather(
            *(backend.create_volume(VolumeRequest(f"pvc-{n}", GIB)) for n in range(CLAIMS))
        )
        seconds = time.perf_counter() - begun
        calls = backend.gateway.calls() - before
        attaching, detaching = Timing(), Timing()
        # The first attach reads vCenter's types for the first time, and is none of the ten.
        await backend.attach(made[-1].id, node, False)
        await backend.detach(made[-1].id, node)
        before_pairs = backend.gateway.calls().total()
        with _waiting() as waits:
            for volume in made[:PAIRS]:
                await attaching.take(waits, lambda v=volume: backend.attach(v.id, node, False))  # type: ignore[misc]
            for volume in made[:PAIRS]:
                await detaching.take(waits, lambda v=volume: backend.detach(v.id, node))  # type: ignore[misc]
        pairs = backend.gateway.calls().total() - before_pairs
        return [
            Figure(f"vSphere: {CLAIMS} volumes at once, without claims", seconds, "s", less=True),
            Figure("vSphere: calls per volume", calls.total() / CLAIMS, "calls", less=True),
            *attaching.figures("attach"),
            *detaching.figures("detach"),
            Figure("vSphere: calls per attach and detach", pairs / PAIRS, "calls", less=True),
        ]
    finally:
        await backend.close()


@dataclass(slots=True)
class Timing:
    """Seconds of repeated calls: ours by the clock and the processor, and the simulator's."""

    own: list[float] = field(default_factory=list)
    processor: list[float] = field(default_factory=list)
    waiting: list[float] = field(default_factory=list)

    async def take(self, waits: list[float], call: Callable[[], Awaitable[object]]) -> None:
        """Measure one call."""
        waits.clear()
        begun, used = time.perf_counter(), time.process_time()
        await call()
        self.processor.append(time.process_time() - used)
        self.own.append(time.perf_counter() - begun - sum(waits))
        self.waiting.append(sum(waits))

    def figures(self, what: str) -> list[Figure]:
        """Return the medians in milliseconds."""
        own, used, waited = (
            1000 * median(each) for each in (self.own, self.processor, self.waiting)
        )
        return [
            Figure(f"vSphere: {what}, our own time", own, "ms", OWN_TARGET, less=True),
            Figure(f"vSphere: {what}, our processor time", used, "ms", OWN_TARGET, less=True),
            Figure(f"vSphere: {what}, waiting for the simulator", waited, "ms", less=True),
        ]


@contextmanager
def _waiting() -> Iterator[list[float]]:
    """Give the seconds for which answers were waited for at the socket."""
    waits: list[float] = []
    receive = http.client.HTTPConnection.getresponse

    def timed(self: http.client.HTTPConnection) -> http.client.HTTPResponse:
        begun = time.perf_counter()
        try:
            return receive(self)
        finally:
            waits.append(time.perf_counter() - begun)

    http.client.HTTPConnection.getresponse = timed  # type: ignore[method-assign]
    try:
        yield waits
    finally:
        http.client.HTTPConnection.getresponse = receive  # type: ignore[method-assign]
