"""What a machine needs to use Ceph volumes: one finding for each question."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from holdfast.backends.protocol import Finding
from holdfast.backends.rbd import checks, features
from holdfast.backends.rbd.clusters import Clusters
from holdfast.backends.rbd.mappers import Mapper


async def run(clusters: Clusters, mappers: Sequence[Mapper]) -> Sequence[Finding]:
    """Return the findings: bindings, mappers and their features, monitors."""
    found = [await asyncio.to_thread(checks.of_bindings)]
    found += await _of_mappers(mappers)
    for instance in clusters.instances.values():
        found += await asyncio.to_thread(_of_monitors, instance.monitors)
    return found


def _of_monitors(monitors: tuple[str, ...]) -> list[Finding]:
    return list(checks.of_monitors(monitors))


async def _of_mappers(mappers: Sequence[Mapper]) -> list[Finding]:
    refusals = {mapper.name: await mapper.refusal() for mapper in mappers}
    usable = [name for name, refusal in refusals.items() if not refusal]
    found = []
    for mapper in mappers:
        refusal = refusals[mapper.name]
        if not refusal:
            known = mapper.supported() & features.mask(features.CHOICES)
            names = ", ".join(features.names(known))
            found.append(Finding("ceph mapper", "ok", f"supports {names}", mapper.name))
        elif usable:
            found.append(Finding("ceph mapper", "ok", f"not used: {refusal}", mapper.name))
    if not usable:
        found.append(
            Finding(
                "ceph mapper",
                "error",
                "; ".join(f"{name}: {refusal}" for name, refusal in refusals.items()),
                "this machine",
                "make one of them work: `modprobe rbd`, or "
                "apt-get install qemu-system-common qemu-block-extra",
            )
        )
    return found
