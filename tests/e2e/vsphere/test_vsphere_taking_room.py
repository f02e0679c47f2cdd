"""Everything that takes room when there is none after all, and when the way to vCenter fails.

A vCenter mostly takes the order and lets its task fail; some versions refuse the order. Each time
the error names the datastore's trouble, nothing is left behind, and the repetition succeeds.
"""

from __future__ import annotations

import itertools
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import pytest

from holdfast.backends import errors
from holdfast.backends.protocol import Snapshot, Volume, VolumeRequest, VolumeSource
from holdfast.backends.vsphere.backend import VsphereBackend
from servers.vsphere.faultproxy import FaultProxy, Rule
from servers.vsphere.vcenter import VCenter

pytestmark = pytest.mark.e2e

GIB = 1 << 30
MACHINE = "/DC0/vm/DC0_C0_RP0_VM0"
_NUMBERS = itertools.count(1)


def settings(vcenter: VCenter, port: int) -> dict[str, object]:
    return vcenter.settings(port=port, default_datastore="LocalDS_0")


def request(disk: str, source: VolumeSource | None = None, size: int = GIB) -> VolumeRequest:
    return VolumeRequest(f"pvc-{next(_NUMBERS)}-space", size, {"disk": disk}, source=source)


def names(vcenter: VCenter) -> list[str]:
    """The volumes of either kind there are."""
    listed = vcenter.json("disk.ls", "-ds", "LocalDS_0")["objects"] or ()
    first_class = (each["config"]["name"] for each in listed)
    return sorted([*vcenter.files("LocalDS_0", "kubevols"), *first_class])


@dataclass(frozen=True, slots=True)
class Taking:
    """Something that takes room: the call that does it, and how it is asked for."""

    call: str
    disk: str
    what: Literal["create", "clone", "restore", "expand", "expand held", "snapshot"]


TAKING = (
    Taking("CreateVirtualDisk_Task", "vmdk", "create"),
    Taking("CopyVirtualDisk_Task", "vmdk", "clone"),
    Taking("ExtendVirtualDisk_Task", "vmdk", "expand"),
    Taking("ReconfigVM_Task", "vmdk", "expand held"),
    Taking("CreateDisk_Task", "fcd", "create"),
    Taking("CloneVStorageObject_Task", "fcd", "clone"),
    Taking("CreateDiskFromSnapshot_Task", "fcd", "restore"),
    Taking("ExtendDisk_Task", "fcd", "expand"),
    Taking("VStorageObjectCreateSnapshot_Task", "fcd", "snapshot"),
)


@pytest.mark.parametrize("taking", TAKING, ids=lambda each: each.call.removesuffix("_Task"))
async def test_whatever_takes_room_says_that_there_is_none_and_leaves_nothing(
    backend: VsphereBackend,
    vcenter: VCenter,
    proxy: FaultProxy,
    tmp_path: Path,
    taking: Taking,
) -> None:
    origin = await backend.create_volume(request(taking.disk))
    before = names(vcenter)
    asked, undo = await ask(backend, vcenter, taking, origin)
    # The order is refused, and taken on by a task that fails.
    kinds: tuple[Literal["fault", "task"], ...] = ("fault", "task")
    for kind in kinds:
        proxy.fail(Rule(taking.call, kind, 1, name="NoDiskSpace"))
        with pytest.raises(errors.Exhausted, match="NoDiskSpace") as caught:
            await asked()
        assert caught.value.retryable and "another" in caught.value.remedy
        assert proxy.left() == 0
    assert names(vcenter) == before, "something was left behind"
    assert (await backend.get_volume(origin.id)).size == GIB
    notes = list((tmp_path / "own" / "creating").glob("*.json"))
    # A snapshot's name is kept: nothing in vCenter says which disk it belongs to.
    assert len(notes) == (taking.what in ("snapshot", "restore"))
    done = await asked()
    assert await asked() == done
    assert len(names(vcenter)) == len(before) + (taking.what in ("create", "clone", "restore"))
    await undo(done)
    await backend.delete_volume(origin.id)


FAILURES = (
    Rule("", "status", code=503),
    Rule("", "reset"),
    Rule("", "lost"),
    Rule("", "fault", name="NotAuthenticated"),
    Rule("", "fault", name="HostCommunication"),
)


