"""Which Ceph cluster a class, a volume id or a setting means, and as whom to talk to it.

Clusters come from `[rbd.NAME]` in holdfast.toml, or from a class or volume that
lists monitors itself. Keys come with each call in a Secret, or from a key file of
the configured cluster.

A volume of the in-tree plug-in names the node's user, not the one that may delete
it, and its Secret holds a key without a name. So the user that belongs to a key is
remembered by the key's fingerprint when a class says it, and so are the pools in
use, without keys: whoever has to fence a node must know where it may be writing.
"""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from holdfast.backends import errors
from holdfast.backends.rbd import bindings, credentials, ids
from holdfast.backends.rbd.connections import Access, Connection, Connections
from holdfast.backends.rbd.ids import AnyId, CsiId, ImageId, MigratedId
from holdfast.backends.rbd.parameters import RbdParameters
from holdfast.backends.rbd.settings import Instance
from holdfast.backends.rbd.settings import read as read_settings
from holdfast.kit import files

DEFAULT_USER = "admin"
DEFAULT_POOL = "rbd"


@dataclass(frozen=True, slots=True)
class Place:
    """Where volumes of a class live: `cluster` is what their ids call it."""

    cluster: str
    access: Access
    pool: str
    data_pool: str
    namespace: str

    def image(self, name: str) -> ImageId:
        """Return the id of an image there."""
        return ImageId(self.cluster, self.pool, name, self.namespace)


