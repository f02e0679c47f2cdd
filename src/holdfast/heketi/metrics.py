"""/metrics: Heketi's own names, in Prometheus' text format."""

from __future__ import annotations

from collections.abc import Iterator

from holdfast.heketi.entries import (
    BlockVolume,
    Brick,
    Cluster,
    Device,
    Node,
    Operation,
    Volume,
)
from holdfast.heketi.service import Service

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_KIB = 1024


def text(service: Service) -> str:
    """All figures."""
    return "\n".join(_lines(service)) + "\n"


def _lines(service: Service) -> Iterator[str]:
    state = service.state
    yield from _figure("heketi_up", "Whether heketi is up", [("", 1)])
    clusters = state.all(Cluster)
    yield from _figure("heketi_cluster_count", "Number of clusters", [("", len(clusters))])
    for name, what, kind in (
        ("heketi_volumes_count", "Number of volumes on cluster", Volume),
        ("heketi_block_volumes_count", "Number of block volumes on cluster", BlockVolume),
        ("heketi_nodes_count", "Number of nodes on cluster", Node),
    ):
        rows = [(f'cluster="{each.id}"', state.count_below(each, kind)) for each in clusters]
        yield from _figure(name, what, rows)
    yield from _devices(service)
    found = state.all(Operation)
    amounts = {
        "stale": sum(each.status == "stale" for each in found),
        "failed": sum(each.status == "failed" for each in found),
        "new": sum(not each.status for each in found),
        "total": len(found),
        "inFlight": len(service.engine.running),
    }
    for key, amount in amounts.items():
        name = f"heketi_operations_{key}_count"
        yield from _figure(name, f"Number of {key} operations", [("", amount)])


def _devices(service: Service) -> Iterator[str]:
    state = service.state
    rows: list[tuple[str, Device]] = []
    counts: list[tuple[str, int]] = []
    for node in state.all(Node):
        devices = state.below(node, Device)
        labels = f'cluster="{node.cluster}",hostname="{node.manage}"'
        counts.append((labels, len(devices)))
        rows += [(f'{labels},device="{each.name}"', each) for each in devices]
    yield from _figure("heketi_device_count", "Number of devices on host", counts)
    for key, what, amount in (
        ("size", "Total size of the device", lambda each: each.total),
        ("free", "Amount of free space available on the device", state.free),
        ("used", "Amount of space used on the device", state.used),
    ):
        sizes = [(labels, amount(each)) for labels, each in rows]
        yield from _figure(f"heketi_device_{key}", what, sizes)
        yield from _figure(
            f"heketi_device_{key}_bytes", what, [(labels, size * _KIB) for labels, size in sizes]
        )
    bricks = [(labels, state.count_below(each, Brick)) for labels, each in rows]
    yield from _figure("heketi_device_brick_count", "Number of bricks on device", bricks)


def _figure(name: str, what: str, rows: list[tuple[str, int]]) -> Iterator[str]:
    if rows:
        yield f"# HELP {name} {what}"
        yield f"# TYPE {name} gauge"
    for labels, amount in rows:
        yield f"{name}{{{labels}}} {amount}" if labels else f"{name} {amount}"
