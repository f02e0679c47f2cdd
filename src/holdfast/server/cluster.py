"""The composition root of `holdfast controller`: the same controllers on a real cluster.

Kubernetes binds, schedules, protects and attaches there; what is wired here is what each vendor's
driver brings along: provisioner, deleter, attacher, resizer and snapshotter, for every name a
backend answers to. Volumes are written as `csi` volumes of our drivers, also for the names of
in-tree plug-ins, because the kubelet has no other.

Invariant: of several replicas one works. What a replica was doing when it ended is found again by
the next one in the API objects: finalizers, annotations and names that follow from uids.
"""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import os
import socket
import uuid
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from prometheus_client import CollectorRegistry, Gauge
from prometheus_client.process_collector import ProcessCollector

from holdfast.api import errors, kinds
from holdfast.backends import names, registry
from holdfast.backends.local.backend import LocalBackend
from holdfast.backends.protocol import Backend
from holdfast.controllers import attaching, expanding, provisioning, snapshots
from holdfast.controllers.capacity import CapacityObjects
from holdfast.controllers.csidrivers import MANAGED_BY, OURS
from holdfast.controllers.lostnodes import LostNodes
from holdfast.controllers.provisioners import IN_TREE, MIGRATED, Provisioners, Served
from holdfast.controllers.secrets import SecretReader
from holdfast.runtime.access import Access
from holdfast.runtime.client import Client
from holdfast.runtime.informer import Informers
from holdfast.runtime.leader import Election
from holdfast.runtime.recorder import Recorder
from holdfast.server import health, systems

log = logging.getLogger("holdfast.server")

Run = Callable[[], Awaitable[None]]
LEASE = "holdfast-controller"
OPTIONAL = (kinds.SNAPSHOT, kinds.SNAPSHOT_CLASS, kinds.SNAPSHOT_CONTENT)


class ClusterError(Exception):
    """The controller cannot work on this cluster as it is: what is in the way, what to do."""


@dataclass(frozen=True, slots=True)
class Settings:
    """What `holdfast controller` is told.

    `local_node` names the node that this machine is, whose local volumes are served then.
    `skip` are provisioner and driver names to leave to others; `take_over` are drivers to serve
    although a CSIDriver of somebody else stands there. `namespace` is that of the Lease and of the
    CSIStorageCapacity objects.
    """

    data_dir: Path
    storage: Mapping[str, registry.Instances] = field(repr=False)
    namespace: str
    local_node: str = ""
    snapshot_controller: bool = False
    skip: frozenset[str] = frozenset()
    take_over: frozenset[str] = frozenset()
    leader_elect: bool = True
    health: tuple[str, int] | None = None


def identity() -> str:
    """Return a name for this replica that no other one has, nor this one after a restart."""
    return f"{socket.gethostname()}_{uuid.uuid4()}"


def served_on_cluster(opened: Mapping[str, Served]) -> dict[str, Served]:
    """Return the names with the drivers that their volumes are written under on a cluster."""
    return {
        name: dataclasses.replace(
            served,
            name=dataclasses.replace(served.name, source=names.csi_source),
            csi_driver=driver_for(served.name),
        )
        for name, served in opened.items()
    }


def driver_for(provisioner: names.Provisioner) -> str:
    """Return the CSI driver that stands for a class's provisioner on a cluster.

    It is the name itself where that is a driver's; the name Kubernetes translates it to; else the
    backend's own driver.
    """
    name = MIGRATED.get(provisioner.name, provisioner.name)
    if name in registry.DRIVERS:
        return name
    return f"{provisioner.backend}.holdfast.dev"


async def check_drivers(client: Client, drivers: frozenset[str], take_over: frozenset[str]) -> None:
    """Refuse to serve a driver that somebody else serves already; raises ClusterError.

    Two provisioners of one name make two volumes for one claim.
    """
    try:
        listing = await client.list(kinds.CSI_DRIVER)
    except OSError as error:
        raise ClusterError(str(error)) from error
    except errors.StatusError as error:
        raise ClusterError(
            f"the cluster does not let us read its CSIDriver objects: {error}; give the "
            "controller's service account the rights that `holdfast install --print` shows"
        ) from error
    for found in listing.items:
        name = found["metadata"]["name"]
        if name not in drivers or name in take_over:
            continue
        if (found["metadata"].get("labels") or {}).get(MANAGED_BY) != OURS:
            raise ClusterError(
                f"CSIDriver {name} is there and was not made for Holdfast: two controllers that "
                f"answer to {name} would make two volumes for one claim. Remove the other driver, "
                f"or leave {name} to it with --except {name}; when the other one's controller is "
                f"gone and only the object was left, say --take-over {name}"
            )


