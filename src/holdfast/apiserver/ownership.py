"""`metadata.managedFields` of everything that is written: who owns what from now on.

`resources` calls this for each write, after decoding and defaulting and before the server fills
in what is its own (status at creation, finalizers of admission), which nobody owns. What an
endpoint ignores of an object, the status at the main one and the spec at the status one, nobody
comes to own through it either.

This is on the path of every write of every controller. The list of the object as it was is
passed on as it is, unread, unless the client sent another one.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Hashable
from typing import Any

from holdfast.api import fields, kinds
from holdfast.api.kinds import Kind
from holdfast.api.managed import comparing, entries, items, outlining, sets, types, updating
from holdfast.api.managed.entries import Entry, Operation, Writer
from holdfast.api.managed.sets import FieldSet
from holdfast.apiserver.options import WriteOptions
from holdfast.kit import clock

Object = dict[str, Any]

_UNKNOWN = "unknown"
_AGENT_LENGTH = 128
_REMEMBERED = 4096
# What a status endpoint ignores besides the spec.
_STATUS_RESETS: dict[Kind, tuple[tuple[str, ...], ...]] = {
    kinds.POD: (("f:metadata", "f:deletionTimestamp"), ("f:metadata", "f:ownerReferences")),
    kinds.VOLUME_ATTACHMENT: (("f:metadata",),),
}


@functools.cache
def reset(kind: Kind, subresource: str | None) -> FieldSet:
    """What the endpoint ignores of an object sent to it."""
    paths: tuple[tuple[str, ...], ...] = ()
    if subresource == "status":
        paths = (("f:spec",), *_STATUS_RESETS.get(kind, ()))
    elif subresource is None and "status" in kind.subresources:
        paths = (("f:status",),)
    return functools.reduce(sets.union, map(sets.of_path, paths), sets.LEAF)


def type_of(kind: Kind) -> types.Type:
    """The type of the kind's objects."""
    return types.of_shape(kind.shape)


def agent(header: str) -> str:
    """The manager a User-Agent stands for: its first word, printable characters only."""
    name = "".join(filter(str.isprintable, header.partition("/")[0]))
    while len(name.encode()) > _AGENT_LENGTH:
        name = name[:-1]
    return name


def check_manager(name: str) -> list[fields.Cause]:
    """The rules for a `fieldManager`: short and printable."""
    causes = []
    if len(name.encode()) > _AGENT_LENGTH:
        causes.append(fields.too_long("fieldManager", _AGENT_LENGTH))
    for index, letter in enumerate(name):
        if not letter.isprintable():
            place = len(name[:index].encode())
            why = f"invalid character U+{ord(letter):04X} (at position {place})"
            causes.append(fields.invalid("fieldManager", name, why))
    return causes


def writer(
    kind: Kind, options: WriteOptions, operation: Operation, subresource: str | None
) -> Writer:
    """Who the request writes as."""
    return Writer(options.manager or _UNKNOWN, operation, kind.api_version, subresource or "")


def now() -> str:
    """The time of entries, formatted once a second."""
    return _formatted(int(time.time()))


@functools.lru_cache(maxsize=1)
def _formatted(second: int) -> str:
    return clock.rfc3339(clock.now())


