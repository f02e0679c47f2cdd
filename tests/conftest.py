"""What every test may ask for: a kubectl, and a real Holdfast of its own.

Tests marked ``root`` run when the tester is root and are skipped otherwise.
Tests marked ``e2e`` run when the mark is selected (``make e2e``), where a
missing program fails them; any other run skips them and says so.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

# Makes tests/machine.py importable from test modules, which are no package.
sys.path.insert(0, str(Path(__file__).parent))

import machine


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Skip what this run cannot or was not asked to do."""
    without_root = pytest.mark.skip(reason="needs root: run as root to include it")
    not_selected = pytest.mark.skip(reason="end to end: run with `make e2e`")
    e2e_selected = "e2e" in (config.option.markexpr or "")
    for item in items:
        if "e2e" in item.keywords and not e2e_selected:
            item.add_marker(not_selected)
        elif "root" in item.keywords and os.geteuid() != 0:
            item.add_marker(without_root)


@pytest.fixture(scope="session")
def kubectl_path() -> Path:
    """The real kubectl: $HOLDFAST_KUBECTL, the machine's, or the one `make setup` unpacked."""
    beside_python = Path(sys.executable).parent / "kubectl"
    candidates = (os.environ.get("HOLDFAST_KUBECTL"), shutil.which("kubectl"), beside_python)
    for candidate in candidates:
        if candidate and Path(candidate).is_file():
            return Path(candidate)
    pytest.fail("kubectl is missing: run `make setup`, or name one in HOLDFAST_KUBECTL")


@pytest.fixture
def new_machine(tmp_path: Path, kubectl_path: Path) -> Iterator[Callable[[], machine.Machine]]:
    """A function that makes machines, not started yet; they are disposed of at the end."""
    made: list[machine.Machine] = []

    def make() -> machine.Machine:
        directory = tmp_path / f"machine-{len(made)}"
        directory.mkdir()
        made.append(machine.Machine(directory, kubectl_path))
        return made[-1]

    yield make
    for each in made:
        each.dispose()


@pytest.fixture
def running(new_machine: Callable[[], machine.Machine]) -> machine.Machine:
    """A machine of the test's own on which Holdfast runs."""
    return new_machine().start()


@pytest.fixture(scope="module")
def shared(
    tmp_path_factory: pytest.TempPathFactory, kubectl_path: Path
) -> Iterator[machine.Machine]:
    """A machine on which Holdfast runs, shared by a module: use names of your own."""
    shared_machine = machine.Machine(tmp_path_factory.mktemp("shared"), kubectl_path)
    try:
        yield shared_machine.start()
    finally:
        shared_machine.dispose()
