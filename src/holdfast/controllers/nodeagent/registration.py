"""The node's own objects: Node, Lease and CSINode.

The Node is created once and then only corrected: labels that others put on it, and
its taints, stay. The Lease in `kube-node-lease` is renewed every ten seconds and is
all that a healthy node writes; its status is written when it changes. After an outage
the node life cycle has set the conditions to Unknown, and the agent sets them back.

The invariant: an idle node writes nothing but its lease.
"""

from __future__ import annotations

import asyncio
import logging
import os
import platform
import shutil
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import holdfast
from holdfast.api import errors, kinds
from holdfast.controllers import conditions
from holdfast.kit import clock
from holdfast.runtime.client import Client
from holdfast.runtime.informer import Informers

log = logging.getLogger("holdfast.controllers")

LEASES = "kube-node-lease"
LEASE_SECONDS = 40
RENEW_SECONDS = 10.0
MAX_PODS = 1024
ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64", "armv7l": "arm"}

# type, reason, message of the conditions a healthy node shows.
HEALTHY = (
    ("MemoryPressure", "False", "KubeletHasSufficientMemory", "kubelet has sufficient memory"),
    ("DiskPressure", "False", "KubeletHasNoDiskPressure", "kubelet has no disk pressure"),
    ("PIDPressure", "False", "KubeletHasSufficientPID", "kubelet has sufficient PID available"),
    ("Ready", "True", "KubeletReady", "kubelet is posting ready status"),
)


class Registration:
    """Keeps the node's objects as they should be."""

    def __init__(
        self,
        client: Client,
        informers: Informers,
        node: str,
        root: Path,
        *,
        renew_seconds: float = RENEW_SECONDS,
    ) -> None:
        self._renew_seconds = renew_seconds
        self._client = client
        self._nodes = informers.of(kinds.NODE)
        self._node = node
        self._root = root
        self._machine = machine_facts()
        self._wake = asyncio.Event()
        self._nodes.subscribe(self._changed)

    @property
    def address(self) -> str:
        """The address that pods report as their hostIP."""
        return str(self._machine["address"])

    async def register(self) -> None:
        """Make the objects exist and be right, trying until that is done."""
        delay = 1.0
        while True:
            try:
                await self._ensure_csi_node(await self._upsert_node())
                await self._renew()
                return
            except errors.StatusError as error:
                # A full disk, for one, refuses writes; volumes are not left alone for that.
                log.warning("node not registered", extra={"node": self._node, "error": str(error)})
                await asyncio.sleep(delay)
                delay = min(2 * delay, RENEW_SECONDS)

    async def run(self) -> None:
        """Renew the lease and repair the node's conditions until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._keep_lease())
            group.create_task(self._keep_node())

    async def _keep_lease(self) -> None:
        while True:
            try:
                await self._renew()
            except errors.StatusError as error:
                log.warning("lease not renewed", extra={"node": self._node, "error": str(error)})
            await asyncio.sleep(self._renew_seconds)

    async def _keep_node(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            try:
                await self._upsert_node()
            except errors.StatusError as error:
                log.warning("node not updated", extra={"node": self._node, "error": str(error)})
                await asyncio.sleep(1.0)
                self._wake.set()

    def _changed(self, old: dict[str, Any] | None, new: dict[str, Any] | None) -> None:
        obj = new if new is not None else old
        if obj is None or obj["metadata"]["name"] != self._node:
            return
        if new is None or _healthy_conditions(new) is not None:
            self._wake.set()

    async def _upsert_node(self) -> dict[str, Any]:
        try:
            obj = await self._client.get(kinds.NODE, self._node)
        except errors.NotFound:
            obj = await self._create_node()
        labels, annotations = node_labels(self._node), node_annotations()
        meta = obj["metadata"]
        have = meta.get("labels") or {}, meta.get("annotations") or {}
        if not (labels.items() <= have[0].items() and annotations.items() <= have[1].items()):
            patch = {"metadata": {"labels": labels, "annotations": annotations}}
            obj = await self._client.patch(kinds.NODE, self._node, patch)
        return await self._update_status(obj)

    async def _create_node(self) -> dict[str, Any]:
        body = {
            "apiVersion": "v1",
            "kind": "Node",
            "metadata": {
                "name": self._node,
                "labels": node_labels(self._node),
                "annotations": node_annotations(),
            },
            "status": self._status(),
        }
        try:
            return await self._client.create(kinds.NODE, body)
        except errors.AlreadyExists:
            return await self._client.get(kinds.NODE, self._node)

    async def _update_status(self, obj: dict[str, Any]) -> dict[str, Any]:
        current: Mapping[str, Any] = obj.get("status") or {}
        wanted = self._status()
        changed = {key: value for key, value in wanted.items() if current.get(key) != value}
        repaired = _healthy_conditions(obj)
        if repaired is not None:
            changed["conditions"] = repaired
        if changed:
            version = obj["metadata"]["resourceVersion"]
            patch = {"metadata": {"resourceVersion": version}, "status": changed}
            obj = await self._client.patch(kinds.NODE, self._node, patch, subresource="status")
        self._nodes.observe(obj)
        return obj

    def _status(self) -> dict[str, Any]:
        """Return the parts of the node's status that only the agent writes."""
        facts = self._machine
        capacity = {
            "cpu": str(facts["cpus"]),
            "memory": f"{facts['memory'] // 1024}Ki",
            "ephemeral-storage": f"{shutil.disk_usage(_existing(self._root)).total // 1024}Ki",
            "pods": str(MAX_PODS),
        }
        return {
            "capacity": capacity,
            "allocatable": capacity,
            "addresses": [
                {"type": "InternalIP", "address": facts["address"]},
                {"type": "Hostname", "address": self._node},
            ],
            "nodeInfo": facts["info"],
        }

    async def _renew(self) -> None:
        spec = {
            "holderIdentity": self._node,
            "leaseDurationSeconds": LEASE_SECONDS,
            "renewTime": clock.rfc3339_micro(clock.now()),
        }
        try:
            await self._client.patch(kinds.LEASE, self._node, {"spec": spec}, LEASES)
            return
        except errors.NotFound:
            pass
        lease = {
            "apiVersion": "coordination.k8s.io/v1",
            "kind": "Lease",
            "metadata": {"name": self._node, "namespace": LEASES},
            "spec": spec,
        }
        try:
            await self._client.create(kinds.LEASE, lease, LEASES)
        except errors.NotFound:
            # The namespace is missing on a control plane that has just been made.
            body = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": LEASES}}
            await self._client.create(kinds.NAMESPACE, body)
            await self._client.create(kinds.LEASE, lease, LEASES)

    async def _ensure_csi_node(self, node: Mapping[str, Any]) -> None:
        owner = {
            "apiVersion": "v1",
            "kind": "Node",
            "name": self._node,
            "uid": node["metadata"]["uid"],
        }
        body = {
            "apiVersion": "storage.k8s.io/v1",
            "kind": "CSINode",
            "metadata": {"name": self._node, "ownerReferences": [owner]},
            "spec": {"drivers": []},
        }
        try:
            await self._client.create(kinds.CSI_NODE, body)
        except errors.AlreadyExists:
            pass


