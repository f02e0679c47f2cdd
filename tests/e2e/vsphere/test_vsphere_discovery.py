"""Two stories of vSphere administrators, with `holdfast up`, kubectl and govc.

The first tags datacenters, clusters and datastores and gets classes; the second writes a
vsphere.conf, prepares VMs, and mounts disks made by a class and by hand. Where a guest would
see its disks as SCSI devices, loop devices stand in: whatever vCenter says hangs in a VM
appears as a link in the node's device directory.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from uuid import UUID

import pytest
import yaml

import machine
from holdfast.backends.protocol import VolumeRequest
from holdfast.backends.vsphere import documents
from holdfast.backends.vsphere.backend import VsphereBackend
from machine import Machine, eventually
from servers.vsphere.guest import Guest
from servers.vsphere.vcenter import USER, VCenter

pytestmark = pytest.mark.e2e

EXAMPLE = machine.ROOT / "examples/11-vsphere"
FOLDER = "kubernetes-cluster"
WHO = "k8s@vsphere.local"
REGIONS = {"k8s-region-x1": "X1", "k8s-region-x2": "X2"}


@pytest.fixture
def vcenter(tmp_path: Path) -> Iterator[VCenter]:
    found = VCenter(tmp_path / "vcenter", "-dc", "2", "-cluster", "2", "-ds", "2")
    yield found
    found.stop()


def configure(found: Machine, text: str, uuid: str = "") -> None:
    found.data_dir.mkdir(parents=True, exist_ok=True)
    (found.data_dir / "holdfast.toml").write_text(text)
    if uuid:
        note = found.data_dir / "nodes" / machine.NODE / "backends" / "vsphere"
        note.mkdir(parents=True)
        (note / "vm-uuid").write_text(uuid)


def prepare(found: Machine, *arguments: str, code: int = 0) -> str:
    """Run `holdfast prepare vsphere` and return what it printed."""
    environment = {
        **found.environment(),
        "PYTHONPATH": machine.PYTHONPATH,
        "HOLDFAST_DATA_DIR": str(found.data_dir),
    }
    done = subprocess.run(
        [sys.executable, "-P", "-m", "holdfast.cli", "prepare", "vsphere", *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        env=environment,
    )
    assert done.returncode == code, done.stderr + done.stdout
    return done.stdout


def discovered(found: Machine) -> dict[str, dict]:  # type: ignore[type-arg]
    return {
        each["metadata"]["name"]: each
        for each in found.all("sc", "")
        if (each["metadata"].get("labels") or {}).get("holdfast.dev/discovered-by") == "vsphere"
    }


@pytest.mark.root
def test_classes_follow_the_tags_of_two_regions_with_two_zones_each(
    vcenter: VCenter, new_machine: Callable[[], Machine], tmp_path: Path
) -> None:
    guest = Guest(vcenter, "/DC0/vm/DC0_C0_RP0_VM0", tmp_path / "guest")
    try:
        follow_tags(vcenter, new_machine(), guest)
    finally:
        guest.close()


def follow_tags(vcenter: VCenter, found: Machine, guest: Guest) -> None:
    """The platform's story, from roles and tags to a pod, and to a vCenter that is away."""
    password = vcenter.password.replace("\\", "\\\\").replace('"', '\\"')
    configure(
        found,
        f"""
[vsphere.platform]
server = "127.0.0.1"
port = {vcenter.port}
user = "{USER}"
password = "{password}"
ca_file = "{vcenter.certificate}"
datacenters = ["DC0", "DC1"]
datacenter = "DC0"
region_category = "k8s-region"
zone_category = "k8s-zone"
device_dir = "{guest.links}"
""",
        vcenter.uuid_of("/DC0/vm/DC0_C0_RP0_VM0"),
    )
    found.start()
    wanted = [
        *("--region", "k8s-region-x1=k8s-zone-x1-a,k8s-zone-x1-b"),
        *("--region", "k8s-region-x2=k8s-zone-x2-a,k8s-zone-x2-b"),
        *("--attach", "k8s-region-x1=/DC0", "--attach", "k8s-region-x2=/DC1"),
    ]
    for number, region in ((0, "x1"), (1, "x2")):
        for cluster, zone in ((0, "a"), (1, "b")):
            tag = f"k8s-zone-{region}-{zone}"
            wanted += ["--attach", f"{tag}=/DC{number}/host/DC{number}_C{cluster}"]
            wanted += ["--attach", f"{tag}=/DC{number}/datastore/LocalDS_{cluster}"]
    files(found, vcenter, guest.links.parent)
    prepare(found, "roles", "--mode=platform", "--role=kubernetes", f"--principal={WHO}")
    assert "VirtualMachine.State.RevertToSnapshot" in vcenter.govc("role.ls", "kubernetes")
    assert "kubernetes" in vcenter.govc("permissions.ls", "/DC0")
    dry = prepare(found, "tags", "--dry-run", *wanted)
    assert "govc tags.attach -c k8s-region k8s-region-x1 /DC0" in dry
    assert vcenter.govc("tags.ls").strip() == ""
    prepare(found, "tags", *wanted)
    again = prepare(found, "tags", *wanted)
    assert "done   " not in again
    attached = vcenter.govc("tags.attached.ls", "-r", "/DC0/datastore/LocalDS_0")
    assert attached.strip() == "k8s-zone-x1-a"
    classes = eventually(
        lambda: classes if len(classes := discovered(found)) == 4 else None, 20, "four classes"
    )
    by_zone = {
        tuple(term["matchLabelExpressions"][1]["values"]): name
        for name, each in classes.items()
        for term in each["allowedTopologies"]
    }
    assert sorted(by_zone) == [
        (f"k8s-zone-{region}-{zone}",) for region in ("x1", "x2") for zone in ("a", "b")
    ]
    defaults = [
        name
        for name, each in classes.items()
        if (each["metadata"].get("annotations") or {}).get(
            "storageclass.kubernetes.io/is-default-class"
        )
    ]
    assert defaults in ([sorted(classes)[0]], [])
    node = eventually(
        lambda: (
            labels
            if "topology.kubernetes.io/zone"
            in (labels := (found.get("node", machine.NODE) or {})["metadata"]["labels"])
            else None
        ),
        20,
        "labels of the node",
    )
    assert node["topology.kubernetes.io/region"] == "k8s-region-x1"
    assert node["topology.kubernetes.io/zone"] == "k8s-zone-x1-a"
    of_a_zone(found, vcenter, by_zone["k8s-zone-x1-a",])
    an_orphan(found, vcenter)
    # A datastore that moves to another zone gets its class anew; one without tags loses it.
    gone, moved = by_zone["k8s-zone-x2-b",], by_zone["k8s-zone-x1-b",]
    old = classes[moved]["metadata"]["uid"]
    vcenter.govc("tags.detach", "-c", "k8s-zone", "k8s-zone-x2-b", "/DC1/datastore/LocalDS_1")
    vcenter.govc("tags.attach", "-c", "k8s-zone", "k8s-zone-x1-a", "/DC0/datastore/LocalDS_1")

    def changed() -> bool:
        now = discovered(found)
        return gone not in now and moved in now and now[moved]["metadata"]["uid"] != old

    eventually(changed, 20, "the classes to follow")
    kept = {name: each["metadata"]["uid"] for name, each in discovered(found).items()}
    vcenter.stop()
    eventually(
        lambda: "classes left as they are" in found.log.read_text(), 30, "vCenter to be missed"
    )
    assert {n: each["metadata"]["uid"] for n, each in discovered(found).items()} == kept
    told = found.get("node", machine.NODE)
    assert told is not None
    assert node.items() <= told["metadata"]["labels"].items()
    began_anew(found, vcenter, kept)


