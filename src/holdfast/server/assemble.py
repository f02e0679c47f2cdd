"""The composition root: from a configuration to the objects that run, wired once, in one place.

Nothing below this package chooses what it talks to; here the API server gets its store, the
controllers their client, the node agent its backends. Reading this module is reading what one
`holdfast up` consists of.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from holdfast.apiserver.inprocess import InProcessClient
from holdfast.apiserver.podstreams import PodRunner, Runners
from holdfast.apiserver.resources import Resources
from holdfast.backends import registry
from holdfast.backends.local.backend import LocalBackend
from holdfast.backends.local.fleet import LocalFleet
from holdfast.backends.protocol import Attacher, Backend, NodeObserver, NodeSide
from holdfast.controllers import (
    attaching,
    binding,
    endpoints,
    ephemeral,
    eviction,
    expanding,
    garbage,
    provisioning,
    snapshots,
)
from holdfast.controllers.capacity import CapacityObjects
from holdfast.controllers.csidrivers import DriverObjects
from holdfast.controllers.discovery import ClassDiscovery
from holdfast.controllers.events_ttl import EventExpiry
from holdfast.controllers.lostnodes import LostNodes
from holdfast.controllers.namespaces import NamespaceDeletion
from holdfast.controllers.nodeagent.agent import NodeAgent
from holdfast.controllers.nodes import NodeLifecycle
from holdfast.controllers.podgc import PodRemoval
from holdfast.controllers.protection import Protection
from holdfast.controllers.provisioners import Provisioners, Served
from holdfast.controllers.quotas import QuotaStatus
from holdfast.controllers.reclaiming import Reclaimer
from holdfast.controllers.scheduling.scheduler import Scheduler
from holdfast.controllers.secrets import SecretReader
from holdfast.controllers.workloads import deployments, replicasets, statefulsets
from holdfast.runtime.client import Client
from holdfast.runtime.informer import Informers
from holdfast.runtime.recorder import Recorder
from holdfast.server import config, machines, systems
from holdfast.server.machines import Machines

Run = Callable[[], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class ControlPlane:
    """Everything that runs beside the API server; each entry runs until cancelled."""

    informers: Informers
    components: tuple[Run, ...]
    runners: Runners
    machines: Machines
    close: Callable[[], Awaitable[None]]


def volumes_directory(data_dir: Path) -> Path:
    """Where the local backend keeps its volumes unless a class says otherwise."""
    return data_dir / "volumes"


def node_names(settings: config.Config) -> tuple[str, ...]:
    """The nodes this machine plays."""
    count = settings.nodes.count or machines.remembered(settings.data_dir).count
    return machines.names(settings.node_name, count)


def control_plane(
    settings: config.Config,
    resources: Resources,
    *,
    extra: Mapping[str, Served] = MappingProxyType({}),
    extra_sides: Mapping[str, NodeSide] = MappingProxyType({}),
) -> ControlPlane:
    """Wire controllers, backends and the node agent to the embedded API.

    `extra` are provisioners besides those of the registry, `extra_sides` their node sides.
    """
    # The names under which components own fields, see managedFields, are those of Kubernetes.
    client = InProcessClient(resources, "kube-controller-manager")
    as_scheduler = client.named("kube-scheduler")
    as_kubelet = client.named("kubelet")
    as_provisioner = client.named("csi-provisioner")
    informers = Informers(client)
    sides: list[systems.NodeSides] = []
    fleet = _machines(settings, as_kubelet, informers, extra_sides, sides)
    local = local_backend(settings.data_dir, tuple(fleet.states), fleet.refusal)
    read = SecretReader(as_provisioner).read
    backends = systems.Backends(settings.data_dir, settings.storage, {"local": local}, read)
    backends.open_configured()
    served = {**backends.served(), **extra}
    provisioners = Provisioners(served, backends.drivers())
    volume_events = Recorder(client, binding.COMPONENT)
    scheduler_events = Recorder(as_scheduler, "default-scheduler")
    node_events = Recorder(client, "node-controller")
    by_provisioner = {
        name: volume_events if entry.in_tree else Recorder(as_provisioner, entry.driver)
        for name, entry in served.items()
    }
    reclaimer = Reclaimer(client, informers, volume_events, provisioners)
    recorders = {volume_events, scheduler_events, node_events, *by_provisioner.values()}
    components: tuple[Run, ...] = (
        *(recorder.run for recorder in recorders),
        binding.Binder(client, informers, volume_events, provisioners, reclaimer).run,
        provisioning.ProvisioningController(
            as_provisioner, informers, by_provisioner, provisioners
        ).run,
        provisioning.Deleter(as_provisioner, informers, by_provisioner, provisioners).run,
        CapacityObjects(as_provisioner, informers, provisioners).run,
        Protection(client, informers).run,
        Scheduler(as_scheduler, informers, scheduler_events).run,
        fleet.run,
        NamespaceDeletion(client, informers, node_events).run,
        EventExpiry(client, informers, node_events).run,
        *_node_loss(client, informers, node_events, settings.nodes.grace_seconds),
        DriverObjects(client, _attach_required(extra)).run,
        _class_discovery(as_provisioner, settings, backends),
        *_workloads(client, informers),
        *_advanced(client, informers, by_provisioner, provisioners),
    )

    async def close() -> None:
        for each in sides:
            await each.close()
        await backends.close()

    return ControlPlane(informers, components, _Reachable(fleet), fleet, close)


def _class_discovery(client: Client, settings: config.Config, backends: systems.Backends) -> Run:
    """What follows the classes that configured storage systems ask for."""
    openers = {kind: backends.opener(kind) for kind in settings.storage}
    return ClassDiscovery(client, openers, registry.DRIVERS).run


def _attach_required(extra: Mapping[str, Served]) -> dict[str, bool]:
    """Return for every CSI driver served whether its volumes are attached first."""
    known = {name: kind in registry.ATTACHING for name, kind in registry.DRIVERS.items()}
    others = {each.driver: isinstance(each.backend, Attacher) for each in extra.values()}
    return {**known, **others}


def _machines(
    settings: config.Config,
    client: Client,
    informers: Informers,
    extra_sides: Mapping[str, NodeSide],
    sides: list[systems.NodeSides],
) -> Machines:
    """The nodes this machine plays, each with an agent and a directory of its own."""

    def build(node: str, link: Client, caches: Informers, recorder: Recorder) -> NodeAgent:
        root = settings.data_dir / "nodes" / node
        made = systems.NodeSides(root, settings.storage, extra_sides, SecretReader(link).read)
        sides.append(made)
        return NodeAgent(
            link,
            caches,
            recorder,
            node_name=node,
            root=root,
            node_sides=made,
            # Containers see the machine's files, but not the keys and data of Holdfast itself.
            hidden=(str(settings.data_dir),),
            # Four renewals have to be missed before a node counts as lost.
            renew_seconds=min(10.0, settings.nodes.grace_seconds / 4),
        )

    return Machines(settings.data_dir, node_names(settings), client, informers, build)


def _node_loss(
    client: Client, informers: Informers, events: Recorder, grace: float
) -> tuple[Run, ...]:
    """What happens when nobody hears from a node for `grace` seconds."""
    eviction_events = Recorder(client, eviction.COMPONENT)
    return (
        eviction_events.run,
        NodeLifecycle(client, informers, events, grace=grace).run,
        eviction.TaintEviction(client, informers, eviction_events).run,
        PodRemoval(client, informers, events, quarantine=min(40.0, grace)).run,
    )


def _workloads(client: Client, informers: Informers) -> tuple[Run, ...]:
    """What keeps a number of pods running."""
    parts = (
        (deployments.Deployments, deployments.COMPONENT),
        (replicasets.ReplicaSets, replicasets.COMPONENT),
        (statefulsets.StatefulSets, statefulsets.COMPONENT),
    )
    made: list[Run] = []
    for component, name in parts:
        events = Recorder(client, name)
        made += [events.run, component(client, informers, events).run]
    return tuple(made)


def _advanced(
    client: InProcessClient,
    informers: Informers,
    by_provisioner: dict[str, Recorder],
    provisioners: Provisioners,
) -> tuple[Run, ...]:
    """What volumes can do beyond being made, bound and deleted."""
    expand_events = Recorder(client, expanding.COMPONENT)
    snapshot_events = Recorder(client, snapshots.COMPONENT)
    attach_events = Recorder(client, attaching.COMPONENT)
    ephemeral_events = Recorder(client, ephemeral.COMPONENT)
    garbage_events = Recorder(client, garbage.COMPONENT)
    endpoints_events = Recorder(client, endpoints.COMPONENT)
    expander = expanding.ExpandController(
        client, informers, expand_events, by_provisioner, provisioners
    )
    attacher = attaching.AttachmentServer(client, informers, provisioners)
    return (
        expand_events.run,
        snapshot_events.run,
        attach_events.run,
        ephemeral_events.run,
        garbage_events.run,
        endpoints_events.run,
        expander.run,
        endpoints.VolumeEndpoints(client, informers, endpoints_events, provisioners).run,
        provisioning.CloneProtection(client, informers).run,
        snapshots.SnapshotController(client, informers, snapshot_events, provisioners).run,
        snapshots.ContentController(client, informers, by_provisioner, provisioners).run,
        attaching.AttachDetachController(
            client,
            informers,
            attach_events,
            observed=lambda driver: isinstance(provisioners.behind(driver), NodeObserver),
        ).run,
        LostNodes(client, informers, attach_events, provisioners).run,
        attacher.run,
        attaching.Comparison(informers, provisioners, attacher).run,
        QuotaStatus(client, informers).run,
        ephemeral.EphemeralClaims(client, informers, ephemeral_events).run,
        garbage.GarbageCollector(client, informers, garbage_events).run,
    )


class _Reachable(Mapping[str, PodRunner]):
    """What runs containers on each node that can be reached now, for logs and exec."""

    def __init__(self, fleet: Machines) -> None:
        self._fleet = fleet

    def __getitem__(self, name: str) -> PodRunner:
        agent = self._fleet.agent(name)
        if not isinstance(agent, NodeAgent):
            raise KeyError(name)
        return agent.runner()

    def __iter__(self) -> Iterator[str]:
        return (name for name in self._fleet.states if self._fleet.agent(name) is not None)

    def __len__(self) -> int:
        return sum(1 for _ in self)


def local_backend(data_dir: Path, nodes: tuple[str, ...], refusal: Callable[[str], str]) -> Backend:
    """Make the local backend of one node, or that of several with a directory for each."""
    first, *others = nodes
    backend = LocalBackend(volumes_directory(data_dir), first)
    if not others:
        return backend
    members = {first: backend}
    for name in others:
        root = data_dir / "nodes" / name / "volumes"
        members[name] = LocalBackend(root, name, suffix=f".{name}")
    return LocalFleet(members, refusal)