def node_labels(name: str) -> dict[str, str]:
    """Return the labels every node carries; volumes' node affinity refers to the first."""
    arch = ARCHITECTURES.get(platform.machine(), platform.machine())
    return {
        "kubernetes.io/hostname": name,
        "kubernetes.io/os": "linux",
        "kubernetes.io/arch": arch,
        "beta.kubernetes.io/os": "linux",
        "beta.kubernetes.io/arch": arch,
    }


def node_annotations() -> dict[str, str]:
    return {"volumes.kubernetes.io/controller-managed-attach-detach": "true"}


def machine_facts() -> dict[str, Any]:
    """Read what the node reports about its machine; constant while the agent runs."""
    system = platform.uname()
    version = f"v{holdfast.__version__}+holdfast"
    return {
        "cpus": os.cpu_count() or 1,
        "memory": os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"),
        "address": _address(),
        "info": {
            "machineID": _read(Path("/etc/machine-id")),
            "systemUUID": _read(Path("/sys/class/dmi/id/product_uuid")),
            "bootID": _read(Path("/proc/sys/kernel/random/boot_id")),
            "kernelVersion": system.release,
            "osImage": _os_image(),
            "containerRuntimeVersion": f"holdfast://{holdfast.__version__}",
            "kubeletVersion": version,
            "kubeProxyVersion": version,
            "operatingSystem": "linux",
            "architecture": ARCHITECTURES.get(system.machine, system.machine),
        },
    }


def _healthy_conditions(obj: Mapping[str, Any]) -> list[dict[str, Any]] | None:
    """Return the node's conditions with ours healthy, or None when they are already."""
    existing: list[dict[str, Any]] = list(obj.get("status", {}).get("conditions") or ())
    ours = [
        conditions.condition(existing, type, status, reason=reason, message=message)
        for type, status, reason, message in HEALTHY
    ]
    if all(any(_covers(entry, mine) for entry in existing) for mine in ours):
        return None
    now = clock.rfc3339(clock.now())
    types = {entry["type"] for entry in ours}
    others = [entry for entry in existing if entry["type"] not in types]
    return [*others, *({**entry, "lastHeartbeatTime": now} for entry in ours)]


def _covers(entry: Mapping[str, Any], wanted: Mapping[str, Any]) -> bool:
    return all(entry.get(key) == wanted[key] for key in ("type", "status", "reason"))


def _address() -> str:
    """Return this machine's address on the route to the outside; nothing is sent."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))
            return str(probe.getsockname()[0])
        except OSError:
            return "127.0.0.1"


def _os_image() -> str:
    try:
        return platform.freedesktop_os_release().get("PRETTY_NAME", "Linux")
    except OSError:
        return "Linux"


def _read(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""


def _existing(path: Path) -> Path:
    return next(parent for parent in (path, *path.parents) if parent.exists())
