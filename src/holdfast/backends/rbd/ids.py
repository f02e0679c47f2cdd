"""Volume ids: which cluster, pool and image a volume is, without any secret.

    rbd:CLUSTER/POOL/IMAGE                our own; POOL may be POOL:NAMESPACE
    rbd:CLUSTER/POOL/IMAGE@SNAPSHOT       a snapshot
    0001-LLLL-CLUSTERID-POOLNUMBER-UUID   made by ceph-csi
    mig_mons-MD5_image-UUID_HEXPOOL       ceph-csi's for volumes of the in-tree plug-in
    IMAGE                                 ceph-csi's static volumes; see `parse_handle`

CLUSTER is the name of a configured cluster, or its monitors, sorted and
separated by commas, for classes and volumes that carry the connection
themselves. The forms of ceph-csi name things by number and hash, which `clusters`
resolves; they are only ever read.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from holdfast.backends import errors

PREFIX = "rbd:"
IN_TREE_PREFIX = "kubernetes-dynamic-pvc-"
_CSI = re.compile(r"0001-([0-9a-f]{4})-(.+)-([0-9a-f]{16})-([0-9a-f-]{36})")
_MIGRATED = re.compile(r"mig_mons-([0-9a-f]{32})_image-([^_]+)_((?:[0-9a-f]{2})+)")
_OWN = re.compile(r"rbd:([^/]+)/([^/:@]+)(?::([^/:@]+))?/([^/@]+)(?:@([^/@]+))?")


@dataclass(frozen=True, slots=True)
class ImageId:
    """One image, or with `snapshot` one snapshot of it. `str()` gives the volume id."""

    cluster: str
    pool: str
    image: str
    namespace: str = ""
    snapshot: str = ""

    @property
    def spec(self) -> str:
        """The image as Ceph's own commands write it."""
        pool = f"{self.pool}/{self.namespace}" if self.namespace else self.pool
        return f"{pool}/{self.image}" + (f"@{self.snapshot}" if self.snapshot else "")

    def __str__(self) -> str:
        pool = f"{self.pool}:{self.namespace}" if self.namespace else self.pool
        text = f"{PREFIX}{self.cluster}/{pool}/{self.image}"
        return f"{text}@{self.snapshot}" if self.snapshot else text


@dataclass(frozen=True, slots=True)
class CsiId:
    """A handle of ceph-csi: pool by number, image by the UUID in its journal."""

    cluster: str
    pool_number: int
    uuid: str


@dataclass(frozen=True, slots=True)
class MigratedId:
    """A handle of ceph-csi for an in-tree volume: the cluster by a hash of its monitors."""

    monitors_hash: str
    pool: str
    image: str


AnyId = ImageId | CsiId | MigratedId


def parse(text: str) -> AnyId | None:
    """Read an id of any form; None for a text that is none of ours."""
    if own := _OWN.fullmatch(text):
        return ImageId(own[1], own[2], own[4], own[3] or "", own[5] or "")
    if csi := _CSI.fullmatch(text):
        if int(csi[1], 16) == len(csi[2]):
            return CsiId(csi[2], int(csi[3], 16), csi[4])
    elif migrated := _MIGRATED.fullmatch(text):
        pool = bytes.fromhex(migrated[3]).decode(errors="replace")
        return MigratedId(migrated[1], pool, IN_TREE_PREFIX + migrated[2])
    return None


def parse_handle(text: str, attributes: Mapping[str, str]) -> AnyId | None:
    """Read a handle with the attributes of its PersistentVolume.

    ceph-csi's volumes that people made by hand have the image's name as handle; which cluster
    and pool it is in only the attributes say.
    """
    found = parse(text)
    if found is None and attributes.get("staticVolume", "").casefold() == "true":
        namespace = attributes.get("radosNamespace", "")
        cluster, pool = attributes.get("clusterID", ""), attributes.get("pool", "")
        found = parse(str(ImageId(cluster, pool, text, namespace)))
    return found


def cluster_of(monitors: Iterable[str]) -> str:
    """Return the name that monitors stand for in an id, in whatever order they are given."""
    # Ceph writes a nonce behind an address, always 0 for monitors; a slash ends an id's part.
    return ",".join(sorted({re.sub(r"/\d+", "", each) for each in monitors}))


def split_monitors(text: str) -> tuple[str, ...]:
    """Read monitors separated by commas; the commas inside of [...] do not count."""
    parts = re.findall(r"\[[^\]]*\](?::\d+)?|[^,\s]+", text)
    return tuple(part.strip() for part in parts)


def monitors_hashes(monitors: Iterable[str]) -> set[str]:
    """Return the hashes that ceph-csi may have made of these monitors."""
    given = list(monitors)
    return {
        hashlib.md5(",".join(order).encode(), usedforsecurity=False).hexdigest()
        for order in (given, sorted(given))
    }


def check_name(name: str, what: str = "image") -> None:
    """Refuse what cannot be part of an id. Raises errors.Invalid."""
    if not re.fullmatch(r"[A-Za-z0-9._][A-Za-z0-9._+-]*", name) or len(name) > 200:
        raise errors.Invalid(
            f'"{name[:80]}" cannot be the name of a Ceph {what}',
            "",
            "use letters, digits, '.', '_' and '-', at most 200 characters",
        )
