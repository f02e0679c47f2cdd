"""Frozen, typed views of the objects controllers read.

Objects travel as plain dicts so that fields nobody here knows survive. A
controller turns such a dict into a view to read it (``views.claim(obj)``), and
changes the object only through patches. A view holds the fields some controller
reads and ignores all others; a missing field has the value Go would give it, so
readers need no ``get`` chains.

The invariant: a view is a snapshot. It is never written back, and the dicts and
lists inside it are not changed by anyone.

Names are Kubernetes' field names in snake case. Sources of volumes stay plain
dicts: each is read only by the code that serves that kind of storage.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import msgspec

BETA_CLASS = "volume.beta.kubernetes.io/storage-class"
BETA_MOUNT_OPTIONS = "volume.beta.kubernetes.io/mount-options"
BIND_COMPLETED = "pv.kubernetes.io/bind-completed"
BOUND_BY_CONTROLLER = "pv.kubernetes.io/bound-by-controller"
PROVISIONED_BY = "pv.kubernetes.io/provisioned-by"
SELECTED_NODE = "volume.kubernetes.io/selected-node"
STORAGE_PROVISIONER = "volume.kubernetes.io/storage-provisioner"
BETA_STORAGE_PROVISIONER = "volume.beta.kubernetes.io/storage-provisioner"
DEFAULT_CLASS = "storageclass.kubernetes.io/is-default-class"
BETA_DEFAULT_CLASS = "storageclass.beta.kubernetes.io/is-default-class"

FINISHED = frozenset({"Succeeded", "Failed"})
# The taint by which somebody who knows says that a node that does not answer is off.
OUT_OF_SERVICE = "node.kubernetes.io/out-of-service"

Fields = dict[str, Any]


class View(msgspec.Struct, frozen=True, rename="camel", gc=False):
    """What all views share: frozen, wire names in camel case, unknown fields ignored."""


class OwnerReference(View, frozen=True):
    api_version: str = ""
    kind: str = ""
    name: str = ""
    uid: str = ""
    controller: bool = False


class Meta(View, frozen=True):
    """The part of metadata that controllers read; times are the wire's RFC 3339 text."""

    name: str = ""
    namespace: str = ""
    uid: str = ""
    resource_version: str = ""
    generate_name: str = ""
    labels: dict[str, str] = {}
    annotations: dict[str, str] = {}
    finalizers: list[str] = []
    deletion_timestamp: str | None = None
    deletion_grace_period_seconds: int | None = None
    creation_timestamp: str | None = None
    owner_references: list[OwnerReference] = []

    @property
    def terminating(self) -> bool:
        return self.deletion_timestamp is not None

    @property
    def key(self) -> tuple[str, str]:
        """(namespace, name); the namespace of a cluster-scoped object is ""."""
        return (self.namespace, self.name)


class Reference(View, frozen=True):
    """An ObjectReference, as in a volume's claimRef or an event's involvedObject."""

    api_version: str = ""
    kind: str = ""
    namespace: str = ""
    name: str = ""
    uid: str = ""
    resource_version: str = ""


class TypedReference(View, frozen=True):
    """A claim's dataSource or dataSourceRef; a Go server writes null for the core group."""

    api_group: str | None = None
    kind: str = ""
    name: str = ""
    namespace: str = ""


class Condition(View, frozen=True):
    type: str = ""
    status: str = ""
    reason: str = ""
    message: str = ""
    last_transition_time: str | None = None
    last_heartbeat_time: str | None = None
    last_probe_time: str | None = None


# --- persistentvolumeclaims ---------------------------------------------------


class Resources(View, frozen=True):
    requests: dict[str, str] = {}
    limits: dict[str, str] = {}


class ClaimSpec(View, frozen=True):
    access_modes: list[str] = []
    resources: Resources = Resources()
    selector: Fields | None = None
    storage_class_name: str | None = None
    volume_mode: str = "Filesystem"
    volume_name: str = ""
    data_source: TypedReference | None = None
    data_source_ref: TypedReference | None = None
    volume_attributes_class_name: str | None = None

    @property
    def request(self) -> str:
        """The storage asked for, as written (a quantity), or ""."""
        return self.resources.requests.get("storage", "")


class ClaimStatus(View, frozen=True):
    phase: str = ""
    access_modes: list[str] = []
    capacity: dict[str, str] = {}
    conditions: list[Condition] = []
    allocated_resources: dict[str, str] = {}
    allocated_resource_statuses: dict[str, str] = {}


class Claim(View, frozen=True):
    metadata: Meta
    spec: ClaimSpec = ClaimSpec()
    status: ClaimStatus = ClaimStatus()

    @property
    def bound(self) -> bool:
        """Both sides of the binding are written: the claim may be used."""
        return bool(self.spec.volume_name) and BIND_COMPLETED in self.metadata.annotations


# --- persistentvolumes --------------------------------------------------------


class VolumeNodeAffinity(View, frozen=True):
    required: Fields | None = None


