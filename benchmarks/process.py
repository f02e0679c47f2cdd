"""What one Holdfast costs: time to start, time to the first Bound claim, memory and CPU at rest."""

from __future__ import annotations

import asyncio
import time

from benchmarks.claims import bind, claim
from benchmarks.instance import instance
from benchmarks.report import Figure

IDLE_SECONDS = 30.0


def start() -> list[Figure]:
    """From the start of the process."""
    with instance() as run:
        ready = run.ready - run.started
        asyncio.run(bind(run, [claim("first", "local")]))
        bound = time.monotonic() - run.started
        time.sleep(5)
        before, began = run.cpu_seconds(), time.monotonic()
        time.sleep(IDLE_SECONDS)
        cpu = (run.cpu_seconds() - before) / (time.monotonic() - began) * 100
        memory = run.resident_mib()
    return [
        Figure("start to answering", ready, "s", 2.0, less=True),
        Figure("start to first claim Bound", bound, "s", 1.5, 2.9, less=True),
        Figure("resident memory at rest", memory, "MiB", 130, 470, less=True),
        Figure("CPU at rest", cpu, "%", 1.0, less=True),
    ]
