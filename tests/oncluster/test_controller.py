"""`holdfast controller` on a cluster: every old and new name, deletion, growth, hand-over."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from holdfast.api import errors, kinds
from holdfast.runtime.client import Client
from holdfast.runtime.leader import Election, Timing
from holdfast.server import cluster as composition
from holdfast.server.cluster import ClusterController, Settings
from holdfast.testing.cuts import Cut, CutClient
from oncluster.place import Cluster

Object = dict[str, Any]
# A request that is cancelled while its connection is being made leaves the socket to the garbage
# collector; a replica that is ended here would be a process that ends.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
NODE = "node-1"
QUICK = Timing(lease=2.0, renew=1.2, retry=0.2)


def settings(directory: Path, **more: Any) -> Settings:
    given = {"storage": {}, "local_node": NODE, **more}
    return Settings(directory / "data", namespace="kube-system", **given)


@asynccontextmanager
async def controller(cluster: Cluster, directory: Path, **more: Any) -> AsyncIterator[None]:
    """One replica at work, ended without a farewell."""
    async with cluster.access.client() as client:
        made = ClusterController(client, settings(directory, **more))
        await made.check()
        task = asyncio.ensure_future(made.work())
        try:
            yield
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            await made.close()


async def until(look: Callable[[], Awaitable[Any]], seconds: float = 30.0) -> Any:
    """Wait until `look` returns something true, and return it."""
    deadline = asyncio.get_running_loop().time() + seconds
    while True:
        found = await look()
        if found:
            return found
        assert asyncio.get_running_loop().time() < deadline, f"not in {seconds} s: {look}"
        await asyncio.sleep(0.1)


async def make_class(client: Client, provisioner: str, **more: Any) -> str:
    name = f"class-{secrets.token_hex(4)}"
    body = {"metadata": {"name": name}, "provisioner": provisioner, **more}
    await client.create(kinds.STORAGE_CLASS, body)
    return name


async def make_claim(client: Client, class_name: str, size: str = "1Mi") -> str:
    name = f"claim-{secrets.token_hex(4)}"
    spec = {
        "accessModes": ["ReadWriteOnce"],
        "storageClassName": class_name,
        "resources": {"requests": {"storage": size}},
    }
    body = {"metadata": {"name": name}, "spec": spec}
    await client.create(kinds.CLAIM, body, "default")
    return name


async def bound(client: Client, name: str) -> Object | None:
    claim = await client.get(kinds.CLAIM, name, "default")
    return claim if claim["status"].get("phase") == "Bound" else None


async def volume_of(client: Client, claim: str, seconds: float = 30.0) -> Object:
    try:
        found = await until(lambda: bound(client, claim), seconds)
    except AssertionError as error:
        events = (await client.list(kinds.EVENT, "default")).items
        told = [each["message"] for each in events if each["involvedObject"]["name"] == claim]
        raise AssertionError(f"claim {claim} is not bound: {told}") from error
    return await client.get(kinds.VOLUME, found["spec"]["volumeName"])


async def gone(client: Client, kind: kinds.Kind, name: str, namespace: str | None = None) -> bool:
    try:
        await client.get(kind, name, namespace)
    except errors.NotFound:
        return True
    return False


def stored(directory: Path) -> list[str]:
    """The volumes there are on the disk, unfinished ones included."""
    root = directory / "data" / "volumes"
    return sorted(each.name for each in root.glob("*pvc-*")) if root.is_dir() else []


@pytest.mark.parametrize("provisioner", ["local.holdfast.dev", "kubernetes.io/host-path"])
async def test_a_claim_gets_a_csi_volume_whatever_the_name_of_its_class(
    cluster: Cluster, client: Client, tmp_path: Path, provisioner: str
) -> None:
    parameters = {} if provisioner.startswith("kubernetes.io") else {"layout": "directory"}
    class_name = await make_class(client, provisioner, parameters=parameters)
    async with controller(cluster, tmp_path):
        claim = await make_claim(client, class_name)
        volume = await volume_of(client, claim)
        assert volume["spec"]["csi"]["driver"] == "local.holdfast.dev"
        maker = volume["metadata"]["annotations"]["pv.kubernetes.io/provisioned-by"]
        assert maker == "local.holdfast.dev"
        assert stored(tmp_path) == [volume["spec"]["csi"]["volumeHandle"]]
        await client.delete(kinds.CLAIM, claim, "default")
        await until(lambda: gone(client, kinds.VOLUME, volume["metadata"]["name"]))
        assert stored(tmp_path) == []


async def test_a_volume_grows(cluster: Cluster, client: Client, tmp_path: Path) -> None:
    class_name = await make_class(
        client,
        "local.holdfast.dev",
        parameters={"layout": "directory"},
        allowVolumeExpansion=True,
    )
    async with controller(cluster, tmp_path):
        claim = await make_claim(client, class_name)
        volume = await volume_of(client, claim)
        patch = {"spec": {"resources": {"requests": {"storage": "3Mi"}}}}
        await client.patch(kinds.CLAIM, claim, patch, "default")

        async def grown() -> bool:
            found = await client.get(kinds.CLAIM, claim, "default")
            return bool(found["status"]["capacity"]["storage"] == "3Mi")

        await until(grown)
        found = await client.get(kinds.VOLUME, volume["metadata"]["name"])
        assert found["spec"]["capacity"]["storage"] == "3Mi"
        await client.delete(kinds.CLAIM, claim, "default")
        await until(lambda: gone(client, kinds.VOLUME, volume["metadata"]["name"]))


async def test_a_claim_that_is_deleted_while_nobody_works_leaves_nothing(
    cluster: Cluster, client: Client, tmp_path: Path
) -> None:
    class_name = await make_class(client, "local.holdfast.dev", parameters={"layout": "directory"})
    names = [await make_claim(client, class_name) for _ in range(10)]
    async with controller(cluster, tmp_path):
        await until(lambda: _some_begun(tmp_path))
    for name in names:
        with contextlib.suppress(errors.NotFound):
            await client.delete(kinds.CLAIM, name, "default")
    async with controller(cluster, tmp_path):
        for name in names:
            await until(partial(gone, client, kinds.CLAIM, name, "default"))

        async def clean() -> bool:
            return not stored(tmp_path)

        await until(clean)


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("step", [1, 2, 3])
async def test_a_crash_at_any_write_and_a_claim_deleted_meanwhile_leave_no_volume(
    cluster: Cluster, client: Client, tmp_path: Path, step: int, after: bool
) -> None:
    class_name = await make_class(client, "local.holdfast.dev", parameters={"layout": "directory"})
    cut = Cut(step, after=after)
    async with cluster.access.client() as http:
        # The steps are: finalizer on the claim, volume object, finalizer off.
        made = ClusterController(CutClient(http, cut), settings(tmp_path))
        task = asyncio.ensure_future(made.work())
        claim = await make_claim(client, class_name)
        await asyncio.wait_for(cut.happened.wait(), 30)
        await client.delete(kinds.CLAIM, claim, "default")
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await made.close()
    async with controller(cluster, tmp_path):
        await until(lambda: gone(client, kinds.CLAIM, claim, "default"))

        async def clean() -> bool:
            volumes = (await client.list(kinds.VOLUME)).items
            ours = [each for each in volumes if each["spec"]["storageClassName"] == class_name]
            return not stored(tmp_path) and not ours

        await until(clean)


async def _some_begun(directory: Path) -> bool:
    return bool(stored(directory))


async def test_a_driver_that_somebody_else_serves_is_left_alone(
    cluster: Cluster, client: Client, tmp_path: Path
) -> None:
    body = {"metadata": {"name": "local.holdfast.dev"}, "spec": {"attachRequired": False}}
    await client.create(kinds.CSI_DRIVER, body)
    try:
        with pytest.raises(composition.ClusterError, match="two controllers that answer"):
            async with controller(cluster, tmp_path):
                pass
        async with controller(cluster, tmp_path, skip=frozenset({"local.holdfast.dev"})):
            pass
        async with controller(cluster, tmp_path, take_over=frozenset({"local.holdfast.dev"})):
            pass
    finally:
        await client.delete(kinds.CSI_DRIVER, "local.holdfast.dev")


async def _end(*tasks: asyncio.Task[None]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def test_hand_over_in_the_middle_of_two_hundred_claims_loses_and_doubles_none(
    cluster: Cluster, client: Client, tmp_path: Path
) -> None:
    class_name = await make_class(client, "local.holdfast.dev", parameters={"layout": "directory"})
    names = await asyncio.gather(*(make_claim(client, class_name) for _ in range(200)))
    turns = 0
    async with contextlib.AsyncExitStack() as stack:
        replicas = []
        for number in range(2):
            http = await stack.enter_async_context(cluster.access.client())
            made = ClusterController(http, settings(tmp_path))
            stack.push_async_callback(made.close)
            election = Election(
                http,
                name=f"lease-{class_name}",
                namespace="kube-system",
                identity=f"replica-{number}",
                timing=QUICK,
            )
            replicas.append((made, election))
        tasks = [asyncio.ensure_future(election.run(made.work)) for made, election in replicas]
        stack.push_async_callback(_end, *tasks)

        async def count() -> int:
            listing = await client.list(kinds.CLAIM, "default")
            wanted = set(names)
            return sum(
                each["metadata"]["name"] in wanted and each["status"].get("phase") == "Bound"
                for each in listing.items
            )

        while (done := await count()) < len(names):
            leading = [i for i, (_, each) in enumerate(replicas) if each.leading]
            if turns < 2 and leading and done >= 60 * (turns + 1):
                # The one that works stops in the middle; the other goes on.
                [leader] = leading
                await _end(tasks[leader])
                made, election = replicas[leader]
                tasks[leader] = asyncio.ensure_future(election.run(made.work))
                turns += 1
            await asyncio.sleep(0.05)
        volumes = [await volume_of(client, name) for name in names]
        handles = {each["spec"]["csi"]["volumeHandle"] for each in volumes}
        assert len(handles) == len(names)
        assert stored(tmp_path) == sorted(handles)
        assert turns == 2
        await _end(*tasks)
    for name in names:
        await client.delete(kinds.CLAIM, name, "default")
    async with controller(cluster, tmp_path):

        async def clean() -> bool:
            return not stored(tmp_path)

        await until(clean, 60)
