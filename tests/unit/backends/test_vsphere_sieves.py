"""What is left out of an answer about VMs: never one that may have the disk."""

from __future__ import annotations

from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.backends.vsphere import devices, holders, sieves
from holdfast.backends.vsphere.holders import Disk

UUID = "6000c29abbccddee1122334455667788"
FIRST_CLASS = "7db55e69-c7ca-44bc-8e37-0df9fbb93cf9"
NAME = "kubernetes-dynamic-pvc-0001.vmdk"
FILE = f"[ds (1) & more] kubevols/{NAME}"

_PAGE = (
    '<?xml version="1.0" encoding="UTF-8"?><E xmlns="urn:vim25" '
    'xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance"><returnval>{}<token>t1</token>'
    "</returnval></E>"
)
_OBJECT = (
    '<objects><obj type="VirtualMachine">vm-{number}</obj><propSet>'
    "<name>config.hardware.device</name><val>{disks}</val></propSet>{more}</objects>"
)
_DISK = (
    '<VirtualDevice xsi:type="VirtualDisk"><key>2000</key><backing '
    'xsi:type="VirtualDiskFlatVer2BackingInfo"><fileName>{file}</fileName><uuid>{uuid}</uuid>'
    "<parent><fileName>{base}</fileName></parent></backing><vDiskId><id>{id}</id></vDiskId>"
    "</VirtualDevice>"
)


def disk(file: str = "[x] y.vmdk", uuid: str = "", base: str = "[x] z.vmdk", id: str = "") -> str:
    safe = file.replace("&", "&amp;")
    return _DISK.format(file=safe, uuid=uuid, base=base.replace("&", "&amp;"), id=id)


def page(*disks: str, more: str = "") -> bytes:
    """An answer about one VM for each of these: vm-0, vm-1 ..."""
    found = (
        _OBJECT.format(number=number, disks=each, more=more) for number, each in enumerate(disks)
    )
    return _PAGE.format("".join(found)).encode()


def machines(content: bytes) -> list[str]:
    """The VMs in an answer, and that it can still be parsed and read on."""
    root = ElementTree.fromstring(content)
    assert root.findtext(".//{urn:vim25}token") == "t1"
    return [each.findtext("{urn:vim25}obj") or "" for each in root.iter("{urn:vim25}objects")]


def sieve(machine: str = "vm-0", file: str = FILE, uuid: str = UUID) -> sieves.Sieve:
    found = sieves.for_disk(machine, file, uuid, FIRST_CLASS)
    assert found is not None
    return found


@pytest.mark.parametrize(
    "holding",
    [
        disk(file=FILE),
        disk(base=FILE),
        disk(uuid=UUID),
        disk(uuid="6000C29A-bbcc-ddee-1122-334455667788"),
        disk(uuid="60 00 C2 9a bb cc dd ee-11 22 33 44 55 66 77 88"),
        disk(id=FIRST_CLASS.upper()),
        disk(file=f"[vsan] 5f3e0a5c-0001/{NAME}"),
        disk() + disk(uuid=UUID),
    ],
)
def test_whoever_may_have_the_disk_stays_and_others_go(holding: str) -> None:
    content = page(disk(), disk(), holding, disk(uuid="0" * 32))
    assert machines(sieve()(content)) == ["vm-0", "vm-2"]
    assert machines(sieve(machine="")(content)) == ["vm-2"]


def test_what_is_not_understood_is_passed_on_whole() -> None:
    content = page(disk(), disk())
    # A VM that is not there, other elements, a cut answer, and VMs that say what they could not.
    assert sieve("vm-7")(content) == content
    for strange in (content.replace(b"objects>", b"n:objects>"), content[:-200], b"", b"<x/>"):
        assert sieve()(strange) == strange
    silent = page(disk(), disk(), more="<missingSet><path>x</path></missingSet>")
    assert machines(sieve()(silent)) == ["vm-0", "vm-1"]


def test_a_disk_that_might_be_written_otherwise_is_not_searched_for() -> None:
    for file in ("[ds] a/MySQL & Disk.vmdk", "[ds] ü.vmdk", "[ds] a b.vmdk"):
        assert sieves.for_disk("vm-0", file, UUID) is None
    assert sieves.for_disk("vm-0", "", "", "") is None
    assert sieves.for_disk("vm-0", "[ds] kubevols/x.vmdk", "") is not None


_TEXT = st.text(st.sampled_from("aA0-_. /[]&ü"), max_size=6)


@given(_TEXT, _TEXT, st.sampled_from(["", UUID, UUID.upper()]), st.booleans())
def test_nobody_whom_the_comparison_finds_is_left_out(
    name: str, other: str, uuid: str, same: bool
) -> None:
    wanted = Disk(f"[ds] kubevols/{name}.vmdk", uuid.lower(), "", "")
    file = wanted.file if same else f"[ds] kubevols/{other}.vmdk"
    content = page(disk(), disk(file=file, uuid=uuid))
    found = sieves.for_disk("vm-0", wanted.file, wanted.uuid, wanted.first_class)
    narrowed = content if found is None else found(content)
    for each in ElementTree.fromstring(content).iter("{urn:vim25}objects"):
        here = devices.read(each.find("{urn:vim25}propSet/{urn:vim25}val"))
        if any(holders.is_disk(device, wanted) for device in here):
            assert each.findtext("{urn:vim25}obj") in machines(narrowed)
