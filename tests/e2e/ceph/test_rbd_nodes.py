"""Images on nodes: mapped, mounted, guarded, grown, and let go of whatever was killed."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path

import pytest

from holdfast.backends import errors, mountinfo
from holdfast.backends.protocol import ImageFile, Volume, VolumeHandle, VolumeRequest
from holdfast.backends.rbd import fencing, nodeids, usage
from holdfast.backends.rbd.backend import RbdBackend
from holdfast.backends.rbd.clusters import Clusters
from holdfast.backends.rbd.mappers import krbd
from holdfast.backends.rbd.mappers.krbd import KernelMapper
from holdfast.backends.rbd.node_side import RbdNodeSide
from holdfast.backends.rbd.shelf import Shelf
from holdfast.backends.rbd.usage import User
from holdfast.node.volumes import Volumes
from servers.ceph.pools import Pool

pytestmark = [pytest.mark.e2e, pytest.mark.root]

MIB = 1 << 20


def _handle(volume: Volume, fs_type: str = "ext4", **rest: object) -> VolumeHandle:
    return VolumeHandle(volume.id, volume.context, fs_type, **rest)  # type: ignore[arg-type]


def _daemons(directory: Path) -> list[int]:
    """The pids of the storage daemons of one node."""
    found = []
    for path in (directory / "maps").glob("*/pid"):
        pid = int(path.read_text())
        if Path(f"/proc/{pid}/cmdline").read_bytes():
            found.append(pid)
    return found


def _shown(directory: Path) -> bytes:
    """What others could read of a node's mappings: arguments, environments, files."""
    files = [path for path in directory.rglob("*") if path.is_file()]
    places = [path for path in files if not path.name.startswith("disk-")]
    for pid in _daemons(directory):
        places += [Path(f"/proc/{pid}/cmdline"), Path(f"/proc/{pid}/environ")]
    return b"".join(path.read_bytes() for path in places)


async def _made(backend: RbdBackend, name: str, size: int = 320 * MIB, **parameters: str) -> Volume:
    return await backend.create_volume(VolumeRequest(name, size, parameters))


async def test_data_goes_with_the_volume_from_node_to_node(
    backend: RbdBackend, node: RbdNodeSide, other_node: RbdNodeSide, tmp_path: Path
) -> None:
    made = await _made(backend, "pvc-moves", 500 * MIB)
    volumes, staging = Volumes(), tmp_path / "staging"
    for number, side in enumerate((node, other_node, node)):
        await volumes.stage(_handle(made), side, staging)
        mount = mountinfo.at(staging)[-1]
        assert mount.fs_type == "ext4"
        size = os.statvfs(staging)
        assert 0.85 * 500 * MIB < size.f_blocks * size.f_frsize <= 500 * MIB
        seen = sorted(path.name for path in staging.glob("part-*"))
        assert seen == [f"part-{each}" for each in range(number)]
        (staging / f"part-{number}").write_text("kept")
        await volumes.unstage(_handle(made), side, staging)
    assert not list((tmp_path / "node-1" / "maps").glob("*"))


async def test_a_second_node_is_refused_with_the_holders_name(
    backend: RbdBackend, node: RbdNodeSide, other_node: RbdNodeSide
) -> None:
    made = await _made(backend, "pvc-one-node")
    await node.connect(_handle(made), {})
    with pytest.raises(errors.Conflict, match=r"in use by node-1 \(client 127\.0\.0\.1:0/\d+\)"):
        await other_node.connect(_handle(made), {})
    with pytest.raises(errors.Conflict, match="in use by node-1"):
        await backend.attach(made.id, nodeids.of("node-2"), read_only=False)
    with pytest.raises(errors.Conflict, match="in use by node-1"):
        await backend.delete_volume(made.id)
    assert await backend.attachments() == {made.id: [nodeids.of("node-1")]}
    await node.disconnect(_handle(made))
    assert await backend.attachments() == {}
    await other_node.connect(_handle(made), {})
    await other_node.disconnect(_handle(made))


