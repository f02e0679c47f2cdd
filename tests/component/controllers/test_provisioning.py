"""A claim gets a volume made for it, and loses it: the provisioner and the deleter.

The backend is the real local one, in directories; what is asked of it, and what it answers, can
be disturbed. "Existing" volumes are those on the disk.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from holdfast.api import kinds, views
from holdfast.backends import errors
from holdfast.testing.controlplane import NODE, ControlPlane, control_plane, eventually, phase_of
from holdfast.testing.objects import ROX, RWO, claim, reference, storage_class, volume

Object = dict[str, Any]
BINDER = "persistentvolume-controller"
LOCAL = "local.holdfast.dev"
HOST_PATH = "kubernetes.io/host-path"
IN_DIRECTORIES: Object = {"parameters": {"layout": "directory"}}
FINALIZER = "holdfast.dev/provisioning"
EXTERNAL_FINALIZER = "external-provisioner.volume.kubernetes.io/finalizer"
IN_TREE_FINALIZER = "kubernetes.io/pv-controller"
WAITING = (
    "Waiting for a volume to be created either by the external provisioner '{}' or manually by "
    "the system administrator. If volume creation is delayed, please verify that the provisioner "
    "is running and correctly registered."
)


@pytest.fixture
async def control(tmp_path: Path) -> AsyncIterator[ControlPlane]:
    async with control_plane(tmp_path) as running:
        yield running


def local_class(name: str = "std", **fields: Any) -> Object:
    return storage_class(name, LOCAL, **{**IN_DIRECTORIES, **fields})


def wanted(name: str = "c", size: str = "1Gi", **spec: Any) -> Object:
    return claim(name, size, storageClassName=spec.pop("storageClassName", "std"), **spec)


async def volume_of(control: ControlPlane, found: Object) -> Object:
    return await control.client.get(kinds.VOLUME, found["spec"]["volumeName"])


async def test_a_claim_gets_a_volume_of_its_own(control: ControlPlane) -> None:
    await control.create(
        local_class(mountOptions=["noatime"], reclaimPolicy="Delete", allowVolumeExpansion=True)
    )
    made = await control.create(wanted(size="1500M", modes=[RWO, ROX]))
    found = await control.phase(kinds.CLAIM, "c", "Bound")
    await control.settled()

    name = f"pvc-{made['metadata']['uid']}"
    assert await control.backend.existing() == [name]
    real = await control.backend.real.get_volume(name)
    assert real.size >= 1_500_000_000
    pv = await volume_of(control, found)
    assert pv["metadata"]["name"] == name
    assert pv["metadata"]["annotations"] == {views.PROVISIONED_BY: LOCAL}
    assert sorted(pv["metadata"]["finalizers"]) == [
        EXTERNAL_FINALIZER,
        "kubernetes.io/pv-protection",
    ]
    spec = pv["spec"]
    assert spec["local"] == {"path": real.context["path"]}
    assert spec["accessModes"] == [RWO, ROX]
    assert spec["persistentVolumeReclaimPolicy"] == "Delete"
    assert spec["storageClassName"] == "std"
    assert spec["mountOptions"] == ["noatime"]
    assert spec["volumeMode"] == "Filesystem"
    assert spec["claimRef"]["uid"] == made["metadata"]["uid"]
    term = spec["nodeAffinity"]["required"]["nodeSelectorTerms"][0]["matchExpressions"][0]
    assert term == {"key": "kubernetes.io/hostname", "operator": "In", "values": [NODE]}
    assert phase_of(pv) == "Bound"

    now = await control.client.get(kinds.CLAIM, "c", "default")
    assert now["metadata"]["finalizers"] == ["kubernetes.io/pvc-protection"]
    assert now["metadata"]["annotations"] == {
        views.BIND_COMPLETED: "yes",
        views.BOUND_BY_CONTROLLER: "yes",
        views.STORAGE_PROVISIONER: LOCAL,
        views.BETA_STORAGE_PROVISIONER: LOCAL,
    }
    assert now["status"]["capacity"] == spec["capacity"]
    told = {(t.reason, t.message): (t.type, t.component) for t in await control.told("c")}
    assert told[("ExternalProvisioning", WAITING.format(LOCAL))] == ("Normal", BINDER)
    begun = 'External provisioner is provisioning volume for claim "default/c"'
    assert told[("Provisioning", begun)] == ("Normal", LOCAL)
    done = f"Successfully provisioned volume {name}"
    assert told[("ProvisioningSucceeded", done)] == ("Normal", LOCAL)


async def test_an_in_tree_plug_in_makes_volumes_in_its_own_way(control: ControlPlane) -> None:
    await control.create(storage_class("std", HOST_PATH))
    made = await control.create(wanted())
    found = await control.phase(kinds.CLAIM, "c", "Bound")
    name = f"pvc-{made['metadata']['uid']}"
    pv = await volume_of(control, found)

    assert pv["metadata"]["annotations"] == {
        views.PROVISIONED_BY: HOST_PATH,
        views.BOUND_BY_CONTROLLER: "yes",
    }
    assert IN_TREE_FINALIZER in pv["metadata"]["finalizers"]
    assert "path" in pv["spec"]["hostPath"]
    text = f"Successfully provisioned volume {name} using {HOST_PATH}"
    told = await control.hears("c", "ProvisioningSucceeded", text)
    assert (told.type, told.component) == ("Normal", BINDER)
    assert "ExternalProvisioning" not in {told.reason for told in await control.told("c")}

    await control.delete(kinds.CLAIM, "c")
    await control.gone(kinds.VOLUME, name)
    assert await control.backend.existing() == []


@pytest.mark.parametrize("provisioner", [LOCAL, HOST_PATH])
@pytest.mark.parametrize("first", ["claim", "volume"])
async def test_a_deleted_claims_volume_goes_with_its_storage_whoever_is_deleted_first(
    control: ControlPlane, provisioner: str, first: str
) -> None:
    await control.create(storage_class("std", provisioner, **IN_DIRECTORIES))
    await control.create(wanted())
    found = await control.phase(kinds.CLAIM, "c", "Bound")
    name = found["spec"]["volumeName"]
    if first == "volume":
        await control.delete(kinds.VOLUME, name)
        await control.settled()
        held = await control.client.get(kinds.VOLUME, name)
        assert "deletionTimestamp" in held["metadata"]
        assert await control.backend.existing() == [name]
    await control.delete(kinds.CLAIM, "c")

    await control.gone(kinds.VOLUME, name)
    await control.gone(kinds.CLAIM, "c")
    assert await control.backend.existing() == []


@pytest.mark.parametrize("provisioner", [LOCAL, HOST_PATH])
async def test_a_retained_volume_keeps_its_storage_and_can_be_deleted_by_hand(
    control: ControlPlane, provisioner: str
) -> None:
    await control.create(storage_class("std", provisioner, **IN_DIRECTORIES))
    await control.create(wanted())
    name = (await control.phase(kinds.CLAIM, "c", "Bound"))["spec"]["volumeName"]
    keep = {"spec": {"persistentVolumeReclaimPolicy": "Retain"}}
    await control.patch(kinds.VOLUME, name, keep)
    await control.delete(kinds.CLAIM, "c")
    await control.phase(kinds.VOLUME, name, "Released")
    await control.settled()
    assert await control.backend.existing() == [name]

    # No finalizer of a deletion that will not happen may hold it.
    await control.delete(kinds.VOLUME, name)
    await control.gone(kinds.VOLUME, name)
    assert await control.backend.existing() == [name]


@pytest.mark.parametrize("provisioner", [LOCAL, HOST_PATH])
async def test_a_volume_whose_policy_is_changed_to_delete_outlives_its_object_no_more(
    control: ControlPlane, provisioner: str
) -> None:
    retained = storage_class("std", provisioner, reclaimPolicy="Retain", **IN_DIRECTORIES)
    await control.create(retained)
    await control.create(wanted())
    name = (await control.phase(kinds.CLAIM, "c", "Bound"))["spec"]["volumeName"]
    change = {"spec": {"persistentVolumeReclaimPolicy": "Delete"}}
    await control.patch(kinds.VOLUME, name, change)
    await control.settled()
    # The object is deleted first, as somebody does who cleans up.
    await control.delete(kinds.VOLUME, name)
    await control.delete(kinds.CLAIM, "c")
    await control.gone(kinds.VOLUME, name)
    assert await control.backend.existing() == []


# What keeps a claim waiting


@pytest.mark.parametrize(
    ("the_class", "message"),
    [
        pytest.param(None, 'storageclass.storage.k8s.io "std" not found', id="no_such_class"),
        pytest.param(
            storage_class("std", "kubernetes.io/unheard-of"),
            "no volume plugin matched name: kubernetes.io/unheard-of",
            id="an_unknown_in_tree_name",
        ),
        pytest.param(
            storage_class("std", "kubernetes.io/no-provisioner"),
            "no volume plugin matched name: kubernetes.io/no-provisioner",
            id="no_provisioner_with_immediate_binding",
        ),
        pytest.param(
            storage_class("std", HOST_PATH, mountOptions=["a", "b"]),
            "Mount options are not supported by the provisioner but StorageClass "
            '"std" has mount options [a b]',
            id="mount_options_for_a_host_path",
        ),
    ],
)
async def test_provisioning_is_refused_with_a_warning_for(
    control: ControlPlane, the_class: Object | None, message: str
) -> None:
    if the_class is not None:
        await control.create(the_class)
    await control.create(wanted())

    told = await control.hears("c", "ProvisioningFailed", message)
    assert (told.type, told.component) == ("Warning", BINDER)
    found = await control.client.get(kinds.CLAIM, "c", "default")
    assert phase_of(found) == "Pending"
    assert FINALIZER not in found["metadata"]["finalizers"]
    if "unheard" in message or "no-prov" in message or the_class is None:
        assert "annotations" not in found["metadata"]


async def test_a_class_made_later_wakes_the_claims_that_name_it(control: ControlPlane) -> None:
    await control.create(wanted("c"))
    await control.create(wanted("other", storageClassName="never"))
    await control.settled()
    before = [told.count for told in await control.told("other")]

    await control.create(local_class())

    await control.phase(kinds.CLAIM, "c", "Bound", seconds=1)
    await control.settled()
    assert [told.count for told in await control.told("other")] == before


async def test_a_claim_of_a_strangers_class_waits_for_the_stranger(control: ControlPlane) -> None:
    await control.create(storage_class("std", "stranger.example.com"))
    await control.create(wanted())
    text = WAITING.format("stranger.example.com")
    assert (await control.hears("c", "ExternalProvisioning", text)).type == "Normal"
    await control.settled()
    found = await control.client.get(kinds.CLAIM, "c", "default")
    assert found["metadata"]["annotations"] == {
        views.STORAGE_PROVISIONER: "stranger.example.com",
        views.BETA_STORAGE_PROVISIONER: "stranger.example.com",
    }

    # The stranger delivers.
    uid = found["metadata"]["uid"]
    await control.create(volume("theirs", claimRef=reference("c", uid), storageClassName="std"))
    await control.phase(kinds.CLAIM, "c", "Bound", seconds=1)


async def test_a_claim_of_a_migrated_class_waits_under_the_drivers_name(
    control: ControlPlane,
) -> None:
    await control.create(storage_class("std", "kubernetes.io/cinder"))
    await control.create(wanted())
    text = WAITING.format("cinder.csi.openstack.org")
    await control.hears("c", "ExternalProvisioning", text)
    await control.settled()

    found = await control.client.get(kinds.CLAIM, "c", "default")
    assert found["metadata"]["annotations"] == {
        views.STORAGE_PROVISIONER: "cinder.csi.openstack.org",
        views.BETA_STORAGE_PROVISIONER: "cinder.csi.openstack.org",
    }


async def test_a_claim_annotated_with_an_in_tree_name_is_marked_as_migrated(
    control: ControlPlane,
) -> None:
    named = {views.STORAGE_PROVISIONER: "kubernetes.io/cinder"}
    await control.create(claim("c", annotations=named))
    stale = {"pv.kubernetes.io/migrated-to": "x", views.STORAGE_PROVISIONER: "plain.example.com"}
    await control.create(claim("d", annotations=stale))
    await control.settled()

    marked = await control.client.get(kinds.CLAIM, "c", "default")
    annotations = marked["metadata"]["annotations"]
    assert annotations["pv.kubernetes.io/migrated-to"] == "cinder.csi.openstack.org"
    cleaned = await control.client.get(kinds.CLAIM, "d", "default")
    assert "pv.kubernetes.io/migrated-to" not in cleaned["metadata"]["annotations"]


async def test_a_claim_that_waits_for_its_consumer_is_served_on_the_chosen_node(
    control: ControlPlane,
) -> None:
    await control.create(local_class(volumeBindingMode="WaitForFirstConsumer"))
    await control.create(wanted())
    await control.settled()
    assert control.backend.calls == []
    node = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": NODE}}
    await control.create({**node, "metadata": {"name": NODE, "labels": _host(NODE)}})
    await control.patch(kinds.CLAIM, "c", _selected(NODE))

    await control.phase(kinds.CLAIM, "c", "Bound", seconds=1)


def _host(name: str) -> dict[str, str]:
    return {"kubernetes.io/hostname": name}


def _selected(node: str) -> Object:
    return {"metadata": {"annotations": {views.SELECTED_NODE: node}}}


@pytest.mark.parametrize(
    ("provisioner", "node", "message", "component"),
    [
        (LOCAL, "missing", 'node "missing" not found', LOCAL),
        (HOST_PATH, "missing", 'Failed to get target node: node "missing" not found', BINDER),
        (LOCAL, "far", "local volumes of node node-1: the volume is wanted on node", LOCAL),
    ],
)
async def test_a_node_that_cannot_have_the_volume_is_unselected(
    control: ControlPlane, provisioner: str, node: str, message: str, component: str
) -> None:
    lazy = {"volumeBindingMode": "WaitForFirstConsumer", **IN_DIRECTORIES}
    await control.create(storage_class("std", provisioner, **lazy))
    far = {"name": "far", "labels": _host("far")}
    await control.create({"apiVersion": "v1", "kind": "Node", "metadata": far})
    await control.create(wanted())
    await control.settled()
    await control.patch(kinds.CLAIM, "c", _selected(node))

    def unselected(found: Object) -> bool:
        return views.SELECTED_NODE not in found["metadata"]["annotations"]

    await control.until(kinds.CLAIM, "c", unselected, seconds=1)
    await control.settled()
    (told,) = [t for t in await control.told("c") if t.reason == "ProvisioningFailed"]
    assert told.message.startswith(message)
    assert (told.type, told.component) == ("Warning", component)


async def test_what_may_have_been_begun_on_a_node_stays_with_it(control: ControlPlane) -> None:
    await control.create(local_class(volumeBindingMode="WaitForFirstConsumer"))
    node = {"name": NODE, "labels": _host(NODE)}
    await control.create({"apiVersion": "v1", "kind": "Node", "metadata": node})
    await control.create(wanted())
    control.backend.fail("create_volume", errors.Unavailable("no answer"), after=True)
    await control.settled()
    await control.patch(kinds.CLAIM, "c", _selected(NODE))
    await control.hears("c", "ProvisioningFailed", "no answer")
    await control.settled()
    found = await control.client.get(kinds.CLAIM, "c", "default")
    assert found["metadata"]["annotations"][views.SELECTED_NODE] == NODE
    await control.phase(kinds.CLAIM, "c", "Bound", seconds=3)


async def test_a_scheduler_that_insists_on_a_bad_node_does_not_make_a_storm(
    control: ControlPlane,
) -> None:
    await control.create(local_class(volumeBindingMode="WaitForFirstConsumer"))
    node = {"name": NODE, "labels": _host(NODE)}
    await control.create({"apiVersion": "v1", "kind": "Node", "metadata": node})
    await control.create(wanted())
    control.backend.fail("create_volume", errors.Exhausted("full"), times=100)
    deadline = asyncio.get_running_loop().time() + 0.8
    while asyncio.get_running_loop().time() < deadline:
        await control.patch(kinds.CLAIM, "c", _selected(NODE))
        await asyncio.sleep(0.01)

    assert len(control.backend.calls) == 1
    control.backend.heal()
    await control.phase(kinds.CLAIM, "c", "Bound", seconds=2)


# Clones


async def test_a_claim_can_start_as_a_copy_of_another(control: ControlPlane) -> None:
    await control.create(local_class())
    await control.create(wanted("first"))
    first = await control.phase(kinds.CLAIM, "first", "Bound")
    path = (await volume_of(control, first))["spec"]["local"]["path"]
    await asyncio.to_thread(Path(path, "file").write_text, "copied")
    source = {"kind": "PersistentVolumeClaim", "name": "first"}
    await control.create(wanted("second", dataSource=source))

    second = await control.phase(kinds.CLAIM, "second", "Bound")
    copy = (await volume_of(control, second))["spec"]["local"]["path"]
    assert await asyncio.to_thread(Path(copy, "file").read_text) == "copied"
    assert copy != path


async def test_an_in_tree_plug_in_cannot_copy(control: ControlPlane) -> None:
    await control.create(storage_class("std", HOST_PATH))
    source = {"kind": "PersistentVolumeClaim", "name": "first"}
    await control.create(wanted("second", dataSource=source))

    text = (
        f'plugin "{HOST_PATH}" is not a CSI plugin. '
        "Only CSI plugin can provision a claim with a datasource"
    )
    told = await control.hears("second", "ProvisioningFailed", text)
    assert (told.type, told.component) == ("Warning", BINDER)
    found = await control.client.get(kinds.CLAIM, "second", "default")
    assert "annotations" not in found["metadata"]


async def test_a_copy_waits_for_its_source(control: ControlPlane) -> None:
    await control.create(local_class())
    source = {"kind": "PersistentVolumeClaim", "name": "first"}
    await control.create(wanted("second", dataSource=source))
    text = (
        "error getting handle for DataSource Type PersistentVolumeClaim by Name first: "
        'error getting PVC first (namespace "default") from api server: '
        'persistentvolumeclaim "first" not found'
    )
    await control.hears("second", "ProvisioningFailed", text)
    await control.create(wanted("first"))

    await control.phase(kinds.CLAIM, "second", "Bound", seconds=4)


async def test_a_hundred_claims_are_served_in_a_moment(control: ControlPlane) -> None:
    count = 100
    await control.create(local_class())
    started = asyncio.get_running_loop().time()
    await asyncio.gather(*(control.create(wanted(f"c{n}", "1Mi")) for n in range(count)))

    async def all_bound() -> bool:
        found = (await control.client.list(kinds.CLAIM)).items
        return sum(phase_of(each) == "Bound" for each in found) == count

    await eventually(all_bound, 10)
    assert asyncio.get_running_loop().time() - started < 3
    assert len(await control.backend.existing()) == count
    await asyncio.gather(*(control.delete(kinds.CLAIM, f"c{n}") for n in range(count)))

    async def all_gone() -> bool:
        return not (await control.client.list(kinds.VOLUME)).items

    await eventually(all_gone, 10)
    assert await control.backend.existing() == []
