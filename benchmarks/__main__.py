"""`python -m benchmarks [NAME ...]`: run all measurements, or those named."""

from __future__ import annotations

import sys
from collections.abc import Callable

from benchmarks import (
    cinder,
    claims,
    csi,
    heketi_placement,
    heketi_size,
    process,
    requests,
    vsphere,
    watches,
)
from benchmarks.report import Figure


def _rbd() -> list[Figure]:
    # Needs a Ceph that not every machine has.
    from benchmarks import rbd

    return rbd.creates()


BENCHMARKS: dict[str, Callable[[], list[Figure]]] = {
    "start": process.start,
    "creates": requests.creates,
    "dynamic-directory": lambda: claims.dynamic("directory"),
    "dynamic-image": lambda: claims.dynamic("image"),
    "static-1000": lambda: claims.static(1000, 400),
    "watches": watches.watches,
    "listing": watches.listing,
    "csi-cycle": csi.cycle,
    "heketi-size": heketi_size.sizes,
    "heketi-placement": heketi_placement.placement,
    "vsphere": vsphere.volumes,
    "static-10000": lambda: claims.static(10_000, 350),
    "rbd": _rbd,
}

# Run when they are named only: they need what `make e2e` installs.
WITH_SERVERS: dict[str, Callable[[], list[Figure]]] = {
    "cinder": cinder.forty,
}


def main(names: list[str]) -> int:
    """Print the figures; the exit code is 1 when a target is missed."""
    known = {**BENCHMARKS, **WITH_SERVERS}
    unknown = [name for name in names if name not in known]
    if unknown:
        print(f"unknown: {', '.join(unknown)}; there are: {', '.join(known)}")
        return 2
    missed = 0
    for name in names or BENCHMARKS:
        for figure in known[name]():
            print(figure, flush=True)
            missed += not figure.met
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