async def test_of_two_nodes_that_map_at_once_one_wins(
    backend: RbdBackend, node: RbdNodeSide, other_node: RbdNodeSide
) -> None:
    made = await _made(backend, "pvc-race")
    found = await asyncio.gather(
        *(side.connect(_handle(made), {}) for side in (node, other_node)), return_exceptions=True
    )
    assert sorted(type(each).__name__ for each in found) == ["Conflict", "ImageFile"]
    for side in (node, other_node):
        await side.disconnect(_handle(made))


async def test_a_shared_block_volume_is_mapped_on_two_nodes(
    backend: RbdBackend, node: RbdNodeSide, other_node: RbdNodeSide
) -> None:
    request = VolumeRequest("pvc-shared", 16 * MIB, {}, ("ReadWriteMany",), "Block")
    handle = _handle(await backend.create_volume(request), mode="Block")
    for side in (node, other_node):
        assert isinstance(await side.connect(handle, {}), ImageFile)
    for side in (node, other_node):
        await side.disconnect(handle)


async def test_two_nodes_never_write_to_one_file_system(
    backend: RbdBackend, node: RbdNodeSide, other_node: RbdNodeSide, pool: Pool
) -> None:
    many = ("ReadWriteMany",)
    with pytest.raises(errors.Invalid, match="two nodes that write would destroy it"):
        await backend.create_volume(VolumeRequest("pvc-many", 16 * MIB, {}, many))
    assert pool.images() == []
    made = await backend.create_volume(VolumeRequest("pvc-many", 16 * MIB, {}, many, "Block"))
    await backend.check_use(made, VolumeRequest("", 16 * MIB, {}, many, "Block"))
    with pytest.raises(errors.Invalid, match="network file system"):
        await backend.check_use(made, VolumeRequest("", 16 * MIB, {}, many, "Filesystem"))
    # A volume may be written into another PersistentVolume by hand.
    await node.connect(_handle(made), {})
    with pytest.raises(errors.Conflict):
        await other_node.connect(_handle(made), {})
    await node.disconnect(_handle(made))


async def test_a_mounted_volume_grows(
    backend: RbdBackend, node: RbdNodeSide, tmp_path: Path
) -> None:
    made = await _made(backend, "pvc-grows", 320 * MIB)
    volumes, staging, handle = Volumes(), tmp_path / "staging", _handle(made, "xfs")
    await volumes.stage(handle, node, staging)
    await backend.expand(made.id, 640 * MIB)
    assert await volumes.grow(handle, node, staging) == 640 * MIB
    size = os.statvfs(staging)
    assert size.f_blocks * size.f_frsize > 500 * MIB
    await volumes.unstage(handle, node, staging)


async def test_what_was_mapped_is_found_after_a_restart(
    backend: RbdBackend, node: RbdNodeSide, pool: Pool, tmp_path: Path
) -> None:
    made = await _made(backend, "pvc-restart")
    first = await node.connect(_handle(made), {})
    daemons = _daemons(tmp_path / "node-1")
    again = RbdNodeSide(pool.instances, tmp_path / "node-1", name="node-1")
    assert await again.connect(_handle(made), {}) == first
    assert _daemons(tmp_path / "node-1") == daemons
    await again.disconnect(_handle(made))
    await again.disconnect(_handle(made))
    assert _daemons(tmp_path / "node-1") == []
    assert not any(str(tmp_path) in each.point for each in mountinfo.read())
    await again.close()


