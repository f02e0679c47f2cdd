"""A stand-in for scheduler and node in tests of what keeps pods: it runs every pod at once.

Pods whose image stands in `broken` never become ready. Pods on a node in `lost` are neither
started nor let go, as if nobody heard from the node any more.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from holdfast.api import errors, kinds
from holdfast.kit import clock
from holdfast.runtime.client import Client
from holdfast.runtime.informer import Informers

Object = dict[str, Any]
NODE = "standin"


async def until(look: Callable[[], Awaitable[object]], seconds: float = 10.0) -> None:
    """Wait until what `look` gives is true."""
    loop = asyncio.get_running_loop()
    end = loop.time() + seconds
    while not await look():
        assert loop.time() < end, f"not within {seconds:g} s"
        await asyncio.sleep(0.01)


class Node:
    """Runs pods by saying so; start it like a controller."""

    def __init__(self, client: Client, informers: Informers) -> None:
        self._client = client
        self._informers = informers
        self._pods = informers.of(kinds.POD)
        self._queue: asyncio.Queue[Object] = asyncio.Queue()
        self._pods.subscribe(lambda old, new: self._queue.put_nowait(new) if new else None)
        self.broken: set[str] = set()
        self.lost = False
        self.most_at_once = 0

    def look_again(self) -> None:
        """Look at every pod once more, after `broken` or `lost` was changed."""
        for pod in list(self._pods.all()):
            self._queue.put_nowait(pod)

    async def run(self) -> None:
        """Run pods until cancelled."""
        await self._informers.synced()
        while True:
            pod = await self._queue.get()
            active = [p for p in self._pods.all() if "deletionTimestamp" not in p["metadata"]]
            self.most_at_once = max(self.most_at_once, len(active))
            try:
                await self._see_to(pod)
            except (errors.NotFound, errors.Conflict):
                continue

    async def _see_to(self, pod: Object) -> None:
        meta = pod["metadata"]
        name, namespace = meta["name"], meta["namespace"]
        if not pod["spec"].get("nodeName"):
            body = {"metadata": {"name": name, "uid": meta["uid"]}, "target": {"name": NODE}}
            await self._client.create(kinds.POD, body, namespace, subresource="binding", name=name)
        elif self.lost:
            return
        elif "deletionTimestamp" in meta:
            await self._client.delete(kinds.POD, name, namespace, uid=meta["uid"], grace=0)
        elif pod["status"]["phase"] == "Pending":
            await self._start(pod)

    async def _start(self, pod: Object) -> None:
        meta = pod["metadata"]
        fine = pod["spec"]["containers"][0]["image"] not in self.broken
        now = clock.rfc3339(clock.now())
        ready = {"type": "Ready", "status": str(fine), "lastTransitionTime": now}
        status = {"phase": "Running", "conditions": [ready]}
        patch = {"metadata": {"uid": meta["uid"]}, "status": status}
        await self._client.patch(
            kinds.POD, meta["name"], patch, meta["namespace"], subresource="status"
        )
