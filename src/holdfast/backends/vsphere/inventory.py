"""Reads vCenter's inventory: datacenters, datastores, VMs and what hangs in them.

Everything comes through the PropertyCollector on fine paths; an object's attributes are
never touched, because each would be a call of its own. What changes slowly is kept for some
seconds. The records hold plain values and managed object ids, so they may be used from any
thread and after a new login.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar
from urllib.parse import unquote

from holdfast.backends import errors
from holdfast.backends.vsphere import faults
from holdfast.backends.vsphere.sdk import vim, vmodl
from holdfast.backends.vsphere.session import Session

# Free space and VMs may be this old (seconds) when a volume is placed.
FRESH = 5.0
SLOW = 60.0
# Other threads may log in anew meanwhile, and each time the views of the session before are gone.
VIEWS = 4

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Datacenter:
    """A datacenter; `path` is its inventory path, such as /folder/DC."""

    moid: str
    name: str
    path: str


@dataclass(frozen=True, slots=True)
class Datastore:
    """A datastore. `hosts` are the ESXi hosts that can read and write it; `pod` its cluster."""

    moid: str
    name: str
    url: str
    capacity: int
    free: int
    usable: bool
    kind: str
    hosts: frozenset[str]
    datacenter: Datacenter
    pod: str = ""
    folders: tuple[str, ...] = ()  # between the datacenter's datastore folder and it


@dataclass(frozen=True, slots=True)
class Machine:
    """A VM. `uuid` is its BIOS's, lower case; `hardware` its version, such as vmx-19."""

    moid: str
    name: str
    uuid: str
    power: str
    host: str
    hardware: str = ""
    template: bool = False
    guest: str = ""
    instance_uuid: str = ""
    connection: str = ""  # connected, disconnected, orphaned, inaccessible, invalid
    extra: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Host:
    """An ESXi host; `parent` is its cluster, `datastores` are those it has mounted."""

    moid: str
    name: str
    parent: str
    connected: bool
    datastores: frozenset[str]


@dataclass(frozen=True, slots=True)
class Entity:
    """Any object of the inventory: a cluster, a host, a folder, a datacenter."""

    moid: str
    kind: str
    name: str
    parent: str = ""


