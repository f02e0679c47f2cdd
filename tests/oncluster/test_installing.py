"""What `holdfast install` prints, on a cluster: schemas, and roles that are enough and no more."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
import yaml

from holdfast.api import errors, kinds, quantity
from holdfast.runtime.access import Access
from holdfast.runtime.client import Client
from holdfast.runtime.http import HttpClient
from holdfast.runtime.leader import Election
from holdfast.server.cluster import ClusterController, Settings
from holdfast.server.deploy import manifests
from machine import ROOT
from oncluster import snapshots as snapshot_kinds
from oncluster.place import Cluster
from rbac import Grant, RoleClient, grants
from servers import sidecars

Object = dict[str, Any]
NODE = "node-1"
NAMESPACE = "holdfast-install"
LEASE = "holdfast-controller"
DRIVER = "local.holdfast.dev"
PLURALS = {
    "PodDisruptionBudget": "poddisruptionbudgets",
    "CSIDriver": "csidrivers",
    "ServiceMonitor": "servicemonitors",
}
CLUSTER_WIDE = ("Namespace", "ClusterRole", "ClusterRoleBinding", "CSIDriver", "StorageClass")
# What this life does not come to: repeats after a crash, lost nodes, attaching, repeated events.
ELSEWHERE: set[Grant] = {
    ("", "persistentvolumes", "get"),
    ("", "persistentvolumeclaims", "get"),
    ("snapshot.storage.k8s.io", "volumesnapshotcontents", "get"),
    ("", "nodes", "patch"),
    ("", "nodes", "get"),
    ("", "events", "patch"),
    ("storage.k8s.io", "volumeattachments", "patch"),
    ("storage.k8s.io", "volumeattachments/status", "patch"),
    ("storage.k8s.io", "csistoragecapacities", "patch"),
}


def chart(*settings: str) -> list[Object]:
    enabled = rf"drivers.{DRIVER.replace('.', chr(92) + '.')}.enabled=true"
    values = manifests.with_settings(
        manifests.defaults(), ["createNamespace=true", enabled, *settings]
    )
    return list(manifests.objects(values, NAMESPACE))


def rules(objects: list[Object]) -> list[Object]:
    return [
        rule
        for each in objects
        if each["kind"] in ("ClusterRole", "Role")
        for rule in each["rules"]
    ]


def path_of(obj: Object) -> str:
    plural = PLURALS.get(obj["kind"], obj["kind"].lower() + "s")
    if obj["kind"] == "StorageClass":
        plural = "storageclasses"
    group = "/api/v1" if obj["apiVersion"] == "v1" else f"/apis/{obj['apiVersion']}"
    scope = "" if obj["kind"] in CLUSTER_WIDE else f"/namespaces/{obj['metadata']['namespace']}"
    return f"{group}{scope}/{plural}"


async def apply(client: HttpClient, obj: Object, *, dry: bool) -> None:
    query: dict[str, str | int] = {"fieldManager": "test", "fieldValidation": "Strict"}
    if dry:
        query["dryRun"] = "All"
    path = f"{path_of(obj)}/{obj['metadata']['name']}"
    await client.request(
        "PATCH", path, body=obj, content_type="application/apply-patch+yaml", query=query
    )


@pytest.fixture
async def installed(cluster: Cluster, client: HttpClient) -> AsyncIterator[list[Object]]:
    """The objects of the chart on a real cluster, where its accounts and roles are in force."""
    if not cluster.real:
        pytest.skip("the embedded API has no roles, DaemonSets or PodDisruptionBudgets")
    objects = chart()
    for kind in ("Namespace", "ServiceAccount", "ClusterRole", "Role"):
        for each in objects:
            if each["kind"] in (kind, f"{kind}Binding"):
                await apply(client, each, dry=False)
    yield objects


async def test_every_object_is_what_a_real_server_accepts(
    client: HttpClient, installed: list[Object]
) -> None:
    settings = ("controller.snapshotController=true", "controller.arguments={--except=x}")
    for each in chart(*settings):
        await apply(client, each, dry=True)
    assert len(installed) >= 12


async def test_the_examples_of_classes_are_what_a_real_server_accepts(
    client: HttpClient, installed: list[Object]
) -> None:
    text = (ROOT / "deploy" / "storage-classes.yaml").read_text()
    found = list(yaml.safe_load_all(text))
    for each in found:
        await apply(client, each, dry=True)
    assert installed and len(found) >= 5


async def until(look: Callable[[], Any], seconds: float = 30.0) -> Any:
    deadline = asyncio.get_running_loop().time() + seconds
    while True:
        found = await look()
        if found:
            return found
        assert asyncio.get_running_loop().time() < deadline, "not in time"
        await asyncio.sleep(0.05)


class Life:
    """What a user does with one claim, one after the other."""

    def __init__(self, client: Client) -> None:
        self.client = client
        self.mark = f"install-{secrets.token_hex(3)}"

    async def make_class(self) -> None:
        secret = {"metadata": {"name": self.mark}, "stringData": {"key": "value"}}
        await self.client.create(kinds.SECRET, secret, "default")
        use = "csi.storage.k8s.io/provisioner-secret"
        body = {
            "metadata": {"name": self.mark},
            "provisioner": DRIVER,
            "parameters": {
                "layout": "directory",
                f"{use}-name": self.mark,
                f"{use}-namespace": "default",
            },
            "allowVolumeExpansion": True,
        }
        await self.client.create(kinds.STORAGE_CLASS, body)

    async def claim(self, name: str, **spec: Any) -> None:
        body = {
            "metadata": {"name": name},
            "spec": {
                "accessModes": ["ReadWriteOnce"],
                "storageClassName": self.mark,
                "resources": {"requests": {"storage": "1Mi"}},
                **spec,
            },
        }
        await self.client.create(kinds.CLAIM, body, "default")
        await until(lambda: self.bound(name))

    async def bound(self, name: str) -> bool:
        found = await self.client.get(kinds.CLAIM, name, "default")
        return bool(found["status"].get("phase") == "Bound")

    async def grow(self) -> None:
        patch = {"spec": {"resources": {"requests": {"storage": "2Mi"}}}}
        await self.client.patch(kinds.CLAIM, self.mark, patch, "default")

        async def grown() -> bool:
            found = await self.client.get(kinds.CLAIM, self.mark, "default")
            return bool(found["status"]["capacity"]["storage"] == "2Mi")

        await until(grown)

    async def clone(self) -> None:
        source = {"kind": "PersistentVolumeClaim", "name": self.mark}
        size = {"requests": {"storage": "2Mi"}}
        await self.claim(f"{self.mark}-clone", dataSource=source, resources=size)
        await self.remove(kinds.CLAIM, f"{self.mark}-clone", "default")

    async def snapshot(self) -> None:
        group = "snapshot.storage.k8s.io"
        made = {"metadata": {"name": self.mark}, "driver": DRIVER, "deletionPolicy": "Delete"}
        await self.client.create(kinds.SNAPSHOT_CLASS, made)
        spec = {
            "volumeSnapshotClassName": self.mark,
            "source": {"persistentVolumeClaimName": self.mark},
        }
        body = {"metadata": {"name": self.mark}, "spec": spec, "apiVersion": f"{group}/v1"}
        await self.client.create(kinds.SNAPSHOT, body, "default")

        async def ready() -> bool:
            found = await self.client.get(kinds.SNAPSHOT, self.mark, "default")
            return bool((found.get("status") or {}).get("readyToUse"))

        await until(ready)
        await self.remove(kinds.SNAPSHOT, self.mark, "default")

    async def room(self) -> None:
        """Ask for the room of a class, as the chart's value storageCapacity does."""
        labels = {"app.kubernetes.io/managed-by": "holdfast"}
        spec = {"attachRequired": False, "storageCapacity": True}
        driver = {"metadata": {"name": DRIVER, "labels": labels}, "spec": spec}
        await self.client.create(kinds.CSI_DRIVER, driver)
        lazy = f"{self.mark}-lazy"
        body = {
            "metadata": {"name": lazy},
            "provisioner": DRIVER,
            "parameters": {"layout": "directory"},
            "volumeBindingMode": "WaitForFirstConsumer",
        }
        await self.client.create(kinds.STORAGE_CLASS, body)

        async def told() -> list[Object]:
            listing = await self.client.list(kinds.CAPACITY, NAMESPACE)
            return [each for each in listing.items if each["storageClassName"] == lazy]

        [found] = await until(told)
        assert found["nodeTopology"] == {"matchLabels": {"kubernetes.io/hostname": NODE}}
        assert quantity.parse(found["capacity"]).bytes() > 0
        await self.client.delete(kinds.STORAGE_CLASS, lazy)

        async def untold() -> bool:
            return not await told()

        await until(untold)
        await self.client.delete(kinds.CSI_DRIVER, DRIVER)

    async def remove(self, kind: kinds.Kind, name: str, namespace: str | None = None) -> None:
        await self.client.delete(kind, name, namespace)

        async def gone() -> bool:
            try:
                await self.client.get(kind, name, namespace)
            except errors.NotFound:
                return True
            return False

        await until(gone)

    async def end(self) -> None:
        found = await self.client.get(kinds.CLAIM, self.mark, "default")
        await self.remove(kinds.CLAIM, self.mark, "default")

        async def gone() -> bool:
            volumes = (await self.client.list(kinds.VOLUME)).items
            return found["spec"]["volumeName"] not in {v["metadata"]["name"] for v in volumes}

        await until(gone)


