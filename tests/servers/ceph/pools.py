"""A pool of a test's cluster, with its user, as Holdfast and the tests see it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from servers.ceph.cluster import Cluster


@dataclass(frozen=True)
class Pool:
    """A pool of the cluster, its user, and how Holdfast is told of them."""

    ceph: Cluster
    name: str
    user: str
    key: str
    key_file: Path

    @property
    def instances(self) -> dict[str, dict[str, object]]:
        """The section `[rbd.main]`."""
        section: dict[str, object] = {
            "monitors": [self.ceph.monitor],
            "user": self.user,
            "key_file": str(self.key_file),
            "pool": self.name,
        }
        return {"main": section}

    @property
    def cluster_id(self) -> str:
        """What ceph-csi's classes call the cluster."""
        return "b9127830-b0cc-4e34-aa47-9d1a2e9949a8"

    @property
    def settings(self) -> str:
        """The section as holdfast.toml has it, with the name of ceph-csi's classes."""
        lines = ["[rbd.main]", f'monitors = ["{self.ceph.monitor}"]', f'user = "{self.user}"']
        lines += [f'key_file = "{self.key_file}"', f'pool = "{self.name}"']
        return "\n".join([*lines, f'cluster_id = "{self.cluster_id}"', ""])

    @property
    def secret(self) -> dict[str, str]:
        """What a Secret of ceph-csi holds."""
        return {"userID": self.user, "userKey": self.key}

    def images(self) -> list[str]:
        """The images there are."""
        return self.ceph.images(self.name)

    def leftovers(self) -> set[str]:
        """Objects that belong to no image and are not the pool's own or Holdfast's notes."""
        own = {"rbd_directory", "rbd_info", "rbd_trash", "rbd_children", "rbd_namespace"}
        return {
            name
            for name in self.ceph.objects(self.name)
            if name not in own and not name.startswith("holdfast.")
        }
