"""A published OpenStack how-to, replayed with kubectl on a real cloud, and what it says may fail.

Holdfast plays the nodes, and each is one of Nova's servers: a link in the node's own directory
leads to what stands for the server's files.
"""

from __future__ import annotations

import base64
import json
import os
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import machine
import manifests
from servers.openstack import catalog
from servers.openstack.cloud import CINDER, KEYSTONE, NOVA, Cloud
from servers.openstack.configuration import MOST_DISKS
from servers.openstack.guests import Guests

pytestmark = [pytest.mark.e2e, pytest.mark.root, pytest.mark.timeout(500)]

FIRST, SECOND = machine.NODE, f"{machine.NODE}-2"
GIB = 1 << 30
# How long Keystone is away at least; OUTAGE_SECONDS=60 is an outage of a minute.
OUTAGE_SECONDS = float(os.environ.get("OUTAGE_SECONDS", "0"))
PATIENCE = "[nodes]\ngrace_seconds = 2\ntoleration_seconds = 2\n"

EXAMPLE = machine.ROOT / "examples/10-openstack-cinder"
CLASS_AND_CLAIM = "---\n".join(
    (EXAMPLE / name).read_text() for name in ("class.yaml", "claim.yaml")
)
POD = (EXAMPLE / "pod.yaml").read_text()


@pytest.fixture
def new_site(
    new_machine: Callable[[], machine.Machine], openstack_cloud: Cloud, servers: Guests
) -> Iterator[Callable[..., machine.Machine]]:
    """A function that starts Holdfast on some of Nova's servers."""
    made: list[machine.Machine] = []

    def start(nodes: int = 1, settings: str = "", conf: Path | None = None) -> machine.Machine:
        site = new_machine()
        configuration = f'[node]\nname = "{FIRST}"\n'
        configuration += f'[cinder.default]\ncloud_conf = "{conf or openstack_cloud.cloud_conf}"\n'
        site.data_dir.mkdir(mode=0o700)
        (site.data_dir / "holdfast.toml").write_text(configuration + settings)
        for name in (FIRST, SECOND)[:nodes]:
            servers.boot(name)
            private = site.data_dir / "nodes" / name / "backends/cinder"
            private.mkdir(parents=True)
            (private / "root").symlink_to(servers.root(name))
        made.append(site.start("--nodes", str(nodes)))
        machine.eventually(lambda: known_servers(site) == nodes, 60, "the nodes know their servers")
        return site

    yield start
    for site in made:
        clear(site)


def known_servers(site: machine.Machine) -> int:
    """How many nodes have entered the driver with their server's id."""
    found = json.loads(site.kubectl("get", "csinodes", "-o", "json"))["items"]
    drivers = [each for node in found for each in node["spec"].get("drivers") or ()]
    return sum(each["name"] == "cinder.csi.openstack.org" for each in drivers)


def clear(site: machine.Machine) -> None:
    """Delete all claims and pods, so that the cloud is empty for the next test."""
    for kind in ("deployments", "pods", "pvc"):
        site.kubectl("delete", kind, "--all", "--wait=false", "--now", check=False)
    # Static volumes stay when their claims go.
    for each in site.all("pv"):
        if each["metadata"]["name"].startswith("static-"):
            site.kubectl("delete", "pv", each["metadata"]["name"], "--wait=false", check=False)
    machine.eventually(lambda: not site.all("pv"), 90, "all volumes are gone")


def await_free(cloud: Cloud, id: str) -> None:
    """Wait until a volume is attached nowhere."""
    with catalog.connected(cloud.ports, admin=False) as member:
        machine.eventually(
            lambda: member.block_storage.get_volume(id).status == "available", 60, "it is free"
        )


def run(site: machine.Machine, pod: dict[str, Any]) -> Path:
    """Create a pod and give its volume, with the patience that servers need."""
    site.apply(pod)
    site.wait_for_phase("pod", pod["metadata"]["name"], "Running", 90)
    return site.mount_of(pod["metadata"]["name"], site.volume_of(pod))


def cinder_volumes(cloud: Cloud, prefix: str = "pvc-") -> dict[str, Any]:
    """The volumes Cinder has, by name, as the user of the project sees them."""
    with catalog.connected(cloud.ports, admin=False) as member:
        found = list(member.block_storage.volumes())
    return {each.name: each for each in found if each.name.startswith(prefix)}


