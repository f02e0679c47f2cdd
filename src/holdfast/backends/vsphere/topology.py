"""Regions and zones: the tags on datacenters, clusters, hosts and datastores.

A region is a tag of the region category on a datacenter, or on a folder above it; a zone is
a tag of the zone category on a cluster or a host. What is nearest counts, as in Kubernetes'
cloud provider: from the host up through cluster and datacenter.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from holdfast.backends import errors
from holdfast.backends.vsphere.gateway import Link
from holdfast.backends.vsphere.inventory import Machine

KEPT = 30.0


@dataclass(frozen=True, slots=True)
class Zones:
    """Tag names by managed object id; a datastore may be in several zones."""

    regions: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    zones: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


def read(link: Link, *, fresh: bool = False) -> Zones:
    """Return regions and zones; empty where the configuration names no categories."""
    if not link.workspace.tags.region_category and not link.workspace.tags.zone_category:
        return Zones()
    return link.reader.recent("zones", 0.0 if fresh else KEPT, lambda: _read(link))


def _read(link: Link) -> Zones:
    wanted = link.workspace.tags
    return Zones(_attached(link, wanted.region_category), _attached(link, wanted.zone_category))


def _attached(link: Link, name: str) -> dict[str, tuple[str, ...]]:
    if not name:
        return {}
    tags = link.tagging
    category = tags.category(name)
    if category is None:
        raise errors.NotFound(
            f'no tag category "{name}"',
            link.session.where,
            "make it: holdfast prepare vsphere tags",
        )
    known = tags.tags(category)
    targets = tags.targets(known)
    found: dict[str, list[str]] = {}
    for tag in known:
        for target in targets.get(tag.id, ()):
            found.setdefault(target.moid, []).append(tag.name)
    return {moid: tuple(sorted(names)) for moid, names in found.items()}


def place_of(link: Link, machine: Machine, zones: Zones) -> tuple[str, str]:
    """Return the region and zone of a VM by its host; empty for none."""
    known = link.reader.entities()
    host = link.reader.hosts().get(machine.host)
    region = zone = ""
    at = machine.host
    above = host.parent if host is not None else ""
    while at:
        region = region or next(iter(zones.regions.get(at, ())), "")
        zone = zone or next(iter(zones.zones.get(at, ())), "")
        at, above = above, known[above].parent if above in known else ""
    return region, zone


def zoned(segments: Mapping[str, str] | None) -> bool:
    """Return whether a node's segments name a zone or region."""
    return bool(_segment(segments, "zone") or _segment(segments, "region"))


def of_volume(segments: Mapping[str, str] | None, zones: Sequence[str]) -> dict[str, str] | None:
    """Return where a volume can be used: the segments it was made for.

    A datastore in several zones does not bind its volumes to the one that was chosen.
    """
    found = {
        key: value
        for key, value in (segments or {}).items()
        if key.rpartition("/")[2] in ("region", "k8s-region")
        or (key.rpartition("/")[2] in ("zone", "k8s-zone") and len(zones) < 2)
    }
    return found or None


def of_datastore(regions: Sequence[str], zones: Sequence[str]) -> dict[str, str] | None:
    """Return where a volume can be used that was asked for without a place.

    A label says one value, so several zones bind a volume to their region alone.
    """
    found = {}
    if len(regions) == 1:
        found["topology.kubernetes.io/region"] = regions[0]
    if len(zones) == 1:
        found["topology.kubernetes.io/zone"] = zones[0]
    return found or None


def within(
    link: Link, machines: Sequence[Machine], segments: Mapping[str, str] | None
) -> list[Machine]:
    """Return the VMs in the zone and region that a node's segments name; all without one."""
    zone = _segment(segments, "zone")
    region = _segment(segments, "region")
    if not zone and not region:
        return list(machines)
    zones = read(link)
    if not zones.zones and not zones.regions:
        return list(machines)
    found = []
    for machine in machines:
        its_region, its_zone = place_of(link, machine, zones)
        if (not zone or its_zone == zone) and (not region or its_region == region):
            found.append(machine)
    return found


def _segment(segments: Mapping[str, str] | None, name: str) -> str:
    # The key's first part differs: topology.kubernetes.io, topology.csi.vmware.com and others.
    for key, value in (segments or {}).items():
        if key.rpartition("/")[2] in (name, f"k8s-{name}"):
            return value
    return ""
