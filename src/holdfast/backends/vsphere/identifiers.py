"""What volumes, snapshots and nodes are called.

    [ds] kubevols/x.vmdk                    a VMDK in the home vCenter, as in-tree
    [Cluster/ds] kubevols/x.vmdk            the same on a datastore of a datastore cluster
    HOST/DATACENTER/[ds] kubevols/x.vmdk    a VMDK elsewhere
    fcd:UUID@DATASTORE                      a First Class Disk; DATASTORE is a managed object id
    fcd:UUID@HOST/DATASTORE                 the same in another vCenter than the home one
    UUID                                    a First Class Disk as the CSI driver wrote it
    ID+UUID                                 a snapshot of the First Class Disk ID

Invariant: `read(str(x)) == x`, and an id never holds a secret.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass

from holdfast.backends import errors

FOLDER = "kubevols"
PREFIX = "kubernetes-dynamic-"
# What CNS lets a disk be called, and of it the cluster: a UUID, and room for a digest.
LONGEST_NAME = 80
LONGEST_CLUSTER = 36
_UUID = re.compile(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")
# A datacenter's name and the address of a vCenter (IPv6) may have brackets too.
_VMDK = re.compile(r"(?:(?P<where>.+?)/)??\[(?P<store>[^\]]+)\](?![/:]) ?(?P<path>.+\.vmdk)")
_SAFE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,199}")


@dataclass(frozen=True, slots=True)
class VmdkId:
    """A VMDK's place. `pod` is its datastore cluster; `center`, `datacenter` empty at home."""

    datastore: str
    path: str
    pod: str = ""
    center: str = ""
    datacenter: str = ""

    def __str__(self) -> str:
        where = f"{self.center}/{self.datacenter}/" if self.center or self.datacenter else ""
        store = f"{self.pod}/{self.datastore}" if self.pod else self.datastore
        return f"{where}[{store}] {self.path}"

    @property
    def file(self) -> str:
        """The path as vCenter wants it: without a datastore cluster's name."""
        return f"[{self.datastore}] {self.path}"


@dataclass(frozen=True, slots=True)
class DiskId:
    """A First Class Disk. `datastore` is where it was last seen: a hint, it may move."""

    uuid: str
    datastore: str = ""
    center: str = ""

    def __str__(self) -> str:
        if not self.datastore and not self.center:
            return self.uuid
        where = f"{self.center}/{self.datastore}" if self.center else self.datastore
        return f"fcd:{self.uuid}@{where}"


@dataclass(frozen=True, slots=True)
class SnapshotId:
    """A snapshot of a First Class Disk."""

    disk: DiskId
    uuid: str

    def __str__(self) -> str:
        return f"{self.disk}+{self.uuid}"


VolumeId = VmdkId | DiskId


def read(text: str) -> VolumeId:
    """Return what an id says. Raises NotFound for what no volume here can be called."""
    match = _VMDK.fullmatch(text)
    if match is not None:
        center, _, datacenter = (match["where"] or "").partition("/")
        pod, _, datastore = match["store"].rpartition("/")
        return VmdkId(datastore, match["path"].strip(), pod, center, datacenter)
    if _UUID.fullmatch(text):
        return DiskId(text.lower())
    if text.startswith("fcd:"):
        uuid, at, where = text[4:].partition("@")
        center, _, datastore = where.rpartition("/")
        if at and _UUID.fullmatch(uuid):
            return DiskId(uuid.lower(), datastore, center)
    raise errors.NotFound(
        f'no volume is called "{text[:160]}"',
        "vSphere",
        "a volume is [datastore] path.vmdk, fcd:UUID@DATASTORE or a UUID",
    )


def read_snapshot(text: str) -> SnapshotId:
    """Return what a snapshot's id says. Raises NotFound."""
    disk, _, uuid = text.rpartition("+")
    if disk and _UUID.fullmatch(uuid):
        found = read(disk)
        if isinstance(found, DiskId):
            return SnapshotId(found, uuid.lower())
    raise errors.NotFound(f'no snapshot is called "{text[:160]}"', "vSphere")


def disk_name(name: str, cluster: str = "") -> str:
    """Return what the disk of a volume is called, in vCenter and as a file.

    Names Kubernetes makes are kept; any other is replaced by its digest where a datastore
    would not take it.
    """
    safe = name if _SAFE.fullmatch(name) else hashlib.sha256(name.encode()).hexdigest()[:40]
    return f"{own_prefix(cluster)}{safe}"


def object_name(name: str, cluster: str = "") -> str:
    """Return what the First Class Disk of a volume is called, within what CNS takes."""
    found = disk_name(name, cluster)
    if len(found) <= LONGEST_NAME:
        return found
    own = own_prefix(cluster)
    return f"{own}{hashlib.sha256(found.encode()).hexdigest()[: LONGEST_NAME - len(own)]}"


def own_prefix(cluster: str = "") -> str:
    """Return what the names of a cluster's disks begin with; another's are not listed.

    A cluster's id that would be no part of a file's name, or too long, stands as its digest.
    """
    if not cluster:
        return PREFIX
    if len(cluster) > LONGEST_CLUSTER or not _SAFE.fullmatch(cluster):
        cluster = hashlib.sha256(cluster.encode()).hexdigest()[:LONGEST_CLUSTER]
    return f"{PREFIX}{cluster}-"


def volume_path(name: str, cluster: str = "") -> str:
    """Return the path of a volume's VMDK on its datastore."""
    return f"{FOLDER}/{disk_name(name, cluster)}.vmdk"


def normalise_uuid(text: str) -> str:
    """Return a disk's UUID as 32 lower-case hex digits, the form in /dev/disk/by-id."""
    return re.sub(r"[\s-]", "", text).lower()


def node_uuid(text: str) -> str:
    """Return a VM's UUID in vCenter's form, from any of its forms; empty when it is none.

    `vsphere://UUID` is a node's providerID, `VMware-42 1a ...` its serial number in DMI.
    """
    bare = text.strip().removeprefix("vsphere://")
    digits = re.sub(r"[\s-]", "", bare.removeprefix("VMware-")).lower()
    if not re.fullmatch(r"[0-9a-f]{32}", digits):
        return ""
    parts = (digits[:8], digits[8:12], digits[12:16], digits[16:20], digits[20:])
    return "-".join(parts)


def swapped_uuid(uuid: str) -> str:
    """Return the UUID with its first three fields byte-swapped, as older kernels print it."""
    first, second, third, *rest = uuid.split("-")
    turned = (bytes.fromhex(part)[::-1].hex() for part in (first, second, third))
    return "-".join((*turned, *rest))
