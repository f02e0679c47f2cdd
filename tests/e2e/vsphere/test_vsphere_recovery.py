"""A vCenter that begins anew, and a password that is changed while Holdfast runs."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

import pytest

from holdfast.backends import errors
from holdfast.backends.protocol import Finding, VolumeRequest
from holdfast.backends.secretrefs import SecretRef
from holdfast.backends.vsphere.backend import VsphereBackend
from holdfast.diagnosis.causes import vsphere
from servers.vsphere.vcenter import USER, VCenter

pytestmark = pytest.mark.e2e

GIB = 1 << 30
MACHINE = "/DC0/vm/DC0_C0_RP0_VM0"
# The passwords of the documents this follows, with all their odd letters.
T = TypeVar("T")
FIRST, SECOND = "AIUc63$#v4LZ", "k8S!@Vcp123"


@pytest.fixture
def vcenter(tmp_path: Path) -> Iterator[VCenter]:
    found = VCenter(tmp_path / "vcenter", "-ds", "2", password=FIRST)
    yield found
    found.stop()


class Api:
    """What a Kubernetes API has of Secrets, and how often it was asked."""

    def __init__(self) -> None:
        self.content: dict[str, str] | None = None
        self.asked: list[SecretRef] = []

    async def read(self, ref: SecretRef) -> Mapping[str, str]:
        self.asked.append(ref)
        if self.content is None:
            raise errors.NotFound("not found", f"secret {ref}", "kubectl create secret ...")
        return self.content


@pytest.fixture
def api() -> Api:
    return Api()


@pytest.fixture
async def backend(
    vcenter: VCenter, api: Api, tmp_path: Path, request: pytest.FixtureRequest
) -> AsyncIterator[VsphereBackend]:
    conf = tmp_path / "vsphere.conf"
    conf.write_text(
        f"""
[Global]
secret-name = "vcc"
secret-namespace = "kube-system"
port = "{vcenter.port}"
ca-file = "{vcenter.certificate}"
datacenters = "DC0"
[VirtualCenter "127.0.0.1"]
[Workspace]
server = "127.0.0.1"
datacenter = "DC0"
default-datastore = "LocalDS_0"
"""
    )
    tags = {"region_category": "k8s-region", "zone_category": "k8s-zone"} if request.param else {}
    made = VsphereBackend({"main": {"config": str(conf), **tags}}, tmp_path / "own")
    made.use_secrets(api.read)
    yield made
    await made.close()


async def answered(call: Callable[[], Awaitable[T]]) -> T:
    """Call once more after a lost connection: an order is never sent twice by itself."""
    try:
        return await call()
    except errors.Unavailable:
        return await call()


def secret(vcenter: VCenter) -> dict[str, str]:
    return {"127.0.0.1.username": USER, "127.0.0.1.password": vcenter.password}


@pytest.mark.parametrize("backend", [False], ids=["untagged"], indirect=True)
async def test_a_secret_of_the_api_is_read_at_each_login_and_its_change_counts(
    backend: VsphereBackend, vcenter: VCenter, api: Api
) -> None:
    wanted = VolumeRequest("pvc-secret", GIB)
    # Not NotFound: to delete something that is not found is a success.
    for call in (
        lambda: backend.create_volume(wanted),
        lambda: backend.delete_volume("[LocalDS_0] kubevols/kubernetes-dynamic-pvc-secret.vmdk"),
    ):
        with pytest.raises(errors.Unauthorized, match="kube-system/vcc") as caught:
            await call()
        assert "kubectl create secret" in caught.value.remedy
        advice = vsphere.remedy("vsphere", str(caught.value))
        assert advice is not None and advice.code == "login"
    api.content = {"username": USER}
    with pytest.raises(errors.Unauthorized, match=r'neither "127.0.0.1.username"'):
        await backend.create_volume(wanted)
    api.content = secret(vcenter)
    made = await backend.create_volume(wanted)
    logins = len(api.asked)
    await backend.delete_volume(made.id)
    assert len(api.asked) == logins, "a call that needs no login asked for the Secret"
    vcenter.restart(SECOND)
    with pytest.raises(errors.Unauthorized, match="InvalidLogin"):
        await answered(lambda: backend.create_volume(wanted))
    api.content = secret(vcenter)
    made = await backend.create_volume(wanted)
    node = vcenter.uuid_of(MACHINE)
    await backend.attach(made.id, node, False)
    assert len(vcenter.attached(MACHINE)) == 1
    await backend.detach(made.id, node)
    await backend.delete_volume(made.id)
    assert set(api.asked) == {SecretRef("kube-system", "vcc")}


async def test_a_file_with_user_and_password_is_used_word_for_word(
    vcenter: VCenter, tmp_path: Path
) -> None:
    vcenter.gather("kubernetes-cluster", [MACHINE])
    conf = tmp_path / "vsphere.conf"
    conf.write_text(
        CLOUD_PROVIDER.replace("PORT", str(vcenter.port))
        .replace("172.20.0.16", "127.0.0.1")
        .replace("Mcloud", "DC0")
        .replace("k8s@vsphere.local", USER)
        .replace(SECOND, FIRST)
    )
    backend = VsphereBackend({"main": {"config": str(conf)}}, tmp_path / "own")
    try:
        made = await backend.create_volume(VolumeRequest("pvc-b3754406", GIB))
        assert (await backend.get_volume(made.id)).size == GIB
        where = f"/DC0/vm/kubernetes-cluster/{MACHINE.rpartition('/')[2]}"
        node = vcenter.uuid_of(where)
        await backend.attach(made.id, node, False)
        assert vcenter.attached(where) == [made.id]
        assert {each["type"] for each in vcenter.devices_of(where)} >= {"ParaVirtualSCSIController"}
        assert not any(each.severity == "error" for each in of(await backend.checks(), "login"))
        await backend.detach(made.id, node)
        vcenter.restart(SECOND)
        conf.write_text(conf.read_text().replace(FIRST, SECOND))
        await answered(lambda: backend.create_volume(VolumeRequest("pvc-again", GIB)))
    finally:
        await backend.close()


def of(findings: Sequence[Finding], check: str) -> list[Finding]:
    found = [each for each in findings if each.check == f"vSphere {check}"]
    assert found
    return found


# As its guide writes it, with what differs here replaced by the test.
CLOUD_PROVIDER = """
# global settings
[Global]
# a production environment should have an account of its own
user = "k8s@vsphere.local"
password = "k8S!@Vcp123"
port = "PORT"
# "1" for a certificate signed by itself
insecure-flag = "1"\x20
datacenters = "Mcloud"

