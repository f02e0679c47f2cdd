"""A real Ceph cluster for the tests of this directory, shared; each module has pools of its own."""

from __future__ import annotations

import itertools
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

import machine
import reaper
from holdfast.backends.rbd.backend import RbdBackend
from holdfast.backends.rbd.mappers.krbd import KernelMapper
from holdfast.backends.rbd.node_side import RbdNodeSide
from servers.ceph.cluster import Cluster
from servers.ceph.pools import Pool

_NUMBERS = itertools.count()


@pytest.fixture(scope="session")
def clearing() -> Iterator[reaper.Reaper]:
    """What clears up even if this process is killed."""
    found = reaper.Reaper()
    try:
        yield found
    finally:
        found.close()


@pytest.fixture(autouse=True)
def _cleared(clearing: reaper.Reaper, tmp_path: Path) -> Iterator[None]:
    """Leave no mount, loop device or daemon of a test behind, also when it failed."""
    clearing.watch(tmp_path)
    yield
    machine.release(tmp_path)


@pytest.fixture(scope="session")
def ceph(clearing: reaper.Reaper) -> Iterator[Cluster]:
    """A running cluster. Sockets' paths are short, so it is not below pytest's directory."""
    with tempfile.TemporaryDirectory(prefix="hf-ceph-", ignore_cleanup_errors=True) as home:
        clearing.watch(Path(home))
        cluster = Cluster(Path(home))
        try:
            yield cluster.start()
        finally:
            cluster.wipe()


@pytest.fixture(scope="module")
def pool(ceph: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Pool:
    """A pool with a user that may do in it what `holdfast prepare ceph` allows."""
    number = next(_NUMBERS)
    name, user = f"kube{number}", f"kube{number}"
    key = ceph.make_pool(name, user)
    key_file = tmp_path_factory.mktemp("ceph") / "key"
    key_file.write_text(key)
    key_file.chmod(0o600)
    return Pool(ceph, name, user, key, key_file)


@pytest.fixture
async def backend(pool: Pool, tmp_path: Path) -> AsyncIterator[RbdBackend]:
    """A backend that knows the cluster; what it made is removed at the end."""
    made = RbdBackend(pool.instances, tmp_path / "backend")
    yield made
    for _ in range(2):
        for snapshot in (await made.list_snapshots()).snapshots:
            await made.delete_snapshot(snapshot.id)
        for volume in (await made.list_volumes()).volumes:
            await made.delete_volume(volume.id)
    await made.close()
    assert pool.leftovers() == set()


@pytest.fixture
async def node(pool: Pool, tmp_path: Path) -> AsyncIterator[RbdNodeSide]:
    """The node side of a machine called node-1."""
    side = RbdNodeSide(pool.instances, tmp_path / "node-1", name="node-1")
    yield side
    await side.close()


@pytest.fixture
async def other_node(pool: Pool, tmp_path: Path) -> AsyncIterator[RbdNodeSide]:
    """The node side of a machine called node-2."""
    side = RbdNodeSide(pool.instances, tmp_path / "node-2", name="node-2")
    yield side
    await side.close()


@pytest.fixture
def old_kernel(tmp_path: Path) -> KernelMapper:
    """The mapper with a directory in place of sysfs, in which an old kernel says what it can."""
    bus = tmp_path / "bus"
    (bus / "devices").mkdir(parents=True)
    (bus / "supported_features").write_text("0x1\n")
    return KernelMapper(bus)
