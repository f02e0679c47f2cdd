"""A claim is deleted while its volume is made and the controller ends just then: nothing is left.

The storage systems are real ones on the network. The replica that goes on has a directory of its
own, as another pod would: all it can know is in the cluster and in the storage system.
"""

from __future__ import annotations

import asyncio
from functools import partial
from pathlib import Path

import pytest

from holdfast.api import errors, kinds
from holdfast.controllers.provisioning.provisioner import FINALIZER
from holdfast.runtime.http import HttpClient
from holdfast.server.cluster import ClusterController
from holdfast.testing.cuts import Cut, CutClient
from oncluster import storage
from oncluster.place import Cluster
from oncluster.storage import NAMES, Name, Systems
from oncluster.test_controller import controller, gone, make_claim, make_class, settings, until

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.timeout(300),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.filterwarnings("ignore::openstack.warnings._RemovedInSDKWarning"),
]
# One name of each storage system; the first is one that no other provisioner can serve.
REMOTE = [
    each
    for each in NAMES
    if each.provisioner
    in ("kubernetes.io/rbd", "cinder.csi.openstack.org", "csi.vsphere.vmware.com")
]


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("step", [1, 2, 3])
@pytest.mark.parametrize("name", REMOTE, ids=[each.provisioner for each in REMOTE])
async def test_a_crash_at_any_write_and_a_claim_deleted_meanwhile_leave_no_volume(
    cluster: Cluster,
    client: HttpClient,
    systems: Systems,
    tmp_path: Path,
    name: Name,
    step: int,
    after: bool,
) -> None:
    await storage.write_secrets(client, systems.pool)
    parameters = dict(name.parameters(systems))
    class_name = await make_class(client, name.provisioner, parameters=parameters)
    instances = systems.instances()
    cut = Cut(step, after=after)
    async with cluster.access.client() as http:
        # The steps are: finalizer on the claim, volume object, finalizer off.
        first = ClusterController(
            CutClient(http, cut), settings(tmp_path / "first", storage=instances, local_node="")
        )
        task = asyncio.ensure_future(first.work())
        claim = await make_claim(client, class_name, name.size)
        await asyncio.wait_for(cut.happened.wait(), 60)
        await client.delete(kinds.CLAIM, claim, "default")
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await first.close()
    async with controller(cluster, tmp_path / "second", storage=instances, local_node=""):
        await until(partial(gone, client, kinds.CLAIM, claim, "default"), 60)

        async def clean() -> bool:
            volumes = (await client.list(kinds.VOLUME)).items
            ours = [each for each in volumes if each["spec"]["storageClassName"] == class_name]
            return not ours and not await asyncio.to_thread(systems.stored, name.driver)

        await until(clean, 60)


@pytest.mark.parametrize("name", REMOTE, ids=[each.provisioner for each in REMOTE])
async def test_a_volume_that_is_being_made_goes_with_its_claim(
    cluster: Cluster, client: HttpClient, systems: Systems, tmp_path: Path, name: Name
) -> None:
    """The controller ends again and again, at other moments of the backend's own work."""
    await storage.write_secrets(client, systems.pool)
    parameters = dict(name.parameters(systems))
    class_name = await make_class(client, name.provisioner, parameters=parameters)
    instances = systems.instances()
    claims = []
    for number in range(4):
        async with controller(cluster, tmp_path / str(number), storage=instances, local_node=""):
            claim = await make_claim(client, class_name, name.size)
            claims.append(claim)
            await until(partial(_begun, client, claim))
            await asyncio.sleep(0.15 * number)
            await client.delete(kinds.CLAIM, claim, "default")
    async with controller(cluster, tmp_path / "last", storage=instances, local_node=""):
        for claim in claims:
            await until(partial(gone, client, kinds.CLAIM, claim, "default"), 60)

        async def clean() -> bool:
            return not await asyncio.to_thread(systems.stored, name.driver)

        await until(clean, 60)


async def _begun(client: HttpClient, claim: str) -> bool:
    try:
        found = await client.get(kinds.CLAIM, claim, "default")
    except errors.NotFound:
        return True
    # It may be made between two looks.
    held = FINALIZER in (found["metadata"].get("finalizers") or ())
    return held or bool(found["spec"].get("volumeName"))