def began_anew(found: Machine, vcenter: VCenter, kept: dict[str, str]) -> None:
    """A vCenter that is back is followed again; before its tags are, nothing is removed."""
    vcenter.restart()
    assert {n: each["metadata"]["uid"] for n, each in discovered(found).items()} == kept
    prepare(
        found,
        *("tags", "--region", "k8s-region-x1=k8s-zone-x1-a", "--attach", "k8s-region-x1=/DC0"),
        *("--attach", "k8s-zone-x1-a=/DC0/datastore/LocalDS_1"),
    )
    (left,) = eventually(
        lambda: classes if len(classes := discovered(found)) == 1 else None, 40, "one class"
    )
    assert left in kept


def files(found: Machine, vcenter: VCenter, directory: Path) -> None:
    """The files of the platform's image and network parts."""
    values = {
        "vcenter_server": "127.0.0.1",
        "vcenter_username": USER,
        "vcenter_password": vcenter.password,
        "vcenter_cluster": "DC0_C0",
        "vcenter_datacenter": "DC0",
        "vcenter_resource_pool": "Resources",
        "vcenter_datastore": "LocalDS_0",
        "vcenter_folder": "/DC0/vm",
        "vm_network": "VM Network",
    }
    path = directory / "vsphere.auto.pkrvars.hcl"
    lines = [f"{key} = {json.dumps(value, ensure_ascii=False)}" for key, value in values.items()]
    path.write_text("\n".join(lines))
    assert "is there" in prepare(found, "packer", str(path))
    path.write_text("\n".join(lines).replace("LocalDS_0", "LocalDS_7"))
    said = prepare(found, "packer", str(path), code=1)
    assert 'vcenter_datastore: "LocalDS_7" does not exist; did you mean "LocalDS_' in said
    assert vcenter.password not in said
    own = directory / "made.auto.pkrvars.hcl"
    where = ("--cluster", "DC0_C0", "--network", "VM Network", "--datastore", "LocalDS_0")
    said = prepare(found, "packer", "--write", *where, "--pool", "builds", str(own), code=1)
    assert 'vcenter_resource_pool: "builds"' in said and not own.exists()
    prepare(found, "packer", "--write", *where, "--folder", "/DC0/vm", str(own))
    assert own.stat().st_mode & 0o777 == 0o600
    made = documents.read_packer(own.read_text(), "own")
    assert made == {**values, "vcenter_server": vcenter.address}
    assert "is there" in prepare(found, "packer", str(own))
    prepare(found, "packer", "--write", *where, "--folder", "/DC0/vm", str(own), code=1)
    five = ("--router", "192.0.2.1", "--router", "192.0.2.2", "--router-asn", "65000")
    rest = (*five, "--asn", "65001", "--range", "198.51.100.0/28")
    assert prepare(found, "metallb", *rest, "--network", "VM Netz", code=1) == ""
    printed = prepare(found, "metallb", *rest, "--network", "VM Network")
    kinds = [each["kind"] for each in yaml.safe_load_all(printed)]
    assert kinds == ["BGPPeer", "BGPPeer", "IPAddressPool", "BGPAdvertisement"]


