"""Snapshots and clones on a cluster: by our snapshot-controller, and beside the official one."""

from __future__ import annotations

import contextlib
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from holdfast.api import kinds
from holdfast.runtime.http import HttpClient
from oncluster import snapshots, storage
from oncluster.place import Cluster
from oncluster.test_controller import controller, gone, make_claim, make_class, until, volume_of
from servers import sidecars
from servers.ceph.pools import Pool

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.timeout(1800),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]
DRIVER = "rbd.csi.ceph.com"


@pytest.mark.parametrize(
    ("cluster", "official"),
    [("embedded", False), ("kubernetes", False), ("kubernetes", True)],
    indirect=["cluster"],
    ids=["embedded", "kubernetes", "kubernetes-official"],
)
async def test_a_snapshot_is_taken_restored_and_deleted(
    cluster: Cluster, client: HttpClient, pool: Pool, tmp_path: Path, official: bool
) -> None:
    await storage.write_secrets(client, pool)
    parameters = storage.ceph_csi(pool)
    class_name = await make_class(client, DRIVER, parameters=parameters)
    more = {"storage": {"rbd": pool.instances}, "snapshot_controller": not official}
    async with contextlib.AsyncExitStack() as stack:
        if cluster.real:
            programs = sidecars.built()
            await snapshots.install(client, programs)
            if official:
                running = sidecars.running(
                    programs, tmp_path, tmp_path / "none", cluster.kubeconfig, "snapshot-controller"
                )
                stack.enter_context(running)
        await stack.enter_async_context(controller(cluster, tmp_path, **more))
        claim = await make_claim(client, class_name, "64Mi")
        volumes = [(await volume_of(client, claim, 60))["metadata"]["name"]]
        snapshot = await snapshots.take(client, DRIVER, claim)
        for source in (
            snapshots.reference(snapshot),
            {"kind": "PersistentVolumeClaim", "name": claim},
        ):
            copy = await snapshots.claim_from(client, class_name, source)
            volumes.append((await volume_of(client, copy))["metadata"]["name"])
            await client.delete(kinds.CLAIM, copy, "default")
        await snapshots.delete(client, snapshot)
        await client.delete(kinds.CLAIM, claim, "default")
        for name in volumes:
            await until(partial(gone, client, kinds.VOLUME, name), 60)
    assert pool.images() == []
    assert pool.leftovers() == set()


async def test_a_retained_snapshot_outlives_its_object_and_is_found_again(
    cluster: Cluster, client: HttpClient, pool: Pool, tmp_path: Path
) -> None:
    await storage.write_secrets(client, pool)
    class_name = await make_class(client, DRIVER, parameters=storage.ceph_csi(pool))
    if cluster.real:
        await snapshots.install(client, sidecars.built())
    more = {"storage": {"rbd": pool.instances}, "snapshot_controller": True}
    async with controller(cluster, tmp_path, **more):
        claim = await make_claim(client, class_name, "64Mi")
        volume = (await volume_of(client, claim, 60))["metadata"]["name"]
        snapshot = await snapshots.take(client, DRIVER, claim, "Retain")
        content = await snapshots.content_of(client, snapshot)
        handle = content["status"]["snapshotHandle"]
        await client.delete(kinds.SNAPSHOT, snapshot, "default")
        await until(partial(gone, client, kinds.SNAPSHOT, snapshot, "default"), 60)
        kept = content["metadata"]["name"]
        # Nothing of it may go by itself: only a person says so.
        assert "deletionTimestamp" not in (await _content(client, kept))["metadata"]
        await client.delete(kinds.SNAPSHOT_CONTENT, kept)
        await until(partial(gone, client, kinds.SNAPSHOT_CONTENT, kept), 60)

        found = await snapshots.find(client, DRIVER, handle)
        copy = await snapshots.claim_from(client, class_name, snapshots.reference(found))
        copied = (await volume_of(client, copy))["metadata"]["name"]
        await snapshots.delete(client, found)
        for name in (copy, claim):
            await client.delete(kinds.CLAIM, name, "default")
        for name in (copied, volume):
            await until(partial(gone, client, kinds.VOLUME, name), 60)
    assert pool.images() == []
    assert pool.leftovers() == set()


async def _content(client: HttpClient, name: str) -> dict[str, Any]:
    return await client.get(kinds.SNAPSHOT_CONTENT, name)
