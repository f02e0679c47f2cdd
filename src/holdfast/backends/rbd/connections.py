"""Kept connections to Ceph clusters, one for each cluster, user and key.

Connecting takes 10 to 15 ms and a ticket; an operation takes one. A connection
is made without reading any configuration file, so nothing on the machine
changes what a class says, and the key goes to the library in memory.

Invariant: a connection that the cluster fenced, or that failed to be made, is
not kept: the next call connects anew.
"""

from __future__ import annotations

import contextlib
import errno
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from holdfast.backends import errors
from holdfast.backends.rbd import bindings, failures, monitors

CONNECT_SECONDS = 5
OPERATION_SECONDS = 30
KEPT = 16
# How soon a client asks anew where its data is when an OSD has died without a word. Ceph's own
# 5 and 10 s add up to 15 s in which a pod stands still.
RECOVERY = {"objecter_tick_interval": "1", "objecter_timeout": "2"}

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Access:
    """Where a cluster is and as whom to talk to it. Monitors are as Ceph writes them."""

    monitors: tuple[str, ...]
    user: str
    key: str = field(repr=False)

    @property
    def place(self) -> str:
        """Name the cluster in an error."""
        return f"Ceph at {','.join(self.monitors)}"


class Connection:
    """One connection. Its methods block and may be used by several threads."""

    def __init__(self, modules: bindings.Bindings, access: Access) -> None:
        self.modules = modules
        self.access = access
        self.users = 0
        self._contexts: dict[tuple[str, str], Any] = {}
        self._lock = threading.Lock()
        self.rados = _connect(modules, access)

    def pool(self, name: str, namespace: str = "") -> Any:
        """Return the I/O context of a pool. Raises errors.Unavailable when there is no such."""
        with self._lock:
            found = self._contexts.get((name, namespace))
            if found is None:
                found = self._open(name)
                found.set_namespace(namespace)
                self._contexts[name, namespace] = found
            return found

    def forget_pools(self) -> None:
        """Look pools up anew: one that was removed and made again has another number.

        Their contexts are closed when the last call that uses them is done.
        """
        with self._lock:
            self._contexts.clear()

    def close(self) -> None:
        """Give up the connection."""
        with self._lock:
            for context in self._contexts.values():
                context.close()
            self._contexts.clear()
        self.rados.shutdown()

    def _open(self, name: str) -> Any:
        try:
            with failures.translated(f'open pool "{name}"', self.access.place):
                return self.rados.open_ioctx(name)
        except errors.NotFound as error:
            raise PoolMissing(
                f'there is no pool "{name}"',
                self.access.place,
                f"make it: holdfast prepare ceph --pool {name}, or correct the class",
            ) from error


class PoolMissing(errors.Unavailable):
    """The cluster has no such pool (yet)."""