def of_a_zone(found: Machine, vcenter: VCenter, name: str) -> None:
    """A claim of a discovered class: its disk is where the class says and in the pod's VM."""
    found.create(_ZONED.replace("CLASS", name))
    found.create(_POD.format(name="zoned", claim="zoned"))
    found.wait_for_phase("pod", "zoned", "Running", 60)
    volume = found.get("pv", (found.get("pvc", "zoned") or {})["spec"]["volumeName"])
    assert volume is not None
    assert volume["spec"]["csi"]["driver"] == "csi.vsphere.vmware.com"
    assert volume["metadata"]["name"] in vcenter.govc("disk.ls", "-ds", "LocalDS_0")
    (file,) = vcenter.attached("/DC0/vm/DC0_C0_RP0_VM0")
    assert file.startswith("[LocalDS_0] ")
    found.kubectl("delete", "pod", "zoned", "--wait=true")
    found.kubectl("delete", "pvc", "zoned")
    eventually(
        lambda: volume["metadata"]["name"] not in vcenter.govc("disk.ls", "-ds", "LocalDS_0"),
        60,
        "the disk to be deleted",
    )


def an_orphan(found: Machine, vcenter: VCenter) -> None:
    """A disk of a claim that nobody knows is shown, although a First Class Disk's id is a UUID."""

    async def make(directory: Path) -> str:
        backend = VsphereBackend({"main": vcenter.settings()}, directory)
        try:
            wanted = VolumeRequest(f"pvc-{UUID(int=1)}", 1 << 20, {"disk": "fcd"})
            return (await backend.create_volume(wanted)).id
        finally:
            await backend.close()

    left = asyncio.run(make(found.data_dir / "another"))
    listed = json.loads(found.holdfast("volumes", "--json", check=False).stdout)
    (orphan,) = (each for each in listed if each["problem"])
    assert (orphan["id"], orphan["problem"]) == (left, "orphan: no volume object")
    uuid, _, store = left.removeprefix("fcd:").partition("@")
    name = vcenter.govc("ls", "-L", f"Datastore:{store}").strip().rpartition("/")[2]
    assert "pvc-0000" in vcenter.govc("disk.ls", "-ds", name)
    vcenter.govc("disk.rm", "-ds", name, uuid)
    assert found.holdfast("volumes", check=False).returncode == 0


