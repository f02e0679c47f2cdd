"""`holdfast adopt` on a cluster, real or embedded: every old source, kills, refusals, undo."""

from __future__ import annotations

import asyncio
import secrets
from pathlib import Path
from typing import Any

import pytest

from holdfast.api import errors, kinds
from holdfast.backends import registry
from holdfast.controllers.adoption import exchange, plan, record
from holdfast.runtime.client import Client
from holdfast.testing.cuts import Cut, CutClient

Object = dict[str, Any]
UUID = "6b1a2d0e-3f7c-4c55-9a39-0d7f5f0d8a11"
# What Kubernetes' own plug-ins wrote.
OLD: dict[str, Object] = {
    "local": {"path": "/srv/one"},
    "hostPath": {"path": "/srv/two"},
    "rbd": {
        "monitors": ["10.0.0.1:6789"],
        "pool": "kube",
        "image": f"kubernetes-dynamic-pvc-{UUID}",
        "user": "kube",
        "keyring": "/etc/ceph/keyring",
        "fsType": "ext4",
        "secretRef": {"name": "ceph-user", "namespace": "default"},
    },
    "cinder": {"volumeID": UUID, "fsType": "ext4"},
    "vsphereVolume": {"volumePath": "[ds] kubevols/one.vmdk", "fsType": "ext4"},
    "glusterfs": {"endpoints": "glusterfs-dynamic-one", "path": "vol_1"},
}
KNOWN = sorted(OLD.keys() & registry.SOURCES.keys())
PROVISIONED_BY = "pv.kubernetes.io/provisioned-by"


class Pair:
    """A claim and its volume, whose storage is of an old kind."""

    def __init__(self, client: Client, source: str, policy: str = "Delete") -> None:
        self.client = client
        self.name = f"adopted-{secrets.token_hex(4)}"
        affinity = {"key": "kubernetes.io/hostname", "operator": "In", "values": ["node-1"]}
        terms = {"nodeSelectorTerms": [{"matchExpressions": [affinity]}]}
        self.volume = {
            "metadata": {"name": self.name, "annotations": {PROVISIONED_BY: "example.com/old"}},
            "spec": {
                "capacity": {"storage": "1Gi"},
                "accessModes": ["ReadWriteOnce"],
                "persistentVolumeReclaimPolicy": policy,
                "storageClassName": self.name,
                "claimRef": {"namespace": "default", "name": self.name},
                "mountOptions": ["noatime"],
                **({"nodeAffinity": {"required": terms}} if source == "local" else {}),
                source: OLD[source],
            },
        }
        self.claim = {
            "metadata": {"name": self.name},
            "spec": {
                "accessModes": ["ReadWriteOnce"],
                "storageClassName": self.name,
                "volumeName": self.name,
                "resources": {"requests": {"storage": "1Gi"}},
            },
        }

    async def make(self) -> Object:
        """Make both and wait until they are bound; return the volume."""
        await self.client.create(kinds.VOLUME, self.volume)
        await self.client.create(kinds.CLAIM, self.claim, "default")
        return await self.bound()

    async def bound(self) -> Object:
        """Wait until both are bound; return the volume."""
        async with asyncio.timeout(30):
            while True:
                claim = await self.client.get(kinds.CLAIM, self.name, "default")
                volume = await self.client.get(kinds.VOLUME, self.name)
                if claim["status"].get("phase") == volume["status"].get("phase") == "Bound":
                    return volume
                await asyncio.sleep(0.05)

    async def adopt(self, path: Path, client: Client | None = None) -> None:
        """Do what the command does, from the undo file if there is one."""
        used = client or self.client
        begun = record.for_volume(path, self.name, "here")
        if begun is None:
            begun = await record.of(used, await plan.make(used, self.name, None), "here")
            record.write(path, begun)
        await exchange.Exchange(used, _silent).run(begun.old, begun.new, begun.policy)

    async def undo(self, path: Path) -> None:
        """Put the old object back."""
        begun = record.read(path)
        await exchange.Exchange(self.client, _silent).run(begun.new, begun.old, begun.policy)

    async def remove(self) -> None:
        """Take both away."""
        patch = {"metadata": {"finalizers": None}}
        for kind, namespace in ((kinds.CLAIM, "default"), (kinds.VOLUME, None)):
            for _ in range(2):
                try:
                    await self.client.delete(kind, self.name, namespace)
                    await self.client.patch(kind, self.name, patch, namespace)
                except errors.NotFound:
                    break


def _silent(text: str) -> None:
    """What a person would be told."""


@pytest.mark.parametrize("source", KNOWN)
async def test_an_old_volume_becomes_a_csi_volume_of_the_same_claim_and_back(
    client: Client, tmp_path: Path, source: str
) -> None:
    pair = Pair(client, source)
    path = tmp_path / "undo.json"
    try:
        old = await pair.make()
        claim = await client.get(kinds.CLAIM, pair.name, "default")
        handle = registry.handle_of(old["spec"], old["metadata"]["annotations"])
        assert handle is not None
        await pair.adopt(path)

        new = await pair.bound()
        assert source not in new["spec"]
        assert new["spec"]["csi"]["volumeHandle"] == handle[1].id
        assert registry.DRIVERS[new["spec"]["csi"]["driver"]] == handle[0]
        assert new["metadata"]["annotations"][PROVISIONED_BY] == new["spec"]["csi"]["driver"]
        for key in ("capacity", "accessModes", "mountOptions", "storageClassName", "nodeAffinity"):
            assert new["spec"].get(key) == old["spec"].get(key)
        assert new["spec"]["persistentVolumeReclaimPolicy"] == "Delete"
        assert new["spec"]["claimRef"]["uid"] == claim["metadata"]["uid"]
        after = await client.get(kinds.CLAIM, pair.name, "default")
        assert after["metadata"]["uid"] == claim["metadata"]["uid"]
        assert after["spec"] == claim["spec"]
        assert after["status"] == claim["status"]
        assert path.stat().st_mode & 0o777 == 0o600

        await pair.undo(path)
        back = await pair.bound()
        assert back["spec"][source] == old["spec"][source]
        assert back["spec"]["persistentVolumeReclaimPolicy"] == "Delete"
        assert back["metadata"]["annotations"] == old["metadata"]["annotations"]
    finally:
        await pair.remove()


