"""The backend fails, or the claim changes its mind, while a volume is made or deleted."""

from __future__ import annotations

import asyncio
import dataclasses
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from holdfast.api import kinds, views
from holdfast.backends import errors
from holdfast.backends.protocol import Volume, VolumeRequest
from holdfast.testing.controlplane import NODE, ControlPlane, control_plane, eventually, phase_of
from holdfast.testing.objects import RWO, claim, reference, storage_class, volume

Object = dict[str, Any]
BINDER = "persistentvolume-controller"
LOCAL = "local.holdfast.dev"
HOST_PATH = "kubernetes.io/host-path"
IN_DIRECTORIES: Object = {"parameters": {"layout": "directory"}}
FINALIZER = "holdfast.dev/provisioning"
EXTERNAL_FINALIZER = "external-provisioner.volume.kubernetes.io/finalizer"
IN_TREE_FINALIZER = "kubernetes.io/pv-controller"
INFEASIBLE = "Volume provisioning failed with infeasible error. Retries will be delayed. "
WAITING = (
    "Waiting for a volume to be created either by the external provisioner '{}' or manually by "
    "the system administrator. If volume creation is delayed, please verify that the provisioner "
    "is running and correctly registered."
)


@pytest.fixture
async def control(tmp_path: Path) -> AsyncIterator[ControlPlane]:
    async with control_plane(tmp_path) as running:
        yield running


def local_class(name: str = "std", **fields: Any) -> Object:
    return storage_class(name, LOCAL, **{**IN_DIRECTORIES, **fields})


def wanted(name: str = "c", size: str = "1Gi", **spec: Any) -> Object:
    return claim(name, size, storageClassName=spec.pop("storageClassName", "std"), **spec)


async def volume_of(control: ControlPlane, found: Object) -> Object:
    return await control.client.get(kinds.VOLUME, found["spec"]["volumeName"])


def _host(name: str) -> dict[str, str]:
    return {"kubernetes.io/hostname": name}


def _selected(node: str) -> Object:
    return {"metadata": {"annotations": {views.SELECTED_NODE: node}}}


# Faults


FAILURES = (
    errors.Exhausted("no room", "pool a", "free some"),
    errors.Unavailable("does not answer", "san.example"),
    errors.Unauthorized("refused us", "san.example"),
    errors.Conflict("busy"),
    errors.NotFound("no pool b"),
    errors.AlreadyExists("differs"),
)


@pytest.mark.parametrize("after", [False, True], ids=["before_it_is_made", "after_it_is_made"])
async def test_every_failure_of_the_backend_is_told_and_tried_again(
    control: ControlPlane, after: bool
) -> None:
    await control.create(local_class())
    for error in FAILURES:
        control.backend.fail("create_volume", error, after=after)
    made = [await control.create(wanted(f"c{number}")) for number in range(len(FAILURES))]
    told = []
    for each in made:
        found = await control.phase(kinds.CLAIM, each["metadata"]["name"], "Bound", seconds=3)
        assert FINALIZER not in found["metadata"]["finalizers"]
        events = await control.told(each["metadata"]["name"])
        told += [event for event in events if event.reason == "ProvisioningFailed"]

    assert sorted(event.message for event in told) == sorted(map(str, FAILURES))
    assert {(event.type, event.component) for event in told} == {("Warning", LOCAL)}
    names = sorted(f"pvc-{each['metadata']['uid']}" for each in made)
    assert await control.backend.existing() == names
    assert len(control.backend.calls) == 2 * len(FAILURES)


async def test_what_can_never_work_is_tried_again_only_when_the_class_changes(
    control: ControlPlane,
) -> None:
    await control.create(local_class())
    control.backend.fail("create_volume", errors.Invalid("never"))
    control.backend.fail("create_volume", errors.Unsupported("not here"))
    for name, reason in (("c", "never"), ("d", "not here")):
        await control.create(wanted(name))
        assert (
            await control.hears(name, "ProvisioningFailed", INFEASIBLE + reason)
        ).type == "Warning"
    await asyncio.sleep(1.3)
    assert len([method for method, _ in control.backend.calls if method == "create_volume"]) == 2

    await control.patch(kinds.STORAGE_CLASS, "std", {"metadata": {"labels": {"a": "b"}}})
    await control.phase(kinds.CLAIM, "c", "Bound", seconds=1)
    await control.phase(kinds.CLAIM, "d", "Bound", seconds=1)


@pytest.mark.parametrize(
    ("error", "text"),
    [
        pytest.param(errors.Invalid("never"), INFEASIBLE + "never", id="invalid"),
        pytest.param(errors.NoCredentials("no key"), "no key", id="no_key"),
    ],
)
async def test_a_claim_that_was_in_vain_can_be_deleted_with_its_class(
    control: ControlPlane, error: errors.BackendError, text: str
) -> None:
    await control.create(local_class())
    control.backend.fail("create_volume", error, times=9)
    control.backend.fail("find_volume", error, times=9)
    await control.create(wanted())
    await control.hears("c", "ProvisioningFailed", text)
    await control.delete(kinds.STORAGE_CLASS, "std")
    await control.delete(kinds.CLAIM, "c")
    await control.gone(kinds.CLAIM, "c")
    assert await control.backend.existing() == []


