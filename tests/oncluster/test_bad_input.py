"""What a user may get wrong: one event on the claim that names the object and the remedy.

All of it is decided before any storage system is asked, so none is needed here.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from holdfast.api import kinds
from holdfast.backends import registry
from holdfast.runtime.client import Client
from oncluster.place import Cluster
from oncluster.storage import write_secret
from oncluster.test_controller import controller, gone, make_claim, make_class, until

Object = dict[str, Any]
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
MONITOR = "127.0.0.1:9"
# A key of nothing, in the shape of Ceph's.
KEY = "AQAAAAAAAAAAABAAAAAAAAAAAAAAAAAAAAAAAA=="
IN_TREE, TYPE = "kubernetes.io/rbd", "kubernetes.io/rbd"


@dataclass(frozen=True, slots=True)
class Mistake:
    """A class that cannot work, the Secrets there are, and what the event has to say.

    `secrets` are (namespace, name, type). A parameter that is None is left out.
    """

    provisioner: str
    parameters: Mapping[str, str | None]
    told: tuple[str, ...]
    secrets: tuple[tuple[str, str, str], ...] = ()
    more: Mapping[str, Any] = field(default_factory=dict)
    size: str = "64Mi"


def in_tree(**changed: str | None) -> dict[str, str | None]:
    """Parameters as the in-tree plug-in had them."""
    return {
        "monitors": MONITOR,
        "adminId": "kube",
        "adminSecretName": "admin-key",
        "adminSecretNamespace": "bad-input",
        "pool": "kube",
        "userId": "kube",
        "userSecretName": "user-key",
        **changed,
    }


SECRET = ("bad-input", "admin-key", TYPE)
CSI = "csi.storage.k8s.io/provisioner-secret-"
MISTAKES = {
    "an unknown parameter": Mistake(
        IN_TREE,
        in_tree(imageFeature="layering"),
        ('unknown parameter "imageFeature"', 'did you mean "imageFeatures"?'),
        (SECRET,),
    ),
    "an unknown parameter of another name": Mistake(
        "rbd.csi.ceph.com",
        {"monitors": MONITOR, "pol": "kube"},
        ('unknown parameter "pol"', 'did you mean "pool"?'),
    ),
    "an unknown reserved parameter": Mistake(
        "rbd.csi.ceph.com",
        {"clusterID": "main", "csi.storage.k8s.io/fstypo": "ext4"},
        ('unknown parameter "csi.storage.k8s.io/fstypo"', "csi.storage.k8s.io/fstype"),
    ),
    "a parameter with a value nobody knows": Mistake(
        "local.holdfast.dev",
        {"layout": "tape"},
        ('"layout" cannot be "tape"', "directory"),
    ),
    "a secret that is not there": Mistake(
        IN_TREE,
        in_tree(adminSecretName="nowhere"),
        (
            "secret bad-input/nowhere: not found",
            "kubectl -n bad-input create secret generic nowhere --type=kubernetes.io/rbd",
        ),
    ),
    "a secret of the wrong type": Mistake(
        IN_TREE,
        in_tree(adminSecretName="opaque"),
        (
            "secret bad-input/opaque: its type is Opaque, kubernetes.io/rbd is needed",
            "delete it and create it with --type=kubernetes.io/rbd",
        ),
        (("bad-input", "opaque", "Opaque"),),
    ),
    "a secret in another namespace": Mistake(
        IN_TREE,
        in_tree(adminSecretName="elsewhere", adminSecretNamespace=None),
        (
            "secret default/elsewhere: not found",
            "there is one of that name in namespace bad-input",
        ),
        (("bad-input", "elsewhere", TYPE),),
    ),
    "a namespace that is not there": Mistake(
        "rbd.csi.ceph.com",
        {"clusterID": "main", f"{CSI}name": "lost", f"{CSI}namespace": "no-such-namespace"},
        ("secret no-such-namespace/lost: not found", "kubectl create namespace no-such-namespace"),
    ),
    "half of a reference to a secret": Mistake(
        "rbd.csi.ceph.com",
        {"clusterID": "main", f"{CSI}name": "lost"},
        (f'"{CSI}name" is given without "{CSI}namespace"', "give both, or neither"),
    ),
    "a cluster that nobody configured": Mistake(
        "rbd.holdfast.dev",
        {"clusterID": "mian"},
        ("mian", "holdfast.toml"),
    ),
    "a place that no node is in": Mistake(
        "local.holdfast.dev",
        {"layout": "directory"},
        (
            "no available topology found",
            "topology.kubernetes.io/zone in (zone-of-nobody)",
            "topology.kubernetes.io/zone: on no node",
            "make the class again with other allowedTopologies",
        ),
        more={
            "allowedTopologies": [
                {
                    "matchLabelExpressions": [
                        {"key": "topology.kubernetes.io/zone", "values": ["zone-of-nobody"]}
                    ]
                }
            ]
        },
    ),
}


async def _told(client: Client, claim: str) -> list[Object]:
    """The provisioner's warnings on a claim; Kubernetes' own binder has its own."""
    return [
        each
        for each in (await client.list(kinds.EVENT, "default")).items
        if each["involvedObject"]["name"] == claim
        and each["type"] == "Warning"
        and each["source"].get("component") != "persistentvolume-controller"
    ]


@pytest.mark.parametrize("mistake", MISTAKES.values(), ids=MISTAKES)
async def test_one_event_names_the_object_and_the_remedy_of(
    cluster: Cluster, client: Client, tmp_path: Path, mistake: Mistake
) -> None:
    for namespace, name, kind in mistake.secrets:
        await write_secret(client, namespace, name, {"key": KEY}, type=kind)
    parameters = {key: value for key, value in mistake.parameters.items() if value is not None}
    class_name = await make_class(
        client, mistake.provisioner, parameters=parameters, **mistake.more
    )
    async with controller(cluster, tmp_path, storage=_storage(tmp_path)):
        claim = await make_claim(client, class_name, mistake.size)
        await until(partial(_told, client, claim))
        # Further attempts and what the attempt itself changes add no second text.
        await asyncio.sleep(1.5)
        events = await _told(client, claim)
        assert [each["reason"] for each in events] == ["ProvisioningFailed"]
        for text in mistake.told:
            assert text in events[0]["message"]
        assert KEY not in str(events)
        assert events[0].get("count", 1) <= 2
        await client.delete(kinds.CLAIM, claim, "default")
        await until(partial(gone, client, kinds.CLAIM, claim, "default"))
        assert len(await _told(client, claim)) == 1


def _storage(directory: Path) -> dict[str, dict[str, dict[str, object]]]:
    """A cluster that is configured, where nobody answers."""
    key_file = directory / "key"
    key_file.touch(mode=0o600)
    key_file.write_text(KEY)
    section: dict[str, object] = {
        "monitors": [MONITOR],
        "user": "kube",
        "key_file": str(key_file),
        "pool": "kube",
    }
    cloud_conf = directory / "cloud.conf"
    cloud_conf.touch(mode=0o600)
    cloud_conf.write_text(
        '[Global]\nauth-url = "http://127.0.0.1:9/v3"\nusername = kube\n'
        "password = none\ntenant-name = kube\ndomain-name = Default\n"
    )
    vcenter: dict[str, object] = {
        "server": "127.0.0.1",
        "port": 9,
        "user": "kube",
        "password": "none",
        "datacenter": "DC0",
    }
    cinder: dict[str, object] = {"cloud_conf": str(cloud_conf)}
    return {"rbd": {"main": section}, "cinder": {"main": cinder}, "vsphere": {"main": vcenter}}


# What each name needs besides, and one of its parameters with a letter too few.
HEKETI = {"resturl": "http://127.0.0.1:9"}
MISSPELT: Mapping[str, tuple[Mapping[str, str | None], str, str]] = {
    "local.holdfast.dev": ({}, "layot", "layout"),
    "kubernetes.io/host-path": ({}, "layot", "layout"),
    "rbd.holdfast.dev": ({"clusterID": "main"}, "pol", "pool"),
    "rbd.csi.ceph.com": ({"clusterID": "main"}, "imageFeature", "imageFeatures"),
    "kubernetes.io/rbd": (in_tree(), "imageFormt", "imageFormat"),
    "ceph.com/rbd": (in_tree(), "imageFormt", "imageFormat"),
    "cinder.holdfast.dev": ({}, "availabilty", "availability"),
    "cinder.csi.openstack.org": ({}, "availabilty", "availability"),
    "kubernetes.io/cinder": ({}, "availabilty", "availability"),
    "kubernetes.io/vsphere-volume": ({}, "diskformt", "diskFormat"),
    "csi.vsphere.vmware.com": ({}, "storagepolicynam", "storagePolicyName"),
    "gluster.holdfast.dev": (HEKETI, "volumetyp", "volumetype"),
    "kubernetes.io/glusterfs": (HEKETI, "volumetyp", "volumetype"),
}
NOWHERE = [{"key": "topology.kubernetes.io/zone", "values": ["zone-of-nobody"]}]


def _wrong(provisioner: str) -> dict[str, tuple[Object, tuple[str, ...]]]:
    """Classes of a name that cannot work, and what the events have to say."""
    given, misspelt, meant = MISSPELT[provisioner]
    parameters = {key: value for key, value in given.items() if value is not None}
    if "adminSecretName" in parameters:
        lost = {**parameters, "adminSecretName": "lost"}
    elif provisioner == "kubernetes.io/glusterfs":
        lost = {**parameters, "secretName": "lost", "secretNamespace": "bad-input"}
    else:
        lost = {**parameters, f"{CSI}name": "lost", f"{CSI}namespace": "bad-input"}
    return {
        "misspelt": (
            {"parameters": {**parameters, misspelt: "x"}},
            (f'unknown parameter "{misspelt}"', f'did you mean "{meant}"?'),
        ),
        "lost": (
            {"parameters": lost},
            ("secret bad-input/lost: not found", "kubectl -n bad-input create secret generic"),
        ),
        "nowhere": (
            {
                "parameters": parameters,
                "allowedTopologies": [{"matchLabelExpressions": NOWHERE}],
            },
            ("zone-of-nobody", "on no node", "make the class again with other"),
        ),
    }


async def test_every_name_tells_a_wrong_parameter_secret_and_place_once(
    cluster: Cluster, client: Client, tmp_path: Path
) -> None:
    assert set(MISSPELT) == set(registry.PROVISIONERS)
    await write_secret(client, *SECRET[:2], {"key": KEY}, type=TYPE)
    wanted: dict[str, tuple[str, tuple[str, ...]]] = {}
    for provisioner in MISSPELT:
        for what, (body, told) in _wrong(provisioner).items():
            class_name = await make_class(client, provisioner, **body)
            claim = await make_claim(client, class_name, "1Gi")
            wanted[claim] = (f"{provisioner}: {what}", told)
    async with controller(cluster, tmp_path, storage=_storage(tmp_path)):
        for claim in wanted:
            await until(partial(_told, client, claim))
        await asyncio.sleep(1.5)
        for claim, (what, told) in wanted.items():
            events = await _told(client, claim)
            assert [each["reason"] for each in events] == ["ProvisioningFailed"], what
            assert [text for text in told if text not in events[0]["message"]] == [], (
                what,
                events[0]["message"],
            )
            await client.delete(kinds.CLAIM, claim, "default")
        for claim in wanted:
            await until(partial(gone, client, kinds.CLAIM, claim, "default"))
