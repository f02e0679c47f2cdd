"""The vSphere how-to's claim and pod: class by beta annotation, `fstype: xfs`, a pod at /test-vmdk.

Names and shapes are the document's; the provisioner is the local one. Its warning about
sizes ("mind the format, GB cannot be written") is tested with the mistake it warns of.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

import machine
from holdfast.backends import mountinfo

CLASS = """
apiVersion: storage.k8s.io/v1
kind: StorageClass
metadata:
  name: vsphere-storageclass-spbm
provisioner: local.holdfast.dev
reclaimPolicy: Delete
parameters:
"""

CLAIM = """
kind: PersistentVolumeClaim
apiVersion: v1
metadata:
  name: vsphere-pvc002
  annotations:
    volume.beta.kubernetes.io/storage-class: vsphere-storageclass-spbm
spec:
  accessModes:
    - ReadWriteOnce
  resources:
    requests:
      storage: SIZE
"""

POD = """
apiVersion: v1
kind: Pod
metadata:
  name: vsphere-pod002
spec:
  containers:
  - name: test-container
    image: gcr.mirrors.ustc.edu.cn/google_containers/test-webserver
    volumeMounts:
    - name: test-volume
      mountPath: /test-vmdk
  volumes:
  - name: test-volume
    persistentVolumeClaim:
      claimName: vsphere-pvc002
"""

SENTENCE = (
    "quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'"
)


def test_a_claim_by_beta_annotation_is_bound_and_its_pod_runs(running: machine.Machine) -> None:
    running.create(CLASS + "  layout: directory\n")
    printed = running.create(CLAIM.replace("SIZE", "1Gi"))
    assert "volume.beta.kubernetes.io/storage-class" in printed, "the annotation is deprecated"
    claim = running.wait_for_phase("pvc", "vsphere-pvc002", "Bound")
    name = claim["spec"]["volumeName"]
    assert name == f"pvc-{claim['metadata']['uid']}"
    assert "storageClassName" not in claim["spec"]
    assert running.row("pvc", "vsphere-pvc002")[:6] == [
        *("vsphere-pvc002", "Bound", name, "1Gi", "RWO", "vsphere-storageclass-spbm")
    ]
    described = running.kubectl("describe", "pv", name)
    for line in ("StorageClass:      vsphere-storageclass-spbm", "Reclaim Policy:    Delete"):
        assert line in described
    running.create(POD)
    running.wait_for_phase("pod", "vsphere-pod002", "Running")
    assert "/test-vmdk from test-volume (rw)" in running.kubectl("describe", "pod")
    assert (running.mount_of("vsphere-pod002", name)).is_dir()


@pytest.mark.root
@pytest.mark.skipif(shutil.which("mkfs.xfs") is None, reason="mkfs.xfs (xfsprogs) is missing")
def test_fstype_xfs_as_the_document_spells_it_makes_xfs(running: machine.Machine) -> None:
    running.create(CLASS + "  fstype: xfs\n")
    running.create(CLAIM.replace("SIZE", "512Mi"))
    running.create(POD)
    running.wait_for_phase("pod", "vsphere-pod002", "Running")
    claim = running.wait_for_phase("pvc", "vsphere-pvc002", "Bound")
    mount = running.mount_of("vsphere-pod002", claim["spec"]["volumeName"])
    assert mountinfo.at(mount)[-1].fs_type == "xfs"
    volume = running.get("pv", claim["spec"]["volumeName"])
    assert volume is not None
    assert volume["spec"]["local"]["fsType"] == "xfs"


def test_parameters_of_vsphere_are_refused_with_those_there_are(shared: machine.Machine) -> None:
    shared.create(CLASS + "  datastore: vsanDatastore\n  diskformat: thin\n")
    shared.create(CLAIM.replace("SIZE", "1Gi"))
    text = shared.wait_for_event("vsphere-pvc002", "ProvisioningFailed")
    assert 'unknown parameter "datastore"' in text
    assert "known parameters: fsType, path, layout" in text


@pytest.mark.parametrize(
    ("written", "advice"),
    [
        ("10GB", '"10GB": use 10G (10^9 bytes) or 10Gi (2^30 bytes)'),
        ("512MB", '"512MB": use 512M (10^6 bytes) or 512Mi (2^20 bytes)'),
        ("1TiB", '"1TiB": use 1Ti (2^40 bytes)'),
        ("ten", '"ten": write a number and a suffix, such as 500Mi, 10Gi or 2T'),
    ],
)
def test_a_size_kubernetes_cannot_read_is_refused_with_what_to_write(
    shared: machine.Machine, written: str, advice: str
) -> None:
    printed = shared.create(CLAIM.replace("SIZE", written).replace("pvc002", "wrong"))
    assert "Error from server (BadRequest)" in printed
    assert SENTENCE in printed
    assert advice in printed
    assert shared.get("pvc", "vsphere-wrong") is None


def test_a_misspelt_size_in_a_patch_is_refused_with_what_to_write(
    shared: machine.Machine, tmp_path: Path
) -> None:
    document = CLAIM.replace("SIZE", "1Gi").replace("pvc002", "patched")
    shared.create(document)
    file = tmp_path / "claim.yaml"
    file.write_text(document.replace("1Gi", "2GB"))
    patch = '{"spec": {"resources": {"requests": {"storage": "2GB"}}}}'
    for words in (("replace", "-f", str(file)), ("patch", "pvc", "vsphere-patched", "-p", patch)):
        printed = shared.kubectl(*words, check=False)
        assert SENTENCE in printed
        assert "2G (10^9 bytes)" in printed