def test_the_guide_works_as_it_is_printed(
    new_site: Callable[..., machine.Machine], openstack_cloud: Cloud, servers: Guests
) -> None:
    site = new_site()
    encoded = base64.b64encode(openstack_cloud.cloud_conf.read_bytes()).decode()
    secret = {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": "cloud-config", "namespace": "kube-system"},
        "data": {"cloud.conf": encoded},
    }
    site.apply(secret)
    site.create(CLASS_AND_CLAIM)
    row = site.row("sc", "csi-sc-cinderplugin")
    assert row[:5] == [
        *("csi-sc-cinderplugin", "cinder.csi.openstack.org", "Delete", "Immediate", "false")
    ]
    claim = site.wait_for_phase("pvc", "csi-pvc-cinderplugin", "Bound", 60)
    name = claim["spec"]["volumeName"]
    assert site.row("pvc", "csi-pvc-cinderplugin")[1:5] == ["Bound", name, "1Gi", "RWO"]
    site.create(POD)
    site.wait_for_phase("pod", "nginx", "Running", 60)

    said = site.kubectl("describe", "pv", name)
    lines = dict(re.findall(r"^ *([\w ]+?): +(.+?)$", said, re.MULTILINE))
    assert lines["Driver"] == "cinder.csi.openstack.org"
    assert lines["FSType"] == "ext4"
    assert lines["Access Modes"] == "RWO"
    assert "external-attacher/cinder-csi-openstack-org" in lines["Finalizers"]
    handle = lines["VolumeHandle"]

    found = cinder_volumes(openstack_cloud)[name]
    assert (found.id, found.status, found.size) == (handle, "in-use", 1)
    assert found.attachments[0]["server_id"] == servers.boot(FIRST)
    inside = site.mount_of("nginx", name)
    assert [path.name for path in inside.iterdir()] == ["lost+found"]

    listed = site.holdfast("volumes").stdout
    line = next(each for each in listed.splitlines() if handle in each)
    assert name in line and "csi-pvc-cinderplugin" in line and FIRST in line
    checked = site.holdfast("check", "openstack")
    assert checked.returncode == 0, checked.stdout
    assert "disk links" in checked.stdout and "quota" in checked.stdout

    # A pod that is deleted and made anew gets the same volume with what was in it.
    (inside / "index.html").write_text("kept")
    site.kubectl("delete", "pod", "nginx", "--now")
    site.wait_until_gone("pod", "nginx", 60)
    site.create(POD)
    site.wait_for_phase("pod", "nginx", "Running", 60)
    assert (site.mount_of("nginx", name) / "index.html").read_text() == "kept"

    site.kubectl("delete", "pod", "nginx", "--now")
    site.kubectl("delete", "pvc", "csi-pvc-cinderplugin")
    machine.eventually(lambda: site.get("pv", name) is None, 60, "the volume object is gone")
    assert name not in cinder_volumes(openstack_cloud)


def test_the_old_plug_ins_class_and_static_volumes_work(
    new_site: Callable[..., machine.Machine], openstack_cloud: Cloud
) -> None:
    site = new_site()
    parameters = {"type": "file", "availability": "nova", "fstype": "ext4"}
    gold = manifests.storage_class("gold", "kubernetes.io/cinder", parameters=parameters)
    site.apply(gold, manifests.claim("old", "1Gi", storage_class="gold"))
    claim = site.wait_for_phase("pvc", "old", "Bound", 60)
    volume = site.get("pv", claim["spec"]["volumeName"])
    assert volume is not None
    id = volume["spec"]["cinder"]["volumeID"]
    assert volume["spec"]["cinder"]["fsType"] == "ext4"
    inside = run(site, manifests.pod("one", "old"))
    (inside / "note").write_text("kept")
    site.kubectl("delete", "pod", "one", "--now")
    site.kubectl("patch", "pv", volume["metadata"]["name"], "--type=merge", "-p", RETAIN)
    site.kubectl("delete", "pvc", "old")
    site.kubectl("delete", "pv", volume["metadata"]["name"])
    await_free(openstack_cloud, id)

    # What the administrator knows of it is its id in Cinder.
    for kind, source in (
        ("cinder", {"volumeID": id, "fsType": "ext4"}),
        ("csi", {"driver": "cinder.csi.openstack.org", "volumeHandle": id, "fsType": "ext4"}),
    ):
        static = {
            "apiVersion": "v1",
            "kind": "PersistentVolume",
            "metadata": {"name": f"static-{kind}"},
            "spec": {
                "capacity": {"storage": "1Gi"},
                "accessModes": ["ReadWriteOnce"],
                "persistentVolumeReclaimPolicy": "Retain",
                "storageClassName": "",
                kind: source,
            },
        }
        asked = manifests.claim(kind, "1Gi", storage_class="", volumeName=f"static-{kind}")
        site.apply(static, asked)
        site.wait_for_phase("pvc", kind, "Bound", 60)
        inside = run(site, manifests.pod(f"with-{kind}", kind))
        assert (inside / "note").read_text() == "kept"
        site.kubectl("delete", "pod", f"with-{kind}", "--now")
        site.wait_until_gone("pod", f"with-{kind}", 60)
        site.kubectl("delete", "pvc", kind)
        site.kubectl("delete", "pv", f"static-{kind}")
        # Two PersistentVolumes of one volume must not be in use at a time.
        await_free(openstack_cloud, id)
    with catalog.connected(openstack_cloud.ports, admin=False) as member:
        member.block_storage.delete_volume(id)