class ClusterController:
    """Everything one replica runs."""

    def __init__(self, client: Client, settings: Settings) -> None:
        self._client = client
        self._settings = settings
        opened: dict[str, Backend] = {}
        if settings.local_node:
            root = settings.data_dir / "volumes"
            opened["local"] = LocalBackend(root, settings.local_node)
        self.backends = systems.Backends(
            settings.data_dir, settings.storage, opened, SecretReader(client).read
        )
        self.backends.open_configured()
        kinds_here = {*registry.BACKENDS, *opened}
        served = {
            name: entry
            for name, entry in served_on_cluster(self.backends.served()).items()
            if entry.name.backend in kinds_here and not {name, entry.csi_driver} & settings.skip
        }
        drivers = {
            name: opener
            for name, opener in self.backends.drivers().items()
            if registry.DRIVERS[name] in kinds_here and name not in settings.skip
        }
        by_class = {name for name in served if name.startswith(IN_TREE) and name not in MIGRATED}
        self.provisioners = Provisioners(served, drivers, by_class)
        self._served = served

    async def check(self) -> None:
        """See `check_drivers`."""
        await check_drivers(self._client, self.provisioners.drivers(), self._settings.take_over)

    async def work(self) -> None:
        """Run the controllers until cancelled; call it only while leading."""
        informers = Informers(self._client, OPTIONAL)
        recorders = self._recorders()
        parts = self._parts(informers, recorders)
        async with asyncio.TaskGroup() as group:
            group.create_task(informers.run())
            for recorder in set(recorders.values()):
                group.create_task(recorder.run())
            for part in parts:
                group.create_task(_running(part))

    def _recorders(self) -> dict[str, Recorder]:
        host = os.environ.get("POD_NAME") or socket.gethostname()
        drivers = {each.csi_driver for each in self._served.values()}
        by_driver = {name: Recorder(self._client, f"{name}_{host}") for name in sorted(drivers)}
        return {name: by_driver[each.csi_driver] for name, each in self._served.items()}

    def _parts(self, informers: Informers, recorders: dict[str, Recorder]) -> list[Run]:
        client, provisioners = self._client, self.provisioners
        attacher = attaching.AttachmentServer(client, informers, provisioners)
        parts: list[Run] = [
            provisioning.ProvisioningController(client, informers, recorders, provisioners).run,
            provisioning.Deleter(client, informers, recorders, provisioners).run,
            provisioning.CloneProtection(client, informers).run,
            expanding.ExpandController(client, informers, None, recorders, provisioners).run,
            attacher.run,
            attaching.Comparison(informers, provisioners, attacher).run,
            snapshots.ContentController(client, informers, recorders, provisioners).run,
            CapacityObjects(client, informers, provisioners, self._settings.namespace).run,
        ]
        losses = Recorder(client, "holdfast")
        parts += [losses.run, LostNodes(client, informers, losses, provisioners).run]
        if self._settings.snapshot_controller:
            events = Recorder(client, snapshots.COMPONENT)
            taker = snapshots.SnapshotController(client, informers, events, provisioners)
            parts += [events.run, taker.run]
        return parts

    async def close(self) -> None:
        """Close the backends."""
        await self.backends.close()


async def _running(part: Run) -> None:
    await part()


async def serve(access: Access, settings: Settings) -> None:
    """Run one replica until cancelled; raises ClusterError and the backends' own errors."""
    async with access.client() as client:
        controller, metrics = ClusterController(client, settings), _Metrics()
        try:
            await controller.check()
            async with asyncio.TaskGroup() as group:
                if settings.health is not None:
                    group.create_task(health.serve(*settings.health, tuple, metrics.registry))
                group.create_task(_elected(client, settings, controller.work, metrics))
        finally:
            await controller.close()


class _Metrics:
    """What Prometheus may see of a replica."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        self.leading = Gauge(
            "holdfast_controller_leading", "1 in the replica that works.", registry=self.registry
        )


async def _elected(client: Client, settings: Settings, work: Run, metrics: _Metrics) -> None:
    async def leading() -> None:
        metrics.leading.set(1)
        try:
            await work()
        finally:
            metrics.leading.set(0)

    if not settings.leader_elect:
        await leading()
        return
    election = Election(client, name=LEASE, namespace=settings.namespace, identity=identity())
    await election.run(leading)
