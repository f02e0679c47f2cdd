"""The parameters of a class for Ceph volumes, in the three spellings in use.

The in-tree plug-in (and `ceph.com/rbd` after it) wrote the connection into the
class: `monitors`, `adminId`, `userId`. ceph-csi names a configured cluster:
`clusterID`. Both are read here into one record, whatever the provisioner's name
is, so a class may be moved from one to the other by changing that name.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from holdfast.backends import errors, parameters
from holdfast.backends.parameters import Parameter
from holdfast.backends.rbd import features, ids

MAPPERS = ("krbd", "nbd", "qemu")
IN_TREE_NAME_PREFIX = "kubernetes-dynamic-"
_WHERE = "StorageClass parameters"

KNOWN = (
    Parameter("clusterID", "name or cluster_id of a [rbd.NAME] in holdfast.toml"),
    Parameter("monitors", "addresses of the monitors, separated by commas, instead of clusterID"),
    Parameter("pool", "pool of the images; the cluster's, or rbd"),
    Parameter("dataPool", "pool of the data, where it is another one (erasure coded)"),
    Parameter("radosNamespace", "namespace in the pool"),
    Parameter("adminId", "Ceph user that makes volumes; the Secret's userID wins"),
    Parameter("adminSecretName", "Secret with the key of adminId"),
    Parameter("adminSecretNamespace", "its namespace", default="default"),
    Parameter("userId", "Ceph user of the nodes; adminId when left out"),
    Parameter("userSecretName", "Secret with the key of userId"),
    Parameter("userSecretNamespace", "its namespace; the claim's when left out"),
    Parameter("imageFormat", "2; format 1 is refused", default="2", choices=("1", "2")),
    Parameter("imageFeatures", f"features of new images; {features.DEFAULT} when left out"),
    Parameter("objectSize", "bytes per object, a power of 2 from 4096 to 33554432"),
    Parameter("stripeUnit", "bytes per stripe; only with stripeCount"),
    Parameter("stripeCount", "objects a stripe goes over; only with stripeUnit"),
    Parameter("volumeNamePrefix", "put before the volume's name to name the image"),
    Parameter("snapshotNamePrefix", "put before the snapshot's name"),
    Parameter("flatten", "when clones become independent", "auto", ("auto", "always", "never")),
    Parameter(
        "fsType",
        "file system made on the volume",
        default="ext4",
        choices=("ext4", "xfs", "btrfs"),
        aliases=("csi.storage.k8s.io/fstype",),
    ),
    Parameter(
        "mounter",
        "how nodes map images; auto takes the first that works",
        default="auto",
        choices=("auto", "rbd", "rbd-nbd", *MAPPERS),
    ),
    Parameter("mapOptions", "options for the mapper, e.g. krbd:queue_depth=256;nbd:try-netlink"),
    Parameter("unmapOptions", "the same for unmapping"),
    Parameter("tryOtherMounters", "try another mapper", "true", ("true", "false")),
    Parameter("downgradeFeatures", "nodes may take features off", "true", ("true", "false")),
    Parameter("encrypted", "only false", default="false", choices=("false",)),
)
_BY_FOLDED = {
    key.casefold(): parameter.name
    for parameter in KNOWN
    for key in (parameter.name, *parameter.aliases)
}
_NOT_SERVED = {
    "mkfsoptions": "file systems are made with the options of mkfs itself",
    "topologyconstrainedpools": "write one class for each pool, with allowedTopologies",
    "encryptionkmsid": "volumes are not encrypted by Holdfast",
    "encryptiontype": "volumes are not encrypted by Holdfast",
    "cephlogdir": "the log of each mapping is in the node's directory",
    "cephlogstrategy": "the log of each mapping is in the node's directory",
}


@dataclass(frozen=True, slots=True)
class RbdParameters:
    """A checked class. `user` and `node_user` are empty where the Secret has to say."""

    cluster: str
    monitors: tuple[str, ...]
    pool: str
    data_pool: str
    namespace: str
    user: str
    node_user: str
    features: int
    object_size: int
    stripe_unit: int
    stripe_count: int
    name_prefix: str
    snapshot_prefix: str
    flatten: str
    fs_type: str
    mapper: str
    map_options: str
    unmap_options: str
    other_mappers: bool
    downgrade: bool


def read(given: Mapping[str, str]) -> RbdParameters:
    """Check a class's parameters. Raises errors.Invalid. The keys' case does not matter."""
    values = parameters.read(_named(given), KNOWN)
    monitors = ids.split_monitors(values["monitors"])
    if values["clusterID"] and monitors:
        raise errors.Invalid(
            "clusterID and monitors are both given", _WHERE, "keep one: both say where Ceph is"
        )
    if values["imageFormat"] == "1":
        raise errors.Invalid(
            'parameter "imageFormat" cannot be "1": Ceph has given up that format',
            _WHERE,
            'write "2", or leave it out',
        )
    unit, count = _number(values, "stripeUnit"), _number(values, "stripeCount")
    if bool(unit) != bool(count):
        raise errors.Invalid("stripeUnit and stripeCount go together", _WHERE, "give both")
    for key, what in (("pool", "pool"), ("dataPool", "pool"), ("radosNamespace", "namespace")):
        if values[key]:
            ids.check_name(values[key], what)
    return RbdParameters(
        cluster=values["clusterID"],
        monitors=monitors,
        pool=values["pool"],
        data_pool=values["dataPool"],
        namespace=values["radosNamespace"],
        user=values["adminId"],
        node_user=values["userId"] or values["adminId"],
        features=features.parse(values["imageFeatures"]),
        object_size=_object_size(values),
        stripe_unit=unit,
        stripe_count=count,
        name_prefix=values["volumeNamePrefix"],
        snapshot_prefix=values["snapshotNamePrefix"],
        flatten=values["flatten"],
        fs_type=values["fsType"],
        mapper={"rbd": "krbd", "rbd-nbd": "nbd"}.get(values["mounter"], values["mounter"]),
        map_options=values["mapOptions"],
        unmap_options=values["unmapOptions"],
        other_mappers=values["tryOtherMounters"] == "true",
        downgrade=values["downgradeFeatures"] == "true",
    )


def _named(given: Mapping[str, str]) -> dict[str, str]:
    """Return the parameters by their main names; the in-tree plug-in ignored their case."""
    named: dict[str, str] = {}
    for key, value in given.items():
        if reason := _NOT_SERVED.get(key.casefold()):
            raise errors.Invalid(f'parameter "{key}" is not served', _WHERE, f"remove it: {reason}")
        named[_BY_FOLDED.get(key.casefold(), key)] = value
    return named


def _number(values: Mapping[str, str], key: str) -> int:
    text = values[key]
    if not text:
        return 0
    if not text.isascii() or not text.isdigit() or int(text) == 0:
        raise errors.Invalid(
            f'parameter "{key}" cannot be "{text}"', _WHERE, "give a whole number above zero"
        )
    return int(text)


def _object_size(values: Mapping[str, str]) -> int:
    size = _number(values, "objectSize")
    if size and (size & (size - 1) or not 4096 <= size <= 32 << 20):
        raise errors.Invalid(
            f'parameter "objectSize" cannot be "{size}"',
            _WHERE,
            "give a power of 2 from 4096 to 33554432",
        )
    return size
