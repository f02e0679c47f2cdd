"""kr8s against a real `holdfast up`."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import kr8s.asyncio
import pytest
from kr8s.asyncio.objects import PersistentVolumeClaim, Pod

from machine import Machine

_BOUND = "jsonpath='{.status.phase}'=Bound"


@pytest.fixture
async def api(cluster: Machine) -> AsyncIterator[Any]:
    """A client with the administrator's kubeconfig, which it does not close by itself."""
    found: Any = await kr8s.asyncio.api(kubeconfig=str(cluster.kubeconfig))
    yield found
    await found._session.aclose()


def _claim(name: str) -> dict[str, Any]:
    return {
        "metadata": {"name": name, "namespace": "default"},
        "spec": {
            "accessModes": ["ReadWriteOnce"],
            "storageClassName": "plain",
            "resources": {"requests": {"storage": "16Mi"}},
        },
    }


async def test_a_claim_is_created_awaited_labelled_and_deleted(cluster: Machine, api: Any) -> None:
    assert await api.whoami() == "kubernetes-admin"
    assert (await api.version())["minor"] == "32"
    claim = await PersistentVolumeClaim(_claim("kr8s"), api=api)
    await claim.create()
    await claim.wait(_BOUND, timeout=20)
    await claim.label({"a": "b"})
    await claim.patch({"metadata": {"annotations": {"c": "d"}}})
    stored = cluster.get("pvc", "kr8s")
    assert stored is not None
    assert (stored["metadata"]["labels"], stored["metadata"]["annotations"]["c"]) == (
        {"a": "b"},
        "d",
    )
    names = [each.name async for each in api.get("persistentvolumes")]
    assert stored["spec"]["volumeName"] in names
    await claim.delete()
    await claim.wait("delete", timeout=20)
    assert not await claim.exists()


@pytest.mark.root
@pytest.mark.program("bwrap")
async def test_a_pod_is_run_read_and_entered(api: Any) -> None:
    claim = await PersistentVolumeClaim(_claim("kr8s-pod"), api=api)
    await claim.create()
    container = {
        "name": "main",
        "image": "busybox",
        "command": ["sh", "-c", "echo hello; sleep infinity"],
        "volumeMounts": [{"name": "data", "mountPath": "/mnt"}],
    }
    volumes = [{"name": "data", "persistentVolumeClaim": {"claimName": "kr8s-pod"}}]
    pod = await Pod(
        {
            "metadata": {"name": "kr8s", "namespace": "default"},
            "spec": {
                "terminationGracePeriodSeconds": 1,
                "containers": [container],
                "volumes": volumes,
            },
        },
        api=api,
    )
    await pod.create()
    await pod.wait("condition=Ready", timeout=30)
    async with asyncio.timeout(10):
        async for line in pod.logs(follow=True):
            assert line == "hello"
            break
    await pod.exec(["sh", "-c", "echo kept > /mnt/file"])
    done = await pod.exec(["cat", "/mnt/file"])
    assert (done.returncode, done.stdout) == (0, b"kept\n")
    await pod.delete()
    await pod.wait("delete", timeout=20)
    await claim.delete()