async def test_what_was_made_before_an_error_is_deleted_with_its_claim(
    control: ControlPlane,
) -> None:
    await control.create(local_class())
    control.backend.fail("create_volume", errors.Invalid("never"), after=True)
    found = await control.create(wanted())
    await control.hears("c", "ProvisioningFailed", INFEASIBLE + "never")
    assert await control.backend.existing() == [f"pvc-{found['metadata']['uid']}"]
    await control.delete(kinds.CLAIM, "c")
    await control.gone(kinds.CLAIM, "c")
    assert await control.backend.existing() == []


async def test_an_in_tree_failure_names_the_class(control: ControlPlane) -> None:
    await control.create(storage_class("std", HOST_PATH))
    control.backend.fail("create_volume", errors.Unavailable("asleep"))
    await control.create(wanted())

    text = 'Failed to provision volume with StorageClass "std": asleep'
    told = await control.hears("c", "ProvisioningFailed", text)
    assert (told.type, told.component) == ("Warning", BINDER)
    await control.phase(kinds.CLAIM, "c", "Bound", seconds=3)


async def test_parameters_the_backend_does_not_know_are_told_before_anything_is_begun(
    control: ControlPlane,
) -> None:
    await control.create(storage_class("std", HOST_PATH, parameters={"layout": "image"}))
    await control.create(wanted())

    async def told() -> list[str]:
        return [t.message for t in await control.told("c") if t.reason == "ProvisioningFailed"]

    (message,) = await eventually(told)
    assert message.startswith('Failed to provision volume with StorageClass "std": ')
    assert control.backend.calls == []
    found = await control.client.get(kinds.CLAIM, "c", "default")
    assert FINALIZER not in found["metadata"]["finalizers"]


async def test_a_deletion_that_fails_is_told_and_tried_again(control: ControlPlane) -> None:
    await control.create(local_class())
    await control.create(wanted())
    name = (await control.phase(kinds.CLAIM, "c", "Bound"))["spec"]["volumeName"]
    control.backend.fail("delete_volume", errors.Unavailable("asleep"))
    control.backend.fail("delete_volume", errors.Unavailable("lost"), after=True)
    await control.delete(kinds.CLAIM, "c")

    told = await control.hears(name, "VolumeFailedDelete", "asleep")
    assert (told.type, told.component) == ("Warning", LOCAL)
    assert phase_of(await control.client.get(kinds.VOLUME, name)) == "Released"
    # It is tried again after one second, and after two more.
    await control.gone(kinds.VOLUME, name, seconds=5)
    assert await control.backend.existing() == []


async def test_an_in_tree_volume_in_use_is_deleted_when_it_is_free(control: ControlPlane) -> None:
    await control.create(storage_class("std", HOST_PATH))
    await control.create(wanted())
    name = (await control.phase(kinds.CLAIM, "c", "Bound"))["spec"]["volumeName"]
    control.backend.fail("delete_volume", errors.Conflict("in use"), times=100)
    await control.delete(kinds.CLAIM, "c")

    told = await control.hears(name, "VolumeDelete", "in use")
    assert (told.type, told.component) == ("Normal", BINDER)
    assert phase_of(await control.client.get(kinds.VOLUME, name)) == "Released"
    control.backend.heal()
    await control.gone(kinds.VOLUME, name, seconds=5)


async def test_an_in_tree_deletion_that_fails_shows_in_the_phase(control: ControlPlane) -> None:
    await control.create(storage_class("std", HOST_PATH))
    await control.create(wanted())
    name = (await control.phase(kinds.CLAIM, "c", "Bound"))["spec"]["volumeName"]
    control.backend.fail("delete_volume", errors.Unavailable("asleep"), times=2)
    begun = time.monotonic()
    await control.delete(kinds.CLAIM, "c")

    failed = await control.phase(kinds.VOLUME, name, "Failed")
    assert failed["status"]["message"] == "asleep"
    await control.gone(kinds.VOLUME, name)
    assert await control.backend.existing() == []
    # Half a second and a whole one: what tells of the failure does not try again.
    assert time.monotonic() - begun > 1.4


# Claims that change their mind


@pytest.mark.parametrize("after", [False, True], ids=["before_it_is_made", "after_it_is_made"])
@pytest.mark.parametrize("policy", ["Delete", "Retain"])
async def test_a_claim_deleted_while_its_volume_is_made_leaves_nothing(
    control: ControlPlane, after: bool, policy: str
) -> None:
    await control.create(local_class(reclaimPolicy=policy))
    gate = control.backend.block("create_volume", after=after)
    await control.create(wanted())
    await asyncio.wait_for(gate.reached.wait(), 5)
    await control.delete(kinds.CLAIM, "c")
    await control.settled(busy=2)
    held = await control.client.get(kinds.CLAIM, "c", "default")
    assert FINALIZER in held["metadata"]["finalizers"]

    gate.open()
    await control.gone(kinds.CLAIM, "c")
    await control.settled()
    assert await control.backend.existing() == []
    assert (await control.client.list(kinds.VOLUME)).items == []


