"""Volumes, snapshots and errors of a real Cinder, as a plain member of a project."""

from __future__ import annotations

import asyncio
import base64
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from holdfast.backends import errors
from holdfast.backends.cinder import attaching, clouds
from holdfast.backends.cinder.backend import CinderBackend
from holdfast.backends.protocol import VolumeRequest, VolumeSource
from servers.openstack import catalog
from servers.openstack.cloud import CINDER, KEYSTONE, Cloud

pytestmark = [pytest.mark.e2e, pytest.mark.root, pytest.mark.timeout(400)]

GIB = 1 << 30


def request(size: int = 1, type_: str = "file", **more: Any) -> VolumeRequest:
    """A request under a name of its own."""
    parameters = {"type": type_, **more.pop("parameters", {})}
    name = more.pop("name", None) or f"pvc-{uuid.uuid4()}"
    return VolumeRequest(name, size * GIB, parameters, ("ReadWriteOnce",), **more)


async def test_a_volume_is_made_found_again_and_removed(backend: CinderBackend) -> None:
    asked = request(2)
    made = await backend.create_volume(asked)
    assert made.size == 2 * GIB
    assert made.topology == {"topology.cinder.csi.openstack.org/zone": "nova"}
    assert await backend.create_volume(asked) == made
    assert await backend.find_volume(asked) == made
    assert made in (await backend.list_volumes()).volumes
    await backend.delete_volume(made.id)
    await backend.delete_volume(made.id)
    assert await backend.find_volume(asked) is None
    with pytest.raises(errors.NotFound):
        await backend.get_volume(made.id)


async def test_a_name_that_is_taken_by_a_different_volume_is_refused(
    backend: CinderBackend,
) -> None:
    asked = request()
    made = await backend.create_volume(asked)
    with pytest.raises(errors.AlreadyExists, match="size is 1Gi, not 2Gi"):
        await backend.create_volume(request(2, name=asked.name))
    await backend.delete_volume(made.id)


async def test_a_stranger_of_the_same_name_is_left_alone(
    backend: CinderBackend, openstack_cloud: Cloud
) -> None:
    asked = request()
    with catalog.connected(openstack_cloud.ports, admin=False) as member:
        stranger = member.block_storage.create_volume(name=asked.name, size=1, volume_type="file")
        with pytest.raises(errors.AlreadyExists, match="was not made by Holdfast"):
            await backend.create_volume(asked)
        assert member.block_storage.get_volume(stranger.id).status in ("creating", "available")
        member.block_storage.wait_for_status(stranger, "available", ["error"], 0.2, 20)
        member.block_storage.delete_volume(stranger)


async def test_of_two_volumes_that_a_lost_answer_left_the_oldest_stays(
    backend: CinderBackend, openstack_cloud: Cloud
) -> None:
    asked = request()
    first = await backend.create_volume(asked)
    with catalog.connected(openstack_cloud.ports, admin=False) as member:
        original = member.block_storage.get_volume(first.id)
        twins = [
            member.block_storage.create_volume(
                name=asked.name, size=1, volume_type="file", metadata=another_try(original)
            ).id
            for _ in range(2)
        ]
        assert (await backend.create_volume(asked)).id == first.id
        left = {each.id for each in member.block_storage.volumes(name=asked.name)}
        assert left == {first.id}
        assert not left & set(twins)
        member.block_storage.create_volume(
            name=asked.name, size=1, volume_type="file", metadata=another_try(original)
        )
        await backend.delete_volume(first.id)
        assert not list(member.block_storage.volumes(name=asked.name))


async def test_a_copy_that_a_backup_was_restored_to_outlives_the_volume(
    backend: CinderBackend, openstack_cloud: Cloud
) -> None:
    asked = request()
    made = await backend.create_volume(asked)
    with catalog.connected(openstack_cloud.ports, admin=False) as member:
        # Restoring, Cinder gives the copy the name and the metadata of the volume it was of.
        original = member.block_storage.get_volume(made.id)
        copy = member.block_storage.create_volume(
            name=asked.name, size=1, volume_type="file", metadata=dict(original.metadata)
        )
        member.block_storage.wait_for_status(copy, "available", ["error"], 0.2, 20)
        assert (await backend.create_volume(asked)).id == made.id
        await backend.delete_volume(made.id)
        assert [each.id for each in member.block_storage.volumes(name=asked.name)] == [copy.id]
        member.block_storage.delete_volume(copy)


