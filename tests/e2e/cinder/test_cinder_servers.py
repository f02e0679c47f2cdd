"""Volumes on servers of a real Nova: attached, looked for, lost, and put right."""

from __future__ import annotations

import asyncio
import os
import uuid
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from holdfast.backends import errors
from holdfast.backends.cinder import attaching
from holdfast.backends.cinder.backend import CinderBackend
from holdfast.backends.cinder.node_side import CinderNodeSide
from holdfast.backends.protocol import Device, Volume, VolumeHandle, VolumeRequest
from holdfast.node.volumes import Volumes
from servers.openstack import catalog
from servers.openstack.cloud import NOVA, Cloud
from servers.openstack.configuration import MOST_DISKS
from servers.openstack.guests import Guests

pytestmark = [pytest.mark.e2e, pytest.mark.root, pytest.mark.timeout(400)]

GIB = 1 << 30


@pytest.fixture
async def volume(backend: CinderBackend) -> AsyncIterator[Volume]:
    """A volume of 1 GiB; the test leaves it detached."""
    asked = VolumeRequest(f"pvc-{uuid.uuid4()}", GIB, {"type": "file"}, ("ReadWriteOnce",))
    made = await backend.create_volume(asked)
    yield made
    await backend.delete_volume(made.id)


def node_side(cloud: Cloud, guests: Guests, name: str, **more: str) -> CinderNodeSide:
    """The node side on a server."""
    instance = {"cloud_conf": str(cloud.cloud_conf), "root": str(guests.root(name)), **more}
    return CinderNodeSide({"default": instance}, cloud.directory)


async def boot(guests: Guests, name: str) -> str:
    """Boot a server without holding up the event loop."""
    return await asyncio.to_thread(guests.boot, name)


async def test_data_written_on_one_server_is_there_on_the_next(
    backend: CinderBackend, openstack_cloud: Cloud, servers: Guests, volume: Volume, places: Path
) -> None:
    written = False
    for name in ("node-1", "node-2"):
        server = await boot(servers, name)
        side, machine = node_side(openstack_cloud, servers, name), Volumes()
        context = await backend.attach(volume.id, server, False)
        assert await backend.attach(volume.id, server, False) == context
        assert (await backend.attachments())[volume.id] == [server]
        handle = VolumeHandle(volume.id, volume.context, "ext4")
        staging, target = places / f"{name}-staged", places / f"{name}-pod"
        staged = await machine.stage(handle, side, staging, context=context)
        assert staged.device is not None and staged.device.identity == f"cinder:{volume.id}"
        await machine.publish(staging, target)
        note = target / "note"
        if written:
            assert note.read_text() == "kept"
        note.write_text("kept")
        written = True
        with pytest.raises(errors.Conflict, match="is attached to"):
            await backend.delete_volume(volume.id)
        await machine.unpublish(target)
        await machine.unstage(handle, side, staging)
        await backend.detach(volume.id, server)
        await backend.detach(volume.id, server)
        await side.close()
    assert volume.id not in await backend.attachments()


async def test_a_file_system_follows_when_its_volume_grew(
    backend: CinderBackend, openstack_cloud: Cloud, servers: Guests, volume: Volume, places: Path
) -> None:
    server = await boot(servers, "node-1")
    side, machine = node_side(openstack_cloud, servers, "node-1"), Volumes()
    context = await backend.attach(volume.id, server, False)
    handle = VolumeHandle(volume.id, volume.context, "ext4")
    staging = places / "staged"
    await machine.stage(handle, side, staging, context=context)
    await backend.expand(volume.id, 2 * GIB)
    await machine.unstage(handle, side, staging)
    context = await backend.attach(volume.id, server, False)
    await machine.stage(handle, side, staging, context=context)
    statistics = os.statvfs(staging)
    assert statistics.f_blocks * statistics.f_frsize > 1.8 * GIB
    await machine.unstage(handle, side, staging)
    await backend.detach(volume.id, server)
    await side.close()


