"""The vSphere backend against a simulated vCenter, with govc as the witness.

One vCenter serves the module: two datacenters, clusters of three hosts, three datastores
and a datastore cluster in each. Tests use volume names of their own.
"""

from __future__ import annotations

import asyncio
import hashlib
import itertools
import ssl
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from holdfast.backends import errors, protocol
from holdfast.backends.protocol import VolumeRequest, VolumeSource
from holdfast.backends.vsphere import discovery, node_side
from holdfast.backends.vsphere.backend import VsphereBackend
from servers.vsphere.vcenter import USER, VCenter

pytestmark = pytest.mark.e2e

GIB = 1 << 30
FOLDER = "kubernetes-cluster"
NODES = ("DC0_C0_RP0_VM0", "DC0_C0_RP0_VM1", "DC0_C1_RP0_VM0")
# The simulator gives the VMs of all vCenters the same UUIDs.
FIRST_UUID, SECOND_UUID = (f"42000000-0000-4000-8000-00000000{end}" for end in ("beef", "cafe"))
_NUMBERS = itertools.count(1)


@pytest.fixture(scope="module")
def vcenter(tmp_path_factory: pytest.TempPathFactory) -> Iterator[VCenter]:
    found = VCenter(
        tmp_path_factory.mktemp("hf-h8"), "-dc", "2", "-cluster", "2", "-ds", "3", "-pod", "1"
    )
    try:
        found.gather(FOLDER, [f"/DC0/vm/{each}" for each in NODES])
        yield found
    finally:
        found.stop()


@pytest.fixture
async def backend(vcenter: VCenter, tmp_path: Path) -> AsyncIterator[VsphereBackend]:
    made = VsphereBackend(
        {"main": vcenter.settings(folder=FOLDER, default_datastore="LocalDS_0")}, tmp_path / "own"
    )
    yield made
    await made.close()


def request(size: int = GIB, **parameters: str) -> VolumeRequest:
    return VolumeRequest(f"pvc-{next(_NUMBERS)}-volumes", size, parameters)


def node(vcenter: VCenter, name: str = NODES[0]) -> str:
    return vcenter.uuid_of(f"/DC0/vm/{FOLDER}/{name}")


def path(name: str) -> str:
    return f"/DC0/vm/{FOLDER}/{name}"


def file_of(volume: protocol.Volume) -> str:
    return volume.id.rpartition("/")[2]


async def test_a_disk_is_for_one_vm_at_a_time(backend: VsphereBackend) -> None:
    made = await backend.create_volume(VolumeRequest("pvc-alone", GIB))
    await backend.check_use(
        made, VolumeRequest("", GIB, {}, ("ReadWriteOnce", "ReadWriteOncePod"), "Block")
    )
    for many in ("ReadWriteMany", "ReadOnlyMany"):
        with pytest.raises(errors.Invalid, match=f"one VM at a time and cannot be {many}"):
            await backend.create_volume(VolumeRequest("pvc-many", GIB, {}, (many,)))
        with pytest.raises(errors.Invalid, match="ReadWriteOnce"):
            await backend.check_use(made, VolumeRequest("", GIB, {}, (many,), "Filesystem"))
    await backend.delete_volume(made.id)


async def test_it_offers_every_capability_it_has(backend: VsphereBackend) -> None:
    for capability in (
        protocol.Backend,
        protocol.Expander,
        protocol.Snapshotter,
        protocol.Cloner,
        protocol.CapacityReporter,
        protocol.ClassChecker,
        protocol.Attacher,
        protocol.AttachmentLister,
        protocol.NodeObserver,
        protocol.MachineNamer,
        protocol.Discoverer,
    ):
        assert isinstance(backend, capability)