async def test_a_snapshot_that_a_lost_answer_left_goes_with_the_one_that_is_known(
    backend: CinderBackend, openstack_cloud: Cloud
) -> None:
    volume = await backend.create_volume(request())
    taken = await backend.create_snapshot(f"snapshot-{uuid.uuid4()}", volume.id)
    with catalog.connected(openstack_cloud.ports, admin=False) as member:
        original = member.block_storage.get_snapshot(taken.id)
        twin = member.block_storage.create_snapshot(
            volume_id=volume.id, name=original.name, metadata=another_try(original)
        )
        member.block_storage.wait_for_status(twin, "available", ["error"], 0.2, 20)
    await backend.delete_snapshot(taken.id)
    # Cinder refuses to delete a volume that has a snapshot left.
    await backend.delete_volume(volume.id)


def another_try(record: Any) -> dict[str, str]:
    """The marks of a volume or snapshot that a second request made under the same name."""
    return {**record.metadata, "holdfast.dev/try": "another"}


async def test_snapshots_are_taken_restored_and_keep_their_volume_from_going(
    backend: CinderBackend,
) -> None:
    volume = await backend.create_volume(request())
    name = f"snapshot-{uuid.uuid4()}"
    taken = await backend.create_snapshot(name, volume.id)
    assert taken.ready and taken.source == volume.id and taken.size == GIB
    assert await backend.create_snapshot(name, volume.id) == taken
    assert taken in (await backend.list_snapshots()).snapshots
    with pytest.raises(errors.Conflict, match=f"has snapshots.*{name}"):
        await backend.delete_volume(volume.id)
    source = VolumeSource("snapshot", taken.id)
    restored = await backend.create_volume(request(2, source=source))
    assert restored.size == 2 * GIB
    with pytest.raises(errors.Invalid, match="asked for"):
        await backend.create_volume(
            request(1, source=VolumeSource("volume", restored.id)),
        )
    copy = await backend.create_volume(request(3, source=VolumeSource("volume", volume.id)))
    await backend.delete_snapshot(taken.id)
    await backend.delete_snapshot(taken.id)
    for each in (volume, restored, copy):
        await backend.delete_volume(each.id)


@pytest.mark.parametrize("legacy", [False, True])
async def test_a_volume_that_was_only_begun_to_be_attached_can_be_deleted(
    backend: CinderBackend,
    openstack_cloud: Cloud,
    monkeypatch: pytest.MonkeyPatch,
    legacy: bool,
) -> None:
    monkeypatch.setattr(attaching, "SETTLE_SECONDS", 1.0)
    volume = await backend.create_volume(request())
    with catalog.connected(openstack_cloud.ports, admin=False) as member:
        if legacy:
            # What a Nova from before 2018 does first.
            member.block_storage.reserve_volume(volume.id)
        else:
            member.block_storage.create_attachment(volume.id)
        status = member.block_storage.get_volume(volume.id).status
        assert status == ("attaching" if legacy else "reserved")
    await backend.delete_volume(volume.id)
    assert volume not in (await backend.list_volumes()).volumes


async def test_a_volume_grows_and_never_shrinks(backend: CinderBackend) -> None:
    volume = await backend.create_volume(request())
    grown = await backend.expand(volume.id, 3 * GIB)
    assert grown.size == 3 * GIB and grown.node_expansion
    assert (await backend.expand(volume.id, 2 * GIB)).size == 3 * GIB
    await backend.delete_volume(volume.id)


async def test_a_class_that_no_backend_fits_says_why_and_leaves_nothing(
    backend: CinderBackend, openstack_cloud: Cloud
) -> None:
    for asked in (request(type_="nowhere"), request(9, "tight", parameters=zone("zone-b"))):
        with pytest.raises(errors.Exhausted, match="no storage backend fits") as refused:
            await backend.create_volume(asked)
        assert "weighed backends" in str(refused.value) or "schedule" in str(refused.value)
        assert await backend.find_volume(asked) is None


async def test_an_unknown_type_and_an_unknown_zone_are_named(backend: CinderBackend) -> None:
    with pytest.raises(errors.NotFound, match=r'no volume type "fileX".*there are: .*file'):
        await backend.create_volume(request(type_="fileX"))
    with pytest.raises(errors.Invalid, match=r"mars.*in the class can be: .*nova"):
        await backend.create_volume(request(parameters=zone("mars")))
    elsewhere = {"topology.cinder.csi.openstack.org/zone": "mars"}
    with pytest.raises(errors.Invalid, match=r"Cinder has .*nova.*ignore-volume-az = yes"):
        await backend.create_volume(request(topology=elsewhere))
    with pytest.raises(errors.Invalid, match='did you mean "availability"'):
        await backend.create_volume(request(parameters={"availabilty": "nova"}))


