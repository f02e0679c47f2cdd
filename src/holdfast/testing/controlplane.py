"""The storage controllers over the real API, in the test's own process.

`control_plane(directory)` runs what binds, provisions, reclaims and protects, wired as the
server wires it, with a real local backend below `directory` and a `FaultyBackend` in front of
it. Leaving the context is a clean stop; a second run on the same directory goes on where the
first ended. A `Cut` makes it stop like a power failure instead: at a chosen write nothing the
controllers ask for happens any more, and what they had in memory is lost with the context.
"""

from __future__ import annotations

import asyncio
import inspect
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from holdfast.api import errors, kinds
from holdfast.api.kinds import Kind
from holdfast.apiserver.inprocess import InProcessClient
from holdfast.apiserver.options import WriteOptions
from holdfast.apiserver.resources import Resources
from holdfast.backends import registry
from holdfast.backends.local.backend import LocalBackend
from holdfast.controllers import binding, provisioning
from holdfast.controllers.protection import Protection
from holdfast.controllers.provisioners import Provisioners, Served
from holdfast.controllers.reclaiming import Reclaimer
from holdfast.runtime.client import Client, Object
from holdfast.runtime.controller import Controller
from holdfast.runtime.http import HttpClient
from holdfast.runtime.informer import Informers
from holdfast.runtime.recorder import Recorder
from holdfast.store.log import Store
from holdfast.testing.apiserver import NAMESPACES, api_server
from holdfast.testing.backends import FaultyBackend
from holdfast.testing.cuts import Cut, CutClient

Run = Callable[[], Coroutine[Any, Any, None]]
NODE = "node-1"


async def eventually(predicate: Callable[[], Any], seconds: float = 5.0, what: str = "") -> Any:
    """Ask (or await) until the answer is true and return it; AssertionError when time is up."""
    deadline = time.monotonic() + seconds
    while True:
        answer = predicate()
        value = await answer if inspect.isawaitable(answer) else answer
        if value:
            return value
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {seconds} s: {what or predicate}; last: {value!r}")
        await asyncio.sleep(0.004)


@dataclass(frozen=True, slots=True)
class Told:
    """One event, without its times."""

    type: str
    reason: str
    message: str
    component: str
    count: int


class ControlPlane:
    """What a test gets: the API, the backend, and questions about their state."""

    def __init__(
        self,
        resources: Resources,
        http: HttpClient | None,
        backend: FaultyBackend,
        queues: list[Controller],
    ) -> None:
        self.client = InProcessClient(resources)
        self.store = resources.store
        self.http = http
        self.backend = backend
        self._queues = queues

    async def create(self, obj: Object) -> Object:
        """Create an object of any kind in the namespace it names."""
        kind = kinds.by_name(obj["apiVersion"], obj["kind"])
        assert kind is not None, f"no kind {obj['kind']}"
        return await self.client.create(kind, obj, obj["metadata"].get("namespace"))

    async def find(self, kind: Kind, name: str, namespace: str = "default") -> Object | None:
        """Return the object, or None."""
        try:
            return await self.client.get(kind, name, namespace if kind.namespaced else None)
        except errors.NotFound:
            return None

    async def until(
        self,
        kind: Kind,
        name: str,
        holds: Callable[[Object], Any],
        *,
        namespace: str = "default",
        seconds: float = 5.0,
    ) -> Object:
        """Wait until the object exists and the predicate holds for it; return it."""
        deadline = time.monotonic() + seconds
        while True:
            obj = await self.find(kind, name, namespace)
            if obj is not None and holds(obj):
                return obj
            if time.monotonic() > deadline:
                told = await self.told(name)
                raise AssertionError(f"{kind.name} {name} after {seconds} s: {obj}\n{told}")
            await asyncio.sleep(0.004)

    async def phase(self, kind: Kind, name: str, phase: str, *, seconds: float = 5.0) -> Object:
        """Wait until the object is in a phase; return it."""
        return await self.until(kind, name, lambda o: phase_of(o) == phase, seconds=seconds)

    async def gone(self, kind: Kind, name: str, *, seconds: float = 5.0) -> None:
        """Wait until the object is gone."""

        async def absent() -> bool:
            return await self.find(kind, name) is None

        await eventually(absent, seconds, f"{kind.name} {name} is gone")

    async def delete(self, kind: Kind, name: str, namespace: str = "default") -> None:
        """Ask for the object's deletion."""
        await self.client.delete(kind, name, namespace if kind.namespaced else None)

    async def patch(
        self, kind: Kind, name: str, patch: Object, *, subresource: str | None = None
    ) -> Object:
        """Merge a patch into an object, in namespace `default` if it has one."""
        namespace = "default" if kind.namespaced else None
        return await self.client.patch(kind, name, patch, namespace, subresource=subresource)

    async def told(self, name: str) -> list[Told]:
        """Return the events about objects of a name, oldest first."""
        listing = await self.client.list(kinds.EVENT)
        mine = [e for e in listing.items if e["involvedObject"]["name"] == name]
        mine.sort(key=lambda event: int(event["metadata"]["name"].rpartition(".")[2], 16))
        return [
            Told(e["type"], e["reason"], e["message"], e["source"]["component"], e["count"])
            for e in mine
        ]

    async def hears(self, name: str, reason: str, message: str, *, seconds: float = 5.0) -> Told:
        """Wait for an event with this reason and exactly this message; return it."""

        async def heard() -> Told | None:
            found = [t for t in await self.told(name) if (t.reason, t.message) == (reason, message)]
            return found[0] if found else None

        try:
            found: Told = await eventually(heard, seconds)
        except AssertionError:
            told = await self.told(name)
            raise AssertionError(f"{name}: no {reason} {message!r} in {told}") from None
        return found

    async def settled(self, seconds: float = 10.0, *, busy: int = 0, quiet: float = 0.03) -> None:
        """Wait until nothing was written for `quiet` seconds and the queues are empty.

        `busy` keys may stay in work: those a test holds back itself. A first retry after a
        conflict comes after 0.05 s; whoever expects one asks for a longer quiet.
        """
        deadline = time.monotonic() + seconds
        since, revision = time.monotonic(), self.store.revision
        while time.monotonic() - since < quiet:
            assert time.monotonic() < deadline, {q.name: len(q) for q in self._queues}
            await asyncio.sleep(0.003)
            if sum(map(len, self._queues)) > busy or self.store.revision != revision:
                since, revision = time.monotonic(), self.store.revision


