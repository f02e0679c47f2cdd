"""What the service remembers: clusters, nodes, devices, bricks, volumes and work under way.

Links go one way only - a brick names its device and its volume, a device its node, a node its
cluster - so there is nothing to fall apart. The other direction is computed by `state`. Space is
not stored either: what a device has used is the sum of its bricks.

Sizes of volumes are GiB, all others KiB. `pending` is the id of the operation an entry belongs to
until that is finished, "" afterwards.
"""

from __future__ import annotations

import secrets
from typing import Any, Literal

import msgspec

State = Literal["online", "offline", "failed"]
GIB = 1024 * 1024
NORMAL, ARBITER = 1, 2


def new_id() -> str:
    """32 hexadecimal digits."""
    return secrets.token_hex(16)


class Entry(msgspec.Struct, frozen=True, kw_only=True):
    """Anything with an id."""

    id: str


class Cluster(Entry, frozen=True, kw_only=True):
    """A trusted pool of glusterds; the flags say what it may host."""

    file: bool = True
    block: bool = True


class Node(Entry, frozen=True, kw_only=True):
    """A machine: `manage` is where commands are run, `storage` where bricks are served."""

    cluster: str
    zone: int
    manage: str
    storage: str
    tags: dict[str, str] = {}
    state: State = "online"
    # Further names, which are kept and shown and not used.
    more_manage: list[str] = []
    more_storage: list[str] = []


class Device(Entry, frozen=True, kw_only=True):
    """A disk of a node; `foreign` is space of it that no brick of ours takes."""

    node: str
    name: str
    total: int
    foreign: int = 0
    extent: int = 4096
    tags: dict[str, str] = {}
    state: State = "online"
    uuid: str = ""
    paths: list[str] = []
    # Not to be used yet: the disk is being prepared.
    pending: str = ""


class Brick(Entry, frozen=True, kw_only=True):
    """A file system on a device; `position` is its place in the volume's list."""

    device: str
    volume: str
    size: int
    pool_size: int
    pool_metadata: int
    position: int
    path: str = ""
    kind: int = NORMAL
    # A clone's brick lies in the pool of the brick it was cloned from, and has a name of its own.
    pool: str = ""
    lv: str = ""
    pending: str = ""

    @property
    def space(self) -> int:
        """What it takes from its device; a clone shares its source's pool and takes nothing."""
        return self.pool_size + self.pool_metadata

    @property
    def pool_name(self) -> str:
        """The thin pool it lies in."""
        return self.pool or f"tp_{self.id}"

    @property
    def lv_name(self) -> str:
        """Its logical volume."""
        return self.lv or f"brick_{self.id}"


class Durability(msgspec.Struct, frozen=True, kw_only=True):
    """How many bricks a set has and how many of them may fail."""

    type: Literal["none", "replicate", "disperse"] = "none"
    replica: int = 0
    data: int = 0
    redundancy: int = 0

    @property
    def bricks(self) -> int:
        """Bricks in a set."""
        if self.type == "replicate":
            return self.replica or 2
        return self.data + self.redundancy if self.type == "disperse" else 1

    @property
    def parts(self) -> int:
        """Over how many bricks of a set the data is split."""
        return self.data if self.type == "disperse" else 1

    @property
    def quorum(self) -> int:
        """How many other bricks of a set must be up before one may be replaced."""
        if self.type == "disperse":
            return self.data
        count = self.bricks
        return count // 2 + 1 if self.type == "replicate" and count >= 3 else 1


class Volume(Entry, frozen=True, kw_only=True):
    """A GlusterFS volume."""

    name: str
    cluster: str
    size: int
    durability: Durability = Durability()
    gid: int = 0
    options: list[str] = []
    block: bool = False
    snapshot: bool = False
    factor: float = 1.0
    restriction: str = ""
    pending: str = ""

    @property
    def arbiter(self) -> bool:
        """Whether the third brick of a set holds names only."""
        return self.option("user.heketi.arbiter") == "true" and self.durability.replica == 3

    def option(self, name: str) -> str:
        """The value of one of its options, "" when it was not given."""
        for text in reversed(self.options):
            key, _, value = text.strip().partition(" ")
            if key == name:
                return value.strip()
        return ""


class BlockVolume(Entry, frozen=True, kw_only=True):
    """A block volume taken over from an imported database: shown, never made or changed."""

    cluster: str
    hosting: str
    info: dict[str, Any] = {}


class Change(msgspec.Struct, frozen=True):
    """One thing an operation adds or removes; `amount` is GiB where a volume grows."""

    what: str
    id: str
    amount: int = 0


class Operation(Entry, frozen=True, kw_only=True):
    """Work under way. It stays until everything it began is finished or undone.

    `request` holds what a repetition needs and the entries do not say; `ticket` is the id under
    which a client asks for the result.
    """

    type: str
    started: int
    changes: list[Change] = []
    request: dict[str, Any] = {}
    ticket: str = ""
    # "" new, "stale" from an earlier life, "failed" neither finished nor undone.
    status: str = ""
    parent: str = ""
    error: str = ""


class Ticket(Entry, frozen=True, kw_only=True):
    """What the queue tells about a request that was accepted."""

    created: int
    done: bool = False
    location: str = ""
    error: str = ""
    operation: str = ""
    role: str = "admin"


KINDS: dict[str, type[Entry]] = {
    "cluster": Cluster,
    "node": Node,
    "device": Device,
    "brick": Brick,
    "volume": Volume,
    "blockvolume": BlockVolume,
    "operation": Operation,
    "ticket": Ticket,
}
NAMES: dict[type[Entry], str] = {kind: name for name, kind in KINDS.items()}