async def test_a_full_quota_is_told_with_its_numbers_and_ends_when_there_is_room(
    backend: CinderBackend, openstack_cloud: Cloud
) -> None:
    used = len((await backend.list_volumes()).volumes)
    asked = request()
    with catalog.connected(openstack_cloud.ports, admin=False) as member:
        all_of_them = len(list(member.block_storage.volumes()))
    assert used <= all_of_them
    catalog.set_quota(openstack_cloud.ports, volumes=all_of_them)
    try:
        with pytest.raises(errors.Exhausted, match=rf"allowed \({all_of_them}\)"):
            await backend.create_volume(asked)
    finally:
        catalog.set_quota(openstack_cloud.ports, volumes=200)
    made = await backend.create_volume(asked)
    await backend.delete_volume(made.id)


async def test_capacity_is_the_quotas_for_a_member(backend: CinderBackend) -> None:
    room = await backend.capacity({"type": "file"})
    assert room.total == 1000 * GIB
    assert 0 < room.available <= room.total


async def test_many_nodes_need_a_type_that_allows_it(backend: CinderBackend) -> None:
    shared = ("ReadWriteMany",)
    plain = VolumeRequest("pvc-many", GIB, {"type": "file"}, shared, "Block")
    with pytest.raises(errors.Invalid, match="one server at a time"):
        await backend.create_volume(plain)
    mounted = VolumeRequest("pvc-many", GIB, {"type": "shared"}, shared)
    with pytest.raises(errors.Invalid, match="volumeMode: Block"):
        await backend.create_volume(mounted)
    good = VolumeRequest(f"pvc-{uuid.uuid4()}", GIB, {"type": "shared"}, shared, "Block")
    many = await backend.create_volume(good)
    await backend.check_use(many, VolumeRequest("", GIB, {}, shared, "Block"))
    with pytest.raises(errors.Invalid, match="would destroy it"):
        await backend.check_use(many, VolumeRequest("", GIB, {}, shared, "Filesystem"))
    single = await backend.create_volume(request())
    await backend.check_use(single, VolumeRequest("", GIB, {}, ("ReadWriteOnce",), "Filesystem"))
    with pytest.raises(errors.Invalid, match="one server at a time"):
        await backend.check_use(single, VolumeRequest("", GIB, {}, shared, "Block"))
    for each in (many, single):
        await backend.delete_volume(each.id)


async def test_cinder_killed_in_the_middle_of_a_creation_leaves_nothing(
    backend: CinderBackend, openstack_cloud: Cloud
) -> None:
    asked = request()
    files = openstack_cloud.files()
    with openstack_cloud.held():
        making = asyncio.create_task(backend.create_volume(asked))
        await until_creating(backend, asked)
        await asyncio.to_thread(openstack_cloud.kill_service, CINDER)
        with pytest.raises(errors.Unavailable, match="did not answer"):
            await making
    await asyncio.to_thread(openstack_cloud.restart, CINDER)
    await finally_made_and_removed(backend, asked)
    assert openstack_cloud.files() == files


async def test_cinder_killed_in_the_middle_of_a_clone_leaves_nothing(
    backend: CinderBackend, openstack_cloud: Cloud
) -> None:
    files = openstack_cloud.files()
    origin = await backend.create_volume(request())
    asked = request(source=VolumeSource("volume", origin.id))
    with openstack_cloud.held():
        making = asyncio.create_task(backend.create_volume(asked))
        await until_creating(backend, asked)
        await asyncio.to_thread(openstack_cloud.kill_service, CINDER)
        with pytest.raises(errors.Unavailable):
            await making
    await asyncio.to_thread(openstack_cloud.restart, CINDER)
    await finally_made_and_removed(backend, asked)
    await backend.delete_volume(origin.id)
    assert openstack_cloud.files() == files


