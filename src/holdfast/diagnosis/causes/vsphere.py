"""What vCenter's answers ask of an administrator: from the text of a failure to the commands.

The texts are our own backend's, with vCenter's words in them; an event keeps nothing else. What is
not known here gets the general advice of whoever asks.

Invariant: an entry's words are in no other failure that ends differently; the first match counts.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from holdfast.diagnosis.causes.answer import lines

BACKEND = "vsphere"
CHECK = "holdfast check vsphere"


@dataclass(frozen=True, slots=True)
class Remedy:
    """The code of a cause, and what ends it."""

    code: str
    fix: str


_TABLE: tuple[tuple[str, str, tuple[str, ...]], ...] = (
    (
        r"not a shared datastore",
        "datastore-not-shared",
        ("# Name a datastore in the class that the hosts of all node VMs have:", CHECK),
    ),
    (
        r"not a VSAN datastore",
        "datastore-not-vsan",
        ("# Leave the vSAN capabilities out of the class, or use storagePolicyName:", CHECK),
    ),
    (
        r"no datastore or datastore cluster|no datastore with the URL|no storage policy",
        "not-in-vcenter",
        ("# Correct the name in the class; what there is:", CHECK),
    ),
    (
        r"not compatible with the storagePolicy|is compatible with the policy",
        "policy",
        ("# Choose another datastore or policy in the class:", CHECK),
    ),
    (
        r"missing privilege|NoPermission|Permission to perform this operation",
        "privilege",
        ("holdfast prepare vsphere roles --mode policy --principal <user@domain>", CHECK),
    ),
    (
        r"InvalidLogin|no user is named|no Kubernetes API|neither \"\S+\.username\""
        r"|secret \S+/\S+: not found",
        "login",
        ("# Correct user and password where the configuration or the Secret has them:", CHECK),
    ),
    (
        r"certificate is not trusted",
        "certificate",
        ("# Set ca_file or thumbprint of the instance in holdfast.toml:", CHECK),
    ),
    (
        r"disk\.enableUUID|no device for the attached disk",
        "disk-uuid",
        (
            "holdfast prepare vsphere nodes",
            "# It counts from the VM's next power-on:",
            "govc vm.power -off <vm> && govc vm.power -on <vm>",
        ),
    ),
    (
        r"[Nn]o VM (?:has the UUID|found)|the VM of node .* is gone",
        "no-vm",
        (
            CHECK,
            "# If the node was left behind under another name:",
            "kubectl delete node <node>",
        ),
    ),
    (
        r"is attached to VM",
        "held-by-vm",
        (
            "# If nothing uses the disk in that VM:",
            "govc device.ls -vm <vm>",
            "govc device.remove -vm <vm> -keep <disk>",
        ),
    ),
    (
        r"VMs have the UUID",
        "vm-copied",
        (
            "# Move the copy out of the folder of node VMs, or give it a UUID of its own:",
            "govc vm.change -vm <copy> -uuid <uuid>",
        ),
    ),
    (
        r"nothing was deleted: ",
        "datastore-away",
        (
            "# Give the datastore its old name back, or mount it again:",
            "govc find / -type s",
            "# If it is gone for good:",
            'kubectl patch pv <volume> -p \'{"spec":{"persistentVolumeReclaimPolicy":"Retain"}}\'',
            "kubectl delete pv <volume>",
        ),
    ),
    (
        r"itself and no volume",
        "own-disk",
        (
            "# Name a file of its own in the volume's path; one is made so:",
            "holdfast prepare vsphere disk --datastore <datastore> --size 10G <folder>/<name>.vmdk",
        ),
    ),
    (
        r"NoDiskSpace|do not fit: ",
        "no-room",
        ("# Free or add space, or name another datastore in the class:", "govc datastore.info"),
    ),
    (
        r"vCenter did not answer|HostCommunication|HostNotConnected",
        "vcenter-away",
        ("# It is tried again until the vCenter answers:", CHECK),
    ),
)


def remedy(backend: str, text: str) -> Remedy | None:
    """Return what ends a failure of a vSphere volume; None for other backends and unknown texts."""
    if backend != BACKEND:
        return None
    for pattern, code, fix in _TABLE:
        if re.search(pattern, text):
            return Remedy(code, lines(*fix))
    return None