class Connections:
    """The connections of one process. Thread-safe."""

    def __init__(self, load: Callable[[], bindings.Bindings] = bindings.load) -> None:
        self._load = load
        self._kept: dict[Access, Connection] = {}
        self._lock = threading.Lock()
        self._retired: list[Connection] = []
        self._making: dict[Access, threading.Lock] = {}

    @contextlib.contextmanager
    def using(self, access: Access) -> Iterator[Connection]:
        """Give a connection to the block; a fenced one is not used again.

        Raises Unauthorized, Unavailable when there is none to be had.
        """
        connection = self._get(access)
        try:
            yield connection
        except errors.BackendError as error:
            cause = error.__cause__
            number = failures.number_of(cause) if cause is not None else None
            if number == failures.FENCED:
                self.forget(connection)
            elif number == errno.ENOENT:
                connection.forget_pools()
            raise
        finally:
            with self._lock:
                connection.users -= 1
            self._close_surplus()

    def known(self) -> Sequence[Connection]:
        """Return the connections that are open now."""
        with self._lock:
            return list(self._kept.values())

    def forget(self, connection: Connection) -> None:
        """Let the next call connect anew."""
        with self._lock:
            if self._kept.get(connection.access) is connection:
                del self._kept[connection.access]
                self._retired.append(connection)

    def _get(self, access: Access) -> Connection:
        with self._lock:
            found = self._taken(access)
            if found is not None:
                return found
            making = self._making.setdefault(access, threading.Lock())
        with making:
            with self._lock:
                found = self._taken(access)
            if found is not None:
                return found
            made = Connection(self._load(), access)
            with self._lock:
                made.users += 1
                self._kept[access] = made
                self._making.pop(access, None)
            return made

    def _taken(self, access: Access) -> Connection | None:
        found = self._kept.pop(access, None)
        if found is not None:
            found.users += 1
            self._kept[access] = found  # the most recently used comes last
        return found

    def _close_surplus(self) -> None:
        """Close what nobody uses and nobody will: retired connections, and the oldest ones."""
        with self._lock:
            for access in list(self._kept)[: max(0, len(self._kept) - KEPT)]:
                self._retired.append(self._kept.pop(access))
            closing = [each for each in self._retired if not each.users]
            self._retired = [each for each in self._retired if each.users]
        for connection in closing:
            connection.close()

    def close(self) -> None:
        """Give up all connections."""
        with self._lock:
            closing = [*self._kept.values(), *self._retired]
            self._kept.clear()
            self._retired.clear()
        for connection in closing:
            connection.close()


def _connect(modules: bindings.Bindings, access: Access) -> Any:
    settings = {
        "mon_host": ",".join(access.monitors),
        "key": access.key,
        "client_mount_timeout": str(CONNECT_SECONDS),
        # Without limits a call waits for ever for an OSD that is gone, and takes a thread with it.
        "rados_osd_op_timeout": str(OPERATION_SECONDS),
        "rados_mon_op_timeout": str(OPERATION_SECONDS),
        **RECOVERY,
        # A snapshot may be cloned without being protected, and may go before its clones.
        "rbd_default_clone_format": "2",
        "log_to_stderr": "false",
        "err_to_stderr": "false",
        "log_file": "",
        "admin_socket": "",
    }
    try:
        cluster = modules.rados.Rados(rados_id=access.user, conffile=None, conf=settings)
    except modules.rados.Error as error:
        raise errors.Invalid(
            f"Ceph cannot read the monitors' addresses ({error})",
            access.place,
            "write them as HOST:PORT, separated by commas",
        ) from error
    try:
        cluster.connect()
    except modules.rados.Error as error:
        cluster.shutdown()
        raise _refused(access, error) from error
    return cluster


def _refused(access: Access, error: Exception) -> errors.BackendError:
    number = failures.number_of(error)
    if number in (1, 13):
        return errors.Unauthorized(
            f"the monitors refuse client.{access.user}: the key is another user's, or there is "
            "no such user",
            access.place,
            f"compare the Secret with `ceph auth get-key client.{access.user}`",
        )
    if number in (110, 4) and not all(monitors.unreachable(each) for each in access.monitors):
        # On ports that are not Ceph's own the library tries both of its protocols in turn,
        # and takes a refusal for a reason to go on trying.
        return errors.Unauthorized(
            f"the monitors refuse client.{access.user}: they accept connections, but there was no "
            f"login within {CONNECT_SECONDS} s",
            access.place,
            f"compare the Secret with `ceph auth get-key client.{access.user}`; when they are "
            "equal, look at `ceph -s`: the monitors need a quorum",
        )
    if number in (110, 4):
        return errors.Unavailable(
            f"no monitor answered within {CONNECT_SECONDS} s",
            access.place,
            "check the addresses, the ports (3300 and 6789) and firewalls",
        )
    if number == 2:
        return errors.Unauthorized(
            f"Ceph found no key for client.{access.user}", access.place, "name it in the Secret"
        )
    return errors.Unavailable(f"cannot connect ({error})", access.place, "check the addresses")
