"""What a class may ask for: every parameter of three generations, and their ranges.

`kubernetes.io/vsphere-volume` knows datastore, disk format, policy or six capabilities of
vSAN; `csi.vsphere.vmware.com` knows policy and datastore URL, and the old ones again with
`-migrationparam` behind their name when a cluster migrates. Keys are read without regard to
case, as both do. A class that contradicts itself is refused before anything is made.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, cast

from holdfast.backends import errors, parameters
from holdfast.backends.parameters import Parameter

Format = Literal["thin", "zeroedthick", "eagerzeroedthick"]
FORMATS = ("thin", "zeroedthick", "eagerzeroedthick")
FILE_SYSTEMS = ("ext4", "ext3", "ext2", "xfs", "btrfs")
_MIGRATED = "-migrationparam"

# vSAN's capabilities: key of the class, name in a policy, least, most, factor.
CAPABILITIES: tuple[tuple[str, str, int, int | None, int], ...] = (
    ("hostFailuresToTolerate", "hostFailuresToTolerate", 0, 3, 1),
    ("forceProvisioning", "forceProvisioning", 0, 1, 1),
    ("cacheReservation", "cacheReservation", 0, 100, 10_000),
    ("diskStripes", "stripeWidth", 1, 12, 1),
    ("objectSpaceReservation", "proportionalCapacity", 0, 100, 1),
    ("iopsLimit", "iopsLimit", 0, None, 1),
)

KNOWN: tuple[Parameter, ...] = (
    Parameter("datastore", "datastore, datastore cluster, or CLUSTER/DATASTORE"),
    Parameter("datastoreURL", "URL of the datastore, ds:///vmfs/volumes/.../"),
    Parameter("diskFormat", "how space is given to the disk", "thin", FORMATS),
    Parameter("storagePolicyName", "storage policy the disk gets"),
    Parameter("fsType", "file system that the node makes", ""),
    Parameter("disk", "plain VMDK file or First Class Disk", "", ("", "vmdk", "fcd")),
    Parameter("vCenter", "address of the vCenter, where several are configured"),
    Parameter("csiMigration", "set by Kubernetes for migrated classes", "", ("", "true", "false")),
    *(Parameter(key, "vSAN capability") for key, *_ in CAPABILITIES),
)


@dataclass(frozen=True, slots=True)
class Wish:
    """A class's parameters, understood."""

    disk: Literal["vmdk", "fcd"] = "vmdk"
    format: Format = "thin"
    datastore: str = ""
    datastore_url: str = ""
    policy: str = ""
    capabilities: tuple[tuple[str, int], ...] = ()
    fs_type: str = ""
    center: str = ""

    @property
    def raw_policy(self) -> str:
        """The capabilities as vSAN's own text, empty for none."""
        rules = "".join(f'("{name}" i{value})' for name, value in self.capabilities)
        return f"({rules})" if rules else ""


def read(given: Mapping[str, str]) -> Wish:
    """Return what a class wants; raises errors.Invalid naming key and possible values."""
    values = parameters.read(_canonical(given), KNOWN)
    capabilities = tuple(_capability(values, *each) for each in CAPABILITIES if values[each[0]])
    if capabilities and values["storagePolicyName"]:
        raise errors.Invalid(
            "storagePolicyName cannot be combined with vSAN capabilities",
            "StorageClass parameters",
            "keep the policy, or the capabilities",
        )
    if values["datastore"] and values["datastoreURL"]:
        raise errors.Invalid(
            "datastore and datastoreURL name the datastore twice",
            "StorageClass parameters",
            "keep one of them",
        )
    fs_type = values["fsType"].lower()
    if fs_type and fs_type not in FILE_SYSTEMS:
        raise errors.Invalid(
            f'fsType cannot be "{values["fsType"]}"',
            "StorageClass parameters",
            f"possible values: {', '.join(FILE_SYSTEMS)}",
        )
    migrated = values["csiMigration"] == "true"
    disk = "vmdk" if migrated else values["disk"] or "vmdk"
    if disk == "fcd" and capabilities:
        raise errors.Invalid(
            "First Class Disks take vSAN capabilities only from a policy",
            "StorageClass parameters",
            "make a policy with these rules and name it as storagePolicyName",
        )
    return Wish(
        disk=cast(Literal["vmdk", "fcd"], disk),
        format=cast(Format, values["diskFormat"]),
        datastore=values["datastore"],
        datastore_url=values["datastoreURL"],
        policy=values["storagePolicyName"],
        capabilities=capabilities,
        fs_type=fs_type,
        center=values["vCenter"],
    )


def _canonical(given: Mapping[str, str]) -> dict[str, str]:
    """Give every key its usual spelling; a migrated key is the key it migrates."""
    known = {each.name.lower(): each.name for each in KNOWN}
    found: dict[str, str] = {}
    for key, value in given.items():
        plain = key.lower().removesuffix(_MIGRATED)
        name = known.get(plain, key)
        text = value.lower() if plain in ("diskformat", "csimigration", "disk") else value
        if found.setdefault(name, text) != text:
            raise errors.Invalid(
                f'"{key}" is given twice, as "{found[name]}" and "{value}"',
                "StorageClass parameters",
                f"keep one {name}",
            )
    return found


def _capability(
    values: Mapping[str, str], key: str, name: str, least: int, most: int | None, factor: int
) -> tuple[str, int]:
    text = values[key]
    number = int(text) if text.isascii() and text.isdigit() else -1
    if number < least or (most is not None and number > most):
        allowed = f"from {least} to {most}" if most is not None else f"of at least {least}"
        raise errors.Invalid(
            f'{key} cannot be "{text}"', "StorageClass parameters", f"give a whole number {allowed}"
        )
    return name, number * factor