@pytest.mark.parametrize("disk", ["vmdk", "fcd"])
async def test_a_volume_is_made_once_however_often_it_is_asked_for(
    backend: VsphereBackend, vcenter: VCenter, disk: str
) -> None:
    wanted = request(disk=disk)
    made = await asyncio.gather(*(backend.create_volume(wanted) for _ in range(5)))
    assert {each.id for each in made} == {made[0].id}
    assert made[0].size == GIB
    assert await backend.find_volume(wanted) == made[0]
    assert (await backend.get_volume(made[0].id)).size == GIB
    with pytest.raises(errors.AlreadyExists):
        await backend.create_volume(VolumeRequest(wanted.name, 2 * GIB, wanted.parameters))
    if disk == "vmdk":
        assert file_of(made[0]) in vcenter.files("LocalDS_0", "kubevols")
        assert made[0].id == f"[LocalDS_0] kubevols/kubernetes-dynamic-{wanted.name}.vmdk"
    else:
        listed = vcenter.govc("disk.ls", "-ds", "LocalDS_0")
        assert listed.count(wanted.name) == 1
    await backend.delete_volume(made[0].id)
    await backend.delete_volume(made[0].id)
    with pytest.raises(errors.NotFound):
        await backend.get_volume(made[0].id)
    assert await backend.find_volume(wanted) is None
    assert file_of(made[0]) not in vcenter.files("LocalDS_0", "kubevols")
    if disk == "fcd":
        assert wanted.name not in vcenter.govc("disk.ls", "-ds", "LocalDS_0")


@pytest.mark.parametrize("format", ["thin", "zeroedthick", "eagerzeroedthick"])
async def test_every_disk_format_makes_a_disk(backend: VsphereBackend, format: str) -> None:
    made = await backend.create_volume(request(diskformat=format))
    assert (await backend.get_volume(made.id)).size == GIB
    await backend.delete_volume(made.id)


async def test_a_datastore_not_all_nodes_share_is_refused(
    backend: VsphereBackend, vcenter: VCenter, tmp_path: Path
) -> None:
    directory = tmp_path / "lonely"
    directory.mkdir()
    host = vcenter.govc("find", "/DC0", "-type", "h", "-name", "DC0_C0_H0").strip()
    vcenter.govc(
        "datastore.create", "-type", "local", "-name", "lonely", "-path", str(directory), host
    )
    with pytest.raises(errors.Invalid) as caught:
        await backend.create_volume(request(datastore="lonely"))
    assert "The specified datastore lonely is not a shared datastore across node VMs" in str(
        caught.value
    )
    assert vcenter.files("lonely", "kubevols") == []


async def test_what_a_vcenter_cannot_hold_is_refused_before_it_is_asked(
    backend: VsphereBackend,
) -> None:
    with pytest.raises(errors.Exhausted, match="do not fit"):
        await backend.create_volume(request(50 << 40))
    with pytest.raises(errors.Invalid, match="62Ti"):
        await backend.create_volume(request(63 << 40))
    with pytest.raises(errors.Invalid, match="ReadWriteOnce"):
        await backend.create_volume(VolumeRequest("pvc-x", GIB, {}, access=("ReadWriteMany",)))
    with pytest.raises(errors.NotFound, match="did you mean"):
        await backend.create_volume(request(datastore="LocalDS0"))


async def test_a_policy_chooses_the_datastore_and_a_wrong_one_is_named(
    backend: VsphereBackend, vcenter: VCenter
) -> None:
    name = vcenter.json("storage.policy.ls")["profile"][0]["name"]
    made = await backend.create_volume(request(storagePolicyName=name))
    assert made.id.startswith("[LocalDS_")
    with pytest.raises(errors.NotFound, match="no storage policy"):
        await backend.create_volume(request(storagePolicyName="gold"))
    await backend.delete_volume(made.id)


async def test_vsan_capabilities_of_the_old_class_make_a_disk(backend: VsphereBackend) -> None:
    made = await backend.create_volume(
        request(hostFailuresToTolerate="1", diskStripes="1", diskformat="thin", fstype="xfs")
    )
    assert made.context["fsType"] == "xfs"
    await backend.delete_volume(made.id)


