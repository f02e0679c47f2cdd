"""What could cost somebody data or leave something behind: odd ids, clients, copies, crashes."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import os
import shlex
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from holdfast.backends import errors
from holdfast.backends.protocol import ImageFile, Volume, VolumeHandle, VolumeRequest, VolumeSource
from holdfast.backends.rbd import exclusive, nodeids, usage
from holdfast.backends.rbd.backend import RbdBackend
from holdfast.backends.rbd.clusters import Clusters
from holdfast.backends.rbd.mappers import krbd
from holdfast.backends.rbd.mappers.krbd import KernelMapper
from holdfast.backends.rbd.mappers.qemu import QemuMapper
from holdfast.backends.rbd.maprecords import MapRecords
from holdfast.backends.rbd.node_side import RbdNodeSide
from holdfast.backends.rbd.shelf import CREATING, Shelf
from servers.ceph.pools import Pool

pytestmark = [pytest.mark.e2e, pytest.mark.root, pytest.mark.timeout(120)]

MIB = 1 << 20


@pytest.fixture
def shelf(pool: Pool, tmp_path: Path) -> Iterator[Shelf]:
    """The pool as another process of Holdfast sees it."""
    clusters = Clusters(pool.instances, tmp_path / "other")
    with clusters.connected("main", {}) as connection:
        yield Shelf(connection, "main", pool.name)
    clusters.close()


def _handle(volume: Volume) -> VolumeHandle:
    return VolumeHandle(volume.id, volume.context, "ext4")


def _write(mapped: object, data: bytes) -> None:
    assert isinstance(mapped, ImageFile)
    with mapped.path.open("r+b") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


async def _made(backend: RbdBackend, name: str, **parameters: str) -> Volume:
    return await backend.create_volume(VolumeRequest(name, 32 * MIB, parameters))


async def test_a_snapshots_id_never_removes_or_grows_its_image(
    backend: RbdBackend, pool: Pool
) -> None:
    """As of a PersistentVolume that somebody wrote for a snapshot, with the policy Delete."""
    made = await _made(backend, "pvc-base")
    pool.ceph.rbd("snap", "create", "--no-progress", f"{pool.name}/pvc-base@monday")
    with pytest.raises(errors.Invalid, match=f"rbd snap rm {pool.name}/pvc-base@monday"):
        await backend.delete_volume(f"{made.id}@monday")
    with pytest.raises(errors.Invalid):
        await backend.expand(f"{made.id}@monday", 64 * MIB)
    with pytest.raises(errors.Invalid):
        await backend.create_snapshot("tuesday", f"{made.id}@monday")
    assert pool.images() == ["pvc-base"]
    assert (await backend.get_volume(made.id)).size == 32 * MIB
    # The remedy is a command; this is it.
    pool.ceph.rbd("snap", "rm", "--no-progress", f"{pool.name}/pvc-base@monday")


async def test_a_second_volume_of_one_image_leaves_the_first_ones_mapping_alone(
    backend: RbdBackend, node: RbdNodeSide, pool: Pool
) -> None:
    made = await _made(backend, "pvc-two-names")
    first = await node.connect(_handle(made), {})
    again = f"rbd:{pool.ceph.monitor}/{pool.name}/pvc-two-names"
    context = {"user": pool.user, "static": "true"}
    second = VolumeHandle(again, context, "ext4", secrets=pool.secret)
    with pytest.raises(errors.Conflict, match=f"mapped for another volume .{made.id}."):
        await node.connect(second, {})
    _write(first, b"goes on")
    await node.disconnect(second)
    _write(first, b"goes on and on")
    await node.disconnect(_handle(made))
    await node.connect(second, {})
    await node.disconnect(second)


async def test_a_mapping_whose_maker_was_killed_is_noted_and_fenced(
    backend: RbdBackend, node: RbdNodeSide, shelf: Shelf, pool: Pool, tmp_path: Path
) -> None:
    made = await _made(backend, "pvc-unnoted")
    mapped = await node.connect(_handle(made), {})
    records = MapRecords(tmp_path / "node-1" / "maps")
    record = records.read(made.id)
    assert record is not None and record.address
    # What a kill leaves that comes when the image is mapped, and not yet noted.
    records.write(dataclasses.replace(record, address=""))
    usage.forget(shelf, "pvc-unnoted", record.address)
    again = RbdNodeSide(pool.instances, tmp_path / "node-1", name="node-1")
    assert await again.connect(_handle(made), {}) == mapped
    assert records.read(made.id) == record
    await backend.fence(nodeids.of("node-1"))
    with pytest.raises(OSError):
        _write(mapped, b"late")
    await again.disconnect(_handle(made))
    await backend.unfence(nodeids.of("node-1"))
    await again.close()


async def test_who_looks_after_an_image_for_a_moment_is_not_taken_for_the_node(
    backend: RbdBackend, node: RbdNodeSide, shelf: Shelf
) -> None:
    """The provisioner grows an image or takes a snapshot of it just when a node maps it."""
    made = await _made(backend, "pvc-visited")
    await node.connect(_handle(made), {})
    (ours,) = (await asyncio.to_thread(usage.users, shelf, "pvc-visited"))[:1]
    with shelf.opened("pvc-visited", writable=True):
        with pytest.raises(errors.Conflict, match="several clients have the image open"):
            await asyncio.to_thread(
                exclusive.register, shelf, "pvc-visited", "node-1", (), patience=0.2
            )
        waiting = asyncio.create_task(
            asyncio.to_thread(exclusive.register, shelf, "pvc-visited", "node-1", ())
        )
        await asyncio.sleep(0.3)
        assert not waiting.done()
    assert await waiting == ours.address
    await node.disconnect(_handle(made))


async def test_a_reader_takes_no_features_off_an_image_in_use(
    backend: RbdBackend,
    node: RbdNodeSide,
    pool: Pool,
    old_kernel: KernelMapper,
    tmp_path: Path,
) -> None:
    made = await _made(backend, "pvc-features")
    await node.connect(_handle(made), {})
    reader = RbdNodeSide(pool.instances, tmp_path / "node-2", name="node-2", mappers=[old_kernel])
    with pytest.raises(errors.Conflict, match="only without exclusive-lock"):
        await reader.connect(dataclasses.replace(_handle(made), read_only=True), {})
    assert "exclusive-lock" in pool.ceph.rbd("info", f"{pool.name}/pvc-features")
    await node.disconnect(_handle(made))
    await reader.close()


async def test_no_features_are_taken_off_what_ceph_csi_made(
    pool: Pool, old_kernel: KernelMapper, tmp_path: Path
) -> None:
    identity = str(uuid.uuid4())
    image = f"{pool.name}/csi-vol-{identity}"
    pool.ceph.rbd("create", "--size", "20", "--image-feature", "layering,exclusive-lock", image)
    stats = json.loads(pool.ceph.ceph("osd", "pool", "ls", "detail", "--format", "json"))
    number = next(each["pool_id"] for each in stats if each["pool_name"] == pool.name)
    handle = VolumeHandle(f"0001-0004-main-{number:016x}-{identity}", {}, "ext4")
    side = RbdNodeSide(pool.instances, tmp_path / "node-1", name="node-1", mappers=[old_kernel])
    with pytest.raises(errors.Unsupported, match=f"rbd feature disable {image} exclusive-lock"):
        await side.connect(handle, {})
    assert "exclusive-lock" in pool.ceph.rbd("info", image)
    await side.close()
    pool.ceph.rbd("rm", "--no-progress", image)


async def test_what_a_copy_that_was_cut_off_leaves_does_not_keep_its_origin(
    backend: RbdBackend, shelf: Shelf, pool: Pool
) -> None:
    origin = await _made(backend, "pvc-copied")
    snapshot = f"{pool.name}/pvc-copied@holdfast-clone-pvc-gone"
    pool.ceph.rbd("snap", "create", "--no-progress", snapshot)
    shelf.volumes.set("pvc-gone", {"state": CREATING})
    with pytest.raises(errors.Conflict, match="being copied to pvc-gone"):
        await backend.delete_volume(origin.id)
    await backend.delete_volume(f"rbd:main/{pool.name}/pvc-gone")
    await backend.delete_volume(origin.id)
    assert pool.images() == [] and pool.leftovers() == set()


async def test_a_copy_that_somebody_made_is_not_taken_for_its_origin(
    backend: RbdBackend, pool: Pool
) -> None:
    """Ceph copies an image's metadata with it, and there stands whose the image is."""
    await _made(backend, "pvc-original")
    pool.ceph.rbd("cp", "--no-progress", f"{pool.name}/pvc-original", f"{pool.name}/pvc-copy")
    assert "dev.holdfast.volume" in pool.ceph.rbd("image-meta", "ls", f"{pool.name}/pvc-copy")
    with pytest.raises(errors.AlreadyExists, match="did not make it"):
        await _made(backend, "pvc-copy")
    pool.ceph.rbd("rm", "--no-progress", f"{pool.name}/pvc-copy")