async def test_raw_blocks_are_the_volumes_own_and_grow_in_use(
    backend: CinderBackend, openstack_cloud: Cloud, servers: Guests, volume: Volume, places: Path
) -> None:
    server = await boot(servers, "node-1")
    side, machine = node_side(openstack_cloud, servers, "node-1"), Volumes()
    context = await backend.attach(volume.id, server, False)
    handle = VolumeHandle(volume.id, volume.context, mode="Block")
    staging = places / "staged"
    await machine.stage(handle, side, staging, context=context)
    assert staging.is_block_device()
    await backend.expand(volume.id, 2 * GIB)
    for _ in range(100):
        if await machine.grow(handle, side, staging, context=context) == 2 * GIB:
            break
        # Cinder tells Nova, and Nova the guest, after Cinder's own work is done.
        await asyncio.sleep(0.1)
    assert await machine.grow(handle, side, staging, context=context) == 2 * GIB
    await machine.unstage(handle, side, staging)
    await backend.detach(volume.id, server)
    await side.close()


async def test_a_link_to_another_disk_is_not_believed(
    backend: CinderBackend, openstack_cloud: Cloud, servers: Guests, volume: Volume
) -> None:
    server = await boot(servers, "node-1")
    side = node_side(openstack_cloud, servers, "node-1")
    other = await backend.create_volume(
        VolumeRequest(f"pvc-{uuid.uuid4()}", GIB, {"type": "file"}, ("ReadWriteOnce",))
    )
    context = await backend.attach(volume.id, server, False)
    await backend.attach(other.id, server, False)
    by_id = servers.root("node-1") / "dev/disk/by-id"
    mine, wrong = by_id / f"virtio-{volume.id[:20]}", by_id / f"virtio-{other.id[:20]}"
    right = mine.readlink()
    mine.unlink()
    mine.symlink_to(wrong.readlink())
    with pytest.raises(errors.Conflict, match=f"not volume {volume.id}"):
        await side.connect(VolumeHandle(volume.id), context)
    mine.unlink()
    mine.symlink_to(right)
    found = await side.connect(VolumeHandle(volume.id), context)
    assert isinstance(found, Device)
    too_large = {**context, "size": str(5 * GIB)}
    with pytest.raises(errors.Conflict, match="another disk, or one whose growth"):
        await side.connect(VolumeHandle(volume.id), too_large)
    for each in (volume, other):
        await backend.detach(each.id, server)
    await backend.delete_volume(other.id)
    await side.close()


async def test_the_machine_finds_its_id_in_every_source_and_knows_the_traps(
    openstack_cloud: Cloud, servers: Guests
) -> None:
    server = await boot(servers, "node-1")
    side = node_side(openstack_cloud, servers, "node-1")
    info = await side.describe()
    assert info.id == server
    assert info.topology == {"topology.cinder.csi.openstack.org/zone": "nova"}
    assert info.max_volumes == 255  # the root disk is on the SCSI bus, and counts
    assert not [each for each in await side.checks() if each.severity == "error"]
    await side.close()

    root = servers.root("node-1")
    drive, file = root / "mnt", root / "var/lib/cloud/data/instance-id"
    hidden = root / "hidden"
    drive.rename(hidden)
    nowhere = {"metadata_url": "http://127.0.0.1:9"}
    try:
        side = node_side(openstack_cloud, servers, "node-1", **nowhere)
        assert (await side.describe()).id == server
        for trap, reason in (
            ("iid-datasource-none", "found no datasource"),
            ("i-00000001", "EC2's metadata"),
            ("", "is no id of a server"),
        ):
            file.write_text(trap + "\n")
            with pytest.raises(errors.NotFound, match=reason):
                await side.describe()
        assert "server id" in {c.check for c in await side.checks() if c.severity == "error"}
        await side.close()
        project = await project_of(openstack_cloud)
        process, url = await asyncio.to_thread(openstack_cloud.metadata_service, server, project)
        try:
            side = node_side(openstack_cloud, servers, "node-1", metadata_url=url)
            assert (await side.describe()).id == server
            await side.close()
        finally:
            process.kill()
            process.wait()
    finally:
        hidden.rename(drive)
        file.write_text(server + "\n")


async def test_a_server_that_has_its_most_disks_says_so(
    backend: CinderBackend, servers: Guests
) -> None:
    server = await boot(servers, "node-full")
    made = []
    for number in range(MOST_DISKS):
        asked = VolumeRequest(f"full-{uuid.uuid4()}", GIB, {"type": "file"})
        made.append(await backend.create_volume(asked))
        if number < MOST_DISKS - 1:
            await backend.attach(made[-1].id, server, False)
    with pytest.raises(errors.Exhausted, match=rf"maximum.*\({MOST_DISKS}\)"):
        await backend.attach(made[-1].id, server, False)
    # What was refused is free, for another server or for later.
    await backend.delete_volume(made.pop().id)
    await asyncio.to_thread(servers.delete, "node-full")
    for each in made:
        await backend.detach(each.id, server)
        await backend.delete_volume(each.id)


