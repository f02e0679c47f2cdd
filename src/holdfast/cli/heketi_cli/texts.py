"""What is printed about volumes, nodes, devices and the topology, letter by letter as by Heketi.

The mix of spaces and tabs in `topology info` is upstream's; scripts cut their columns out of it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

Document = dict[str, Any]
GIB = 1024 * 1024


def volume(found: Document) -> str:
    """`volume info`, and what `create`, `expand` and `clone` print."""
    kind = found["durability"]
    inside = found.get("blockinfo") or {}
    lines = [
        f"Name: {found['name']}",
        f"Size: {found['size']}",
        f"Volume Id: {found['id']}",
        f"Cluster Id: {found['cluster']}",
        f"Mount: {found['mount']['glusterfs']['device']}",
        f"Mount Options: {_options(found)}",
        f"Block: {_truth(found.get('block'))}",
        f"Free Size: {inside.get('freesize', 0)}",
        f"Reserved Size: {inside.get('reservedsize', 0)}",
        f"Block Hosting Restriction: {_restriction(inside)}",
        f"Block Volumes: [{' '.join(inside.get('blockvolume') or [])}]",
        f"Durability Type: {kind['type']}",
        f"Distribute Count: {len(found['bricks']) // _set_size(kind)}",
    ]
    if kind["type"] == "replicate":
        lines.append(f"Replica Count: {kind['replicate'].get('replica', 0)}")
    if kind["type"] == "disperse":
        lines.append(f"Disperse Data Count: {kind['disperse'].get('data', 0)}")
        lines.append(f"Disperse Redundancy Count: {kind['disperse'].get('redundancy', 0)}")
    if found["snapshot"]["enable"]:
        lines += [f"Snapshot Factor: {found['snapshot']['factor']:.2f}", ""]
    return "\n".join(lines) + "\n"


def _options(found: Document) -> str:
    options = found["mount"]["glusterfs"]["options"]
    return "".join(f"{key}={value}" for key, value in sorted(options.items()))


def _restriction(inside: Document) -> str:
    return str(inside.get("restriction") or "(none)")


def _set_size(kind: Document) -> int:
    if kind["type"] == "replicate":
        return int(kind["replicate"].get("replica") or 2)
    if kind["type"] == "disperse":
        return int(kind["disperse"]["data"]) + int(kind["disperse"]["redundancy"])
    return 1


def _truth(value: object) -> str:
    return "true" if value else "false"


def gib(kib: int) -> int:
    """Whole GiB, as every listing shows sizes."""
    return kib // GIB


def volume_line(found: Document) -> str:
    """A line of `volume list`."""
    block = " [block]" if found.get("block") else ""
    head = f"Id:{found['id']:<35} Cluster:{found['cluster']:<35}"
    return f"{head} Name:{found['name']}{block}\n"


def node_head(found: Document) -> str:
    """The first lines of `node info`, and all of `node add`."""
    lines = [
        f"Node Id: {found['id']}",
        f"State: {found['state']}",
        f"Cluster Id: {found['cluster']}",
        f"Zone: {found['zone']}",
        f"Management Hostname: {found['hostnames']['manage'][0]}",
        f"Storage Hostname: {found['hostnames']['storage'][0]}",
        *_tag_lines(found),
    ]
    return "\n".join(lines) + "\n"


def _tag_lines(found: Document) -> list[str]:
    tags = found.get("tags") or {}
    return ["Tags:", *(f"  {key}: {tags[key]}" for key in sorted(tags))] if tags else []


def node(found: Document) -> str:
    """`node info`."""
    lines = [
        f"Id:{each['id']:<35}Name:{each['name']:<20}State:{each['state']:<10}"
        f"{_amounts(each)}Bricks:{len(each['bricks']):<8}\n"
        for each in found["devices"]
    ]
    return node_head(found) + "Devices:\n" + "".join(lines)


def _amounts(device: Document) -> str:
    storage = device["storage"]
    return (
        f"Size (GiB):{gib(storage['total']):<8}"
        f"Used (GiB):{gib(storage['used']):<8}"
        f"Free (GiB):{gib(storage['free']):<8}"
    )


def device(found: Document) -> str:
    """`device info`."""
    storage = found["storage"]
    lines = [
        f"Device Id: {found['id']}",
        f"State: {found['state']}",
        f"Size (GiB): {gib(storage['total'])}",
        f"Used (GiB): {gib(storage['used'])}",
        f"Free (GiB): {gib(storage['free'])}",
        f"Create Path: {found['name']}",
        f"Physical Volume UUID: {found.get('pv_uuid', '')}",
        f"Known Paths: {' '.join(found.get('paths') or [])}",
        *_tag_lines(found),
        "Bricks:",
    ]
    lines += [
        f"Id:{each['id']:<35}Size (GiB):{gib(each['size']):<8}Path: {each['path']}"
        for each in found["bricks"]
    ]
    return "\n".join(lines) + "\n"


def cluster(found: Document) -> str:
    """`cluster info`."""
    nodes, volumes = "\n".join(found["nodes"]), "\n".join(found["volumes"])
    return (
        f"Cluster id: {found['id']}\nNodes:\n{nodes}\nVolumes:\n{volumes}\n"
        f"Block: {_truth(found['block'])}\n\nFile: {_truth(found['file'])}\n"
    )


def block_volume(found: Document) -> str:
    """`blockvolume info`."""
    inside = found.get("blockvolume") or {}
    lines = [
        f"Name: {found.get('name', '')}",
        f"Size: {found.get('size', 0)}",
        f"UsableSize: {found.get('usablesize', 0)}",
        f"Volume Id: {found['id']}",
        f"Cluster Id: {found['cluster']}",
        f"Hosts: [{' '.join(inside.get('hosts') or [])}]",
        f"IQN: {inside.get('iqn', '')}",
        f"LUN: {inside.get('lun', 0)}",
        f"Hacount: {found.get('hacount', 0)}",
        f"Username: {inside.get('username', '')}",
        f"Password: {inside.get('password', '')}",
        f"Block Hosting Volume: {found.get('blockhostingvolume', '')}",
    ]
    return "\n".join(lines) + "\n"


def topology(found: Document) -> str:
    """`topology info`."""
    return "".join(line for each in found["clusters"] for line in _topology_cluster(each)) + "\n"


def _topology_cluster(found: Document) -> Iterator[str]:
    yield f"\nCluster Id: {found['id']}\n\n"
    yield f"    File:  {_truth(found['file'])}\n    Block: {_truth(found['block'])}\n\n"
    yield "    Volumes:\n"
    for each in found["volumes"]:
        yield from _topology_volume(each)
    yield "\n\n    Nodes:\n"
    for each in found["nodes"]:
        yield from _topology_node(each)


def _topology_volume(found: Document) -> Iterator[str]:
    kind = found["durability"]
    yield f"\n\tName: {found['name']}\n\tSize: {found['size']}\n\tId: {found['id']}\n"
    yield f"\tCluster Id: {found['cluster']}\n"
    yield f"\tMount: {found['mount']['glusterfs']['device']}\n"
    yield f"\tMount Options: {_options(found)}\n\tDurability Type: {kind['type']}\n"
    if kind["type"] == "replicate":
        yield f"\tReplica: {kind['replicate'].get('replica', 0)}\n"
    if kind["type"] == "disperse":
        yield f"\tDisperse Data: {kind['disperse'].get('data', 0)}\n"
        yield f"\tDisperse Redundancy: {kind['disperse'].get('redundancy', 0)}\n"
    if found["snapshot"]["enable"]:
        yield f"\tSnapshot: Enabled\n\tSnapshot Factor: {found['snapshot']['factor']:.2f}\n"
    else:
        yield "\tSnapshot: Disabled\n"
    yield "\n\t\tBricks:\n"
    for each in found["bricks"]:
        yield f"\t\t\tId: {each['id']}\n\t\t\tPath: {each['path']}\n"
        yield f"\t\t\tSize (GiB): {gib(each['size'])}\n"
        yield f"\t\t\tNode: {each['node']}\n\t\t\tDevice: {each['device']}\n\n"


def _tags(found: Document) -> str:
    tags = found.get("tags") or {}
    return " ".join(f"{key}:{tags[key]}" for key in sorted(tags))


def _topology_node(found: Document) -> Iterator[str]:
    hosts = found["hostnames"]
    yield f"\n\tNode Id: {found['id']}\n\tState: {found['state']}\n"
    yield f"\tCluster Id: {found['cluster']}\n\tZone: {found['zone']}\n"
    yield f"\tManagement Hostnames: {', '.join(hosts['manage'])}\n"
    yield f"\tStorage Hostnames: {', '.join(hosts['storage'])}\n"
    if found.get("tags"):
        yield f"\tTags: {_tags(found)}\n\n"
    yield "\tDevices:\n"
    for each in found["devices"]:
        yield f"\t\tId:{each['id']:<35}State:{each['state']:<10}{_amounts(each)}\n"
        if each.get("tags"):
            yield f"\t\t\tTags: {_tags(each)}\n\n"
        paths = each.get("paths") or [each["name"]]
        yield f"\t\t\tKnown Paths: {' '.join(paths)}\n\n\t\t\tBricks:\n"
        for brick in each["bricks"]:
            size = f"Size (GiB):{gib(brick['size']):<8}"
            yield f"\t\t\t\tId:{brick['id']:<35}{size}Path: {brick['path']}\n"