def phase_of(obj: Object) -> str:
    """Return the object's phase, or ""."""
    return (obj.get("status") or {}).get("phase") or ""


@asynccontextmanager
async def control_plane(
    directory: Path, *, cut: Cut | None = None, http: bool = False
) -> AsyncIterator[ControlPlane]:
    """Run the API and its controllers with their state in `directory`.

    Only with `http` is the API served on a socket too: a server takes a moment to stop.
    """
    async with _api(directory, http=http) as (resources, over_http):
        backend = FaultyBackend(LocalBackend(directory / "volumes", NODE))
        api = InProcessClient(resources)
        client: Client = api if cut is None else CutClient(api, cut)
        components, queues = _wire(client, backend)
        tasks = [asyncio.create_task(run()) for run in components]
        try:
            yield ControlPlane(resources, over_http, backend, queues)
            _report_crash(tasks)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await backend.close()


@asynccontextmanager
async def _api(
    directory: Path, *, http: bool
) -> AsyncIterator[tuple[Resources, HttpClient | None]]:
    if http:
        async with api_server(directory) as api:
            yield api.resources, api.http
        return
    store = Store.open(directory / "state.db")
    try:
        resources = Resources(store)
        for name in NAMESPACES:
            if store.get(kinds.NAMESPACE.bucket, name) is None:
                body = {"metadata": {"name": name}}
                await resources.create(kinds.NAMESPACE, body, None, WriteOptions())
        yield resources, None
    finally:
        await store.close()


def _wire(client: Client, backend: FaultyBackend) -> tuple[list[Run], list[Controller]]:
    informers = Informers(client)
    served = {
        name: Served(entry, backend)
        for name, entry in registry.PROVISIONERS.items()
        if entry.backend == "local"
    }
    provisioners = Provisioners(served)
    events = Recorder(client, binding.COMPONENT)
    recorders = {
        name: events if entry.in_tree else Recorder(client, name) for name, entry in served.items()
    }
    reclaimer = Reclaimer(client, informers, events, provisioners)
    binder = binding.Binder(client, informers, events, provisioners, reclaimer)
    provisioner = provisioning.ProvisioningController(client, informers, recorders, provisioners)
    deleter = provisioning.Deleter(client, informers, recorders, provisioners)
    protection = Protection(client, informers)
    components: list[Run] = [
        binder.run,
        provisioner.run,
        deleter.run,
        protection.run,
        informers.run,
    ]
    components += [recorder.run for recorder in {events, *recorders.values()}]
    queues = [binder.claims, binder.volumes, provisioner.loop, deleter.loop]
    return components, queues


def _report_crash(tasks: list[asyncio.Task[None]]) -> None:
    """Raise what ended a component: a controller that died must not pass for a quiet one."""
    for task in tasks:
        if task.done() and not task.cancelled():
            task.result()
