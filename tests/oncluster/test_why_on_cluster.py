"""`holdfast why` on a cluster, real or embedded: drivers, attachments, nodes and their limits."""

from __future__ import annotations

import asyncio
import json
import secrets
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

import machine
from holdfast.api import errors, kinds
from holdfast.api.kinds import Kind
from holdfast.diagnosis.causes import asking
from holdfast.diagnosis.causes.answer import Answer, Cause
from holdfast.runtime.client import Client
from oncluster.place import Cluster

Object = dict[str, Any]


class Scene:
    """Objects of one test; all names have its mark, all are removed at its end."""

    def __init__(self, client: Client) -> None:
        self.client = client
        self.mark = f"w{secrets.token_hex(3)}"
        self.driver = f"{self.mark}.example.com"
        self._made: list[tuple[Kind, str]] = []

    async def make(
        self, kind: Kind, name: str = "", status: Object | None = None, **obj: Any
    ) -> str:
        name = name or self.mark
        namespace = "default" if kind.namespaced else None
        await self.client.create(kind, {"metadata": {"name": name}} | obj, namespace)
        self._made.append((kind, name))
        if status:
            patch = {"status": status}
            await self.client.patch(kind, name, patch, namespace, subresource="status")
        return name

    async def node(self, name: str, ready: str = "True") -> str:
        condition = {"type": "Ready", "status": ready, "reason": "Test", "message": "test"}
        status = {"conditions": [condition]}
        return await self.make(kinds.NODE, f"{self.mark}-{name}", status)

    async def bound(self, *modes: str, attach: bool = True) -> None:
        """Make the driver, and a volume of it bound to a claim."""
        await self.make(kinds.CSI_DRIVER, self.driver, spec={"attachRequired": attach})
        await self.make(
            kinds.VOLUME,
            spec={
                "capacity": {"storage": "1Gi"},
                "accessModes": list(modes or ("ReadWriteOnce",)),
                "storageClassName": self.mark,
                "claimRef": {"namespace": "default", "name": self.mark},
                "csi": {"driver": self.driver, "volumeHandle": self.mark},
            },
        )
        await self.claim(*modes, volumeName=self.mark)
        await self.until(kinds.CLAIM, self.mark, lambda c: c["status"].get("phase") == "Bound")

    async def claim(self, *modes: str, **spec: Any) -> None:
        await self.make(
            kinds.CLAIM,
            spec={
                "accessModes": list(modes or ("ReadWriteOnce",)),
                "storageClassName": self.mark,
                "resources": {"requests": {"storage": "1Gi"}},
                **spec,
            },
        )

    async def pod(self, name: str, **spec: Any) -> str:
        volume = {"name": "data", "persistentVolumeClaim": {"claimName": self.mark}}
        return await self.make(
            kinds.POD,
            f"{self.mark}-{name}",
            spec={
                "containers": [{"name": "main", "image": "busybox"}],
                "volumes": [volume],
                # Nobody ends it here, so nothing is to be waited for.
                "terminationGracePeriodSeconds": 0,
                **spec,
            },
        )

    async def attachment(self, node: str, **status: Any) -> str:
        spec = {
            "attacher": self.driver,
            "nodeName": node,
            "source": {"persistentVolumeName": self.mark},
        }
        # The finalizer that every attacher puts there; some fields of a status are required.
        name = f"{self.mark}-{node}"
        meta = {"name": name, "finalizers": ["external-attacher/test"]}
        full = {"attached": False, **status}
        return await self.make(kinds.VOLUME_ATTACHMENT, name, full, spec=spec, metadata=meta)

    async def until(self, kind: Kind, name: str, holds: Callable[[Object], Any]) -> Object:
        async with asyncio.timeout(20):
            while True:
                obj = await self.client.get(kind, name, "default" if kind.namespaced else None)
                if holds(obj):
                    return obj
                await asyncio.sleep(0.05)

    async def why(self, kind: Kind, name: str = "") -> Answer:
        return await asking.why(self.client, kind, name or self.mark, "default")

    async def cause(self, code: str, kind: Kind, name: str = "") -> Cause:
        """Ask until the answer has the code; controllers may still be on their way."""
        deadline = asyncio.get_running_loop().time() + 15
        while True:
            answer = await self.why(kind, name)
            if answer.cause is not None and answer.cause.code == code:
                return answer.cause
            assert asyncio.get_running_loop().time() < deadline, answer
            await asyncio.sleep(0.1)

    async def clear(self) -> None:
        for kind, name in reversed(self._made):
            namespace = "default" if kind.namespaced else None
            for _ in range(2):
                try:
                    await self.client.delete(kind, name, namespace, grace=0)
                    patch = {"metadata": {"finalizers": None}}
                    await self.client.patch(kind, name, patch, namespace)
                except errors.NotFound:
                    break


@pytest.fixture
async def scene(client: Client) -> AsyncIterator[Scene]:
    made = Scene(client)
    try:
        yield made
    finally:
        await made.clear()


async def test_a_provisioner_that_does_not_answer(scene: Scene) -> None:
    await scene.make(kinds.CSI_DRIVER, scene.driver, spec={"attachRequired": False})
    await scene.make(kinds.STORAGE_CLASS, provisioner=scene.driver)
    await scene.claim()
    cause = await scene.cause("provisioner-silent", kinds.CLAIM)
    assert f"waits for provisioner {scene.driver}" in cause.what


@pytest.mark.parametrize("name", ["kubernetes.io/host-path", "kubernetes.io/rbd"])
async def test_an_old_name_that_is_ours_to_serve(scene: Scene, name: str) -> None:
    await scene.make(kinds.STORAGE_CLASS, provisioner=name)
    await scene.claim()
    cause = await scene.cause("provisioner-silent", kinds.CLAIM)
    assert "the controller of Holdfast, which serves it, has not answered" in cause.what


