"""Reading the mount table: lines as the kernel writes them, and the live table."""

from __future__ import annotations

from pathlib import Path

import pytest

from holdfast.backends import mountinfo

LINES = r"""22 1 254:0 / / rw,relatime shared:1 master:2 - ext4 /dev/vda rw,discard
30 22 0:20 / /proc rw - proc proc rw
40 22 7:3 / /mnt/with\040space\011tab rw,noatime - ext4 /dev/loop3 ro,data=ordered
41 22 254:0 /srv/volumes/a/data /pods/a rw,relatime - ext4 /dev/vda rw
42 22 254:0 /srv/volumes/ab/data /pods/ab rw,relatime - ext4 /dev/vda rw
43 22 7:4 / /pods/a rw - xfs /dev/loop4 rw
44 22 254:0 /srv/volumes/b\134c /pods/b rw unbindable - ext4 /dev/vda rw
45 22 0:55 / /btrfs rw - btrfs /dev/loop5 rw
"""


@pytest.fixture(autouse=True)
def table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "mountinfo"
    file.write_text(LINES)
    monkeypatch.setattr(mountinfo, "TABLE", file)


def test_escapes_and_optional_fields_are_read() -> None:
    found = mountinfo.at("/mnt/with space\ttab")
    assert [m.source for m in found] == ["/dev/loop3"]
    assert found[0].read_only
    assert not mountinfo.at("/")[0].read_only
    assert mountinfo.at("/")[0].propagation == ("shared:1", "master:2")
    assert mountinfo.at("/pods/b")[0].root == r"/srv/volumes/b\c"


def test_mounts_stacked_on_one_point_come_in_order() -> None:
    assert [m.fs_type for m in mountinfo.at("/pods/a")] == ["ext4", "xfs"]


def test_a_name_that_only_starts_alike_is_another() -> None:
    assert mountinfo.at("/pods") == []
    assert [m.point for m in mountinfo.beneath("/pods/a")] == ["/pods/a", "/pods/a"]
    assert [m.point for m in mountinfo.touching("/srv/volumes/a")] == ["/pods/a"]
    assert [m.point for m in mountinfo.touching("/srv/volumes/b\\c")] == ["/pods/b"]
    both = mountinfo.touching("/pods")
    assert [m.point for m in both] == ["/pods/a", "/pods/ab", "/pods/a", "/pods/b"]


def test_a_path_lies_in_its_nearest_mount() -> None:
    deepest = mountinfo.holding("/pods/a/x/y")
    assert deepest is not None
    assert deepest.fs_type == "xfs"
    outside = mountinfo.holding("/srv/volumes")
    assert outside is not None
    assert outside.point == "/"


def test_a_device_is_found_by_number_or_by_name() -> None:
    assert [m.point for m in mountinfo.of_device("7:4", "/dev/loop4")] == ["/pods/a"]
    assert [m.point for m in mountinfo.of_device("7:5", "/dev/loop5")] == ["/btrfs"]
    assert mountinfo.of_device("7:9", "/dev/loop9") == []


def test_the_live_table_has_a_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    assert any(m.point == "/" for m in mountinfo.read())
