"""The default class, both ways it reaches a claim, and what a claim without class takes first."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from holdfast.api import kinds, views
from holdfast.testing.controlplane import ControlPlane, control_plane, phase_of
from holdfast.testing.objects import claim, storage_class, volume

Object = dict[str, Any]
PROVISIONER = "example.com/nobody"


@pytest.fixture
async def control(tmp_path: Path) -> AsyncIterator[ControlPlane]:
    async with control_plane(tmp_path) as running:
        yield running


def default(name: str, *, key: str = views.DEFAULT_CLASS, value: str = "true") -> Object:
    return storage_class(name, PROVISIONER, annotations={key: value})


def class_of(obj: Object | None) -> str | None:
    assert obj is not None
    found: str | None = obj["spec"].get("storageClassName")
    return found


async def test_a_claim_is_given_the_default_class_when_it_is_made(control: ControlPlane) -> None:
    await control.create(default("gold"))

    assert class_of(await control.create(claim("c"))) == "gold"


@pytest.mark.parametrize("key", [views.DEFAULT_CLASS, views.BETA_DEFAULT_CLASS])
async def test_a_claim_made_earlier_is_given_the_default_class_at_once(
    control: ControlPlane, key: str
) -> None:
    await control.create(claim("c"))
    await control.settled()
    await control.create(default("gold", key=key))

    await control.until(kinds.CLAIM, "c", lambda c: class_of(c) == "gold", seconds=1)
    text = (
        "Waiting for a volume to be created either by the external provisioner "
        f"'{PROVISIONER}' or manually by the system administrator. If volume creation is "
        "delayed, please verify that the provisioner is running and correctly registered."
    )
    assert (await control.hears("c", "ExternalProvisioning", text)).type == "Normal"


async def test_a_class_that_becomes_the_default_reaches_waiting_claims(
    control: ControlPlane,
) -> None:
    await control.create(storage_class("gold", PROVISIONER))
    await control.create(claim("c"))
    await control.settled()
    mark = {"metadata": {"annotations": {views.DEFAULT_CLASS: "true"}}}
    await control.patch(kinds.STORAGE_CLASS, "gold", mark)

    await control.until(kinds.CLAIM, "c", lambda c: class_of(c) == "gold", seconds=1)


@pytest.mark.parametrize(
    "wanted",
    [
        pytest.param(claim("c", storageClassName=""), id="the_empty_class"),
        pytest.param(claim("c", annotations={views.BETA_CLASS: ""}), id="the_empty_annotation"),
        pytest.param(claim("c", annotations={views.BETA_CLASS: "tin"}), id="a_class_by_annotation"),
        pytest.param(claim("c", storageClassName="tin"), id="a_class_nobody_made"),
    ],
)
async def test_a_claim_is_not_defaulted_when_it_names(
    control: ControlPlane, wanted: Object
) -> None:
    before = class_of(wanted)
    await control.create(wanted)
    await control.settled(quiet=0.3)  # a disk may take that long to write an event
    looks = sum(told.count for told in await control.told("c"))
    await control.create(default("gold"))
    await control.settled(quiet=0.3)

    assert class_of(await control.find(kinds.CLAIM, "c")) == before
    assert sum(told.count for told in await control.told("c")) == looks, "woken for nothing"


@pytest.mark.parametrize("value", ["True", "yes", "", "1"])
async def test_only_the_exact_word_true_makes_a_default(control: ControlPlane, value: str) -> None:
    await control.create(claim("c"))
    await control.create(default("gold", value=value))
    await control.settled()

    assert class_of(await control.find(kinds.CLAIM, "c")) is None


async def test_of_several_defaults_the_newest_is_taken(control: ControlPlane) -> None:
    # Defaults made before the claim are seen by admission, so the marks come after it.
    await control.create(storage_class("b-old", PROVISIONER))
    await asyncio.sleep(1.1)
    await control.create(storage_class("z-new", PROVISIONER))
    await control.create(storage_class("y-new", PROVISIONER))
    mark = {"metadata": {"annotations": {views.DEFAULT_CLASS: "true"}}}
    for name in ("b-old", "z-new", "y-new"):
        await control.patch(kinds.STORAGE_CLASS, name, mark)
    made = await control.create(claim("c"))
    stamps = {
        name: (await control.client.get(kinds.STORAGE_CLASS, name))["metadata"]["creationTimestamp"]
        for name in ("z-new", "y-new")
    }

    newest = max(stamps.values())
    assert class_of(made) == min(name for name, stamp in stamps.items() if stamp == newest)


async def test_an_older_claim_gets_the_newest_of_several_defaults(tmp_path: Path) -> None:
    async with control_plane(tmp_path) as control:
        await control.create(claim("c"))
        await control.create(volume("v", storageClassName="z"))
        await control.phase(kinds.VOLUME, "v", "Available")
        await control.create(storage_class("a", PROVISIONER))
        await asyncio.sleep(1.1)
        await control.create(storage_class("z", PROVISIONER))
        await control.settled()
        mark = {"metadata": {"annotations": {views.DEFAULT_CLASS: "true"}}}
        # One step of the store: the binder sees both marks or neither.
        patches = [control.patch(kinds.STORAGE_CLASS, name, mark) for name in ("a", "z")]
        await asyncio.gather(*patches)

        assert class_of(await control.phase(kinds.CLAIM, "c", "Bound")) == "z"


async def test_a_claim_without_class_takes_a_volume_without_class_before_the_default(
    control: ControlPlane,
) -> None:
    await control.create(claim("c", "3Gi"))
    await control.create(volume("small"))
    await control.settled()
    assert phase_of(await control.client.get(kinds.CLAIM, "c", "default")) == "Pending"
    await control.create(volume("v", "3Gi"))

    assert class_of(await control.phase(kinds.CLAIM, "c", "Bound", seconds=1)) is None
    await control.create(default("gold"))
    await control.settled()
    assert class_of(await control.find(kinds.CLAIM, "c")) is None
