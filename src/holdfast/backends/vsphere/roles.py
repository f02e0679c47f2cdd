"""The privileges each way of using vSphere needs, and on which objects.

A role is one list; where it is granted differs. The lists are those of the in-tree
provider's documentation for static volumes, dynamic volumes and dynamic volumes with
policies, what vSphere 6.7 needs besides, what First Class Disks need, and the long list of a
platform that also makes its VMs. `System.*` is part of every role and cannot be given.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from holdfast.backends import errors
from holdfast.backends.vsphere import placement
from holdfast.backends.vsphere.gateway import Link
from holdfast.backends.vsphere.inventory import Datacenter
from holdfast.backends.vsphere.sdk import vim
from holdfast.kit import suggest

MODES = ("static", "dynamic", "policy", "platform")

_VM_DISKS = (
    "VirtualMachine.Config.AddExistingDisk",
    "VirtualMachine.Config.AddNewDisk",
    "VirtualMachine.Config.AddRemoveDevice",
    "VirtualMachine.Config.RemoveDisk",
)
_DATASTORE = ("Datastore.AllocateSpace", "Datastore.FileManagement")
_DISK_VMS = (
    "Resource.AssignVMToPool",
    "VirtualMachine.Config.Settings",
    "VirtualMachine.Inventory.Create",
    "VirtualMachine.Inventory.Delete",
)
# Without these vSphere 6.7 answers that permission to perform this operation was denied.
_SINCE_67 = (
    "Datastore.Browse",
    "VirtualMachine.Config.DiskExtend",
    "Cns.Searchable",
)

ROLES: Mapping[str, Mapping[str, tuple[str, ...]]] = {
    "static": {
        "datastore": ("Datastore.FileManagement",),
        "folder": _VM_DISKS,
    },
    "dynamic": {
        "datastore": (*_DATASTORE, "Datastore.Browse"),
        "folder": (*_VM_DISKS, "VirtualMachine.Config.DiskExtend"),
    },
    "policy": {
        "root": ("StorageProfile.View", "Cns.Searchable"),
        "datastore": (*_DATASTORE, "Datastore.Browse"),
        "folder": (*_VM_DISKS, "VirtualMachine.Config.DiskExtend", *_DISK_VMS[1:]),
        "cluster": ("Resource.AssignVMToPool",),
    },
}

PLATFORM: tuple[str, ...] = tuple(
    f"{group}.{name}"
    for group, names in (
        ("Cns", "Searchable"),
        ("Datastore", "AllocateSpace Browse FileManagement"),
        ("Global", "GlobalTag SystemTag"),
        (
            "InventoryService.Tagging",
            "AttachTag CreateCategory CreateTag DeleteCategory DeleteTag EditCategory EditTag "
            "ModifyUsedByForCategory ModifyUsedByForTag",
        ),
        ("Network", "Assign"),
        (
            "Resource",
            "AssignVMToPool ColdMigrate CreatePool DeletePool EditPool HotMigrate MovePool "
            "RenamePool",
        ),
        ("StorageProfile", "View"),
        (
            "VirtualMachine.Config",
            "AddExistingDisk AddNewDisk AddRemoveDevice AdvancedConfig Annotation CPUCount "
            "ChangeTracking DiskExtend DiskLease EditDevice HostUSBDevice ManagedBy Memory "
            "MksControl QueryFTCompatibility QueryUnownedFiles RawDevice ReloadFromPath "
            "RemoveDisk Rename ResetGuestInfo Resource Settings SwapPlacement ToggleForkParent "
            "UpgradeVirtualHardware",
        ),
        ("VirtualMachine.GuestOperations", "Execute Modify ModifyAliases Query QueryAliases"),
        ("VirtualMachine.Hbr", "ConfigureReplication MonitorReplication ReplicaManagement"),
        (
            "VirtualMachine.Interact",
            "AnswerQuestion Backup ConsoleInteract CreateScreenshot CreateSecondary "
            "DefragmentAllDisks DeviceConnection DisableSecondary DnD EnableSecondary "
            "GuestControl MakePrimary Pause PowerOff PowerOn PutUsbScanCodes Record Replay Reset "
            "SESparseMaintenance SetCDMedia SetFloppyMedia Suspend TerminateFaultTolerantVM "
            "ToolsInstall TurnOffFaultTolerance",
        ),
        (
            "VirtualMachine.Inventory",
            "Create CreateFromExisting Delete Move Register Unregister",
        ),
        (
            "VirtualMachine.Namespace",
            "Event EventNotify Management ModifyContent Query ReadContent",
        ),
        (
            "VirtualMachine.Provisioning",
            "Clone CloneTemplate CreateTemplateFromVM Customize DeployTemplate DiskRandomAccess "
            "DiskRandomRead FileRandomAccess GetVmFiles MarkAsTemplate MarkAsVM ModifyCustSpecs "
            "PromoteDisks PutVmFiles ReadCustSpecs",
        ),
        (
            "VirtualMachine.State",
            "CreateSnapshot RemoveSnapshot RenameSnapshot RevertToSnapshot",
        ),
    )
    for name in names.split()
)


@dataclass(frozen=True, slots=True)
class Place:
    """An object a role is granted on: `ref` is its managed object, `label` its path."""

    moid: str
    label: str
    kind: str
    ref: Any


def check_mode(mode: str) -> str:
    """Return the mode; raises errors.Invalid naming the nearest one."""
    if mode in MODES:
        return mode
    guess = suggest.nearest(mode, MODES)
    hint = f"did you mean {guess}?" if guess else f"there are: {', '.join(MODES)}"
    raise errors.Invalid(f'no mode "{mode}"', "roles", hint)


def privileges(mode: str) -> tuple[str, ...]:
    """Return all privileges of a mode's role, sorted."""
    if mode == "platform":
        return tuple(sorted(PLATFORM))
    return tuple(sorted({each for names in ROLES[mode].values() for each in names}))