@pytest.mark.root
def test_the_cloud_provider_by_hand_and_its_volumes(
    vcenter: VCenter, new_machine: Callable[[], Machine], tmp_path: Path
) -> None:
    """vsphere.conf, disk.enableUUID, a class with vSAN settings, a pod, and a static disk."""
    vcenter.gather(FOLDER, ["/DC0/vm/DC0_C0_RP0_VM0", "/DC0/vm/DC0_C0_RP0_VM1"])
    shelf = tmp_path / "vsan"
    shelf.mkdir()
    hosts = vcenter.govc("find", "/DC0", "-type", "h").split()
    where = ("-name", "vsanDatastore", "-path", str(shelf))
    vcenter.govc("datastore.create", "-type", "local", *where, *hosts)
    virtual = f"/DC0/vm/{FOLDER}/DC0_C0_RP0_VM0"
    conf = tmp_path / "vsphere.conf"
    conf.write_text(
        f"""
# as on the masters of the cluster
[Global]
secret-name = "vcp"
secret-namespace = "kube-system"
port = "{vcenter.port}"
insecure-flag = "1"
datacenters = "DC0"
[VirtualCenter "127.0.0.1"]
[Workspace]
server = "127.0.0.1"
datacenter = "DC0"
folder = "{FOLDER}"
default-datastore="vsanDatastore"
[Disk]
scsicontrollertype = pvscsi
"""
    )
    guest = Guest(vcenter, virtual, tmp_path / "guest")
    found = new_machine()
    configure(
        found,
        f'[vsphere.cloud]\nconfig = "{conf}"\ndevice_dir = "{guest.links}"\n',
        vcenter.uuid_of(virtual),
    )
    try:
        found.start()
        before = found.holdfast("check", "vsphere", check=False)
        assert "kube-system/vcp: not found" in before.stdout
        content = {"127.0.0.1.username": USER, "127.0.0.1.password": vcenter.password}
        found.create(_SECRET + json.dumps(content))
        before = found.holdfast("check", "vsphere", check=False)
        assert vcenter.password not in before.stdout
        assert "disk.enableUUID is not set" in before.stdout
        prepare(found, "roles", "--mode=policy", "--role=k8s-vcp", f"--principal={WHO}")
        assert "StorageProfile.View" in vcenter.govc("role.ls", "k8s-vcp")
        assert "VSPHERE.LOCAL\\k8s" in vcenter.govc("permissions.ls", f"/DC0/vm/{FOLDER}")
        prepare(found, "nodes")
        extra = vcenter.json("vm.info", "-e", virtual)["virtualMachines"][0]["config"]
        assert {"key": "disk.enableUUID", "value": "TRUE"}.items() <= {
            k: v
            for each in extra["extraConfig"]
            if each["key"] == "disk.enableUUID"
            for k, v in each.items()
        }.items()
        by_hand = ("--datastore", "vsanDatastore", "--size", "10G", "k8sData/MySQLDisk.vmdk")
        prepare(found, "disk", *by_hand)
        assert vcenter.files("vsanDatastore", "k8sData") == ["MySQLDisk.vmdk"]
        reasons(found, vcenter, tmp_path)
        left_behind(found, vcenter.uuid_of(f"/DC0/vm/{FOLDER}/DC0_C0_RP0_VM1"))
        for name in ("class", "claim", "pod"):
            found.create((EXAMPLE / f"{name}.yaml").read_text())
        claim = found.wait_for_phase("pvc", "vsphere-pvc002", "Bound", 30)
        volume = found.get("pv", claim["spec"]["volumeName"])
        assert volume is not None
        path = volume["spec"]["vsphereVolume"]["volumePath"]
        name = claim["spec"]["volumeName"]
        assert path == f"[vsanDatastore] kubevols/kubernetes-dynamic-{name}.vmdk"
        found.wait_for_phase("pod", "vsphere-pod002", "Running", 60)
        assert vcenter.attached(virtual) == [path]
        found.create((EXAMPLE / "static.yaml").read_text())
        found.wait_for_phase("pvc", "static", "Bound", 30)
        found.create(_POD.format(name="static", claim="static"))
        found.wait_for_phase("pod", "static", "Running", 60)
        assert vcenter.attached(virtual) == ["[vsanDatastore] k8sData/MySQLDisk.vmdk", path]
        found.kubectl("delete", "pod", "vsphere-pod002", "static", "--wait=true")
        eventually(lambda: vcenter.attached(virtual) == [], 60, "the disks to be detached")
        found.kubectl("delete", "pvc", "vsphere-pvc002", "static")
        eventually(lambda: vcenter.files("vsanDatastore", "kubevols") == [], 60, "deletion")
        assert vcenter.files("vsanDatastore", "k8sData") == ["MySQLDisk.vmdk"]
        found.create((EXAMPLE / "inline.yaml").read_text())
        found.wait_for_phase("pod", "inline", "Running", 60)
        assert vcenter.attached(virtual) == ["[vsanDatastore] k8sData/MySQLDisk.vmdk"]
        (attachment,) = found.all("volumeattachment", "")
        source = attachment["spec"]["source"]
        assert source["inlineVolumeSpec"]["csi"]["driver"] == "csi.vsphere.vmware.com"
        found.kubectl("delete", "pod", "inline", "--wait=true")
        eventually(lambda: vcenter.attached(virtual) == [], 60, "the pod's disk to be detached")
        eventually(lambda: not found.all("volumeattachment", ""), 20, "its attachment to go")
        assert vcenter.files("vsanDatastore", "k8sData") == ["MySQLDisk.vmdk"]
    finally:
        found.dispose()
        guest.close()