@asynccontextmanager
async def at_work(
    client: Client, directory: Path, *, snapshots: bool = False
) -> AsyncIterator[None]:
    """A replica that works with a client, as the Deployment runs it."""
    settings = Settings(
        directory / "data", {}, NAMESPACE, local_node=NODE, snapshot_controller=snapshots
    )
    controller = ClusterController(client, settings)
    await controller.check()
    election = Election(client, name=LEASE, namespace=NAMESPACE, identity="test")
    task = asyncio.ensure_future(election.run(controller.work))
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await controller.close()


@pytest.mark.parametrize("snapshots", [False, True], ids=["plain", "snapshots"])
async def test_the_roles_allow_what_the_controllers_do_and_no_more(
    cluster: Cluster, client: Client, tmp_path: Path, snapshots: bool
) -> None:
    if cluster.real and snapshots:
        await snapshot_kinds.install(client, sidecars.built())
    with suppress(errors.AlreadyExists):
        await client.create(kinds.NAMESPACE, {"metadata": {"name": NAMESPACE}})
    # A cluster that is kept may have the last test's, and making one is a right to be used.
    with suppress(errors.NotFound):
        await client.delete(kinds.LEASE, LEASE, NAMESPACE)
    allowed = rules(chart(f"controller.snapshotController={str(snapshots).lower()}"))
    limited = RoleClient(client, allowed)
    life = Life(client)
    async with at_work(limited, tmp_path, snapshots=snapshots):
        await life.make_class()
        await life.claim(life.mark)
        await life.grow()
        await life.clone()
        if snapshots:
            await life.snapshot()
        await life.room()
        await life.end()
    assert limited.refused == []
    if snapshots:
        unused = grants(allowed).keys() - limited.used - ELSEWHERE
        assert unused == set(), "these rules are needed by nothing"


async def test_the_account_can_do_its_work_on_a_real_cluster(
    cluster: Cluster, client: HttpClient, installed: list[Object], tmp_path: Path
) -> None:
    path = f"/api/v1/namespaces/{NAMESPACE}/serviceaccounts/holdfast-controller/token"
    body = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {}}
    token = (await client.request("POST", path, body=body))["status"]["token"]
    access = Access(cluster.access.url, cluster.access.context, lambda: token, NAMESPACE)
    life = Life(client)
    async with access.client() as own:
        with pytest.raises(errors.Forbidden):
            await own.list(kinds.SECRET)
        async with at_work(own, tmp_path):
            await life.make_class()
            await life.claim(life.mark)
            await life.grow()
            await life.room()
            await life.end()
    assert installed
