"""The vSphere backend when the way to vCenter fails, or Holdfast is killed.

A proxy fails calls by name. After each failure the operation is repeated until it succeeds,
as the controllers do, and govc is asked what really is there: one volume or none, never two.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import pytest

import machine
from holdfast.backends import errors
from holdfast.backends.protocol import VolumeRequest
from holdfast.backends.vsphere.backend import VsphereBackend
from servers.vsphere.faultproxy import FaultProxy, Rule
from servers.vsphere.vcenter import VCenter

pytestmark = pytest.mark.e2e

GIB = 1 << 30
MACHINE = "/DC0/vm/DC0_C0_RP0_VM0"
_NUMBERS = itertools.count(1)
T = TypeVar("T")


def settings(vcenter: VCenter, port: int, **more: object) -> dict[str, object]:
    return vcenter.settings(port=port, default_datastore="LocalDS_0", **more)


def request(disk: str) -> VolumeRequest:
    return VolumeRequest(f"pvc-{next(_NUMBERS)}-faults", GIB, {"disk": disk})


async def until_done(call: Callable[[], Awaitable[T]], seen: list[str]) -> T:
    """Repeat a call as the controllers do, and note what each failure said."""
    for _ in range(12):
        try:
            return await call()
        except errors.BackendError as error:
            assert error.retryable, f"not retryable: {error!r}"
            seen.append(str(error))
    raise AssertionError(f"never done: {seen}")


def volumes(vcenter: VCenter, name: str) -> int:
    """How many volumes of this name there are, of either kind."""
    plain = sum(name in each for each in vcenter.files("LocalDS_0", "kubevols"))
    return plain + vcenter.govc("disk.ls", "-ds", "LocalDS_0").count(name)


FAILURES = (
    Rule("", "delay", seconds=0.15),
    Rule("", "status", code=503),
    Rule("", "reset"),
    Rule("", "lost"),
    Rule("", "fault", name="NotAuthenticated"),
    Rule("", "fault", name="HostCommunication"),
)
CREATING = ("CreateVirtualDisk_Task", "CreateDisk_Task", "RetrievePropertiesEx")


@pytest.mark.parametrize("failure", FAILURES, ids=lambda rule: f"{rule.kind}{rule.name}")
@pytest.mark.parametrize("disk", ["vmdk", "fcd"])
async def test_a_create_that_fails_anywhere_makes_one_volume(
    backend: VsphereBackend, vcenter: VCenter, proxy: FaultProxy, disk: str, failure: Rule
) -> None:
    warm = await backend.create_volume(request(disk))
    for method in CREATING:
        wanted, seen = request(disk), list[str]()
        proxy.fail(Rule(method, failure.kind, 2, failure.seconds, failure.code, failure.name))
        made = await until_done(lambda wanted=wanted: backend.create_volume(wanted), seen)  # type: ignore[misc]
        proxy.heal()
        assert volumes(vcenter, wanted.name) == 1, (method, seen)
        assert all("127.0.0.1" in text for text in seen), seen
        again = await backend.create_volume(wanted)
        assert again.id == made.id
        await backend.delete_volume(made.id)
        assert volumes(vcenter, wanted.name) == 0
    await backend.delete_volume(warm.id)


@pytest.mark.parametrize("failure", FAILURES, ids=lambda rule: f"{rule.kind}{rule.name}")
@pytest.mark.parametrize("disk", ["vmdk", "fcd"])
async def test_attach_detach_and_delete_that_fail_end_as_they_should(
    backend: VsphereBackend, vcenter: VCenter, proxy: FaultProxy, disk: str, failure: Rule
) -> None:
    made = await backend.create_volume(request(disk))
    uuid = vcenter.uuid_of(MACHINE)

    def break_(*methods: str) -> None:
        proxy.heal()
        for method in methods:
            proxy.fail(Rule(method, failure.kind, 1, failure.seconds, failure.code, failure.name))

    reading = ("FindByUuid", "QueryVirtualDiskUuid", "RetrievePropertiesEx")
    break_("ReconfigVM_Task", "AttachDisk_Task", *reading)
    context = await until_done(lambda: backend.attach(made.id, uuid, False), [])
    assert len(vcenter.attached(MACHINE)) == 1
    assert len(context["diskUUID"]) == 32
    break_("ReconfigVM_Task", "DetachDisk_Task", *reading)
    await until_done(lambda: backend.detach(made.id, uuid), [])
    assert vcenter.attached(MACHINE) == []
    break_("DeleteVirtualDisk_Task", "DeleteVStorageObject_Task", *reading)
    await until_done(lambda: backend.delete_volume(made.id), [])
    proxy.heal()
    assert volumes(vcenter, made.id) == 0


async def test_an_answer_about_tags_is_complete_or_an_error(
    vcenter: VCenter, proxy: FaultProxy, tmp_path: Path
) -> None:
    """Every call that finding classes takes fails once, in each way; none may hide a class."""
    for name in ("region", "zone"):
        vcenter.govc("tags.category.create", f"hf-{name}")
        vcenter.govc("tags.create", "-c", f"hf-{name}", f"{name}-1")
    vcenter.govc("tags.attach", "-c", "hf-region", "region-1", "/DC0")
    for store in ("LocalDS_0", "LocalDS_1"):
        vcenter.govc("tags.attach", "-c", "hf-zone", "zone-1", f"/DC0/datastore/{store}")
    made = VsphereBackend(
        {
            "main": settings(
                vcenter, proxy.port, region_category="hf-region", zone_category="hf-zone"
            )
        },
        tmp_path / "own",
    )
    try:
        complete = list(await made.wanted_classes())
        assert len(complete) == 2
        before = Counter(proxy.calls)
        await made.wanted_classes()
        asked = proxy.calls - before
        assert len(asked) >= 4
        refused = 0
        for method, failure in itertools.product(asked, (FAILURES[1], FAILURES[3], FAILURES[4])):
            for nth in sorted({1, asked[method]}):
                passed = Rule(method, "delay", nth - 1)
                fails = Rule(method, failure.kind, 1, 0.0, failure.code, failure.name)
                proxy.fail(passed, fails)
                try:
                    assert list(await made.wanted_classes()) == complete, (method, failure)
                except errors.BackendError as error:
                    assert error.retryable, error
                    refused += 1
                proxy.heal()
        assert refused >= len(asked), "the failures passed unnoticed"
        assert list(await made.wanted_classes()) == complete
    finally:
        await made.close()


async def test_many_at_once_through_a_bad_line_are_made_once_each(
    backend: VsphereBackend, vcenter: VCenter, proxy: FaultProxy
) -> None:
    proxy.fail(
        Rule("CreateVirtualDisk_Task", "lost", 5),
        Rule("RetrievePropertiesEx", "status", 5),
        Rule("RetrievePropertiesEx", "fault", 3, name="NotAuthenticated"),
    )
    wanted = [request("vmdk") for _ in range(20)]
    made = await asyncio.gather(
        *(until_done(lambda one=one: backend.create_volume(one), []) for one in wanted)  # type: ignore[misc]
    )
    proxy.heal()
    assert len({each.id for each in made}) == 20
    there = vcenter.files("LocalDS_0", "kubevols")
    assert all(sum(each.name in file for file in there) == 1 for each in wanted)
    listed = {each.id for each in (await backend.list_volumes()).volumes}
    assert {each.id for each in made} <= listed
    await asyncio.gather(*(backend.delete_volume(each.id) for each in made))


# Runs in a process of its own, so that it can be killed between any two calls.
_CHILD = """
import asyncio, sys
from pathlib import Path
import msgspec
from holdfast.backends.protocol import VolumeRequest
from holdfast.backends.vsphere.backend import VsphereBackend

