"""From a pod's volume entries to orders: what exactly is to be mounted, and how.

An order is complete: carrying it out needs no further look at the API. Resolving one
follows the claim to its volume and the volume to the part of the backend that runs on
this node, checking at each step what a kubelet checks. What cannot be mounted here is
an `Unmountable` whose text becomes the pod's FailedMount event.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from holdfast.api import errors, kinds, quantity, views
from holdfast.backends import protocol, registry
from holdfast.backends.local import legacy
from holdfast.backends.secretrefs import SecretRef
from holdfast.controllers.nodeagent import content
from holdfast.runtime.client import Client
from holdfast.runtime.informer import Informers

LOCAL = "local"
HOST_PATH = "kubernetes.io~host-path"
# Directories that are not named after the source.
_PLUGINS = {
    "csi": "kubernetes.io~csi",
    "hostPath": HOST_PATH,
    "local": "kubernetes.io~local-volume",
    "vsphereVolume": "kubernetes.io~vsphere-volume",
}
# Sources whose files are nobody's to give to a pod's group: a host's, or those of a shared server.
_OWNED = frozenset({"glusterfs", "hostPath", "nfs"})
# Sources whose backend opens a volume differently for readers.
_TOLD = frozenset({"csi", "rbd"})

# What this node would need for a source that no backend here serves.
NEEDS = {
    "awsElasticBlockStore": "EBS volumes exist only on AWS; its driver ebs.csi.aws.com is needed",
    "azureDisk": "Azure disks exist only on Azure; the csi driver disk.csi.azure.com is needed",
    "azureFile": "the csi driver file.csi.azure.com is needed",
    "cephfs": "a Ceph backend on this node is needed",
    "cinder": "a Cinder backend on this node is needed",
    "gcePersistentDisk": "Google disks exist only on Google Cloud; pd.csi.storage.gke.io is needed",
    "glusterfs": "a Gluster backend on this node is needed",
    "iscsi": "an iSCSI initiator (package open-iscsi) on this node is needed",
    "nfs": "an NFS backend and its client (mount.nfs, package nfs-common) on this node are needed",
    "rbd": "a Ceph RBD backend and its client (rbd, package ceph-common) on this node are needed",
    "vsphereVolume": "a vSphere backend on this node is needed",
}


class Unmountable(Exception):
    """The volume cannot be mounted now; the text is the reason shown to users.

    `title` names the persistent volume, where it is known.
    """

    def __init__(self, why: str, title: str = "") -> None:
        super().__init__(why)
        self.title = title


@dataclass(frozen=True, slots=True)
class Order:
    """One volume of one pod. `title` names it in events, `plugin`/`name` on disk."""

    entry: str
    plugin: str
    name: str
    title: str
    read_only: bool = False
    group: int | None = None
    group_policy: str = ""
    label: str = ""

    @property
    def shown(self) -> str:
        """The volume's name in events."""
        return self.label or self.title


@dataclass(frozen=True, slots=True, kw_only=True)
class BackendOrder(Order):
    """What a backend's node side connects: a persistent volume, or a path given `inline`.

    `secret` is where the node's secret for the volume is; it is read when it is carried out.
    """

    side: str = LOCAL
    handle: protocol.VolumeHandle
    options: tuple[str, ...] = ()
    inline: bool = False
    # The CSI driver, for volumes that are attached first; then what attaching returned.
    driver: str = ""
    context: Mapping[str, str] = field(default_factory=dict)
    exclusive: bool = False
    secret: SecretRef | None = None
    # Namespace and name of the Endpoints that say where it is served.
    endpoints: tuple[str, str] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class EmptyDirOrder(Order):
    """A directory that lives as long as the pod; in memory when asked, `size` in bytes."""

    memory: bool = False
    size: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ContentOrder(Order):
    """Files made from API objects."""

    files: Mapping[str, content.File]
    secret: bool = False


