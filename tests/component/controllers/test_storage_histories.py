"""Random histories of users, administrators and restarts, and what must hold after each.

A history is a list of steps: claims, volumes, classes and policies come, change and go, and the
control plane stops and starts. At every pause: what is bound points at each other, nobody
shares a volume, what was to be retained is on the disk, nothing is on the disk that no volume
names, and every claim that can be served is.
"""

from __future__ import annotations

import asyncio
import tempfile
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from holdfast.api import errors, kinds, views
from holdfast.testing.controlplane import ControlPlane, control_plane, phase_of
from holdfast.testing.objects import claim, storage_class, volume

Object = dict[str, Any]
FINALIZER = "holdfast.dev/provisioning"
POLICIES = {"std": "Delete", "keep": "Retain", "tree": "Delete"}
PROVISIONERS = {"std": "local.holdfast.dev", "keep": "local.holdfast.dev"}
CLAIMS = ("c0", "c1", "c2", "c3")
VOLUMES = ("v0", "v1")

claim_names = st.sampled_from(CLAIMS)
volume_names = st.sampled_from(VOLUMES)
class_names = st.sampled_from(["std", "keep", "tree"])
steps = st.one_of(
    st.tuples(
        st.just("claim"),
        claim_names,
        st.sampled_from(["std", "keep", "tree", ""]),
        st.integers(1, 3),
    ),
    st.tuples(st.just("claim"), claim_names, st.just(None), st.integers(1, 3)),
    st.tuples(st.just("claim named"), claim_names, volume_names),
    st.tuples(st.just("unclaim"), claim_names),
    st.tuples(st.just("unclaim"), claim_names),
    st.tuples(st.just("volume"), volume_names, st.sampled_from(["", "std"]), st.integers(1, 3)),
    st.tuples(st.just("reserve"), volume_names, claim_names),
    st.tuples(st.just("unvolume"), st.integers(0, 5)),
    st.tuples(st.just("policy"), st.integers(0, 5), st.sampled_from(["Retain", "Delete"])),
    st.tuples(st.just("clear"), st.integers(0, 5)),
    st.tuples(st.just("class"), class_names, st.booleans()),
    st.tuples(st.just("unclass"), class_names),
    st.tuples(st.just("pause")),
    st.tuples(st.just("restart")),
)


