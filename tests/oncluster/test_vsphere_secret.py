"""A `vsphere.conf` that leaves user and password in a Secret of the cluster."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from holdfast.api import kinds
from holdfast.runtime.http import HttpClient
from oncluster.place import Cluster
from oncluster.test_controller import controller, gone, make_claim, make_class, until, volume_of
from servers.vsphere.vcenter import USER, VCenter

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]
NAMESPACE = "kube-system"


@pytest.fixture(scope="module")
def vcenter(tmp_path_factory: pytest.TempPathFactory) -> Iterator[VCenter]:
    found = VCenter(tmp_path_factory.mktemp("hf-h8-secret"))
    yield found
    found.stop()


def configuration(vcenter: VCenter, directory: Path, secret: str) -> Path:
    conf = directory / "vsphere.conf"
    conf.write_text(
        f"""
[Global]
secret-name = "{secret}"
secret-namespace = "{NAMESPACE}"
port = "{vcenter.port}"
ca-file = "{vcenter.certificate}"
[VirtualCenter "127.0.0.1"]
datacenters = "DC0"
[Workspace]
server = "127.0.0.1"
datacenter = "DC0"
default-datastore = "LocalDS_0"
"""
    )
    return conf


async def test_a_claim_waits_for_the_secret_and_is_served_when_it_is_there(
    cluster: Cluster, client: HttpClient, vcenter: VCenter, tmp_path: Path
) -> None:
    secret = f"vcc-{'real' if cluster.real else 'embedded'}"
    conf = configuration(vcenter, tmp_path, secret)
    storage = {"vsphere": {"main": {"config": str(conf)}}}
    class_name = await make_class(client, "kubernetes.io/vsphere-volume")
    async with controller(cluster, tmp_path, storage=storage):
        claim = await make_claim(client, class_name)

        async def told() -> str:
            found = (await client.list(kinds.EVENT, "default")).items
            texts = [each["message"] for each in found if each["involvedObject"]["name"] == claim]
            return next((each for each in texts if f"{NAMESPACE}/{secret}" in each), "")

        assert "not found" in await until(told)
        body = {
            "metadata": {"name": secret},
            "stringData": {
                "127.0.0.1.username": USER,
                "127.0.0.1.password": vcenter.password,
            },
        }
        await client.create(kinds.SECRET, body, NAMESPACE)
        volume = await volume_of(client, claim, 60.0)
        handle = volume["spec"]["csi"]["volumeHandle"]
        assert handle.rpartition("/")[2] in vcenter.files("LocalDS_0", "kubevols")
        await client.delete(kinds.CLAIM, claim, "default")
        await until(lambda: gone(client, kinds.VOLUME, volume["metadata"]["name"]), 60.0)
        assert vcenter.files("LocalDS_0", "kubevols") == []
    await client.delete(kinds.SECRET, secret, NAMESPACE)
