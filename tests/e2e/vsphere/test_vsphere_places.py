"""Datastores, datacenters and hosts that are not as usual: gone, of one name, of odd names, silent.

Whatever the place, no volume is taken for another one's, none is called deleted whose file may
still be there, and no VM for stopped of which vCenter hears nothing.
"""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest

from holdfast.backends import errors, protocol
from holdfast.backends.protocol import VolumeRequest, VolumeSource
from holdfast.backends.vsphere import preparing
from holdfast.backends.vsphere.backend import VsphereBackend
from holdfast.diagnosis.causes import vsphere
from servers.vsphere.faultproxy import FaultProxy, Rule
from servers.vsphere.vcenter import VCenter

pytestmark = pytest.mark.e2e

OPTIONS = ("-dc", "2", "-ds", "2")
SETTINGS = {"datacenters": ["DC0", "DC1"]}
GIB = 1 << 30
# The simulator gives the VMs of all vCenters the same UUIDs.
UUID = "42000000-0000-4000-8000-0000000be000"
_NUMBERS = itertools.count(1)


def request(
    source: protocol.Volume | None = None, size: int = GIB, **parameters: str
) -> VolumeRequest:
    origin = VolumeSource("volume", source.id) if source is not None else None
    return VolumeRequest(f"pvc-{next(_NUMBERS)}-places", size, parameters, source=origin)


def shelf(vcenter: VCenter, name: str, directory: Path) -> None:
    """Make a datastore in a directory of this machine."""
    directory.mkdir(exist_ok=True)
    host = vcenter.govc("find", "/DC0", "-type", "h").split()[0]
    kind = ("-type", "local", "-name", name, "-path", str(directory))
    vcenter.govc("datastore.create", *kind, host)


def advice(caught: pytest.ExceptionInfo[errors.BackendError]) -> str:
    """The code that `holdfast why` gives to the text of an event."""
    found = vsphere.remedy("vsphere", str(caught.value))
    assert found is not None, f"unknown: {caught.value}"
    return found.code


def file_of(volume: protocol.Volume) -> str:
    return volume.id.rpartition("/")[2]


@pytest.mark.parametrize("disk", ["vmdk", "fcd"])
async def test_a_volume_whose_datastore_is_out_of_sight_is_not_called_deleted(
    backend: VsphereBackend, disk: str
) -> None:
    made = await backend.create_volume(request(disk=disk))
    if disk == "vmdk":
        # What a volume's id says after somebody has renamed the datastore.
        lost = made.id.replace("[LocalDS_0]", "[LocalDS_0 old]")
    else:
        await backend.delete_volume(made.id)
        lost = f"{made.id.partition('@')[0]}@datastore-4711"
    with pytest.raises(errors.Unavailable, match="nothing was deleted") as caught:
        await backend.delete_volume(lost)
    assert advice(caught) == "datastore-away"
    assert caught.value.retryable and "old name" in caught.value.remedy
    await backend.delete_volume(made.id)
    await backend.delete_volume(made.id)


async def test_a_datastore_that_vanishes_between_look_and_delete_keeps_the_volume(
    backend: VsphereBackend, proxy: FaultProxy, vcenter: VCenter
) -> None:
    made = await backend.create_volume(request())
    for name in ("InvalidDatastore", "InaccessibleDatastore"):
        for method in ("QueryVirtualDiskUuid", "DeleteVirtualDisk_Task"):
            proxy.fail(Rule(method, "fault", name=name))
            with pytest.raises(errors.Unavailable, match=name):
                await backend.delete_volume(made.id)
            assert proxy.left() == 0
    assert file_of(made) in vcenter.files("LocalDS_0", "kubevols")
    await backend.delete_volume(made.id)
    assert file_of(made) not in vcenter.files("LocalDS_0", "kubevols")


async def test_datastores_of_odd_names_are_used_or_refused_before_anything_is_made(
    backend: VsphereBackend, vcenter: VCenter, tmp_path: Path
) -> None:
    for number, name in enumerate(("datastore1 (1)", "plus & <n>, ü")):
        directory = tmp_path / str(number)
        shelf(vcenter, name, directory)
        backend.gateway.link().reader.forget()
        made = await backend.create_volume(request(datastore=name))
        assert (await backend.get_volume(made.id)).size == GIB
        assert made.id in [each.id for each in (await backend.list_volumes()).volumes]
        await backend.delete_volume(made.id)
        assert not list(directory.rglob("*.vmdk"))
    for number, name in enumerate(("a/b", "x [1]", "back]up", "back\\slash")):
        directory = tmp_path / f"odd{number}"
        shelf(vcenter, name, directory)
        backend.gateway.link().reader.forget()
        with pytest.raises(errors.Invalid, match="could not be read back"):
            await backend.create_volume(request(datastore=name))
        assert not list(directory.rglob("*.vmdk"))
    made = await backend.create_volume(request(datastore="a/b", disk="fcd"))
    await backend.delete_volume(made.id)
    assert not list((tmp_path / "odd0").rglob("*.vmdk"))


