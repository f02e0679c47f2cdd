"""Files on datastores: virtual disks, the directory they are in, and their descriptors.

Functions block; those that end in `_task` return vCenter's task. A disk's size is asked of
the datastore's browser, which has it from the disk, and where the browser does not say, read
from the descriptor, the small text file that a VMDK begins with.
"""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import quote

from holdfast.backends import errors
from holdfast.backends.vsphere import faults, identifiers
from holdfast.backends.vsphere.gateway import Link
from holdfast.backends.vsphere.inventory import Datacenter, Datastore
from holdfast.backends.vsphere.sdk import vim

SECTOR = 512
# Kubernetes' words for a disk's format, and those of vCenter's two managers.
VIRTUAL = {"thin": "thin", "zeroedthick": "preallocated", "eagerzeroedthick": "eagerZeroedThick"}
FIRST_CLASS = {
    "thin": "thin",
    "zeroedthick": "lazyZeroedThick",
    "eagerzeroedthick": "eagerZeroedThick",
}
_EXTENT = re.compile(r"^RW\s+(\d+)\s", re.MULTILINE)


def create_task(
    link: Link, datacenter: Datacenter, file: str, size: int, format: str, profile: list[Any]
) -> Any:
    """Start making a virtual disk of `size` bytes, a multiple of 1024."""
    spec = vim.VirtualDiskManager.FileBackedVirtualDiskSpec(
        diskType=VIRTUAL[format],
        adapterType="lsiLogic",
        capacityKb=size >> 10,
        profile=profile,
    )
    return _disks(link).CreateVirtualDisk_Task(file, _ref(link, datacenter), spec)


def copy_task(link: Link, source: tuple[Datacenter, str], target: tuple[Datacenter, str]) -> Any:
    """Start copying a virtual disk; each file is one of its own datacenter."""
    return _disks(link).CopyVirtualDisk_Task(
        source[1], _ref(link, source[0]), target[1], _ref(link, target[0])
    )


def delete_task(link: Link, datacenter: Datacenter, file: str) -> Any:
    """Start deleting a virtual disk with all its files."""
    return _disks(link).DeleteVirtualDisk_Task(file, _ref(link, datacenter))


def extend_task(link: Link, datacenter: Datacenter, file: str, size: int) -> Any:
    """Start growing a virtual disk that no running VM uses."""
    return _disks(link).ExtendVirtualDisk_Task(file, _ref(link, datacenter), size >> 10, False)


def refuse_unfinished(link: Link) -> None:
    """Raise Conflict while vCenter makes disks, for one whose task is not known."""
    manager = link.session.content.taskManager
    recent = link.reader.properties([manager], ["recentTask"])[0].get("recentTask") or ()
    found = link.reader.properties(list(recent), ["info.descriptionId", "info.state"])
    for each in found:
        making = "disk" in str(each.get("info.descriptionId", "")).lower()
        if making and each.get("info.state") in ("running", "queued"):
            raise errors.Conflict(
                "vCenter is still making disks, perhaps this one", link.session.where, ""
            )


def make_directory(link: Link, datacenter: Datacenter, datastore: str, path: str) -> None:
    """Make a directory on a datastore, with those above it; one that exists is a success."""
    with faults.translated(link.session.where):
        try:
            link.session.content.fileManager.MakeDirectory(
                f"[{datastore}] {path}", _ref(link, datacenter), True
            )
        except (vim.fault.FileAlreadyExists, vim.fault.CannotCreateFile):
            # vSAN says that it cannot make one where one is.
            return


def disk_uuid(link: Link, datacenter: Datacenter, file: str) -> str:
    """Return a virtual disk's UUID, normalised. Raises NotFound."""
    with faults.translated(link.session.where):
        found = _disks(link).QueryVirtualDiskUuid(file, _ref(link, datacenter))
    return identifiers.normalise_uuid(str(found))


