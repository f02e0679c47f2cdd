"""Claims that name their volume, pairs that lose each other, and volumes claimed twice."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from holdfast.api import kinds, views
from holdfast.testing.controlplane import ControlPlane, control_plane, phase_of
from holdfast.testing.objects import ROX, claim, reference, storage_class, volume

Object = dict[str, Any]
COMPONENT = "persistentvolume-controller"
LAZY: Object = {"volumeBindingMode": "WaitForFirstConsumer"}


@pytest.fixture
async def control(tmp_path: Path) -> AsyncIterator[ControlPlane]:
    async with control_plane(tmp_path) as running:
        yield running


def labelled(**labels: str) -> Object:
    return {"matchLabels": labels}


@pytest.mark.parametrize(
    ("the_volume", "wanted", "text"),
    [
        pytest.param(
            volume("v"),
            claim("c", "2Gi", volumeName="v"),
            "requested PV is too small",
            id="too_small",
        ),
        pytest.param(
            volume("v", storageClassName="s"),
            claim("c", volumeName="v"),
            "storageClassName does not match",
            id="of_another_class",
        ),
        pytest.param(
            volume("v", volumeMode="Block"),
            claim("c", volumeName="v"),
            "incompatible volumeMode",
            id="of_another_volume_mode",
        ),
        pytest.param(
            volume("v", modes=[ROX]),
            claim("c", volumeName="v"),
            "incompatible accessMode",
            id="without_the_access_mode",
        ),
        pytest.param(
            volume("v", modes=[ROX], volumeMode="Block", storageClassName="s"),
            claim("c", "2Gi", volumeName="v"),
            "requested PV is too small",
            id="wrong_in_every_way_tells_the_size_first",
        ),
    ],
)
async def test_a_named_volume_is_refused_when_it_is(
    control: ControlPlane, the_volume: Object, wanted: Object, text: str
) -> None:
    await control.create(the_volume)
    await control.create(wanted)

    told = await control.hears(
        "c", "VolumeMismatch", f'Cannot bind to requested volume "v": {text}'
    )
    assert (told.type, told.component) == ("Warning", COMPONENT)
    await control.settled()
    found = await control.find(kinds.CLAIM, "c")
    free = await control.find(kinds.VOLUME, "v")
    assert found is not None
    assert free is not None
    assert (phase_of(found), phase_of(free)) == ("Pending", "Available")
    assert "claimRef" not in free["spec"]


async def test_a_named_volume_that_is_being_deleted_is_refused(control: ControlPlane) -> None:
    doomed = volume("v")
    doomed["metadata"]["finalizers"] = ["example.com/hold"]
    await control.create(doomed)
    await control.delete(kinds.VOLUME, "v")
    await control.create(claim("c", volumeName="v"))

    text = 'Cannot bind to requested volume "v": the volume is marked for deletion "v"'
    await control.hears("c", "VolumeMismatch", text)


async def test_a_named_volume_may_be_fractions_of_a_byte_too_small(control: ControlPlane) -> None:
    await control.create(volume("v", "1500m"))
    await control.create(claim("c", "1900m", volumeName="v"))

    await control.phase(kinds.CLAIM, "c", "Bound")


async def test_a_refused_claim_is_bound_as_soon_as_its_volume_is_put_right(
    control: ControlPlane,
) -> None:
    await control.create(volume("v"))
    await control.create(claim("c", "2Gi", volumeName="v"))
    text = 'Cannot bind to requested volume "v": requested PV is too small'
    await control.hears("c", "VolumeMismatch", text)

    await control.patch(kinds.VOLUME, "v", {"spec": {"capacity": {"storage": "2Gi"}}})

    await control.phase(kinds.CLAIM, "c", "Bound", seconds=1)


async def test_a_named_volume_needs_no_selector_and_no_consumer(control: ControlPlane) -> None:
    await control.create(storage_class("lazy", "example.com/x", **LAZY))
    await control.create(volume("v", storageClassName="lazy"))
    wanted = claim("c", volumeName="v", storageClassName="lazy", selector=labelled(t="x"))
    await control.create(wanted)

    await control.phase(kinds.CLAIM, "c", "Bound")


async def test_a_named_volume_reserved_for_the_claim_is_bound_unchecked(
    control: ControlPlane,
) -> None:
    await control.create(volume("v", claimRef=reference("c"), storageClassName="s", modes=[ROX]))
    await control.create(claim("c", "5Gi", volumeName="v"))

    found = await control.phase(kinds.CLAIM, "c", "Bound")
    assert found["status"]["capacity"] == {"storage": "1Gi"}


async def test_a_named_volume_that_is_missing_keeps_the_claim_pending_until_it_comes(
    control: ControlPlane,
) -> None:
    await control.create(claim("c", volumeName="v"))
    await control.settled()
    assert await control.told("c") == []

    await control.create(volume("v"))

    await control.phase(kinds.CLAIM, "c", "Bound", seconds=1)


async def test_a_named_volume_of_another_claim_is_told_and_bound_once_it_is_free(
    control: ControlPlane,
) -> None:
    await control.create(volume("v"))
    await control.create(claim("first"))
    await control.phase(kinds.CLAIM, "first", "Bound")
    await control.create(claim("second", volumeName="v"))

    text = 'volume "v" already bound to a different claim.'
    told = await control.hears("second", "FailedBinding", text)
    assert (told.type, told.component) == ("Warning", COMPONENT)

    await control.delete(kinds.CLAIM, "first")
    await control.phase(kinds.VOLUME, "v", "Released")
    await control.patch(kinds.VOLUME, "v", {"spec": {"claimRef": None}})
    await control.phase(kinds.CLAIM, "second", "Bound", seconds=1)


async def test_a_claim_whose_volume_is_deleted_is_lost_and_found_again(
    control: ControlPlane,
) -> None:
    await control.create(volume("v", "5Gi"))
    await control.create(claim("c", "3Gi"))
    await control.phase(kinds.CLAIM, "c", "Bound")
    await control.delete(kinds.VOLUME, "v")
    await control.patch(kinds.VOLUME, "v", {"metadata": {"finalizers": None}})

    lost = await control.phase(kinds.CLAIM, "c", "Lost", seconds=1)
    assert lost["status"] == {"phase": "Lost"}
    text = "Bound claim has lost its PersistentVolume. Data on the volume is lost!"
    told = await control.hears("c", "ClaimLost", text)
    assert (told.type, told.component) == ("Warning", COMPONENT)

    # Whatever its size: a claim that was bound is not judged again.
    await control.create(volume("v", "1Gi"))
    found = await control.phase(kinds.CLAIM, "c", "Bound", seconds=1)
    assert found["status"]["capacity"] == {"storage": "1Gi"}
    await control.settled()
    assert (await control.hears("c", "ClaimLost", text)).count == 1


async def test_a_claim_said_to_be_bound_without_a_volume_is_lost(control: ControlPlane) -> None:
    await control.create(claim("c", annotations={views.BIND_COMPLETED: "yes"}))

    await control.phase(kinds.CLAIM, "c", "Lost")
    text = "Bound claim has lost reference to PersistentVolume. Data on the volume is lost!"
    await control.hears("c", "ClaimLost", text)


async def test_a_claim_bound_to_anothers_volume_is_misbound(control: ControlPlane) -> None:
    await control.create(volume("v"))
    await control.create(claim("right"))
    await control.phase(kinds.CLAIM, "right", "Bound")
    wrong = claim("wrong", annotations={views.BIND_COMPLETED: "yes"}, volumeName="v")
    await control.create(wrong)

    await control.phase(kinds.CLAIM, "wrong", "Lost")
    text = "Two claims are bound to the same volume, this one is bound incorrectly"
    told = await control.hears("wrong", "ClaimMisbound", text)
    assert told.type == "Warning"
    await control.phase(kinds.CLAIM, "right", "Bound")


async def test_a_claim_bound_by_hand_on_both_sides_gets_its_phases(control: ControlPlane) -> None:
    made = await control.create(
        claim("c", annotations={views.BIND_COMPLETED: "by hand"}, volumeName="v")
    )
    await control.phase(kinds.CLAIM, "c", "Lost")
    await control.create(volume("v", claimRef=reference("c", made["metadata"]["uid"])))

    found = await control.phase(kinds.CLAIM, "c", "Bound")
    await control.phase(kinds.VOLUME, "v", "Bound")
    assert found["metadata"]["annotations"] == {views.BIND_COMPLETED: "by hand"}


async def test_a_volume_claimed_with_the_wrong_volume_mode_is_told_on_both_sides(
    control: ControlPlane,
) -> None:
    made = await control.create(claim("c"))
    taken = volume("v", volumeMode="Block", claimRef=reference("c", made["metadata"]["uid"]))
    await control.create(taken)

    on_volume = (
        'Cannot bind PersistentVolume to requested PersistentVolumeClaim "c" '
        "due to incompatible volumeMode."
    )
    on_claim = (
        'Cannot bind PersistentVolume "v" to requested PersistentVolumeClaim '
        "due to incompatible volumeMode."
    )
    assert (await control.hears("v", "VolumeMismatch", on_volume)).type == "Warning"
    assert (await control.hears("c", "VolumeMismatch", on_claim)).type == "Warning"


async def test_a_second_volume_of_a_bound_claim_is_given_back(control: ControlPlane) -> None:
    await control.create(volume("v"))
    made = await control.create(claim("c"))
    await control.phase(kinds.CLAIM, "c", "Bound")
    uid = made["metadata"]["uid"]
    mark = {views.BOUND_BY_CONTROLLER: "yes"}
    await control.create(volume("found", claimRef=reference("c", uid), annotations=mark))
    await control.create(volume("kept", claimRef=reference("c", uid)))

    free = await control.phase(kinds.VOLUME, "found", "Available")
    assert "claimRef" not in free["spec"]
    assert views.BOUND_BY_CONTROLLER not in (free["metadata"].get("annotations") or {})
    kept = await control.phase(kinds.VOLUME, "kept", "Available")
    assert kept["spec"]["claimRef"]["name"] == "c"
    assert "uid" not in kept["spec"]["claimRef"]


async def test_a_volume_pointing_at_a_waiting_claim_is_let_go_when_the_claim_takes_another(
    control: ControlPlane,
) -> None:
    made = await control.create(claim("c", volumeName="wanted"))
    uid = made["metadata"]["uid"]
    await control.create(volume("other", claimRef=reference("c", uid)))
    await control.create(volume("wanted"))

    await control.phase(kinds.CLAIM, "c", "Bound")
    other = await control.phase(kinds.VOLUME, "other", "Available")
    assert "uid" not in other["spec"]["claimRef"]


async def test_a_claim_without_volume_and_class_says_so_and_waits(control: ControlPlane) -> None:
    await control.create(claim("c"))

    text = "no persistent volumes available for this claim and no storage class is set"
    told = await control.hears("c", "FailedBinding", text)
    assert (told.type, told.component) == ("Normal", COMPONENT)