async def test_what_an_rbd_volume_needs_is_taken_along(client: Client, tmp_path: Path) -> None:
    if "rbd" not in KNOWN:
        pytest.skip("there is no rbd backend in this tree")
    pair = Pair(client, "rbd")
    try:
        await pair.make()
        await pair.adopt(tmp_path / "undo.json")
        csi = (await pair.bound())["spec"]["csi"]
        assert csi["nodeStageSecretRef"] == {"name": "ceph-user", "namespace": "default"}
        assert csi["fsType"] == "ext4"
        assert csi["volumeAttributes"]["monitors"] == "10.0.0.1:6789"
    finally:
        await pair.remove()


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("write", [1, 2, 3, 4, 5])
async def test_killed_at_any_write_it_goes_on_where_it_was(
    client: Client, tmp_path: Path, write: int, after: bool
) -> None:
    pair = Pair(client, "hostPath")
    path = tmp_path / "undo.json"
    try:
        await pair.make()
        cut = Cut(write, after=after)
        task = asyncio.ensure_future(pair.adopt(path, CutClient(client, cut)))
        happened = asyncio.ensure_future(cut.happened.wait())
        await asyncio.wait({task, happened}, timeout=30, return_when=asyncio.FIRST_COMPLETED)
        assert happened.done(), f"there is no write {write}"
        await asyncio.sleep(0.2)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

        await pair.adopt(path)
        volume = await pair.bound()
        assert volume["spec"]["csi"]["driver"] == "local.holdfast.dev"
        assert volume["spec"]["persistentVolumeReclaimPolicy"] == "Delete"
    finally:
        await pair.remove()


async def test_it_is_refused_while_a_pod_uses_the_claim(client: Client) -> None:
    pair = Pair(client, "hostPath")
    claim_volume = {"name": "data", "persistentVolumeClaim": {"claimName": pair.name}}
    pod = {
        "metadata": {"name": pair.name},
        "spec": {
            "containers": [{"name": "main", "image": "busybox"}],
            "volumes": [claim_volume],
        },
    }
    try:
        before = await pair.make()
        await client.create(kinds.POD, pod, "default")
        with pytest.raises(plan.Refused, match=f"pod default/{pair.name} uses claim"):
            await plan.make(client, pair.name, None)
        await client.delete(kinds.POD, pair.name, "default", grace=0)
        await plan.make(client, pair.name, None)
        assert (await pair.bound())["metadata"]["uid"] == before["metadata"]["uid"]
    finally:
        await pair.remove()


async def test_it_is_refused_while_the_volume_is_attached(client: Client) -> None:
    pair = Pair(client, "hostPath")
    attachment = {
        "metadata": {"name": pair.name},
        "spec": {
            "attacher": "local.holdfast.dev",
            "nodeName": "node-1",
            "source": {"persistentVolumeName": pair.name},
        },
    }
    try:
        await pair.make()
        await client.create(kinds.VOLUME_ATTACHMENT, attachment)
        with pytest.raises(plan.Refused, match="is attached to node node-1"):
            await plan.make(client, pair.name, None)
        await client.delete(kinds.VOLUME_ATTACHMENT, pair.name)
    finally:
        await pair.remove()


async def test_what_cannot_be_adopted_says_why(client: Client, tmp_path: Path) -> None:
    with pytest.raises(plan.Refused, match="there is no volume nobody"):
        await plan.make(client, "nobody", None)
    pair = Pair(client, "hostPath")
    pair.volume["spec"] |= {"nfs": {"server": "nfs.example", "path": "/x"}}
    del pair.volume["spec"]["hostPath"]
    other = Pair(client, "hostPath")
    try:
        await pair.make()
        if "nfs" not in registry.SOURCES:
            with pytest.raises(plan.Refused, match=r"its source \(nfs\) is not one"):
                await plan.make(client, pair.name, None)
        await other.make()
        with pytest.raises(plan.Refused, match=r"--driver rbd.example does not serve local"):
            await plan.make(client, other.name, "rbd.example")
        await other.adopt(tmp_path / "undo.json")
        with pytest.raises(plan.Refused, match=r"is a csi volume of local\.holdfast\.dev already"):
            await plan.make(client, other.name, None)
        with pytest.raises(record.RecordError, match="is the undo file of"):
            record.for_volume(tmp_path / "undo.json", "another", "here")
    finally:
        await pair.remove()
        await other.remove()


async def test_a_volume_somebody_made_anew_is_left_as_it_is(client: Client, tmp_path: Path) -> None:
    pair = Pair(client, "hostPath")
    path = tmp_path / "undo.json"
    try:
        await pair.make()
        record.write(
            path, await record.of(client, await plan.make(client, pair.name, None), "here")
        )
        await pair.remove()
        body = {
            **pair.volume,
            "spec": {**pair.volume["spec"], "nfs": {"server": "x", "path": "/x"}},
        }
        del body["spec"]["hostPath"]
        await client.create(kinds.VOLUME, body)
        with pytest.raises(plan.Refused, match="somebody made it anew"):
            await pair.adopt(path)
    finally:
        await pair.remove()