async def test_a_killed_daemon_is_replaced_and_nothing_written_is_lost(
    backend: RbdBackend, node: RbdNodeSide, tmp_path: Path
) -> None:
    made = await _made(backend, "pvc-daemon")
    volumes, staging = Volumes(), tmp_path / "staging"
    await volumes.stage(_handle(made), node, staging)
    with (staging / "file").open("w") as file:
        file.write("flushed")
        file.flush()
        os.fsync(file.fileno())
    for pid in _daemons(tmp_path / "node-1"):
        os.kill(pid, signal.SIGKILL)
    await volumes.unstage(_handle(made), node, staging)
    await volumes.stage(_handle(made), node, staging)
    assert (staging / "file").read_text() == "flushed"
    await volumes.unstage(_handle(made), node, staging)
    assert not any(str(tmp_path) in each.point for each in mountinfo.read())


async def test_an_osd_that_died_without_a_word_keeps_nobody_waiting(
    backend: RbdBackend, node: RbdNodeSide, pool: Pool
) -> None:
    """Ceph's own settings are for 15 s until a client asks where its data is now."""
    made = await _made(backend, "pvc-osd")
    await node.connect(_handle(made), {})
    pool.ceph.kill("osd")
    pool.ceph.start()
    async with asyncio.timeout(8):
        await backend.get_volume(made.id)
        await node.disconnect(_handle(made))


async def test_a_fenced_node_cannot_write_and_comes_back(
    backend: RbdBackend, node: RbdNodeSide, other_node: RbdNodeSide, pool: Pool
) -> None:
    made = await _made(backend, "pvc-fence")
    lost = await node.connect(_handle(made), {})
    assert isinstance(lost, ImageFile)
    before = _blocklisted(pool)
    await backend.fence(nodeids.of("node-1"))
    fenced = _blocklisted(pool) - before
    assert len(fenced) == 1
    with pytest.raises(OSError), lost.path.open("r+b") as file:
        file.write(b"late")
        file.flush()
        os.fsync(file.fileno())
    taken = await other_node.connect(_handle(made), {})
    assert isinstance(taken, ImageFile)
    assert taken.path.read_bytes()[:4] == bytes(4)
    await other_node.disconnect(_handle(made))
    await node.disconnect(_handle(made))
    # The client has ended, so the entry may go; what prepare gives is enough for that.
    assert not fenced & _blocklisted(pool)
    with pytest.raises(errors.Conflict, match="node-1 is fenced"):
        await node.connect(_handle(made), {})
    await backend.unfence(nodeids.of("node-1"))
    await node.connect(_handle(made), {})
    await node.disconnect(_handle(made))


def _blocklisted(pool: Pool) -> set[str]:
    lines = pool.ceph.ceph("osd", "blocklist", "ls").splitlines()
    return {line.split()[0] for line in lines if ":" in line}


async def test_a_client_that_lost_its_watch_is_fenced_and_stays_refused(
    backend: RbdBackend, pool: Pool, tmp_path: Path
) -> None:
    """As of a machine whose network is lost for longer than a watch lives, and comes back."""
    made = await _made(backend, "pvc-partition")
    gone, image = "192.0.2.7:0/4711", made.context["image"]
    clusters = Clusters(pool.instances, tmp_path)
    with clusters.connected("main", {}) as connection:
        shelf = Shelf(connection, "main", pool.name)
        usage.note(shelf, image, User(gone, "node-1"))
        await backend.fence(nodeids.of("node-1"))
        assert await asyncio.to_thread(fencing.is_blocklisted, shelf.connection, gone)
        await backend.unfence(nodeids.of("node-1"))
        assert await asyncio.to_thread(fencing.is_blocklisted, shelf.connection, gone)
        usage.forget(shelf, image, gone)
    clusters.close()