@pytest.mark.parametrize("failure", FAILURES, ids=lambda rule: f"{rule.kind}{rule.name}")
async def test_whatever_takes_room_is_done_once_through_a_bad_line(
    backend: VsphereBackend, vcenter: VCenter, proxy: FaultProxy, failure: Rule
) -> None:
    """Each call that makes or grows something fails once, and so does the next read."""
    for taking in TAKING:
        origin = await backend.create_volume(request(taking.disk))
        before = names(vcenter)
        asked, undo = await ask(backend, vcenter, taking, origin)
        for method in (taking.call, "RetrievePropertiesEx"):
            proxy.fail(Rule(method, failure.kind, 1, 0.0, failure.code, failure.name))
        for _ in range(6):
            try:
                done = await asked()
                break
            except errors.BackendError as error:
                assert error.retryable, f"{taking.call}: {error!r}"
        else:
            raise AssertionError(f"{taking.call} was never done")
        proxy.heal()
        assert await asked() == done, taking.call
        made = taking.what in ("create", "clone", "restore")
        assert len(names(vcenter)) == len(before) + made, taking.call
        if taking.what == "snapshot":
            assert len((await backend.list_snapshots()).snapshots) == 1
        await undo(done)
        await backend.delete_volume(origin.id)
        assert len(names(vcenter)) == len(before) - 1, taking.call


Asked = Callable[[], Awaitable[Volume | Snapshot]]
Undo = Callable[[Volume | Snapshot], Awaitable[None]]


async def ask(
    backend: VsphereBackend, vcenter: VCenter, taking: Taking, origin: Volume
) -> tuple[Asked, Undo]:
    """Return what takes room, may be repeated, and what undoes it."""

    async def delete(made: Volume | Snapshot) -> None:
        await backend.delete_volume(made.id)

    async def forget(made: Volume | Snapshot) -> None:
        await backend.delete_snapshot(made.id)

    async def nothing(made: Volume | Snapshot) -> None:
        return

    node = vcenter.uuid_of(MACHINE)

    async def let_go(made: Volume | Snapshot) -> None:
        await backend.detach(origin.id, node)

    if taking.what == "snapshot":
        name = f"snapshot-{next(_NUMBERS)}"
        return lambda: backend.create_snapshot(name, origin.id), forget
    if taking.what == "expand":
        return lambda: backend.expand(origin.id, 2 * GIB), nothing
    if taking.what == "expand held":
        await backend.attach(origin.id, node, False)
        return lambda: backend.expand(origin.id, 2 * GIB), let_go
    if taking.what == "restore":
        taken = await backend.create_snapshot(f"snapshot-{next(_NUMBERS)}", origin.id)
        wanted = request(taking.disk, VolumeSource("snapshot", taken.id))

        async def both(made: Volume | Snapshot) -> None:
            await backend.delete_volume(made.id)
            await backend.delete_snapshot(taken.id)

        return lambda: backend.create_volume(wanted), both
    source = VolumeSource("volume", origin.id) if taking.what == "clone" else None
    wanted = request(taking.disk, source)
    return lambda: backend.create_volume(wanted), delete


async def test_a_full_datastore_is_named_and_another_one_taken_when_the_class_allows(
    vcenter: VCenter, proxy: FaultProxy, tmp_path: Path
) -> None:
    wanted = request("vmdk")
    proxy.fail(Rule("CreateVirtualDisk_Task", "fault", 1, name="NoDiskSpace"))
    free = VsphereBackend({"main": vcenter.settings(port=proxy.port)}, tmp_path / "free")
    bound = VsphereBackend({"main": settings(vcenter, proxy.port)}, tmp_path / "bound")
    try:
        made = await free.create_volume(wanted)
        stores = ("LocalDS_0", "LocalDS_1")
        found = [each for each in stores if vcenter.files(each, "kubevols")]
        assert sum(wanted.name in str(vcenter.files(each, "kubevols")) for each in found) == 1
        assert (await free.create_volume(wanted)).id == made.id
        await free.delete_volume(made.id)
        proxy.fail(Rule("CreateVirtualDisk_Task", "fault", 1, name="NoDiskSpace"))
        with pytest.raises(errors.Exhausted, match="NoDiskSpace"):
            await bound.create_volume(request("vmdk"))
    finally:
        await free.close()
        await bound.close()
