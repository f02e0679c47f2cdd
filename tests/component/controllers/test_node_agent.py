"""The node agent with real mounts: pods in, volumes mounted, and everything undone."""

from __future__ import annotations

import asyncio
import stat
from collections.abc import AsyncIterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from holdfast.api import kinds, views
from holdfast.backends import mountinfo
from holdfast.backends.local.node_side import LocalNodeSide
from holdfast.controllers.nodeagent.agent import NodeAgent
from holdfast.node import devices, mounts
from holdfast.runtime.informer import Informers
from machine import end_containers

if TYPE_CHECKING:
    from plane import Plane

pytestmark = pytest.mark.root

Object = dict[str, Any]


class Machine:
    """A node whose agent can be killed and started again."""

    def __init__(self, plane: Plane, root: Path) -> None:
        self.plane = plane
        self.root = root
        self._tasks: list[asyncio.Task[None]] = []

    def start(self) -> None:
        """Start an agent that knows only what is on disk and in the API."""
        informers = Informers(self.plane.client)
        agent = NodeAgent(
            self.plane.client,
            informers,
            self.plane.recorder,
            node_name="n1",
            root=self.root,
            node_sides={"local": LocalNodeSide()},
        )
        self._tasks = self.plane.start(informers, agent)

    async def kill(self) -> None:
        await self.plane.stop(self._tasks)

    def mount(self, pod: Object, plugin: str, name: str) -> Path:
        uid: str = pod["metadata"]["uid"]
        return self.root / "pods" / uid / "volumes" / plugin / name / "mount"

    def staging(self, volume: str) -> Path:
        return self.root / "staging" / volume


@pytest.fixture
async def machine(plane: Plane, tmp_path: Path) -> AsyncIterator[Machine]:
    made = Machine(plane, tmp_path / "node")
    made.start()
    yield made
    await made.kill()
    _release(made.root, tmp_path)


def _release(root: Path, images: Path) -> None:
    """Give back what a test that failed, or ended with pods running, still holds."""
    end_containers(root)
    for mount in reversed(mountinfo.beneath(root)):
        mounts.unmount(Path(mount.point), lazy=True)
    for image in images.glob("*.img"):
        devices.LoopDevices().detach(image)


async def make_volume(plane: Plane, name: str, source: Object, **spec: Any) -> None:
    """Make a volume and a claim of the same name, bound to each other."""
    body = {"accessModes": ["ReadWriteMany"], "storageClassName": "", **spec}
    mode = spec.get("volumeMode", "Filesystem")
    claim = await plane.create(
        kinds.CLAIM,
        name,
        spec={
            "accessModes": ["ReadWriteMany"],
            "resources": {"requests": {"storage": "1Gi"}},
            "storageClassName": "",
            "volumeMode": mode,
            "volumeName": name,
        },
        metadata={"annotations": {views.BIND_COMPLETED: "yes"}},
    )
    reference = {"namespace": "default", "name": name, "uid": claim["metadata"]["uid"]}
    expression = {"key": "kubernetes.io/hostname", "operator": "In", "values": ["n1"]}
    affinity = {"required": {"nodeSelectorTerms": [{"matchExpressions": [expression]}]}}
    full = {**body, "capacity": {"storage": "1Gi"}, "claimRef": reference, **source}
    await plane.create(kinds.VOLUME, name, spec={**full, "nodeAffinity": affinity})


async def make_pod(plane: Plane, name: str, volumes: list[Object], **spec: Any) -> Object:
    mounted = [{"name": v["name"], "mountPath": f"/{v['name']}"} for v in volumes]
    container = {"name": "main", "image": "busybox", "volumeMounts": mounted}
    full = {"containers": [container], "volumes": volumes, "nodeName": "n1", **spec}
    return await plane.create(kinds.POD, name, spec=full)


def claimed(name: str, claim: str, **source: Any) -> Object:
    return {"name": name, "persistentVolumeClaim": {"claimName": claim, **source}}


def running(obj: Object | None) -> bool:
    return bool(obj and obj["status"].get("phase") == "Running")


def gone(obj: Object | None) -> bool:
    return obj is None