async def test_a_datastore_cluster_is_named_in_the_path(
    backend: VsphereBackend, vcenter: VCenter
) -> None:
    pod = vcenter.govc("find", "/DC0/datastore", "-type", "StoragePod").split()[0]
    vcenter.govc("object.mv", "/DC0/datastore/LocalDS_2", pod)
    backend.gateway.link().reader.forget()
    short = pod.rpartition("/")[2]
    for asked in (short, f"{short}/LocalDS_2"):
        made = await backend.create_volume(request(datastore=asked))
        assert made.id.startswith(f"[{short}/LocalDS_2] kubevols/")
        assert file_of(made) in vcenter.files("LocalDS_2", "kubevols")
        uuid = node(vcenter)
        await backend.attach(made.id, uuid, False)
        assert [made.id.replace(f"{short}/", "")] == vcenter.attached(path(NODES[0]))
        await backend.detach(made.id, uuid)
        await backend.delete_volume(made.id)
        assert file_of(made) not in vcenter.files("LocalDS_2", "kubevols")


@pytest.mark.parametrize("disk", ["vmdk", "fcd"])
async def test_a_disk_hangs_in_one_vm_and_is_not_deleted_there(
    backend: VsphereBackend, vcenter: VCenter, disk: str
) -> None:
    made = await backend.create_volume(request(disk=disk))
    first, second = node(vcenter), node(vcenter, NODES[1])
    context = await backend.attach(made.id, first, False)
    assert await backend.attach(made.id, f"vsphere://{first.upper()}", False) == context
    assert len(context["diskUUID"]) == 32
    assert len(vcenter.attached(path(NODES[0]))) == 1
    with pytest.raises(errors.Conflict, match=NODES[0]):
        await backend.attach(made.id, second, False)
    assert vcenter.attached(path(NODES[1])) == []
    with pytest.raises(errors.Conflict, match=NODES[0]):
        await backend.delete_volume(made.id)
    assert (await backend.attachments())[made.id] == [first]
    await backend.detach(made.id, first)
    await backend.detach(made.id, first)
    assert vcenter.attached(path(NODES[0])) == []
    await backend.attach(made.id, second, False)
    await backend.detach(made.id, second)
    await backend.delete_volume(made.id)


async def test_sixty_disks_find_slots_of_their_own_and_the_next_one_is_told_so(
    backend: VsphereBackend, vcenter: VCenter
) -> None:
    machine = NODES[2]
    uuid = node(vcenter, machine)
    volumes = await asyncio.gather(*(backend.create_volume(request()) for _ in range(61)))
    results = await asyncio.gather(
        *(backend.attach(each.id, uuid, False) for each in volumes), return_exceptions=True
    )
    failed = [each for each in results if isinstance(each, BaseException)]
    assert all(isinstance(each, errors.Exhausted) for each in failed)
    disks = vcenter.disks_of(path(machine))
    slots = [(each["controllerKey"], each["unitNumber"]) for each in disks]
    assert len(slots) == len(set(slots)) == 61 - len(failed) + 1  # and the VM's own disk
    assert all(unit != 7 for _, unit in slots)
    devices = vcenter.json("device.info", "-vm", path(machine))["devices"]
    kinds = {each["type"] for each in devices}
    assert "ParaVirtualSCSIController" in kinds
    assert {each["backing"]["diskMode"] for each in disks} >= {"independent_persistent"}
    assert len(failed) in (1, 2)
    await asyncio.gather(*(backend.detach(each.id, uuid) for each in volumes))
    assert vcenter.attached(path(machine)) == []
    await asyncio.gather(*(backend.delete_volume(each.id) for each in volumes))


async def test_a_node_says_how_many_volumes_its_vm_can_have(
    backend: VsphereBackend, vcenter: VCenter, tmp_path: Path
) -> None:
    """Free slots and the volumes there are; what is not a volume and has a slot does not count."""
    machine = NODES[1]
    tmp_path.joinpath(node_side.NOTE).write_text(node(vcenter, machine))
    settings = vcenter.settings(folder=FOLDER)
    side = node_side.node_side({"main": settings}, tmp_path)
    alone = (await side.describe()).max_volumes
    # The VM's own disk hangs on the one controller it has: 15 there and 64 or 15 on three more.
    controllers = [each for each in vcenter.devices_of(path(machine)) if "busNumber" in each]
    scsi = [each for each in controllers if "scsiCtlrUnitNumber" in each]
    own = len(vcenter.disks_of(path(machine)))
    hardware = vcenter.json("vm.info", path(machine))["virtualMachines"][0]["config"]["version"]
    wide = 64 if int(hardware.removeprefix("vmx-")) >= 14 else 15
    full = sum(wide if each["type"] == "ParaVirtualSCSIController" else 15 for each in scsi)
    assert alone == full + (4 - len(scsi)) * wide - own
    made = await backend.create_volume(request())
    await backend.attach(made.id, node(vcenter, machine), False)
    assert (await side.describe()).max_volumes == alone
    by_hand = ("-vm", path(machine), "-name", f"{machine}/second.vmdk", "-size", "1G")
    vcenter.govc("vm.disk.create", "-ds", "LocalDS_0", *by_hand)
    assert (await side.describe()).max_volumes == alone - 1
    await backend.detach(made.id, node(vcenter, machine))
    await backend.delete_volume(made.id)
    nowhere = node_side.node_side({"main": {**settings, "port": 1}}, tmp_path)
    assert (await nowhere.describe()).max_volumes == node_side.MAX_VOLUMES


