"""Chooses the datastore of a new volume.

A pod may run on any node, so its disk has to lie where the hosts of all node VMs can reach
it; with a chosen zone, of the VMs in that zone. Among the datastores a class allows, those
in service with room are taken, the freest first; a policy filters them once more.

The node VMs are those in the workspace's folder. Without a folder nothing is known of
nodes, and any datastore will do.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from holdfast.backends import errors
from holdfast.backends.vsphere import inventory, policies, topology
from holdfast.backends.vsphere.gateway import Link
from holdfast.backends.vsphere.inventory import Datacenter, Datastore, Machine
from holdfast.backends.vsphere.parameters import Wish
from holdfast.kit import suggest

# The largest virtual disk vSphere makes: 62 TiB.
LARGEST = 62 << 40
_NOT_SHARED = "The specified datastore {} is not a shared datastore across node VMs"


def home(link: Link) -> Datacenter:
    """Return the datacenter where new volumes go."""
    return link.reader.datacenter(link.workspace.datacenter)


def folder_path(datacenter: Datacenter, name: str) -> str:
    """Return the inventory path of the VM folder a configuration names."""
    return name.rstrip("/") if name.startswith("/") else f"{datacenter.path}/vm/{name.strip('/')}"


def nodes(link: Link, datacenter: Datacenter) -> list[Machine]:
    """Return the node VMs in a datacenter: those in the workspace's folder; none without one."""
    name = link.workspace.folder
    if not name:
        return []
    try:
        folder = link.reader.folder(datacenter, name)
    except errors.NotFound:
        if datacenter.moid == home(link).moid:
            raise
        return []
    if name.startswith("/") and not name.startswith(f"{datacenter.path}/"):
        return []
    return link.reader.machines(folder)


def candidates(
    link: Link,
    wish: Wish,
    size: int,
    segments: Mapping[str, str] | None = None,
) -> tuple[list[Datastore], policies.Policy | None]:
    """Return where the volume may go, best first, and the policy it gets.

    Raises Invalid, NotFound for what the class names, Exhausted when there is no room.
    """
    if size > LARGEST:
        raise errors.Invalid(
            f"{size} bytes are more than a virtual disk can have", "vSphere", "at most 62Ti"
        )
    everything = _considered(link, wish)
    asked = _asked(link, wish, everything)
    found = [(each, needing(link, each, segments)) for each in asked]
    reachable = [each for each, machines in found if each in inventory.shared([each], machines)]
    where = link.session.where
    if not reachable:
        machines = found[0][1] if found else []
        raise _unreachable(wish, link.workspace.default_datastore, asked, machines, where)
    _check_vsan(wish, reachable, where)
    policy = link.policies.named(wish.policy) if wish.policy else None
    if policy is not None:
        reachable = _compatible(link, policy, reachable, wish, where)
    return _with_room(reachable, wish, size, where), policy


def everywhere(link: Link) -> list[Datastore]:
    """Return the datastores of all datacenters this vCenter is used for."""
    return [
        each
        for datacenter in link.reader.datacenters()
        for each in link.reader.datastores(datacenter)
    ]


def needing(
    link: Link, store: Datastore, segments: Mapping[str, str] | None = None
) -> list[Machine]:
    """Return the node VMs that have to reach a datastore.

    Those of the chosen node's zone; without one, those of the zones the datastore is tagged
    with; for a datastore without tags, all in its datacenter.
    """
    machines = nodes(link, store.datacenter)
    zones = topology.read(link)
    if topology.zoned(segments):
        return topology.within(link, machines, segments)
    of_store = set(zones.zones.get(store.moid, ()))
    if not of_store:
        return machines
    return [each for each in machines if topology.place_of(link, each, zones)[1] in of_store]


def _considered(link: Link, wish: Wish) -> list[Datastore]:
    """Return where to look for the class's datastore: at home, or everywhere if it says so."""
    if wish.datastore_url or wish.datastore.startswith("/"):
        return everywhere(link)
    return link.reader.datastores(home(link))