class History:
    """Carries out steps and remembers what it has to, to judge the outcome."""

    def __init__(self, control: ControlPlane) -> None:
        self.control = control
        # Storage nobody may delete, and storage whose volume object a user deleted.
        self.retained: set[str] = set()
        self.forgotten: set[str] = set()

    async def apply(self, step: tuple[Any, ...]) -> None:
        """Do what the step says; what the API refuses is no step."""
        try:
            await getattr(self, "_" + step[0].replace(" ", "_"))(*step[1:])
        except (errors.AlreadyExists, errors.NotFound, errors.Conflict, errors.Invalid):
            return

    async def _claim(self, name: str, class_name: str | None, size: int) -> None:
        spec: Object = {} if class_name is None else {"storageClassName": class_name}
        await self.control.client.create(kinds.CLAIM, claim(name, f"{size}Mi", **spec), "default")

    async def _claim_named(self, name: str, volume_name: str) -> None:
        named = claim(name, "1Mi", storageClassName="", volumeName=volume_name)
        await self.control.create(named)

    async def _unclaim(self, name: str) -> None:
        await self.control.delete(kinds.CLAIM, name)

    async def _volume(self, name: str, class_name: str, size: int) -> None:
        await self.control.create(volume(name, f"{size}Mi", storageClassName=class_name))

    async def _reserve(self, name: str, claim_name: str) -> None:
        reference = {"namespace": "default", "name": claim_name}
        await self.control.create(volume(name, "2Mi", claimRef=reference))

    async def _volumes(self) -> list[Object]:
        return (await self.control.client.list(kinds.VOLUME)).items

    async def _pick(self, number: int) -> Object:
        found = await self._volumes()
        if not found:
            raise errors.NotFound.of("", "persistentvolumes", "any")
        return found[number % len(found)]

    async def _unvolume(self, number: int) -> None:
        picked = await self._pick(number)
        name = picked["metadata"]["name"]
        if picked["spec"]["persistentVolumeReclaimPolicy"] == "Retain":
            self.forgotten.add(name)
        await self.control.delete(kinds.VOLUME, name)

    async def _policy(self, number: int, policy: str) -> None:
        picked = await self._pick(number)
        name = picked["metadata"]["name"]
        patch = {"spec": {"persistentVolumeReclaimPolicy": policy}}
        if policy == "Delete":
            self.retained.discard(name)
            self.forgotten.discard(name)
        await self.control.patch(kinds.VOLUME, name, patch)
        if policy == "Retain" and "deletionTimestamp" in picked["metadata"]:
            self.forgotten.add(name)

    async def _clear(self, number: int) -> None:
        picked = await self._pick(number)
        if phase_of(picked) == "Released":
            patch = {"spec": {"claimRef": None}}
            await self.control.patch(kinds.VOLUME, picked["metadata"]["name"], patch)

    async def _class(self, name: str, default: bool) -> None:
        provisioner = PROVISIONERS.get(name, "kubernetes.io/host-path")
        await self.control.create(
            storage_class(
                name,
                provisioner,
                annotations={views.DEFAULT_CLASS: "true"} if default else None,
                parameters={"layout": "directory"},
                reclaimPolicy=POLICIES[name],
            )
        )

    async def _unclass(self, name: str) -> None:
        await self.control.delete(kinds.STORAGE_CLASS, name)

    async def _pause(self) -> None:
        # Users and controllers write to the same objects here: conflicts are tried again.
        await self.control.settled(quiet=0.15)
        await self.check()

    async def check(self) -> None:
        """Look at everything there is."""
        claims = (await self.control.client.list(kinds.CLAIM)).items
        pvs = {v["metadata"]["name"]: v for v in await self._volumes()}
        for found in claims:
            self._check_claim(found, pvs)
        owners = [v["spec"]["claimRef"]["uid"] for v in pvs.values() if phase_of(v) == "Bound"]
        assert len(set(owners)) == len(owners), "two volumes are bound to one claim"
        for found in pvs.values():
            assert phase_of(found) in ("Available", "Bound", "Released", "Failed"), found
            if "deletionTimestamp" in found["metadata"]:
                assert phase_of(found) == "Bound", f"not deleted: {found}"
        await self._check_disk(pvs)
        await self._check_served(claims, pvs)

    def _check_claim(self, found: Object, pvs: dict[str, Object]) -> None:
        assert "deletionTimestamp" not in found["metadata"], f"not deleted: {found}"
        assert FINALIZER not in found["metadata"]["finalizers"], found
        if phase_of(found) == "Bound":
            pv = pvs[found["spec"]["volumeName"]]
            assert pv["spec"]["claimRef"]["uid"] == found["metadata"]["uid"]
            assert phase_of(pv) == "Bound"
            assert found["status"]["capacity"] == pv["spec"]["capacity"]

    async def _check_disk(self, pvs: dict[str, Object]) -> None:
        made = {
            name
            for name, v in pvs.items()
            if views.PROVISIONED_BY in (v["metadata"].get("annotations") or {})
        }
        for name in made:
            if pvs[name]["spec"]["persistentVolumeReclaimPolicy"] == "Retain":
                self.retained.add(name)
        existing = set(await self.control.backend.existing())
        assert self.retained <= existing, "data was deleted under Retain"
        assert made <= existing, "a volume has lost its data"
        assert existing <= made | self.forgotten, "storage without a volume"

    async def _check_served(self, claims: list[Object], pvs: dict[str, Object]) -> None:
        classes = {c["metadata"]["name"] for c in await self._classes()}
        free = [v for v in pvs.values() if phase_of(v) == "Available"]
        for found in claims:
            if phase_of(found) == "Bound" or found["spec"].get("volumeName"):
                continue
            assert found["spec"].get("storageClassName") not in classes, f"not served: {found}"
            fitting = [v["metadata"]["name"] for v in free if _fits(v, found)]
            assert not fitting, f"{fitting} would fit {found}"

    async def _classes(self) -> list[Object]:
        return (await self.control.client.list(kinds.STORAGE_CLASS)).items


def _fits(pv: Object, found: Object) -> bool:
    reference = pv["spec"].get("claimRef")
    sizes = [
        int(text.removesuffix("Mi"))
        for text in (
            pv["spec"]["capacity"]["storage"],
            found["spec"]["resources"]["requests"]["storage"],
        )
    ]
    if sizes[0] < sizes[1]:
        return False
    if reference is not None:
        return bool(reference["name"] == found["metadata"]["name"])
    return bool(pv["spec"].get("storageClassName", "") == found["spec"].get("storageClassName", ""))


async def live(directory: Path, history: list[tuple[Any, ...]]) -> None:
    """Carry out the history, restarting where it says so, and check the end."""
    parts: list[list[tuple[Any, ...]]] = [[]]
    for step in history:
        if step[0] == "restart":
            parts.append([])
        else:
            parts[-1].append(step)
    past: History | None = None
    for part in parts:
        async with control_plane(directory) as control:
            now = History(control)
            if past is not None:
                now.retained, now.forgotten = past.retained, past.forgotten
            past = now
            for step in part:
                await now.apply(step)
            if part is parts[-1]:
                await now.apply(("pause",))


@settings(
    max_examples=30,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
@given(st.lists(steps, min_size=3, max_size=16))
def test_whatever_happens_the_storage_stays_consistent(history: list[tuple[Any, ...]]) -> None:
    # Classes first, or most histories would be about claims that wait.
    beginning = [("class", "std", False), ("class", "keep", False), ("class", "tree", False)]
    with tempfile.TemporaryDirectory() as directory:
        asyncio.run(live(Path(directory), beginning[: len(history) % 4] + history))