RETAIN = json.dumps({"spec": {"persistentVolumeReclaimPolicy": "Retain"}})


def test_a_lost_node_keeps_its_volume_until_nova_says_that_its_server_is_off(
    new_site: Callable[..., machine.Machine], openstack_cloud: Cloud, servers: Guests
) -> None:
    site = new_site(2, PATIENCE)
    site.create(CLASS_AND_CLAIM)
    claim = site.wait_for_phase("pvc", "csi-pvc-cinderplugin", "Bound", 60)
    name = claim["spec"]["volumeName"]
    site.apply(deployment())
    pod = machine.eventually(lambda: running_pod(site), 60, "the first pod runs")
    lost = pod["spec"]["nodeName"]
    other = SECOND if lost == FIRST else FIRST

    site.node("cut", lost)
    following = machine.eventually(lambda: other_pod(site, pod), 60, "a pod on the other node")
    told = machine.eventually(
        lambda: [
            text
            for _, why, text in site.events(following["metadata"]["name"])
            if why == "FailedAttachVolume"
        ],
        60,
        "the pod says what it waits for",
    )
    assert "Multi-Attach error" in told[0]
    # The server may still be writing, so it keeps the volume.
    attached = cinder_volumes(openstack_cloud)[name].attachments
    assert [each["server_id"] for each in attached] == [servers.boot(lost)]

    servers.stop(lost)
    site.node("stop", lost)
    # Nova says that it is off, which is enough.
    machine.eventually(lambda: running_pod(site, other), 90, "the pod runs on the other node")
    attached = cinder_volumes(openstack_cloud)[name].attachments
    assert [each["server_id"] for each in attached] == [servers.boot(other)]
    servers.start(lost)
    site.node("start", lost)


def test_a_server_that_moves_keeps_its_pod(
    new_site: Callable[..., machine.Machine], servers: Guests
) -> None:
    site = new_site()
    site.create(CLASS_AND_CLAIM)
    inside = run(site, manifests.pod("mover", "csi-pvc-cinderplugin"))
    (inside / "note").write_text("kept")
    before, told = site.get("pod", "mover"), site.events("mover")
    servers.migrate(FIRST)
    assert (inside / "note").read_text() == "kept"
    after = site.get("pod", "mover")
    assert before and after and before["metadata"]["uid"] == after["metadata"]["uid"]
    assert after["status"]["phase"] == "Running"
    assert site.events("mover") == told
    clear(site)
    # Nova's fake hypervisor remembers what left it, so this server can move but once.
    servers.delete(FIRST)


