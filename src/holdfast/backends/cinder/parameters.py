"""The StorageClass parameters of Cinder volumes, checked and typed.

`type` and `availability` are those of `cinder.csi.openstack.org` and of the
in-tree `kubernetes.io/cinder`; `cloud` chooses among several clouds. Sizes are
whole GiB in Cinder, and are rounded up.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from holdfast.backends import errors, parameters
from holdfast.backends.protocol import VolumeRequest

GIB = 1 << 30
ZONE = "topology.cinder.csi.openstack.org/zone"
# Where a node's zone stands besides: Kubernetes' own labels, the newest first.
_ZONES = (ZONE, "topology.kubernetes.io/zone", "failure-domain.beta.kubernetes.io/zone")

KNOWN = (
    parameters.Parameter("type", "volume type, by name or id; the cloud's default without one"),
    parameters.Parameter("availability", "Cinder's availability zone; the node's without one"),
    parameters.Parameter(
        "fsType",
        "file system made on the volume",
        default="ext4",
        choices=("ext4", "ext3", "xfs", "btrfs"),
        aliases=("fstype", "csi.storage.k8s.io/fstype"),
    ),
    parameters.Parameter("cloud", "which [cinder.NAME] of the configuration; the default without"),
)
SNAPSHOT_KNOWN = (
    parameters.Parameter(
        "force-create",
        "snapshots of volumes in use need no force; accepted as others write it",
        default="false",
        choices=("true", "false"),
    ),
    parameters.Parameter("type", "what is made", default="snapshot", choices=("snapshot",)),
)


@dataclass(frozen=True, slots=True)
class CinderParameters:
    """Empty texts are left to the cloud."""

    type: str
    availability: str
    fs_type: str
    cloud: str


def read(given: Mapping[str, str]) -> CinderParameters:
    """Check a class's parameters. Raises errors.Invalid."""
    values = parameters.read(given, KNOWN)
    return CinderParameters(
        values["type"], values["availability"], values["fsType"], values["cloud"]
    )


def gibibytes(size: int) -> int:
    """Return how many GiB a volume of `size` bytes takes. Raises errors.Invalid."""
    if size <= 0:
        raise errors.Invalid(f"a volume of {size} bytes", "request", "ask for more than zero")
    return -(-size // GIB)


def zone(request: VolumeRequest, chosen: CinderParameters, ignore_volume_az: bool) -> str:
    """Return the zone to make the volume in; '' leaves it to Cinder."""
    if chosen.availability or ignore_volume_az:
        return chosen.availability
    segments = request.topology or {}
    return next((segments[key] for key in _ZONES if segments.get(key)), "")