async def test_while_keystone_is_down_the_error_says_so_and_later_all_is_well(
    new_backend: Callable[..., CinderBackend], openstack_cloud: Cloud
) -> None:
    backend = new_backend()
    asked = request()
    await asyncio.to_thread(openstack_cloud.kill_service, KEYSTONE)
    with pytest.raises(errors.Unavailable, match="did not answer"):
        await backend.create_volume(asked)
    findings = await backend.checks()
    assert [each.severity for each in findings] == ["error"]
    await asyncio.to_thread(openstack_cloud.restart, KEYSTONE)
    made = await backend.create_volume(asked)
    await backend.delete_volume(made.id)


async def test_a_token_that_is_revoked_in_the_middle_is_replaced_unseen(
    backend: CinderBackend, openstack_cloud: Cloud
) -> None:
    made = await backend.create_volume(request())
    cloud = backend._clouds.choose("", {})

    def revoke(endpoint: Any) -> str:
        session = endpoint._connection.session
        token = session.get_token()
        session.delete(
            f"{openstack_cloud.ports.auth_url}/auth/tokens", headers={"X-Subject-Token": token}
        )
        return str(token)

    await cloud.run(revoke)
    # Cinder remembers a good token for a few seconds; afterwards it answers 401.
    await asyncio.sleep(6)
    await backend.delete_volume(made.id)
    with pytest.raises(errors.NotFound):
        await backend.get_volume(made.id)


async def test_a_new_password_in_cloud_conf_is_used_without_a_restart(
    new_backend: Callable[..., CinderBackend], openstack_cloud: Cloud, tmp_path: Path
) -> None:
    conf = tmp_path / "cloud.conf"
    good = openstack_cloud.cloud_conf.read_text()
    conf.write_text(good.replace("k8s-password", "not-the-password"))
    backend = new_backend(cloud_conf=str(conf))
    with pytest.raises(errors.Unauthorized, match="login was refused") as refused:
        await backend.list_volumes()
    assert "not-the-password" not in str(refused.value)
    conf.write_text(good)
    await backend.list_volumes()


async def test_a_volume_is_not_taken_for_deleted_because_nobody_could_be_asked(
    new_backend: Callable[..., CinderBackend], openstack_cloud: Cloud, tmp_path: Path
) -> None:
    conf = tmp_path / "cloud.conf"
    text = openstack_cloud.cloud_conf.read_text()
    conf.write_text(text)
    backend = new_backend(cloud_conf=str(conf))
    asked = request()
    made = await backend.create_volume(asked)
    server = str(uuid.uuid4())
    for wrong, reason in (
        (text.replace("RegionOne", "RegionTwo"), "no Cinder for this region"),
        (text.replace("tenant-id", "tenand-id"), "did you mean tenant-id"),
        (None, "cannot be read"),
    ):
        conf.unlink()
        if wrong is not None:
            conf.write_text(wrong)
        await asyncio.sleep(clouds.LOOK_SECONDS + 0.1)
        refused = await asyncio.gather(
            backend.delete_volume(made.id),
            backend.detach(made.id, server),
            backend.find_volume(asked),
            return_exceptions=True,
        )
        for error in refused:
            assert isinstance(error, errors.BackendError) and error.retryable, error
            assert reason in str(error)
        assert (await backend.node_state(server)).power == "unknown"
    conf.write_text(text)
    await asyncio.sleep(clouds.LOOK_SECONDS + 0.1)
    assert await backend.find_volume(asked) == made
    await backend.delete_volume(made.id)


async def test_a_password_in_secure_yaml_is_used_as_soon_as_it_changes(
    new_backend: Callable[..., CinderBackend], openstack_cloud: Cloud, tmp_path: Path
) -> None:
    found = yaml.safe_load(openstack_cloud.clouds_yaml.read_text())["clouds"]["k8s"]
    password = found["auth"].pop("password")
    (tmp_path / "clouds.yaml").write_text(yaml.safe_dump({"clouds": {"k8s": found}}))
    secure = tmp_path / "secure.yaml"
    secure.write_text("clouds: {k8s: {auth: {password: old}}}")
    backend = new_backend(clouds_yaml=str(tmp_path / "clouds.yaml"), cloud="k8s")
    asked = request()
    with pytest.raises(errors.Unauthorized):
        await backend.find_volume(asked)
    secure.write_text(f"clouds: {{k8s: {{auth: {{password: {password}}}}}}}")
    await asyncio.sleep(clouds.LOOK_SECONDS + 0.1)
    assert await backend.find_volume(asked) is None


