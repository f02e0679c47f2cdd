"""Devices of VMs read from vCenter's XML: what is looked at, and what is given back whole."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast
from xml.etree import ElementTree

import pytest

from holdfast.backends.vsphere import devices, holders, identifiers
from holdfast.backends.vsphere.devices import Device
from holdfast.backends.vsphere.holders import Disk, Holder
from holdfast.backends.vsphere.inventory import Machine
from holdfast.backends.vsphere.sdk import soap, types, vim

# As a vCenter writes it: a controller, a volume below a snapshot, a First Class Disk, a CD drive.
VAL = """
<val xmlns="urn:vim25" xmlns:xsd="http://www.w3.org/2001/XMLSchema"
     xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance" xsi:type="ArrayOfVirtualDevice">
 <VirtualDevice xsi:type="ParaVirtualSCSIController"><key>1000</key>
  <controllerKey>100</controllerKey>
  <unitNumber>3</unitNumber><busNumber>1</busNumber><device>2000</device>
  <sharedBus>noSharing</sharedBus><scsiCtlrUnitNumber>7</scsiCtlrUnitNumber></VirtualDevice>
 <VirtualDevice xsi:type="VirtualDisk"><key>2000</key>
  <deviceInfo><label>Hard disk 1 &amp; only</label><summary>1 KB</summary></deviceInfo>
  <backing xsi:type="VirtualDiskFlatVer2BackingInfo">
   <fileName>[ds] kubevols/a-000001.vmdk</fileName>
   <datastore type="Datastore">datastore-7</datastore><diskMode>independent_persistent</diskMode>
   <uuid>6000C29a-bbcc-ddee-1122-334455667788</uuid>
   <parent xsi:type="VirtualDiskFlatVer2BackingInfo"><fileName>[ds] kubevols/a.vmdk</fileName>
    <diskMode>persistent</diskMode></parent></backing>
  <controllerKey>1000</controllerKey><unitNumber>0</unitNumber>
  <capacityInKB>1024</capacityInKB><capacityInBytes>1048576</capacityInBytes></VirtualDevice>
 <VirtualDevice xsi:type="VirtualDisk"><key>2001</key>
  <backing xsi:type="VirtualDiskFlatVer2BackingInfo"><fileName>[ds] fcd/b.vmdk</fileName>
   <datastore type="Datastore">datastore-7</datastore><diskMode>independent_persistent</diskMode>
  </backing><controllerKey>1000</controllerKey><unitNumber>1</unitNumber>
  <capacityInKB>1024</capacityInKB>
  <vDiskId><id>AAAAAAAA-bbbb-cccc-dddd-eeeeeeeeeeee</id></vDiskId></VirtualDevice>
 <VirtualDevice xsi:type="VirtualCdrom"><key>3000</key><controllerKey>200</controllerKey>
  <unitNumber>0</unitNumber></VirtualDevice>
</val>
"""
UUID = identifiers.normalise_uuid("6000C29a-bbcc-ddee-1122-334455667788")
FIRST_CLASS = "aaaaaaaa-bbbb-cccc-dddd-eeeeeeeeeeee"


@pytest.fixture
def found() -> tuple[Device, ...]:
    return devices.read(ElementTree.fromstring(VAL))


def test_a_devices_place_files_and_identities_are_read(found: tuple[Device, ...]) -> None:
    controller, volume, first_class, drive = found
    assert (controller.scsi, controller.key, controller.bus) == ("pvscsi", 1000, 1)
    assert (volume.is_disk, volume.controller, volume.unit) == (True, 1000, 0)
    assert volume.files == ("[ds] kubevols/a-000001.vmdk", "[ds] kubevols/a.vmdk")
    assert volume.datastore == "datastore-7"
    assert first_class.first_class == FIRST_CLASS
    assert (drive.scsi, drive.is_disk, drive.controller) == ("", False, 200)
    assert devices.read(None) == ()


@pytest.mark.parametrize(
    ("disk", "key"),
    [
        (Disk("[ds] kubevols/a.vmdk", "", ""), 2000),
        (Disk("[other] moved.vmdk", UUID, ""), 2000),
        (Disk("[ds] fcd/moved.vmdk", "", "", FIRST_CLASS), 2001),
        (Disk("[ds] kubevols/none.vmdk", "0" * 32, ""), 0),
        (Disk("[ds] kubevols/none.vmdk", "", ""), 0),
    ],
    ids=["below a snapshot", "by uuid", "first class", "another", "uuid unknown"],
)
def test_a_disk_is_found_by_whatever_is_known_of_it(
    found: tuple[Device, ...], disk: Disk, key: int
) -> None:
    machine = Machine("vm-1", "vm", "node", "poweredOn", "", "vmx-19", template=False)
    holder = Holder(machine, found)
    device = holder.device(disk)
    assert (device.key if device else 0) == key
    assert holder.controllers[0].used == frozenset({0, 1})
    assert [each.key for each in holder.volumes] == [2000, 2001]
    attached = holders.attached([holder])
    assert [(each.key, of) for each, of in attached] == [(2000, "node"), (2001, "node")]


def test_a_device_goes_back_with_all_it_came_with(found: tuple[Device, ...]) -> None:
    version = types.newestVersions.Get("vim")
    session = cast(Any, SimpleNamespace(version=version))
    whole = found[1].whole(session)
    assert isinstance(whole, vim.vm.device.VirtualDisk)
    many = types.GetVmodlType("vim.vm.device.VirtualDevice[]")
    expected = soap.Deserialize(VAL.encode(), many, session)[1]
    assert soap.SerializeToStr(whole) == soap.SerializeToStr(expected)
    assert whole.deviceInfo.label == "Hard disk 1 & only"
    assert whole.backing.parent.fileName == "[ds] kubevols/a.vmdk"
    assert whole.backing.datastore._moId == "datastore-7"


def test_an_answer_without_a_session_is_known_from_one_without_a_privilege() -> None:
    page = """<r xmlns="urn:vim25" xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance"><objects>
    <missingSet><path>name</path><fault><fault xsi:type="{}"/></fault></missingSet>
    </objects></r>"""
    assert devices.lost_session(ElementTree.fromstring(page.format("NotAuthenticated")))
    assert not devices.lost_session(ElementTree.fromstring(page.format("NoPermission")))