async def main():
    told = msgspec.json.decode(sys.stdin.buffer.read())
    backend = VsphereBackend({"main": told["settings"]}, Path(told["directory"]))
    print("ready", flush=True)
    wanted = VolumeRequest(told["name"], told["size"], told["parameters"])
    made = await backend.create_volume(wanted)
    if told["node"]:
        await backend.attach(made.id, told["node"], False)
    print("done", flush=True)

asyncio.run(main())
"""


def start(told: dict[str, Any]) -> subprocess.Popen[bytes]:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(machine.SOURCE), *sys.path])}
    child = subprocess.Popen(
        [sys.executable, "-c", _CHILD],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=environment,
    )
    assert child.stdin is not None and child.stdout is not None
    child.stdin.write(msgspec.json.encode(told))
    child.stdin.close()
    assert child.stdout.readline() == b"ready\n"
    return child


def wait(look: Callable[[], bool], seconds: float = 10.0) -> None:
    deadline = time.monotonic() + seconds
    while not look() and time.monotonic() < deadline:
        time.sleep(0.01)


def kill(child: subprocess.Popen[bytes]) -> None:
    child.send_signal(signal.SIGKILL)
    child.wait()
    if child.stdout is not None:
        child.stdout.close()


KILLED_AT = {
    "vmdk": (
        "CreateVirtualDisk_Task",
        "QueryVirtualDiskUuid",
        "ReconfigVM_Task",
        "RetrievePropertiesEx",
    ),
    "fcd": ("CreateDisk_Task", "AttachDisk_Task", "RetrievePropertiesEx"),
}


@pytest.mark.parametrize("disk", ["vmdk", "fcd"])
async def test_killed_at_any_call_nothing_is_doubled_or_orphaned(
    vcenter: VCenter, proxy: FaultProxy, tmp_path: Path, disk: str
) -> None:
    """The child is held at its nth call and killed there; a new process goes on."""
    uuid = vcenter.uuid_of(MACHINE)
    told = {
        "settings": settings(vcenter, proxy.port),
        "directory": str(tmp_path / "own"),
        "size": GIB,
        "parameters": {"disk": disk},
        "node": uuid,
    }
    for method in KILLED_AT[disk]:
        wanted = request(disk)
        proxy.heal()
        proxy.fail(Rule(method, "delay", 1, seconds=0.6))
        child = start({**told, "name": wanted.name})
        await asyncio.to_thread(wait, lambda: proxy.left() == 0)
        assert proxy.left() == 0, f"{method} was never called"
        await asyncio.sleep(0.05)
        kill(child)
        # What was under way at the proxy arrives after its sender is dead.
        await asyncio.sleep(0.8)
        proxy.heal()
        backend = VsphereBackend({"main": settings(vcenter, proxy.port)}, tmp_path / "own")
        try:
            made = await until_done(lambda: backend.create_volume(wanted), [])  # noqa: B023
            assert volumes(vcenter, wanted.name) == 1, method
            await until_done(lambda: backend.attach(made.id, uuid, False), [])  # noqa: B023
            assert len(vcenter.attached(MACHINE)) == 1, method
            await backend.detach(made.id, uuid)
            await backend.delete_volume(made.id)
            assert volumes(vcenter, wanted.name) == 0, method
            assert not list((tmp_path / "own" / "creating").iterdir())
        finally:
            await backend.close()


@pytest.mark.parametrize(
    ("disk", "order"), [("vmdk", "CreateVirtualDisk_Task"), ("fcd", "CreateDisk_Task")]
)
async def test_a_restart_waits_for_the_task_the_dead_process_started(
    slow: VCenter, tmp_path: Path, disk: str, order: str
) -> None:
    wanted = request(disk)
    child = start(
        {
            "settings": slow.settings(),
            "directory": str(tmp_path / "own"),
            "size": GIB,
            "node": "",
            "name": wanted.name,
            "parameters": dict(wanted.parameters),
        }
    )
    await asyncio.to_thread(wait, lambda: bool(task_noted(tmp_path / "own")))
    kill(child)
    assert task_noted(tmp_path / "own")
    backend = VsphereBackend({"main": slow.settings()}, tmp_path / "own")
    try:
        begun = time.monotonic()
        found = await backend.find_volume(wanted)
        assert time.monotonic() - begun > 0.5, "it did not wait for the task"
        assert found is not None and found.size == GIB
        assert backend.gateway.calls()[order] == 0
        assert await backend.create_volume(wanted) == found
        assert volumes(slow, wanted.name) == 1
    finally:
        await backend.close()


async def test_who_gives_up_waiting_for_a_task_does_not_take_it_from_others(
    slow: VCenter, tmp_path: Path
) -> None:
    backend = VsphereBackend({"main": slow.settings()}, tmp_path / "own")
    wanted = request("vmdk")
    try:
        first = asyncio.create_task(backend.create_volume(wanted))
        await asyncio.to_thread(wait, lambda: bool(task_noted(tmp_path / "own")))
        # Before it gives up and after it: both wait for the task that runs.
        second = asyncio.create_task(backend.find_volume(wanted))
        await asyncio.sleep(0.2)
        first.cancel()
        with pytest.raises(asyncio.CancelledError):
            await first
        third = await backend.create_volume(wanted)
        assert await second == third
        assert sum(wanted.name in each for each in slow.files("LocalDS_0", "kubevols")) == 1
    finally:
        await backend.close()


@pytest.fixture(scope="module")
def slow(tmp_path_factory: pytest.TempPathFactory) -> Iterator[VCenter]:
    """A vCenter that takes two seconds to make a disk of either kind."""
    delays = ("-method-delay", "CreateVirtualDisk:2000,CreateDisk:2000")
    found = VCenter(tmp_path_factory.mktemp("hf-h8-slow"), *delays)
    # Else the first disk fails for want of its directory, and is begun again.
    found.govc("datastore.mkdir", "-ds", "LocalDS_0", "kubevols")
    yield found
    found.stop()


def task_noted(directory: Path) -> str:
    """The task that the note about a disk on its way names; empty without one."""
    for each in (directory / "creating").glob("*.json"):
        return str(msgspec.json.decode(each.read_bytes())["task"])
    return ""