async def test_detaching_what_is_gone_is_a_success(
    backend: VsphereBackend, vcenter: VCenter
) -> None:
    made = await backend.create_volume(request())
    uuid = node(vcenter)
    await backend.detach(made.id, "00000000-1111-2222-3333-444444444444")
    await backend.detach("[LocalDS_0] kubevols/never-there.vmdk", uuid)
    await backend.detach("no such volume", uuid)
    with pytest.raises(errors.NotFound, match="no VM"):
        await backend.attach(made.id, "00000000-1111-2222-3333-444444444444", False)
    with pytest.raises(errors.NotFound):
        await backend.attach("[LocalDS_0] kubevols/never-there.vmdk", uuid, False)
    await backend.delete_volume(made.id)


@pytest.mark.parametrize("disk", ["vmdk", "fcd"])
async def test_a_volume_grows_and_never_shrinks(
    backend: VsphereBackend, vcenter: VCenter, disk: str
) -> None:
    made = await backend.create_volume(request(disk=disk))
    assert (await backend.expand(made.id, 2 * GIB)).size == 2 * GIB
    assert (await backend.get_volume(made.id)).size == 2 * GIB
    assert (await backend.expand(made.id, GIB)).size == 2 * GIB
    uuid = node(vcenter)
    await backend.attach(made.id, uuid, False)
    assert (await backend.expand(made.id, 3 * GIB)).size == 3 * GIB
    if disk == "vmdk":
        held = vcenter.disks_of(path(NODES[0]))
        assert 3 << 20 in [each["capacityInKB"] for each in held]
    await backend.detach(made.id, uuid)
    await backend.delete_volume(made.id)


async def test_snapshots_and_clones_of_first_class_disks(
    backend: VsphereBackend, vcenter: VCenter
) -> None:
    parameters = {"disk": "fcd"}
    made = await backend.create_volume(request(disk="fcd"))
    other = await backend.create_volume(request(disk="fcd"))
    snapshot = await backend.create_snapshot("snapshot-one", made.id)
    assert await backend.create_snapshot("snapshot-one", made.id) == snapshot
    with pytest.raises(errors.AlreadyExists):
        await backend.create_snapshot("snapshot-one", other.id)
    uuid = made.id.split(":")[1].split("@")[0]
    assert len(vcenter.govc("disk.snapshot.ls", "-ds", "LocalDS_0", uuid).splitlines()) == 1
    assert (await backend.get_snapshot(snapshot.id)).source == made.id
    assert snapshot.id in [each.id for each in (await backend.list_snapshots()).snapshots]
    with pytest.raises(errors.Conflict, match="snapshots"):
        await backend.delete_volume(made.id)
    sources = (VolumeSource("snapshot", snapshot.id), VolumeSource("volume", made.id))
    for source in sources:
        copy = VolumeRequest(f"pvc-{next(_NUMBERS)}-copy", 2 * GIB, parameters, source=source)
        volume = await backend.create_volume(copy)
        assert await backend.create_volume(copy) == volume
        assert volume.size == 2 * GIB
        await backend.delete_volume(volume.id)
    await backend.delete_snapshot(snapshot.id)
    await backend.delete_snapshot(snapshot.id)
    await backend.delete_volume(made.id)
    await backend.delete_volume(other.id)
    with pytest.raises(errors.Unsupported, match="First Class"):
        await backend.create_snapshot("x", "[LocalDS_0] kubevols/x.vmdk")