async def test_an_image_that_was_fetched_from_the_trash_stays(
    backend: RbdBackend, pool: Pool
) -> None:
    """It waits there for its clone; an administrator wants it back, and then the clone goes."""
    made = await _made(backend, "pvc-wanted")
    copy = await backend.create_volume(
        VolumeRequest("pvc-clone", 32 * MIB, source=VolumeSource("volume", made.id))
    )
    await backend.delete_volume(made.id)
    (number,) = (
        each["id"]
        for each in json.loads(pool.ceph.rbd("trash", "ls", pool.name, "--format", "json"))
    )
    pool.ceph.rbd("trash", "restore", "--pool", pool.name, number)
    await backend.delete_volume(copy.id)
    assert pool.images() == ["pvc-wanted"]
    await backend.delete_volume(made.id)
    assert pool.images() == [] and pool.leftovers() == set()


async def test_an_origin_in_the_trash_goes_with_its_clone_in_another_place(
    backend: RbdBackend, pool: Pool
) -> None:
    origin = await _made(backend, "pvc-here")
    pool.ceph.rbd("namespace", "create", f"{pool.name}/there")
    source = VolumeSource("volume", origin.id)
    parameters = {"radosNamespace": "there"}
    clone = await backend.create_volume(
        VolumeRequest("pvc-there", 32 * MIB, parameters, source=source)
    )
    await backend.delete_volume(origin.id)
    assert pool.ceph.rbd("trash", "ls", pool.name).strip()
    await backend.delete_volume(clone.id)
    assert not pool.ceph.rbd("trash", "ls", pool.name).strip()