def extra_since_67(mode: str) -> tuple[str, ...]:
    """Return what a role of a mode needs from vSphere 6.7 on, beyond older documentation."""
    return tuple(each for each in _SINCE_67 if each in privileges(mode))


def places(link: Link, mode: str) -> Mapping[Place, tuple[str, ...]]:
    """Return on which objects which privileges of a mode are needed."""
    # Those the configuration lists; without a list there would be no end of them.
    home = placement.home(link)
    datacenters = link.reader.datacenters() if link.center.datacenters else [home]
    found: dict[Place, tuple[str, ...]] = {}
    if mode == "platform":
        for each in datacenters:
            ref = link.session.ref(vim.Datacenter, each.moid)
            found[Place(each.moid, each.path, "Datacenter", ref)] = privileges(mode)
        return found
    wanted = ROLES[mode]
    root = link.session.content.rootFolder
    if "root" in wanted:
        found[Place(root._moId, "/", "Folder", root)] = wanted["root"]
    for datacenter in datacenters:
        for place in _datastores(link, datacenter, home):
            found[place] = wanted["datastore"]
        for place in _folders(link, datacenter, home):
            found[place] = wanted["folder"]
        if "cluster" in wanted:
            for place in _clusters(link, datacenter):
                found[place] = wanted["cluster"]
    return found


def needed(link: Link) -> Mapping[Place, Sequence[str]]:
    """Return what the configured way of use needs, for the check."""
    return places(link, "policy")


def _folders(link: Link, datacenter: Datacenter, home: Datacenter) -> list[Place]:
    """Return the folder of node VMs, which other datacenters than home need not have."""
    name = link.workspace.folder
    if not name:
        return []
    try:
        folder = link.reader.folder(datacenter, name)
    except errors.NotFound:
        if datacenter.moid == home.moid:
            raise
        return []
    label = placement.folder_path(datacenter, name)
    return [Place(folder._moId, label, "Folder", folder)]


def _datastores(link: Link, datacenter: Datacenter, home: Datacenter) -> list[Place]:
    stores = link.reader.datastores(datacenter)
    name = link.workspace.default_datastore if datacenter.moid == home.moid else ""
    chosen = placement.matching(stores, name) if name else stores
    return [
        Place(
            each.moid,
            f"{datacenter.path}/datastore/{'/'.join((*each.folders, each.name))}",
            "Datastore",
            link.session.ref(vim.Datastore, each.moid),
        )
        for each in chosen
    ]


def _clusters(link: Link, datacenter: Datacenter) -> list[Place]:
    return [
        Place(
            each.moid,
            link.reader.path_of(each.moid),
            each.kind,
            link.session.ref(vim.ClusterComputeResource, each.moid),
        )
        for each in link.reader.entities().values()
        if each.kind == "ClusterComputeResource"
        and link.reader.path_of(each.moid).startswith(f"{datacenter.path}/")
    ]