def search_task(link: Link, browser: Any, directory: str, patterns: list[str]) -> Any:
    """Start looking for disks in one directory of a datastore."""
    browsing = vim.host.DatastoreBrowser
    details = browsing.VmDiskQuery.Details(
        diskType=True, capacityKb=True, hardwareVersion=False, thin=True
    )
    info = browsing.FileInfo.Details(
        fileType=True, fileSize=True, modification=True, fileOwner=False
    )
    spec = browsing.SearchSpec(
        query=[browsing.VmDiskQuery(details=details)], details=info, matchPattern=patterns
    )
    return browser.SearchDatastore_Task(directory, spec)


def browser(link: Link, datastore: str) -> Any:
    """Return a datastore's browser; `datastore` is a managed object id."""
    ref = link.session.ref(vim.Datastore, datastore)

    def read() -> Any:
        found = link.reader.properties([ref], ["browser"])[0].get("browser")
        if found is None:
            raise errors.NotFound("the datastore is gone", link.session.where)
        return found

    return link.reader.recent(f"browser {datastore}", 3600.0, read)


def size_of(info: Any) -> int:
    """Return the size the browser says a disk has, 0 when it does not say."""
    return int(getattr(info, "capacityKb", None) or 0) << 10


def descriptor_size(link: Link, datacenter: Datacenter, datastore: str, path: str) -> int:
    """Return a disk's size from its descriptor. Raises NotFound, Unavailable."""
    query = f"dcPath={quote(datacenter.path.strip('/'))}&dsName={quote(datastore)}"
    status, content = link.session.request(f"/folder/{quote(path)}?{query}")
    if status == 404:
        raise errors.NotFound(f"no file [{datastore}] {path}", link.session.where)
    if status != 200:
        raise errors.Unavailable(
            f"reading the disk's descriptor was answered with {status}",
            f"{link.session.where}: [{datastore}] {path}",
            "the user needs Datastore.Browse",
        )
    extents = _EXTENT.findall(content[:65536].decode("latin-1"))
    return sum(int(each) for each in extents) * SECTOR


def datastore_at(link: Link, id: identifiers.VmdkId) -> tuple[Datacenter, Datastore]:
    """Return datacenter and datastore of a VMDK's id. Raises NotFound, Conflict."""
    reader = link.reader
    named = id.datacenter or (link.workspace.datacenter if not id.center else "")
    places = reader.datacenters()
    if named:
        first = reader.datacenter(named)
        places = [first, *(each for each in places if each.moid != first.moid)]
        if id.datacenter:
            places = [first]
    for datacenter in places:
        found = [
            each
            for each in reader.datastores(datacenter)
            if (each.name == id.datastore and (not id.pod or id.pod in (each.pod, *each.folders)))
            # A datastore's own name may have a slash.
            or (id.pod and each.name == f"{id.pod}/{id.datastore}")
        ]
        if len(found) > 1:
            raise errors.Conflict(
                f'{len(found)} datastores are called "{id.datastore}"',
                f"{link.session.where}, datacenter {datacenter.name}",
                "write [CLUSTER/DATASTORE]",
            )
        if found:
            return datacenter, found[0]
    raise errors.NotFound(f'no datastore "{id.datastore}"', link.session.where)


def datastore_in_sight(link: Link, id: identifiers.VmdkId) -> tuple[Datacenter, Datastore]:
    """Return what `datastore_at` does, for a delete: without the datastore nothing is gone.

    Raises Unavailable when it is not there: it may have been renamed or be out of sight, and
    the file on it still take room.
    """
    try:
        return datastore_at(link, id)
    except errors.NotFound as error:
        raise out_of_sight(str(id), error.what, error.where) from error


def out_of_sight(id: str, what: str, where: str) -> errors.BackendError:
    """Return the refusal to call a volume deleted whose datastore cannot be looked at."""
    return errors.Unavailable(
        f"nothing was deleted: {what}, or it is not accessible",
        f"{where}: {id}",
        "bring it back under its old name; if it is gone for good, set the "
        "PersistentVolume's policy to Retain and delete it",
    )


def nameable(store: Datastore) -> bool:
    """Return whether the path of a file on the datastore can be written and read back."""
    return not set(store.name) & set("[]/\\%")


def _disks(link: Link) -> Any:
    return link.session.content.virtualDiskManager


def _ref(link: Link, datacenter: Datacenter) -> Any:
    return link.session.ref(vim.Datacenter, datacenter.moid)
