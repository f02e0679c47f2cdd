"""A whole control plane in the test's own process, wired as `holdfast up` wires it.

It is the real composition: store, API rules, every controller, a node agent that
mounts, the local backend. `crash` ends all of it in the middle of whatever it does,
`start` begins anew from what is on disk, and `client` reaches the API in between.
"""

from __future__ import annotations

import asyncio
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import machine
from holdfast.api import errors, kinds
from holdfast.apiserver.resources import Resources
from holdfast.backends import mountinfo
from holdfast.backends.protocol import NodeSide
from holdfast.controllers.provisioners import Served
from holdfast.runtime.client import Client
from holdfast.server import assemble, bootstrap, config

Object = dict[str, Any]
NODE = "node-1"


class Cluster:
    """A control plane that can crash."""

    def __init__(self, resources: Resources, client: Client, directory: Path) -> None:
        self.resources = resources
        self.client = client
        self.data_dir = directory
        # Storage besides the local one, by provisioner, and its node sides.
        self.extra: dict[str, Served] = {}
        self.extra_sides: dict[str, NodeSide] = {}
        self._running: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Run every component."""
        settings = config.Config(self.data_dir, NODE)
        await bootstrap.prepare(self.resources)
        self._running = asyncio.create_task(self._run(settings))

    async def crash(self) -> None:
        """End every component wherever it is."""
        assert self._running is not None
        self._running.cancel()
        await asyncio.gather(self._running, return_exceptions=True)

    async def _run(self, settings: config.Config) -> None:
        plane = assemble.control_plane(
            settings, self.resources, extra=self.extra, extra_sides=self.extra_sides
        )
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(plane.informers.run())
                for component in plane.components:
                    group.create_task(_running(component))
        finally:
            await plane.close()

    def dispose(self) -> None:
        """Release what is mounted below the data directory."""
        machine.release(self.data_dir)

    async def create(self, kind: kinds.Kind, name: str, **obj: Any) -> Object:
        """Create an object; keywords are its top-level fields."""
        metadata = {"name": name, **obj.pop("metadata", {})}
        namespace = metadata.get("namespace", "default") if kind.namespaced else None
        return await self.client.create(kind, {"metadata": metadata, **obj}, namespace)

    async def find(self, kind: kinds.Kind, name: str, namespace: str = "default") -> Object | None:
        """Return the object, or None."""
        try:
            return await self.client.get(kind, name, namespace if kind.namespaced else None)
        except errors.NotFound:
            return None

    async def until(
        self,
        kind: kinds.Kind,
        name: str,
        holds: Callable[[Object], bool],
        namespace: str = "default",
        seconds: float = 15.0,
    ) -> Object:
        """Wait until the object exists and the predicate holds for it; return it."""
        try:
            async with asyncio.timeout(seconds):
                while True:
                    obj = await self.find(kind, name, namespace)
                    if obj is not None and holds(obj):
                        return obj
                    await asyncio.sleep(0.01)
        except TimeoutError:
            obj = await self.find(kind, name, namespace)
            raise AssertionError(f"{kind.name} {name} did not get there: {obj}") from None

    async def gone(self, kind: kinds.Kind, name: str, seconds: float = 15.0) -> None:
        """Wait until the object does not exist."""
        try:
            async with asyncio.timeout(seconds):
                while True:
                    if await self.find(kind, name) is None:
                        return
                    await asyncio.sleep(0.01)
        except TimeoutError:
            obj = await self.find(kind, name)
            raise AssertionError(f"{kind.name} {name} stays: {obj}") from None

    async def in_phase(self, kind: kinds.Kind, name: str, phase: str) -> Object:
        """Wait for a phase."""
        return await self.until(
            kind, name, lambda obj: (obj.get("status") or {}).get("phase") == phase
        )

    async def told(self, name: str, reason: str, message: str = "", seconds: float = 5.0) -> str:
        """Wait for an event about an object; return its message."""
        async with asyncio.timeout(seconds):
            while True:
                for found, text in await self.events(name):
                    if found == reason and message in text:
                        return text
                await asyncio.sleep(0.02)

    async def events(self, name: str) -> list[tuple[str, str]]:
        """Return (reason, message) of what was said about an object, oldest first."""
        listing = await self.client.list(kinds.EVENT)
        mine = [event for event in listing.items if event["involvedObject"]["name"] == name]
        mine.sort(key=lambda event: int(event["metadata"]["resourceVersion"]))
        return [(event["reason"], event["message"]) for event in mine]

    # What most tests need

    async def make_class(self, name: str, **parameters: str) -> None:
        """Make a class of the local backend that lets its volumes grow."""
        await self.create(
            kinds.STORAGE_CLASS,
            name,
            provisioner="local.holdfast.dev",
            parameters=parameters,
            allowVolumeExpansion=True,
        )

    async def make_claim(self, name: str, storage_class: str, size: str, **spec: Any) -> Object:
        """Make a claim."""
        full = {
            "accessModes": ["ReadWriteOnce"],
            "resources": {"requests": {"storage": size}},
            "storageClassName": storage_class,
            **spec,
        }
        return await self.create(kinds.CLAIM, name, spec=full)

    async def bound(self, name: str, storage_class: str, size: str, **spec: Any) -> Object:
        """Make a claim and wait until it is bound."""
        await self.make_claim(name, storage_class, size, **spec)
        return await self.in_phase(kinds.CLAIM, name, "Bound")

    async def request(self, claim: str, size: str) -> Object:
        """Ask for another size."""
        patch = {"spec": {"resources": {"requests": {"storage": size}}}}
        return await self.client.patch(kinds.CLAIM, claim, patch, "default")

    async def run_pod(self, name: str, claim: str, *, block: bool = False) -> Path:
        """Run a pod with one claim; return where the pod has its volume."""
        uses = (
            {"volumeDevices": [{"name": "data", "devicePath": "/dev/data"}]}
            if block
            else {"volumeMounts": [{"name": "data", "mountPath": "/data"}]}
        )
        pod = await self.create(
            kinds.POD,
            name,
            spec={
                "containers": [{"name": "main", "image": "busybox", **uses}],
                "volumes": [{"name": "data", "persistentVolumeClaim": {"claimName": claim}}],
                # Not 0, which would take the object away before its volumes are let go of.
                "terminationGracePeriodSeconds": 1,
            },
        )
        await self.in_phase(kinds.POD, name, "Running")
        volumes = self.data_dir / "nodes" / NODE / "pods" / pod["metadata"]["uid"] / "volumes"
        place: Path = sorted(volumes.glob("*/*/mount"))[0]
        return place

    async def stop_pod(self, name: str) -> None:
        """Delete a pod and wait until it has let go of everything."""
        await self.client.delete(kinds.POD, name, "default")
        await self.gone(kinds.POD, name)


async def _running(component: assemble.Run) -> None:
    await component()


def file_system_size(place: Path) -> int:
    """Return the bytes the mounted file system has in all."""
    done = subprocess.run(
        ["df", "--output=size", "-B1", str(place)], check=True, capture_output=True, text=True
    )
    return int(done.stdout.split()[-1])


def mounted(place: Path) -> bool:
    """Whether something is mounted there."""
    return bool(mountinfo.at(place))