def test_a_pod_of_a_dead_compute_host_waits_until_its_server_is_evacuated(
    new_site: Callable[..., machine.Machine],
    openstack_cloud: Cloud,
    servers: Guests,
    tmp_path: Path,
) -> None:
    catalog.write_admin_conf(openstack_cloud.ports, tmp_path / "admin.conf")
    site = new_site(2, PATIENCE, tmp_path / "admin.conf")
    if servers.host(FIRST) == servers.host(SECOND):
        servers.migrate(SECOND)
    site.create(CLASS_AND_CLAIM)
    site.apply(deployment())
    pod = machine.eventually(lambda: running_pod(site), 90, "the first pod runs")
    lost = pod["spec"]["nodeName"]
    (mount_in(site, pod) / "note").write_text("kept")

    host = servers.host(lost)
    site.node("stop", lost)
    servers.force_down(host)
    try:
        told = machine.eventually(lambda: detach_errors(site), 90, "it says what it waits for")
        assert f"compute host {host}, which is down, so Nova cannot detach" in told[0]
        assert "openstack server evacuate" in told[0]
        assert running_pod(site) is None
        servers.evacuate(lost)
        other = SECOND if lost == FIRST else FIRST
        pod = machine.eventually(lambda: running_pod(site, other), 240, "it runs elsewhere")
        assert (mount_in(site, pod) / "note").read_text() == "kept"
    finally:
        # A host that was evacuated comes up again only when Nova starts anew.
        openstack_cloud.kill_service(NOVA)
        openstack_cloud.restart(NOVA)
        servers.force_down(host, False)
        site.node("start", lost)
        clear(site)
        servers.delete(lost)


def mount_in(site: machine.Machine, pod: dict[str, Any]) -> Path:
    """Where a pod on any node has its one volume."""
    node, uid = pod["spec"]["nodeName"], pod["metadata"]["uid"]
    own: Path = site.data_dir / "nodes" / node / "pods" / uid / "volumes"
    return next(own.glob("*/*/mount"))


def detach_errors(site: machine.Machine) -> list[str]:
    """What attachments say of why they cannot end."""
    found = [each.get("status") or {} for each in site.all("volumeattachment")]
    return [each["detachError"]["message"] for each in found if "detachError" in each]


def test_a_server_with_its_most_disks_lets_a_pod_wait_until_one_is_free(
    new_site: Callable[..., machine.Machine],
) -> None:
    site = new_site()
    kind = manifests.storage_class("disks", "cinder.csi.openstack.org", parameters={"type": "file"})
    site.apply(kind)
    # One more than there is room for beside the server's own disk.
    names = [f"d{number}" for number in range(MOST_DISKS)]
    for name in names:
        site.apply(manifests.claim(name, "1Gi", storage_class="disks"), manifests.pod(name, name))

    def waiting() -> list[str]:
        phases = {each["metadata"]["name"]: each["status"].get("phase") for each in site.all("pod")}
        left = [name for name, phase in phases.items() if phase != "Running"]
        return left if len(left) == 1 else []

    (last,) = machine.eventually(waiting, 120, "all but one run")
    said = site.wait_for_event(last, "FailedAttachVolume", 60)
    assert f"The maximum allowed number of disk devices ({MOST_DISKS})" in said
    first = next(name for name in names if name != last)
    site.kubectl("delete", "pod", first, "--now")
    site.wait_for_phase("pod", last, "Running", 120)


def test_a_claim_says_why_it_waits_and_goes_on_when_the_cause_is_gone(
    new_site: Callable[..., machine.Machine], openstack_cloud: Cloud
) -> None:
    site = new_site()
    openstack_cloud.kill_service(CINDER)
    try:
        site.create(CLASS_AND_CLAIM)
        said = site.wait_for_event("csi-pvc-cinderplugin", "ProvisioningFailed", 60)
        assert "Cinder" in said and "did not answer" in said
    finally:
        openstack_cloud.restart(CINDER)
    site.wait_for_phase("pvc", "csi-pvc-cinderplugin", "Bound", 120)

    full = len(cinder_volumes(openstack_cloud, ""))
    catalog.set_quota(openstack_cloud.ports, volumes=full)
    try:
        site.apply(manifests.claim("more", "1Gi", storage_class="csi-sc-cinderplugin"))
        said = site.wait_for_event("more", "ProvisioningFailed", 60)
        assert f"allowed ({full})" in said
        assert "openstack quota set" in said
    finally:
        catalog.set_quota(openstack_cloud.ports, volumes=200)
    site.wait_for_phase("pvc", "more", "Bound", 120)


