"""Prerequisites of Cinder volumes on a node: its id, the links of its disks, os-brick."""

from __future__ import annotations

import platform
from collections.abc import Sequence

from holdfast.backends import errors
from holdfast.backends.cinder import identity, links, servers
from holdfast.backends.cinder.brick import Brick
from holdfast.backends.cinder.clouds import Cloud
from holdfast.backends.cinder.identity import Machine
from holdfast.backends.protocol import Finding

_NAMES = {
    "configDrive": "config drive",
    "metadataService": "metadata service",
    "cloud-init": "cloud-init's instance-id",
}


async def ids(cloud: Cloud, machine: Machine) -> Sequence[Finding]:
    """Ask every source for the server's id; they have to agree, and Nova has to know it."""
    read = await cloud.settings()
    found: list[Finding] = []
    told: dict[str, str] = {}
    for source in (*read.search_order, "cloud-init"):
        try:
            told[source] = (await identity.ask(machine, source)).id
        except errors.BackendError as error:
            found.append(Finding(_NAMES[source], "warning", error.what, error.where, error.remedy))
        else:
            found.append(Finding(_NAMES[source], "ok", f"says {told[source]}", str(machine.root)))
    if not told:
        remedy = "without one of the three, no volume can be attached to this node"
        return [*found, Finding("server id", "error", "nobody knows it", "", remedy)]
    if len(set(told.values())) > 1:
        said = ", ".join(f"{_NAMES[source]}: {id}" for source, id in told.items())
        remedy = "a cloned disk keeps cloud-init's old file: cloud-init clean, then reboot"
        found.append(Finding("server id", "error", f"the sources differ: {said}", "", remedy))
    first = next(iter(told.values()))
    return [*found, await _known(cloud, first)]


async def _known(cloud: Cloud, id: str) -> Finding:
    try:
        record = await servers.get(cloud, id)
    except errors.NotFound:
        return Finding(
            "server",
            "error",
            f"Nova has no server {id} that these credentials may see",
            cloud.instance.where,
            "use credentials of the project that the server is in",
        )
    except errors.BackendError as error:
        return Finding("server", "error", error.what, error.where, error.remedy)
    return Finding("server", "ok", f'is "{record["name"]}", {record["status"]}', id)


async def links_of(cloud: Cloud, machine: Machine) -> Sequence[Finding]:
    """Compare the disks Nova has attached with the links in /dev/disk/by-id."""
    place = machine.root / links.BY_ID
    if not place.is_dir():
        return [
            Finding(
                "disk links",
                "error",
                "there is no such directory",
                str(place),
                "udev makes it: install and start it (in a container, mount the host's /dev)",
            )
        ]
    try:
        read = await cloud.settings()
        me = await identity.find(machine, read.search_order)
        disks = await servers.disks(cloud, me.id)
    except errors.BackendError:
        return [Finding("disk links", "ok", "the directory is there", str(place))]
    missing = []
    for each in disks:
        try:
            there = links.find(machine.root, each["volumeId"]) is not None
        except errors.BackendError:
            there = False
        if not there:
            missing.append(str(each["volumeId"]))
    if missing:
        return [
            Finding(
                "disk links",
                "error",
                f"attached but without a link: {', '.join(missing)}",
                str(place),
                "udevadm trigger --subsystem-match=block; the disks need their serial numbers",
            )
        ]
    return [Finding("disk links", "ok", f"{len(disks)} disks have theirs", str(place))]


async def brick_of(brick: Brick, cloud: Cloud) -> Finding:
    """Ask os-brick what storage must know of this machine, which has no Nova to attach disks."""
    name = "os-brick"
    try:
        address = await cloud.run(lambda endpoint: endpoint.address("block_storage"))
        found = await brick.properties(platform.node(), address)
    except errors.Unsupported as error:
        what = f"{error.what}: only connections of type local can be made"
        return Finding(name, "warning", what, error.where, error.remedy)
    except errors.BackendError as error:
        return Finding(name, "error", error.what, error.where, error.remedy)
    names = ("ip", "initiator", "nqn", "wwpns")
    told = ", ".join(f"{key} {found[key]}" for key in names if found.get(key))
    return Finding(name, "ok", f"makes the connections: {told}", platform.node())
