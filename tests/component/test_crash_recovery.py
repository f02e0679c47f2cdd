"""`kill -9` of the whole control plane, at rest and in the middle of work.

What was acknowledged is there afterwards, what was begun is finished or undone: one volume
per claim, nothing in the backend that no claim has, data as it was written.
"""

from __future__ import annotations

import json
import os
import random
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import machine
import manifests
from manifests import Object, claim, pod

NewMachine = Callable[[], machine.Machine]
LAYOUTS = [pytest.param("image", marks=pytest.mark.root), "directory"]

ROUNDS = 4
CLAIMS = 30
EVERY_POD = 3  # every third claim has a pod


@pytest.fixture(params=LAYOUTS)
def machine_with_class(request: pytest.FixtureRequest, new_machine: NewMachine) -> machine.Machine:
    """A running machine with the class `kept` of each layout."""
    where = new_machine().start()
    where.apply(manifests.storage_class("kept", parameters={"layout": request.param}))
    return where


def test_killed_at_rest_it_adopts_what_is_mounted(machine_with_class: machine.Machine) -> None:
    where = machine_with_class
    mount = where.run_pod(pod("steady", "kept"), claim("kept", storage_class="kept"))
    (mount / "file").write_text("before")
    with (mount / "open").open("w") as stream:
        where.kill()
        stream.write("written while nothing runs")
    before = where.mounts(), where.loops()
    where.start()
    # A pod that is made now has been through the agent's queue behind the old one.
    where.run_pod(pod("second", "kept"))
    mounts_now = where.mounts()
    assert {target: mounts_now.get(target) for target in before[0]} == before[0], "mounted anew"
    assert where.loops() == before[1]
    assert (mount / "file").read_text() == "before"
    assert (mount / "open").read_text() == "written while nothing runs"
    status = _one(where, "pod", "steady")["status"]
    assert status["phase"] == "Running"
    assert status["containerStatuses"][0]["restartCount"] == 0
    mounted = [why for _, why, _ in where.events("steady") if why == "SuccessfulMountVolume"]
    assert len(mounted) == 1


def test_a_mount_that_was_lost_with_the_machine_is_made_again(
    machine_with_class: machine.Machine,
) -> None:
    """After a reboot the objects say Running, but nothing is mounted and no device attached."""
    where = machine_with_class
    mount = where.run_pod(pod("steady", "kept"), claim("kept", storage_class="kept"))
    (mount / "file").write_text("on the disk")
    where.kill()
    machine.release(where.data_dir)
    assert not where.mounts()
    where.start()
    machine.eventually(lambda: (mount / "file").exists(), what="the volume is mounted again")
    assert (mount / "file").read_text() == "on the disk"
    where.kubectl("delete", "pod,pvc", "--all")
    _nothing_left(where)