async def test_a_pool_that_was_made_anew_is_used(pool: Pool, tmp_path: Path) -> None:
    name = f"{pool.name}-anew"
    key = pool.ceph.make_pool(name, name)
    pool.ceph.ceph("config", "set", "mon", "mon_allow_pool_delete", "true")
    parameters = {"monitors": pool.ceph.monitor, "adminId": name, "pool": name}
    request = VolumeRequest("pvc-anew", 32 * MIB, parameters, secrets={"key": key})
    backend = RbdBackend({}, tmp_path / "backend")
    await backend.create_volume(request)
    pool.ceph.ceph("osd", "pool", "rm", name, name, "--yes-i-really-really-mean-it")
    pool.ceph.make_pool(name, name)
    made = None
    for _ in range(3):
        try:
            made = await backend.create_volume(request)
        except errors.BackendError:
            await asyncio.sleep(0.5)
    assert made is not None
    assert pool.ceph.images(name) == ["pvc-anew"]
    await backend.delete_volume(made.id, secrets={"key": key})
    await backend.close()


async def test_ceph_csis_notes_in_a_namespace_are_found_and_removed(
    pool: Pool, tmp_path: Path
) -> None:
    identity, space = str(uuid.uuid4()), f"{pool.name}/csi"
    pool.ceph.rbd("namespace", "create", space)
    pool.ceph.rbd("create", "--size", "20", f"{space}/prefix-{identity}")
    note, directory = f"csi.volume.{identity}", "csi.volumes.default"
    where = ("-p", pool.name, "-N", "csi")
    for name, key, value in (
        (note, "csi.imagename", f"prefix-{identity}"),
        (note, "csi.volname", "pvc-of-csi"),
        (directory, "csi.volume.pvc-of-csi", identity),
    ):
        pool.ceph.rados(*where, "setomapval", name, key, value)
    stats = json.loads(pool.ceph.ceph("osd", "pool", "ls", "detail", "--format", "json"))
    number = next(each["pool_id"] for each in stats if each["pool_name"] == pool.name)
    main = {**pool.instances["main"], "rados_namespace": "csi"}
    backend = RbdBackend({"main": main}, tmp_path / "backend")
    handle = f"0001-0004-main-{number:016x}-{identity}"
    assert (await backend.get_volume(handle)).size == 20 * MIB
    await backend.delete_volume(handle)
    await backend.close()
    assert pool.ceph.images(space) == []
    assert note not in pool.ceph.rados(*where, "ls").split()
    assert pool.ceph.rados(*where, "listomapkeys", directory).strip() == ""


