"""What every test may ask for: a kubectl, and a real Holdfast of its own.

Tests marked ``root`` run when the tester is root and are skipped otherwise.
Tests marked ``e2e`` run when the mark is selected (``make e2e``), where a
missing program fails them; any other run skips them and says so.
"""

from __future__ import annotations

import functools
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import hypothesis
import pytest
from xdist.scheduler import LoadScopeScheduling

# Makes tests/machine.py importable from test modules, which are no package.
sys.path.insert(0, str(Path(__file__).parent))

import machine

# How fast examples are made and tried says something about the machine, not about the code.
hypothesis.settings.register_profile(
    "suite", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("suite")


# The directories of end-to-end tests that take longest, which is not those with most tests.
_LONGEST = ("heketi", "cinder", "oncluster", "ceph")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Skip what this run cannot or was not asked to do."""
    without_root = pytest.mark.skip(reason="needs root: run as root to include it")
    not_selected = pytest.mark.skip(reason="end to end: run with `make e2e`")
    e2e_selected = _is_end_to_end(config)
    for item in items:
        if e2e_selected and _runs_kubernetes(item):
            item.add_marker(pytest.mark.e2e)
        if "e2e" in item.keywords and not e2e_selected:
            item.add_marker(not_selected)
        elif "root" in item.keywords and os.geteuid() != 0:
            item.add_marker(without_root)
        for mark in item.iter_markers("kubectl"):
            item.add_marker(_unless_kubectl(mark.args[0]))
        for mark in item.iter_markers("program"):
            item.add_marker(_unless_program(mark.args[0]))
    if e2e_selected:
        items.sort(key=_turn)


def _turn(item: pytest.Item) -> int:
    """What takes longest is begun first, so that no process works alone at the end."""
    directory = item.path.parent.name
    return _LONGEST.index(directory) if directory in _LONGEST else len(_LONGEST)


class Together(LoadScopeScheduling):  # type: ignore[misc]  # the library has no types
    """Deals out tests to processes: a file in one, and all of a storage system's servers in one.

    Such servers are started once for a process and take their time. End to end, a directory
    whose tests share servers is such a group.
    """

    def _split_scope(self, nodeid: str) -> str:
        file = Path(nodeid.partition("::")[0])
        end_to_end = "e2e" in file.parent.parts or _is_end_to_end(self.config)
        shared = end_to_end and file.parent.name not in ("e2e", "tests")
        return str(file.parent if shared else file)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Together:
    """Deal out tests as Together does, whatever `--dist` says."""
    if _is_end_to_end(config):
        config.option.loadscopereorder = False
    return Together(config, log)


def _runs_kubernetes(item: pytest.Item) -> bool:
    """Whether it is about Kubernetes' programs; other runs have it where these are named."""
    names = getattr(item, "fixturenames", ())
    spec = getattr(item, "callspec", None)
    chosen = spec is not None and spec.params.get("cluster") == "kubernetes"
    return chosen or "kubernetes" in names or "real_cluster" in names


def _is_end_to_end(config: pytest.Config) -> bool:
    mark = config.option.markexpr or ""
    return "e2e" in mark and "not e2e" not in mark


def _unless_program(name: str) -> pytest.MarkDecorator:
    """Skip where a program is missing; `make setup` installs it where it may."""
    missing = shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin") is None
    return pytest.mark.skipif(missing, reason=f"{name} is not installed")


def _unless_kubectl(wanted: str) -> pytest.MarkDecorator:
    """Skip where the only kubectl is older than what the test is about."""
    found = _kubectl_version()
    newer = tuple(map(int, wanted.split("."))) <= found
    reason = f"needs kubectl {wanted}, this is {'.'.join(map(str, found)) or 'none'}"
    return pytest.mark.skipif(bool(found) and not newer, reason=reason)


@functools.cache
def _kubectl_version() -> tuple[int, ...]:
    path = _find_kubectl()
    if path is None:
        return ()
    argv = [str(path), "version", "--client", "-o", "json"]
    done = subprocess.run(argv, capture_output=True, timeout=60, check=True)
    version = json.loads(done.stdout)["clientVersion"]["gitVersion"]
    found = re.match(r"v(\d+)\.(\d+)", version)
    assert found, f"{path} names its version {version!r}"
    return tuple(map(int, found.groups()))


def _find_kubectl() -> Path | None:
    beside_python = Path(sys.executable).parent / "kubectl"
    candidates = (os.environ.get("HOLDFAST_KUBECTL"), shutil.which("kubectl"), beside_python)
    return next((Path(each) for each in candidates if each and Path(each).is_file()), None)


@pytest.fixture(scope="session")
def kubectl_path() -> Path:
    """The real kubectl: $HOLDFAST_KUBECTL, the machine's, or the one `make setup` unpacked."""
    if found := _find_kubectl():
        return found
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