@pytest.mark.timeout(240)
def test_killed_at_any_moment_it_loses_doubles_and_orphans_nothing(
    machine_with_class: machine.Machine,
) -> None:
    where = machine_with_class
    seed = int.from_bytes(os.urandom(4))
    dice = random.Random(seed)
    print(f"seed {seed}")  # pytest shows it when the test fails
    wanted: list[Object] = []
    doomed: set[str] = set()
    for number in range(ROUNDS):
        made = [
            claim(f"c{number}-{each}", "16Mi", storage_class="kept")
            for each in range(CLAIMS // ROUNDS + 1)
        ]
        wanted += made
        wanted += [pod(f"p-{c['metadata']['name']}", _name(c)) for c in made[::EVERY_POD]]
        doomed |= _delete_some(where, dice)
        _interrupt(where, wanted, doomed, dice)
        where.start()
        _check_no_data_lost(where)
    left = [obj for obj in wanted if _name(obj).removeprefix("p-") not in doomed]
    where.apply(*left)
    gone = [word for name in doomed for word in (f"pod/p-{name}", f"pvc/{name}")]
    if gone:
        where.kubectl("delete", *gone, "--ignore-not-found", "--wait=false")
    _converged(where, left)
    where.kubectl("delete", "pod,pvc", "--all", "--wait=false")
    _nothing_left(where)


def _name(obj: Object) -> str:
    name: str = obj["metadata"]["name"]
    return name


def _delete_some(where: machine.Machine, dice: random.Random) -> set[str]:
    """Begin to delete some of what earlier rounds made, without waiting for it."""
    found = where.kubectl("get", "pvc", "-o", "name").split()
    names = [entry.partition("/")[2] for entry in found]
    chosen = set(dice.sample(names, min(2, len(names))))
    words = [word for name in chosen for word in (f"pod/p-{name}", f"pvc/{name}")]
    if words:
        where.kubectl("delete", *words, "--ignore-not-found", "--wait=false")
    return chosen


def _interrupt(
    where: machine.Machine, wanted: list[Object], doomed: set[str], dice: random.Random
) -> None:
    """Apply everything and kill the control plane somewhere in the middle of the work."""
    items = [obj for obj in wanted if _name(obj).removeprefix("p-") not in doomed]
    document = json.dumps({"apiVersion": "v1", "kind": "List", "items": items})
    with where.kubectl_started("apply", "-f", "-") as applying:
        assert applying.stdin is not None
        applying.stdin.write(document.encode())
        applying.stdin.close()
        time.sleep(dice.uniform(0.05, 0.9))
        where.kill()
        applying.kill()


def _check_no_data_lost(where: machine.Machine) -> set[str]:
    """Write a file into each pod's volume once, and find it there ever after.

    Gives the volumes of the pods that run.
    """
    volumes = {_name(obj): obj["spec"].get("volumeName") for obj in where.all("pvc")}
    seen = set()
    for obj in where.all("pod"):
        running = obj.get("status", {}).get("phase") == "Running"
        if not running or "deletionTimestamp" in obj["metadata"]:
            continue
        volume = volumes[obj["spec"]["volumes"][0]["persistentVolumeClaim"]["claimName"]]
        own = where.data_dir / "nodes" / machine.NODE / "pods" / obj["metadata"]["uid"]
        for mount in own.glob(f"volumes/*/{volume}/mount"):
            _check_written(mount / "written", where.data_dir / f"{volume}.written", volume)
            seen.add(volume)
    return seen


def _check_written(file: Path, note: Path, text: str) -> None:
    if note.exists():
        assert file.read_text() == text
        return
    with file.open("w") as stream:
        stream.write(text)
        stream.flush()
        os.fsync(stream.fileno())
    note.touch()


def _converged(where: machine.Machine, left: list[Object]) -> None:
    claims = [obj for obj in left if obj["kind"] == "PersistentVolumeClaim"]
    pods = [obj for obj in left if obj["kind"] == "Pod"]

    def settled() -> bool:
        bound = [obj for obj in where.all("pvc") if obj["status"]["phase"] == "Bound"]
        runs = [obj for obj in where.all("pod") if obj["status"]["phase"] == "Running"]
        return len(bound) == len(claims) == len(where.all("pv")) and len(runs) == len(pods)

    machine.eventually(settled, 60, "every claim is bound and every pod runs")
    bound = {obj["spec"]["volumeName"]: obj["metadata"]["uid"] for obj in where.all("pvc")}
    assert len(bound) == len(claims), "two claims with one volume"
    owners = {_name(obj): obj["spec"]["claimRef"]["uid"] for obj in where.all("pv")}
    assert owners == bound
    machine.eventually(lambda: where.stored() == set(bound), 10, "no orphan in the backend")
    used = _check_no_data_lost(where)
    assert len(used) == len(pods)
    devices = {Path(file).parent.name for file in where.loops()}
    assert devices in (used, set()), "each volume in use has its device, no other has one"


def _nothing_left(where: machine.Machine) -> None:
    def nothing() -> bool:
        if where.all("pv"):
            return False
        return not (where.stored() | where.loops() | set(where.mounts()))

    machine.eventually(nothing, 30, "no volume, file, loop device or mount is left")


def _one(where: machine.Machine, kind: str, name: str) -> dict[str, Any]:
    found = where.get(kind, name)
    assert found is not None, f"{kind} {name} is gone"
    return found
