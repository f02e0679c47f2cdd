"""Mappings of rbd-nbd are told apart by what the processes that serve them were told."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from holdfast.backends.rbd.ids import ImageId
from holdfast.backends.rbd.mappers import Target
from holdfast.backends.rbd.mappers.nbd import NbdMapper

# Stands for the program, which works only where the kernel has network block devices.
PROGRAM = """#!/bin/sh
case $1 in
list-mapped) cat "$0.list" ;;
unmap) echo "$@" >> "$0.unmapped" ;;
esac
"""
CLUSTERS = ("10.0.0.1:6789", "10.0.0.2:6789")


@pytest.fixture
def servers() -> Iterator[list[int]]:
    """Processes with the arguments of those that serve one image name of two clusters."""
    wait = ["-c", "import sys; print(flush=True); sys.stdin.read()"]
    made = [
        subprocess.Popen(
            [sys.executable, *wait, "map", "--id", "kube", "-m", each],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        for each in CLUSTERS
    ]
    for each in made:
        assert each.stdout is not None and each.stdout.readline() == b"\n"
    yield [each.pid for each in made]
    for each in made:
        each.communicate()


async def test_images_of_one_name_in_two_clusters_are_not_mixed_up(
    tmp_path: Path, servers: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "rbd-nbd"
    program.write_text(PROGRAM)
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    listed = [
        {"id": pid, "pool": "kube", "namespace": "", "image": "a", "snap": "-", "device": device}
        for pid, device in zip(servers, ("/dev/nbd0", "/dev/nbd1"), strict=True)
    ]
    (tmp_path / "rbd-nbd.list").write_text(json.dumps(listed))
    mapper = NbdMapper()
    target = Target(
        ImageId("two", "kube", "a"), (CLUSTERS[1],), "kube", "", unmap_options="nbd:force"
    )
    state = mapper.plan(target, tmp_path)
    assert await mapper.loss(state, tmp_path) == ""
    await mapper.unmap(state, tmp_path)
    unmapped = (tmp_path / "rbd-nbd.unmapped").read_text()
    assert unmapped == "unmap --conf /dev/null --force /dev/nbd1\n"
    gone = mapper.plan(Target(ImageId("x", "kube", "a"), ("10.0.0.3:6789",), "kube", ""), tmp_path)
    assert "has ended" in await mapper.loss(gone, tmp_path)