@pytest.mark.parametrize("deleted", [False, True], ids=["tried_again", "claim_deleted"])
async def test_a_volume_whose_object_the_api_refuses_is_told_and_never_orphaned(
    control: ControlPlane, deleted: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    make = control.backend.create_volume

    async def make_without_size(request: VolumeRequest) -> Volume:
        return dataclasses.replace(await make(request), size=0)

    await control.create(local_class())
    monkeypatch.setattr(control.backend, "create_volume", make_without_size)
    made = await control.create(wanted())
    name = f"pvc-{made['metadata']['uid']}"
    text = (
        f'Error creating provisioned PV object for claim default/c: PersistentVolume "{name}" is '
        'invalid: spec.capacity[storage]: Invalid value: "0": must be greater than zero. '
        "The volume is kept for the next attempt; deleting the claim deletes it."
    )
    assert (await control.hears("c", "ProvisioningFailed", text)).type == "Warning"
    assert await control.backend.existing() == [name]
    if deleted:
        await control.delete(kinds.CLAIM, "c")
        await control.gone(kinds.CLAIM, "c")
        assert await control.backend.existing() == []
        return
    monkeypatch.undo()
    await control.phase(kinds.CLAIM, "c", "Bound", seconds=5)
    assert await control.backend.existing() == [name]


async def test_a_claim_deleted_between_two_attempts_leaves_nothing(control: ControlPlane) -> None:
    await control.create(local_class())
    control.backend.fail("create_volume", errors.Unavailable("answer lost"), times=9, after=True)
    await control.create(wanted())
    await control.hears("c", "ProvisioningFailed", "answer lost")
    control.backend.fail("delete_volume", errors.Unavailable("asleep"))
    await control.delete(kinds.CLAIM, "c")

    text = "Error cleaning provisioned volume for claim default/c: asleep. Please delete manually."
    assert (await control.hears("c", "ProvisioningCleanupFailed", text)).type == "Warning"
    await control.gone(kinds.CLAIM, "c", seconds=4)
    assert await control.backend.existing() == []


async def test_a_claim_bound_to_another_volume_meanwhile_leaves_none_behind(
    control: ControlPlane,
) -> None:
    await control.create(local_class())
    gate = control.backend.block("create_volume", after=True)
    await control.create(wanted())
    await asyncio.wait_for(gate.reached.wait(), 5)
    await control.create(volume("static", storageClassName="std"))
    await control.phase(kinds.CLAIM, "c", "Bound")
    gate.open()
    await control.settled()

    found = await control.client.get(kinds.CLAIM, "c", "default")
    assert found["spec"]["volumeName"] == "static"
    assert FINALIZER not in found["metadata"]["finalizers"]
    assert await control.backend.existing() == []


async def test_a_claim_bound_to_another_volume_between_two_attempts_leaves_none_behind(
    control: ControlPlane,
) -> None:
    await control.create(local_class())
    control.backend.fail("create_volume", errors.Unavailable("answer lost"), after=True)
    made = await control.create(wanted())
    await control.hears("c", "ProvisioningFailed", "answer lost")
    assert await control.backend.existing() == [f"pvc-{made['metadata']['uid']}"]
    await control.create(volume("static", storageClassName="std"))
    await control.phase(kinds.CLAIM, "c", "Bound", seconds=0.8)
    await control.settled()

    assert await control.backend.existing() == []
    found = await control.client.get(kinds.CLAIM, "c", "default")
    assert FINALIZER not in found["metadata"]["finalizers"]


async def test_a_volume_an_earlier_attempt_made_is_used(control: ControlPlane) -> None:
    await control.create(local_class(volumeBindingMode="WaitForFirstConsumer"))
    node = {"name": NODE, "labels": _host(NODE)}
    await control.create({"apiVersion": "v1", "kind": "Node", "metadata": node})
    made = await control.create(wanted())
    name = f"pvc-{made['metadata']['uid']}"
    request = VolumeRequest(name, 1 << 30, IN_DIRECTORIES["parameters"], (RWO,))
    await control.backend.real.create_volume(request)
    await control.patch(kinds.CLAIM, "c", _selected(NODE))

    await control.phase(kinds.CLAIM, "c", "Bound")
    assert await control.backend.existing() == [name]


async def test_a_volume_object_that_exists_already_is_bound_without_asking_the_backend(
    control: ControlPlane,
) -> None:
    await control.create(local_class(volumeBindingMode="WaitForFirstConsumer"))
    made = await control.create(wanted())
    uid = made["metadata"]["uid"]
    ours = volume(f"pvc-{uid}", storageClassName="std", claimRef=reference("c", uid))
    await control.create(ours)

    await control.phase(kinds.CLAIM, "c", "Bound")
    assert control.backend.calls == []
