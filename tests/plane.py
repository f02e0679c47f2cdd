"""A control plane of one's own for each test: the real store, rules and client.

`Plane` gives the client and shared informers; controllers under test are started with
`plane.run(...)` and stop with the test. Nothing is faked, so a controller that passes
here has made writes that the server's validation accepts.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Protocol

from holdfast.api import errors, kinds
from holdfast.runtime.client import Client
from holdfast.runtime.informer import Informers
from holdfast.runtime.recorder import Recorder

Object = dict[str, Any]


class Component(Protocol):
    """A controller, as the server runs it."""

    async def run(self) -> None: ...


class Plane:
    """An API and the means to run controllers against it."""

    def __init__(self, client: Client, group: asyncio.TaskGroup) -> None:
        self.client = client
        self.informers = Informers(self.client)
        self.recorder = Recorder(self.client, "test")
        self._group = group
        self._tasks: list[asyncio.Task[None]] = []

    def start(self, *components: Component) -> list[asyncio.Task[None]]:
        """Run components until the test ends or `stop` is called with what this returns."""
        tasks = [self._group.create_task(component.run()) for component in components]
        self._tasks += tasks
        return tasks

    async def stop(self, tasks: list[asyncio.Task[None]] | None = None) -> None:
        """Cancel tasks (all by default) and wait for their end."""
        stopping = self._tasks if tasks is None else tasks
        for task in stopping:
            task.cancel()
        await asyncio.gather(*stopping, return_exceptions=True)

    async def create(self, kind: kinds.Kind, name: str, namespace: str = "", **obj: Any) -> Object:
        """Create an object; keywords are its top-level fields, metadata is merged."""
        metadata = {"name": name, **obj.pop("metadata", {})}
        body = {"apiVersion": kind.api_version, "kind": kind.name, "metadata": metadata, **obj}
        if kind.namespaced:
            metadata["namespace"] = namespace or "default"
        return await self.client.create(kind, body, metadata.get("namespace"))

    async def find(self, kind: kinds.Kind, name: str, namespace: str = "default") -> Object | None:
        """Return the object, or None when there is none."""
        try:
            return await self.client.get(kind, name, namespace if kind.namespaced else None)
        except errors.NotFound:
            return None

    async def until(
        self,
        kind: kinds.Kind,
        name: str,
        holds: Callable[[Object | None], bool],
        namespace: str = "default",
        *,
        seconds: float = 10.0,
    ) -> Object | None:
        """Wait until the predicate holds for the object (None = absent) and return it."""
        try:
            async with asyncio.timeout(seconds):
                while True:
                    obj = await self.find(kind, name, namespace)
                    if holds(obj):
                        return obj
                    await asyncio.sleep(0.01)
        except TimeoutError:
            obj = await self.find(kind, name, namespace)
            raise AssertionError(f"{kind.name} {name} did not get there in time: {obj}") from None

    async def reasons(self, name: str) -> list[tuple[str, str]]:
        """Return (reason, message) of the events about an object, oldest first."""
        listing = await self.client.list(kinds.EVENT)
        mine = [event for event in listing.items if event["involvedObject"]["name"] == name]
        mine.sort(key=lambda event: int(event["metadata"]["resourceVersion"]))
        return [(event["reason"], event["message"]) for event in mine]
