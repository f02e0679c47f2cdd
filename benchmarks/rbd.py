"""Claims with a real Ceph cluster, beside librbd's own creation and the `rbd` command, in one run.

The cluster is one of the tests': one monitor, one OSD on a sparse file. What counts is therefore
the difference to librbd on the same cluster, not the figures themselves.
"""

from __future__ import annotations

import asyncio
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from benchmarks import claims
from benchmarks.instance import Instance, instance
from benchmarks.report import Figure
from holdfast.backends.rbd import bindings, features
from holdfast.backends.rbd.connections import Access, Connection
from holdfast.backends.rbd.manifests import Names, secret, storage_class

sys.path.append(str(Path(__file__).resolve().parent.parent / "tests"))

from servers.ceph.cluster import Cluster

POOL = "bench"
SINGLE = 20
BURST = 50
SIZE = 1 << 30
SECRETS = "/api/v1/namespaces/kube-system/secrets"


def creates() -> list[Figure]:
    """One claim after the other, and many at once."""
    with tempfile.TemporaryDirectory(prefix="hf-bench-", ignore_cleanup_errors=True) as home:
        cluster = Cluster(Path(home)).start()
        try:
            key = cluster.make_pool(POOL, POOL)
            return _figures(cluster, key)
        finally:
            cluster.wipe()


def _figures(cluster: Cluster, key: str) -> list[Figure]:
    own = _librbd(cluster, key)
    command = _milliseconds(
        SINGLE, lambda i: cluster.rbd("create", "--size", "1024", f"{POOL}/command-{i}")
    )
    with instance() as run:
        singles, burst = asyncio.run(_claims(run, cluster, key))
    one = statistics.median(singles)
    return [
        Figure("rbd: p50 of librbd's own create", own, "ms", less=True),
        Figure("rbd: p50 of `rbd create`", command, "ms", less=True),
        Figure("rbd: p50 claim to Bound, one at a time", one, "ms", less=True),
        Figure("rbd: of that, above librbd's own create", one - own, "ms", 50, less=True),
        Figure(f"rbd: {BURST} claims at once, the last Bound", burst, "s", 5, 180, less=True),
    ]


def _librbd(cluster: Cluster, key: str) -> float:
    connection = Connection(bindings.load(), Access((cluster.monitor,), POOL, key))
    library, context = connection.modules.rbd.RBD(), connection.pool(POOL)
    bits = features.parse("")

    def make(number: int) -> None:
        library.create(context, f"own-{number}", SIZE, old_format=False, features=bits)

    found = _milliseconds(SINGLE, make)
    connection.close()
    return found


def _milliseconds(count: int, work: Callable[[int], object]) -> float:
    """Median duration of a call."""
    spent = []
    for number in range(count):
        begun = time.perf_counter()
        work(number)
        spent.append((time.perf_counter() - begun) * 1000)
    return statistics.median(spent)


async def _claims(run: Instance, cluster: Cluster, key: str) -> tuple[list[float], float]:
    """Milliseconds of single claims, and seconds until the last of a burst is bound."""
    names = Names(storage_class="ceph", secret="ceph")
    connection = run.cluster.connect()
    await connection.request("POST", SECRETS, secret(names, POOL, key))
    body = storage_class(names, (cluster.monitor,), POOL, POOL)
    await connection.request("POST", claims.CLASSES, body)
    connection.close()
    await claims.bind(run, [claims.claim("first", "ceph")])
    singles = []
    for number in range(SINGLE):
        name = f"single-{number}."
        _, waits = await claims.bind(run, [claims.claim(f"{name}x", "ceph")], name)
        singles.append(waits[0] * 1000)
    many = [claims.claim(f"burst-{number}", "ceph") for number in range(BURST)]
    rate, _ = await claims.bind(run, many, "burst-")
    return singles, BURST / rate
