"""Makes a vCenter ready for Kubernetes, step by step, and says each step as govc would.

A `Step` knows whether it is done, does it, and has the govc command with the same effect, so
a dry run prints what an administrator could type instead. Steps look first and change only
what is missing, so all of this may be repeated.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from holdfast.backends import errors
from holdfast.backends.vsphere import (
    checks,
    faults,
    files,
    inventory,
    placement,
    roles,
)
from holdfast.backends.vsphere.gateway import Link
from holdfast.backends.vsphere.sdk import vim
from holdfast.backends.vsphere.tagging import Target

REGION_KINDS = ("Datacenter", "Folder", "Datastore", "StoragePod")
ZONE_KINDS = ("ClusterComputeResource", "HostSystem", "Folder", "Datastore", "StoragePod")
_SIZE = re.compile(r"(\d+)(B|K|M|G|T)?i?B?", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Step:
    """One thing to be done: `do` does it, and may return a task of vCenter's."""

    what: str
    govc: str
    done: Callable[[], bool]
    do: Callable[[], Any]


def run(link: Link, steps: Iterable[Step]) -> list[tuple[Step, bool]]:
    """Do what is not done; returns each step and whether it changed something. Blocks."""
    found = []
    for step in steps:
        with faults.translated(link.session.where):
            if step.done():
                found.append((step, False))
                continue
            result = step.do()
            if isinstance(result, vim.Task):
                link.tasks.add(result).result()
            found.append((step, True))
    return found


def role_steps(link: Link, mode: str, name: str, principal: str) -> list[Step]:
    """Return the steps that make a mode's role and give it to a user where it is needed."""
    mode = roles.check_mode(mode)
    if mode != "platform" and checks.version_of(link) < (6, 7):
        granted = tuple(each for each in roles.privileges(mode) if not each.startswith("Cns."))
    else:
        granted = roles.privileges(mode)
    steps = [_role(link, name, granted)]
    if principal:
        steps += [_permission(link, each, name, principal) for each in roles.places(link, mode)]
    return steps


def _role(link: Link, name: str, privileges: Sequence[str]) -> Step:
    manager = link.session.content.authorizationManager

    def wanted(role: Any) -> bool:
        # System privileges are part of every role.
        return {each for each in role.privilege if not each.startswith("System.")} >= {
            each for each in privileges if not each.startswith("System.")
        }

    def do() -> None:
        found = role_named(link, name)
        plain = [each for each in privileges if not each.startswith("System.")]
        if found is None:
            manager.AddAuthorizationRole(name, plain)
        else:
            both = sorted({*found.privilege, *plain})
            manager.UpdateAuthorizationRole(found.roleId, name, both)

    return Step(
        f"role {name} with {len(privileges)} privileges",
        _words("govc", "role.create", name, *privileges),
        lambda: (role := role_named(link, name)) is not None and wanted(role),
        do,
    )


def _permission(link: Link, place: roles.Place, role: str, principal: str) -> Step:
    manager = link.session.content.authorizationManager
    short = _principal(principal)
    # At the root only its own privileges count: the role has more, for other places.
    propagate = place.label != "/"
    below = () if propagate else ("-propagate=false",)

    def present() -> list[Any]:
        return list(manager.RetrieveEntityPermissions(place.ref, False) or ())

    def is_ours(each: Any) -> bool:
        return _principal(str(each.principal)) == short and not each.group

    def done() -> bool:
        found = role_named(link, role)
        return found is not None and any(
            is_ours(each) and each.roleId == found.roleId and (each.propagate or not propagate)
            for each in present()
        )

    def do() -> None:
        found = role_named(link, role)
        if found is None:
            raise errors.NotFound(f'no role "{role}"', link.session.where, "make it first")
        ours = vim.AuthorizationManager.Permission(
            principal=short, group=False, roleId=found.roleId, propagate=propagate
        )
        # Some versions replace the whole list, so the others' permissions go with it.
        others = [
            vim.AuthorizationManager.Permission(
                principal=each.principal,
                group=each.group,
                roleId=each.roleId,
                propagate=each.propagate,
            )
            for each in present()
            if not is_ours(each)
        ]
        manager.SetEntityPermissions(place.ref, [*others, ours])

    return Step(
        f"permission of {principal} on {place.label}",
        _words(
            *("govc", "permissions.set", "-principal", principal),
            *("-role", role, *below, place.label),
        ),
        done,
        do,
    )


def role_named(link: Link, name: str) -> Any:
    """Return a role of vCenter by its name, or None."""
    manager = link.session.content.authorizationManager
    found = link.reader.properties([manager], ["roleList"])[0].get("roleList") or ()
    return next((each for each in found if each.name == name), None)