class VolumeSpec(View, frozen=True):
    """A volume's spec; exactly one of the source fields is set (see ``source``)."""

    capacity: dict[str, str] = {}
    access_modes: list[str] = []
    claim_ref: Reference | None = None
    persistent_volume_reclaim_policy: str = "Retain"
    storage_class_name: str = ""
    mount_options: list[str] = []
    volume_mode: str = "Filesystem"
    node_affinity: VolumeNodeAffinity | None = None
    volume_attributes_class_name: str | None = None
    aws_elastic_block_store: Fields | None = None
    azure_disk: Fields | None = None
    azure_file: Fields | None = None
    cephfs: Fields | None = None
    cinder: Fields | None = None
    csi: Fields | None = None
    fc: Fields | None = None
    flex_volume: Fields | None = None
    flocker: Fields | None = None
    gce_persistent_disk: Fields | None = None
    glusterfs: Fields | None = None
    host_path: Fields | None = None
    iscsi: Fields | None = None
    local: Fields | None = None
    nfs: Fields | None = None
    photon_persistent_disk: Fields | None = None
    portworx_volume: Fields | None = None
    quobyte: Fields | None = None
    rbd: Fields | None = None
    scale_io: Fields | None = msgspec.field(name="scaleIO", default=None)
    storageos: Fields | None = None
    vsphere_volume: Fields | None = None

    @property
    def size(self) -> str:
        """The storage capacity as written (a quantity), or ""."""
        return self.capacity.get("storage", "")

    def source(self) -> tuple[str, Fields]:
        """Return (wire name of the source, its fields), or ("", {}) when there is none."""
        for attribute, wire in _SOURCES:
            fields: Fields | None = getattr(self, attribute)
            if fields is not None:
                return wire, fields
        return "", {}


class VolumeStatus(View, frozen=True):
    phase: str = ""
    message: str = ""
    reason: str = ""
    last_phase_transition_time: str | None = None


class Volume(View, frozen=True):
    metadata: Meta
    spec: VolumeSpec = VolumeSpec()
    status: VolumeStatus = VolumeStatus()


# --- storageclasses -----------------------------------------------------------


class StorageClass(View, frozen=True):
    metadata: Meta
    provisioner: str = ""
    parameters: dict[str, str] = {}
    reclaim_policy: str = "Delete"
    volume_binding_mode: str = "Immediate"
    allow_volume_expansion: bool = False
    mount_options: list[str] = []
    allowed_topologies: list[Fields] = []

    @property
    def delays_binding(self) -> bool:
        return self.volume_binding_mode == "WaitForFirstConsumer"


# --- pods ---------------------------------------------------------------------


class ClaimSource(View, frozen=True):
    claim_name: str = ""
    read_only: bool = False


class PodVolume(View, frozen=True):
    """One entry of a pod's spec.volumes; sources other than a claim stay dicts."""

    name: str = ""
    persistent_volume_claim: ClaimSource | None = None
    ephemeral: Fields | None = None
    empty_dir: Fields | None = None
    host_path: Fields | None = None
    config_map: Fields | None = None
    secret: Fields | None = None
    projected: Fields | None = None
    downward_api: Fields | None = msgspec.field(name="downwardAPI", default=None)
    csi: Fields | None = None
    nfs: Fields | None = None
    glusterfs: Fields | None = None
    rbd: Fields | None = None
    cephfs: Fields | None = None
    cinder: Fields | None = None
    iscsi: Fields | None = None
    vsphere_volume: Fields | None = None


class VolumeMount(View, frozen=True):
    name: str = ""
    mount_path: str = ""
    sub_path: str = ""
    sub_path_expr: str = ""
    read_only: bool = False
    mount_propagation: str = ""


class VolumeDevice(View, frozen=True):
    name: str = ""
    device_path: str = ""


class Container(View, frozen=True):
    name: str = ""
    image: str = ""
    volume_mounts: list[VolumeMount] = []
    volume_devices: list[VolumeDevice] = []
    resources: Resources = Resources()


class Toleration(View, frozen=True):
    key: str = ""
    operator: str = "Equal"
    value: str = ""
    effect: str = ""
    toleration_seconds: int | None = None


class PodSecurityContext(View, frozen=True):
    fs_group: int | None = None
    fs_group_change_policy: str = ""
    run_as_user: int | None = None
    run_as_group: int | None = None


class PodSpec(View, frozen=True):
    node_name: str = ""
    node_selector: dict[str, str] = {}
    scheduler_name: str = "default-scheduler"
    scheduling_gates: list[Fields] = []
    affinity: Fields | None = None
    tolerations: list[Toleration] = []
    volumes: list[PodVolume] = []
    containers: list[Container] = []
    init_containers: list[Container] = []
    restart_policy: str = "Always"
    security_context: PodSecurityContext = PodSecurityContext()
    priority: int = 0
    termination_grace_period_seconds: int = 30


class PodStatus(View, frozen=True):
    phase: str = ""
    reason: str = ""
    message: str = ""
    conditions: list[Condition] = []
    container_statuses: list[Fields] = []
    start_time: str | None = None
    nominated_node_name: str = ""


