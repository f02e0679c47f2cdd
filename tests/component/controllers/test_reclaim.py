"""What becomes of a volume whose claim is gone: kept, deleted, or emptied for the next one."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from holdfast.api import kinds, views
from holdfast.testing import objects
from holdfast.testing.controlplane import ControlPlane, control_plane, phase_of
from holdfast.testing.objects import claim, reference, volume

Object = dict[str, Any]
COMPONENT = "persistentvolume-controller"
STALE = reference("c", "an-earlier-claim")
MIGRATED_TO = "pv.kubernetes.io/migrated-to"


@pytest.fixture
async def control(tmp_path: Path) -> AsyncIterator[ControlPlane]:
    async with control_plane(tmp_path) as running:
        yield running


@pytest.fixture
def below_tmp() -> Iterator[Path]:
    """A directory where Kubernetes' deleter of host paths is allowed to delete."""
    directory = Path(tempfile.mkdtemp(prefix="holdfast-reclaim-", dir="/tmp"))
    yield directory
    shutil.rmtree(directory, ignore_errors=True)


def released(name: str, policy: str, **fields: Any) -> Object:
    return volume(name, claimRef=STALE, persistentVolumeReclaimPolicy=policy, **fields)


def host_path(path: Path | str) -> Object:
    return {"hostPath": {"path": str(path)}}


async def bound(control: ControlPlane, policy: str, **fields: Any) -> Object:
    """A volume bound to a claim `c`; returns the claim."""
    await control.create(volume("v", persistentVolumeReclaimPolicy=policy, **fields))
    await control.create(claim("c"))
    return await control.phase(kinds.CLAIM, "c", "Bound")


# Retain


async def test_a_retained_volume_keeps_its_claim_and_serves_no_other(
    control: ControlPlane, tmp_path: Path
) -> None:
    data = tmp_path / "data"
    data.mkdir()
    (data / "file").write_text("precious")
    first = await bound(control, "Retain", source=host_path(data))
    await control.delete(kinds.CLAIM, "c")
    kept = await control.phase(kinds.VOLUME, "v", "Released")
    assert kept["spec"]["claimRef"]["uid"] == first["metadata"]["uid"]

    await control.create(claim("c"))
    await control.settled()
    assert phase_of(await control.client.get(kinds.CLAIM, "c", "default")) == "Pending"
    assert (data / "file").read_text() == "precious"
    assert await control.told("v") == []


@pytest.mark.parametrize(
    ("cleared", "reserved"),
    [
        pytest.param(None, False, id="the_whole_reference"),
        pytest.param({"uid": None, "resourceVersion": None}, True, id="only_the_uid"),
    ],
)
async def test_a_released_volume_is_used_again_after_clearing(
    control: ControlPlane, cleared: Object | None, reserved: bool
) -> None:
    await bound(control, "Retain")
    await control.delete(kinds.CLAIM, "c")
    await control.phase(kinds.VOLUME, "v", "Released")
    await control.patch(kinds.VOLUME, "v", {"spec": {"claimRef": cleared}})
    await control.phase(kinds.VOLUME, "v", "Available")
    await control.create(claim("stranger", storageClassName=""))
    if reserved:
        await control.settled()
        await control.create(claim("c"))
    name = "c" if reserved else "stranger"

    found = await control.phase(kinds.CLAIM, name, "Bound")
    again = await control.phase(kinds.VOLUME, "v", "Bound")
    assert again["spec"]["claimRef"]["uid"] == found["metadata"]["uid"]


async def test_a_volume_made_for_a_claim_that_is_gone_is_released_and_reclaimed_at_once(
    control: ControlPlane, below_tmp: Path
) -> None:
    data = below_tmp / "data"
    data.mkdir()
    await control.create(claim("c"))
    await control.create(released("kept", "Retain"))
    await control.create(released("deleted", "Delete", source=host_path(data)))

    await control.phase(kinds.VOLUME, "kept", "Released")
    await control.gone(kinds.VOLUME, "deleted")
    assert not data.exists()
    assert phase_of(await control.client.get(kinds.CLAIM, "c", "default")) == "Pending"