async def test_a_plain_disk_is_copied_unless_a_running_vm_has_it(
    backend: VsphereBackend, vcenter: VCenter
) -> None:
    made = await backend.create_volume(request())
    copy = VolumeRequest(
        f"pvc-{next(_NUMBERS)}-copy", 2 * GIB, {}, source=VolumeSource("volume", made.id)
    )
    uuid = node(vcenter)
    await backend.attach(made.id, uuid, False)
    with pytest.raises(errors.Conflict, match="runs"):
        await backend.create_volume(copy)
    await backend.detach(made.id, uuid)
    volume = await backend.create_volume(copy)
    assert (await backend.get_volume(volume.id)).size == 2 * GIB
    assert await backend.create_volume(copy) == volume
    await backend.delete_volume(volume.id)
    await backend.delete_volume(made.id)


async def test_listing_pages_and_shows_what_there_is(backend: VsphereBackend) -> None:
    made = [
        await backend.create_volume(request(disk=disk)) for disk in ("vmdk", "fcd", "vmdk", "fcd")
    ]
    whole = (await backend.list_volumes()).volumes
    assert {each.id for each in made} <= {each.id for each in whole}
    paged: list[str] = []
    token = ""
    while True:
        page = await backend.list_volumes(token, 3)
        paged += [each.id for each in page.volumes]
        token = page.next_token
        if not token:
            break
    assert paged == [each.id for each in whole]
    for each in made:
        await backend.delete_volume(each.id)


async def test_the_power_state_decides_whether_a_node_can_write(
    backend: VsphereBackend, vcenter: VCenter
) -> None:
    uuid = node(vcenter, NODES[1])
    assert (await backend.node_state(uuid)).power == "running"
    vcenter.govc("vm.power", "-off", path(NODES[1]))
    try:
        assert (await backend.node_state(uuid)).power == "stopped"
    finally:
        vcenter.govc("vm.power", "-on", path(NODES[1]))
    gone = await backend.node_state("00000000-1111-2222-3333-444444444444")
    assert gone.power == "gone"


async def test_a_lost_session_is_opened_again(backend: VsphereBackend, vcenter: VCenter) -> None:
    made = await backend.create_volume(request())
    link = backend.gateway.link()
    lines = vcenter.govc("session.ls").splitlines()
    mine = [line.split()[0] for line in lines if "pyvmomi" in line]
    assert mine, lines
    before = link.session.generation
    for key in mine:
        vcenter.govc("session.rm", key)
    # A read tells of the loss in its answer, a change by a fault.
    assert (await backend.get_volume(made.id)).size == GIB
    assert link.session.generation == before + 1
    link.session.close()
    await backend.delete_volume(made.id)
    assert await backend.find_volume(request()) is None


async def test_certificates_are_checked_by_ca_or_thumbprint(
    vcenter: VCenter, tmp_path: Path
) -> None:
    pem = vcenter.certificate.read_text()
    sha1 = hashlib.sha1(ssl.PEM_cert_to_DER_cert(pem), usedforsecurity=False).hexdigest()
    sha256 = hashlib.sha256(ssl.PEM_cert_to_DER_cert(pem)).hexdigest()
    plain = vcenter.settings(ca_file="")
    colons = ":".join(sha1.upper()[at : at + 2] for at in range(0, 40, 2))
    cases: dict[str, tuple[dict[str, object], str]] = {
        "a CA": ({"ca_file": str(vcenter.certificate)}, ""),
        "SHA-1": ({"thumbprint": colons}, ""),
        "SHA-256": ({"thumbprint": sha256}, ""),
        "insecure": ({"insecure": True}, ""),
        "nothing": ({}, "not trusted"),
        "another's": ({"thumbprint": "00" * 20}, "thumbprint"),
    }
    for name, (more, refused) in cases.items():
        backend = VsphereBackend({"tls": {**plain, **more}}, tmp_path / "tls")
        try:
            if refused:
                with pytest.raises(errors.Unavailable, match=refused):
                    await backend.list_volumes()
            else:
                assert (await backend.list_volumes()).next_token == "", name
        finally:
            await backend.close()


