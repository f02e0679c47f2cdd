"""What a storage backend is: the records it takes and returns, and its methods.

A backend gets frozen records and returns frozen records. Three rules hold for
every method of every Protocol in this module:

- it may be repeated with the same arguments and then has the same result, also
  after a crash in the middle of an earlier call;
- it raises `backends.errors` and nothing else;
- it does not block the event loop: a blocking library runs in the backend's
  own threads.

An id that no volume or snapshot can have is the id of one that does not exist: a
success for delete, NotFound elsewhere, never Invalid.

`Backend` is required. Everything else is a capability: a separate Protocol
that the caller tests for with isinstance(). Sizes are bytes everywhere.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Literal, Protocol, runtime_checkable

Mode = Literal["Filesystem", "Block"]
Severity = Literal["ok", "warning", "error"]
Power = Literal["running", "stopped", "gone", "unknown"]

TOPOLOGY_HOST = "kubernetes.io/hostname"
# What a call gets when the class names no secret: the backend's own configuration has to do.
NO_SECRETS: Mapping[str, str] = MappingProxyType({})
NO_PARAMETERS: Mapping[str, str] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class VolumeSource:
    """Where the first content of a volume comes from."""

    kind: Literal["volume", "snapshot"]
    id: str


@dataclass(frozen=True, slots=True)
class VolumeRequest:
    """A volume to be made.

    `name` is a function of the claim, so that a repeat finds the same volume.
    `topology` holds the segments of the node that was chosen, if one was. `owner` is
    "namespace/claim" where it is known, for names that people read; it identifies nothing.
    """

    name: str
    size: int
    parameters: Mapping[str, str] = field(default_factory=dict)
    access: tuple[str, ...] = ()
    mode: Mode = "Filesystem"
    source: VolumeSource | None = None
    topology: Mapping[str, str] | None = None
    secrets: Mapping[str, str] = field(default_factory=dict, repr=False)
    owner: str = ""


@dataclass(frozen=True, slots=True)
class Volume:
    """A volume that exists. `context` is what the node side needs to reach it.

    `node_expansion` says that growing it goes on where it is used: a file system or a
    device there has to follow.
    """

    id: str
    size: int
    context: Mapping[str, str] = field(default_factory=dict)
    topology: Mapping[str, str] | None = None
    node_expansion: bool = False


@dataclass(frozen=True, slots=True)
class VolumePage:
    """Part of a listing, sorted by id; `next_token` is empty on the last page."""

    volumes: Sequence[Volume]
    next_token: str = ""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The content of a volume at one moment. `created` is RFC 3339 text."""

    id: str
    source: str
    size: int
    created: str
    ready: bool = True


@dataclass(frozen=True, slots=True)
class SnapshotPage:
    """Part of a listing of snapshots, sorted by id."""

    snapshots: Sequence[Snapshot]
    next_token: str = ""


@dataclass(frozen=True, slots=True)
class Capacity:
    """Room behind one set of class parameters: in total, and for new volumes."""

    total: int
    available: int


@dataclass(frozen=True, slots=True)
class Room:
    """The room that the nodes with these labels can reach; no labels means all nodes."""

    topology: Mapping[str, str]
    capacity: Capacity


@dataclass(frozen=True, slots=True)
class Finding:
    """The answer of one check; `remedy` is empty when nothing has to be done."""

    check: str
    severity: Severity
    what: str
    where: str = ""
    remedy: str = ""


@dataclass(frozen=True, slots=True)
class VolumeHandle:
    """A volume as a node sees it: enough to connect it without asking the API.

    `options` are the mount options of the volume, for a backend that mounts a network
    file system itself; `secrets` is what the volume's node secret holds.
    """

    id: str
    context: Mapping[str, str] = field(default_factory=dict)
    fs_type: str = ""
    read_only: bool = False
    mode: Mode = "Filesystem"
    options: tuple[str, ...] = ()
    secrets: Mapping[str, str] = field(default_factory=dict, repr=False)


@dataclass(frozen=True, slots=True)
class NodeInfo:
    """What a machine is to a storage system (CSI's NodeGetInfo).

    `id` is what `Attacher.attach` is told; `max_volumes` is 0 where there is no limit.
    """

    id: str
    topology: Mapping[str, str] = field(default_factory=dict)
    max_volumes: int = 0


@dataclass(frozen=True, slots=True)
class NodeState:
    """Whether a machine can still write, as the infrastructure sees it, and how it knows.

    Only "stopped" and "gone" allow its volumes to be taken away.
    """

    power: Power
    detail: str


