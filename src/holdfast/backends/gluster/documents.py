"""What the Heketi service answers, as records. Keys that are not needed here are not read.

Sizes are GiB for volumes and KiB for devices, as the service counts them.
"""

from __future__ import annotations

from typing import TypeVar

import msgspec

GIB, KIB = 1 << 30, 1 << 10


class Replicate(msgspec.Struct, frozen=True):
    """Part of a durability."""

    replica: int = 0


class Disperse(msgspec.Struct, frozen=True):
    """Part of a durability."""

    data: int = 0
    redundancy: int = 0


class Durability(msgspec.Struct, frozen=True):
    """How a volume's files are kept more than once."""

    type: str = "none"
    replicate: Replicate = Replicate()
    disperse: Disperse = Disperse()


class MountHosts(msgspec.Struct, frozen=True):
    """Addresses that serve a volume."""

    hosts: list[str] = []


class Mount(msgspec.Struct, frozen=True):
    """How a volume is mounted."""

    glusterfs: MountHosts = MountHosts()


class Brick(msgspec.Struct, frozen=True):
    """A part of a volume on one device."""

    id: str = ""
    path: str = ""
    node: str = ""


class Volume(msgspec.Struct, frozen=True):
    """GET /volumes/{id}."""

    id: str
    name: str
    size: int
    cluster: str = ""
    durability: Durability = Durability()
    gid: int = 0
    block: bool = False
    mount: Mount = Mount()
    bricks: list[Brick] = []


class VolumeList(msgspec.Struct, frozen=True):
    """GET /volumes."""

    volumes: list[str] | None = None


class ClusterList(msgspec.Struct, frozen=True):
    """GET /clusters."""

    clusters: list[str] | None = None


class Cluster(msgspec.Struct, frozen=True):
    """GET /clusters/{id}."""

    id: str
    nodes: list[str] | None = None
    volumes: list[str] | None = None
    file: bool = True


class Hostnames(msgspec.Struct, frozen=True):
    """Where a node is managed, and where it serves bricks."""

    manage: list[str] = []
    storage: list[str] = []


class Storage(msgspec.Struct, frozen=True):
    """Room of a device in KiB."""

    total: int = 0
    free: int = 0
    used: int = 0


class Device(msgspec.Struct, frozen=True):
    """A disk of a node."""

    id: str
    name: str = ""
    state: str = ""
    storage: Storage = Storage()


class Node(msgspec.Struct, frozen=True):
    """GET /nodes/{id}."""

    id: str
    state: str = ""
    zone: int = 0
    hostnames: Hostnames = Hostnames()
    devices: list[Device] | None = None

    @property
    def address(self) -> str:
        """Where it serves bricks."""
        return next(iter(self.hostnames.storage), self.id)

    @property
    def label(self) -> str:
        """What an administrator calls it."""
        name = next(iter(self.hostnames.manage), "")
        return name if name == self.address or not name else f"{name} ({self.address})"


class Change(msgspec.Struct, frozen=True):
    """What an operation does to one thing."""

    id: str = ""
    description: str = ""


class Operation(msgspec.Struct, frozen=True):
    """GET /operations/pending/{id}."""

    id: str
    type_name: str = ""
    status: str = ""
    sub_status: str = ""
    changes: list[Change] | None = None


class OperationList(msgspec.Struct, frozen=True):
    """GET /operations/pending."""

    pendingoperations: list[Operation] | None = None


T = TypeVar("T")


def decode(content: bytes, kind: type[T]) -> T:
    """Read an answer. Raises msgspec.DecodeError."""
    return msgspec.json.decode(content, type=kind)
