"""Sees to it that an image is open for writing on one machine at a time.

Ceph's own exclusive lock passes from client to client, which protects blocks and
not file systems. So before an image is mapped its watchers are looked at: with
anybody else there it is refused, and the error names the holder. A lock with a
short life, held from that look until our own client is one of the watchers, keeps
two machines from looking at the same moment.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Collection, Iterator, Sequence

from holdfast.backends import errors
from holdfast.backends.rbd import failures, fencing, usage
from holdfast.backends.rbd.shelf import Shelf
from holdfast.backends.rbd.usage import User

_LOCK = "holdfast"
LOCK_SECONDS = 60
# A dead client's watch goes after 30 s; Ceph's setting for it may be longer.
PATIENCE_SECONDS = 45.0
APPEAR_SECONDS = 5.0
_POLL = 0.05


@contextlib.contextmanager
def claimed(shelf: Shelf, image: str, node: str) -> Iterator[None]:
    """Be the only machine that maps this image. Raises errors.Conflict at once when not."""
    spec, name = shelf.id(image).spec, f"holdfast.mapping.{image}"
    rados, taken = shelf.connection.modules.rados, time.monotonic()
    with failures.translated("claim the image", spec):
        try:
            shelf.context.lock_exclusive(name, _LOCK, node, desc=node, duration=LOCK_SECONDS)
        except (rados.ObjectBusy, rados.ObjectExists) as error:
            raise errors.Conflict(
                "another machine is mapping the image right now", spec, "this is tried again"
            ) from error
    try:
        yield
    finally:
        # Removing the object removes the lock with it; by the end of its life it may be
        # another machine's.
        if time.monotonic() < taken + LOCK_SECONDS / 2:
            with (
                contextlib.suppress(errors.BackendError),
                failures.translated("give up the claim", spec),
            ):
                shelf.context.remove_object(name)


def refuse_held(shelf: Shelf, image: str, node: str, found: Sequence[User]) -> None:
    """Raise errors.Conflict, naming the holders, when another client has the image open.

    `found` are its users. The caller has no mapping of the image that lives: a client that was
    noted for this node is dead, and it is fenced, or waited for where this user may not fence.
    """
    for user in found:
        if user.node == node:
            bury(shelf, image, user.address, PATIENCE_SECONDS)
    others = usage.users(shelf, image) if found else ()
    if others:
        raise errors.Conflict(
            f"the image is in use by {', '.join(map(str, others))}; "
            f"it can be written on one node at a time and this is {node}",
            shelf.id(image).spec,
            "stop the pod there; if that machine is lost, taint it "
            "node.kubernetes.io/out-of-service so that it is fenced",
        )


def register(
    shelf: Shelf,
    image: str,
    node: str,
    before: Collection[str],
    patience: float = APPEAR_SECONDS,
    *,
    shows: bool = True,
) -> str:
    """Note our new client, and return its address once it shows; empty if it never does.

    Whoever has the claim is the only one to add a client that stays. One that looks after the
    image for a moment, to grow it or to take a snapshot, is waited for: noted in place of ours
    it would be fenced in its place, and ours could go on to write. Raises errors.Conflict.
    Readers' clients show with some mappers only, and are not waited for (`shows`).
    """
    deadline = time.monotonic() + patience
    while True:
        fresh = [
            user.address
            for user in usage.users(shelf, image)
            if user.address not in before and user.node in ("", node)
        ]
        if len(fresh) == 1:
            usage.note(shelf, image, User(fresh[0], node))
            return fresh[0]
        if time.monotonic() > deadline or not (fresh or shows):
            break
        time.sleep(_POLL)
    if not fresh:
        return ""
    raise errors.Conflict(
        f"several clients have the image open ({', '.join(fresh)}), so it is not known which of "
        f"them is node {node}'s",
        shelf.id(image).spec,
        "this is tried again; end what else has it open (rbd status shows it)",
    )


def bury(shelf: Shelf, image: str, address: str, patience: float = 0.0) -> None:
    """Make sure that a dead client of ours stops nobody, and remove the note about it."""
    watching = {user.address for user in usage.users(shelf, image)}
    if address in watching:
        try:
            fencing.blocklist(shelf.connection, "add", address)
        except errors.Unauthorized:
            pass
        deadline = time.monotonic() + patience
        while address in {user.address for user in usage.users(shelf, image)}:
            if time.monotonic() > deadline:
                return
            time.sleep(_POLL)
    usage.forget(shelf, image, address)