async def test_the_node_registers_itself(machine: Machine, plane: Plane) -> None:
    node = await plane.until(kinds.NODE, "n1", lambda o: bool(o and views.node(o).ready))
    assert node is not None
    labels = node["metadata"]["labels"]
    assert labels["kubernetes.io/hostname"] == "n1" and labels["kubernetes.io/os"] == "linux"
    assert int(node["status"]["capacity"]["cpu"]) >= 1
    assert node["status"]["nodeInfo"]["kernelVersion"]
    lease = await plane.until(kinds.LEASE, "n1", lambda o: o is not None, "kube-node-lease")
    assert lease is not None and lease["spec"]["renewTime"]
    await plane.until(kinds.CSI_NODE, "n1", lambda o: o is not None)


async def test_a_node_that_was_given_up_reports_ready_again(machine: Machine, plane: Plane) -> None:
    node = await plane.until(kinds.NODE, "n1", lambda o: bool(o and views.node(o).ready))
    assert node is not None
    entries = [{**e, "status": "Unknown"} for e in node["status"]["conditions"]]
    patch = {"status": {"conditions": entries}}
    written = await plane.client.patch(kinds.NODE, "n1", patch, subresource="status")
    assert not views.node(written).ready
    await plane.until(kinds.NODE, "n1", lambda o: bool(o and views.node(o).ready))


async def test_a_pod_without_volumes_runs(machine: Machine, plane: Plane) -> None:
    await make_pod(plane, "p", [])
    pod = await plane.until(kinds.POD, "p", running)
    assert pod is not None
    status = pod["status"]
    assert status["containerStatuses"][0]["state"]["running"]["startedAt"]
    assert status["podIP"] == status["hostIP"]
    assert {e["type"]: e["status"] for e in status["conditions"]}["Ready"] == "True"


async def test_a_claim_on_a_host_path_is_mounted_and_unmounted(
    machine: Machine, plane: Plane, tmp_path: Path
) -> None:
    data = tmp_path / "data"
    await make_volume(plane, "pv1", {"hostPath": {"path": str(data)}})
    pod = await make_pod(plane, "p", [claimed("data", "pv1")])
    await plane.until(kinds.POD, "p", running)
    place = machine.mount(pod, "kubernetes.io~host-path", "pv1")
    (place / "file").write_text("kept")
    assert (data / "file").read_text() == "kept"
    await plane.client.delete(kinds.POD, "p", "default")
    await plane.until(kinds.POD, "p", gone)
    assert not mountinfo.beneath(machine.root)
    assert (data / "file").read_text() == "kept"
    assert list((machine.root / "pods").iterdir()) == []


async def test_a_disk_image_is_formatted_shared_by_two_pods_and_unstaged_at_last(
    machine: Machine, plane: Plane, tmp_path: Path
) -> None:
    image = tmp_path / "disk.img"
    with image.open("wb") as file:
        file.truncate(64 << 20)
    await make_volume(plane, "pv1", {"local": {"path": str(image), "fsType": "ext4"}})
    first = await make_pod(plane, "first", [claimed("data", "pv1")])
    second = await make_pod(plane, "second", [claimed("data", "pv1", readOnly=True)])
    await plane.until(kinds.POD, "first", running)
    await plane.until(kinds.POD, "second", running)
    places = [machine.mount(p, "kubernetes.io~local-volume", "pv1") for p in (first, second)]
    (places[0] / "file").write_text("shared")
    assert (places[1] / "file").read_text() == "shared"
    with pytest.raises(OSError, match="Read-only"):
        (places[1] / "file").write_text("no")
    await plane.client.delete(kinds.POD, "first", "default")
    await plane.until(kinds.POD, "first", gone)
    assert mountinfo.at(machine.staging("pv1")) and not mountinfo.at(places[0])
    assert (places[1] / "file").read_text() == "shared"
    await plane.client.delete(kinds.POD, "second", "default")
    await plane.until(kinds.POD, "second", gone)
    assert not mountinfo.beneath(machine.root)
    third = await make_pod(plane, "third", [claimed("data", "pv1")])
    await plane.until(kinds.POD, "third", running)
    place = machine.mount(third, "kubernetes.io~local-volume", "pv1")
    assert (place / "file").read_text() == "shared"


async def test_mount_options_and_the_group_of_the_pod_are_applied(
    machine: Machine, plane: Plane, tmp_path: Path
) -> None:
    image = tmp_path / "disk.img"
    with image.open("wb") as file:
        file.truncate(32 << 20)
    source = {"local": {"path": str(image), "fsType": "ext4"}}
    await make_volume(plane, "pv1", source, mountOptions=["noatime"])
    group = {"securityContext": {"fsGroup": 4711}}
    pod = await make_pod(plane, "p", [claimed("data", "pv1")], **group)
    await plane.until(kinds.POD, "p", running)
    place = machine.mount(pod, "kubernetes.io~local-volume", "pv1")
    assert "noatime" in mountinfo.at(place)[0].options
    assert place.stat().st_gid == 4711 and place.stat().st_mode & stat.S_ISGID


