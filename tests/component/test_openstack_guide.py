"""The OpenStack how-to's class, claim and pod `nginx`, with the local provisioner.

The document shows what `kubectl` prints for each; that is what is compared here.
"""

from __future__ import annotations

import os

import pytest

import machine
from holdfast.backends import mountinfo

ROOT = os.geteuid() == 0

DOCUMENT = """
apiVersion: storage.k8s.io/v1
kind: StorageClass
metadata:
  name: csi-sc-cinderplugin
provisioner: local.holdfast.dev
PARAMETERS
---
apiVersion: v1
kind: PersistentVolumeClaim
metadata:
  name: csi-pvc-cinderplugin
spec:
  accessModes:
  - ReadWriteOnce
  resources:
    requests:
      storage: 1Gi
  storageClassName: csi-sc-cinderplugin
"""

POD = """
apiVersion: v1
kind: Pod
metadata:
  name: nginx
spec:
  containers:
  - image: nginx:alpine
    imagePullPolicy: IfNotPresent
    name: nginx
    ports:
    - containerPort: 80
      protocol: TCP
    volumeMounts:
      - mountPath: /var/lib/www/html
        name: csi-data-cinderplugin
  volumes:
  - name: csi-data-cinderplugin
    persistentVolumeClaim:
      claimName: csi-pvc-cinderplugin
      readOnly: false
"""


def _columns(where: machine.Machine, *words: str) -> tuple[list[str], list[list[str]]]:
    """The heading and the rows of a table, as cells."""
    heading, *rows = where.kubectl("get", *words).splitlines()
    return heading.split(), [row.split() for row in rows]


def test_class_claim_and_pod_read_as_in_the_document(running: machine.Machine) -> None:
    running.create(
        DOCUMENT.replace("PARAMETERS", "" if ROOT else "parameters: {layout: directory}")
    )
    heading, rows = _columns(running, "sc", "csi-sc-cinderplugin")
    assert heading == [
        *("NAME", "PROVISIONER", "RECLAIMPOLICY", "VOLUMEBINDINGMODE"),
        *("ALLOWVOLUMEEXPANSION", "AGE"),
    ]
    assert rows[0][1:5] == ["local.holdfast.dev", "Delete", "Immediate", "false"]

    claim = running.wait_for_phase("pvc", "csi-pvc-cinderplugin", "Bound")
    name = claim["spec"]["volumeName"]
    heading, rows = _columns(running, "pvc")
    assert heading[:7] == [
        "NAME",
        "STATUS",
        "VOLUME",
        "CAPACITY",
        "ACCESS",
        "MODES",
        "STORAGECLASS",
    ]
    assert rows[0][:6] == [
        *("csi-pvc-cinderplugin", "Bound", name, "1Gi", "RWO", "csi-sc-cinderplugin")
    ]

    running.create(POD)
    running.wait_for_phase("pod", "nginx", "Running")
    heading, rows = _columns(running, "pods", "-owide")
    assert heading[:7] == ["NAME", "READY", "STATUS", "RESTARTS", "AGE", "IP", "NODE"]
    assert rows[0][:4] == ["nginx", "1/1", "Running", "0"]
    assert machine.NODE in rows[0]
    _is_described(running, name)
    assert "Used By:       nginx" in running.kubectl("describe", "pvc")


def _is_described(where: machine.Machine, name: str) -> None:
    described = where.kubectl("describe", "pv", name)
    for text in (
        "pv.kubernetes.io/provisioned-by: local.holdfast.dev",
        "kubernetes.io/pv-protection",
        "StorageClass:      csi-sc-cinderplugin",
        "Status:            Bound",
        "Claim:             default/csi-pvc-cinderplugin",
        "Access Modes:      RWO",
        "VolumeMode:        Filesystem",
        "Capacity:          1Gi",
        "Events:",
    ):
        assert text in described


@pytest.mark.root
def test_the_fresh_volume_is_ext4_with_nothing_but_lost_and_found(
    running: machine.Machine,
) -> None:
    running.create(DOCUMENT.replace("PARAMETERS", ""))
    running.create(POD)
    running.wait_for_phase("pod", "nginx", "Running")
    claim = running.wait_for_phase("pvc", "csi-pvc-cinderplugin", "Bound")
    mount = running.mount_of("nginx", claim["spec"]["volumeName"])
    assert [path.name for path in mount.iterdir()] == ["lost+found"]
    assert mountinfo.at(mount)[-1].fs_type == "ext4"


def test_the_class_as_written_waits_for_its_driver(running: machine.Machine) -> None:
    document = DOCUMENT.replace("local.holdfast.dev", "cinder.csi.openstack.org")
    running.create(document.replace("PARAMETERS", ""))
    text = running.wait_for_event("csi-pvc-cinderplugin", "ExternalProvisioning")
    assert "external provisioner 'cinder.csi.openstack.org'" in text
    assert running.row("pvc", "csi-pvc-cinderplugin")[1] == "Pending"