def tag_steps(
    link: Link,
    region_category: str,
    zone_category: str,
    regions: Mapping[str, Sequence[str]],
    attachments: Sequence[tuple[str, str]],
) -> list[Step]:
    """Return the steps for categories, the tags of regions with their zones, and attachments.

    `attachments` are pairs of tag and inventory path.
    """
    steps = [
        _category(link, region_category, "Kubernetes region", REGION_KINDS, single=True),
        _category(link, zone_category, "Kubernetes zone", ZONE_KINDS, single=False),
    ]
    for region, zones in regions.items():
        steps.append(_tag(link, region_category, region, f"Kubernetes region {region}"))
        steps += [_tag(link, zone_category, zone, f"Kubernetes zone {zone}") for zone in zones]
    _check_tags(regions, attachments)
    known = link.tagging.category(region_category)
    present = {each.name for each in link.tagging.tags(known)} if known is not None else set()
    for tag, path in attachments:
        category = region_category if tag in {*regions, *present} else zone_category
        steps.append(_attachment(link, category, tag, path))
    return steps


def _check_tags(
    regions: Mapping[str, Sequence[str]], attachments: Sequence[tuple[str, str]]
) -> None:
    # The simulator takes a tag without a name, and then says nothing more about tags.
    if not all(each.strip() for names in regions.items() for each in (names[0], *names[1])):
        raise errors.Invalid("a tag has no name", "--region", "write REGION=ZONE,ZONE")
    if not all(tag.strip() and path.startswith("/") for tag, path in attachments):
        raise errors.Invalid(
            "a tag or the path of an object is missing", "--attach", "write TAG=/DATACENTER/..."
        )


def _category(
    link: Link, name: str, description: str, kinds: Sequence[str], *, single: bool
) -> Step:
    many = [] if single else ["-m"]
    types = [part for kind in kinds for part in ("-t", kind)]
    return Step(
        f"tag category {name}",
        _words("govc", "tags.category.create", "-d", description, *many, *types, name),
        lambda: link.tagging.category(name) is not None,
        lambda: link.tagging.create_category(name, description, kinds, single=single),
    )


def _tag(link: Link, category: str, name: str, description: str) -> Step:
    def known() -> Any:
        found = link.tagging.category(category)
        if found is None:
            return None
        return next((each for each in link.tagging.tags(found) if each.name == name), None)

    def do() -> None:
        found = link.tagging.category(category)
        if found is None:
            raise errors.NotFound(f'no tag category "{category}"', link.session.where)
        link.tagging.create_tag(found, name, description)

    return Step(
        f"tag {name}",
        _words("govc", "tags.create", "-d", description, "-c", category, name),
        lambda: known() is not None,
        do,
    )


def _attachment(link: Link, category: str, name: str, path: str) -> Step:
    def target() -> Target:
        found = link.reader.at_path(path)
        if found is None:
            raise errors.NotFound(f'nothing is at "{path}"', link.session.where, "govc find /")
        return Target(inventory.kind_of(found), found._moId)

    def done() -> bool:
        found = link.tagging.category(category)
        if found is None:
            return False
        present = link.tagging.attached(target())
        return any((each.name, each.category) == (name, found.id) for each in present)

    def do() -> None:
        found = link.tagging.category(category)
        tags = link.tagging.tags(found) if found is not None else []
        tag = next((each for each in tags if each.name == name), None)
        if found is None or tag is None:
            raise errors.NotFound(f'no tag "{name}" in "{category}"', link.session.where)
        link.tagging.attach(tag, found, target())

    return Step(
        f"tag {name} on {path}",
        _words("govc", "tags.attach", "-c", category, name, path),
        done,
        do,
    )


def folder_steps(link: Link, datacenter: str, name: str) -> list[Step]:
    """Return the steps that make the folder of the node VMs, and those above it."""
    found = link.reader.datacenter(datacenter)
    whole, root = placement.folder_path(found, name), f"{found.path}/vm"
    if not whole.startswith(f"{root}/"):
        raise errors.Invalid(f"{whole} is no VM folder of {found.path}", link.workspace.place)
    names = whole.removeprefix(f"{root}/").split("/")
    return [_folder(link, "/".join((root, *names[:deep])), each) for deep, each in enumerate(names)]


def _folder(link: Link, above: str, name: str) -> Step:
    path = f"{above}/{name}"

    def do() -> None:
        folder = link.reader.at_path(above)
        if folder is None:
            raise errors.NotFound(f"no folder {above}", link.session.where)
        folder.CreateFolder(name)

    return Step(
        f"VM folder {path}",
        _words("govc", "folder.create", path),
        lambda: link.reader.at_path(path) is not None,
        do,
    )


def node_steps(link: Link) -> list[Step]:
    """Return the steps that set disk.enableUUID on every node VM."""
    datacenter = placement.home(link)
    folder = link.workspace.folder
    if not folder:
        raise errors.Invalid(
            "no folder of node VMs is configured, and not every VM of a vCenter is a node",
            link.workspace.place,
            "put the node VMs into a folder and name it as [Workspace] folder",
        )
    ref = link.reader.folder(datacenter, folder)
    machines = link.reader.machines(ref, extra=True)
    if not machines:
        path = placement.folder_path(datacenter, folder)
        raise errors.NotFound(
            f"no VM is in the folder {path}",
            link.session.where,
            f"move the node VMs there: govc object.mv VM {shlex.quote(path)}",
        )
    return [
        _enable(link, each, f"{placement.folder_path(datacenter, folder)}/{each.name}")
        for each in machines
    ]


