"""A fresh copy of the tree: `make up` ends with a bound claim, `make down` with nothing running."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import machine

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]

LEFT_OUT = shutil.ignore_patterns(".git", ".venv", ".*_cache", "__pycache__", ".hypothesis")


@pytest.fixture
def fresh(tmp_path: Path) -> Iterator[Path]:
    """A copy of the tree as a clone has it."""
    shutil.copytree(machine.ROOT, tmp_path / "tree", ignore=LEFT_OUT)
    yield tmp_path / "tree"
    _make(tmp_path / "tree", "down")
    machine.release(tmp_path)


def _make(tree: Path, target: str) -> subprocess.CompletedProcess[str]:
    given = ("MAKEFLAGS", "MAKEOVERRIDES", "MAKELEVEL", "MFLAGS", "ARGS", "PARALLEL")
    removed = ("PYTHONPATH", "VIRTUAL_ENV", "KUBECONFIG", *given)
    env = {key: value for key, value in os.environ.items() if key not in removed}
    env["HOLDFAST_DATA_DIR"] = str(tree.parent / "data")
    return subprocess.run(
        ["make", target], cwd=tree, env=env, capture_output=True, text=True, check=False
    )


def test_make_up_works_in_a_fresh_clone_and_may_be_repeated(fresh: Path) -> None:
    begun = time.monotonic()
    first = _make(fresh, "up")
    assert first.returncode == 0, first.stdout + first.stderr
    assert time.monotonic() - begun < 90
    for expected in ("Bound after", "Running after", f"kubeconfig: {fresh.parent}/data/kubeconfig"):
        assert expected in first.stdout

    begun = time.monotonic()
    second = _make(fresh, "up")
    assert second.returncode == 0, second.stdout + second.stderr
    assert "Bound after" in second.stdout
    assert time.monotonic() - begun < 5

    down = _make(fresh, "down")
    assert "Stopped process" in down.stdout, down.stdout + down.stderr
    assert "is not running" in _make(fresh, "down").stdout
