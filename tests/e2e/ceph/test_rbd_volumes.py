"""The control side against a real cluster: images are made, found, grown, copied and removed."""

from __future__ import annotations

import asyncio
import json
import uuid
from pathlib import Path

import pytest

from holdfast.backends import errors
from holdfast.backends.protocol import VolumeRequest, VolumeSource
from holdfast.backends.rbd import bindings, ids
from holdfast.backends.rbd.backend import RbdBackend
from holdfast.backends.rbd.connections import Access, Connection
from servers.ceph.pools import Pool

pytestmark = [pytest.mark.e2e]

MIB = 1 << 20


def _connection(pool: Pool) -> Connection:
    return Connection(bindings.load(), Access((pool.ceph.monitor,), pool.user, pool.key))


async def test_a_repeated_create_finds_the_image(backend: RbdBackend, pool: Pool) -> None:
    request = VolumeRequest("pvc-repeat", 500 * MIB)
    first = await backend.create_volume(request)
    assert await backend.create_volume(request) == first
    assert first.size == 500 * MIB
    assert pool.images() == ["pvc-repeat"]
    owner = pool.ceph.rbd("image-meta", "get", f"{pool.name}/pvc-repeat", "dev.holdfast.volume")
    assert json.loads(owner)["request"] == "pvc-repeat"
    with pytest.raises(errors.AlreadyExists, match="another size"):
        await backend.create_volume(VolumeRequest("pvc-repeat", 600 * MIB))


async def test_the_image_has_what_the_class_says(backend: RbdBackend, pool: Pool) -> None:
    pool.ceph.ceph("osd", "pool", "create", f"{pool.name}-data", "8")
    pool.ceph.ceph("osd", "pool", "application", "enable", f"{pool.name}-data", "rbd")
    pool.ceph.ceph(
        *("auth", "caps", f"client.{pool.user}", "mon", "profile rbd"),
        *("osd", f"profile rbd pool={pool.name}, profile rbd pool={pool.name}-data"),
    )
    parameters = {
        "pool": pool.name,
        "dataPool": f"{pool.name}-data",
        "imageFeatures": "layering,exclusive-lock,object-map,fast-diff",
        "objectSize": str(8 * MIB),
        "stripeUnit": str(MIB),
        "stripeCount": "4",
    }
    await backend.create_volume(VolumeRequest("pvc-shape", 64 * MIB, parameters))
    found = json.loads(pool.ceph.rbd("info", "--format", "json", f"{pool.name}/pvc-shape"))
    assert found["object_size"] == 8 * MIB
    assert found["stripe_count"] == 4
    assert found["data_pool"] == f"{pool.name}-data"
    wanted = {"layering", "exclusive-lock", "object-map", "fast-diff", "striping", "data-pool"}
    assert set(found["features"]) == wanted


async def test_images_of_a_namespace_are_apart(backend: RbdBackend, pool: Pool) -> None:
    pool.ceph.rbd("namespace", "create", f"{pool.name}/team")
    made = await backend.create_volume(VolumeRequest("pvc-ns", MIB, {"radosNamespace": "team"}))
    assert made.id == f"rbd:main/{pool.name}:team/pvc-ns"
    assert pool.ceph.images(f"{pool.name}/team") == ["pvc-ns"]
    assert "pvc-ns" not in pool.images()
    await backend.delete_volume(made.id)
    assert pool.ceph.images(f"{pool.name}/team") == []


async def test_fifty_at_once_are_made_and_removed(backend: RbdBackend, pool: Pool) -> None:
    requests = [VolumeRequest(f"pvc-many-{number}", 1024 * MIB) for number in range(50)]
    made = await asyncio.gather(*(backend.create_volume(each) for each in requests))
    assert len(set(pool.images())) == 50
    listed = await backend.list_volumes()
    assert {each.id for each in made} == {each.id for each in listed.volumes}
    page = await backend.list_volumes(limit=20)
    rest = await backend.list_volumes(page.next_token)
    assert [*page.volumes, *rest.volumes] == list(listed.volumes)
    await asyncio.gather(*(backend.delete_volume(each.id) for each in made))
    assert pool.images() == []
    assert pool.leftovers() == set()


async def test_a_foreign_image_is_not_taken_over(backend: RbdBackend, pool: Pool) -> None:
    pool.ceph.rbd("create", "--size", "10", f"{pool.name}/pvc-foreign")
    with pytest.raises(errors.AlreadyExists, match="did not make it"):
        await backend.create_volume(VolumeRequest("pvc-foreign", 10 * MIB))
    pool.ceph.rbd("rm", "--no-progress", f"{pool.name}/pvc-foreign")