async def test_a_copy_lies_where_its_class_says_and_its_source_where_it_was(
    backend: VsphereBackend, vcenter: VCenter
) -> None:
    """Both datacenters have datastores of the same names, and so could both have the file."""
    there = "/DC1/datastore/LocalDS_0"
    made = await backend.create_volume(request())
    for source in (made, await backend.create_volume(request(datastore=there))):
        copy = await backend.create_volume(request(source, 2 * GIB, datastore=there))
        assert copy.id.startswith("127.0.0.1:") and "/DC1/[LocalDS_0]" in copy.id
        assert (await backend.get_volume(copy.id)).size == copy.size == 2 * GIB
        assert file_of(copy) in vcenter.files("LocalDS_0", "kubevols", "DC1")
        await backend.delete_volume(copy.id)
        assert file_of(copy) not in vcenter.files("LocalDS_0", "kubevols", "DC1")
        await backend.delete_volume(source.id)
    for each in ("DC0", "DC1"):
        assert vcenter.files("LocalDS_0", "kubevols", each) == []


async def test_a_copy_does_not_go_without_what_its_class_promises(
    backend: VsphereBackend, vcenter: VCenter
) -> None:
    policy = vcenter.json("storage.policy.ls")["profile"][0]["name"]
    made = await backend.create_volume(request())
    for promised in ({"storagePolicyName": policy}, {"hostFailuresToTolerate": "1"}):
        with pytest.raises(errors.Invalid, match="without a storage policy"):
            await backend.create_volume(request(made, **promised))
    assert vcenter.files("LocalDS_0", "kubevols") == [file_of(made)]
    await backend.delete_volume(made.id)


async def test_a_snapshot_is_not_restored_where_its_disk_is_not(backend: VsphereBackend) -> None:
    made = await backend.create_volume(request(disk="fcd", datastore="LocalDS_0"))
    snapshot = await backend.create_snapshot("snapshot-places", made.id)
    source = VolumeSource("snapshot", snapshot.id)
    elsewhere = {"disk": "fcd", "datastore": "LocalDS_1"}
    with pytest.raises(errors.Exhausted, match="LocalDS_0, and the volume may only lie on LocalDS"):
        await backend.create_volume(VolumeRequest("pvc-else", GIB, elsewhere, source=source))
    await backend.delete_snapshot(snapshot.id)
    await backend.delete_volume(made.id)


async def test_a_disk_whose_file_somebody_removed_is_not_listed_for_ever(
    backend: VsphereBackend, proxy: FaultProxy, vcenter: VCenter
) -> None:
    """A vCenter lists it on; the simulator does not, so it is made to say that there is no file."""
    made = await backend.create_volume(request(disk="fcd"))
    uuid = made.id.removeprefix("fcd:").partition("@")[0]
    assert uuid in vcenter.govc("disk.ls", "-ds", "LocalDS_0")
    proxy.fail(Rule("QueryVirtualDiskUuid", "fault", name="FileNotFound"))
    await backend.delete_volume(made.id)
    assert proxy.left() == 0
    assert uuid not in vcenter.govc("disk.ls", "-ds", "LocalDS_0")


@pytest.mark.parametrize("disk", ["vmdk", "fcd"])
async def test_a_task_that_failed_is_not_waited_for_again(
    backend: VsphereBackend, proxy: FaultProxy, disk: str
) -> None:
    order = {"vmdk": "CreateVirtualDisk_Task", "fcd": "CreateDisk_Task"}[disk]
    wanted = request(disk=disk)
    proxy.fail(Rule(order, "task", name="HostCommunication"))
    with pytest.raises(errors.Unavailable, match="HostCommunication"):
        await backend.create_volume(wanted)
    made = await backend.create_volume(wanted)
    assert made.size == GIB
    await backend.delete_volume(made.id)