async def test_a_plug_in_that_kubernetes_no_longer_has(scene: Scene) -> None:
    await scene.make(kinds.STORAGE_CLASS, provisioner="kubernetes.io/scaleio")
    await scene.claim()
    cause = await scene.cause("provisioner-gone", kinds.CLAIM)
    assert "Kubernetes has no such plug-in any more" in cause.what


async def test_a_volume_that_another_node_has(scene: Scene) -> None:
    await scene.bound()
    here, there = await scene.node("here"), await scene.node("there")
    holder = await scene.pod("holder", nodeName=there)
    await scene.attachment(there, attached=True)
    pod = await scene.pod("waits", nodeName=here)
    cause = await scene.cause("multi-attach", kinds.POD, pod)
    assert f"is held on node {there} by pod {holder}" in cause.what
    assert cause.fix == f"kubectl -n default delete pod {holder} {pod}" or holder in cause.fix


async def test_a_volume_that_a_lost_node_has(scene: Scene) -> None:
    await scene.bound()
    here, lost = await scene.node("here"), await scene.node("lost", "Unknown")
    await scene.pod("holder", nodeName=lost)
    await scene.attachment(lost, attached=True)
    pod = await scene.pod("waits", nodeName=here)
    cause = await scene.cause("node-lost", kinds.POD, pod)
    assert "may still be writing" in cause.what
    assert f"kubectl taint nodes {lost} node.kubernetes.io/out-of-service=" in cause.fix


async def test_a_volume_that_cannot_be_attached(scene: Scene) -> None:
    await scene.bound()
    here = await scene.node("here")
    pod = await scene.pod("waits", nodeName=here)
    await scene.attachment(here, attachError={"message": "the cloud says no"})
    cause = await scene.cause("attach-failed", kinds.POD, pod)
    assert cause.what.endswith("the cloud says no")


async def test_a_driver_that_is_not_on_the_node(scene: Scene) -> None:
    await scene.bound(attach=False)
    here = await scene.node("here")
    await scene.make(kinds.CSI_NODE, here, spec={"drivers": []})
    pod = await scene.pod("waits", nodeName=here)
    cause = await scene.cause("driver-not-on-node", kinds.POD, pod)
    assert f"{scene.driver} is not registered on node {here}" in cause.what


async def test_a_claim_that_one_pod_may_have(scene: Scene) -> None:
    await scene.bound("ReadWriteOncePod")
    here = await scene.node("here")
    holder = await scene.pod("holder", nodeName=here)
    pod = await scene.pod("waits", tolerations=[{"operator": "Exists"}])
    cause = await scene.cause("exclusive-claim", kinds.POD, pod)
    assert cause.fix == f"kubectl -n default delete pod {holder}"


async def test_a_node_that_is_full(scene: Scene) -> None:
    await scene.bound()
    here = await scene.node("here")
    driver = {"name": scene.driver, "nodeID": here, "topologyKeys": [], "allocatable": {"count": 1}}
    await scene.make(kinds.CSI_NODE, here, spec={"drivers": [driver]})
    spec = {
        "attacher": scene.driver,
        "nodeName": here,
        "source": {"persistentVolumeName": "another"},
    }
    await scene.make(kinds.VOLUME_ATTACHMENT, f"{scene.mark}-another", spec=spec)
    pod = await scene.pod("waits", tolerations=[{"operator": "Exists"}])
    cause = await scene.cause("volume-limit", kinds.POD, pod)
    assert f"node {here} has 1 volumes of {scene.driver}, its limit is 1" in cause.what


async def test_a_volume_whose_deletion_waits_for_an_attachment(scene: Scene) -> None:
    await scene.bound()
    there = await scene.node("there")
    await scene.attachment(there, attached=True, detachError={"message": "still busy"})
    finalizers = {"metadata": {"finalizers": ["external-attacher/some"]}}
    await scene.client.patch(kinds.VOLUME, scene.mark, finalizers)
    await scene.client.delete(kinds.CLAIM, scene.mark, "default")
    await scene.until(kinds.VOLUME, scene.mark, lambda v: v["status"]["phase"] == "Released")
    await scene.client.delete(kinds.VOLUME, scene.mark)
    cause = await scene.cause("detach-failed", kinds.VOLUME)
    assert "cannot be detached" in cause.what
    assert "still busy" in cause.what


async def test_a_released_volume_whose_deleter_is_gone(scene: Scene) -> None:
    await scene.bound()
    maker = {"metadata": {"annotations": {"pv.kubernetes.io/provisioned-by": "gone.example.com"}}}
    policy = {"spec": {"persistentVolumeReclaimPolicy": "Delete"}}
    await scene.client.patch(kinds.VOLUME, scene.mark, {**maker, **policy})
    await scene.client.delete(kinds.CLAIM, scene.mark, "default")
    cause = await scene.cause("deleter-missing", kinds.VOLUME)
    assert "gone.example.com" in cause.what


async def test_the_command_reads_any_kubeconfig(cluster: Cluster, scene: Scene) -> None:
    if not cluster.real:
        pytest.skip("the embedded API of these tests has no kubeconfig")
    await scene.claim()
    argv = [sys.executable, "-m", "holdfast.cli", "why", "--kubeconfig", str(cluster.kubeconfig)]
    done = await asyncio.to_thread(
        subprocess.run,
        [*argv, "--json", f"pvc/{scene.mark}"],
        env={"PYTHONPATH": machine.PYTHONPATH},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1, done.stderr
    assert json.loads(done.stdout)["cause"]["code"] == "class-missing"