async def test_half_an_image_is_made_whole(backend: RbdBackend, pool: Pool) -> None:
    """Ceph makes an image in steps; whoever is killed between them leaves half of one."""
    for number, step in enumerate(("header", "directory")):
        name = f"pvc-half-{number}"
        request = VolumeRequest(name, 32 * MIB)
        await backend.create_volume(request)
        connection = _connection(pool)
        context = connection.pool(pool.name)
        rados = connection.modules.rados
        image = json.loads(pool.ceph.rbd("info", "--format", "json", f"{pool.name}/{name}"))["id"]
        context.remove_object(f"rbd_header.{image}")
        if step == "directory":
            with rados.WriteOpCtx() as operation:
                context.remove_omap_keys(operation, (f"name_{name}", f"id_{image}"))
                context.operate_write_op(operation, "rbd_directory")
        found = await backend.find_volume(request)
        assert found is not None and found.context == {"state": "incomplete"}
        assert (await backend.create_volume(request)).size == 32 * MIB
        assert pool.ceph.rbd("info", f"{pool.name}/{name}")
        await backend.delete_volume(f"rbd:main/{pool.name}/{name}")
        connection.close()
    assert pool.images() == []
    assert pool.leftovers() == set()


async def test_a_watched_image_is_not_deleted_and_the_error_names_the_client(
    backend: RbdBackend, pool: Pool
) -> None:
    made = await backend.create_volume(VolumeRequest("pvc-watched", 10 * MIB))
    connection = _connection(pool)
    with connection.modules.rbd.Image(connection.pool(pool.name), "pvc-watched") as image:
        address = next(iter(image.watchers_list()))["addr"]
        with pytest.raises(errors.Conflict) as caught:
            await backend.delete_volume(made.id)
        assert address in str(caught.value)
    connection.close()
    await backend.delete_volume(made.id)
    await backend.delete_volume(made.id)
    with pytest.raises(errors.NotFound):
        await backend.get_volume(made.id)


async def test_a_volume_grows_and_never_shrinks(backend: RbdBackend, pool: Pool) -> None:
    made = await backend.create_volume(VolumeRequest("pvc-grow", 100 * MIB))
    assert (await backend.expand(made.id, 200 * MIB)).size == 200 * MIB
    assert (await backend.expand(made.id, 50 * MIB)).size == 200 * MIB
    assert (await backend.get_volume(made.id)).size == 200 * MIB


def _write(pool: Pool, image: str, data: bytes) -> None:
    connection = _connection(pool)
    with connection.modules.rbd.Image(connection.pool(pool.name), image) as handle:
        handle.write(data, 0)
    connection.close()


def _read(pool: Pool, image: str, length: int) -> bytes:
    connection = _connection(pool)
    with connection.modules.rbd.Image(connection.pool(pool.name), image, read_only=True) as handle:
        found = bytes(handle.read(0, length))
    connection.close()
    return found


async def test_a_snapshot_outlives_its_volume_and_is_restored(
    backend: RbdBackend, pool: Pool
) -> None:
    origin = await backend.create_volume(VolumeRequest("pvc-origin", 40 * MIB))
    _write(pool, "pvc-origin", b"before")
    snapshot = await backend.create_snapshot("snap-a", origin.id)
    assert await backend.create_snapshot("snap-a", origin.id) == snapshot
    _write(pool, "pvc-origin", b"after!")
    await backend.delete_volume(origin.id)
    assert (await backend.list_volumes()).volumes == []
    assert (await backend.get_snapshot(snapshot.id)).size == 40 * MIB
    source = VolumeSource("snapshot", snapshot.id)
    restored = await backend.create_volume(VolumeRequest("pvc-back", 60 * MIB, source=source))
    assert restored.size == 60 * MIB
    assert _read(pool, "pvc-back", 6) == b"before"
    await backend.delete_snapshot(snapshot.id)
    assert (await backend.list_snapshots()).snapshots == []
    assert _read(pool, "pvc-back", 6) == b"before"
    await backend.delete_volume(restored.id)
    assert pool.leftovers() == set()


async def test_a_clone_is_independent_of_its_origin(backend: RbdBackend, pool: Pool) -> None:
    origin = await backend.create_volume(VolumeRequest("pvc-first", 16 * MIB))
    _write(pool, "pvc-first", b"hello")
    source = VolumeSource("volume", origin.id)
    for flatten in ("never", "always"):
        request = VolumeRequest(f"pvc-{flatten}", 16 * MIB, {"flatten": flatten}, source=source)
        await backend.create_volume(request)
        info = pool.ceph.rbd("info", f"{pool.name}/pvc-{flatten}")
        assert ("parent:" in info) == (flatten == "never")
        assert _read(pool, f"pvc-{flatten}", 5) == b"hello"
    with pytest.raises(errors.Invalid, match="at least the origin's size"):
        await backend.create_volume(VolumeRequest("pvc-less", MIB, source=source))
    await backend.delete_volume(f"rbd:main/{pool.name}/pvc-less")
    await backend.delete_volume(origin.id)
    assert _read(pool, "pvc-never", 5) == b"hello"
    for flatten in ("never", "always"):
        await backend.delete_volume(f"rbd:main/{pool.name}/pvc-{flatten}")
    assert pool.leftovers() == set()