class Owners:
    """The owners of new and changed objects.

    A second's work is remembered: a burst of writes that set the same fields of objects with the
    same owners shares one list, which also keeps memory small.
    """

    def __init__(self) -> None:
        self._second = ""
        self._known: dict[Hashable, tuple[object, list[Entry]]] = {}

    def created(self, kind: Kind, obj: Object, given: object, options: WriteOptions) -> list[Entry]:
        """The entries of a new object that is decoded and defaulted."""
        type = type_of(kind)
        try:
            listed = _read(given) if given else None
            if listed:
                return _created_with(listed, kind, obj, options)
            key = (kind, options.manager, outlining.outline(type.blank, obj, type))
            known = self._lookup(key)
            if known is None:
                who = writer(kind, options, "Update", None)
                known = updating.created(obj, type, who, self._second, reset(kind, None))
                self._known[key] = None, known
            return known
        except items.ItemError:
            # A list without its key fields is refused by the rules of the kind, if at all.
            return []

    def follow(
        self, kind: Kind, new: Object, old: Object, options: WriteOptions, subresource: str | None
    ) -> None:
        """Make the writer the owner of what differs between the two objects.

        An object without entries stays without: its owners are not known until somebody applies.
        """
        meta = new["metadata"]
        managed = meta.get("managedFields")
        if not managed:
            return
        try:
            outline = outlining.outline(old, new, type_of(kind))
            key = (id(managed), kind, options.manager, subresource, outline)
            left = self._lookup(key)
            if left is None:
                left = self._followed(kind, new, old, options, subresource)
                # With the list goes a reference to what its key is the address of.
                self._known[key] = managed, left
        except items.ItemError:
            left = []
        if left:
            meta["managedFields"] = left
        else:
            del meta["managedFields"]

    def _followed(
        self, kind: Kind, new: Object, old: Object, options: WriteOptions, subresource: str | None
    ) -> list[Entry]:
        changed, removed = comparing.compare(old, new, type_of(kind))
        ignored = reset(kind, subresource)
        changed = sets.without_trees(changed, ignored) if changed else changed
        removed = sets.without_trees(removed, ignored) if removed else removed
        who = writer(kind, options, "Update", subresource)
        managed = new["metadata"]["managedFields"]
        return updating.updated(managed, changed, removed, who, self._second)

    def _lookup(self, key: Hashable) -> list[Entry] | None:
        second = now()
        if second != self._second or len(self._known) > _REMEMBERED:
            self._known.clear()
            self._second = second
        found = self._known.get(key)
        return None if found is None else found[1]


def _created_with(
    listed: list[Entry], kind: Kind, obj: Object, options: WriteOptions
) -> list[Entry]:
    """The entries of a new object whose maker sent some along."""
    type = type_of(kind)
    who = writer(kind, options, "Update", None)
    made = updating.created(obj, type, who, now(), reset(kind, None))
    changed = made[0]["fieldsV1"] if made else sets.LEAF
    return updating.updated(listed, changed, sets.LEAF, who, now())


def separated(changed: Object, old: Object) -> tuple[Object, object]:
    """A changed object and its managedFields; without them, and None, when they are the old.

    `changed` itself is not touched. The list returned is as the client sent it, not decoded.
    """
    meta = changed.get("metadata")
    if not isinstance(meta, dict) or "managedFields" not in meta:
        return changed, None
    given = meta["managedFields"]
    current = old["metadata"].get("managedFields")
    if given is current or given == current:
        rest = meta.copy()
        del rest["managedFields"]
        return {**changed, "metadata": rest}, None
    return changed, given


def adopt(new: Object, old: Object, given: object, subresource: str | None) -> None:
    """Put into `new` the list that the write starts from: the client's if it may set one."""
    sent = new["metadata"].pop("managedFields", None)
    managed = old["metadata"].get("managedFields")
    if given is not None and subresource is None:
        # A client that knows nothing of owners, or gets them wrong, does not delete them.
        managed = None if entries.is_reset(given) else _read(sent) or managed
    if managed:
        new["metadata"]["managedFields"] = managed


def settle(new: Object, old: Object, given: object) -> None:
    """Put into `new` the list as the server itself made it, or as it was."""
    managed = old["metadata"].get("managedFields") if given is None else given
    new["metadata"].pop("managedFields", None)
    if managed:
        new["metadata"]["managedFields"] = managed


def differ_in_time_only(new: Object, old: Object) -> bool:
    """Whether two objects are equal but for the times of their entries."""
    was, become = old["metadata"].get("managedFields"), new["metadata"].get("managedFields")
    if not was or not become or len(was) != len(become):
        return False
    if _timeless(was) != _timeless(become):
        return False
    return {**new, "metadata": {**new["metadata"], "managedFields": was}} == old


def _timeless(managed: list[Entry]) -> list[Entry]:
    return [{key: value for key, value in entry.items() if key != "time"} for entry in managed]


def _read(given: object) -> list[Entry]:
    """Entries as a client sent them; none when it got one wrong."""
    if not isinstance(given, list):
        return []
    try:
        return entries.given(given)
    except entries.EntryError:
        return []