def matching(datastores: Sequence[Datastore], name: str) -> list[Datastore]:
    """Return the datastores a name means: one, those of a cluster, or CLUSTER/DATASTORE."""
    wanted = name.strip("/")
    found = [each for each in datastores if each.name == wanted]
    found = found or [each for each in datastores if each.pod and each.pod == wanted]
    return found or [
        each
        for each in datastores
        if "/".join((*each.folders, each.name)) == wanted
        or f"{each.pod}/{each.name}" == wanted
        or f"{each.datacenter.path}/datastore/{'/'.join((*each.folders, each.name))}".strip("/")
        == wanted
    ]


def by_url(datastores: Iterable[Datastore], url: str) -> list[Datastore]:
    """Return the datastore with a URL, however it ends."""
    return [each for each in datastores if each.url.rstrip("/") == url.rstrip("/")]


def _asked(link: Link, wish: Wish, everything: Sequence[Datastore]) -> list[Datastore]:
    where = link.session.where
    if wish.datastore_url:
        found = by_url(everything, wish.datastore_url)
        if not found:
            raise errors.NotFound(f'no datastore with the URL "{wish.datastore_url}"', where)
        return found
    # A policy chooses among all datastores unless the class names one.
    name = wish.datastore or ("" if wish.policy else link.workspace.default_datastore)
    if not name:
        return [each for each in everything if each.usable]
    found = matching(everything, name)
    if not found:
        names = [each.name for each in everything]
        guess = suggest.nearest(name, names)
        raise errors.NotFound(
            f'no datastore or datastore cluster "{name}"',
            where,
            f'did you mean "{guess}"?' if guess else f"there are: {', '.join(names[:8])}",
        )
    return found


def _unreachable(
    wish: Wish,
    default: str,
    asked: Sequence[Datastore],
    machines: Sequence[Machine],
    where: str,
) -> errors.BackendError:
    given = wish.datastore or wish.datastore_url or ("" if wish.policy else default)
    if not given:
        return errors.Exhausted(
            f"no datastore is shared by the hosts of all {len(machines)} node VMs",
            where,
            "mount one datastore on all hosts, or limit the class to a zone",
        )
    missing = [
        each.name for each in machines if not any(each.host in store.hosts for store in asked)
    ]
    return errors.Invalid(
        _NOT_SHARED.format(given),
        where,
        f"the hosts of {', '.join(missing[:5]) or 'some of them'} do not have it mounted",
    )


def _check_vsan(wish: Wish, found: Sequence[Datastore], where: str) -> None:
    # Only a type that is surely another one is refused.
    others = ("VMFS", "NFS", "NFS41", "CIFS", "VFFS", "VVOL", "PMEM")
    if wish.capabilities and all(each.kind.upper() in others for each in found):
        raise errors.Invalid(
            f"The specified datastore: {found[0].name} is not a VSAN datastore",
            where,
            "vSAN capabilities need a vSAN datastore; use storagePolicyName on others",
        )


def _compatible(
    link: Link,
    policy: policies.Policy,
    found: Sequence[Datastore],
    wish: Wish,
    where: str,
) -> list[Datastore]:
    good = link.policies.compatible(policy, found)
    if good:
        return good
    if wish.datastore:
        raise errors.Invalid(
            f'User specified datastore is not compatible with the storagePolicy: "{policy.name}"',
            where,
            "choose another datastore or policy",
        )
    raise errors.Exhausted(
        f'no datastore that all node VMs share is compatible with the policy "{policy.name}"',
        where,
        "check the policy's rules and the datastores' tags",
    )


def _with_room(found: Sequence[Datastore], wish: Wish, size: int, where: str) -> list[Datastore]:
    in_service = [each for each in found if each.usable]
    if not in_service:
        raise errors.Unavailable(
            f"datastore {found[0].name} is not accessible or in maintenance", where
        )
    thick = wish.format != "thin"
    # A thin disk takes room as it is written, but can never be larger than its datastore.
    fitting = [each for each in in_service if size <= (each.free if thick else each.capacity)]
    if not fitting:
        largest = max(in_service, key=lambda each: each.free)
        raise errors.Exhausted(
            f"{size >> 20} MiB do not fit: {largest.name} has {largest.free >> 20} MiB free of "
            f"{largest.capacity >> 20}",
            where,
            "free space, or ask for less",
        )
    return sorted(fitting, key=lambda each: (-each.free, each.name))