def _enable(link: Link, machine: inventory.Machine, path: str) -> Step:
    ref = link.session.ref(vim.VirtualMachine, machine.moid)

    def done() -> bool:
        found = link.reader.properties([ref], ["config.extraConfig"])[0]
        return any(
            str(each.key).lower() == "disk.enableuuid" and str(each.value).lower() in ("true", "1")
            for each in found.get("config.extraConfig") or ()
        )

    option = vim.option.OptionValue
    return Step(
        f"disk.enableUUID on {machine.name}",
        _words("govc", "vm.change", "-e=disk.enableUUID=1", f"-vm={path}"),
        done,
        lambda: ref.ReconfigVM_Task(
            vim.vm.ConfigSpec(extraConfig=[option(key="disk.enableUUID", value="TRUE")])
        ),
    )


def directory_steps(link: Link, datastore: str, path: str) -> list[Step]:
    """Return the step that makes a directory on a datastore."""
    store = _store(link, datastore)

    def exists() -> bool:
        above, _, name = path.strip("/").rpartition("/")
        browser = files.browser(link, store.moid)
        spec = vim.host.DatastoreBrowser.SearchSpec(matchPattern=[name])
        try:
            found = link.tasks.add(
                browser.SearchDatastore_Task(f"[{store.name}] {above}".strip(), spec)
            ).result()
        except errors.NotFound:
            return False
        return any(each.path == name for each in found.file)

    return [
        Step(
            f"directory [{store.name}] {path}",
            _words("govc", "datastore.mkdir", "-p", "-ds", store.name, path),
            exists,
            lambda: files.make_directory(link, store.datacenter, store.name, path),
        )
    ]


def disk_steps(link: Link, datastore: str, path: str, size: int, format: str) -> list[Step]:
    """Return the steps for a VMDK made by hand: its directory, and the disk."""
    store = _store(link, datastore)
    _check_disk(store, path, size, format)
    file = f"[{store.name}] {path}"

    def exists() -> bool:
        try:
            return bool(files.disk_uuid(link, store.datacenter, file))
        except errors.NotFound:
            return False

    directory = path.rpartition("/")[0]
    before = directory_steps(link, datastore, directory) if directory else []
    text = f"{-(-size // (1 << 20))}M"
    kind = files.VIRTUAL[format]
    return [
        *before,
        Step(
            f"disk {file}, {text}",
            _words(
                *("govc", "datastore.disk.create", "-ds", store.name),
                *("-d", kind, "-size", text, path),
            ),
            exists,
            lambda: files.create_task(
                link, store.datacenter, file, -(-size // 1024) * 1024, format, []
            ),
        ),
    ]


def _check_disk(store: inventory.Datastore, path: str, size: int, format: str) -> None:
    if not path.endswith(".vmdk"):
        raise errors.Invalid(f'"{path}" is no virtual disk', "path", "it ends in .vmdk")
    parts = path.split("/")
    if set(path) & set("[]\\") or "" in parts or set(parts) & {".", ".."}:
        raise errors.Invalid(
            f'"{path}" is no path on a datastore',
            "path",
            "write DIRECTORY/NAME.vmdk, without the datastore",
        )
    if size > placement.LARGEST:
        raise errors.Invalid("a virtual disk cannot be larger than 62T", "size", "ask for less")
    if size > (store.capacity if format == "thin" else store.free):
        raise errors.Exhausted(
            f"{size >> 20} MiB do not fit: {store.name} has {store.free >> 20} MiB free of "
            f"{store.capacity >> 20}",
            "size",
            "free space, or ask for less",
        )


def _store(link: Link, name: str) -> inventory.Datastore:
    found = placement.matching(link.reader.datastores(placement.home(link)), name)
    if not found:
        raise errors.NotFound(f'no datastore "{name}"', link.session.where, "govc find / -type s")
    return found[0]


def parse_size(text: str) -> int:
    """Return bytes for a size as govc writes it: 10G, 512M. Raises errors.Invalid."""
    match = _SIZE.fullmatch(text.strip())
    if match is None or int(match[1]) == 0:
        raise errors.Invalid(f'"{text}" is no size', "size", "write 10G or 512M")
    factor = {"b": 0, "k": 10, "m": 20, "g": 30, "t": 40}[(match[2] or "B").lower()]
    return int(match[1]) << factor


def _principal(text: str) -> str:
    """Return a user as vCenter's permissions write it: DOMAIN\\user."""
    user, at, domain = text.rpartition("@")
    return f"{domain.upper()}\\{user}" if at else text


def _words(*words: str) -> str:
    return " ".join(shlex.quote(each) for each in words)