async def test_a_rotated_password_is_read_at_the_next_login(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.mkdir()
    (secret / "127.0.0.1.username").write_text(USER)
    (secret / "127.0.0.1.password").write_text("wrong")
    vcenter = VCenter(tmp_path / "vcenter")
    settings = vcenter.settings(secret_dir=str(secret))
    del settings["user"], settings["password"]
    backend = VsphereBackend({"main": settings}, tmp_path / "own")
    try:
        with pytest.raises(errors.Unauthorized) as caught:
            await backend.list_volumes()
        assert "wrong" not in str(caught.value)
        (secret / "127.0.0.1.password").write_text(vcenter.password + "\n")
        assert (await backend.list_volumes()).volumes == []
    finally:
        await backend.close()
        vcenter.stop()


async def test_a_class_may_bring_its_own_user(vcenter: VCenter, tmp_path: Path) -> None:
    settings = vcenter.settings(folder=FOLDER)
    del settings["user"], settings["password"]
    backend = VsphereBackend({"main": settings}, tmp_path / "own")
    try:
        with pytest.raises(errors.Unauthorized, match="no user"):
            await backend.create_volume(request())
        own = {"127.0.0.1.username": USER, "127.0.0.1.password": vcenter.password}
        wanted = VolumeRequest(f"pvc-{next(_NUMBERS)}-own", GIB, {}, secrets=own)
        made = await backend.create_volume(wanted)
        assert (await backend.get_volume(made.id, secrets=own)).size == GIB
        await backend.delete_volume(made.id, secrets=own)
    finally:
        await backend.close()


async def test_a_second_vcenter_and_datacenter_are_reached_by_id(
    vcenter: VCenter, tmp_path: Path
) -> None:
    second = VCenter(tmp_path / "second", "-dc", "2")
    backend = VsphereBackend(
        {
            "main": vcenter.settings(folder=FOLDER),
            "other": second.settings(datacenter="DC1"),
        },
        tmp_path / "own",
    )
    try:
        made = await backend.create_volume(request(vCenter=second.address))
        assert made.id.startswith(f"{second.address}/DC1/[LocalDS_0] kubevols/")
        assert file_of(made) in second.files("LocalDS_0", "kubevols", "DC1")
        assert (await backend.get_volume(made.id)).size == GIB
        vcenter.govc("vm.change", "-vm", path(NODES[0]), "-uuid", FIRST_UUID)
        with pytest.raises(errors.Conflict, match="vCenter"):
            await backend.attach(made.id, node(vcenter), False)
        there = SECOND_UUID
        second.govc("vm.change", "-vm", "/DC1/vm/DC1_H0_VM0", "-uuid", there)
        await backend.attach(made.id, there, False)
        assert len(second.attached("/DC1/vm/DC1_H0_VM0")) == 1
        await backend.detach(made.id, there)
        await backend.delete_volume(made.id)
        assert file_of(made) not in second.files("LocalDS_0", "kubevols", "DC1")
    finally:
        await backend.close()
        second.stop()


async def test_an_older_api_version_is_spoken(tmp_path: Path) -> None:
    old = VCenter(tmp_path / "old", "-api-version", "6.5")
    backend = VsphereBackend({"main": old.settings()}, tmp_path / "own")
    try:
        made = await backend.create_volume(request())
        uuid = old.uuid_of("/DC0/vm/DC0_H0_VM0")
        await backend.attach(made.id, uuid, False)
        await backend.detach(made.id, uuid)
        assert (await backend.expand(made.id, 2 * GIB)).size == 2 * GIB
        await backend.delete_volume(made.id)
        findings = await backend.checks()
        assert [each.severity for each in findings if "version" in each.check] == ["warning"]
    finally:
        await backend.close()
        old.stop()


async def test_nodes_outside_any_zone_get_no_labels(
    backend: VsphereBackend, vcenter: VCenter
) -> None:
    assert await backend.node_labels(node(vcenter)) == {}
    assert await discovery.wanted(backend.gateway) == []
