"""What wakes a waiting claim: volumes, classes, pods, and never a timer."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any, TypeVar

import pytest

from holdfast.api import errors, kinds, views
from holdfast.testing import objects
from holdfast.testing.controlplane import ControlPlane, control_plane, phase_of
from holdfast.testing.cuts import Cut
from holdfast.testing.objects import RWO, RWX, claim, reference, storage_class, volume

T = TypeVar("T")
Object = dict[str, Any]
COMPONENT = "persistentvolume-controller"
LAZY: Object = {"volumeBindingMode": "WaitForFirstConsumer"}


@pytest.fixture
async def control(tmp_path: Path) -> AsyncIterator[ControlPlane]:
    async with control_plane(tmp_path) as running:
        yield running


def labelled(**labels: str) -> Object:
    return {"matchLabels": labels}


# Who is woken, and that it is not a timer that wakes them.


async def quiet(control: ControlPlane, *names: str) -> dict[str, int]:
    """Return how many events each claim has once everything is quiet."""
    await control.settled()
    return {name: sum(told.count for told in await control.told(name)) for name in names}


async def test_a_new_volume_wakes_the_one_claim_it_fits_and_no_other(
    control: ControlPlane,
) -> None:
    await control.create(claim("small", "1Gi", storageClassName=""))
    await control.create(claim("fits", "3Gi", storageClassName=""))
    await control.create(claim("large", "9Gi", storageClassName=""))
    await control.create(claim("block", "1Gi", storageClassName="", volumeMode="Block"))
    await control.create(claim("picky", storageClassName="", selector=labelled(t="x")))
    before = await quiet(control, "small", "large", "block", "picky")

    await control.create(volume("v", "4Gi"))

    await control.phase(kinds.CLAIM, "fits", "Bound", seconds=1)
    assert await quiet(control, "small", "large", "block", "picky") == before


@pytest.mark.parametrize(
    "change",
    [
        pytest.param({"spec": {"capacity": {"storage": "9Gi"}}}, id="larger"),
        pytest.param({"metadata": {"labels": {"t": "x"}}}, id="labelled"),
        pytest.param({"spec": {"accessModes": [RWO, RWX]}}, id="shared"),
        pytest.param({"spec": {"storageClassName": "s"}}, id="of_the_class"),
    ],
)
async def test_a_volume_that_is_made_to_fit_is_taken_at_once(
    control: ControlPlane, change: Object
) -> None:
    spec = change.get("spec", {})
    selecting: Object = {"selector": labelled(t="x")} if "metadata" in change else {}
    await control.create(volume("v", "1Gi"))
    await control.create(
        claim(
            "c",
            "5Gi" if "capacity" in spec else "1Gi",
            [RWX] if "accessModes" in spec else [RWO],
            storageClassName=spec.get("storageClassName", ""),
            **selecting,
        )
    )
    await control.settled()

    await control.patch(kinds.VOLUME, "v", change)

    await control.phase(kinds.CLAIM, "c", "Bound", seconds=1)


async def test_a_volume_reserved_by_name_wakes_its_claim(control: ControlPlane) -> None:
    await control.create(claim("c", storageClassName="none"))
    await control.settled()

    await control.create(volume("v", "50Gi", claimRef=reference("c")))

    await control.phase(kinds.CLAIM, "c", "Bound", seconds=1)


async def test_a_reserved_volume_that_grows_to_fit_wakes_its_claim(control: ControlPlane) -> None:
    await control.create(volume("v", claimRef=reference("c")))
    await control.create(claim("c", "2Gi"))
    await control.settled()

    await control.patch(kinds.VOLUME, "v", {"spec": {"capacity": {"storage": "2Gi"}}})

    await control.phase(kinds.CLAIM, "c", "Bound", seconds=1)


async def test_many_volumes_at_once_serve_as_many_claims_without_a_pause(
    control: ControlPlane,
) -> None:
    for number in range(20):
        await control.create(claim(f"c{number}", f"{number + 1}Gi"))
    await control.create(claim("fast", "1Gi", selector=labelled(t="x")))
    await control.settled()

    makes = [control.create(volume(f"v{number}", f"{number + 1}Gi")) for number in range(20)]
    await asyncio.gather(*makes, control.create(volume("x", "1Gi", labels={"t": "x"})))

    started = time.monotonic()
    for name in [*(f"c{number}" for number in range(20)), "fast"]:
        await control.phase(kinds.CLAIM, name, "Bound")
    assert time.monotonic() - started < 1


async def test_a_volume_is_offered_on_when_the_claim_it_woke_took_a_better_one(
    control: ControlPlane,
) -> None:
    await control.create(claim("a", "3Gi"))
    await control.create(claim("b", "2Gi", selector=labelled(t="x")))
    await control.create(claim("c", "1Gi"))
    await control.settled()

    # The large one wakes a, which takes the other; b, woken for that, must not be the last word.
    large, small = volume("large", "5Gi"), volume("small", "4Gi", labels={"t": "x"})
    await asyncio.gather(control.create(large), control.create(small))

    found = await control.phase(kinds.CLAIM, "c", "Bound", seconds=1)
    other = await control.phase(kinds.CLAIM, "a", "Bound", seconds=1)
    names = {found["spec"]["volumeName"], other["spec"]["volumeName"]}
    assert names == {"large", "small"}


class Stumble(Cut):
    """Once armed, holds one write until told, and then refuses it."""

    def __init__(self) -> None:
        super().__init__(0, after=False)
        self.armed = False
        self.held = asyncio.Event()
        self.go_on = asyncio.Event()

    async def write(self, work: Callable[[], Awaitable[T]]) -> T:
        if not self.armed:
            return await work()
        self.armed = False
        self.held.set()
        await self.go_on.wait()
        raise errors.Conflict.of("", "persistentvolumes", "v")


async def test_a_volume_that_a_failed_bind_gives_up_goes_to_the_next_claim(tmp_path: Path) -> None:
    stumble = Stumble()
    async with control_plane(tmp_path, cut=stumble) as control:
        await control.create(volume("v"))
        await control.phase(kinds.VOLUME, "v", "Available")
        stumble.armed = True
        await control.create(claim("first"))
        await asyncio.wait_for(stumble.held.wait(), 5)
        await control.create(claim("second"))
        await control.settled(busy=1)
        assert phase_of(await control.client.get(kinds.CLAIM, "second", "default")) == "Pending"
        await control.delete(kinds.CLAIM, "first")
        await control.gone(kinds.CLAIM, "first")

        stumble.go_on.set()

        await control.phase(kinds.CLAIM, "second", "Bound", seconds=1)


async def test_a_pending_claim_is_not_looked_at_while_nothing_changes(
    control: ControlPlane,
) -> None:
    await control.create(storage_class("lazy", "example.com/x", **LAZY))
    await control.create(volume("v", storageClassName="lazy"))
    for name in ("lazy", "missing", ""):
        await control.create(claim(f"c-{name or 'none'}", storageClassName=name))
    none = "no persistent volumes available for this claim and no storage class is set"
    await control.hears("c-none", "FailedBinding", none)
    missing = 'storageclass.storage.k8s.io "missing" not found'
    await control.hears("c-missing", "ProvisioningFailed", missing)
    lazy = "waiting for first consumer to be created before binding"
    await control.hears("c-lazy", "WaitForFirstConsumer", lazy)
    names = ("c-lazy", "c-missing", "c-none")
    before = await quiet(control, *names)

    await asyncio.sleep(1.3)

    assert await quiet(control, *names) == before


# WaitForFirstConsumer


async def test_a_claim_that_waits_for_its_consumer_takes_no_free_volume(
    control: ControlPlane,
) -> None:
    await control.create(storage_class("lazy", "example.com/x", **LAZY))
    await control.create(volume("v", storageClassName="lazy"))
    await control.create(claim("c", storageClassName="lazy"))

    text = "waiting for first consumer to be created before binding"
    told = await control.hears("c", "WaitForFirstConsumer", text)
    assert (told.type, told.component) == ("Normal", COMPONENT)
    await control.settled()
    assert phase_of((await control.find(kinds.VOLUME, "v")) or {}) == "Available"


async def test_a_waiting_claim_names_the_pods_that_are_not_scheduled_yet(
    control: ControlPlane,
) -> None:
    await control.create(storage_class("lazy", "example.com/x", **LAZY))
    await control.create(claim("c", storageClassName="lazy"))
    await control.settled()

    await control.create(objects.pod("p2", "c"))
    await control.hears("c", "WaitForPodScheduled", "waiting for pod p2 to be scheduled", seconds=1)
    await control.create(objects.pod("p1", "c"))
    text = "waiting for pods p1,p2 to be scheduled"
    assert (await control.hears("c", "WaitForPodScheduled", text, seconds=1)).type == "Normal"


async def test_a_volume_the_scheduler_chose_is_bound_to_the_waiting_claim(
    control: ControlPlane,
) -> None:
    await control.create(storage_class("lazy", "example.com/x", **LAZY))
    await control.create(volume("v", storageClassName="lazy"))
    made = await control.create(claim("c", storageClassName="lazy"))
    await control.settled()

    chosen = {
        "metadata": {"annotations": {views.BOUND_BY_CONTROLLER: "yes"}},
        "spec": {"claimRef": reference("c", made["metadata"]["uid"])},
    }
    await control.patch(kinds.VOLUME, "v", chosen)

    await control.phase(kinds.CLAIM, "c", "Bound", seconds=1)


async def test_four_hundred_claims_each_get_the_volume_of_their_size(control: ControlPlane) -> None:
    count = 400
    await asyncio.gather(*(control.create(volume(f"v{n}", f"{n + 1}Mi")) for n in range(count)))
    await control.settled()
    started = time.monotonic()
    await asyncio.gather(*(control.create(claim(f"c{n}", f"{n + 1}Mi")) for n in range(count)))
    await control.settled(30)

    bound = (await control.client.list(kinds.CLAIM)).items
    assert sum(phase_of(each) == "Bound" for each in bound) == count
    assert time.monotonic() - started < 8
    for each in bound:
        assert each["spec"]["volumeName"] == f"v{each['metadata']['name'][1:]}"
