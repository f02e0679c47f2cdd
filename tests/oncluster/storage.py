"""Real storage systems behind `holdfast controller`, and classes of every name that uses them.

Each old and new provisioner name has one row here: what its class says, in the words of the
plug-in or driver that the name belonged to, and the CSI driver its volumes are to be written for.
"""

from __future__ import annotations

import base64
import contextlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from holdfast.api import errors, kinds
from holdfast.runtime.client import Client
from servers.ceph.pools import Pool
from servers.openstack import catalog
from servers.openstack.cloud import Cloud
from servers.vsphere.guest import Guest
from servers.vsphere.vcenter import VCenter

Object = dict[str, Any]
NODE = "worker-1"
_CSI = "csi.storage.k8s.io"
_USES = ("provisioner", "controller-publish", "node-stage", "controller-expand")
DATASTORE, MACHINE = "LocalDS_0", "/DC0/vm/DC0_C0_RP0_VM0"
ADMIN_SECRET, USER_SECRET = "ceph-secret", "ceph-kube-secret"


@dataclass(frozen=True)
class Systems:
    """A pool of Ceph, a cloud with Cinder whose server `NODE` this machine plays, and a vCenter.

    In the vCenter this machine is the VM `MACHINE`.
    """

    pool: Pool
    cloud: Cloud
    vcenter: VCenter
    guest: Guest

    def instances(self) -> dict[str, dict[str, dict[str, object]]]:
        """The sections of `holdfast.toml`."""
        cinder: dict[str, object] = {"cloud_conf": str(self.cloud.cloud_conf)}
        vsphere = {"main": self.vcenter.settings(default_datastore=DATASTORE)}
        return {"rbd": self.pool.instances, "cinder": {"default": cinder}, "vsphere": vsphere}

    def configuration(self) -> str:
        """`holdfast.toml` for this machine as a node."""
        lines = [section(self.pool), "[cinder.default]"]
        lines += [f'cloud_conf = "{self.cloud.cloud_conf}"']
        lines += [f'root = "{self.cloud.guests / NODE}"', "[vsphere.main]"]
        settings = self.vcenter.settings(device_dir=str(self.guest.links))
        # JSON's texts and numbers are TOML's too.
        lines += [f"{key} = {json.dumps(value)}" for key, value in settings.items()]
        return "\n".join([*lines, ""])

    def stored(self, driver: str) -> list[str]:
        """What there is of ours in the storage system behind a driver."""
        if driver.startswith("rbd."):
            return [*self.pool.images(), *sorted(self.pool.leftovers())]
        if "vsphere" in driver:
            disks = self.vcenter.json("disk.ls", "-ds", DATASTORE)["objects"] or ()
            named = [each["config"]["name"] for each in disks]
            return [*self.vcenter.files(DATASTORE, "kubevols"), *named]
        with catalog.connected(self.cloud.ports, admin=False) as member:
            found = list(member.block_storage.volumes())
        return [each.name for each in found if each.name.startswith(("pvc-", "kubernetes-"))]


def section(pool: Pool) -> str:
    """`[rbd.main]` of `holdfast.toml`."""
    lines = ["[rbd.main]", f'monitors = ["{pool.ceph.monitor}"]', f'user = "{pool.user}"']
    lines += [f'key_file = "{pool.key_file}"', f'pool = "{pool.name}"', ""]
    return "\n".join(lines)


@dataclass(frozen=True, slots=True)
class Name:
    """A provisioner's name, its driver, and the sizes of its volume.

    `given` is the size that is made of `size` where the storage system has units of its own.
    """

    provisioner: str
    driver: str
    parameters: Callable[[Systems], Mapping[str, str]]
    size: str = "128Mi"
    grown: str = "256Mi"
    given: str = ""


def _in_tree(systems: Systems) -> dict[str, str]:
    pool = systems.pool
    return {
        "monitors": pool.ceph.monitor,
        "adminId": pool.user,
        "adminSecretName": ADMIN_SECRET,
        "adminSecretNamespace": "kube-system",
        "pool": pool.name,
        "userId": pool.user,
        "userSecretName": USER_SECRET,
        "fsType": "ext4",
        "imageFormat": "2",
        "imageFeatures": "layering",
    }


def ceph_csi(pool: Pool) -> dict[str, str]:
    """A class as ceph-csi has it."""
    found = {"clusterID": "main", "pool": pool.name, "imageFeatures": "layering"}
    for use in _USES:
        found[f"{_CSI}/{use}-secret-name"] = "csi-rbd-secret"
        found[f"{_CSI}/{use}-secret-namespace"] = "kube-system"
    return {**found, f"{_CSI}/fstype": "ext4"}


def _ours(systems: Systems) -> dict[str, str]:
    return {"clusterID": "main", "pool": systems.pool.name}


NAMES = (
    Name("kubernetes.io/rbd", "rbd.holdfast.dev", _in_tree),
    Name("ceph.com/rbd", "rbd.holdfast.dev", _in_tree),
    Name("rbd.csi.ceph.com", "rbd.csi.ceph.com", lambda systems: ceph_csi(systems.pool)),
    Name("rbd.holdfast.dev", "rbd.holdfast.dev", _ours, "100M", given="96Mi"),
    Name(
        "kubernetes.io/cinder",
        "cinder.csi.openstack.org",
        lambda _: {"type": "file", "availability": "nova", "fstype": "ext4"},
        "1Gi",
        "2Gi",
    ),
    Name(
        "cinder.csi.openstack.org",
        "cinder.csi.openstack.org",
        lambda _: {"type": "file", f"{_CSI}/fstype": "ext4"},
        "1Gi",
        "2Gi",
    ),
    Name(
        "cinder.holdfast.dev",
        "cinder.holdfast.dev",
        lambda _: {"type": "file"},
        "900M",
        "2Gi",
        given="1Gi",
    ),
    Name(
        "kubernetes.io/vsphere-volume",
        "csi.vsphere.vmware.com",
        lambda _: {"datastore": DATASTORE, "diskformat": "thin", "fstype": "ext4"},
        "1Gi",
        "2Gi",
    ),
    Name(
        "csi.vsphere.vmware.com",
        "csi.vsphere.vmware.com",
        lambda _: {f"{_CSI}/fstype": "ext4"},
        "1Gi",
        "2Gi",
    ),
)
DRIVERS = tuple(dict.fromkeys(each.driver for each in NAMES))


async def write_secrets(client: Client, pool: Pool) -> None:
    """Write the Secrets that the classes name, where they are not there yet."""
    typed = {"type": "kubernetes.io/rbd"}
    for namespace, name, values, more in (
        ("kube-system", ADMIN_SECRET, {"key": pool.key}, typed),
        ("default", USER_SECRET, {"key": pool.key}, typed),
        ("kube-system", "csi-rbd-secret", pool.secret, {}),
    ):
        await write_secret(client, namespace, name, values, **more)


async def write_secret(
    client: Client, namespace: str, name: str, values: Mapping[str, str], **more: str
) -> None:
    """Write one Secret, in a namespace that is made if there is none, instead of an older one."""
    data = {key: base64.b64encode(value.encode()).decode() for key, value in values.items()}
    with contextlib.suppress(errors.AlreadyExists):
        await client.create(kinds.NAMESPACE, {"metadata": {"name": namespace}})
    with contextlib.suppress(errors.NotFound):
        await client.delete(kinds.SECRET, name, namespace)
    body: Object = {"metadata": {"name": name}, "data": data, **more}
    await client.create(kinds.SECRET, body, namespace)
