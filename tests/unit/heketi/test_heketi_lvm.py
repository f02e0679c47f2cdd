"""The LVM layout: the commands are Heketi's, in its order, and what is not ours is not touched.

There is no device mapper where these tests run, so a recorder stands where the node would be: it
answers as the programs do and keeps what it was asked.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pytest

from holdfast.heketi import errors
from holdfast.heketi.executors import turns
from holdfast.heketi.executors.lvm import LvmLayout
from holdfast.heketi.executors.mounts import Mounting
from holdfast.heketi.executors.protocol import BrickSpec, Disk, Output

DISK = Disk("d" * 32, "/dev/sdb")
VG, LV, TP = f"vg_{'d' * 32}", f"brick_{'b' * 32}", f"tp_{'b' * 32}"
BRICK = BrickSpec("b" * 32, DISK, 1048576, 1048576, 8192, TP, LV, gid=2000)
VGDISPLAY = f"  {VG}:r/w:772:-1:0:0:0:-1:0:1:1:524156928:4096:127968:0:127968:uuid\n"
MOUNT = f"/var/lib/heketi/mounts/{VG}/{LV}"


class Node:
    """Answers by the beginning of a command; what is not named succeeds silently."""

    def __init__(self, answers: Mapping[str, Output]) -> None:
        self._answers = answers
        self.asked: list[str] = []

    async def run(
        self, host: str, argv: Sequence[str], *, timeout: float = 600.0, check: bool = True
    ) -> Output:
        line = " ".join(argv)
        self.asked.append(line)
        found = [answer for start, answer in self._answers.items() if line.startswith(start)]
        done = found[0] if found else Output(0, "", "")
        turns.judge(host, argv, done, check)
        return done

    async def close(self) -> None:
        """Nothing is open."""


def _missing(what: str = "") -> Output:
    return Output(5, "", f"  Failed to find {what}")


def _fresh(found: str = "") -> dict[str, Output]:
    return {
        "pvs --noheadings -o vg_name": _missing("physical volume"),
        "wipefs --noheadings": Output(0, found, ""),
        "vgdisplay": Output(0, VGDISPLAY, ""),
    }


async def test_a_blank_disk_becomes_a_volume_group() -> None:
    node = Node(_fresh())
    facts = await LvmLayout(node, Mounting()).prepare("host", DISK, destroy=False)
    assert (facts.total, facts.free, facts.extent) == (524156928, 524156928, 4096)
    made = [line for line in node.asked if line.startswith(("pvcreate", "vgcreate", "wipefs"))]
    assert made == [
        "wipefs --noheadings --output TYPE /dev/sdb",
        "pvcreate -qq --metadatasize=128M --dataalignment=256K /dev/sdb",
        f"vgcreate -qq --physicalextentsize=4M --autobackup=n {VG} /dev/sdb",
    ]


@pytest.mark.parametrize("found", ["ext4\n", "dos\n", "xfs\n", "LVM2_member\n"])
async def test_a_disk_with_a_signature_is_refused_and_left_alone(found: str) -> None:
    node = Node(_fresh(found))
    with pytest.raises(errors.ExecutionFailed, match="pass destroydata"):
        await LvmLayout(node, Mounting()).prepare("host", DISK, destroy=False)
    assert not any("create" in line or "--all" in line for line in node.asked)


async def test_a_disk_whose_data_may_go_is_wiped_first() -> None:
    node = Node(_fresh("ext4\n"))
    await LvmLayout(node, Mounting()).prepare("host", DISK, destroy=True)
    lines = node.asked
    assert lines.index("wipefs --all --quiet /dev/sdb") < next(
        index for index, line in enumerate(lines) if line.startswith("pvcreate")
    )


async def test_a_disk_that_is_ours_already_is_only_measured() -> None:
    answers = {"pvs --noheadings -o vg_name": Output(0, f"  {VG}\n", "")}
    node = Node({**answers, "vgdisplay": Output(0, VGDISPLAY, "")})
    await LvmLayout(node, Mounting()).prepare("host", DISK, destroy=True)
    assert not any(line.startswith(("wipefs", "pvcreate", "vgcreate")) for line in node.asked)


async def test_a_brick_is_a_thin_volume_in_a_pool_of_its_own() -> None:
    node = Node({"lvs": _missing("logical volume"), "mountpoint": Output(1, "", "")})
    path = await LvmLayout(node, Mounting()).make("host", BRICK)
    assert path == f"{MOUNT}/brick"
    assert [line for line in node.asked if not line.startswith(("lvs", "sh", "blkid"))] == [
        f"mkdir -p {MOUNT}",
        f"lvcreate -qq --autobackup=n --poolmetadatasize 8192K --chunksize 256K --size 1048576K "
        f"--thin {VG}/{TP} --virtualsize 1048576K --name {LV}",
        f"mkfs.xfs -q -i size=512 -n size=8192 /dev/mapper/{VG}-{LV}",
        f"mkdir -p {MOUNT}",
        f"mountpoint -q {MOUNT}",
        f"mount -t xfs -o rw,inode64,noatime,nouuid /dev/mapper/{VG}-{LV} {MOUNT}",
        f"mkdir -p {MOUNT}/brick",
        f"chown :2000 {MOUNT}/brick",
        f"chmod 2775 {MOUNT}/brick",
    ]


async def test_a_brick_that_was_half_made_is_completed_and_never_formatted_twice() -> None:
    node = Node({"blkid": Output(0, "xfs\n", "")})
    await LvmLayout(node, Mounting()).make("host", BRICK)
    assert not any(line.startswith(("lvcreate", "mkfs", "mount -t")) for line in node.asked)


async def test_a_pool_goes_with_its_last_brick_and_stays_for_clones() -> None:
    for left, expected in (("0", True), ("1", False)):
        node = Node({"lvs": Output(0, f"  {left}\n", "")})
        await LvmLayout(node, Mounting()).destroy("host", BRICK)
        removed = [line for line in node.asked if line.startswith("lvremove")]
        assert f"lvremove --autobackup=n -f {VG}/{LV}" == removed[0]
        assert (f"lvremove --autobackup=n -f {VG}/{TP}" in removed) is expected
        order = [line.split()[0] for line in node.asked if line.split()[0] != "mountpoint"]
        assert order.index("umount") < order.index("lvremove")


async def test_a_disk_that_is_not_ours_is_not_released() -> None:
    node = Node({"pvs": Output(0, "  vg_other\n", "")})
    await LvmLayout(node, Mounting()).release("host", DISK)
    assert not any(line.startswith(("vgremove", "pvremove")) for line in node.asked)


async def test_bricks_are_found_again_by_their_names() -> None:
    clone = "c" * 32
    listing = (
        f"  {VG}|{TP}|1048576.00||8192.00|\n"
        f"  {VG}|{LV}|1048576.00|{TP}||\n"
        f"  {VG}|{clone}_0|1048576.00|{TP}||\n"
        f"  other|root|1.00|||\n"
    )
    node = Node({"lvs": Output(0, listing, ""), "pvs": Output(0, f"  {VG}|/dev/sdb\n", "")})
    found = await LvmLayout(node, Mounting()).find("host", None)
    assert [(each.id, each.disk, each.pool_metadata) for each in found] == [
        ("b" * 32, f"{'d' * 32} /dev/sdb", 8192)
    ]
