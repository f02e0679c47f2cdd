"""The node side of vSphere without a VM: directories stand in for what the kernel shows."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest

from holdfast.backends import errors
from holdfast.backends.protocol import VolumeHandle
from holdfast.backends.vsphere import node_side
from holdfast.backends.vsphere.node_side import LinuxGuest, VsphereNodeSide

UUID = "6000c29abbccddee1122334455667788"


@pytest.fixture
def guest(tmp_path: Path) -> LinuxGuest:
    for name in ("by-id", "dmi", "scsi_host/host0", "block"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "scsi_host/host0/scan").write_text("")
    return LinuxGuest(
        tmp_path / "by-id", tmp_path / "dmi", tmp_path / "scsi_host", tmp_path / "block"
    )


async def test_a_vm_is_known_by_its_serial_number_before_its_product(
    guest: LinuxGuest, tmp_path: Path
) -> None:
    side = VsphereNodeSide(guest)
    with pytest.raises(errors.NotFound, match="no VM"):
        await side.describe()
    assert [each.severity for each in await side.checks()] == ["warning"]
    (tmp_path / "dmi/product_uuid").write_text("22110A42-4433-6655-7788-99AABBCCDDEE\n")
    assert (await side.describe()).id == "22110a42-4433-6655-7788-99aabbccddee"
    (tmp_path / "dmi/product_serial").write_text(
        "VMware-42 0a 11 22 33 44 55 66-77 88 99 aa bb cc dd ee\n"
    )
    found = await side.describe()
    assert (found.id, found.max_volumes) == ("420a1122-3344-5566-7788-99aabbccddee", 59)


async def test_a_disk_that_does_not_appear_is_named_with_the_remedy(
    guest: LinuxGuest, tmp_path: Path
) -> None:
    side = VsphereNodeSide(guest, patience=0.3)
    with pytest.raises(errors.NotFound, match="not attached"):
        await side.connect(VolumeHandle("[ds] x.vmdk"), {})
    with pytest.raises(errors.NotFound, match=r"disk\.enableUUID") as caught:
        await side.connect(VolumeHandle("[ds] x.vmdk"), {"diskUUID": UUID})
    assert f"wwn-0x{UUID}" in str(caught.value)
    assert (tmp_path / "scsi_host/host0/scan").read_text() == "- - -\n"


def test_a_link_that_is_older_than_the_disk_behind_it_is_not_followed(
    guest: LinuxGuest, tmp_path: Path
) -> None:
    """The kernel gives the name of a disk that went to the next one, and udev follows later."""
    (tmp_path / "sdb").write_text("")
    (tmp_path / f"by-id/wwn-0x{UUID}").symlink_to(tmp_path / "sdb")
    assert guest.find(UUID) == tmp_path / "sdb"
    wwid = tmp_path / "block/sdb/device/wwid"
    wwid.parent.mkdir(parents=True)
    for said, found in (
        (f"naa.{UUID.upper()}\n", True),
        ("naa.6000c2900000000000000000000000aa\n", False),
        ("t10.ATA     VBOX HARDDISK\n", True),
    ):
        wwid.write_text(said)
        assert (guest.find(UUID) is not None) is found


async def test_a_disk_that_appears_late_is_waited_for(guest: LinuxGuest, tmp_path: Path) -> None:
    def appear() -> None:
        time.sleep(0.3)
        (tmp_path / f"by-id/wwn-0x{UUID}").symlink_to(tmp_path / "file")

    (tmp_path / "file").write_text("no disk")
    late = threading.Thread(target=appear)
    late.start()
    # What appears is no block device, which only shows that it was found.
    with pytest.raises(errors.Invalid, match="block device"):
        await VsphereNodeSide(guest).connect(VolumeHandle("x"), {"diskUUID": UUID.upper()})
    late.join()


async def test_the_note_beside_a_nodes_files_names_its_vm(tmp_path: Path) -> None:
    (tmp_path / node_side.NOTE).write_text("420A1122-3344-5566-7788-99AABBCCDDEE\n")
    side = node_side.node_side({}, tmp_path)
    assert (await side.describe()).id == "420a1122-3344-5566-7788-99aabbccddee"