async def test_attached_disks_of_two_datacenters_are_told_apart(
    backend: VsphereBackend, vcenter: VCenter
) -> None:
    machine = "/DC1/vm/DC1_H0_VM0"
    vcenter.govc("vm.change", "-vm", machine, "-uuid", UUID)
    home = await backend.create_volume(request())
    away = await backend.create_volume(request(datastore="/DC1/datastore/LocalDS_0"))
    node = vcenter.uuid_of("/DC0/vm/DC0_H0_VM0")
    await backend.attach(home.id, node, False)
    await backend.attach(away.id, UUID, False)
    found = await backend.attachments()
    assert (found[home.id], found[away.id]) == ([node], [UUID])
    assert found["[LocalDS_0] DC0_H0_VM0/disk1.vmdk"] == [node]
    assert "[LocalDS_0] DC1_H0_VM0/disk1.vmdk" not in found
    for volume, where in ((home, node), (away, UUID)):
        await backend.detach(volume.id, where)
        await backend.delete_volume(volume.id)


async def test_an_attached_disk_has_its_volumes_name_whatever_path_the_vm_has(
    backend: VsphereBackend, proxy: FaultProxy, vcenter: VCenter
) -> None:
    """A vSAN writes a directory of its own into the VM; the simulator what it gets."""
    machine = "/DC0/vm/DC0_H0_VM1"
    made = await backend.create_volume(request())
    node = vcenter.uuid_of(machine)
    other = made.id.partition("] ")[2].replace("kubevols/", "kubevols/../kubevols/")
    by_hand = ("-disk", other, "-ds", "LocalDS_0", "-link=false")
    vcenter.govc("vm.disk.attach", "-vm", machine, *by_hand)
    assert vcenter.attached(machine) == [f"[LocalDS_0] {other}"]
    (uuid,) = (
        each["backing"]["uuid"]
        for each in vcenter.disks_of(machine)
        if each["backing"]["fileName"].endswith(other)
    )
    # The simulator makes a disk's UUID of its path, a vCenter reads it from the disk.
    answer = f"<returnval>{uuid}</returnval>"
    proxy.fail(Rule("QueryVirtualDiskUuid", "answer", 5, text=answer))
    await backend.attach(made.id, node, False)
    assert vcenter.attached(machine) == [f"[LocalDS_0] {other}"]
    assert (await backend.attachments())[made.id] == [node]
    for call in (
        backend.attach(made.id, vcenter.uuid_of("/DC0/vm/DC0_H0_VM0"), False),
        backend.delete_volume(made.id),
    ):
        with pytest.raises(errors.Conflict, match="is attached to VM"):
            await call
    await backend.detach(made.id, node)
    assert vcenter.attached(machine) == []
    proxy.heal()
    await backend.delete_volume(made.id)


async def test_a_datacenters_name_means_one_datacenter(tmp_path: Path) -> None:
    vcenter = VCenter(tmp_path / "vcenter")
    try:
        vcenter.govc("folder.create", "/other")
        vcenter.govc("datacenter.create", "-folder", "/other", "DC0")
        settings = vcenter.settings(default_datastore="LocalDS_0")
        vague = VsphereBackend({"main": settings}, tmp_path / "vague")
        with pytest.raises(errors.Conflict, match="2 datacenters") as caught:
            await vague.create_volume(request())
        assert "/DC0, /other/DC0" in caught.value.remedy
        await vague.close()
        clear = VsphereBackend({"main": {**settings, "datacenter": "/DC0"}}, tmp_path / "clear")
        volume = await clear.create_volume(request())
        assert volume.id.startswith("[LocalDS_0] ")
        await clear.delete_volume(volume.id)
        await clear.close()
    finally:
        vcenter.stop()


async def test_a_vm_on_a_host_that_vcenter_does_not_hear_is_not_called_stopped(
    backend: VsphereBackend, vcenter: VCenter
) -> None:
    machine, host = "/DC0/vm/DC0_C0_RP0_VM1", ""
    uuid = vcenter.uuid_of(machine)
    vcenter.govc("vm.power", "-off", machine)
    try:
        assert (await backend.node_state(uuid)).power == "stopped"
        ref = vcenter.json("vm.info", machine)["virtualMachines"][0]["runtime"]["host"]["value"]
        host = vcenter.govc("ls", "-L", f"HostSystem:{ref}").strip()
        vcenter.govc("host.disconnect", host)
        backend.gateway.link().reader.forget()
        state = await backend.node_state(uuid)
        assert state.power == "unknown" and "not connected" in state.detail
    finally:
        if host:
            vcenter.govc("host.reconnect", host)
        vcenter.govc("vm.power", "-on", machine)