async def test_the_policy_that_counts_is_the_one_the_volume_has_then(
    control: ControlPlane, below_tmp: Path
) -> None:
    data = below_tmp / "data"
    data.mkdir()
    await bound(control, "Delete", source=host_path(data))
    await control.patch(kinds.VOLUME, "v", {"spec": {"persistentVolumeReclaimPolicy": "Retain"}})
    await control.delete(kinds.CLAIM, "c")
    await control.phase(kinds.VOLUME, "v", "Released")
    await control.settled()
    assert data.exists()

    await control.patch(kinds.VOLUME, "v", {"spec": {"persistentVolumeReclaimPolicy": "Delete"}})
    await control.gone(kinds.VOLUME, "v")
    assert not data.exists()


# Delete


def _source(kind: str, **fields: Any) -> Object:
    return {kind: fields}


NO_PLUGIN = 'error getting deleter volume plugin for volume "v": no volume plugin matched'
NOT_DELETABLE = (
    'error getting deleter volume plugin for volume "v": no deletable volume plugin matched'
)
AFFINITY: Object = {
    "required": {
        "nodeSelectorTerms": [
            {"matchExpressions": [{"key": "k", "operator": "In", "values": ["x"]}]}
        ]
    }
}


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        pytest.param({}, NOT_DELETABLE, id="nfs_can_only_be_recycled"),
        pytest.param(
            {"source": _source("local", path="/disks/1"), "nodeAffinity": AFFINITY},
            NO_PLUGIN,
            id="a_local_disk_is_nobodys_to_delete",
        ),
        pytest.param(
            {
                "source": _source(
                    "iscsi", targetPortal="t:1", iqn="iqn.2001-04.com.example:x", lun=0
                )
            },
            NO_PLUGIN,
            id="iscsi",
        ),
        pytest.param(
            {"source": host_path("/srv/important")},
            "host_path deleter only supports /tmp/.+ but received provided /srv/important",
            id="a_host_path_outside_tmp",
        ),
        pytest.param(
            {"source": host_path("/tmp")},
            "host_path deleter only supports /tmp/.+ but received provided /tmp",
            id="tmp_itself",
        ),
        pytest.param(
            {"annotations": {views.PROVISIONED_BY: "kubernetes.io/unheard-of"}},
            "no volume plugin matched name: kubernetes.io/unheard-of",
            id="made_by_an_unknown_plug_in",
        ),
    ],
)
async def test_deleting_fails_with_a_message_and_one_event_for(
    control: ControlPlane, fields: Object, message: str
) -> None:
    await control.create(released("v", "Delete", **fields))

    failed = await control.phase(kinds.VOLUME, "v", "Failed")
    assert failed["status"]["message"] == message
    assert "reason" not in failed["status"]
    told = await control.hears("v", "VolumeFailedDelete", message)
    assert (told.type, told.component) == ("Warning", COMPONENT)
    await control.patch(kinds.VOLUME, "v", {"spec": {"persistentVolumeReclaimPolicy": "Retain"}})
    await control.settled()
    assert phase_of(await control.client.get(kinds.VOLUME, "v")) == "Failed"


@pytest.mark.parametrize(
    "fields",
    [
        pytest.param(
            {"source": _source("csi", driver="csi.example.com", volumeHandle="1")}, id="csi"
        ),
        pytest.param(
            {"annotations": {views.PROVISIONED_BY: "stranger.example.com"}}, id="a_strangers_volume"
        ),
        pytest.param({"annotations": {MIGRATED_TO: "csi.example.com"}}, id="a_migrated_volume"),
    ],
)
async def test_storage_of_an_external_driver_is_left_to_it(
    control: ControlPlane, fields: Object
) -> None:
    await control.create(released("v", "Delete", **fields))
    await control.phase(kinds.VOLUME, "v", "Released")
    await control.settled()

    assert phase_of(await control.client.get(kinds.VOLUME, "v")) == "Released"
    assert await control.told("v") == []