async def test_a_trust_opens_the_project_of_the_one_who_gave_it(
    new_backend: Callable[..., CinderBackend], openstack_cloud: Cloud, tmp_path: Path
) -> None:
    catalog.write_stranger_conf(openstack_cloud.ports, tmp_path / "stranger.conf")
    conf = tmp_path / "cloud.conf"
    conf.write_text(catalog.trusted_conf(openstack_cloud.ports))
    backend = new_backend(cloud_conf=str(conf))
    made = await backend.create_volume(request())
    with catalog.connected(openstack_cloud.ports, admin=False) as member:
        assert member.block_storage.get_volume(made.id).status == "available"
    await backend.delete_volume(made.id)


async def test_a_cloud_conf_in_a_secret_serves_a_class_without_any_configuration(
    openstack_cloud: Cloud, tmp_path: Path
) -> None:
    backend = CinderBackend({}, tmp_path)
    text = openstack_cloud.cloud_conf.read_text()
    secrets = {"cloud.conf": text}
    try:
        with pytest.raises(errors.Invalid, match=r"\[cinder.default\] with cloud_conf"):
            await backend.create_volume(request())
        made = await backend.create_volume(request(secrets=secrets))
        await backend.delete_volume(made.id, secrets=secrets)
        twice = {"cloud.conf": base64.b64encode(text.encode()).decode()}
        with pytest.raises(errors.Invalid, match="encoded twice"):
            await backend.create_volume(request(secrets=twice))
    finally:
        await backend.close()


async def test_clouds_yaml_and_an_application_credential_open_the_same_cloud(
    new_backend: Callable[..., CinderBackend], openstack_cloud: Cloud, tmp_path: Path
) -> None:
    by_yaml = new_backend(clouds_yaml=str(openstack_cloud.clouds_yaml), cloud="k8s")
    made = await by_yaml.create_volume(request())
    with catalog.connected(openstack_cloud.ports, admin=False) as member:
        user = member.session.get_user_id()
        credential = member.identity.create_application_credential(user, "holdfast-test")
        conf = tmp_path / "credential.conf"
        conf.write_text(
            f"[Global]\nauth-url={openstack_cloud.ports.auth_url}\n"
            f"application-credential-id={credential.id}\n"
            f"application-credential-secret={credential.secret}\nregion=RegionOne\n"
        )
        by_credential = new_backend(cloud_conf=str(conf))
        assert (await by_credential.get_volume(made.id)).id == made.id
        await by_credential.delete_volume(made.id)
        member.identity.delete_application_credential(user, credential)


async def test_forty_waiters_share_their_polls(backend: CinderBackend) -> None:
    asked = [request() for _ in range(12)]
    made = await asyncio.gather(*(backend.create_volume(each) for each in asked))
    assert len({each.id for each in made}) == 12
    polls = backend.calls["Cinder GET volumes/detail"] - 12
    single = backend.calls.get("Cinder GET volumes/ID", 0)
    assert polls + single < 2 * 12
    await asyncio.gather(*(backend.delete_volume(each.id) for each in made))


async def test_checks_of_a_good_cloud_find_no_error(backend: CinderBackend) -> None:
    found = await backend.checks()
    assert not [each for each in found if each.severity == "error"]
    assert {"login", "catalogue", "versions", "attaching", "quota", "volume types", "zones"} <= {
        each.check for each in found
    }
    bad = await backend.check_class({"type": "file", "availability": "mars"}, {})
    assert [each.what for each in bad if each.severity == "error"] == [
        'Cinder has no availability zone "mars"'
    ]


def zone(name: str) -> dict[str, str]:
    """The parameter that chooses a zone."""
    return {"availability": name}


async def until_creating(backend: CinderBackend, asked: VolumeRequest) -> None:
    """Wait until Cinder has begun with the request's volume."""
    for _ in range(200):
        found = await backend.find_volume(asked)
        if found is not None and found.context.get("status") == "creating":
            # The volume service has it by then, too.
            await asyncio.sleep(0.5)
            return
        await asyncio.sleep(0.05)
    raise AssertionError("Cinder did not begin")


async def finally_made_and_removed(backend: CinderBackend, asked: VolumeRequest) -> None:
    """Repeat the creation as the controllers do, until it works; then remove the volume."""
    for _ in range(20):
        try:
            made = await backend.create_volume(asked)
            break
        except (errors.Unavailable, errors.Conflict, errors.Exhausted):
            await asyncio.sleep(1)
    else:
        raise AssertionError("the volume was never made")
    assert made.context["fsType"] == "ext4"
    await backend.delete_volume(made.id)
    assert await backend.find_volume(asked) is None