async def test_a_vms_own_disk_is_no_volume(backend: VsphereBackend, vcenter: VCenter) -> None:
    """Whoever names it in a volume would take it from the running VM with the pod's end."""
    machine = "/DC0/vm/DC0_H0_VM1"
    node = vcenter.uuid_of(machine)
    own = "[LocalDS_0] DC0_H0_VM1/disk1.vmdk"
    before = vcenter.disks_of(machine)
    assert [each["backing"]["fileName"] for each in before] == [own]
    with pytest.raises(errors.Conflict, match="a disk of VM DC0_H0_VM1 itself") as caught:
        await backend.attach(own, node, False)
    assert advice(caught) == "own-disk"
    await backend.detach(own, node)
    assert vcenter.disks_of(machine) == before
    # One made by hand beside it is a volume: it is attached as such.
    beside = "DC0_H0_VM1/data.vmdk"
    vcenter.govc("datastore.disk.create", "-ds", "LocalDS_0", "-size", "1M", beside)
    for _ in range(2):
        await backend.attach(f"[LocalDS_0] {beside}", node, False)
    await backend.detach(f"[LocalDS_0] {beside}", node)
    assert vcenter.disks_of(machine) == before


async def test_a_copy_of_a_node_does_not_count_for_it(vcenter: VCenter, tmp_path: Path) -> None:
    """A replica keeps the UUID and is powered off: the node it was made of may write."""
    node, copy = "/DC0/vm/DC0_C0_RP0_VM0", "/DC0/vm/DC0_H0_VM0"
    uuid, before = vcenter.uuid_of(node), vcenter.uuid_of(copy)
    vcenter.govc("vm.power", "-off", copy)
    vcenter.govc("vm.change", "-vm", copy, "-uuid", uuid)
    vague = VsphereBackend({"main": vcenter.settings()}, tmp_path / "vague")
    clear = VsphereBackend({"main": vcenter.settings(folder="nodes")}, tmp_path / "clear")
    moved = "/DC0/vm/nodes/DC0_C0_RP0_VM0"
    try:
        state = await vague.node_state(uuid)
        assert state.power == "unknown" and "2 VMs have the UUID" in state.detail
        made = await vague.create_volume(request(datastore="LocalDS_0"))
        with pytest.raises(errors.Conflict, match="DC0_C0_RP0_VM0, DC0_H0_VM0") as caught:
            await vague.attach(made.id, uuid, False)
        assert advice(caught) == "vm-copied"
        vcenter.gather("nodes", [node])
        assert (await clear.node_state(uuid)).power == "running"
        await clear.attach(made.id, uuid, False)
        assert vcenter.attached(moved) == [made.id] and vcenter.attached(copy) == []
        await clear.detach(made.id, uuid)
        await clear.delete_volume(made.id)
    finally:
        await vague.close()
        await clear.close()
        vcenter.govc("vm.change", "-vm", copy, "-uuid", before)
        vcenter.govc("vm.power", "-on", copy)
        vcenter.govc("object.mv", moved, "/DC0/vm", check=False)


async def test_of_two_vcenters_the_machine_that_runs_counts(
    vcenter: VCenter, tmp_path: Path
) -> None:
    other = VCenter(tmp_path / "other")
    machine = "/DC0/vm/DC0_C0_RP0_VM0"
    uuid = vcenter.uuid_of(machine)
    other.govc("vm.change", "-vm", machine, "-uuid", uuid)
    backend = VsphereBackend(
        {"standby": other.settings(), "main": vcenter.settings()}, tmp_path / "own"
    )
    try:
        other.govc("vm.power", "-off", machine)
        assert (await backend.node_state(uuid)).power == "running"
        vcenter.govc("vm.power", "-off", machine)
        assert (await backend.node_state(uuid)).power == "stopped"
    finally:
        vcenter.govc("vm.power", "-on", machine, check=False)
        await backend.close()
        other.stop()


async def test_without_a_folder_no_vm_is_taken_for_a_node(
    backend: VsphereBackend, vcenter: VCenter
) -> None:
    with pytest.raises(errors.Invalid, match="not every VM"):
        await backend.gateway.run(preparing.node_steps, backend.gateway.link())