async def test_a_node_follows_its_settings_where_monitors_have_moved(
    backend: RbdBackend, node: RbdNodeSide
) -> None:
    made = await _made(backend, "pvc-moved")
    old = dataclasses.replace(made, context={**made.context, "monitors": "192.0.2.1:6789"})
    assert isinstance(await node.connect(_handle(old), {}), ImageFile)
    await node.disconnect(_handle(old))


async def test_the_settings_mapper_is_preferred(
    backend: RbdBackend, pool: Pool, old_kernel: KernelMapper, tmp_path: Path
) -> None:
    made = await _made(backend, "pvc-mapper", imageFeatures="layering")
    main = {**pool.instances["main"], "mounter": "qemu"}
    mappers = (old_kernel, QemuMapper())
    side = RbdNodeSide({"main": main}, tmp_path / "node-1", name="node-1", mappers=mappers)
    assert isinstance(await side.connect(_handle(made), {}), ImageFile)
    await side.disconnect(_handle(made))
    await side.close()


async def test_a_cluster_that_is_gone_for_good_keeps_no_node_from_being_fenced(
    node: RbdNodeSide, pool: Pool, tmp_path: Path
) -> None:
    """Nobody uses it any more, but its pool was in use once."""
    (tmp_path / "backend").mkdir()
    gone = ["192.0.2.1:6789", "kube", ""]
    known = {"users": {}, "places": [["another", "kube", ""], gone]}
    (tmp_path / "backend" / "known.json").write_text(json.dumps(known))
    old = {"monitors": "127.0.0.1:1", "key_file": str(pool.key_file), "user": pool.user}
    backend = RbdBackend({**pool.instances, "another": old}, tmp_path / "backend")
    made = await _made(backend, "pvc-still", clusterID="main")
    mapped = await node.connect(_handle(made), {})
    await backend.fence(nodeids.of("node-1"), [_handle(made)])
    with pytest.raises(OSError):
        _write(mapped, b"late")
    await node.disconnect(_handle(made))
    with pytest.raises(errors.BackendError):
        # It may have been there when the node was fenced; so this is tried again.
        await backend.unfence(nodeids.of("node-1"), [_handle(made)])
    await node.connect(_handle(made), {})
    await node.disconnect(_handle(made))
    await backend.delete_volume(made.id)
    await backend.close()


async def test_a_size_that_no_disk_has_is_refused(backend: RbdBackend, pool: Pool) -> None:
    for size in (8 << 60, 20 << 60):
        with pytest.raises(errors.Invalid, match="no disk is larger"):
            await backend.create_volume(VolumeRequest("pvc-huge", size))
    made = await _made(backend, "pvc-small")
    with pytest.raises(errors.Invalid, match="no disk is larger"):
        await backend.expand(made.id, 20 << 60)
    assert pool.images() == ["pvc-small"]


async def test_large_images_that_are_removed_keep_nobody_from_a_volume(
    backend: RbdBackend, pool: Pool
) -> None:
    """Ceph looks for every object that an image may have."""
    names = [f"pvc-large-{number}" for number in range(17)]
    large = [
        await backend.create_volume(VolumeRequest(each, 400 * MIB, {"objectSize": "262144"}))
        for each in names
    ]
    removing = [asyncio.create_task(backend.delete_volume(each.id)) for each in large]
    await asyncio.sleep(0.5)
    async with asyncio.timeout(3):
        await _made(backend, "pvc-quick")
    assert not all(each.done() for each in removing)
    await asyncio.gather(*removing)


async def test_a_name_that_the_kernel_would_read_as_another_is_not_given_to_it(
    backend: RbdBackend, pool: Pool, old_kernel: KernelMapper, tmp_path: Path
) -> None:
    names = ("--pool", pool.name, "--image", "my image")
    pool.ceph.rbd("create", "--size", "16", "--image-feature", "layering", *names)
    side = RbdNodeSide(pool.instances, tmp_path / "node-1", name="node-1", mappers=[old_kernel])
    static = VolumeHandle(f"rbd:main/{pool.name}/my image", {"static": "true"}, "ext4")
    with pytest.raises(errors.Unsupported, match="blanks or commas"):
        await side.connect(static, {})
    assert not (tmp_path / "bus" / "add").exists()
    await side.disconnect(static)
    await side.close()
    pool.ceph.rbd("rm", "--no-progress", *names)