class Resolver:
    """Turns entries into orders; reads claims and volumes from the caches."""

    def __init__(
        self, client: Client, informers: Informers, sides: Mapping[str, protocol.NodeSide]
    ) -> None:
        self._client = client
        self._claims = informers.of(kinds.CLAIM)
        self._volumes = informers.of(kinds.VOLUME)
        self._sides = sides

    async def resolve(
        self, obj: Mapping[str, Any], pod: views.Pod, entry: views.PodVolume
    ) -> Order:
        """Return the order for one entry; raises Unmountable."""
        group = pod.spec.security_context.fs_group
        if entry.persistent_volume_claim is not None or entry.ephemeral is not None:
            return await self._addressed(self._persistent(pod, entry))
        if entry.empty_dir is not None:
            return _empty_dir(entry.name, entry.empty_dir, group)
        if entry.host_path is not None:
            return self._host_path(entry.name, entry.host_path)
        source, fields = _written(obj, entry.name)
        if source in registry.SOURCES:
            return await self._addressed(self._inline(pod, entry.name, source, fields))
        try:
            files = await content.of_entry(self._client, obj, entry)
        except content.ContentError as error:
            raise Unmountable(str(error)) from error
        if files is None:
            raise _unsupported(obj, entry.name)
        plugin = _content_plugin(entry)
        secret = entry.secret is not None or entry.projected is not None
        return ContentOrder(
            entry.name, plugin, entry.name, entry.name, group=group, files=files, secret=secret
        )

    async def _addressed(self, order: BackendOrder) -> BackendOrder:
        """Add the servers' addresses, as the Endpoints have them now."""
        if order.endpoints is None:
            return order
        namespace, name = order.endpoints
        where = f'endpoints "{namespace}/{name}"'
        try:
            found = await self._client.get(kinds.ENDPOINTS, name, namespace)
        except errors.NotFound as error:
            raise Unmountable(
                f"{where} not found: they list the servers of the volume", order.title
            ) from error
        subsets = found.get("subsets") or ()
        hosts = [a["ip"] for subset in subsets for a in subset.get("addresses") or ()]
        if not hosts:
            raise Unmountable(f"{where} have no address of a server", order.title)
        context = {**order.handle.context, "hosts": ",".join(hosts)}
        context["endpoints"] = f"{namespace}/{name}"
        return dataclasses.replace(order, handle=dataclasses.replace(order.handle, context=context))

    def _persistent(self, pod: views.Pod, entry: views.PodVolume) -> BackendOrder:
        claim = self._claim(pod, entry)
        obj = self._volumes.get(claim.spec.volume_name)
        if obj is None:
            raise Unmountable(f'persistentvolume "{claim.spec.volume_name}" not found')
        volume = views.volume(obj)
        reference = volume.spec.claim_ref
        if reference is None or reference.uid != claim.metadata.uid:
            raise Unmountable(
                f'persistentvolume "{volume.metadata.name}" is not bound to the claim '
                f'"{claim.metadata.namespace}/{claim.metadata.name}"',
                volume.metadata.name,
            )
        _check_mode(pod, entry.name, volume.spec.volume_mode)
        return self._volume_order(pod, entry, volume, obj)

    def _claim(self, pod: views.Pod, entry: views.PodVolume) -> views.Claim:
        namespace = pod.metadata.namespace
        name = next(name for other, name in views.claims_of(pod) if other.name == entry.name)
        obj = self._claims.get(name, namespace)
        if obj is None:
            raise Unmountable(f'persistentvolumeclaim "{name}" not found')
        claim = views.claim(obj)
        if entry.ephemeral is not None and not views.owned_by(claim.metadata, pod.metadata.uid):
            raise Unmountable(
                f"PVC {namespace}/{name} was not created for pod "
                f"{namespace}/{pod.metadata.name} (pod is not owner)"
            )
        if claim.metadata.terminating:
            raise Unmountable(f"error processing PVC {namespace}/{name}: PVC is being deleted")
        if not claim.bound:
            raise Unmountable(f"error processing PVC {namespace}/{name}: PVC is not bound")
        return claim

    def _volume_order(
        self,
        pod: views.Pod,
        entry: views.PodVolume,
        volume: views.Volume,
        obj: Mapping[str, Any],
    ) -> BackendOrder:
        name, (source, fields) = volume.metadata.name, volume.spec.source()
        claim_source = entry.persistent_volume_claim
        read_only = claim_source is not None and claim_source.read_only
        security = pod.spec.security_context
        found = registry.handle_of(obj["spec"], volume.metadata.annotations)
        if found is None or (source == "csi" and found[0] not in self._sides):
            raise Unmountable(_no_backend(source, fields), name)
        side, handle = found
        self._require(side, name)
        options = tuple(views.mount_options(volume))
        if side != LOCAL:
            # As a kubelet tells CSI drivers: what only readers may have is not opened for writing.
            readers = source in _TOLD and volume.spec.access_modes == ["ReadOnlyMany"]
            handle = dataclasses.replace(
                handle, options=options, read_only=handle.read_only or readers
            )
        group = security.fs_group if source not in _OWNED else None
        return BackendOrder(
            entry.name,
            _plugin(source),
            name,
            name,
            read_only=read_only or handle.read_only,
            group=group,
            group_policy=security.fs_group_change_policy,
            side=side,
            handle=handle,
            options=options,
            driver=registry.driver_of(obj["spec"]),
            secret=registry.node_secret(obj["spec"], pod.metadata.namespace),
            exclusive=volume.spec.access_modes == ["ReadWriteOncePod"],
            endpoints=registry.endpoints_of(obj["spec"], pod.metadata.namespace),
        )

    def _host_path(self, name: str, source: Mapping[str, Any]) -> Order:
        self._require(LOCAL, name)
        handle = legacy.inline_handle({"hostPath": source})
        assert handle is not None
        return BackendOrder(name, HOST_PATH, name, name, handle=handle, inline=True)

    def _inline(
        self, pod: views.Pod, entry: str, source: str, fields: Mapping[str, Any]
    ) -> BackendOrder:
        """Order a storage system's volume that the pod itself names, without a claim."""
        spec = {source: fields}
        found = registry.handle_of(spec)
        if found is None:
            raise Unmountable(_no_backend(source, fields))
        side, handle = found
        self._require(side, entry)
        # Pods that name the same volume share it on the node.
        endpoints = registry.endpoints_of(spec, pod.metadata.namespace)
        named = "/".join((handle.id, *(endpoints or ())))
        digest = hashlib.sha256(named.encode()).hexdigest()[:20]
        return BackendOrder(
            entry,
            _plugin(source),
            entry,
            f"{source.lower()}-{digest}",
            label=entry,
            read_only=handle.read_only,
            group=pod.spec.security_context.fs_group if source not in _OWNED else None,
            group_policy=pod.spec.security_context.fs_group_change_policy,
            side=side,
            handle=handle,
            driver=registry.driver_of(spec),
            secret=registry.node_secret(spec, pod.metadata.namespace),
            endpoints=endpoints,
        )

    def _require(self, side: str, name: str) -> None:
        if side not in self._sides:
            raise Unmountable(f"it is of the {side} backend, which this node lacks", name)


