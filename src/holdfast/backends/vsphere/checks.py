"""Tests everything a vCenter needs for volumes, object by object, and changes nothing.

One function for each question, in the order in which they make sense: without a login no
privileges, without a folder no nodes. What a login can see decides what can be asked, so a
question that fails is a finding of its own and does not end the others.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence

from holdfast.backends import errors
from holdfast.backends.protocol import Finding
from holdfast.backends.vsphere import inventory, parameters, placement, roles, topology
from holdfast.backends.vsphere.gateway import Gateway, Link
from holdfast.backends.vsphere.inventory import Datacenter, Machine
from holdfast.backends.vsphere.sdk import vim

# What Kubernetes up to 1.8 wanted of the name of a node's VM, and DNS still does.
VM_NAME = re.compile(r"[a-z](([-0-9a-z]+)?[0-9a-z])?(\.[a-z0-9](([-0-9a-z]+)?[0-9a-z])?)*")
OLDEST = (6, 5)
FIRST_CLASS = (6, 7)
ONLINE_EXPANSION = (7, 0)

_Question = Callable[[Link], Iterator[Finding]]


async def run(gateway: Gateway) -> list[Finding]:
    """Return the findings for all vCenters of all instances."""
    if not gateway.workspaces:
        return []
    found: list[Finding] = []
    for link in gateway.links():
        found += await gateway.run(_center, link)
    return found


async def run_class(
    gateway: Gateway, given: Mapping[str, str], secrets: Mapping[str, str]
) -> list[Finding]:
    """Return the findings for a class: its parameters, and where a volume would go."""
    name = "vSphere class"
    try:
        wish = parameters.read(given)
        link = gateway.link(wish.center, secrets)
        stores, policy = await gateway.run(placement.candidates, link, wish, 1)
    except errors.BackendError as error:
        return [Finding(name, "error", error.what, error.where, error.remedy)]
    kind = "a First Class Disk" if wish.disk == "fcd" else f"a {wish.format} VMDK"
    with_policy = f", policy {policy.name}" if policy is not None else ""
    return [Finding(name, "ok", f"{kind} on {stores[0].name}{with_policy}", link.session.where)]


def _center(link: Link) -> list[Finding]:
    first = list(_asked(_login, link))
    if any(each.severity == "error" for each in first):
        return first
    questions: Sequence[_Question] = (
        _certificate,
        _version,
        _privileges,
        _folder,
        _machines,
        _default_datastore,
        _resource_pool,
        _datastores,
        _policies,
        _tags,
    )
    # Nodes, folder and pool are those of the workspace's own vCenter.
    return first + [each for question in questions for each in _asked(question, link)]


def _asked(question: _Question, link: Link) -> Iterator[Finding]:
    name = f"vSphere {question.__name__.strip('_').replace('_', ' ')}"
    try:
        yield from question(link)
    except errors.BackendError as error:
        yield Finding(name, "error", error.what, error.where, error.remedy)


def _login(link: Link) -> Iterator[Finding]:
    about = link.session.content.about
    if about.apiType != "VirtualCenter":
        yield Finding(
            "vSphere login",
            "error",
            f"this is {about.fullName or about.apiType}, not a vCenter",
            link.session.where,
            "name the vCenter that manages the host",
        )
        return
    yield Finding("vSphere login", "ok", f"as {link.session.user}", link.session.where)


def _certificate(link: Link) -> Iterator[Finding]:
    center = link.center
    if center.insecure and not center.thumbprint and not center.ca_file:
        yield Finding(
            "vSphere certificate",
            "warning",
            "the vCenter's certificate is not checked",
            link.session.where,
            "set thumbprint or ca-file instead of insecure-flag",
        )
        return
    how = "its CA" if center.ca_file else "its thumbprint" if center.thumbprint else "known CAs"
    yield Finding("vSphere certificate", "ok", f"checked by {how}", link.session.where)


def _version(link: Link) -> Iterator[Finding]:
    about = link.session.content.about
    found = version_of(link)
    where = link.session.where
    if found < OLDEST:
        yield Finding(
            "vSphere version",
            "error",
            f"API {about.apiVersion} is older than 6.5",
            where,
            "upgrade the vCenter",
        )
    elif found < FIRST_CLASS:
        yield Finding(
            "vSphere version",
            "warning",
            f"API {about.apiVersion}: plain VMDKs work, snapshots of volumes need 6.7",
            where,
            "use classes of kubernetes.io/vsphere-volume, or upgrade",
        )
    else:
        yield Finding("vSphere version", "ok", f"{about.fullName}, API {about.apiVersion}", where)


def version_of(link: Link) -> tuple[int, ...]:
    """Return the version of a vCenter's API."""
    text = str(link.session.content.about.apiVersion or "")
    return tuple(int(part) for part in re.findall(r"\d+", text))


