"""A provisioner killed at every step of fifty creations: fifty images, and nothing besides."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import machine
from holdfast.backends.protocol import VolumeRequest
from holdfast.backends.rbd.backend import RbdBackend
from servers.ceph.pools import Pool

pytestmark = [pytest.mark.e2e]

# Four things are done to the cluster: note, image, owner, note.
STEPS = 8
COUNT = 50


def _run(pool: Pool, directory: Path, orders: list[str]) -> dict[str, int]:
    program = str(Path(__file__).with_name("creator.py"))
    argv = [sys.executable, program, pool.ceph.monitor, pool.name, pool.user, str(directory)]
    done = subprocess.run(
        [*argv, *orders],
        input=pool.key,
        env={**os.environ, "PYTHONPATH": machine.PYTHONPATH},
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert done.returncode == 0, done.stderr
    pairs = [line.rpartition(":") for line in done.stdout.splitlines()]
    return {name: int(code) for name, _, code in pairs}


async def test_fifty_creations_killed_at_every_step_give_fifty_images(
    pool: Pool, tmp_path: Path
) -> None:
    names = [f"pvc-killed-{number:02}" for number in range(COUNT)]
    steps = {name: 1 + number % STEPS for number, name in enumerate(names)}
    first = _run(pool, tmp_path / "state", [f"{name}:{step}" for name, step in steps.items()])
    assert set(first.values()) == {-9}
    second = _run(pool, tmp_path / "state", [f"{name}:0" for name in names])
    assert set(second.values()) == {0}
    assert sorted(pool.images()) == names

    parameters = {"monitors": pool.ceph.monitor, "pool": pool.name, "adminId": pool.user}
    backend = RbdBackend({}, tmp_path / "state")
    for name in names:
        request = VolumeRequest(name, 64 << 20, parameters, secrets={"key": pool.key})
        made = await backend.create_volume(request)
        await backend.delete_volume(made.id, secrets={"key": pool.key})
    assert list((await backend.list_volumes()).volumes) == []
    await backend.close()
    assert pool.images() == []
    assert pool.leftovers() == set()
