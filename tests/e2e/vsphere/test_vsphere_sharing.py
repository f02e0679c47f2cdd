"""A vCenter that is not Holdfast's alone: users that get locked, other clusters, other vCenters.

What belongs to somebody else is not listed, not locked out, and not doubled.
"""

from __future__ import annotations

import asyncio
import itertools
from pathlib import Path

import pytest

from holdfast.backends import errors
from holdfast.backends.names import Made
from holdfast.backends.protocol import VolumeRequest
from holdfast.backends.vsphere import discovery, legacy, preparing
from holdfast.backends.vsphere.backend import VsphereBackend
from servers.vsphere.faultproxy import FaultProxy, Rule
from servers.vsphere.vcenter import USER, VCenter

pytestmark = pytest.mark.e2e

OPTIONS = ("-dc", "2", "-ds", "2")
SETTINGS = {"datacenters": ["DC0", "DC1"]}
GIB = 1 << 30
_NUMBERS = itertools.count(1)


def request(**parameters: str) -> VolumeRequest:
    return VolumeRequest(f"pvc-{next(_NUMBERS)}-sharing", GIB, parameters)


async def test_a_refused_password_is_not_tried_until_vcenter_locks_the_user(
    vcenter: VCenter, proxy: FaultProxy, tmp_path: Path
) -> None:
    """Both ways to log in count, for vCenter counts both."""
    secret = tmp_path / "login"
    secret.write_text(f"username = {USER}\npassword = wrong\n")
    settings = vcenter.settings(
        port=proxy.port, credentials_file=str(secret), region_category="r", zone_category="z"
    )
    del settings["user"], settings["password"]
    backend = VsphereBackend({"main": settings}, tmp_path / "own")
    try:
        said = await asyncio.gather(
            *(backend.list_volumes() for _ in range(5)),
            *(backend.wanted_classes() for _ in range(5)),
            return_exceptions=True,
        )
        assert all(isinstance(each, errors.Unauthorized) for each in said), said
        assert all("wrong" not in str(each) for each in said)
        tried = proxy.calls["Login"] + proxy.calls["POST /rest/com/vmware/cis/session"]
        assert tried <= 2, proxy.calls
        with pytest.raises(errors.Unauthorized, match="InvalidLogin"):
            await backend.list_volumes()
        again = proxy.calls["Login"] + proxy.calls["POST /rest/com/vmware/cis/session"]
        assert again == tried
        secret.write_text(f'username = "{USER}"\npassword = {_quoted(vcenter.password)}\n')
        assert isinstance((await backend.list_volumes()).volumes, list)
    finally:
        await backend.close()


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


async def test_an_idle_connection_that_was_closed_is_no_failure_of_tags(
    vcenter: VCenter, proxy: FaultProxy, tmp_path: Path
) -> None:
    names = {"region_category": "idle-region", "zone_category": "idle-zone"}
    for category in names.values():
        vcenter.govc("tags.category.create", category)
    backend = VsphereBackend({"main": vcenter.settings(port=proxy.port, **names)}, tmp_path / "own")
    try:
        assert await backend.wanted_classes() == []
        for read in ("GET /rest/com/vmware/cis/tagging/category", "RetrievePropertiesEx"):
            proxy.fail(Rule(read, "reset"))
            backend.gateway.link().reader.forget()
            assert await backend.wanted_classes() == []
            assert proxy.left() == 0
    finally:
        await backend.close()


@pytest.mark.parametrize("disk", ["vmdk", "fcd"])
async def test_a_cluster_does_not_list_the_disks_of_another_one(
    vcenter: VCenter, tmp_path: Path, disk: str
) -> None:
    """What is listed and has no object is shown as an orphan, and somebody will delete it."""
    backends = [
        VsphereBackend(
            {"main": vcenter.settings(cluster_id=name, default_datastore="LocalDS_1")},
            tmp_path / name,
        )
        for name in ("east", "west")
    ]
    try:
        made = [
            await each.create_volume(VolumeRequest("pvc-same", GIB, {"disk": disk}))
            for each in backends
        ]
        assert made[0].id != made[1].id
        for backend, own, other in zip(backends, made, reversed(made), strict=True):
            listed = [each.id for each in (await backend.list_volumes()).volumes]
            assert own.id in listed and other.id not in listed
            await backend.delete_volume(own.id)
    finally:
        for backend in backends:
            await backend.close()


