"""All entries in memory, with the links in both directions, and the transactions that change them.

Everything is read from here; the database is only written, and read once at start. A transaction
changes the maps at once and the file at its end; when anything fails the maps are put back. It
never waits for anything, so nobody sees a half of it. Entries are frozen: a change replaces one.
"""

from __future__ import annotations

import contextlib
from collections import defaultdict
from collections.abc import Iterator
from typing import TypeVar

import msgspec

from holdfast.heketi import entries, errors
from holdfast.heketi.database import Database
from holdfast.heketi.entries import (
    BlockVolume,
    Brick,
    Cluster,
    Device,
    Entry,
    Node,
    Operation,
    Ticket,
    Volume,
)

E = TypeVar("E", bound=Entry)
_encode = msgspec.json.encode
# Which field of a kind names the entry it belongs to, and the kind of that.
_LINKS: dict[type[Entry], tuple[tuple[str, type[Entry]], ...]] = {
    Node: (("cluster", Cluster),),
    Device: (("node", Node),),
    Brick: (("device", Device), ("volume", Volume)),
    Volume: (("cluster", Cluster),),
    BlockVolume: (("cluster", Cluster), ("hosting", Volume)),
}


class State:
    """The service's memory."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._maps: dict[type[Entry], dict[str, Entry]] = {
            kind: {} for kind in entries.KINDS.values()
        }
        self._below: dict[tuple[type[Entry], str, type[Entry]], dict[str, None]] = defaultdict(dict)
        self._taken: dict[str, int] = defaultdict(int)
        self._names: dict[tuple[str, str], str] = {}
        self._undo: list[tuple[type[Entry], str, Entry | None]] | None = None
        for kind, key, value in database.rows():
            entry = msgspec.json.decode(value, type=entries.KINDS[kind])
            self._put(entries.KINDS[kind], key, entry)

    # Reading

    def find(self, kind: type[E], key: str) -> E | None:
        """An entry, None when there is none."""
        return self._maps[kind].get(key)  # type: ignore[return-value]

    def get(self, kind: type[E], key: str) -> E:
        """An entry; raises `NotFound`."""
        found = self.find(kind, key)
        if found is None:
            raise errors.NotFound()
        return found

    def all(self, kind: type[E]) -> list[E]:
        """All entries of a kind, by id."""
        found = self._maps[kind]
        return [found[key] for key in sorted(found)]  # type: ignore[misc]

    def count(self, kind: type[E]) -> int:
        """How many there are."""
        return len(self._maps[kind])

    def below(self, owner: Entry, kind: type[E]) -> list[E]:
        """The entries that belong to one, by id."""
        keys = self._below.get((type(owner), owner.id, kind), {})
        found = self._maps[kind]
        return [found[key] for key in sorted(keys)]  # type: ignore[misc]

    def ids_below(self, owner: Entry, kind: type[Entry]) -> list[str]:
        """Their ids, in order."""
        return sorted(self._below.get((type(owner), owner.id, kind), ()))

    def count_below(self, owner: Entry, kind: type[Entry]) -> int:
        """How many entries belong to one."""
        return len(self._below.get((type(owner), owner.id, kind), ()))

    def bricks_of(self, volume: Volume) -> list[Brick]:
        """A volume's bricks in the order GlusterFS has them."""
        return sorted(self.below(volume, Brick), key=lambda brick: (brick.position, brick.id))

    def used(self, device: Device) -> int:
        """What bricks and others take of a device, in KiB."""
        return device.foreign + self._taken.get(device.id, 0)

    def free(self, device: Device) -> int:
        """What is left of a device, in KiB."""
        return max(0, device.total - self.used(device))

    def volume_named(self, cluster: str, name: str) -> Volume | None:
        """The volume of that name in a cluster."""
        key = self._names.get((cluster, name))
        return None if key is None else self.find(Volume, key)

    def node_of(self, brick: Brick) -> Node | None:
        """Where a brick is; None when its device or node is unknown."""
        device = self.find(Device, brick.device)
        return None if device is None else self.find(Node, device.node)

    def operation_on(self, key: str) -> Operation | None:
        """The operation that is changing this entry."""
        for operation in self._maps[Operation].values():
            assert isinstance(operation, Operation)
            if any(change.id == key for change in operation.changes):
                return operation
        return None

    # Writing

    @contextlib.contextmanager
    def transaction(self) -> Iterator[Transaction]:
        """Change entries: all of it is on the disk at the end, or nothing has happened."""
        assert self._undo is None, "transactions do not nest"
        self._undo = []
        try:
            yield Transaction(self)
            self._commit()
        except BaseException:
            for kind, key, old in reversed(self._undo):
                self._put(kind, key, old)
            raise
        finally:
            self._undo = None

    def _commit(self) -> None:
        assert self._undo is not None
        changed = dict.fromkeys((kind, key) for kind, key, _ in self._undo)
        rows: list[tuple[str, str, bytes | None]] = []
        for kind, key in changed:
            entry = self._maps[kind].get(key)
            value = None if entry is None else _encode(entry)
            rows.append((entries.NAMES[kind], key, value))
        if rows:
            self._database.write(rows)

    def change(self, kind: type[Entry], key: str, entry: Entry | None) -> None:
        """Only for a transaction: put an entry or, with None, remove it."""
        assert self._undo is not None
        self._undo.append((kind, key, self._maps[kind].get(key)))
        self._put(kind, key, entry)

    def _put(self, kind: type[Entry], key: str, entry: Entry | None) -> None:
        old = self._maps[kind].pop(key, None)
        if old is not None:
            self._link(old, add=False)
        if entry is not None:
            self._maps[kind][key] = entry
            self._link(entry, add=True)

    def _link(self, entry: Entry, *, add: bool) -> None:
        for field, owner in _LINKS.get(type(entry), ()):
            at = (owner, getattr(entry, field), type(entry))
            if add:
                self._below[at][entry.id] = None
            else:
                self._below[at].pop(entry.id, None)
        if isinstance(entry, Brick):
            self._taken[entry.device] += entry.space if add else -entry.space
        if isinstance(entry, Volume):
            if add:
                self._names[entry.cluster, entry.name] = entry.id
            elif self._names.get((entry.cluster, entry.name)) == entry.id:
                del self._names[entry.cluster, entry.name]

    def backup(self) -> bytes:
        """The database file."""
        return self._database.image()

    def close(self) -> None:
        """Close the file."""
        self._database.close()


class Transaction:
    """What may be done inside `State.transaction`."""

    def __init__(self, state: State) -> None:
        self._state = state

    def put(self, *changed: Entry) -> None:
        """Add or replace entries."""
        for entry in changed:
            self._state.change(type(entry), entry.id, entry)

    def remove(self, *gone: Entry) -> None:
        """Remove entries; one that is not there is fine."""
        for entry in gone:
            self._state.change(type(entry), entry.id, None)

    def finish(self, ticket: str, location: str = "", error: str = "") -> None:
        """Say how a request ended, for the client that asks."""
        found = self._state.find(Ticket, ticket)
        if found is not None:
            self.put(msgspec.structs.replace(found, done=True, location=location, error=error))
