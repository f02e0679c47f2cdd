"""The chapter on volumes, claims and classes, followed with kubectl.

The manifests are those of the document with its typography set right: indentation,
straight quotes, `true` as a value instead of an assignment. Where the document tells
how an older Kubernetes behaved, the test says so and holds Holdfast to today's.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

import machine
import manifests
from manifests import Object

NFS = {"nfs": {"path": "/tmp", "server": "172.17.0.2"}}
STABLE = {"release": "stable", "environment": "dev"}

PV1 = """
apiVersion: v1
kind: PersistentVolume
metadata:
  name: pv1
spec:
  capacity:
    storage: 5Gi
  accessModes:
    - ReadWriteOnce
  persistentVolumeReclaimPolicy: Recycle
  storageClassName: slow
  nfs:
    path: /tmp
    server: 172.17.0.2
"""

MYCLAIM = """
kind: PersistentVolumeClaim
apiVersion: v1
metadata:
  name: myclaim
spec:
  accessModes:
    - ReadWriteOnce
  resources:
    requests:
      storage: 8Gi
  storageClassName: slow
  selector:
    matchLabels:
      release: "stable"
    matchExpressions:
      - {key: environment, operator: In, values: [dev]}
"""

DISCARD = """
apiVersion: "v1"
kind: "PersistentVolume"
metadata:
  name: gce-disk-1
  annotations:
    volume.beta.kubernetes.io/mount-options: "discard"
spec:
  capacity:
    storage: "10Gi"
  accessModes:
    - "ReadWriteOnce"
  gcePersistentDisk:
    fsType: "ext4"
    pdName: "gce-disk-1"
"""

GOLD = """
kind: StorageClass
apiVersion: storage.k8s.io/v1
metadata:
  name: gold
  annotations:
    storageclass.beta.kubernetes.io/is-default-class: "true"
provisioner: kubernetes.io/cinder
parameters:
  type: fast
  availability: nova
