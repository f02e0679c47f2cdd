"""`holdfast prepare vsphere` and `holdfast check vsphere`: what they do, govc confirms."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import pytest

from holdfast.backends import errors
from holdfast.backends.protocol import Finding
from holdfast.backends.vsphere import documents, preparing, roles
from holdfast.backends.vsphere.backend import VsphereBackend
from servers.vsphere.vcenter import USER, VCenter

pytestmark = pytest.mark.e2e

FOLDER = "kubernetes-cluster"
PRINCIPAL = "k8s@vsphere.local"


OPTIONS = ("-dc", "1", "-ds", "2")


@pytest.fixture
async def backend(vcenter: VCenter, tmp_path: Path) -> AsyncIterator[VsphereBackend]:
    made = VsphereBackend(
        {"main": vcenter.settings(folder=FOLDER, default_datastore="LocalDS_0")}, tmp_path / "own"
    )
    yield made
    await made.close()


async def carry_out(
    backend: VsphereBackend, steps: Sequence[preparing.Step], *, changed: bool = True
) -> None:
    link = backend.gateway.link()
    done = await backend.gateway.run(preparing.run, link, steps)
    assert [did for _, did in done] == [changed] * len(steps), [step.what for step in steps]


def of(findings: Sequence[Finding], check: str) -> list[Finding]:
    return [each for each in findings if each.check == f"vSphere {check}"]


async def test_folder_nodes_and_disks_are_made_once_and_checked(
    backend: VsphereBackend, vcenter: VCenter
) -> None:
    link = backend.gateway.link()
    run = backend.gateway.run
    before = await backend.checks()
    assert "no VM folder" in str([each.what for each in of(before, "folder")])
    steps = await run(preparing.folder_steps, link, "DC0", FOLDER)
    assert steps[0].govc == f"govc folder.create /DC0/vm/{FOLDER}"
    await carry_out(backend, steps)
    await carry_out(backend, steps, changed=False)
    assert f"/DC0/vm/{FOLDER}" in vcenter.govc("find", "/DC0/vm", "-type", "f")
    vcenter.govc("object.mv", *vcenter.machines()[:2], f"/DC0/vm/{FOLDER}")
    link.reader.forget()
    findings = await backend.checks()
    machines = of(findings, "node VM")
    assert {each.severity for each in machines} == {"warning", "error"}
    assert any("disk.enableUUID" in each.what and "govc" in each.remedy for each in machines)
    assert any("DNS name" in each.what for each in machines)
    steps = await run(preparing.node_steps, link)
    assert len(steps) == 2
    await carry_out(backend, steps)
    await carry_out(backend, steps, changed=False)
    name = vcenter.govc("find", f"/DC0/vm/{FOLDER}", "-type", "m").split()[0]
    extra = vcenter.json("vm.info", "-e", name)["virtualMachines"][0]["config"]["extraConfig"]
    assert ("disk.enableUUID", "TRUE") in [(each["key"], each["value"]) for each in extra]
    link.reader.forget()
    found = of(await backend.checks(), "node VM")
    assert not any(each.severity == "error" for each in found)
    steps = await run(preparing.disk_steps, link, "LocalDS_0", "k8sData/db.vmdk", 1 << 30, "thin")
    assert steps[-1].govc.endswith("-size 1024M k8sData/db.vmdk")
    await carry_out(backend, steps)
    await carry_out(backend, steps, changed=False)
    assert vcenter.files("LocalDS_0", "k8sData") == ["db.vmdk"]
    findings = await backend.checks()
    assert of(findings, "login")[0].severity == "ok"
    assert of(findings, "datastore")[0].severity == "ok"
    assert of(findings, "privileges")
    assert not [each for each in findings if "could not be used" in each.what]


@pytest.mark.parametrize("mode", roles.MODES)
async def test_roles_have_their_privileges_and_others_keep_their_permissions(
    backend: VsphereBackend, vcenter: VCenter, mode: str
) -> None:
    link = backend.gateway.link()
    name = f"k8s-{mode}"
    steps = await backend.gateway.run(preparing.role_steps, link, mode, name, PRINCIPAL)
    place = steps[-1].govc.split()[-1]
    vcenter.govc("permissions.set", "-principal", f"other-{mode}", "-role", "ReadOnly", place)
    await carry_out(backend, steps)
    await carry_out(backend, steps, changed=False)
    granted = set(vcenter.govc("role.ls", name).split())
    assert set(roles.privileges(mode)) <= granted
    listed = vcenter.govc("permissions.ls", place)
    assert f"other-{mode}" in listed
    assert "VSPHERE.LOCAL\\k8s" in listed and name in listed


async def test_tags_are_refused_where_vcenter_would_refuse_them(backend: VsphereBackend) -> None:
    link = backend.gateway.link()
    run = backend.gateway.run
    regions = {"region-1": ["zone-1"]}
    good = await run(
        preparing.tag_steps, link, "k8s-region", "k8s-zone", regions, [("region-1", "/DC0")]
    )
    await carry_out(backend, good)
    twice = await run(
        preparing.tag_steps,
        link,
        *("k8s-region", "k8s-zone"),
        {"region-2": []},
        [("region-2", "/DC0")],
    )
    with pytest.raises(errors.Conflict, match="allows one"):
        await run(preparing.run, link, twice[2:])
    odd = await run(
        preparing.tag_steps,
        link,
        *("k8s-region", "k8s-zone"),
        {},
        [("zone-1", "/DC0/vm/DC0_H0_VM0")],
    )
    with pytest.raises(errors.Invalid, match="VirtualMachine"):
        await run(preparing.run, link, odd[2:])


async def test_a_tag_is_attached_as_the_region_or_zone_it_is(
    backend: VsphereBackend, vcenter: VCenter
) -> None:
    """Each line of govc stands for itself: making tags, and later attaching them."""
    link = backend.gateway.link()
    run = backend.gateway.run
    names = ("kind-region", "kind-zone")
    made = await run(preparing.tag_steps, link, *names, {"one": ["one", "two"]}, [])
    await carry_out(backend, made)
    later = await run(preparing.tag_steps, link, *names, {}, [("one", "/DC0")])
    assert later[-1].govc == "govc tags.attach -c kind-region one /DC0"
    await run(preparing.run, link, later)
    store = "/DC0/datastore/LocalDS_0"
    zoned = await run(preparing.tag_steps, link, *names, {}, [("two", store)])
    await run(preparing.run, link, zoned)
    kinds = (("kind-region", "one", "Datacenter:"), ("kind-zone", "two", "Datastore:"))
    for category, tag, kind in kinds:
        (found,) = vcenter.json("tags.info", "-c", category, tag)
        assert kind in vcenter.govc("tags.attached.ls", "-l", found["id"])


@pytest.mark.parametrize("folder", ["/DC0/vm/absolute", "above/below", "/DC0/vm/both/deep/"])
async def test_a_folder_is_made_where_its_path_says(
    backend: VsphereBackend, vcenter: VCenter, folder: str
) -> None:
    link = backend.gateway.link()
    steps = await backend.gateway.run(preparing.folder_steps, link, "DC0", folder)
    await carry_out(backend, steps)
    await carry_out(backend, steps, changed=False)
    whole = f"/DC0/vm/{folder.removeprefix('/DC0/vm/').strip('/')}"
    assert whole in vcenter.govc("find", "/DC0/vm", "-type", "f").split()
    assert steps[-1].govc == f"govc folder.create {whole}"
    with pytest.raises(errors.Invalid, match="no VM folder"):
        await backend.gateway.run(preparing.folder_steps, link, "DC0", "/DC0/host/x")


@pytest.mark.parametrize(
    ("path", "size", "format", "said"),
    [
        ("k8s/x", 1, "thin", "ends in .vmdk"),
        ("../x.vmdk", 1, "thin", "no path on a datastore"),
        ("k8s/../../x.vmdk", 1, "thin", "no path on a datastore"),
        ("/k8s/x.vmdk", 1, "thin", "no path on a datastore"),
        ("[LocalDS_0] k8s/x.vmdk", 1, "thin", "without the datastore"),
        ("k8s/x.vmdk", 63 << 40, "thin", "62T"),
        ("k8s/x.vmdk", 5 << 40, "thin", "do not fit"),
        ("k8s/x.vmdk", 5 << 40, "eagerzeroedthick", "do not fit"),
    ],
)
async def test_a_disk_by_hand_is_refused_where_it_could_not_be(
    backend: VsphereBackend, path: str, size: int, format: str, said: str
) -> None:
    with pytest.raises(errors.BackendError, match=said):
        await backend.gateway.run(
            preparing.disk_steps, backend.gateway.link(), "LocalDS_0", path, size, format
        )


@pytest.mark.parametrize(
    ("regions", "attachments"),
    [({"": ["z"]}, []), ({"r": ["a", ""]}, []), ({}, [("tag", "")]), ({}, [("", "/DC0")])],
)
async def test_a_tag_without_a_name_or_place_is_refused_before_anything_is_made(
    backend: VsphereBackend, regions: dict[str, list[str]], attachments: list[tuple[str, str]]
) -> None:
    with pytest.raises(errors.Invalid, match=r"no name|missing"):
        await backend.gateway.run(
            preparing.tag_steps, backend.gateway.link(), "k-r", "k-z", regions, attachments
        )


async def test_an_image_builds_variables_are_checked_against_the_inventory(
    backend: VsphereBackend, vcenter: VCenter
) -> None:
    link = backend.gateway.link()
    values = {
        "vcenter_server": vcenter.address,
        "vcenter_username": USER,
        "vcenter_password": vcenter.password,
        "vcenter_cluster": "DC0_C0",
        "vcenter_datacenter": "DC0",
        "vcenter_resource_pool": "Resources",
        "vcenter_datastore": "LocalDS_0",
        "vcenter_folder": "",
        "vm_network": "VM Network",
    }
    values["vcenter_folder"] = "/DC0/vm"
    text = documents.packer(values)
    assert documents.read_packer(text, "file") == values
    assert await backend.gateway.run(documents.check_packer, link, values) == []
    stranger = {**values, "vcenter_password": "AIUc63$#v4LZ"}
    (said,) = await backend.gateway.run(documents.check_packer, link, stranger)
    assert said.startswith("vcenter_username, vcenter_password: ")
    assert "AIUc63" not in said
    (said,) = await backend.gateway.run(
        documents.check_packer, link, {**values, "vcenter_server": "vc.example"}
    )
    assert said.startswith('vcenter_server: "vc.example" is not 127.0.0.1')
    wrong = {**values, "vcenter_cluster": "DC0_C1", "vm_network": "VM Netwerk"}
    found = await backend.gateway.run(documents.check_packer, link, wrong)
    assert [each.split(":")[0] for each in found] == [
        "vcenter_cluster",
        "vm_network",
        "vcenter_resource_pool",
    ]
    assert 'did you mean "VM Network"?' in found[1]


async def test_a_class_is_checked_before_a_claim_waits_for_it(backend: VsphereBackend) -> None:
    [good] = await backend.check_class({"datastore": "LocalDS_1"}, {})
    assert good.severity == "ok" and "LocalDS_1" in good.what
    [bad] = await backend.check_class({"datastore": "LocalDS_7"}, {})
    assert bad.severity == "error" and "did you mean" in bad.remedy
    [typo] = await backend.check_class({"diskformt": "thin"}, {})
    assert "diskFormat" in typo.remedy
