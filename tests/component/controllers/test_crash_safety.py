"""The control plane stops at any moment and goes on where it was.

Each scenario is run once for every write the controllers make, and stopped at that write, before
it happens and after it. Then it starts again on what the store and the disk hold. Whatever the
moment, the work is finished, nothing is there twice, and nothing is left over.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

from holdfast.api import kinds
from holdfast.testing.controlplane import ControlPlane, control_plane, eventually, phase_of
from holdfast.testing.cuts import Cut
from holdfast.testing.objects import claim, storage_class, volume

Object = dict[str, Any]
Step = Callable[[ControlPlane], Coroutine[Any, Any, None]]
FINALIZER = "holdfast.dev/provisioning"
PROVISIONERS = ["local.holdfast.dev", "kubernetes.io/host-path"]
MOMENTS = pytest.mark.parametrize("after", [False, True], ids=["before_a_write", "after_a_write"])


async def bound(control: ControlPlane) -> None:
    """Check that the one claim and its one volume point at each other and nothing is left over."""
    found = await control.phase(kinds.CLAIM, "c", "Bound")
    await control.settled()
    (pv,) = (await control.client.list(kinds.VOLUME)).items
    found = await control.client.get(kinds.CLAIM, "c", "default")
    assert found["metadata"]["finalizers"] == ["kubernetes.io/pvc-protection"]
    assert found["spec"]["volumeName"] == pv["metadata"]["name"]
    assert pv["spec"]["claimRef"]["uid"] == found["metadata"]["uid"]
    assert phase_of(pv) == "Bound"
    assert found["status"]["capacity"] == pv["spec"]["capacity"]
    assert await control.backend.existing() in ([], [pv["metadata"]["name"]])


async def nothing(control: ControlPlane) -> None:
    """Check that claim, volume and storage are gone."""
    await control.gone(kinds.CLAIM, "c")

    async def empty() -> bool:
        return not (await control.client.list(kinds.VOLUME)).items

    await eventually(empty, 5, "every volume is gone")
    await control.settled()
    assert await control.backend.existing() == []


async def run_with_every_cut(
    tmp_path: Path, after: bool, prepare: Step, act: Step, finished: Step, *checks: Step
) -> int:
    """Run the scenario with the cut at each write in turn; return how many writes there are."""
    for at in range(1, 60):
        directory = tmp_path / str(at)
        directory.mkdir()
        async with control_plane(directory) as control:
            await prepare(control)
        cut = Cut(at, after=after)
        async with control_plane(directory, cut=cut) as control:
            await act(control)
            done = asyncio.create_task(finished(control))
            stopped = asyncio.create_task(cut.happened.wait())
            await asyncio.wait({done, stopped}, return_when=asyncio.FIRST_COMPLETED)
            if not cut.happened.is_set():
                stopped.cancel()
                await done
                return at - 1
            done.cancel()
            await asyncio.gather(done, return_exceptions=True)
            # The other workers run into the wall too.
            await asyncio.sleep(0.005)
        async with control_plane(directory) as control:
            for check in checks:
                await check(control)
    raise AssertionError("the scenario has no end")


def dynamic(provisioner: str, policy: str = "Delete") -> Step:
    async def prepare(control: ControlPlane) -> None:
        parameters = {"layout": "directory"}
        await control.create(
            storage_class("std", provisioner, parameters=parameters, reclaimPolicy=policy)
        )

    return prepare


async def ask(control: ControlPlane) -> None:
    await control.create(claim("c", storageClassName="std"))


async def give_back(control: ControlPlane) -> None:
    if await control.find(kinds.CLAIM, "c") is not None:
        await control.delete(kinds.CLAIM, "c")


@MOMENTS
@pytest.mark.parametrize("provisioner", PROVISIONERS)
async def test_provisioning_is_finished_after_a_stop(
    tmp_path: Path, after: bool, provisioner: str
) -> None:
    writes = await run_with_every_cut(
        tmp_path, after, dynamic(provisioner), ask, bound, bound, give_back, nothing
    )
    assert writes >= 7


@MOMENTS
async def test_a_claim_deleted_after_a_stop_in_provisioning_leaves_nothing(
    tmp_path: Path, after: bool
) -> None:
    await run_with_every_cut(
        tmp_path, after, dynamic(PROVISIONERS[0]), ask, bound, give_back, nothing
    )


@MOMENTS
async def test_a_claim_deleted_while_nothing_runs_leaves_nothing(
    tmp_path: Path, after: bool
) -> None:
    async def ask_and_give_back(control: ControlPlane) -> None:
        await ask(control)
        # By now something has been made for it, on most runs.
        await asyncio.sleep(0.004)
        await give_back(control)

    await run_with_every_cut(
        tmp_path, after, dynamic(PROVISIONERS[0]), ask_and_give_back, nothing, nothing
    )


@MOMENTS
@pytest.mark.parametrize("provisioner", PROVISIONERS)
async def test_deleting_is_finished_after_a_stop(
    tmp_path: Path, after: bool, provisioner: str
) -> None:
    async def prepare(control: ControlPlane) -> None:
        await dynamic(provisioner)(control)
        await ask(control)
        await bound(control)

    writes = await run_with_every_cut(tmp_path, after, prepare, give_back, nothing, nothing)
    assert writes >= 4


@MOMENTS
async def test_binding_to_an_existing_volume_is_finished_after_a_stop(
    tmp_path: Path, after: bool
) -> None:
    async def prepare(control: ControlPlane) -> None:
        await control.create(volume("v", storageClassName="std"))
        await control.phase(kinds.VOLUME, "v", "Available")

    writes = await run_with_every_cut(tmp_path, after, prepare, ask, bound, bound)
    assert writes == 4


@MOMENTS
async def test_recycling_is_finished_after_a_stop(tmp_path: Path, after: bool) -> None:
    data = tmp_path / "data"
    data.mkdir()
    source = {"hostPath": {"path": str(data)}}

    async def prepare(control: ControlPlane) -> None:
        (data / "file").write_text("x")
        await control.create(
            volume(
                "v", storageClassName="std", source=source, persistentVolumeReclaimPolicy="Recycle"
            )
        )
        await ask(control)
        await bound(control)

    async def free(control: ControlPlane) -> None:
        pv = await control.phase(kinds.VOLUME, "v", "Available")
        assert "claimRef" not in pv["spec"]
        assert not [*data.iterdir()]

    writes = await run_with_every_cut(tmp_path, after, prepare, give_back, free, free)
    assert writes == 4


@MOMENTS
async def test_a_claim_bound_by_hand_during_the_stop_leaves_no_second_volume(
    tmp_path: Path, after: bool
) -> None:
    async def offer(control: ControlPlane) -> None:
        # The claim may be served by either; what was begun for it must not stay behind.
        await control.create(volume("v", storageClassName="std"))

    async def one_volume(control: ControlPlane) -> None:
        found = await control.phase(kinds.CLAIM, "c", "Bound")
        await control.settled()
        assert set(await control.backend.existing()) <= {found["spec"]["volumeName"]}
        current = await control.client.get(kinds.CLAIM, "c", "default")
        assert FINALIZER not in current["metadata"]["finalizers"]

    await run_with_every_cut(
        tmp_path, after, dynamic(PROVISIONERS[0]), ask, bound, offer, one_volume
    )


async def test_a_stop_at_any_time_while_many_claims_come_and_go_loses_nothing(
    tmp_path: Path,
) -> None:
    async with control_plane(tmp_path) as control:
        await dynamic(PROVISIONERS[0])(control)
    for number in range(16):
        async with control_plane(tmp_path) as control:
            if number >= 4:
                await control.delete(kinds.CLAIM, f"c{number - 4}")
            for part in "abc":
                await control.create(claim(f"c{number}{part}", "1Mi", storageClassName="std"))
            await control.create(claim(f"c{number}", "1Mi", storageClassName="std"))
            await asyncio.sleep(number * 0.002)
    async with control_plane(tmp_path) as control:

        async def all_bound() -> bool:
            return all(
                phase_of(found) == "Bound"
                for found in (await control.client.list(kinds.CLAIM)).items
            )

        await eventually(all_bound, 10)
        await control.settled()
        claims = (await control.client.list(kinds.CLAIM)).items
        assert len(claims) == 16 * 3 + 4
        volumes = {
            v["metadata"]["name"]: v for v in (await control.client.list(kinds.VOLUME)).items
        }
        assert {c["spec"]["volumeName"] for c in claims} == set(volumes)
        assert len(volumes) == len(claims)
        assert await control.backend.existing() == sorted(volumes)