class Pod(View, frozen=True):
    metadata: Meta
    spec: PodSpec = PodSpec()
    status: PodStatus = PodStatus()

    @property
    def finished(self) -> bool:
        return self.status.phase in FINISHED


# --- nodes --------------------------------------------------------------------


class Taint(View, frozen=True):
    key: str = ""
    value: str = ""
    effect: str = ""
    time_added: str | None = None


class NodeSpec(View, frozen=True):
    unschedulable: bool = False
    taints: list[Taint] = []
    provider_id: str = msgspec.field(name="providerID", default="")


class NodeStatus(View, frozen=True):
    capacity: dict[str, str] = {}
    allocatable: dict[str, str] = {}
    conditions: list[Condition] = []
    addresses: list[Fields] = []
    volumes_in_use: list[str] = []
    volumes_attached: list[Fields] = []


class Node(View, frozen=True):
    metadata: Meta
    spec: NodeSpec = NodeSpec()
    status: NodeStatus = NodeStatus()

    def condition(self, type: str) -> Condition | None:
        return next((c for c in self.status.conditions if c.type == type), None)

    @property
    def ready(self) -> bool:
        condition = self.condition("Ready")
        return condition is not None and condition.status == "True"

    @property
    def out_of_service(self) -> bool:
        return any(taint.key == OUT_OF_SERVICE for taint in self.spec.taints)


# --- from dicts ---------------------------------------------------------------

_PLAIN_VOLUME_FIELDS = frozenset(
    {
        "capacity",
        "access_modes",
        "claim_ref",
        "persistent_volume_reclaim_policy",
        "storage_class_name",
        "mount_options",
        "volume_mode",
        "node_affinity",
        "volume_attributes_class_name",
    }
)
_SOURCES = tuple(
    (attribute, wire)
    for attribute, wire in zip(
        VolumeSpec.__struct_fields__, VolumeSpec.__struct_encode_fields__, strict=True
    )
    if attribute not in _PLAIN_VOLUME_FIELDS
)


class _Header(View, frozen=True):
    metadata: Meta


def meta(obj: Mapping[str, Any]) -> Meta:
    """View only the metadata of any object."""
    return msgspec.convert(obj, _Header).metadata


def claim(obj: Mapping[str, Any]) -> Claim:
    return msgspec.convert(obj, Claim)


def volume(obj: Mapping[str, Any]) -> Volume:
    return msgspec.convert(obj, Volume)


def storage_class(obj: Mapping[str, Any]) -> StorageClass:
    return msgspec.convert(obj, StorageClass)


def pod(obj: Mapping[str, Any]) -> Pod:
    return msgspec.convert(obj, Pod)


def node(obj: Mapping[str, Any]) -> Node:
    return msgspec.convert(obj, Node)


# --- questions about views ----------------------------------------------------


def class_of(subject: Claim | Volume) -> str:
    """Name the storage class: the old beta annotation wins, then the spec, else ""."""
    annotated = subject.metadata.annotations.get(BETA_CLASS)
    return annotated if annotated is not None else subject.spec.storage_class_name or ""


def has_class(subject: Claim) -> bool:
    """Whether the claim names a class; the empty name counts, so it is never defaulted."""
    return BETA_CLASS in subject.metadata.annotations or subject.spec.storage_class_name is not None


def is_default_class(subject: StorageClass) -> bool:
    """Whether either default-class annotation says exactly "true"."""
    annotations = subject.metadata.annotations
    return "true" in (annotations.get(DEFAULT_CLASS), annotations.get(BETA_DEFAULT_CLASS))


def is_for(reference: Reference | None, subject: Claim) -> bool:
    """Whether a volume's claimRef names this claim (an empty uid reserves by name)."""
    return (
        reference is not None
        and reference.name == subject.metadata.name
        and reference.namespace == subject.metadata.namespace
        and reference.uid in ("", subject.metadata.uid)
    )


def mount_options(subject: Volume) -> list[str]:
    """Return the mount options of a volume: the spec's, else those of the old annotation."""
    if subject.spec.mount_options:
        return list(subject.spec.mount_options)
    text = subject.metadata.annotations.get(BETA_MOUNT_OPTIONS, "")
    return [option.strip() for option in text.split(",") if option.strip()]


def ephemeral_claim_name(subject: Pod, entry: PodVolume) -> str:
    """Name the claim made for a generic ephemeral volume of a pod."""
    return f"{subject.metadata.name}-{entry.name}"


def claims_of(subject: Pod) -> Iterator[tuple[PodVolume, str]]:
    """Yield (volume entry, claim name) for each entry of the pod that is backed by a claim."""
    for entry in subject.spec.volumes:
        if entry.persistent_volume_claim is not None:
            yield entry, entry.persistent_volume_claim.claim_name
        elif entry.ephemeral is not None:
            yield entry, ephemeral_claim_name(subject, entry)


def owned_by(subject: Meta, uid: str) -> bool:
    """Whether the object with this uid controls the subject."""
    return any(owner.controller and owner.uid == uid for owner in subject.owner_references)
