"""The composition root: from a configuration to the objects that run, wired once, in one place.

Nothing below this package chooses what it talks to; here the API server gets its store, the
controllers their client, the node agent its backends. Reading this module is reading what one
`holdfast up` consists of.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from holdfast.apiserver.inprocess import InProcessClient
from holdfast.apiserver.podstreams import Runners
from holdfast.apiserver.resources import Resources
from holdfast.backends import registry
from holdfast.backends.local.backend import LocalBackend
from holdfast.backends.local.node_side import LocalNodeSide
from holdfast.backends.protocol import NodeSide
from holdfast.controllers import (
    attaching,
    binding,
    ephemeral,
    expanding,
    garbage,
    provisioning,
    snapshots,
)
from holdfast.controllers.events_ttl import EventExpiry
from holdfast.controllers.namespaces import NamespaceDeletion
from holdfast.controllers.nodeagent.agent import NodeAgent
from holdfast.controllers.nodes import NodeLifecycle
from holdfast.controllers.protection import Protection
from holdfast.controllers.provisioners import Provisioners, Served
from holdfast.controllers.quotas import QuotaStatus
from holdfast.controllers.reclaiming import Reclaimer
from holdfast.controllers.scheduling.scheduler import Scheduler
from holdfast.runtime.informer import Informers
from holdfast.runtime.recorder import Recorder
from holdfast.server import config

Run = Callable[[], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class ControlPlane:
    """Everything that runs beside the API server; each entry runs until cancelled."""

    informers: Informers
    components: tuple[Run, ...]
    runners: Runners
    close: Callable[[], Awaitable[None]]


def volumes_directory(data_dir: Path) -> Path:
    """Where the local backend keeps its volumes unless a class says otherwise."""
    return data_dir / "volumes"


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
    node = settings.node_name
    local = LocalBackend(volumes_directory(settings.data_dir), node)
    served = {
        name: Served(entry, local)
        for name, entry in registry.PROVISIONERS.items()
        if entry.backend == "local"
    }
    served |= extra
    provisioners = Provisioners(served)
    volume_events = Recorder(client, binding.COMPONENT)
    scheduler_events = Recorder(as_scheduler, "default-scheduler")
    kubelet_events = Recorder(as_kubelet, "kubelet", node)
    node_events = Recorder(client, "node-controller")
    by_provisioner = {
        name: volume_events if entry.in_tree else Recorder(as_provisioner, name)
        for name, entry in served.items()
    }
    reclaimer = Reclaimer(client, informers, volume_events, provisioners)
    recorders = {
        volume_events,
        scheduler_events,
        kubelet_events,
        node_events,
        *by_provisioner.values(),
    }
    agent = NodeAgent(
        as_kubelet,
        informers,
        kubelet_events,
        node_name=node,
        root=settings.data_dir / "nodes" / node,
        node_sides={"local": LocalNodeSide(), **extra_sides},
        # Containers see the machine's files, but not the keys and data of Holdfast itself.
        hidden=(str(settings.data_dir),),
    )
    components: tuple[Run, ...] = (
        *(recorder.run for recorder in recorders),
        binding.Binder(client, informers, volume_events, provisioners, reclaimer).run,
        provisioning.ProvisioningController(
            as_provisioner, informers, by_provisioner, provisioners
        ).run,
        provisioning.Deleter(as_provisioner, informers, by_provisioner, provisioners).run,
        Protection(client, informers).run,
        Scheduler(as_scheduler, informers, scheduler_events).run,
        agent.run,
        NamespaceDeletion(client, informers, node_events).run,
        EventExpiry(client, informers, node_events).run,
        NodeLifecycle(client, informers, node_events).run,
        *_advanced(client, informers, by_provisioner, provisioners),
    )
    return ControlPlane(informers, components, {node: agent.runner()}, local.close)


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
    expander = expanding.ExpandController(
        client, informers, expand_events, by_provisioner, provisioners
    )
    return (
        expand_events.run,
        snapshot_events.run,
        attach_events.run,
        ephemeral_events.run,
        garbage_events.run,
        expander.run,
        provisioning.CloneProtection(client, informers).run,
        snapshots.SnapshotController(client, informers, snapshot_events, provisioners).run,
        snapshots.ContentController(client, informers, by_provisioner, provisioners).run,
        attaching.AttachDetachController(client, informers, attach_events).run,
        attaching.AttachmentServer(client, informers, provisioners).run,
        QuotaStatus(client, informers).run,
        ephemeral.EphemeralClaims(client, informers, ephemeral_events).run,
        garbage.GarbageCollector(client, informers, garbage_events).run,
    )