async def test_a_server_whose_network_is_lost_keeps_its_volume(
    backend: CinderBackend, servers: Guests, volume: Volume
) -> None:
    first, second = await boot(servers, "node-1"), await boot(servers, "node-2")
    await backend.attach(volume.id, first, False)
    assert (await backend.node_state(first)).power == "running"
    with pytest.raises(errors.Conflict, match=r"may still|ACTIVE"):
        await backend.attach(volume.id, second, False)
    with pytest.raises(errors.Conflict, match="not fenced"):
        await backend.fence(first)
    await asyncio.to_thread(servers.stop, "node-1")
    assert (await backend.node_state(first)).power == "stopped"
    await backend.fence(first)
    await backend.detach(volume.id, first)
    await backend.attach(volume.id, second, False)
    await backend.detach(volume.id, second)
    await asyncio.to_thread(servers.start, "node-1")


async def test_a_server_that_reboots_keeps_its_volume(
    backend: CinderBackend, servers: Guests, volume: Volume
) -> None:
    server = await boot(servers, "node-1")
    context = await backend.attach(volume.id, server, False)
    await asyncio.to_thread(servers.reboot, "node-1")
    assert await backend.attach(volume.id, server, False) == context
    await backend.detach(volume.id, server)


async def test_a_server_that_is_deleted_lets_go_of_its_volume(
    backend: CinderBackend, servers: Guests, volume: Volume
) -> None:
    server = await boot(servers, "node-gone")
    await backend.attach(volume.id, server, False)
    await asyncio.to_thread(servers.delete, "node-gone")
    assert (await backend.node_state(server)).power == "gone"
    await backend.detach(volume.id, server)
    assert volume.id not in await backend.attachments()
    with pytest.raises(errors.NotFound):
        await backend.attach(volume.id, server, False)


async def test_a_dead_compute_host_is_waited_for_until_its_server_is_evacuated(
    admin_backend: CinderBackend, openstack_cloud: Cloud, servers: Guests, volume: Volume
) -> None:
    backend = admin_backend
    server = await boot(servers, "node-dead")
    await backend.attach(volume.id, server, False)
    host = servers.host("node-dead")
    await asyncio.to_thread(servers.force_down, host)
    try:
        state = await backend.node_state(server)
        assert state.power == "stopped" and "forced down" in state.detail
        with pytest.raises(errors.Conflict, match="evacuate"):
            await backend.detach(volume.id, server)
        await asyncio.to_thread(servers.evacuate, "node-dead")
        assert servers.host("node-dead") != host
        # Nova leaves an evacuated server off; what counts is that its new host answers.
        assert "forced down" not in (await backend.node_state(server)).detail
        await backend.detach(volume.id, server)
        assert volume.id not in await backend.attachments()
    finally:
        # A host that was evacuated comes up again only when Nova starts anew.
        await asyncio.to_thread(openstack_cloud.kill_service, NOVA)
        await asyncio.to_thread(openstack_cloud.restart, NOVA)
        await asyncio.to_thread(servers.force_down, host, False)


async def test_a_compute_host_that_does_not_answer_leaves_it_open_whether_the_server_runs(
    admin_backend: CinderBackend, backend: CinderBackend, openstack_cloud: Cloud, servers: Guests
) -> None:
    server = await boot(servers, "node-1")
    with catalog.connected(openstack_cloud.ports) as admin:
        host = servers.host("node-1")
        found = next(each for each in admin.compute.services() if each.host == host)
        admin.compute.update_service_forced_down(found, forced=True)
        state = await admin_backend.node_state(server)
        assert state.power == "stopped"
        # A plain member is not told, and for it the server counts as running: the safe guess.
        assert (await backend.node_state(server)).power == "running"
        admin.compute.update_service_forced_down(found, forced=False)
    assert (await admin_backend.node_state(server)).power == "running"