async def test_what_cannot_be_used_as_it_is_says_so(
    backend: RbdBackend, node: RbdNodeSide, pool: Pool
) -> None:
    with pytest.raises(errors.Invalid, match="add ReadWriteOnce"):
        await backend.create_volume(VolumeRequest("pvc-blank", MIB, {}, ("ReadOnlyMany",)))
    made = await _made(backend, "pvc-plain")
    encrypted = dataclasses.replace(made, context={**made.context, "encrypted": "true"})
    with pytest.raises(errors.Unsupported, match="ceph-csi has encrypted"):
        await node.connect(_handle(encrypted), {})
    pool.ceph.rbd("snap", "create", "--no-progress", f"{pool.name}/pvc-plain@s")
    snapshot = dataclasses.replace(made, id=f"{made.id}@s")
    with pytest.raises(errors.Invalid, match="readOnly: true"):
        await node.connect(_handle(snapshot), {})
    readable = dataclasses.replace(_handle(snapshot), read_only=True)
    assert isinstance(await node.connect(readable, {}), ImageFile)
    await node.disconnect(readable)
    pool.ceph.rbd("snap", "rm", "--no-progress", f"{pool.name}/pvc-plain@s")


async def test_options_for_unmapping_reach_the_kernel(
    backend: RbdBackend,
    pool: Pool,
    old_kernel: KernelMapper,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(krbd, "APPEAR_SECONDS", 0.1)
    options = {"imageFeatures": "layering", "unmapOptions": "krbd:force;nbd:x"}
    made = await _made(backend, "pvc-options", **options)
    side = RbdNodeSide(pool.instances, tmp_path / "node-1", name="node-1", mappers=[old_kernel])
    with pytest.raises(errors.Unavailable, match="no device appeared"):
        await side.connect(_handle(made), {})
    device = tmp_path / "bus" / "devices" / "3"
    device.mkdir()
    record = MapRecords(tmp_path / "node-1" / "maps").read(made.id)
    assert record is not None and record.state["name"] == "pvc-options"
    for name, value in record.state.items():
        (device / name).write_text(f"{value}\n")
    await side.disconnect(_handle(made))
    assert (tmp_path / "bus" / "remove").read_text() == "3 force"
    await side.close()


async def test_the_remedy_for_too_few_rights_helps_when_it_is_typed(
    pool: Pool, tmp_path: Path
) -> None:
    """The rights are those of an old how-to."""
    user = f"{pool.name}-poor"
    rights = ("mon", "allow r", "osd", f"allow rwx pool={pool.name}")
    pool.ceph.ceph("auth", "get-or-create", f"client.{user}", *rights)
    key_file = tmp_path / "key"
    key_file.write_text(pool.ceph.key_of(user))
    key_file.chmod(0o600)
    main = {**pool.instances["main"], "user": user, "key_file": str(key_file)}
    for severity in ("warning", "ok"):
        backend = RbdBackend({"main": main}, tmp_path / severity)
        found = {each.check: each for each in await backend.checks()}
        await backend.close()
        assert found["ceph caps"].severity == severity
        if severity == "warning":
            assert f"holdfast prepare ceph --pool {pool.name}" in found["ceph caps"].remedy
            typed = shlex.split(found["ceph caps"].remedy.partition("nothing else, ")[2])
            pool.ceph.ceph(*typed[1:])


async def test_a_reader_is_named_to_who_wants_to_write(
    backend: RbdBackend, node: RbdNodeSide, other_node: RbdNodeSide
) -> None:
    made = await _made(backend, "pvc-read")
    reading = dataclasses.replace(_handle(made), read_only=True)
    await node.connect(reading, {})
    with pytest.raises(errors.Conflict, match="in use by node-1 "):
        await other_node.connect(_handle(made), {})
    with pytest.raises(errors.Conflict, match="in use by node-1 "):
        await backend.delete_volume(made.id)
    await other_node.connect(reading, {})
    for side in (node, other_node):
        await side.disconnect(reading)
    await other_node.connect(_handle(made), {})
    await other_node.disconnect(_handle(made))
