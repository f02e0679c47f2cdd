"""The Ceph how-to without a cluster: what binds binds, what cannot be mounted says why.

Tables are compared with those the document prints; today's kubectl has one column more,
VOLUMEATTRIBUTESCLASS. The secret's key is an invented one.
"""

from __future__ import annotations

import re

import machine

SECRET = """
apiVersion: v1
kind: Secret
metadata:
  name: ceph-secret
data:
  key: QVFDaW52ZW50ZWRLZXlOb3RSZWFsQXRBbGw9PQ==
"""

VOLUME = """
apiVersion: v1
kind: PersistentVolume
metadata:
  name: ceph-pv
spec:
  capacity:
    storage: 1Gi
  accessModes:
    - ReadWriteOnce
    - ReadOnlyMany
  rbd:
    monitors:
      - 172.18.2.172:6789
      - 172.18.2.178:6789
      - 172.18.2.189:6789
    pool: rbd
    image: image1
    user: admin
    secretRef:
      name: ceph-secret
    fsType: ext4
  persistentVolumeReclaimPolicy: Retain
"""

CLAIM = """
kind: PersistentVolumeClaim
apiVersion: v1
metadata:
  name: ceph-claim
spec:
  accessModes:
    - ReadWriteOnce
    - ReadOnlyMany
  resources:
    requests:
      storage: 1Gi
"""

POD = """
apiVersion: v1
kind: Pod
metadata:
  name: ceph-pod
spec:
  containers:
  - name: ceph-ubuntu
    image: phusion/baseimage
    command: ["sh", "/sbin/my_init"]
    volumeMounts:
    - name: ceph-mnt
      mountPath: /mnt
      readOnly: false
  volumes:
  - name: ceph-mnt
    persistentVolumeClaim:
      claimName: ceph-claim
"""

CLASS = """
apiVersion: storage.k8s.io/v1
kind: StorageClass
metadata:
  name: ceph-rbd
  annotations:
     storageclass.beta.kubernetes.io/is-default-class: "true"
provisioner: kubernetes.io/rbd
parameters:
  monitors: 172.18.2.172:6789,172.18.2.178:6789,172.18.2.189:6789
  adminId: admin
  adminSecretName: ceph-secret
  adminSecretNamespace: default
  pool: kube
  userId: kube
  userSecretName: ceph-kube-secret
  userSecretNamespace: default
  fsType: ext4
  imageFormat: "2"
  imageFeatures: "layering"
"""

PV_TITLES = [
    *("NAME", "CAPACITY", "ACCESS MODES", "RECLAIM POLICY", "STATUS", "CLAIM"),
    *("STORAGECLASS", "VOLUMEATTRIBUTESCLASS", "REASON", "AGE"),
]
PVC_TITLES = [
    *("NAME", "STATUS", "VOLUME", "CAPACITY", "ACCESS MODES"),
    *("STORAGECLASS", "VOLUMEATTRIBUTESCLASS", "AGE"),
]


def _table(where: machine.Machine, *words: str) -> tuple[list[str], list[dict[str, str]]]:
    """The titles of a table and its rows by title; empty cells stay empty."""
    heading, *lines = where.kubectl("get", *words).splitlines()
    found = list(re.finditer(r"\S+(?: \S+)*", heading))
    starts = [match.start() for match in found]
    titles = [match.group() for match in found]
    rows = [
        {
            title: line[start:end].strip()
            for title, start, end in zip(titles, starts, [*starts[1:], None], strict=True)
        }
        for line in lines
    ]
    return titles, rows


def _without_age(row: dict[str, str]) -> dict[str, str]:
    assert re.fullmatch(r"\d+s", row["AGE"])
    return {title: cell for title, cell in row.items() if title != "AGE"}