@pytest.mark.parametrize(
    "source",
    [
        pytest.param(_source("cinder", volumeID="1"), id="cinder"),
        pytest.param(_source("vsphereVolume", volumePath="[ds] a.vmdk"), id="vsphere"),
        pytest.param(_source("gcePersistentDisk", pdName="d"), id="gce"),
    ],
)
async def test_a_static_volume_whose_plug_in_is_gone_cannot_be_deleted(
    control: ControlPlane, source: Object
) -> None:
    await control.create(released("v", "Delete", source=source))
    await control.phase(kinds.VOLUME, "v", "Failed")
    status = (await control.client.get(kinds.VOLUME, "v"))["status"]
    assert status["message"] == (
        'error getting deleter volume plugin for volume "v": no volume plugin matched'
    )


async def test_a_host_path_reached_through_a_link_out_of_tmp_is_not_deleted(
    control: ControlPlane, below_tmp: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    outside = Path(tempfile.mkdtemp(prefix="holdfast-reclaim-", dir="/var/tmp"))
    try:
        (outside / "data").mkdir()
        (below_tmp / "link").symlink_to(outside)
        await control.create(released("v", "Delete", source=host_path(below_tmp / "link/data")))
        await control.phase(kinds.VOLUME, "v", "Failed")
        assert (outside / "data").is_dir()
    finally:
        shutil.rmtree(outside)


async def test_a_deletion_that_fails_again_is_not_told_again(control: ControlPlane) -> None:
    await control.create(released("v", "Delete"))
    await control.phase(kinds.VOLUME, "v", "Failed")
    await asyncio.sleep(0.7)

    told = await control.hears("v", "VolumeFailedDelete", NOT_DELETABLE)
    assert told.count == 1


async def test_a_host_path_that_is_gone_already_is_deleted(control: ControlPlane) -> None:
    await control.create(released("v", "Delete", source=host_path("/tmp/holdfast-never-made")))

    await control.gone(kinds.VOLUME, "v")


# Recycle


def content(directory: Path) -> set[str]:
    return {path.name for path in directory.iterdir()}


async def test_a_recycled_volume_is_empty_and_goes_to_the_next_claim(
    control: ControlPlane, tmp_path: Path
) -> None:
    data, outside = tmp_path / "data", tmp_path / "outside"
    outside.mkdir()
    (outside / "kept").write_text("kept")
    (data / "deep/er").mkdir(parents=True)
    (data / "deep/er/file").write_text("x")
    (data / "deep/link").symlink_to(outside)
    (data / ".hidden").write_text("x")
    (data / "..also").write_text("x")
    (data / "link").symlink_to(outside)
    (data / "link-to-file").symlink_to(outside / "kept")
    await bound(control, "Recycle", source=host_path(data))
    await control.delete(kinds.CLAIM, "c")

    free = await control.phase(kinds.VOLUME, "v", "Available")
    assert "claimRef" not in free["spec"]
    assert content(data) == set()
    assert content(outside) == {"kept"}
    told = await control.hears("v", "VolumeRecycled", "Volume recycled")
    assert (told.type, told.component, told.count) == ("Normal", COMPONENT, 1)
    await control.create(claim("next"))
    await control.phase(kinds.CLAIM, "next", "Bound")


async def test_a_recycled_volume_its_author_reserved_stays_reserved(
    control: ControlPlane, tmp_path: Path
) -> None:
    data = tmp_path / "data"
    data.mkdir()
    await bound(control, "Recycle", source=host_path(data), claimRef=reference("c"))
    await control.delete(kinds.CLAIM, "c")

    free = await control.phase(kinds.VOLUME, "v", "Available")
    assert free["spec"]["claimRef"]["name"] == "c"
    assert not {"uid", "resourceVersion"} & set(free["spec"]["claimRef"])


async def test_a_volume_is_not_emptied_while_pods_use_the_claim(
    control: ControlPlane, tmp_path: Path
) -> None:
    data = tmp_path / "data"
    data.mkdir()
    (data / "file").write_text("in use")
    await control.create(objects.pod("p2", "c"))
    await control.create(objects.pod("p1", "c"))
    await control.create(objects.pod("done", "c"))
    await control.patch(kinds.POD, "done", {"status": {"phase": "Succeeded"}}, subresource="status")
    await control.settled()
    await control.create(released("v", "Recycle", source=host_path(data)))

    text = "Volume is used by pods: default/p1,default/p2"
    told = await control.hears("v", "VolumeFailedRecycle", text)
    assert told.type == "Normal"
    assert content(data) == {"file"}
    assert phase_of(await control.client.get(kinds.VOLUME, "v")) == "Released"

    # After the first retry the next is a whole second away: what follows is no retry.
    await asyncio.sleep(0.6)
    await control.delete(kinds.POD, "p1")
    await control.patch(kinds.POD, "p2", {"status": {"phase": "Failed"}}, subresource="status")
    await control.phase(kinds.VOLUME, "v", "Available", seconds=0.6)
    assert content(data) == set()


async def test_pods_of_a_new_claim_of_the_name_do_not_keep_the_volume(
    control: ControlPlane, tmp_path: Path
) -> None:
    data = tmp_path / "data"
    data.mkdir()
    await control.create(objects.pod("p", "c"))
    await control.settled()
    await control.create(released("v", "Recycle", source=host_path(data)))
    await control.hears("v", "VolumeFailedRecycle", "Volume is used by pods: default/p")

    await control.create(claim("c", "50Gi"))

    await control.phase(kinds.VOLUME, "v", "Available", seconds=1)


async def test_a_source_without_recycler_fails(control: ControlPlane) -> None:
    fields: Object = {"source": _source("local", path="/disks/1"), "nodeAffinity": AFFINITY}
    await control.create(released("v", "Recycle", **fields))

    failed = await control.phase(kinds.VOLUME, "v", "Failed")
    assert failed["status"]["message"] == "No recycler plugin found for the volume!"
    text = "No recycler plugin found for the volume!"
    assert (await control.hears("v", "VolumeFailedRecycle", text)).type == "Warning"


async def test_a_directory_of_the_operating_system_is_not_emptied(
    control: ControlPlane, tmp_path: Path
) -> None:
    (tmp_path / "link").symlink_to("/usr")
    await control.create(released("v", "Recycle", source=host_path(tmp_path / "link")))

    failed = await control.phase(kinds.VOLUME, "v", "Failed")
    message = failed["status"]["message"]
    assert message.startswith("Recycle failed: failed to recycle volume: /usr: ")
    assert (await control.hears("v", "VolumeFailedRecycle", message)).type == "Warning"


async def test_recycling_is_tried_again_until_it_succeeds(
    control: ControlPlane, tmp_path: Path
) -> None:
    data = tmp_path / "data"
    data.write_text("a file in the directory's place")
    await control.create(released("v", "Recycle", source=host_path(data)))
    await control.phase(kinds.VOLUME, "v", "Failed")

    data.unlink()
    data.mkdir()

    free = await control.phase(kinds.VOLUME, "v", "Available")
    assert "message" not in free["status"]


@pytest.mark.root
async def test_a_volume_with_something_mounted_in_it_is_left_alone(
    control: ControlPlane, tmp_path: Path
) -> None:
    data, other = tmp_path / "data", tmp_path / "other"
    (data / "deep").mkdir(parents=True)
    other.mkdir()
    (other / "file").write_text("kept")
    (data / "file").write_text("kept")
    run = await asyncio.create_subprocess_exec("mount", "--bind", other, data / "deep")
    assert await run.wait() == 0
    try:
        await control.create(released("v", "Recycle", source=host_path(data)))
        await control.phase(kinds.VOLUME, "v", "Failed")
        assert (content(other), content(data)) == ({"file"}, {"file", "deep"})
    finally:
        run = await asyncio.create_subprocess_exec("umount", data / "deep")
        assert await run.wait() == 0


# The migration annotation


async def test_a_volume_of_a_migrated_plug_in_says_which_driver_stands_in(
    control: ControlPlane,
) -> None:
    made_by = {views.PROVISIONED_BY: "kubernetes.io/cinder"}
    made = released("v", "Delete", source=_source("cinder", volumeID="1"), annotations=made_by)
    made["metadata"]["finalizers"] = ["kubernetes.io/pv-controller"]
    await control.create(made)

    marked = await control.until(
        kinds.VOLUME, "v", lambda v: MIGRATED_TO in v["metadata"]["annotations"]
    )
    assert marked["metadata"]["annotations"][MIGRATED_TO] == "cinder.csi.openstack.org"
    assert "kubernetes.io/pv-controller" not in marked["metadata"]["finalizers"]
    await control.phase(kinds.VOLUME, "v", "Released")