[VirtualCenter "172.20.0.16"]

[Workspace]
# mandatory
server = "172.20.0.16"
datacenter = "Mcloud"
folder = "kubernetes-cluster"
#default-datastore="vsanDatastore"
#resourcepool-path="kubernetes-cluster"

[Disk]
# lsilogic-sas or pvscsi, default: pvscsi
scsicontrollertype = pvscsi\x20

[Network]
#public-network = "VM Network"
"""


@pytest.mark.parametrize("backend", [True], ids=["tagged"], indirect=True)
async def test_classes_and_volumes_go_on_with_a_vcenter_that_began_anew(
    backend: VsphereBackend, vcenter: VCenter, api: Api
) -> None:
    api.content = secret(vcenter)

    def tag(*stores: str) -> None:
        for name in ("region", "zone"):
            vcenter.govc("tags.category.create", f"k8s-{name}")
            vcenter.govc("tags.create", "-c", f"k8s-{name}", f"{name}-1")
        vcenter.govc("tags.attach", "-c", "k8s-region", "region-1", "/DC0")
        for store in stores:
            vcenter.govc("tags.attach", "-c", "k8s-zone", "zone-1", f"/DC0/datastore/{store}")

    tag("LocalDS_0", "LocalDS_1")
    assert len(await backend.wanted_classes()) == 2
    kept = await backend.create_volume(VolumeRequest("pvc-before", GIB, {"disk": "fcd"}))
    await backend.attach(kept.id, vcenter.uuid_of(MACHINE), False)
    vcenter.stop()
    with pytest.raises(errors.Unavailable):
        await backend.wanted_classes()
    vcenter.restart()
    with pytest.raises(errors.BackendError) as caught:
        await backend.wanted_classes()
    assert "k8s-region" in str(caught.value)
    tag("LocalDS_1")
    (found,) = await backend.wanted_classes()
    assert "localds" in found.name.lower()
    made = await backend.create_volume(VolumeRequest("pvc-after", GIB, {"disk": "fcd"}))
    node = vcenter.uuid_of(MACHINE)
    await backend.attach(made.id, node, False)
    assert len(vcenter.attached(MACHINE)) == 1
    await backend.detach(made.id, node)
    await backend.delete_volume(made.id)
    await backend.detach(kept.id, node)