async def test_a_reservation_that_a_killed_nova_left_is_cleared(
    backend: CinderBackend,
    openstack_cloud: Cloud,
    servers: Guests,
    volume: Volume,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(attaching, "SETTLE_SECONDS", 1.0)
    server = await boot(servers, "node-1")
    with catalog.connected(openstack_cloud.ports, admin=False) as member:
        member.block_storage.create_attachment(volume.id)
        assert member.block_storage.get_volume(volume.id).status == "reserved"
    with pytest.raises(errors.Conflict, match="put right"):
        await backend.attach(volume.id, server, False)
    await backend.attach(volume.id, server, False)
    await backend.detach(volume.id, server)


async def test_what_a_killed_nova_had_begun_to_attach_or_detach_is_taken_back(
    backend: CinderBackend,
    openstack_cloud: Cloud,
    servers: Guests,
    volume: Volume,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(attaching, "SETTLE_SECONDS", 1.0)
    monkeypatch.setattr(attaching, "DETACH_SECONDS", 1.0)
    server = await boot(servers, "node-1")
    with catalog.connected(openstack_cloud.ports, admin=False) as member:
        storage = member.block_storage
        storage.reserve_volume(volume.id)
        assert storage.get_volume(volume.id).status == "attaching"
        with pytest.raises(errors.Conflict, match="put right"):
            await backend.attach(volume.id, server, False)
        context = await backend.attach(volume.id, server, False)

        storage.begin_volume_detaching(volume.id)
        with pytest.raises(errors.Conflict, match="is being detached from server"):
            await backend.attach(volume.id, server, False)
        with pytest.raises(errors.Conflict, match="has not done so"):
            await backend.detach(volume.id, server)
        assert storage.get_volume(volume.id).status == "detaching"
        monkeypatch.setattr(attaching, "FORGOTTEN_SECONDS", 0.0)
        with pytest.raises(errors.Conflict, match="put right"):
            await backend.attach(volume.id, server, False)
        assert await backend.attach(volume.id, server, False) == context
        storage.begin_volume_detaching(volume.id)
    await backend.detach(volume.id, server)
    assert nova_disks(openstack_cloud, server).count(volume.id) == 0


async def test_a_volume_that_is_being_connected_elsewhere_is_left_to_it(
    backend: CinderBackend,
    openstack_cloud: Cloud,
    servers: Guests,
    volume: Volume,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(attaching, "SETTLE_SECONDS", 1.0)
    server = await boot(servers, "node-1")
    with catalog.connected(openstack_cloud.ports, admin=False) as member:
        begun = member.block_storage.create_attachment(
            volume.id, connector={"host": "bare", "ip": "127.0.0.1", "platform": "x86_64"}
        )
        with pytest.raises(errors.Conflict, match="no server of Nova"):
            await backend.attach(volume.id, server, False)
        with pytest.raises(errors.Conflict, match="no server of Nova"):
            await backend.delete_volume(volume.id)
        member.block_storage.delete_attachment(begun.id)


async def test_a_server_of_another_project_is_not_taken_for_a_deleted_one(
    backend: CinderBackend,
    new_backend: Callable[..., CinderBackend],
    openstack_cloud: Cloud,
    servers: Guests,
) -> None:
    server = await boot(servers, "node-gone")
    stranger = openstack_cloud.directory / "stranger.conf"
    catalog.write_stranger_conf(openstack_cloud.ports, stranger)
    theirs = new_backend(cloud_conf=str(stranger))
    state = await theirs.node_state(server)
    assert state.power == "unknown" and "another project" in state.detail
    with pytest.raises(errors.Conflict, match="may still be running"):
        await theirs.fence(server)
    await asyncio.to_thread(servers.delete, "node-gone")
    assert (await backend.node_state(server)).power == "gone"
    # One that nobody here ever had may be anywhere.
    assert (await backend.node_state(str(uuid.uuid4()))).power == "unknown"


async def test_a_volume_that_an_operator_reset_is_let_go_by_both(
    backend: CinderBackend, openstack_cloud: Cloud, servers: Guests, volume: Volume
) -> None:
    first, second = await boot(servers, "node-1"), await boot(servers, "node-2")
    for again in (first, second):
        await backend.attach(volume.id, first, False)
        reset(openstack_cloud, volume.id)
        # The same server gets it anew; for another one, it is taken from the first.
        if again == first:
            with pytest.raises(errors.Conflict, match="put right"):
                await backend.attach(volume.id, first, False)
            await backend.attach(volume.id, first, False)
        await backend.detach(volume.id, first)
        assert (await backend.attachments()).get(volume.id) is None
        assert nova_disks(openstack_cloud, first).count(volume.id) == 0
        await backend.attach(volume.id, again, False)
        await backend.detach(volume.id, again)


async def test_what_only_nova_has_is_explained_while_somebody_else_begins_with_the_volume(
    backend: CinderBackend, openstack_cloud: Cloud, servers: Guests, volume: Volume
) -> None:
    server = await boot(servers, "node-1")
    await backend.attach(volume.id, server, False)
    reset(openstack_cloud, volume.id)
    with catalog.connected(openstack_cloud.ports, admin=False) as member:
        begun = member.block_storage.create_attachment(volume.id)
        with pytest.raises(errors.Conflict, match="Cinder knows of no such attachment"):
            await backend.detach(volume.id, server)
        assert nova_disks(openstack_cloud, server).count(volume.id) == 1
        member.block_storage.delete_attachment(begun.id)
    await backend.detach(volume.id, server)
    assert nova_disks(openstack_cloud, server).count(volume.id) == 0


async def test_a_server_that_moves_to_another_host_keeps_its_volume(
    backend: CinderBackend, servers: Guests, volume: Volume
) -> None:
    server = await boot(servers, "node-2")
    context = await backend.attach(volume.id, server, False)
    await asyncio.to_thread(servers.migrate, "node-2")
    assert await backend.attach(volume.id, server, False) == context
    assert (await backend.node_state(server)).power == "running"
    await backend.detach(volume.id, server)


async def test_a_server_that_is_migrated_cold_has_its_volume_before_and_after(
    backend: CinderBackend, servers: Guests, volume: Volume
) -> None:
    server = await boot(servers, "node-cold")
    await backend.attach(volume.id, server, False)
    host = servers.host("node-cold")
    await asyncio.to_thread(servers.migrate_cold, "node-cold")
    assert servers.host("node-cold") != host
    # Not confirmed yet: the server runs on its new host, and nobody else gets the volume.
    assert (await backend.node_state(server)).power == "running"
    other = await boot(servers, "node-2")
    with pytest.raises(errors.Conflict, match="is attached to another server"):
        await backend.attach(volume.id, other, False)
    await asyncio.to_thread(servers.confirm, "node-cold")
    assert (await backend.node_state(server)).power == "running"
    assert (await backend.attachments())[volume.id] == [server]
    await backend.detach(volume.id, server)
    await backend.attach(volume.id, other, False)
    await backend.detach(volume.id, other)
    await asyncio.to_thread(servers.delete, "node-cold")


async def test_shared_volumes_are_on_several_servers_until_the_last_lets_go(
    backend: CinderBackend, servers: Guests
) -> None:
    first, second = await boot(servers, "node-1"), await boot(servers, "node-2")
    asked = VolumeRequest(
        f"pvc-{uuid.uuid4()}", GIB, {"type": "shared"}, ("ReadWriteMany",), "Block"
    )
    made = await backend.create_volume(asked)
    await backend.attach(made.id, first, False)
    await backend.attach(made.id, second, False)
    assert sorted((await backend.attachments())[made.id]) == sorted([first, second])
    await backend.detach(made.id, first)
    assert (await backend.attachments())[made.id] == [second]
    await backend.detach(made.id, second)
    await backend.delete_volume(made.id)


def reset(cloud: Cloud, volume: str) -> None:
    """Do what administrators do to a volume that hangs, and should not."""
    with catalog.connected(cloud.ports) as admin:
        admin.block_storage.reset_volume_status(
            volume, status="available", attach_status="detached"
        )


def nova_disks(cloud: Cloud, server: str) -> list[str]:
    """The volumes that Nova has on a server."""
    with catalog.connected(cloud.ports) as admin:
        return [each.volume_id for each in admin.compute.volume_attachments(server)]


async def project_of(cloud: Cloud) -> str:
    """The id of project kubernetes."""

    def find() -> str:
        with catalog.connected(cloud.ports) as admin:
            return str(admin.identity.find_project("kubernetes").id)

    return await asyncio.to_thread(find)