def reasons(found: Machine, vcenter: VCenter, directory: Path) -> None:
    """`holdfast why` names what vCenter minds, and the command that ends it."""
    (directory / "lonely").mkdir()
    host = vcenter.govc("find", "/DC0", "-type", "h", "-name", "DC0_H0").strip()
    where = ("-name", "lonely", "-path", str(directory / "lonely"))
    vcenter.govc("datastore.create", "-type", "local", *where, host)
    for store, code, said in (
        ("vsanDatastor", "not-in-vcenter", 'did you mean "vsanDatastore"?'),
        ("lonely", "datastore-not-shared", "not a shared datastore across node VMs"),
    ):
        name = f"wrong-{code}"
        found.create(_WRONG.replace("NAME", name).replace("STORE", store))
        found.create(_ZONED.replace("CLASS", name).replace("zoned", name))
        found.wait_for_event(name, "ProvisioningFailed", 30)
        answer = json.loads(found.holdfast("why", "--json", f"pvc/{name}", check=False).stdout)
        assert answer["cause"]["code"] == code, answer
        assert said in answer["cause"]["what"], answer
        assert "holdfast check vsphere" in answer["cause"]["fix"]
        found.kubectl("delete", "pvc", name)


_SECRET = """
apiVersion: v1
kind: Secret
metadata:
  name: vcp
  namespace: kube-system
stringData: """

_WRONG = """
apiVersion: storage.k8s.io/v1
kind: StorageClass
metadata:
  name: NAME
provisioner: kubernetes.io/vsphere-volume
parameters:
  datastore: STORE
"""


def left_behind(found: Machine, away: str) -> None:
    """A node that another --hostname-override left is told; so is one that is misnamed."""
    own = found.get("node", machine.NODE)
    assert own is not None
    found.create(_LEFT.replace("AWAY", away))
    address = [each for each in own["status"]["addresses"] if each["type"] == "InternalIP"]
    status = json.dumps({"status": {"addresses": address}})
    found.kubectl("patch", "node", "10.1.1.7", "--subresource=status", "--patch", status)
    done = found.holdfast("check", "--json", "vsphere", check=False)
    told = {
        each["where"]: each for each in json.loads(done.stdout) if each["where"].startswith("node ")
    }
    assert told["node 10.1.1.7"]["remedy"] == "kubectl delete node 10.1.1.7"
    assert f"its machine is node {machine.NODE} now" in told["node 10.1.1.7"]["what"]
    assert told["node nobody"]["severity"] == "error"
    assert "no machine answers to nobody" in told["node nobody"]["what"]
    assert "its machine is called DC0_C0_RP0_VM0" in told[f"node {machine.NODE}"]["what"]
    assert "it is NotReady; VM DC0_C0_RP0_VM1" in told["node dc0-away"]["what"]
    found.kubectl("delete", "node", "10.1.1.7", "nobody", "dc0-away")


_LEFT = """
apiVersion: v1
kind: Node
metadata:
  name: 10.1.1.7
---
apiVersion: v1
kind: Node
metadata:
  name: nobody
---
apiVersion: v1
kind: Node
metadata:
  name: dc0-away
spec:
  providerID: vsphere://AWAY
"""

_POD = """
apiVersion: v1
kind: Pod
metadata:
  name: {name}
spec:
  terminationGracePeriodSeconds: 1
  containers:
  - name: test-container
    image: test-webserver
    volumeMounts:
    - name: test-volume
      mountPath: /test-vmdk
  volumes:
  - name: test-volume
    persistentVolumeClaim:
      claimName: {claim}
"""

_ZONED = """
apiVersion: v1
kind: PersistentVolumeClaim
metadata:
  name: zoned
spec:
  accessModes: [ReadWriteOnce]
  storageClassName: CLASS
  resources:
    requests:
      storage: 1Gi
"""