@dataclass(frozen=True, slots=True)
class WantedClass:
    """A StorageClass that a storage system's own configuration asks for.

    `topology` limits the class to nodes with one of the values of each key; `late` delays
    binding until a pod is there.
    """

    name: str
    provisioner: str
    parameters: Mapping[str, str]
    topology: Mapping[str, Sequence[str]] = field(default_factory=dict)
    late: bool = True
    expansion: bool = True
    default: bool = False
    annotations: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Device:
    """A block device on this machine. `identity` tells it from every other one."""

    path: Path
    identity: str
    size: int


@dataclass(frozen=True, slots=True)
class MountSource:
    """A directory (or single file) to be bind-mounted.

    `enforced` says whether the volume's size is a limit that writers meet.
    """

    path: Path
    enforced: bool


@dataclass(frozen=True, slots=True)
class ImageFile:
    """A regular file that is a disk; the node gives it a loop device."""

    path: Path
    size: int


Connected = Device | MountSource | ImageFile


@runtime_checkable
class Backend(Protocol):
    """Makes, finds and removes volumes in one storage system."""

    async def create_volume(self, request: VolumeRequest) -> Volume:
        """Make the volume, or return it when it exists and fits the request.

        Raises AlreadyExists when the name is taken by a volume that differs,
        Invalid for bad parameters, Exhausted when there is no room.
        """
        ...

    async def find_volume(self, request: VolumeRequest) -> Volume | None:
        """Return the volume that `create_volume` made, or began to make, for this request.

        For whoever lost create's answer and needs the id, to undo it. A request whose
        parameters are bad has no volume.
        """
        ...

    async def delete_volume(self, id: str, *, secrets: Mapping[str, str] = NO_SECRETS) -> None:
        """Remove the volume and its data. One that is gone already is a success.

        Remains of an unfinished create are removed too. Raises Conflict, saying where,
        when the volume is in use.
        """
        ...

    async def get_volume(self, id: str, *, secrets: Mapping[str, str] = NO_SECRETS) -> Volume:
        """Return the volume. Raises NotFound."""
        ...

    async def list_volumes(self, token: str = "", limit: int = 0) -> VolumePage:
        """List volumes in the order of their ids, at most `limit` (0 = all) after `token`.

        Remains of a create, which orphans are, carry `context["state"] == "incomplete"`.
        """
        ...

    async def checks(self) -> Sequence[Finding]:
        """Test every prerequisite and change nothing."""
        ...

    async def close(self) -> None:
        """Wait for running calls, then give up connections and threads."""
        ...


@runtime_checkable
class Expander(Protocol):
    """Makes volumes larger."""

    async def expand(
        self, id: str, size: int, *, secrets: Mapping[str, str] = NO_SECRETS
    ) -> Volume:
        """Grow the volume to at least `size`; one that is large enough is left as it is."""
        ...


@runtime_checkable
class Snapshotter(Protocol):
    """Keeps the content of a volume at one moment. Restored by VolumeRequest.source."""

    async def create_snapshot(
        self,
        name: str,
        volume_id: str,
        *,
        parameters: Mapping[str, str] = NO_PARAMETERS,
        secrets: Mapping[str, str] = NO_SECRETS,
    ) -> Snapshot:
        """Take the snapshot, or return it when it exists for the same volume.

        `parameters` are those of the VolumeSnapshotClass.
        """
        ...

    async def delete_snapshot(self, id: str, *, secrets: Mapping[str, str] = NO_SECRETS) -> None:
        """Remove the snapshot. One that is gone already is a success."""
        ...

    async def get_snapshot(self, id: str, *, secrets: Mapping[str, str] = NO_SECRETS) -> Snapshot:
        """Return the snapshot. Raises NotFound."""
        ...

    async def list_snapshots(self, token: str = "", limit: int = 0) -> SnapshotPage:
        """List snapshots in the order of their ids."""
        ...


@runtime_checkable
class Cloner(Protocol):
    """Accepts VolumeRequest.source of kind "volume"."""

    clones: Literal[True]


@runtime_checkable
class UseChecker(Protocol):
    """Knows what its volumes cannot be used for (CSI's ValidateVolumeCapabilities)."""

    async def check_use(self, volume: Volume, wanted: VolumeRequest) -> None:
        """Raise Invalid, saying why, when the volume is not fit for that access and mode."""
        ...


@runtime_checkable
class CapacityReporter(Protocol):
    """Knows how much room there is."""

    async def capacity(self, parameters: Mapping[str, str]) -> Capacity:
        """Return the room that a class with these parameters draws on."""
        ...


@runtime_checkable
class RoomReporter(Protocol):
    """Knows by itself which nodes reach which room; others have the same room everywhere."""

    async def rooms(self, parameters: Mapping[str, str]) -> Sequence[Room]:
        """Return the room that a class with these parameters draws on, place by place.

        A place that cannot be asked now is left out.
        """
        ...


