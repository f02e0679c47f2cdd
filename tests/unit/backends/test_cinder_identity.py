"""Which server this machine is, and which disk is a volume's, from files as guests have them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from holdfast.backends import blockdevices, errors
from holdfast.backends.cinder import identity, links
from holdfast.backends.cinder.identity import Machine

SERVER = "0f5a7c52-51f3-4a2f-8c0c-2f6f5d0f6b11"
VOLUME = "ef9037a7-9a67-408a-9f92-adbd2badc5db"
NOWHERE = "http://127.0.0.1:9"


def write(path: Path, content: str) -> None:
    """Write a file and the directories above it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content)


async def test_the_order_of_the_sources_decides(tmp_path: Path) -> None:
    other = SERVER.replace("0f", "1f", 1)
    metadata = {"uuid": SERVER, "availability_zone": "zone-b"}
    write(tmp_path / "mnt/config" / identity.META_DATA, json.dumps(metadata))
    write(tmp_path / identity.CLOUD_INIT, f"{other}\n")
    machine = Machine(tmp_path, NOWHERE)
    found = await identity.find(machine, ("metadataService", "configDrive"))
    assert (found.id, found.zone, found.source) == (SERVER, "zone-b", "config drive")
    assert (await identity.find(machine, ("metadataService",))).id == other


@pytest.mark.parametrize("content", ["iid-datasource-none", "i-0000000a", "", "nocloud"])
async def test_cloud_inits_traps_are_no_ids(tmp_path: Path, content: str) -> None:
    write(tmp_path / identity.CLOUD_INIT, content)
    with pytest.raises(errors.NotFound, match="does not know which server"):
        await identity.find(Machine(tmp_path, NOWHERE), ("configDrive", "metadataService"))


async def test_a_config_drive_without_an_id_is_passed_over(tmp_path: Path) -> None:
    write(tmp_path / "mnt/config" / identity.META_DATA, '{"uuid": "x"}')
    write(tmp_path / identity.CLOUD_INIT, SERVER)
    found = await identity.find(Machine(tmp_path, NOWHERE), ("configDrive",))
    assert found.source == "cloud-init"


def test_all_known_forms_of_links_are_looked_for() -> None:
    names = list(links.names(VOLUME))
    for known in (
        f"virtio-{VOLUME[:20]}",
        f"virtio-{VOLUME}",
        f"scsi-0QEMU_QEMU_HARDDISK_{VOLUME[:20]}",
        f"scsi-0QEMU_QEMU_HARDDISK_{VOLUME}",
        "wwn-0xef9037a79a67408a9f92adbd2badc5db",
    ):
        assert known in names


def test_a_link_that_leads_nowhere_is_no_disk(tmp_path: Path) -> None:
    by_id = tmp_path / links.BY_ID
    by_id.mkdir(parents=True)
    (by_id / f"virtio-{VOLUME[:20]}").symlink_to(tmp_path / "gone")
    assert links.find(tmp_path, VOLUME) is None


@pytest.mark.parametrize(
    ("said", "right"),
    [
        ({"serial": VOLUME[:20]}, True),
        ({"device/vpd_pg80": "\0\0\0\0" + VOLUME}, True),
        ({"device/vpd_pg80": "6000c29f", "device/wwid": f"naa.{VOLUME.replace('-', '')}"}, True),
        ({"serial": VOLUME[0]}, False),
        ({"serial": "01234567-89ab-cdef-0123"}, False),
        ({}, True),
    ],
)
def test_one_of_the_kernels_names_of_a_disk_has_to_be_the_volumes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: dict[str, str], right: bool
) -> None:
    monkeypatch.setattr(blockdevices, "SYSFS", tmp_path)
    monkeypatch.setattr(blockdevices, "number_of", lambda device: "252:0")
    for name, text in said.items():
        attribute = tmp_path / "252:0" / name
        attribute.parent.mkdir(parents=True, exist_ok=True)
        attribute.write_text(text)
    if right:
        links.check(Path("/dev/vdb"), VOLUME)
        return
    with pytest.raises(errors.Conflict, match="which is not of volume"):
        links.check(Path("/dev/vdb"), VOLUME)
