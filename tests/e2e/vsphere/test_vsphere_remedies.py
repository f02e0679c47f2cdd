"""What goes wrong with a real backend is known to `holdfast why` by the text of its event.

Each failure is brought about at a simulated vCenter or a machine without the disk; nothing here
writes an error's text itself.
"""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest

from holdfast.backends import errors
from holdfast.backends.protocol import VolumeHandle, VolumeRequest
from holdfast.backends.vsphere import node_side
from holdfast.backends.vsphere.backend import VsphereBackend
from holdfast.diagnosis.causes import vsphere
from servers.vsphere.faultproxy import FaultProxy, Rule
from servers.vsphere.vcenter import VCenter

pytestmark = pytest.mark.e2e

GIB = 1 << 30
MACHINES = ("/DC0/vm/DC0_C0_RP0_VM0", "/DC0/vm/DC0_C0_RP0_VM1")
# How the policy service says that a datastore does not do.
INCOMPATIBLE = """<returnval><hub><hubType>Datastore</hubType><hubId>{}</hubId></hub>
<error xsi:type="LocalizedMethodFault"><fault xsi:type="PbmCompatibilityCheckFault"
 xmlns="urn:pbm"><hub><hubType>Datastore</hubType><hubId>{}</hubId></hub></fault>
<localizedMessage>no</localizedMessage></error></returnval>"""
_NUMBERS = itertools.count(1)


def request(**parameters: str) -> VolumeRequest:
    return VolumeRequest(f"pvc-{next(_NUMBERS)}-remedies", GIB, parameters)


def advice(caught: pytest.ExceptionInfo[errors.BackendError]) -> tuple[str, str]:
    """The code and the commands that the text of an event leads to."""
    found = vsphere.remedy("vsphere", str(caught.value))
    assert found is not None, f"unknown: {caught.value}"
    return found.code, found.fix


async def test_a_class_with_vsan_settings_on_another_kind_of_datastore(
    backend: VsphereBackend, vcenter: VCenter, tmp_path: Path
) -> None:
    hosts = vcenter.govc("find", "/DC0", "-type", "h").split()
    # The simulator mounts nothing: it takes a directory of this machine by the datastore's name.
    shelf = tmp_path / "nas"
    shelf.mkdir()
    remote = ("-remote-host", "nas.example", "-remote-path", "/export")
    vcenter.govc("datastore.create", "-type", "nfs", "-name", str(shelf), *remote, *hosts)
    with pytest.raises(errors.BackendError) as caught:
        await backend.create_volume(request(datastore="nas", hostFailuresToTolerate="1"))
    code, fix = advice(caught)
    assert code == "datastore-not-vsan"
    assert "storagePolicyName" in fix


async def test_a_policy_that_no_datastore_satisfies(
    backend: VsphereBackend, vcenter: VCenter, proxy: FaultProxy
) -> None:
    name = vcenter.json("storage.policy.ls")["profile"][0]["name"]
    stores = vcenter.json("datastore.info")["datastores"]
    for parameters in ({}, {"datastore": "LocalDS_0"}):
        text = "".join(INCOMPATIBLE.format(*[each["self"]["value"]] * 2) for each in stores)
        proxy.fail(Rule("PbmCheckRequirements", "answer", text=text, space="urn:pbm"))
        with pytest.raises(errors.BackendError) as caught:
            await backend.create_volume(request(storagePolicyName=name, **parameters))
        assert proxy.left() == 0
        assert advice(caught)[0] == "policy"


async def test_a_vcenter_with_another_certificate(vcenter: VCenter, tmp_path: Path) -> None:
    settings = vcenter.settings()
    for wrong in ({"ca_file": ""}, {"ca_file": "", "thumbprint": "AA:" * 19 + "AA"}):
        made = VsphereBackend({"main": {**settings, **wrong}}, tmp_path / "own")
        try:
            with pytest.raises(errors.BackendError) as caught:
                await made.create_volume(request())
        finally:
            await made.close()
        code, fix = advice(caught)
        assert code == "certificate"
        assert "thumbprint" in fix


async def test_a_disk_that_does_not_appear_in_its_guest(tmp_path: Path) -> None:
    guest = node_side.LinuxGuest(tmp_path)
    side = node_side.VsphereNodeSide(guest, patience=0.1)
    volume = VolumeHandle("[ds] kubevols/x.vmdk", {"diskUUID": "6000c29abbccddee1122334455667788"})
    with pytest.raises(errors.BackendError) as caught:
        await side.connect(volume, {})
    code, fix = advice(caught)
    assert code == "disk-uuid"
    assert fix.startswith("holdfast prepare vsphere nodes")


async def test_a_node_that_no_vm_answers_to_and_a_disk_that_another_vm_has(
    backend: VsphereBackend, vcenter: VCenter
) -> None:
    made = await backend.create_volume(request())
    with pytest.raises(errors.BackendError) as caught:
        await backend.attach(made.id, "00000000-1111-2222-3333-444444444444", False)
    code, fix = advice(caught)
    assert code == "no-vm"
    assert "kubectl delete node" in fix
    first, second = (vcenter.uuid_of(each) for each in MACHINES)
    await backend.attach(made.id, first, False)
    for call in (
        lambda: backend.attach(made.id, second, False),
        lambda: backend.delete_volume(made.id),
    ):
        with pytest.raises(errors.BackendError) as caught:
            await call()
        code, fix = advice(caught)
        assert code == "held-by-vm"
        assert "govc device.remove" in fix
    await backend.detach(made.id, first)
    await backend.delete_volume(made.id)


async def test_what_somebody_does_by_hand_counts_at_once(
    backend: VsphereBackend, vcenter: VCenter
) -> None:
    """Nothing is remembered of the VMs: not who has a disk, and not which slots are free."""
    made = await backend.create_volume(request())
    file = made.id.partition("] ")[2]
    first, second = (vcenter.uuid_of(each) for each in MACHINES)
    await backend.attach(made.id, first, False)
    (device,) = (
        each["name"]
        for each in vcenter.disks_of(MACHINES[0])
        if each["backing"]["fileName"] == made.id
    )
    vcenter.govc("device.remove", "-vm", MACHINES[0], "-keep", device)
    by_hand = ("-disk", file, "-ds", "LocalDS_0", "-link=false")
    vcenter.govc("vm.disk.attach", "-vm", MACHINES[1], *by_hand)
    with pytest.raises(errors.BackendError) as caught:
        await backend.attach(made.id, first, False)
    assert advice(caught)[0] == "held-by-vm"
    assert vcenter.attached(MACHINES[0]) == []
    before = backend.gateway.calls()["ReconfigVM_Task"]
    await backend.attach(made.id, second, False)
    assert backend.gateway.calls()["ReconfigVM_Task"] == before, "it hangs there already"
    other = await backend.create_volume(request())
    await backend.attach(other.id, second, False)
    disks = vcenter.disks_of(MACHINES[1])
    slots = [(each["controllerKey"], each["unitNumber"]) for each in disks]
    assert len(set(slots)) == len(slots) == 3
    for volume in (made, other):
        await backend.detach(volume.id, second)
        await backend.delete_volume(volume.id)
    assert vcenter.attached(MACHINES[1]) == []
