"""Who uses an image: the cluster's watchers, with the names of nodes from our own notes.

Whoever has an image open for writing watches it, and the cluster drops the watch
of a client that is gone. That is the truth about use; the note a node leaves when
it maps an image only adds the node's name to a client's address.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from holdfast.backends import errors
from holdfast.backends.rbd import failures
from holdfast.backends.rbd.shelf import Shelf


@dataclass(frozen=True, slots=True)
class User:
    """A client that has an image open; `node` is empty for one that left no note."""

    address: str
    node: str = ""

    def __str__(self) -> str:
        return f"{self.node} (client {self.address})" if self.node else f"client {self.address}"


def users(shelf: Shelf, image: str) -> Sequence[User]:
    """Return the clients that have an image open for writing. Raises NotFound."""
    with (
        shelf.opened(image) as handle,
        failures.translated("list the image's watchers", shelf.id(image).spec),
    ):
        addresses = sorted({str(each["addr"]) for each in handle.watchers_list()})
    return [User(address, _node(shelf, image, address)) for address in addresses]


def refuse_used(shelf: Shelf, image: str, what: str) -> None:
    """Raise errors.Conflict naming clients and nodes when anybody has the image open."""
    found = users(shelf, image)
    if found:
        raise errors.Conflict(
            f"cannot {what}: the image is in use by {', '.join(map(str, found))}",
            shelf.id(image).spec,
            "stop the pod there; a machine that is lost has to be fenced first "
            f"(ceph osd blocklist add {found[0].address})",
        )


def note(shelf: Shelf, image: str, user: User) -> None:
    """Leave a note that a node has mapped an image under a client's address."""
    shelf.holders.set(_key(image, user.address), {"node": user.node, "address": user.address})


def forget(shelf: Shelf, image: str, address: str) -> None:
    """Remove a note."""
    shelf.holders.remove(_key(image, address))


def clients_of(shelf: Shelf, node: str) -> set[str]:
    """Return the addresses a node has left notes of, whether they have an image open or not."""
    return {
        key.partition("/")[2] for key, value in shelf.holders.items() if value.get("node") == node
    }


def held(shelf: Shelf) -> dict[str, list[User]]:
    """Return by image the noted users that really have it open."""
    noted: dict[str, list[User]] = {}
    for key, value in shelf.holders.items():
        image, _, address = key.partition("/")
        noted.setdefault(image, []).append(User(address, str(value.get("node", ""))))
    found: dict[str, list[User]] = {}
    for image, claimed in noted.items():
        try:
            watching = {user.address for user in users(shelf, image)}
        except errors.NotFound:
            continue
        if real := [user for user in claimed if user.address in watching]:
            found[image] = real
    return found


def _node(shelf: Shelf, image: str, address: str) -> str:
    return str((shelf.holders.get(_key(image, address)) or {}).get("node", ""))


def _key(image: str, address: str) -> str:
    return f"{image}/{address}"