class Reader:
    """Reads through one session."""

    def __init__(self, session: Session) -> None:
        self.session = session
        self._lock = threading.Lock()
        self._views: dict[tuple[int, str, str], Any] = {}
        self._kept: dict[str, tuple[float, Any]] = {}

    # The two ways to read.

    def properties(self, refs: Sequence[Any], paths: Sequence[str]) -> list[dict[str, Any]]:
        """Return the properties of objects of one kind, in their order; a gone one is {}."""
        if not refs:
            return []
        collector = vmodl.query.PropertyCollector
        spec = collector.FilterSpec(
            objectSet=[collector.ObjectSpec(obj=ref) for ref in refs],
            propSet=[collector.PropertySpec(type=type(refs[0]), pathSet=list(paths))],
            reportMissingObjectsInResults=True,
        )
        by_moid = {ref._moId: values for ref, values in self.collect([spec])}
        return [by_moid.get(ref._moId, {}) for ref in refs]

    def under(self, kind: Any, paths: Sequence[str], root: Any = None) -> list[tuple[Any, Any]]:
        """Return all objects of a kind below `root` with the named properties."""
        collector = vmodl.query.PropertyCollector
        for _ in range(VIEWS):
            view = self._view(kind, root)
            walk = collector.TraversalSpec(
                name="view", path="view", skip=False, type=vim.view.ContainerView
            )
            spec = collector.FilterSpec(
                objectSet=[collector.ObjectSpec(obj=view, skip=True, selectSet=[walk])],
                propSet=[collector.PropertySpec(type=kind, pathSet=list(paths))],
            )
            try:
                return self.collect([spec])
            except errors.NotFound:
                # A view ends with the session that made it.
                with self._lock:
                    self._views.clear()
        raise errors.Unavailable(
            "the session ended again and again while it was read", self.session.where
        )

    def collect(self, specs: Sequence[Any]) -> list[tuple[Any, dict[str, Any]]]:
        """Return objects and properties for filters of the PropertyCollector."""
        options = vmodl.query.PropertyCollector.RetrieveOptions()
        found: list[tuple[Any, dict[str, Any]]] = []
        with faults.translated(self.session.where):
            reader = self.session.content.propertyCollector
            page = reader.RetrievePropertiesEx(list(specs), options)
            while page is not None:
                found += [(one.obj, {p.name: p.val for p in one.propSet}) for one in page.objects]
                if not page.token:
                    break
                page = reader.ContinueRetrievePropertiesEx(page.token)
        return found

    def _view(self, kind: Any, root: Any) -> Any:
        content = self.session.content
        top = root if root is not None else content.rootFolder
        key = (self.session.generation, top._moId, str(kind))
        with self._lock:
            view = self._views.get(key)
        if view is None:
            with faults.translated(self.session.where):
                view = content.viewManager.CreateContainerView(top, [kind], True)
            with self._lock:
                self._views = {k: v for k, v in self._views.items() if k[0] == key[0]}
                self._views[key] = view
        return view

    def recent(self, key: str, seconds: float, read: Callable[[], T]) -> T:
        """Return what was read under this key at most so many seconds ago, or read it."""
        with self._lock:
            kept = self._kept.get(key)
        if kept is not None and time.monotonic() - kept[0] < seconds:
            found: T = kept[1]
            return found
        fresh = read()
        with self._lock:
            self._kept[key] = (time.monotonic(), fresh)
        return fresh

    def forget(self) -> None:
        """Read everything anew at the next question."""
        with self._lock:
            self._kept.clear()

    # What there is.

    def entities(self) -> dict[str, Entity]:
        """Return datacenters, folders, compute resources and storage pods by id."""
        kinds = (
            vim.Datacenter,
            vim.Folder,
            vim.ComputeResource,
            vim.StoragePod,
        )

        def read() -> dict[str, Entity]:
            found: dict[str, Entity] = {}
            root = self.session.content.rootFolder
            found[root._moId] = Entity(root._moId, "Folder", "", "")
            for kind in kinds:
                for ref, values in self.under(kind, ["name", "parent"]):
                    parent = values.get("parent")
                    found[ref._moId] = Entity(
                        ref._moId,
                        kind_of(ref),
                        unquote(str(values.get("name", ""))),
                        parent._moId if parent is not None else "",
                    )
            return found

        return self.recent("entities", SLOW, read)

    def path_of(self, moid: str) -> str:
        """Return the inventory path of an entity."""
        known = self.entities()
        parts: list[str] = []
        at = known.get(moid)
        while at is not None and at.name:
            parts.append(at.name)
            at = known.get(at.parent)
        return "/" + "/".join(reversed(parts))

    def datacenters(self) -> list[Datacenter]:
        """Return the datacenters this vCenter is used for; raises NotFound for a wrong name."""
        known = self.entities()
        found = [
            Datacenter(each.moid, each.name, self.path_of(each.moid))
            for each in known.values()
            if each.kind == "Datacenter"
        ]
        wanted = self.session.center.datacenters
        if not wanted:
            return sorted(found, key=lambda each: each.path)
        return [self._one(found, name) for name in wanted]

    def datacenter(self, name: str) -> Datacenter:
        """Return a datacenter by name or path; empty for the only one. Raises NotFound."""
        found = self.datacenters()
        if not name and len(found) == 1:
            return found[0]
        return self._one(found, name)

    def _one(self, found: Sequence[Datacenter], name: str) -> Datacenter:
        fitting = [each for each in found if name in (each.name, each.path, each.path.lstrip("/"))]
        if len(fitting) == 1:
            return fitting[0]
        if fitting:
            raise errors.Conflict(
                f'{len(fitting)} datacenters are called "{name}"',
                self.session.where,
                f"write its path: {', '.join(each.path for each in fitting)}",
            )
        names = ", ".join(each.name for each in found) or "none"
        raise errors.NotFound(f'no datacenter "{name}"', self.session.where, f"there are: {names}")

    def datastores(self, datacenter: Datacenter, *, fresh: bool = False) -> list[Datastore]:
        """Return the datacenter's datastores by name; free space is at most seconds old."""
        root = self.session.ref(vim.Datacenter, datacenter.moid)
        paths = [
            "name",
            "summary.url",
            "summary.capacity",
            "summary.freeSpace",
            "summary.accessible",
            "summary.maintenanceMode",
            "summary.type",
            "host",
            "parent",
        ]

        def read() -> list[Datastore]:
            known, hosts = self.entities(), self.hosts()
            found = [
                _datastore(ref, values, datacenter, known, hosts)
                for ref, values in self.under(vim.Datastore, paths, root)
            ]
            return sorted(found, key=lambda each: each.name)

        return self.recent(f"datastores {datacenter.moid}", 0.0 if fresh else FRESH, read)

    def hosts(self) -> dict[str, Host]:
        """Return all ESXi hosts by id."""
        paths = ["name", "parent", "datastore", "runtime.connectionState"]

        def read() -> dict[str, Host]:
            return {
                ref._moId: Host(
                    ref._moId,
                    str(values.get("name") or ""),
                    values["parent"]._moId if values.get("parent") is not None else "",
                    str(values.get("runtime.connectionState") or "") == "connected",
                    frozenset(each._moId for each in values.get("datastore") or ()),
                )
                for ref, values in self.under(vim.HostSystem, paths)
            }

        return self.recent("hosts", FRESH, read)

    def machines(self, folder: Any = None, *, extra: bool = False) -> list[Machine]:
        """Return the VMs below a folder (a managed object), without templates."""
        paths = [
            "name",
            "config.uuid",
            "config.instanceUuid",
            "config.template",
            "config.version",
            "runtime.powerState",
            "runtime.host",
            "guest.hostName",
        ]
        if extra:
            paths.append("config.extraConfig")

        def read() -> list[Machine]:
            found = [machine(ref, v) for ref, v in self.under(vim.VirtualMachine, paths, folder)]
            return sorted((each for each in found if not each.template), key=lambda m: m.name)

        key = f"machines {folder._moId if folder is not None else ''} {extra}"
        return self.recent(key, FRESH, read)

    def at_path(self, path: str) -> Any:
        """Return the object at an inventory path, or None."""
        with faults.translated(self.session.where):
            return self.session.content.searchIndex.FindByInventoryPath(path)

    def folder(self, datacenter: Datacenter, name: str) -> Any:
        """Return the VM folder a configuration names, by path or by name. Raises NotFound."""
        path = name if name.startswith("/") else f"{datacenter.path}/vm/{name}"

        def read() -> Any:
            found = self.at_path(path.rstrip("/"))
            if found is None and not name.startswith("/"):
                found = self.at_path(name)
            return found._moId if found is not None else None

        moid = self.recent(f"folder {path}", SLOW, read)
        if moid is None:
            raise errors.NotFound(
                f'no VM folder "{name}"',
                f"{self.session.where}, datacenter {datacenter.name}",
                f"make it: govc folder.create '{path}'",
            )
        return self.session.ref(vim.Folder, moid)