@runtime_checkable
class ClassChecker(Protocol):
    """Can test what a class needs that carries its own connection and secrets."""

    async def check_class(
        self, parameters: Mapping[str, str], secrets: Mapping[str, str]
    ) -> Sequence[Finding]:
        """Test parameters, secrets and what they lead to, and change nothing."""
        ...


@runtime_checkable
class Attacher(Protocol):
    """Has to make a volume reachable from a node before the node can connect it.

    `node` is the machine's `NodeInfo.id`.
    """

    async def attach(
        self, id: str, node: str, read_only: bool, *, secrets: Mapping[str, str] = NO_SECRETS
    ) -> Mapping[str, str]:
        """Make the volume reachable from `node`; the result goes to the node side."""
        ...

    async def detach(self, id: str, node: str, *, secrets: Mapping[str, str] = NO_SECRETS) -> None:
        """Take the volume away from `node`. One that is not there is a success."""
        ...


@runtime_checkable
class AttachmentLister(Protocol):
    """Knows which nodes each volume is attached to."""

    async def attachments(self) -> Mapping[str, Sequence[str]]:
        """Return node ids by volume id, for all volumes that are attached anywhere."""
        ...


@runtime_checkable
class NodeObserver(Protocol):
    """Can ask the infrastructure whether a machine is really off."""

    async def node_state(self, node: str) -> NodeState:
        """Return what is known of `node` now; "unknown" rather than a guess."""
        ...


@runtime_checkable
class MachineNamer(Protocol):
    """Knows what the machine behind a node is called."""

    async def machine_names(self, node: str) -> Sequence[str]:
        """Return the machine's names, the infrastructure's first; none when there is no machine.

        `node` is its id, or a name. Raises Unavailable when that cannot be told.
        """
        ...


@runtime_checkable
class Discoverer(Protocol):
    """Knows from the storage system which classes there should be, and where nodes are."""

    async def wanted_classes(self) -> Sequence[WantedClass]:
        """Return all wanted classes. Raises Unavailable rather than an incomplete answer."""
        ...

    async def node_labels(self, node: str) -> Mapping[str, str]:
        """Return the labels of region and zone of the machine; empty when nothing is known."""
        ...


@runtime_checkable
class Fencer(Protocol):
    """Can cut a lost node off from its volumes; `volumes` bring the secrets it takes."""

    async def fence(self, node: str, volumes: Sequence[VolumeHandle] = ()) -> None:
        """Return only when `node`, on which `volumes` are, can write to no volume of ours."""
        ...

    async def unfence(self, node: str, volumes: Sequence[VolumeHandle] = ()) -> None:
        """Let a machine that came back use its volumes again; `volumes` are all there are."""
        ...


@runtime_checkable
class NodeSide(Protocol):
    """The part of a backend that runs on the machine where the volume is used."""

    async def connect(self, volume: VolumeHandle, context: Mapping[str, str]) -> Connected:
        """Make the volume's device or directory appear here, or find it when it is here.

        `context` is what `attach` returned, or empty. Called again after the volume
        has grown, it makes the new size appear first. Raises NotFound with the path or
        name that is missing.
        """
        ...

    async def disconnect(self, volume: VolumeHandle) -> None:
        """Undo connect. A volume that is not connected is a success."""
        ...


@runtime_checkable
class Mounter(Protocol):
    """A node side that mounts file systems itself; these are not uses of a volume."""

    @property
    def mounts_below(self) -> Path:
        """The directory below which all of its mounts are."""
        ...


@runtime_checkable
class NodeDescriber(Protocol):
    """A node side that knows what its machine is called in the storage system."""

    async def describe(self) -> NodeInfo:
        """Return the machine's id, topology and limit. Raises NotFound when it has no id."""
        ...


@runtime_checkable
class VolumeChecker(Protocol):
    """A node side that can test what this machine needs for one volume."""

    async def check_volume(self, volume: VolumeHandle) -> Sequence[Finding]:
        """Test whether `connect` would work, changing nothing; volumes of a class may miss."""
        ...


@runtime_checkable
class ConnectionObserver(Protocol):
    """A node side whose connections may end by themselves, under a mounted volume."""

    async def lost(self) -> Mapping[str, Finding]:
        """Return the volumes that were connected and give only errors now, by id.

        Each with what has ended and what to do. Asked often, so it has to be cheap and must
        not wait for the storage system. `connect` makes such a volume's device anew.
        """
        ...


@runtime_checkable
class NodeChecker(Protocol):
    """A node side that can test what this machine needs for its volumes."""

    async def checks(self) -> Sequence[Finding]:
        """Test every prerequisite on this machine and change nothing."""
        ...