def test_the_static_volume_and_claim_print_as_in_the_document(running: machine.Machine) -> None:
    assert "secret/ceph-secret created" in running.create(SECRET)
    assert "persistentvolume/ceph-pv created" in running.create(VOLUME)
    running.wait_for_phase("pv", "ceph-pv", "Available")
    titles, rows = _table(running, "pv")
    assert titles == PV_TITLES
    expected = {
        **{"NAME": "ceph-pv", "CAPACITY": "1Gi", "ACCESS MODES": "RWO,ROX"},
        **{"RECLAIM POLICY": "Retain", "STATUS": "Available", "CLAIM": "", "STORAGECLASS": ""},
        **{"VOLUMEATTRIBUTESCLASS": "<unset>", "REASON": ""},
    }
    assert [_without_age(row) for row in rows] == [expected]

    running.create(CLAIM)
    running.wait_for_phase("pvc", "ceph-claim", "Bound")
    titles, rows = _table(running, "pvc")
    assert titles == PVC_TITLES
    assert [_without_age(row) for row in rows] == [
        {
            **{"NAME": "ceph-claim", "STATUS": "Bound", "VOLUME": "ceph-pv", "CAPACITY": "1Gi"},
            **{"ACCESS MODES": "RWO,ROX", "STORAGECLASS": "", "VOLUMEATTRIBUTESCLASS": "<unset>"},
        }
    ]
    _, rows = _table(running, "pv")
    bound = {**expected, "STATUS": "Bound", "CLAIM": "default/ceph-claim"}
    assert [_without_age(row) for row in rows] == [bound]

    running.kubectl("delete", "pvc", "ceph-claim")
    running.wait_for_phase("pv", "ceph-pv", "Released")
    _, rows = _table(running, "pv")
    assert [_without_age(row) for row in rows] == [{**bound, "STATUS": "Released"}]


def test_the_pod_says_in_one_line_what_is_wrong_with_its_key(running: machine.Machine) -> None:
    for document in (SECRET, VOLUME, CLAIM, POD):
        running.create(document)
    text = running.wait_for_event("ceph-pod", "FailedMount")
    assert text.startswith('MountVolume.SetUp failed for volume "ceph-pv" : ')
    assert 'the Secret of rbd/image1: its value "key" is not a Ceph key' in text
    assert "ceph auth get-key" in text
    assert "\n" not in text
    assert running.row("pod", "ceph-pod")[:3] == ["ceph-pod", "0/1", "ContainerCreating"]
    lines = running.kubectl("describe", "pod", "ceph-pod").splitlines()
    told = [line for line in lines if "FailedMount" in line]
    assert len(told) == 1, "one line, however often it was tried"
    assert "is not a Ceph key" in told[0]
    assert "pod default/ceph-pod is Pending: " in running.holdfast("status").stdout

    running.kubectl("delete", "pod", "ceph-pod")
    assert running.get("pod", "ceph-pod") is None
    running.kubectl("delete", "pvc", "ceph-claim")
    running.wait_for_phase("pv", "ceph-pv", "Released")


def test_claims_of_the_rbd_class_say_which_secret_is_missing(running: machine.Machine) -> None:
    running.create(CLASS)
    _, rows = _table(running, "sc", "ceph-rbd")
    row = _without_age(rows[0])
    assert row == {
        **{"NAME": "ceph-rbd (default)", "PROVISIONER": "kubernetes.io/rbd"},
        **{"RECLAIMPOLICY": "Delete", "VOLUMEBINDINGMODE": "Immediate"},
        "ALLOWVOLUMEEXPANSION": "false",
    }
    running.create(CLAIM.replace("ceph-claim", "ceph-sc-claim").replace("1Gi", "500Mi"))
    text = running.wait_for_event("ceph-sc-claim", "ProvisioningFailed")
    assert "secret default/ceph-secret: not found" in text
    assert "--type=kubernetes.io/rbd" in text
    assert running.row("pvc", "ceph-sc-claim")[:3] == ["ceph-sc-claim", "Pending", "ceph-rbd"]
    described = running.kubectl("describe", "pvc", "ceph-sc-claim")
    assert "StorageClass:  ceph-rbd" in described
    assert "secret default/ceph-secret: not found" in described

    # The document's way out: the same class with an external provisioner.
    for kind, name in (("pvc", "ceph-sc-claim"), ("sc", "ceph-rbd")):
        running.kubectl("delete", kind, name)
    running.create(CLASS.replace("kubernetes.io/rbd", "ceph.com/rbd"))
    running.create(CLAIM.replace("ceph-claim", "ceph-sc-claim"))
    waiting = running.wait_for_event("ceph-sc-claim", "ExternalProvisioning")
    assert "external provisioner 'ceph.com/rbd'" in waiting


def test_the_secrets_key_is_in_no_log_and_no_event(running: machine.Machine) -> None:
    for document in (SECRET, VOLUME, CLAIM, POD):
        running.create(document)
    running.wait_for_event("ceph-pod", "FailedMount")
    assert "QVFDaW52ZW50ZWR" not in running.log.read_text()
    assert "QVFDaW52ZW50ZWR" not in running.kubectl("get", "events", "-A", "-o", "yaml")