"""


def slow(name: str, storage: str = "10Gi", **fields: object) -> Object:
    """A volume that would suit the claim, but for what is changed."""
    given: Object = {"labels": STABLE, "storageClassName": "slow", **fields}
    return manifests.volume(name, NFS, storage, **given)


def test_pv1_and_myclaim_fit_only_when_size_class_and_selector_do(
    running: machine.Machine,
) -> None:
    printed = running.create(PV1)
    assert "persistentvolume/pv1 created" in printed
    assert "Recycle reclaim policy is deprecated" in printed
    running.wait_for_phase("pv", "pv1", "Available")
    assert running.row("pv", "pv1")[:6] == ["pv1", "5Gi", "RWO", "Recycle", "Available", "slow"]

    running.create(MYCLAIM)
    text = running.wait_for_event("myclaim", "ProvisioningFailed")
    assert text == 'storageclass.storage.k8s.io "slow" not found'

    running.apply(
        slow("too-small", "7Gi"),
        slow("half-labelled", labels={"release": "stable"}),
        slow("elsewhere", labels={"release": "stable", "environment": "prod"}),
        slow("other-class", storageClassName="fast"),
        slow("no-class", storageClassName=""),
        slow("shared-only", modes=("ReadWriteMany",)),
        slow("raw", volumeMode="Block"),
    )
    decoys = ("too-small", "half-labelled", "elsewhere", "other-class", "no-class", "raw")
    for name in (*decoys, "shared-only"):
        running.wait_for_phase("pv", name, "Available")
    assert running.row("pvc", "myclaim")[:3] == ["myclaim", "Pending", "slow"]

    running.apply(slow("fits", "20Gi"))
    bound = running.wait_for_phase("pvc", "myclaim", "Bound")
    assert bound["spec"]["volumeName"] == "fits"
    assert bound["status"]["capacity"] == {"storage": "20Gi"}, "the claim has the whole volume"
    rows = running.kubectl("get", "pv", "--no-headers").splitlines()
    phases = {row.split()[0]: row.split()[4] for row in rows}
    assert phases.pop("fits") == "Bound"
    assert set(phases.values()) == {"Available"}


def test_the_smallest_volume_that_fits_is_taken(running: machine.Machine) -> None:
    running.apply(slow("large", "40Gi"), slow("middle", "9Gi"), slow("larger", "80Gi"))
    for name in ("large", "middle", "larger"):
        running.wait_for_phase("pv", name, "Available")
    running.create(MYCLAIM)
    bound = running.wait_for_phase("pvc", "myclaim", "Bound")
    assert bound["spec"]["volumeName"] == "middle"


def test_the_empty_class_takes_only_volumes_without_a_class(running: machine.Machine) -> None:
    running.apply(slow("classed", labels={}), manifests.claim("none", "1Gi", storage_class=""))
    text = running.wait_for_event("none", "FailedBinding")
    assert text == "no persistent volumes available for this claim and no storage class is set"
    running.apply(manifests.volume("plain", NFS, "1Gi"))
    bound = running.wait_for_phase("pvc", "none", "Bound")
    assert bound["spec"]["volumeName"] == "plain"
    assert running.row("pv", "classed")[4] == "Available"


def test_gold_is_the_default_by_the_beta_annotation(running: machine.Machine) -> None:
    running.create(GOLD)
    line = next(
        line for line in running.kubectl("get", "sc").splitlines() if line.startswith("gold")
    )
    assert line.split()[:3] == ["gold", "(default)", "kubernetes.io/cinder"]
    running.apply(manifests.claim("by-default", "1Gi", storage_class=None))
    claim = running.get("pvc", "by-default")
    assert claim is not None
    assert claim["spec"]["storageClassName"] == "gold"
    text = running.wait_for_event("by-default", "ExternalProvisioning")
    assert "'cinder.csi.openstack.org' or manually by the system administrator" in text
    running.apply(manifests.claim("by-hand", "1Gi", storage_class=""))
    claim = running.get("pvc", "by-hand")
    assert claim is not None
    assert claim["spec"]["storageClassName"] == "", "the empty class forbids dynamic volumes"


def test_of_several_defaults_the_newest_counts(running: machine.Machine) -> None:
    """The document tells of an error; Kubernetes takes the newest one nowadays."""
    running.create(GOLD)
    machine.eventually(lambda: "gold" in running.kubectl("get", "sc"))
    gold = running.get("sc", "gold")
    assert gold is not None

    def newer() -> bool:
        running.kubectl("delete", "sc", "silver", "--ignore-not-found")
        annotations = {"storageclass.kubernetes.io/is-default-class": "true"}
        running.apply(manifests.storage_class("silver", annotations=annotations))
        silver = running.get("sc", "silver")
        assert silver is not None
        # Times have whole seconds: equal ones are decided by name, which is another rule.
        made = silver["metadata"]["creationTimestamp"]
        return bool(made > gold["metadata"]["creationTimestamp"])

    machine.eventually(newer)
    running.apply(manifests.claim("newest", "1Gi", storage_class=None))
    claim = running.get("pvc", "newest")
    assert claim is not None
    assert claim["spec"]["storageClassName"] == "silver"


def test_a_selector_gets_no_dynamic_volume_but_finds_a_labelled_one(
    shared: machine.Machine,
) -> None:
    """As the document says, and as external-provisioner refuses it on a cluster."""
    chosen = {"matchLabels": {"disk": "fast"}}
    shared.apply(manifests.claim("choosy", selector=chosen))
    text = shared.wait_for_event("choosy", "ProvisioningFailed")
    assert text.startswith("claim Selector is not supported")
    assert 'label a volume of class "local"' in text
    assert shared.row("pvc", "choosy")[1] == "Pending"
    shared.apply(
        manifests.volume("fast-disk", NFS, labels={"disk": "fast"}, storageClassName="local")
    )
    bound = shared.wait_for_phase("pvc", "choosy", "Bound")
    assert bound["spec"]["volumeName"] == "fast-disk"


@pytest.mark.parametrize(
    ("name", "provisioner", "reason", "text"),
    [
        ("standard", "kubernetes.io/aws-ebs", "ExternalProvisioning", "'ebs.csi.aws.com'"),
        ("gce", "kubernetes.io/gce-pd", "ExternalProvisioning", "'pd.csi.storage.gke.io'"),
        ("gold-copy", "kubernetes.io/cinder", "ExternalProvisioning", "'cinder.csi.openstack.org'"),
        (
            "scaleio",
            "kubernetes.io/scaleio",
            "ProvisioningFailed",
            "no volume plugin matched name: kubernetes.io/scaleio",
        ),
        ("own", "example.com/disks", "ExternalProvisioning", "'example.com/disks'"),
    ],
)
def test_a_class_nobody_serves_says_so(
    shared: machine.Machine, name: str, provisioner: str, reason: str, text: str
) -> None:
    parameters = {"type": "gp2"}
    shared.apply(
        manifests.storage_class(name, provisioner, parameters=parameters),
        manifests.claim(f"from-{name}", "1Gi", storage_class=name),
    )
    assert text in shared.wait_for_event(f"from-{name}", reason)
    assert shared.row("pvc", f"from-{name}")[:3] == [f"from-{name}", "Pending", name]
    assert f"pvc default/from-{name} is Pending: " in shared.holdfast("status").stdout


def test_a_class_cannot_be_changed_once_made(shared: machine.Machine) -> None:
    shared.apply(manifests.storage_class("fixed", parameters={"fsType": "ext4"}))
    patch = '{"parameters": {"fsType": "xfs"}}'
    printed = shared.kubectl("patch", "sc", "fixed", "-p", patch, check=False)
    assert "updates to parameters are forbidden." in printed


def test_the_old_annotation_for_mount_options_is_kept(shared: machine.Machine) -> None:
    assert "persistentvolume/gce-disk-1 created" in shared.create(DISCARD)
    shared.wait_for_phase("pv", "gce-disk-1", "Available")
    described = shared.kubectl("describe", "pv", "gce-disk-1")
    assert "volume.beta.kubernetes.io/mount-options: discard" in described


def test_retain_keeps_the_volume_released(shared: machine.Machine) -> None:
    _bind(shared, "kept", NFS, persistentVolumeReclaimPolicy="Retain")
    shared.kubectl("delete", "pvc", "kept")
    shared.wait_for_phase("pv", "kept", "Released")
    shared.apply(manifests.claim("kept", storage_class="reclaim-kept"))
    shared.wait_for_event("kept", "ProvisioningFailed")
    assert shared.row("pv", "kept")[3:6] == ["Retain", "Released", "default/kept"]
    shared.kubectl("patch", "pv", "kept", "--type=merge", "-p", '{"spec": {"claimRef": null}}')
    shared.wait_for_phase("pvc", "kept", "Bound")


def test_recycle_empties_a_host_path_and_offers_it_again(
    shared: machine.Machine, tmp_path: Path
) -> None:
    content = tmp_path / "thevolume"
    (content / "deep" / "er").mkdir(parents=True)
    (content / "deep" / "er" / "file").write_text("old")
    (content / ".hidden").write_text("old")
    (content / "way-out").symlink_to(tmp_path)
    (tmp_path / "bystander").write_text("stays")
    source = {"hostPath": {"path": str(content)}}
    _bind(shared, "recycled", source, persistentVolumeReclaimPolicy="Recycle")
    shared.kubectl("delete", "pvc", "recycled")
    volume = shared.wait_for_phase("pv", "recycled", "Available")
    assert "claimRef" not in volume["spec"]
    assert list(content.iterdir()) == []
    assert (tmp_path / "bystander").read_text() == "stays"
    assert shared.wait_for_event("recycled", "VolumeRecycled") == "Volume recycled"


@pytest.mark.skipif(
    shutil.which("mount.nfs") is not None, reason="with an NFS client it would wait for the server"
)
def test_what_cannot_be_recycled_is_failed_and_says_why(shared: machine.Machine) -> None:
    _bind(shared, "unreachable", NFS, persistentVolumeReclaimPolicy="Recycle")
    shared.kubectl("delete", "pvc", "unreachable")
    volume = shared.wait_for_phase("pv", "unreachable", "Failed")
    text = shared.wait_for_event("unreachable", "VolumeFailedRecycle")
    assert volume["status"]["message"] == text
    assert "172.17.0.2:/tmp" in text
    assert "nfs-common" in text
    assert "\n" not in text


def test_what_cannot_be_deleted_is_failed_and_says_why(shared: machine.Machine) -> None:
    _bind(shared, "undeletable", NFS, persistentVolumeReclaimPolicy="Delete")
    shared.kubectl("delete", "pvc", "undeletable")
    shared.wait_for_phase("pv", "undeletable", "Failed")
    text = shared.wait_for_event("undeletable", "VolumeFailedDelete")
    assert text == (
        'error getting deleter volume plugin for volume "undeletable": '
        "no deletable volume plugin matched"
    )


def _bind(where: machine.Machine, name: str, source: Object, **spec: object) -> None:
    """Bind a claim to a volume of the same name, in a class of their own."""
    storage_class = f"reclaim-{name}"
    given: Object = {"storageClassName": storage_class, **spec}
    where.apply(
        manifests.volume(name, source, **given),
        manifests.claim(name, storage_class=storage_class),
    )
    where.wait_for_phase("pvc", name, "Bound")


def test_a_bound_volume_is_given_to_no_other_claim(
    new_machine: Callable[[], machine.Machine],
) -> None:
    where = new_machine().start()
    where.apply(slow("only"))
    where.create(MYCLAIM)
    where.wait_for_phase("pvc", "myclaim", "Bound")
    where.create(MYCLAIM.replace("name: myclaim", "name: second"))
    where.wait_for_event("second", "ProvisioningFailed")
    assert where.row("pvc", "second")[1] == "Pending"
    assert where.row("pv", "only")[5] == "default/myclaim"