async def test_a_raw_block_volume_is_a_device_in_the_pod(
    machine: Machine, plane: Plane, tmp_path: Path
) -> None:
    image = tmp_path / "disk.img"
    with image.open("wb") as file:
        file.truncate(8 << 20)
    await make_volume(plane, "pv1", {"local": {"path": str(image)}}, volumeMode="Block")
    devices = [{"name": "raw", "devicePath": "/dev/raw"}]
    container = {"name": "main", "image": "busybox", "volumeDevices": devices}
    pod = await make_pod(plane, "p", [claimed("raw", "pv1")], containers=[container])
    await plane.until(kinds.POD, "p", running)
    place = machine.mount(pod, "kubernetes.io~local-volume", "pv1")
    assert stat.S_ISBLK(place.stat().st_mode)
    await plane.client.delete(kinds.POD, "p", "default")
    await plane.until(kinds.POD, "p", gone)
    assert not mountinfo.beneath(machine.root)


async def test_content_and_empty_directories(machine: Machine, plane: Plane) -> None:
    await plane.create(kinds.CONFIG_MAP, "cm", data={"a": "one"})
    await plane.create(kinds.SECRET, "s", stringData={"password": "two"})
    volumes = [
        {"name": "config", "configMap": {"name": "cm"}},
        {"name": "hidden", "secret": {"secretName": "s"}},
        {"name": "scratch", "emptyDir": {}},
        {"name": "fast", "emptyDir": {"medium": "Memory", "sizeLimit": "1Mi"}},
    ]
    pod = await make_pod(plane, "p", volumes, securityContext={"fsGroup": 4711})
    await plane.until(kinds.POD, "p", running)
    config = machine.mount(pod, "kubernetes.io~configmap", "config")
    hidden = machine.mount(pod, "kubernetes.io~secret", "hidden")
    scratch = machine.mount(pod, "kubernetes.io~empty-dir", "scratch")
    fast = machine.mount(pod, "kubernetes.io~empty-dir", "fast")
    assert (config / "a").read_text() == "one"
    assert (hidden / "password").read_text() == "two"
    assert (hidden / "password").stat().st_gid == 4711
    assert mountinfo.at(hidden)[0].fs_type == "tmpfs"
    assert scratch.stat().st_gid == 4711 and scratch.stat().st_mode & stat.S_ISGID
    with pytest.raises(OSError, match="No space"):
        (fast / "big").write_bytes(b"x" * (2 << 20))
    await plane.client.delete(kinds.POD, "p", "default")
    await plane.until(kinds.POD, "p", gone)
    assert not (machine.root / "pods" / pod["metadata"]["uid"]).exists()


async def test_what_is_missing_is_reported_and_retried(machine: Machine, plane: Plane) -> None:
    await make_pod(plane, "p", [{"name": "config", "configMap": {"name": "cm"}}])
    pod = await plane.until(
        kinds.POD, "p", lambda o: bool(o and o["status"].get("containerStatuses"))
    )
    assert pod is not None and pod["status"]["phase"] == "Pending"
    waiting = pod["status"]["containerStatuses"][0]["state"]["waiting"]
    assert waiting["reason"] == "ContainerCreating"
    await plane.create(kinds.CONFIG_MAP, "cm", data={"a": "one"})
    await plane.until(kinds.POD, "p", running)
    text = 'MountVolume.SetUp failed for volume "config" : configmap "cm" not found'
    assert ("FailedMount", text) in await plane.reasons("p")


async def test_a_claim_that_gets_bound_wakes_its_pod_before_its_next_try(
    machine: Machine, plane: Plane, tmp_path: Path
) -> None:
    await make_pod(plane, "p", [claimed("data", "pv1")])
    # Tries after 0.5 and 1.5 s have failed, and the next one is due after 3.5 s.
    await asyncio.sleep(1.8)
    await make_volume(plane, "pv1", {"hostPath": {"path": str(tmp_path / "data")}})
    await plane.until(kinds.POD, "p", running, seconds=1.0)


