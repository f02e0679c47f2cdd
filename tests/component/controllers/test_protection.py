"""Nothing in use disappears: the protection finalizers of claims and volumes."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from holdfast.api import kinds
from holdfast.controllers.protection import CLAIM_FINALIZER, VOLUME_FINALIZER
from holdfast.testing import objects
from holdfast.testing.controlplane import ControlPlane, control_plane
from holdfast.testing.objects import claim, volume

Object = dict[str, Any]


@pytest.fixture
async def control(tmp_path: Path) -> AsyncIterator[ControlPlane]:
    async with control_plane(tmp_path) as running:
        yield running


async def scheduled(control: ControlPlane, name: str, *claims: str, phase: str = "Running") -> None:
    await control.create(objects.pod(name, *claims, nodeName="n"))
    await control.patch(kinds.POD, name, {"status": {"phase": phase}}, subresource="status")


@pytest.mark.parametrize(
    ("kind", "obj", "finalizer"),
    [
        pytest.param(kinds.CLAIM, claim("x"), CLAIM_FINALIZER, id="claim"),
        pytest.param(kinds.VOLUME, volume("x"), VOLUME_FINALIZER, id="volume"),
    ],
)
async def test_a_finalizer_taken_off_a_living_object_is_put_back_at_once(
    control: ControlPlane, kind: kinds.Kind, obj: Object, finalizer: str
) -> None:
    made = await control.create({**obj, "metadata": {**obj["metadata"], "finalizers": ["a/b"]}})
    assert made["metadata"]["finalizers"] == ["a/b", finalizer]
    await control.patch(kind, "x", {"metadata": {"finalizers": ["a/b"]}})

    def holds(found: Object) -> bool:
        return bool(found["metadata"].get("finalizers") == ["a/b", finalizer])

    await control.until(kind, "x", holds, seconds=1)


@pytest.mark.parametrize("phase", ["Pending", "Running", "Succeeded", "Failed"])
async def test_a_claim_stays_while_a_scheduled_pod_mentions_it_in_whatever_phase(
    control: ControlPlane, phase: str
) -> None:
    await control.create(claim("c"))
    await scheduled(control, "p", "c", phase=phase)
    await control.delete(kinds.CLAIM, "c")
    await control.settled()
    held = await control.find(kinds.CLAIM, "c")
    assert held is not None
    assert "deletionTimestamp" in held["metadata"]

    await control.client.delete(kinds.POD, "p", "default", grace=0)

    await control.gone(kinds.CLAIM, "c", seconds=1)


@pytest.mark.parametrize(
    "pod",
    [
        pytest.param(objects.pod("p", "c"), id="not_scheduled"),
        pytest.param(objects.pod("p", "other", nodeName="n"), id="of_another_claim"),
        pytest.param(
            objects.pod("p", "c", namespace="kube-system", nodeName="n"), id="of_another_namespace"
        ),
    ],
)
async def test_a_claim_goes_at_once_beside_a_pod(control: ControlPlane, pod: Object) -> None:
    await control.create(claim("c"))
    await control.create(pod)
    await control.delete(kinds.CLAIM, "c")

    await control.gone(kinds.CLAIM, "c", seconds=1)


async def test_a_claim_stays_until_the_last_of_its_pods_is_gone(control: ControlPlane) -> None:
    await control.create(claim("c"))
    for name in ("p", "q"):
        await scheduled(control, name, "c")
    await control.delete(kinds.CLAIM, "c")
    await control.client.delete(kinds.POD, "p", "default", grace=0)
    await control.settled()
    assert await control.find(kinds.CLAIM, "c") is not None

    await control.client.delete(kinds.POD, "q", "default", grace=0)
    await control.gone(kinds.CLAIM, "c", seconds=1)


async def test_a_pod_made_again_under_its_name_lets_go_of_the_old_ones_claims(
    control: ControlPlane,
) -> None:
    await control.create(claim("c"))
    await scheduled(control, "p", "c")
    await control.delete(kinds.CLAIM, "c")
    await control.client.delete(kinds.POD, "p", "default", grace=0)
    await control.create(objects.pod("p", "other", nodeName="n"))

    await control.gone(kinds.CLAIM, "c", seconds=1)


@pytest.mark.parametrize(
    ("ephemeral", "stays"), [(True, False), (False, True)], ids=["made_for_it", "named_by_it"]
)
async def test_a_pod_that_has_shut_down_keeps_only_a_claim_it_names(
    control: ControlPlane, ephemeral: bool, stays: bool
) -> None:
    pod = objects.pod("p", "p-v", nodeName="n")
    pod["metadata"]["finalizers"] = ["example.com/hold"]
    if ephemeral:
        template = {"spec": claim("x")["spec"]}
        pod["spec"]["volumes"] = [{"name": "v", "ephemeral": {"volumeClaimTemplate": template}}]
    await control.create(pod)
    await control.create(claim("p-v"))
    await control.delete(kinds.CLAIM, "p-v")
    await control.settled()
    assert await control.find(kinds.CLAIM, "p-v") is not None

    await control.client.delete(kinds.POD, "p", "default", grace=0)
    if stays:
        await control.settled()
        assert await control.find(kinds.CLAIM, "p-v") is not None
    else:
        await control.gone(kinds.CLAIM, "p-v", seconds=1)


async def test_a_volume_stays_while_it_is_bound(control: ControlPlane) -> None:
    await control.create(volume("v"))
    await control.create(claim("c"))
    await control.phase(kinds.CLAIM, "c", "Bound")
    await control.delete(kinds.VOLUME, "v")
    await control.settled()
    held = await control.find(kinds.VOLUME, "v")
    assert held is not None
    assert "deletionTimestamp" in held["metadata"]
    await control.phase(kinds.CLAIM, "c", "Bound")

    await control.delete(kinds.CLAIM, "c")
    await control.gone(kinds.VOLUME, "v", seconds=1)
    await control.gone(kinds.CLAIM, "c", seconds=1)


async def test_a_volume_that_is_not_bound_goes_at_once(control: ControlPlane) -> None:
    await control.create(volume("v"))
    await control.phase(kinds.VOLUME, "v", "Available")
    await control.delete(kinds.VOLUME, "v")

    await control.gone(kinds.VOLUME, "v", seconds=1)
