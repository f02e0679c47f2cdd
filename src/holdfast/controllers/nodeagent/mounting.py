"""Carries orders out, and undoes them from what is on disk.

A persistent volume is staged once per node, at `staging/<volume>`, and shown in each
pod that uses it; the last pod to go unstages it. Paths of the host are shown directly.
What is made for one pod (an empty directory, files from API objects) lives in the pod's
own directory, in memory where it is secret or asked to be.

The invariant: for everything that may be mounted there is a record, written before; so
a pod can be taken down by a process that never saw it being set up. All work on one
persistent volume is serialised.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
from collections.abc import AsyncIterator, Mapping
from pathlib import Path

from holdfast.backends import errors
from holdfast.backends.protocol import NodeSide
from holdfast.controllers.nodeagent import content, resolving
from holdfast.controllers.nodeagent.records import How, Record, Records
from holdfast.kit.locks import KeyedLocks
from holdfast.node import mounts, ownership
from holdfast.node.volumes import Volumes

EMPTY_DIR_MODE = 0o777
CONTENT_MODE = 0o755
IN_USE = "volume uses the ReadWriteOncePod access mode and is already in use by another pod"


Key = str | tuple[str, str]


class MountFailed(Exception):
    """A volume could not be set up or taken down; `title` names it."""

    def __init__(self, title: str, why: str) -> None:
        super().__init__(title, why)
        self.title = title
        self.why = why

    def __str__(self) -> str:
        return self.why


class PodVolumes:
    """The volumes of the pods of one node, beneath `root`.

    `mounting` says whether this process may mount; it is found out unless it is given.
    """

    def __init__(
        self, root: Path, sides: Mapping[str, NodeSide], *, mounting: bool | None = None
    ) -> None:
        self._records = Records(root)
        self._staging = root / "staging"
        self._sides = sides
        self._volumes = Volumes(mounting=mounting)
        self._locks = KeyedLocks()
        # What is known of each pod: entry -> record. Loaded from disk, then kept up.
        self._known: dict[str, dict[str, Record]] = {}
        # Which (pod, entry) use each staged volume.
        self._users: dict[str, set[tuple[str, str]]] = {}

    async def load(self) -> list[str]:
        """Read what an earlier run left; return the uids of its pods."""
        found = await asyncio.to_thread(self._records.load)
        for uid, records in found.items():
            for record in records:
                self._remember(uid, record)
        return list(found)

    async def ready(self, uid: str) -> set[str]:
        """Return the entries of a pod that are set up, by what is mounted now."""
        return set(await self.places(uid))

    async def places(self, uid: str) -> dict[str, Path]:
        """Return where the entries can be seen that are set up now."""
        records = list(self._known.get(uid, {}).values())
        if not records:
            return {}
        ready = await asyncio.to_thread(
            lambda: [record for record in records if self._is_ready(uid, record)]
        )
        return {record.entry: self._records.mount(uid, record) for record in ready}

    def path(self, uid: str, entry: str) -> Path:
        """Return where an entry that is set up can be seen."""
        return self._records.mount(uid, self._known[uid][entry])

    # --- setting up -----------------------------------------------------------

    async def set_up(self, uid: str, order: resolving.Order) -> None:
        """Make an order's volume appear in the pod; may be repeated. Raises MountFailed."""
        async with self._translated(order.title), self._locks.hold(_key(uid, order)):
            self._refuse_second_pod(uid, order)
            record = self._record(uid, order)
            await asyncio.to_thread(self._records.write, uid, record)
            self._remember(uid, record)
            target = self._records.mount(uid, record)
            match order:
                case resolving.BackendOrder():
                    await self._set_up_backend(order, target)
                case resolving.EmptyDirOrder():
                    await asyncio.to_thread(self._set_up_empty, order, target, record.how)
                case resolving.ContentOrder():
                    await asyncio.to_thread(self._set_up_content, order, target, record.how)
            await asyncio.to_thread(self._records.finish, uid, record)

    def _refuse_second_pod(self, uid: str, order: resolving.Order) -> None:
        if not isinstance(order, resolving.BackendOrder) or not order.exclusive:
            return
        if any(user != uid for user, _ in self._users.get(order.title, ())):
            raise MountFailed(order.title, IN_USE)

    async def _set_up_backend(self, order: resolving.BackendOrder, target: Path) -> None:
        side = self._side(order.side)
        if order.inline:
            await self._volumes.stage(order.handle, side, target, read_only=order.read_only)
            return
        staging = self._staging / order.title
        await self._volumes.stage(
            order.handle,
            side,
            staging,
            mount_options=order.options,
            read_only=order.handle.read_only,
            context=order.context,
        )
        if order.group is not None and order.handle.mode == "Filesystem" and not order.read_only:
            policy: ownership.Policy = (
                "OnRootMismatch" if order.group_policy == "OnRootMismatch" else "Always"
            )
            await asyncio.to_thread(ownership.apply, staging.resolve(), order.group, policy)
        await self._volumes.publish(staging, target, read_only=order.read_only)

    def _set_up_empty(self, order: resolving.EmptyDirOrder, target: Path, how: How) -> None:
        size = [f"size={order.size}"] if order.size is not None else []
        self._make_place(target, how, EMPTY_DIR_MODE, size)
        if order.group is not None:
            ownership.apply(target, order.group)

    def _set_up_content(self, order: resolving.ContentOrder, target: Path, how: How) -> None:
        self._make_place(target, how, CONTENT_MODE, [])
        content.write(dict(order.files), target, order.group)

    def _make_place(self, target: Path, how: How, mode: int, options: list[str]) -> None:
        target.mkdir(exist_ok=True)
        if how == "memory" and not mounts.is_mounted(target):
            mounts.mount(Path("tmpfs"), target, "tmpfs", ["nosuid", "nodev", *options])
        target.chmod(mode)

    def _record(self, uid: str, order: resolving.Order) -> Record:
        """Describe the order for the disk, in a directory that no other entry has."""
        name = order.name
        others = [record for key, record in self._known.get(uid, {}).items() if key != order.entry]
        if any((record.plugin, record.name) == (order.plugin, name) for record in others):
            # Two entries of one pod may use the same claim.
            name = f"{name}~{order.entry}"
        described = (order.entry, order.plugin, name, order.title, self._how(order))
        if isinstance(order, resolving.BackendOrder):
            handle = dataclasses.replace(order.handle, secrets={})
            return Record(*described, side=order.side, driver=order.driver, handle=handle)
        return Record(*described)

    def _how(self, order: resolving.Order) -> How:
        if isinstance(order, resolving.BackendOrder):
            return "bound" if order.inline else "staged"
        in_memory = (isinstance(order, resolving.EmptyDirOrder) and order.memory) or (
            isinstance(order, resolving.ContentOrder) and order.secret
        )
        # Without the right to mount, the directory itself has to keep others out.
        return "memory" if in_memory and self._volumes.mounting else "directory"

    def staged(self, volume: str) -> bool:
        """Whether some pod of this node has the volume, or is getting it."""
        return bool(self._users.get(volume))

    def driven(self) -> set[tuple[str, str]]:
        """Return (driver, handle) of the volumes of CSI drivers that are staged, or may be."""
        return {
            (record.driver, record.handle.id)
            for records in self._known.values()
            for record in records.values()
            if record.how == "staged" and record.handle is not None and record.driver
        }

    def all_connected(self) -> list[tuple[str, Record]]:
        """Return, with the pod's uid, the record of every volume of a storage system."""
        return [
            (uid, record)
            for uid, records in self._known.items()
            for record in records.values()
            if record.side and record.handle is not None
        ]

    def connected(self, volume: str) -> Record | None:
        """Return the record of a volume that some pod of this node has."""
        uid, entry = next(iter(self._users.get(volume, ())), ("", ""))
        return self._known.get(uid, {}).get(entry)

    async def grow(
        self, volume: str, size: int, secrets: Mapping[str, str], context: Mapping[str, str]
    ) -> bool:
        """Let a volume that is staged here use all of its device; may be repeated.

        The device has to have `size` bytes by now, where that is not 0.
        `secrets` are the node's for it, `context` is what attaching returned. False when it
        is not staged on this node. Raises MountFailed, from errors.Conflict when its file
        system grows only before it is mounted.
        """
        async with self._translated(volume), self._locks.hold(volume):
            record = self.connected(volume)
            staging = self._staging / volume
            if record is None or record.handle is None or not self._volumes.is_staged(staging):
                return False
            handle = dataclasses.replace(record.handle, secrets=secrets)
            side = self._side(record.side)
            await self._volumes.grow(handle, side, staging, size=size, context=context)
            return True

    # --- taking down ----------------------------------------------------------

    async def tear_down(self, uid: str) -> None:
        """Take everything of a pod down; nothing there is a success. Raises MountFailed."""
        failures: list[MountFailed] = []
        for record in list(self._known.get(uid, {}).values()):
            try:
                await self._tear_down(uid, record)
            except MountFailed as error:
                failures.append(error)
        if failures:
            raise failures[0]
        self._known.pop(uid, None)
        async with self._translated(uid):
            await asyncio.to_thread(self._records.forget_pod, uid)

    async def _tear_down(self, uid: str, record: Record) -> None:
        key: Key = record.title if record.how == "staged" else (uid, record.entry)
        async with self._translated(record.title), self._locks.hold(key):
            await asyncio.to_thread(self._records.unfinish, uid, record)
            target = self._records.mount(uid, record)
            if record.how == "staged":
                await self._volumes.unpublish(target)
                await self._release(uid, record)
            elif record.how == "bound" and record.handle is not None:
                await self._volumes.unstage(record.handle, self._side(record.side), target)
            elif record.how == "memory":
                await asyncio.to_thread(mounts.unmount, target)
            await asyncio.to_thread(self._records.remove, uid, record)
            self._known[uid].pop(record.entry, None)

    async def _release(self, uid: str, record: Record) -> None:
        """Unstage the volume when no other pod of this node uses it."""
        users = self._users.get(record.title, set())
        if users <= {(uid, record.entry)} and record.handle is not None:
            side = self._side(record.side)
            await self._volumes.unstage(record.handle, side, self._staging / record.title)
        users.discard((uid, record.entry))
        if not users:
            self._users.pop(record.title, None)

    async def drop(self) -> None:
        """Unmount everything of every pod and keep the records: the next start mounts it again."""
        for uid, records in list(self._known.items()):
            for record in list(records.values()):
                await self._drop(uid, record)

    async def _drop(self, uid: str, record: Record) -> None:
        key: Key = record.title if record.how == "staged" else (uid, record.entry)
        async with self._translated(record.title), self._locks.hold(key):
            target = self._records.mount(uid, record)
            if record.how == "directory":
                return
            await asyncio.to_thread(self._records.unfinish, uid, record)
            if record.how == "staged":
                await self._volumes.unpublish(target)
                await self._release(uid, record)
            elif record.how == "bound" and record.handle is not None:
                await self._volumes.unstage(record.handle, self._side(record.side), target)
            elif record.how == "memory":
                await asyncio.to_thread(mounts.unmount, target)

    def _side(self, name: str) -> NodeSide:
        side = self._sides.get(name)
        if side is None:
            raise errors.Unavailable(f"the {name} backend is not configured on this node")
        return side

    # --- bookkeeping ----------------------------------------------------------

    def _remember(self, uid: str, record: Record) -> None:
        self._known.setdefault(uid, {})[record.entry] = record
        if record.how == "staged":
            self._users.setdefault(record.title, set()).add((uid, record.entry))

    def _is_ready(self, uid: str, record: Record) -> bool:
        if not self._records.is_finished(uid, record):
            return False
        target = self._records.mount(uid, record)
        return target.is_dir() if record.how == "directory" else self._volumes.is_published(target)

    @contextlib.asynccontextmanager
    async def _translated(self, title: str) -> AsyncIterator[None]:
        try:
            yield
        except (errors.BackendError, OSError) as error:
            raise MountFailed(title, str(error)) from error


def _key(uid: str, order: resolving.Order) -> Key:
    """Return the lock of an order: a shared volume's own, else that of the pod's entry."""
    if isinstance(order, resolving.BackendOrder) and not order.inline:
        return order.title
    return (uid, order.entry)