async def test_a_source_nobody_serves_is_named(machine: Machine, plane: Plane) -> None:
    source = {"targetPortal": "10.0.0.1", "iqn": "iqn.2024-01.org.example:a", "lun": 0}
    await make_volume(plane, "pv1", {"iscsi": source})
    await make_pod(plane, "p", [claimed("data", "pv1")])
    await asyncio.sleep(0.5)
    texts = [message for reason, message in await plane.reasons("p") if reason == "FailedMount"]
    assert texts and texts[0].startswith(
        'MountVolume.SetUp failed for volume "pv1" : iscsi volumes'
    )
    assert "open-iscsi" in texts[0]
    pod = await plane.find(kinds.POD, "p")
    assert pod is not None and pod["status"]["phase"] == "Pending"


async def test_a_sub_path_is_made_and_one_that_escapes_is_refused(
    machine: Machine, plane: Plane, tmp_path: Path
) -> None:
    data = tmp_path / "data"
    data.mkdir()
    (data / "escape").symlink_to("/etc")
    volumes = [{"name": "data", "hostPath": {"path": str(data)}}]

    def container(sub_path: str) -> Object:
        mount = {"name": "data", "mountPath": "/d", "subPath": sub_path}
        return {"name": "main", "image": "busybox", "volumeMounts": [mount]}

    await make_pod(plane, "good", volumes, containers=[container("a/b")])
    await make_pod(plane, "bad", volumes, containers=[container("escape/cron.d")])
    await plane.until(kinds.POD, "good", running)
    assert (data / "a" / "b").is_dir()

    def broken(obj: Object | None) -> bool:
        states = [e["state"] for e in (obj or {}).get("status", {}).get("containerStatuses") or ()]
        return any(
            s.get("waiting", {}).get("reason") == "CreateContainerConfigError" for s in states
        )

    await plane.until(kinds.POD, "bad", broken)


async def test_a_killed_agent_disturbs_nothing_and_finishes_what_was_asked_meanwhile(
    machine: Machine, plane: Plane, tmp_path: Path
) -> None:
    await make_volume(plane, "pv1", {"hostPath": {"path": str(tmp_path / "one")}})
    await make_volume(plane, "pv2", {"hostPath": {"path": str(tmp_path / "two")}})
    kept = await make_pod(plane, "kept", [claimed("data", "pv1")])
    forced = await make_pod(plane, "forced", [claimed("data", "pv2")])
    before = await plane.until(kinds.POD, "kept", running)
    await plane.until(kinds.POD, "forced", running)
    place = machine.mount(kept, "kubernetes.io~host-path", "pv1")
    mount_id = mountinfo.at(place)[0].id
    await machine.kill()
    await plane.client.delete(kinds.POD, "forced", "default", grace=0)
    assert await plane.find(kinds.POD, "forced") is None
    machine.start()
    remains = machine.root / "pods" / forced["metadata"]["uid"]
    for _ in range(200):
        if not remains.exists():
            break
        await asyncio.sleep(0.02)
    assert not remains.exists() and not mountinfo.at(machine.staging("pv2"))
    assert mountinfo.at(place)[0].id == mount_id
    assert await plane.find(kinds.POD, "kept") == before


async def test_a_busy_volume_keeps_its_pod_until_it_is_free(
    machine: Machine, plane: Plane, tmp_path: Path
) -> None:
    await make_volume(plane, "pv1", {"hostPath": {"path": str(tmp_path / "data")}})
    pod = await make_pod(plane, "p", [claimed("data", "pv1")])
    await plane.until(kinds.POD, "p", running)
    place = machine.mount(pod, "kubernetes.io~host-path", "pv1")
    with (place / "open").open("w"):
        await plane.client.delete(kinds.POD, "p", "default")
        await asyncio.sleep(1.0)
        assert await plane.find(kinds.POD, "p") is not None
        assert "FailedUnMount" in [reason for reason, _ in await plane.reasons("p")]
    await plane.until(kinds.POD, "p", gone)


async def test_one_claim_used_twice_by_a_pod_is_mounted_twice(
    machine: Machine, plane: Plane, tmp_path: Path
) -> None:
    await make_volume(plane, "pv1", {"hostPath": {"path": str(tmp_path / "data")}})
    pod = await make_pod(plane, "p", [claimed("a", "pv1"), claimed("b", "pv1")])
    await plane.until(kinds.POD, "p", running)
    parent = machine.mount(pod, "kubernetes.io~host-path", "pv1").parent.parent
    assert len([p for p in parent.iterdir() if mountinfo.at(p / "mount")]) == 2
    await plane.client.delete(kinds.POD, "p", "default")
    await plane.until(kinds.POD, "p", gone)
    assert not mountinfo.beneath(machine.root)