def _empty_dir(name: str, source: Mapping[str, Any], group: int | None) -> EmptyDirOrder:
    limit = source.get("sizeLimit")
    return EmptyDirOrder(
        name,
        "kubernetes.io~empty-dir",
        name,
        name,
        group=group,
        memory=source.get("medium") == "Memory",
        size=quantity.parse(limit).bytes() if limit else None,
    )


def _content_plugin(entry: views.PodVolume) -> str:
    if entry.config_map is not None:
        return "kubernetes.io~configmap"
    if entry.secret is not None:
        return "kubernetes.io~secret"
    return (
        "kubernetes.io~projected" if entry.projected is not None else "kubernetes.io~downward-api"
    )


def _check_mode(pod: views.Pod, entry: str, mode: str) -> None:
    """Refuse a raw device that is mounted, and a file system that is used as a device."""
    containers = (*pod.spec.init_containers, *pod.spec.containers)
    mounted = any(mount.name == entry for c in containers for mount in c.volume_mounts)
    raw = any(device.name == entry for c in containers for device in c.volume_devices)
    if mode == "Block" and mounted:
        raise Unmountable(f"volume {entry} has volumeMode Block, but is specified in volumeMounts")
    if mode != "Block" and raw:
        raise Unmountable(
            f"volume {entry} has volumeMode Filesystem, but is specified in volumeDevices"
        )


def _plugin(source: str) -> str:
    """Return the directory of a source's volumes beneath a pod's, as a kubelet names it."""
    return _PLUGINS.get(source, f"kubernetes.io~{source}")


def _written(obj: Mapping[str, Any], entry: str) -> tuple[str, Mapping[str, Any]]:
    """Return the kind of a pod's volume as it was written, and its fields."""
    volumes = obj.get("spec", {}).get("volumes") or ()
    fields = next((dict(volume) for volume in volumes if volume.get("name") == entry), {})
    source = next((key for key in fields if key != "name"), "")
    return source, fields.get(source) or {}


def _no_backend(source: str, fields: Mapping[str, Any]) -> str:
    if source == "csi":
        driver = fields.get("driver", "")
        return f"driver name {driver} not found in the list of registered CSI drivers"
    need = NEEDS.get(source, "a backend for it on this node is needed")
    return f"{source or 'this kind of'} volumes cannot be mounted on this node: {need}"


def _unsupported(obj: Mapping[str, Any], entry: str) -> Unmountable:
    """Explain an entry of a kind that is not served, naming the kind as it was written."""
    return Unmountable(_no_backend(*_written(obj, entry)))