async def test_a_volume_says_the_policy_it_was_made_with(
    backend: VsphereBackend, vcenter: VCenter
) -> None:
    policy = vcenter.json("storage.policy.ls")["profile"][0]
    wanted = request(storagePolicyName=policy["name"])
    made = await backend.create_volume(wanted)
    assert await backend.create_volume(wanted) == made
    source = legacy.pv_source(Made(made, wanted, legacy.PROVISIONER))[legacy.SOURCE]
    assert source["storagePolicyName"] == policy["name"]
    assert source["storagePolicyID"] == policy["profileId"]["uniqueId"]
    await backend.delete_volume(made.id)


async def test_one_class_of_all_vcenters_is_the_default(vcenter: VCenter, tmp_path: Path) -> None:
    second = VCenter(tmp_path / "second", "-ds", "1")
    try:
        for each in (vcenter, second):
            each.govc("tags.category.create", "region")
            each.govc("tags.category.create", "zone")
            each.govc("tags.create", "-c", "region", f"r{each.port}")
            each.govc("tags.create", "-c", "zone", f"z{each.port}")
            each.govc("tags.attach", "-c", "region", f"r{each.port}", "/DC0")
            for path in ("host/DC0_C0", "datastore/LocalDS_0"):
                each.govc("tags.attach", "-c", "zone", f"z{each.port}", f"/DC0/{path}")
        categories = {"region_category": "region", "zone_category": "zone"}
        backend = VsphereBackend(
            {"a": vcenter.settings(**categories), "b": second.settings(**categories)},
            tmp_path / "own",
        )
        found = await backend.wanted_classes()
        assert [each.topology[discovery.REGION] for each in found if each.default] == [
            (f"r{vcenter.port}",)
        ]
        assert len(found) == 2
        await backend.close()
    finally:
        second.stop()


async def test_a_volume_is_bound_to_the_zone_of_its_datastore(
    vcenter: VCenter, tmp_path: Path
) -> None:
    """Only the nodes of that zone have to reach the datastore, so no other may get the volume."""
    for category in ("place-region", "place-zone"):
        vcenter.govc("tags.category.create", "-m", category)
    vcenter.govc("tags.create", "-c", "place-region", "north")
    for zone in ("left", "right"):
        vcenter.govc("tags.create", "-c", "place-zone", zone)
        vcenter.govc("tags.attach", "-c", "place-zone", zone, "/DC0/datastore/LocalDS_1")
    vcenter.govc("tags.attach", "-c", "place-region", "north", "/DC0")
    vcenter.govc("tags.attach", "-c", "place-zone", "left", "/DC0/datastore/LocalDS_0")
    region, zone = "topology.kubernetes.io/region", "topology.kubernetes.io/zone"
    backend = VsphereBackend(
        {
            "main": vcenter.settings(
                region_category="place-region",
                zone_category="place-zone",
                datacenters=["DC0", "DC1"],
            )
        },
        tmp_path / "own",
    )
    try:
        for disk in ("vmdk", "fcd"):
            for datastore, bound in (
                ("LocalDS_0", {region: "north", zone: "left"}),
                ("LocalDS_1", {region: "north"}),
                # Of the same name, and in no zone.
                ("/DC1/datastore/LocalDS_0", None),
            ):
                made = await backend.create_volume(request(datastore=datastore, disk=disk))
                assert made.topology == bound, (disk, datastore)
                await backend.delete_volume(made.id)
    finally:
        await backend.close()


async def test_a_role_is_given_in_every_datacenter_that_is_used(
    backend: VsphereBackend, vcenter: VCenter
) -> None:
    link = backend.gateway.link()
    for mode in ("platform", "policy"):
        steps = await backend.gateway.run(
            preparing.role_steps, link, mode, f"both-{mode}", "both@vsphere.local"
        )
        await backend.gateway.run(preparing.run, link, steps)
        for datacenter in ("DC0", "DC1"):
            path = f"/{datacenter}" if mode == "platform" else f"/{datacenter}/datastore/LocalDS_0"
            assert f"both-{mode}" in vcenter.govc("permissions.ls", path)
    root = [each.govc for each in steps if each.govc.endswith(" /")]
    assert root == [
        "govc permissions.set -principal both@vsphere.local -role both-policy -propagate=false /"
    ]
    below = [line for line in vcenter.govc("permissions.ls", "/").splitlines() if "both" in line]
    assert below and "Yes" not in below[0]
