"""What a storage backend is: the records it takes and returns, and its methods.

A backend gets frozen records and returns frozen records. Three rules hold for
every method of every Protocol in this module:

- it may be repeated with the same arguments and then has the same result, also
  after a crash in the middle of an earlier call;
- it raises `backends.errors` and nothing else;
- it does not block the event loop: a blocking library runs in the backend's
  own threads.

`Backend` is required. Everything else is a capability: a separate Protocol
that the caller tests for with isinstance(). Sizes are bytes everywhere.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Protocol, runtime_checkable

Mode = Literal["Filesystem", "Block"]
Severity = Literal["ok", "warning", "error"]

TOPOLOGY_HOST = "kubernetes.io/hostname"


@dataclass(frozen=True, slots=True)
class VolumeSource:
    """Where the first content of a volume comes from."""

    kind: Literal["volume", "snapshot"]
    id: str


@dataclass(frozen=True, slots=True)
class VolumeRequest:
    """A volume to be made.

    `name` is a function of the claim, so that a repeat finds the same volume.
    `topology` holds the segments of the node that was chosen, if one was.
    """

    name: str
    size: int
    parameters: Mapping[str, str] = field(default_factory=dict)
    access: tuple[str, ...] = ()
    mode: Mode = "Filesystem"
    source: VolumeSource | None = None
    topology: Mapping[str, str] | None = None
    secrets: Mapping[str, str] = field(default_factory=dict, repr=False)


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
class Finding:
    """The answer of one check; `remedy` is empty when nothing has to be done."""

    check: str
    severity: Severity
    what: str
    where: str = ""
    remedy: str = ""


@dataclass(frozen=True, slots=True)
class VolumeHandle:
    """A volume as a node sees it: enough to connect it without asking the API."""

    id: str
    context: Mapping[str, str] = field(default_factory=dict)
    fs_type: str = ""
    read_only: bool = False
    mode: Mode = "Filesystem"


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

    async def delete_volume(self, id: str) -> None:
        """Remove the volume and its data. One that is gone already is a success.

        Raises Conflict, saying where, when the volume is in use.
        """
        ...

    async def get_volume(self, id: str) -> Volume:
        """Return the volume. Raises NotFound."""
        ...

    async def list_volumes(self, token: str = "", limit: int = 0) -> VolumePage:
        """List volumes in the order of their ids, at most `limit` (0 = all) after `token`.

        Remains of an unfinished create are listed too, with
        `context["state"] == "incomplete"`: whoever looks for orphans needs them.
        """
        ...

    async def checks(self) -> Sequence[Finding]:
        """Test every prerequisite and change nothing."""
        ...


@runtime_checkable
class Expander(Protocol):
    """Makes volumes larger."""

    async def expand(self, id: str, size: int) -> Volume:
        """Grow the volume to at least `size`; one that is large enough is left as it is."""
        ...


@runtime_checkable
class Snapshotter(Protocol):
    """Keeps the content of a volume at one moment. Restored by VolumeRequest.source."""

    async def create_snapshot(self, name: str, volume_id: str) -> Snapshot:
        """Take the snapshot, or return it when it exists for the same volume."""
        ...

    async def delete_snapshot(self, id: str) -> None:
        """Remove the snapshot. One that is gone already is a success."""
        ...

    async def get_snapshot(self, id: str) -> Snapshot:
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
class CapacityReporter(Protocol):
    """Knows how much room there is."""

    async def capacity(self, parameters: Mapping[str, str]) -> Capacity:
        """Return the room that a class with these parameters draws on."""
        ...


@runtime_checkable
class Attacher(Protocol):
    """Has to make a volume reachable from a node before the node can connect it."""

    async def attach(self, id: str, node: str, read_only: bool) -> Mapping[str, str]:
        """Make the volume reachable from `node`; the result goes to the node side."""
        ...

    async def detach(self, id: str, node: str) -> None:
        """Take the volume away from `node`. One that is not there is a success."""
        ...


@runtime_checkable
class Fencer(Protocol):
    """Can cut a lost node off from its volumes."""

    async def fence(self, node: str) -> None:
        """Return only when `node` can no longer write to any volume of this backend."""
        ...


@runtime_checkable
class NodeSide(Protocol):
    """The part of a backend that runs on the machine where the volume is used."""

    async def connect(self, volume: VolumeHandle, context: Mapping[str, str]) -> Connected:
        """Make the volume's device or directory appear here, or find it when it is here.

        `context` is what `attach` returned, or empty. Raises NotFound with the
        path or name that is missing.
        """
        ...

    async def disconnect(self, volume: VolumeHandle) -> None:
        """Undo connect. A volume that is not connected is a success."""
        ...