def test_a_claim_outlives_keystone_and_a_type_that_nothing_fits(
    new_site: Callable[..., machine.Machine], openstack_cloud: Cloud
) -> None:
    site = new_site()
    nowhere = manifests.storage_class(
        "nowhere", "cinder.csi.openstack.org", parameters={"type": "nowhere"}
    )
    site.apply(nowhere, manifests.claim("lost", "1Gi", storage_class="nowhere"))
    said = site.wait_for_event("lost", "ProvisioningFailed", 60)
    assert "no storage backend fits the type, zone and size" in said
    # What failed does not stay in Cinder.
    machine.eventually(lambda: not cinder_volumes(openstack_cloud), 60, "the remains are gone")

    openstack_cloud.kill_service(KEYSTONE)
    killed = time.monotonic()
    try:
        # Cinder remembers a good token for a few seconds.
        time.sleep(6)
        site.create(CLASS_AND_CLAIM)
        said = site.wait_for_event("csi-pvc-cinderplugin", "ProvisioningFailed", 60)
        assert re.search(r"(Keystone|Cinder) of .*(did not answer|does not work)", said), said
        time.sleep(max(0.0, killed + OUTAGE_SECONDS - time.monotonic()))
    finally:
        openstack_cloud.restart(KEYSTONE)
    # Each try makes a volume that fails; between two, the type can be changed.
    ports = openstack_cloud.ports
    machine.eventually(lambda: catalog.set_backend(ports, "nowhere", "file"), 60, "it is free")
    try:
        site.wait_for_phase("pvc", "csi-pvc-cinderplugin", "Bound", 120)
        site.wait_for_phase("pvc", "lost", "Bound", 120)
    finally:
        clear(site)
        assert catalog.set_backend(ports, "nowhere", "no-such-backend")


def test_fifty_creations_under_kill_leave_fifty_volumes_and_then_none(
    new_site: Callable[..., machine.Machine], openstack_cloud: Cloud
) -> None:
    site = new_site()
    assert not cinder_volumes(openstack_cloud)
    files = openstack_cloud.files()
    kind = manifests.storage_class("many", "cinder.csi.openstack.org", parameters={"type": "file"})
    claims = [manifests.claim(f"c{i}", "1Gi", storage_class="many") for i in range(50)]
    site.apply(kind, *claims)
    for pause in (0.3, 0.7, 1.5, 2.5):
        time.sleep(pause)
        site.kill()
        site.start()
    bound = machine.eventually(
        lambda: (
            [
                each["spec"]["volumeName"]
                for each in site.all("pvc")
                if each.get("status", {}).get("phase") == "Bound"
            ]
            if all(c.get("status", {}).get("phase") == "Bound" for c in site.all("pvc"))
            else None
        ),
        240,
        "all claims are bound",
    )
    assert len(set(bound)) == 50
    assert set(cinder_volumes(openstack_cloud)) == set(bound)
    site.kubectl("delete", "pvc", "--all", "--wait=false")
    time.sleep(1.0)
    site.kill()
    site.start()
    machine.eventually(lambda: not site.all("pv") and not site.all("pvc"), 240, "all are gone")
    assert not cinder_volumes(openstack_cloud)
    assert openstack_cloud.files() == files


def deployment() -> dict[str, Any]:
    """One pod with the guide's claim."""
    template = manifests.pod("any", "csi-pvc-cinderplugin")
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "nginx"},
        "spec": {
            "replicas": 1,
            "selector": {"matchLabels": {"app": "nginx"}},
            "template": {"metadata": {"labels": {"app": "nginx"}}, "spec": template["spec"]},
        },
    }


def pods(site: machine.Machine) -> list[dict[str, Any]]:
    """The Deployment's pods."""
    found: list[dict[str, Any]] = json.loads(
        site.kubectl("get", "pods", "-l", "app=nginx", "-o", "json")
    )["items"]
    return found


def running_pod(site: machine.Machine, node: str = "") -> dict[str, Any] | None:
    """The pod that runs (on a node), if there is one."""
    for each in pods(site):
        going = "deletionTimestamp" in each["metadata"]
        runs = each.get("status", {}).get("phase") == "Running"
        if runs and not going and node in ("", each["spec"]["nodeName"]):
            return each
    return None


def other_pod(site: machine.Machine, first: dict[str, Any]) -> dict[str, Any] | None:
    """The pod that was made in place of the first and has a node, if there is one."""
    for each in pods(site):
        if each["metadata"]["uid"] != first["metadata"]["uid"] and each["spec"].get("nodeName"):
            return each
    return None
