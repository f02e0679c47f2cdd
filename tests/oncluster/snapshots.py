"""What a user does with snapshots on a cluster whose snapshot resources are installed."""

from __future__ import annotations

import secrets
from functools import partial
from pathlib import Path
from typing import Any

import yaml

from holdfast.api import kinds
from holdfast.runtime.client import Client
from oncluster.test_controller import gone, until, volume_of

Object = dict[str, Any]
CRD = kinds.Kind(
    "apiextensions.k8s.io", "v1", "CustomResourceDefinition", "customresourcedefinitions", False
)
_SECRET = "csi.storage.k8s.io/snapshotter-secret-"


async def install(client: Client, programs: Path) -> None:
    """Install the resources, where they are not yet; `programs` are the built sidecars."""
    for file in sorted((programs / "crds").iterdir()):
        body = yaml.safe_load(file.read_text())
        name = body["metadata"]["name"]
        if await gone(client, CRD, name):
            await client.create(CRD, body)
        await until(partial(_established, client, name))


async def _established(client: Client, name: str) -> bool:
    found = await client.get(CRD, name)
    states = {e["type"]: e["status"] for e in (found.get("status") or {}).get("conditions") or ()}
    return states.get("Established") == "True"


async def take(client: Client, driver: str, claim: str, policy: str = "Delete") -> str:
    """Take a snapshot of a claim's volume with a class of its own, and return its name."""
    name = f"snapshot-{secrets.token_hex(4)}"
    given = {f"{_SECRET}name": "csi-rbd-secret", f"{_SECRET}namespace": "kube-system"}
    a_class = {"driver": driver, "deletionPolicy": policy, "parameters": given}
    await client.create(kinds.SNAPSHOT_CLASS, {"metadata": {"name": name}, **a_class})
    source = {"persistentVolumeClaimName": claim}
    spec = {"volumeSnapshotClassName": name, "source": source}
    await client.create(kinds.SNAPSHOT, {"metadata": {"name": name}, "spec": spec}, "default")
    await until(partial(_ready, client, name), 60)
    return name


async def content_of(client: Client, name: str) -> Object:
    """The content a snapshot is bound to."""
    found = await client.get(kinds.SNAPSHOT, name, "default")
    bound: str = found["status"]["boundVolumeSnapshotContentName"]
    return await client.get(kinds.SNAPSHOT_CONTENT, bound)


async def find(client: Client, driver: str, handle: str) -> str:
    """Make a snapshot of what the storage keeps under a handle, and return its name."""
    name = f"found-{secrets.token_hex(4)}"
    annotations = {
        "snapshot.storage.kubernetes.io/deletion-secret-name": "csi-rbd-secret",
        "snapshot.storage.kubernetes.io/deletion-secret-namespace": "kube-system",
    }
    content = {
        "driver": driver,
        "deletionPolicy": "Delete",
        "source": {"snapshotHandle": handle},
        "volumeSnapshotRef": {"name": name, "namespace": "default"},
    }
    metadata = {"name": name, "annotations": annotations}
    await client.create(kinds.SNAPSHOT_CONTENT, {"metadata": metadata, "spec": content})
    spec = {"source": {"volumeSnapshotContentName": name}}
    await client.create(kinds.SNAPSHOT, {"metadata": {"name": name}, "spec": spec}, "default")
    await until(partial(_ready, client, name), 60)
    return name


async def _ready(client: Client, name: str) -> bool:
    found = await client.get(kinds.SNAPSHOT, name, "default")
    return bool((found.get("status") or {}).get("readyToUse"))


async def delete(client: Client, name: str) -> None:
    """Delete a snapshot and wait until nothing of it is left."""
    content = (await content_of(client, name))["metadata"]["name"]
    await client.delete(kinds.SNAPSHOT, name, "default")
    await until(partial(gone, client, kinds.SNAPSHOT, name, "default"), 60)
    await until(partial(gone, client, kinds.SNAPSHOT_CONTENT, content), 60)


def reference(snapshot: str) -> Object:
    """What a claim that starts with a snapshot says of it."""
    return {"kind": "VolumeSnapshot", "name": snapshot, "apiGroup": kinds.SNAPSHOT.group}


async def claim_from(client: Client, class_name: str, source: Object) -> str:
    """Make a claim that starts with something, and wait until it is bound."""
    name = f"claim-{secrets.token_hex(4)}"
    spec = {
        "accessModes": ["ReadWriteOnce"],
        "storageClassName": class_name,
        "resources": {"requests": {"storage": "256Mi"}},
        "dataSource": source,
    }
    await client.create(kinds.CLAIM, {"metadata": {"name": name}, "spec": spec}, "default")
    await volume_of(client, name, 60)
    return name