def machine(ref: Any, values: Mapping[str, Any]) -> Machine:
    """Return a VM's record from its properties."""
    host = values.get("runtime.host")
    return Machine(
        moid=ref._moId,
        name=unquote(str(values.get("name", ""))),
        uuid=str(values.get("config.uuid") or "").lower(),
        power=str(values.get("runtime.powerState") or ""),
        host=host._moId if host is not None else "",
        hardware=str(values.get("config.version") or ""),
        template=bool(values.get("config.template")),
        guest=str(values.get("guest.hostName") or ""),
        instance_uuid=str(values.get("config.instanceUuid") or "").lower(),
        extra={str(o.key): str(o.value) for o in values.get("config.extraConfig") or ()},
    )


def kind_of(ref: Any) -> str:
    """Return the vSphere name of an object's type, `ClusterComputeResource`."""
    return str(type(ref)._wsdlName)


def _datastore(
    ref: Any,
    values: Mapping[str, Any],
    datacenter: Datacenter,
    known: Mapping[str, Entity],
    hosts: Mapping[str, Host],
) -> Datastore:
    refused = {
        mount.key._moId
        for mount in values.get("host") or ()
        if mount.mountInfo.accessMode == "readOnly" or mount.mountInfo.accessible is False
    }
    seeing = {moid for moid, host in hosts.items() if ref._moId in host.datastores}
    parent = values.get("parent")
    folders: list[str] = []
    pod = ""
    at = known.get(parent._moId) if parent is not None else None
    while at is not None and at.kind != "Datacenter":
        if at.kind == "StoragePod":
            pod = at.name
        folders.append(at.name)
        at = known.get(at.parent)
    in_service = str(values.get("summary.maintenanceMode") or "normal") == "normal"
    return Datastore(
        moid=ref._moId,
        name=unquote(str(values.get("name", ""))),
        url=str(values.get("summary.url") or ""),
        capacity=int(values.get("summary.capacity") or 0),
        free=int(values.get("summary.freeSpace") or 0),
        usable=bool(values.get("summary.accessible")) and in_service,
        kind=str(values.get("summary.type") or ""),
        hosts=frozenset(seeing - refused),
        datacenter=datacenter,
        pod=pod,
        # The last one is the datacenter's own folder for datastores.
        folders=tuple(reversed(folders[:-1])),
    )


def shared(datastores: Iterable[Datastore], machines: Iterable[Machine]) -> list[Datastore]:
    """Return the datastores that the hosts of all these VMs can write."""
    hosts = {each.host for each in machines if each.host}
    return [each for each in datastores if hosts <= each.hosts]