async def test_who_has_just_started_fences_by_the_volumes_of_the_node(
    backend: RbdBackend, node: RbdNodeSide, pool: Pool, tmp_path: Path
) -> None:
    """No cluster is configured, and what another replica has learnt died with it."""
    parameters = {"monitors": pool.ceph.monitor, "pool": pool.name, "adminId": pool.user}
    secret = pool.secret
    first = RbdBackend({}, tmp_path / "first")
    request = VolumeRequest("pvc-hand-over", 320 * MIB, parameters, secrets=secret)
    made = await first.create_volume(request)
    handle = VolumeHandle(made.id, made.context, "ext4", secrets=secret)
    lost = await node.connect(handle, {})
    assert isinstance(lost, ImageFile)
    second = RbdBackend({}, tmp_path / "second")
    try:
        with pytest.raises(errors.Unavailable, match="not known which pools"):
            await second.fence(nodeids.of("node-1"))
        await second.fence(nodeids.of("node-1"), [handle])
        with pytest.raises(OSError), lost.path.open("r+b") as file:
            file.write(b"late")
            file.flush()
            os.fsync(file.fileno())
        await node.disconnect(handle)
        third = RbdBackend({}, tmp_path / "third")
        await third.unfence(nodeids.of("node-1"), [handle])
        await third.close()
        await node.connect(handle, {})
        await node.disconnect(handle)
    finally:
        await first.delete_volume(made.id, secrets=secret)
        await first.close()
        await second.close()


async def test_a_lost_mapping_after_a_fence_is_made_anew(
    backend: RbdBackend, node: RbdNodeSide, pool: Pool
) -> None:
    """A client that lives on has old data in its memory: it stays refused until it has ended."""
    made = await _made(backend, "pvc-refence")
    first = await node.connect(_handle(made), {})
    before = _blocklisted(pool)
    await backend.fence(nodeids.of("node-1"))
    fenced = _blocklisted(pool) - before
    await backend.unfence(nodeids.of("node-1"))
    assert len(fenced) == 1 and fenced <= _blocklisted(pool)
    second = await node.connect(_handle(made), {})
    assert not fenced & _blocklisted(pool)
    assert isinstance(first, ImageFile) and isinstance(second, ImageFile)
    assert second.path != first.path
    with second.path.open("r+b") as file:
        file.write(b"well")
    await node.disconnect(_handle(made))


async def test_the_key_is_in_no_argument_and_no_file(
    backend: RbdBackend, pool: Pool, tmp_path: Path
) -> None:
    made = await _made(backend, "pvc-secret")
    side = RbdNodeSide({}, tmp_path / "node-1", name="node-1")
    plain = VolumeHandle(
        f"rbd:{pool.ceph.monitor}/{pool.name}/pvc-secret",
        {**made.context, "user": pool.user},
        "ext4",
        secrets={"key": pool.key},
    )
    assert pool.key not in repr(plain)
    await side.connect(plain, {})
    shown = _shown(tmp_path / "node-1")
    assert shown and pool.key.encode() not in shown
    await side.disconnect(plain)
    await side.close()


async def test_features_that_a_kernel_lacks_are_refused_with_the_command_that_helps(
    backend: RbdBackend,
    pool: Pool,
    old_kernel: KernelMapper,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """An image made by hand: `rbd create` gives it features 61."""
    monkeypatch.setattr(krbd, "APPEAR_SECONDS", 0.5)
    pool.ceph.rbd("create", "--size", "32", f"{pool.name}/image1")
    side = RbdNodeSide({}, tmp_path / "node-1", name="node-1", mappers=[old_kernel])
    static = VolumeHandle(
        f"rbd:{pool.ceph.monitor}/{pool.name}/image1",
        {"user": pool.user, "static": "true"},
        "ext4",
        secrets={"key": pool.key},
    )
    with pytest.raises(errors.Unsupported) as caught:
        await side.connect(static, {})
    said = str(caught.value)
    assert "exclusive-lock, object-map, fast-diff, deep-flatten" in said
    command = "fast-diff object-map deep-flatten exclusive-lock"
    assert f"rbd feature disable {pool.name}/image1 {command}" in said
    pool.ceph.rbd("feature", "disable", f"{pool.name}/image1", *command.split())
    with pytest.raises(errors.Unavailable, match="no device appeared"):
        await asyncio.wait_for(side.connect(static, {}), 15)
    pool.ceph.rbd("rm", "--no-progress", f"{pool.name}/image1")
    await side.close()