class Clusters:
    """The clusters of this process. Its methods block."""

    def __init__(self, instances: Mapping[str, Mapping[str, object]], directory: Path) -> None:
        self.instances: Mapping[str, Instance] = read_settings(instances)
        self.connections = Connections(bindings.load)
        self._memory = _Memory(directory / "known.json")

    def of_class(self, chosen: RbdParameters, secrets: Mapping[str, str]) -> Place:
        """Return where a class puts its volumes. Raises Invalid, Unauthorized."""
        instance = self._instance_of_class(chosen)
        monitors = instance.monitors if instance else chosen.monitors
        found = credentials.of(secrets, chosen.user, "the Secret of the class")
        if found is None and instance is not None:
            found = instance.credentials()
        if found is None:
            raise errors.Unauthorized(
                "no key for Ceph: the class names no Secret and the cluster has no key_file",
                "StorageClass parameters",
                "name the Secret in the class (adminSecretName, or "
                "csi.storage.k8s.io/provisioner-secret-name), or set key_file",
            )
        user = found.user or chosen.user or (instance.user if instance else "") or DEFAULT_USER
        place = Place(
            cluster=instance.name if instance else ids.cluster_of(monitors),
            access=Access(monitors, user, found.key),
            pool=chosen.pool or (instance.pool if instance else "") or DEFAULT_POOL,
            data_pool=chosen.data_pool or (instance.data_pool if instance else ""),
            namespace=chosen.namespace or (instance.namespace if instance else ""),
        )
        return place

    def remember(self, place: Place) -> None:
        """Note that a class's connection works, for calls that are told less."""
        print_of = credentials.Credentials(place.access.user, place.access.key).fingerprint
        self._memory.add(print_of, place.access.user, (place.cluster, place.pool, place.namespace))

    @contextlib.contextmanager
    def connected(
        self, cluster: str, secrets: Mapping[str, str], user: str = ""
    ) -> Iterator[Connection]:
        """Connect to a cluster by its name in an id, as the first user whose key this is."""
        with contextlib.ExitStack() as stack:
            refused: errors.Unauthorized | None = None
            for access in self.accesses(cluster, secrets, user):
                try:
                    connection = stack.enter_context(self.connections.using(access))
                    break
                except errors.Unauthorized as error:
                    refused = refused or error
            else:
                raise refused or errors.Unauthorized(
                    "no key for this Ceph cluster",
                    cluster,
                    "give the Secret of its class, or set key_file in holdfast.toml",
                )
            yield connection

    def accesses(self, cluster: str, secrets: Mapping[str, str], user: str = "") -> list[Access]:
        """Return the accesses to try, the likeliest first. Raises NotFound, Unauthorized."""
        instance = self.find(cluster)
        monitors = self.monitors_of(cluster)
        found = credentials.of(secrets, "")
        if found is None and instance is not None:
            found = instance.credentials()
        if found is None:
            open_ones = [
                each.access
                for each in self.connections.known()
                if ids.cluster_of(each.access.monitors) == ids.cluster_of(monitors)
            ]
            return open_ones[-1:]
        guesses = (
            [found.user]
            if found.user
            else [
                self._memory.user_of(found.fingerprint),
                user,
                instance.user if instance else "",
                DEFAULT_USER,
            ]
        )
        return [Access(monitors, each, found.key) for each in dict.fromkeys(guesses) if each]

    def monitors_of(self, cluster: str) -> tuple[str, ...]:
        """Return the monitors that a cluster in an id stands for. Raises Invalid."""
        instance = self.find(cluster)
        if instance is None and not any(mark in cluster for mark in ".:[,"):
            raise self._unknown(cluster)
        return instance.monitors if instance else ids.split_monitors(cluster)

    def resolve(self, id: AnyId, secrets: Mapping[str, str]) -> ImageId:
        """Return the image an id of any form means. Raises NotFound."""
        if isinstance(id, ImageId):
            return id
        if isinstance(id, MigratedId):
            for instance in self.instances.values():
                if id.monitors_hash in ids.monitors_hashes(instance.monitors):
                    return ImageId(instance.name, id.pool, id.image)
            raise errors.NotFound(
                "its handle names a cluster by a hash of its monitors that fits none here",
                id.image,
                "configure the cluster as [rbd.NAME] with the monitors of the old volume",
            )
        with self.connected(id.cluster, secrets) as connection:
            return self._csi_image(id, connection)

    def places(self) -> Sequence[tuple[str, str, str]]:
        """Return (cluster, pool, namespace) of everything that is or was in use."""
        configured = [
            (each.name, each.pool or DEFAULT_POOL, each.namespace)
            for each in self.instances.values()
            if each.key_file
        ]
        return sorted({*configured, *self._memory.places()})

    def find(self, cluster: str) -> Instance | None:
        """Return the configured cluster of a name (or of these monitors), or None."""
        found = self.instances.get(cluster)
        return found or next(
            (
                each
                for each in self.instances.values()
                if cluster in (each.cluster_id, ids.cluster_of(each.monitors))
            ),
            None,
        )

    def close(self) -> None:
        """Give up the connections."""
        self.connections.close()

    def _instance_of_class(self, chosen: RbdParameters) -> Instance | None:
        if chosen.monitors:
            return None
        if chosen.cluster:
            found = self.find(chosen.cluster)
            if found is None:
                raise self._unknown(chosen.cluster)
            return found
        if len(self.instances) == 1:
            return next(iter(self.instances.values()))
        raise errors.Invalid(
            "it says neither clusterID nor monitors",
            "StorageClass parameters",
            f"add one; configured clusters: {', '.join(self.instances) or 'none'}",
        )

    def _unknown(self, cluster: str) -> errors.Invalid:
        return errors.Invalid(
            f'there is no Ceph cluster "{cluster}" in holdfast.toml',
            "clusterID",
            f"add [rbd.{cluster}] with its monitors; configured: "
            f"{', '.join(self.instances) or 'none'}",
        )

    def _csi_image(self, id: CsiId, connection: Connection) -> ImageId:
        from holdfast.backends.rbd import csijournal

        instance = self.find(id.cluster)
        name = instance.name if instance else id.cluster
        namespace = instance.namespace if instance else ""
        pool, image = csijournal.find(connection, id, namespace)
        return ImageId(name, pool, image, namespace)


class _Memory:
    """Users by their keys' fingerprints, and places in use; on disk, without any key."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._users: dict[str, str] = {}
        self._places: set[tuple[str, str, str]] = set()
        self._loaded = False

    def user_of(self, fingerprint: str) -> str:
        with self._lock:
            self._load()
            return self._users.get(fingerprint, "")

    def places(self) -> set[tuple[str, str, str]]:
        with self._lock:
            self._load()
            return set(self._places)

    def add(self, fingerprint: str, user: str, place: tuple[str, str, str]) -> None:
        with self._lock:
            self._load()
            if self._users.get(fingerprint) == user and place in self._places:
                return
            self._users[fingerprint] = user
            self._places.add(place)
            content = {"users": self._users, "places": sorted(self._places)}
            self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            files.write_atomic(self._path, json.dumps(content).encode())

    def _load(self) -> None:
        if self._loaded:
            return
        with contextlib.suppress(FileNotFoundError, ValueError, KeyError):
            content = json.loads(self._path.read_bytes())
            self._users = dict(content["users"])
            self._places = {(p[0], p[1], p[2]) for p in content["places"]}
        self._loaded = True