def _privileges(link: Link) -> Iterator[Finding]:
    """Ask vCenter for each object which of the privileges its role needs are missing."""
    session = link.session.content.sessionManager
    who = str(link.reader.properties([session], ["currentSession"])[0]["currentSession"].key)
    manager = link.session.content.authorizationManager
    for object_, privileges in roles.needed(link).items():
        ref, label = object_.ref, object_.label
        answer = manager.HasPrivilegeOnEntities([ref], who, sorted(privileges))
        missing = [
            each.privId for one in answer for each in one.privAvailability if not each.isGranted
        ]
        if missing:
            yield Finding(
                "vSphere privileges",
                "error",
                f"missing: {', '.join(sorted(missing))}",
                f"{link.session.where}, {label}",
                "holdfast prepare vsphere roles makes the role and gives it to the user",
            )
        else:
            yield Finding(
                "vSphere privileges", "ok", f"all {len(privileges)} on {label}", link.session.where
            )


def _folder(link: Link) -> Iterator[Finding]:
    workspace = link.workspace
    if not workspace.folder:
        yield Finding(
            "vSphere folder",
            "warning",
            "no folder of node VMs is configured, so shared datastores cannot be told",
            workspace.place,
            "put the node VMs into a folder and name it as [Workspace] folder",
        )
        return
    datacenter = placement.home(link)
    link.reader.folder(datacenter, workspace.folder)
    found = placement.nodes(link, datacenter)
    if found:
        yield Finding(
            "vSphere folder", "ok", f"{len(found)} node VMs in {workspace.folder}", _place(link)
        )
        return
    yield Finding(
        "vSphere folder",
        "error",
        f"folder {workspace.folder} holds no VM",
        _place(link),
        "move the node VMs there: govc object.mv VM "
        f"'{placement.folder_path(datacenter, workspace.folder)}'",
    )


def _machines(link: Link) -> Iterator[Finding]:
    """Look at each node VM: its name, its host name, disk.enableUUID, its power."""
    workspace = link.workspace
    if not workspace.folder:
        return
    datacenter = placement.home(link)
    folder = link.reader.folder(datacenter, workspace.folder)
    for machine in link.reader.machines(folder, extra=True):
        yield from _machine(link, datacenter, machine)


def _machine(link: Link, datacenter: Datacenter, machine: Machine) -> Iterator[Finding]:
    where = f"{_place(link)}, VM {machine.name}"
    name = "vSphere node VM"
    good = True
    if not VM_NAME.fullmatch(machine.name) or not 3 <= len(machine.name) <= 63:
        good = False
        yield Finding(
            name,
            "warning",
            "its name is no DNS name of 3 to 63 lower-case letters, digits, '-' and '.'",
            where,
            f"govc vm.change -vm '{machine.name}' -name NAME; Kubernetes 1.8 and older need it",
        )
    if machine.guest and machine.guest.split(".")[0] != machine.name.split(".")[0]:
        good = False
        yield Finding(
            name,
            "warning",
            f"its guest is called {machine.guest}",
            where,
            "call VM and guest the same, so that people find one from the other",
        )
    enabled = next(
        (value for key, value in machine.extra.items() if key.lower() == "disk.enableuuid"), ""
    )
    if enabled.lower() not in ("true", "1"):
        good = False
        path = f"{placement.folder_path(datacenter, link.workspace.folder)}/{machine.name}"
        yield Finding(
            name,
            "error",
            "disk.enableUUID is not set: the guest cannot tell its disks apart",
            where,
            f"govc vm.change -e='disk.enableUUID=1' -vm='{path}', then power-cycle it",
        )
    if good:
        yield Finding(name, "ok", f"{machine.power}, disk.enableUUID is set", where)


def _default_datastore(link: Link) -> Iterator[Finding]:
    name = link.workspace.default_datastore
    if not name:
        return
    found = placement.matching(link.reader.datastores(placement.home(link)), name)
    if found:
        yield Finding("vSphere default datastore", "ok", f"{name} exists", _place(link))
        return
    yield Finding(
        "vSphere default datastore",
        "error",
        f'there is no datastore "{name}"',
        _place(link),
        "correct default-datastore",
    )


