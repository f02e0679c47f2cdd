"""Classes of GlusterFS on a cluster: `csi` volumes for both names, and none left behind."""

from __future__ import annotations

import asyncio
import os
import shutil
import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from e2e.heketi.conftest import Heketi
from holdfast.api import kinds
from holdfast.runtime.http import HttpClient
from holdfast.server.cluster import ClusterController
from holdfast.testing.cuts import Cut, CutClient
from oncluster.place import Cluster
from oncluster.test_controller import (
    controller,
    gone,
    make_claim,
    make_class,
    settings,
    until,
    volume_of,
)
from servers import gluster

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.root,
    pytest.mark.timeout(300),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]
NAMES = ("kubernetes.io/glusterfs", "gluster.holdfast.dev")


@pytest.fixture(scope="module")
def heketi(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Heketi]:
    """Three nodes with disks, loaded into a service."""
    directory = Path(tempfile.mkdtemp(prefix=f"hf-oncluster-{os.getpid()}-"))
    with gluster.Cluster(directory) as nodes:
        service = Heketi(nodes, tmp_path_factory.mktemp("heketi"))
        try:
            service.start()
            service.load("sdb", "sdc")
            yield service
        finally:
            service.stop()
    if str(directory) not in Path("/proc/mounts").read_text():
        shutil.rmtree(directory)


def _stored(heketi: Heketi) -> list[str]:
    return list(heketi.get("/volumes")["volumes"])


@pytest.mark.parametrize("provisioner", NAMES)
async def test_a_claim_gets_a_csi_volume_and_both_go(
    cluster: Cluster, client: HttpClient, heketi: Heketi, tmp_path: Path, provisioner: str
) -> None:
    class_name = await make_class(client, provisioner, parameters={"resturl": heketi.url})
    async with controller(cluster, tmp_path, local_node=""):
        claim = await make_claim(client, class_name, "1Gi")
        volume = await volume_of(client, claim, 60)
        source, made = volume["spec"]["csi"], await asyncio.to_thread(_stored, heketi)
        assert source["driver"] == "gluster.holdfast.dev"
        # What a node mounts is all in the volume: it need not ask for Endpoints.
        assert source["volumeAttributes"]["hosts"] and source["volumeAttributes"]["volume"]
        maker = volume["metadata"]["annotations"]["pv.kubernetes.io/provisioned-by"]
        assert maker == "gluster.holdfast.dev"
        assert len(made) == 1
        await client.delete(kinds.CLAIM, claim, "default")
        await until(partial(gone, client, kinds.VOLUME, volume["metadata"]["name"]), 60)
    assert await asyncio.to_thread(_stored, heketi) == []


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("step", [1, 2, 3])
async def test_a_crash_at_any_write_and_a_claim_deleted_meanwhile_leave_no_volume(
    cluster: Cluster,
    client: HttpClient,
    heketi: Heketi,
    tmp_path: Path,
    step: int,
    after: bool,
) -> None:
    class_name = await make_class(client, NAMES[0], parameters={"resturl": heketi.url})
    cut = Cut(step, after=after)
    async with cluster.access.client() as http:
        given = settings(tmp_path / "first", local_node="")
        first = ClusterController(CutClient(http, cut), given)
        task = asyncio.ensure_future(first.work())
        claim = await make_claim(client, class_name, "1Gi")
        await asyncio.wait_for(cut.happened.wait(), 60)
        await client.delete(kinds.CLAIM, claim, "default")
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await first.close()
    async with controller(cluster, tmp_path / "second", local_node=""):
        await until(partial(gone, client, kinds.CLAIM, claim, "default"), 60)

        async def clean() -> bool:
            return not await asyncio.to_thread(_stored, heketi)

        await until(clean, 60)
