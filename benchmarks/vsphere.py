"""vSphere volumes against a simulated vCenter: many claims at once, attaching, calls per claim.

The simulator answers in a millisecond, so what is measured is Holdfast's own time and the
number of calls a real vCenter would be asked.
"""

from __future__ import annotations

import asyncio
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from statistics import median

from benchmarks.report import Figure

CLAIMS = 50
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
            return asyncio.run(_measure(settings, node, Path(scratch) / "own"))
        finally:
            vcenter.stop()


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
        attaching, detaching = [], []
        for volume in made[:10]:
            began = time.perf_counter()
            await backend.attach(volume.id, node, False)
            attaching.append(time.perf_counter() - began)
        for volume in made[:10]:
            began = time.perf_counter()
            await backend.detach(volume.id, node)
            detaching.append(time.perf_counter() - began)
        after = backend.gateway.calls()
        return [
            Figure(f"vSphere: {CLAIMS} volumes at once", seconds, "s", 3.0, less=True),
            Figure("vSphere: calls per volume", calls.total() / CLAIMS, "calls", less=True),
            Figure("vSphere: attach", 1000 * median(attaching), "ms", less=True),
            Figure("vSphere: detach", 1000 * median(detaching), "ms", less=True),
            Figure(
                "vSphere: calls per attach and detach",
                (after.total() - before.total() - calls.total()) / 10,
                "calls",
                less=True,
            ),
        ]
    finally:
        await backend.close()
