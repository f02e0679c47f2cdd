"""Which classes a vCenter's tags ask for, and which region and zone a node is in.

A datacenter with a region tag, and in it clusters and datastores with zone tags: each such
datastore becomes a class, limited to the region and to the datastore's zones. Classes of
today's form are made of First Class Disks by the CSI driver's name and need single
datastores; those of the old form go by the in-tree name, and may be datastore clusters.

Invariant: the answer is complete or an error, so that a vCenter that cannot be asked never
looks like one without tags.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from holdfast.backends import errors
from holdfast.backends.protocol import WantedClass
from holdfast.backends.vsphere import naming, topology
from holdfast.backends.vsphere.gateway import Gateway, Link
from holdfast.backends.vsphere.inventory import Datacenter, Datastore, Machine
from holdfast.backends.vsphere.topology import Zones

REGION = "failure-domain.beta.kubernetes.io/region"
ZONE = "failure-domain.beta.kubernetes.io/zone"
LABELS = {
    "region": (REGION, "topology.kubernetes.io/region"),
    "zone": (ZONE, "topology.kubernetes.io/zone"),
}
PROVISIONER = "csi.vsphere.vmware.com"
IN_TREE = "kubernetes.io/vsphere-volume"
EXPANSION = {"storageclass.deckhouse.io/volume-expansion-mode": "offline"}


@dataclass(frozen=True, slots=True)
class Source:
    """A tagged datastore or datastore cluster."""

    parts: tuple[str, ...]  # its place below the datacenter's datastore folder
    path: str  # its inventory path
    url: str  # empty for a datastore cluster
    region: str
    zones: tuple[str, ...]


async def wanted(gateway: Gateway) -> list[WantedClass]:
    """Return the classes that all instances ask for, by name."""
    found: list[WantedClass] = []
    for workspace in gateway.workspaces.values():
        if not workspace.tags.wanted:
            continue
        for center in workspace.centers:
            link = gateway.link(center.name)
            at_home = center.name == gateway.home.home.name
            found += await gateway.run(classes, link, at_home)
    names = [each.name for each in found]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise errors.Conflict(
            f'two vCenters have a datastore for the class "{twice}"',
            "vSphere",
            "exclude it in one of them",
        )
    # Each vCenter names one; the first one's counts.
    default = next((each.name for each in found if each.default), "")
    return sorted(
        (replace(each, default=each.name == default) for each in found),
        key=lambda each: each.name,
    )


def classes(link: Link, at_home: bool) -> list[WantedClass]:
    """Return the classes of one vCenter. Raises Invalid for tags that make no sense."""
    tags = link.workspace.tags
    sources = [
        each
        for region, datacenter in regions(link).items()
        for each in _sources(link, region, datacenter)
    ]
    made: list[WantedClass] = []
    for source in sources:
        # Datacenters may have datastores of one name, and a class keeps its name whatever
        # becomes of the other one. With one region configured there is no other.
        parts = source.parts if tags.region else (*source.parts, source.region)
        if _excluded(naming.class_name(parts), tags.exclude):
            continue
        made += _variants(link, source, parts, "" if at_home else link.center.name)
    made.sort(key=lambda each: each.name)
    chosen = tags.default_class or (made[0].name if made else "")
    return [replace(each, default=each.name == chosen) for each in made]


def regions(link: Link) -> dict[str, Datacenter]:
    """Return the datacenter of each region. Raises Invalid when a region has several."""
    found: dict[str, Datacenter] = {}
    zones = topology.read(link, fresh=True)
    wanted_region = link.workspace.tags.region
    for datacenter in link.reader.datacenters():
        for region in zones.regions.get(datacenter.moid, ()):
            if wanted_region and region != wanted_region:
                continue
            if region in found:
                raise errors.Invalid(
                    f'region "{region}" is tagged on two datacenters, {found[region].name} and '
                    f"{datacenter.name}",
                    link.session.where,
                    "a region is one datacenter: detach one tag",
                )
            found[region] = datacenter
    if wanted_region and wanted_region not in found:
        raise errors.Invalid(
            f'no datacenter has the tag "{wanted_region}"',
            link.session.where,
            "attach it: holdfast prepare vsphere tags",
        )
    return found


def labels(link: Link, machine: Machine) -> Mapping[str, str]:
    """Return the labels of a node whose VM this is, in both spellings of Kubernetes."""
    zones = topology.read(link)
    region, zone = topology.place_of(link, machine, zones)
    values = {"region": region, "zone": zone}
    return {key: values[kind] for kind, keys in LABELS.items() for key in keys if values[kind]}


def _sources(link: Link, region: str, datacenter: Datacenter) -> list[Source]:
    zones = topology.read(link)
    allowed = link.workspace.tags.zones
    found = []
    stores = link.reader.datastores(datacenter, fresh=True)
    for each in stores:
        own = _zones(zones, each.moid, allowed)
        # A region tag on a datastore is optional, but must not contradict.
        of_store = zones.regions.get(each.moid, ())
        if own and (not of_store or region in of_store):
            parts = (*each.folders, each.name)
            found.append(Source(parts, _path(datacenter, parts), each.url, region, own))
    if link.workspace.tags.legacy:
        found += _pods(link, region, datacenter, stores, zones)
    return found


def _pods(
    link: Link, region: str, datacenter: Datacenter, stores: Sequence[Datastore], zones: Zones
) -> list[Source]:
    found = []
    for entity in link.reader.entities().values():
        own = _zones(zones, entity.moid, link.workspace.tags.zones)
        path = link.reader.path_of(entity.moid)
        prefix = f"{datacenter.path}/datastore/"
        if entity.kind == "StoragePod" and own and path.startswith(prefix):
            parts = tuple(path.removeprefix(prefix).split("/"))
            found.append(Source(parts, path, "", region, own))
    return found


def _zones(zones: Zones, moid: str, allowed: Sequence[str]) -> tuple[str, ...]:
    own = zones.zones.get(moid, ())
    return tuple(each for each in own if not allowed or each in allowed)


def _path(datacenter: Datacenter, parts: Sequence[str]) -> str:
    return f"{datacenter.path}/datastore/{'/'.join(parts)}"


def _excluded(name: str, patterns: Sequence[str]) -> bool:
    return any(re.fullmatch(pattern, name) for pattern in patterns)


def _variants(link: Link, source: Source, parts: Sequence[str], center: str) -> list[WantedClass]:
    """Return the class of a datastore, and those for each policy where they are wanted."""
    tags = link.workspace.tags
    where = {"vCenter": center} if center else {}
    topology_ = {REGION: (source.region,), ZONE: source.zones}
    if tags.legacy:
        return [
            WantedClass(
                name=naming.class_name(parts),
                provisioner=IN_TREE,
                parameters={"datastore": source.path, **where},
                topology=topology_,
                late=False,
                annotations=EXPANSION,
            )
        ]
    plain = WantedClass(
        name=naming.class_name(parts),
        provisioner=PROVISIONER,
        parameters={"DatastoreURL": source.url, **where},
        topology=topology_,
        annotations=EXPANSION,
    )
    if not tags.policies:
        return [plain]
    stores = [
        each
        for datacenter in link.reader.datacenters()
        for each in link.reader.datastores(datacenter)
        if each.url == source.url
    ]
    fitting = [each for each in link.policies.all() if link.policies.compatible(each, stores)]
    return [
        plain,
        *(
            replace(
                plain,
                name=naming.class_name(parts, each.name),
                parameters={**plain.parameters, "StoragePolicyName": each.name},
            )
            for each in fitting
        ),
    ]