def _resource_pool(link: Link) -> Iterator[Finding]:
    name = link.workspace.resource_pool
    if not name:
        return
    datacenter = placement.home(link)
    pools = link.reader.under(
        vim.ResourcePool, ["name"], link.session.ref(vim.Datacenter, datacenter.moid)
    )
    last = name.rstrip("/").rpartition("/")[2]
    found = link.reader.at_path(f"{datacenter.path}/host/{name}") is not None or any(
        values.get("name") == last for _, values in pools
    )
    if found:
        yield Finding("vSphere resource pool", "ok", f"{name} exists", _place(link))
        return
    yield Finding(
        "vSphere resource pool",
        "error",
        f'there is no resource pool "{name}"',
        _place(link),
        "correct resourcepool-path: CLUSTER/Resources/POOL",
    )


def _datastores(link: Link) -> Iterator[Finding]:
    """Say which datastores all node VMs reach, and whose hosts lack the others."""
    datacenter = placement.home(link)
    stores = link.reader.datastores(datacenter, fresh=True)
    machines = placement.nodes(link, datacenter)
    usable = [each for each in stores if each.usable]
    for each in stores:
        if not each.usable:
            yield Finding(
                "vSphere datastore",
                "warning",
                f"{each.name} is not accessible or in maintenance",
                _place(link),
                "check it in vCenter",
            )
    shared = inventory.shared(usable, machines)
    for each in shared:
        yield Finding(
            "vSphere datastore",
            "ok",
            f"{each.name}: {each.free >> 30} of {each.capacity >> 30} GiB free, reached by all "
            f"{len(machines)} node VMs",
            _place(link),
        )
    for each in (one for one in usable if one not in shared):
        lacking = [vm.name for vm in machines if vm.host not in each.hosts]
        yield Finding(
            "vSphere datastore",
            "warning" if shared else "error",
            f"{each.name} is not mounted on the hosts of {', '.join(lacking[:5])}",
            _place(link),
            "mount it on these hosts, or keep volumes of all nodes off it",
        )


def _policies(link: Link) -> Iterator[Finding]:
    found = link.policies.all()
    names = ", ".join(each.name for each in found[:6])
    yield Finding(
        "vSphere policies", "ok", f"{len(found)} storage policies: {names}", link.session.where
    )


def _tags(link: Link) -> Iterator[Finding]:
    from holdfast.backends.vsphere import discovery

    tags = link.workspace.tags
    if not tags.wanted:
        return
    found = discovery.regions(link)
    zones = topology.read(link)
    if not found:
        yield Finding(
            "vSphere tags",
            "error",
            f"no datacenter has a tag of the category {tags.region_category}",
            link.session.where,
            "holdfast prepare vsphere tags",
        )
    for region, datacenter in found.items():
        yield from _region(link, region, datacenter, zones)
    for machine in placement.nodes(link, placement.home(link)):
        region, zone = topology.place_of(link, machine, zones)
        if not region or not zone:
            yield Finding(
                "vSphere tags",
                "warning",
                f"VM {machine.name} is in no {'region' if not region else 'zone'}",
                _place(link),
                "tag its datacenter and its cluster",
            )


def _region(
    link: Link, region: str, datacenter: Datacenter, zones: topology.Zones
) -> Iterator[Finding]:
    stores = link.reader.datastores(datacenter)
    tagged = [each for each in stores if zones.zones.get(each.moid)]
    clusters = [
        each
        for each in link.reader.entities().values()
        if each.kind == "ClusterComputeResource"
        and zones.zones.get(each.moid)
        and link.reader.path_of(each.moid).startswith(f"{datacenter.path}/")
    ]
    if not clusters:
        yield Finding(
            "vSphere tags",
            "error",
            f"region {region} has no cluster with a zone",
            link.session.where,
            "holdfast prepare vsphere tags",
        )
    elif not tagged:
        yield Finding(
            "vSphere tags",
            "warning",
            f"region {region} has no datastore with a zone, so no class is made",
            link.session.where,
            "tag the datastores whose classes you want",
        )
    else:
        yield Finding(
            "vSphere tags",
            "ok",
            f"region {region}: {len(clusters)} zoned clusters, {len(tagged)} zoned datastores",
            link.session.where,
        )


def _place(link: Link) -> str:
    name = link.workspace.datacenter
    return f"{link.session.where}, datacenter {name}" if name else link.session.where
