"""What a directory takes on the disk."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

from holdfast.node import diskusage


def test_it_counts_like_du(tmp_path: Path) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "a" / "large").write_bytes(os.urandom(300_000))
    os.link(tmp_path / "a" / "large", tmp_path / "a" / "b" / "same")
    with (tmp_path / "hollow").open("wb") as file:
        file.truncate(10_000_000)
    (tmp_path / "link").symlink_to("/usr")
    du = shutil.which("du")
    assert du is not None
    said = subprocess.run([du, "-sxk", tmp_path], check=True, capture_output=True, text=True)
    found = diskusage.of(tmp_path)
    assert found == int(said.stdout.split()[0]) * 1024
    assert 300_000 <= found < 400_000


def test_what_is_not_there_takes_nothing(tmp_path: Path) -> None:
    assert diskusage.of(tmp_path / "gone") == 0