async def test_chains_of_clones_do_not_grow_without_end(backend: RbdBackend, pool: Pool) -> None:
    last = (await backend.create_volume(VolumeRequest("pvc-c0", 8 * MIB))).id
    made = [last]
    for number in range(1, 7):
        source = VolumeSource("volume", last)
        request = VolumeRequest(f"pvc-c{number}", 8 * MIB, source=source)
        last = (await backend.create_volume(request)).id
        made.append(last)
    parents = [
        "parent:" in pool.ceph.rbd("info", f"{pool.name}/pvc-c{number}") for number in range(1, 7)
    ]
    assert parents == [True, True, True, False, True, True]
    for each in made:
        await backend.delete_volume(each)
    assert pool.leftovers() == set()


async def test_volumes_of_ceph_csi_are_found_and_deleted(backend: RbdBackend, pool: Pool) -> None:
    identity, request = str(uuid.uuid4()), "pvc-made-by-ceph-csi"
    pool.ceph.rbd("create", "--size", "20", f"{pool.name}/csi-vol-{identity}")
    note, directory = f"csi.volume.{identity}", "csi.volumes.default"
    for name, key, value in (
        (note, "csi.imagename", f"csi-vol-{identity}"),
        (note, "csi.volname", request),
        (directory, f"csi.volume.{request}", identity),
    ):
        pool.ceph.rados("-p", pool.name, "setomapval", name, key, value)
    stats = json.loads(pool.ceph.ceph("osd", "pool", "ls", "detail", "--format", "json"))
    number = next(each["pool_id"] for each in stats if each["pool_name"] == pool.name)
    handle = f"0001-0004-main-{number:016x}-{identity}"
    assert (await backend.get_volume(handle)).size == 20 * MIB
    assert (await backend.expand(handle, 30 * MIB)).size == 30 * MIB
    await backend.delete_volume(handle)
    assert pool.images() == []
    assert note not in pool.ceph.objects(pool.name)
    assert pool.ceph.rados("-p", pool.name, "listomapkeys", directory).strip() == ""
    pool.ceph.rados("-p", pool.name, "rm", directory)


async def test_migrated_in_tree_volumes_are_found_and_deleted(
    backend: RbdBackend, pool: Pool
) -> None:
    identity = str(uuid.uuid4())
    image = f"kubernetes-dynamic-pvc-{identity}"
    pool.ceph.rbd("create", "--size", "20", f"{pool.name}/{image}")
    digest = next(iter(ids.monitors_hashes([pool.ceph.monitor])))
    handle = f"mig_mons-{digest}_image-{identity}_{pool.name.encode().hex()}"
    assert (await backend.get_volume(handle)).size == 20 * MIB
    await backend.delete_volume(handle)
    assert pool.images() == []


async def test_a_class_may_carry_the_whole_connection(pool: Pool, tmp_path: Path) -> None:
    """As the in-tree plug-in's do. The Secret has a key and no name; deleting is told no more."""
    parameters = {
        "monitors": pool.ceph.monitor,
        "adminId": pool.user,
        "adminSecretName": "ceph-secret",
        "adminSecretNamespace": "kube-system",
        "pool": pool.name,
        "userId": pool.user,
        "userSecretName": "ceph-kube-secret",
        "fsType": "ext4",
        "imageFormat": "2",
        "imageFeatures": "layering",
        "volumeNamePrefix": "kubernetes-dynamic-",
    }
    request = VolumeRequest("pvc-in-tree", 500 * MIB, parameters, secrets={"key": pool.key})
    first = RbdBackend({}, tmp_path / "backend")
    made = await first.create_volume(request)
    await first.close()
    assert made.id == f"rbd:{pool.ceph.monitor}/{pool.name}/kubernetes-dynamic-pvc-in-tree"
    assert pool.key not in str(made)
    second = RbdBackend({}, tmp_path / "backend")
    await second.delete_volume(made.id, secrets={"key": pool.key + "\n"})
    await second.close()
    assert pool.images() == []
    kept = "".join(path.read_text() for path in (tmp_path / "backend").iterdir())
    assert pool.key not in kept
