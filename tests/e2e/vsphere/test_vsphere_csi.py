"""csi-sanity against the vSphere backend with a simulated vCenter; loop devices are the disks.

The machine of the test plays one VM: what vCenter hangs into it appears as a device, by the
guest's stand-in of the stories.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

import drivers
import sanity
from servers.vsphere.guest import Guest
from servers.vsphere.vcenter import USER, VCenter

pytestmark = [pytest.mark.e2e, pytest.mark.root, pytest.mark.timeout(600)]

DRIVER = "csi.vsphere.vmware.com"
MACHINE = "/DC0/vm/DC0_C0_RP0_VM0"


@pytest.fixture
def directory() -> Iterator[Path]:
    with drivers.short_directory() as path:
        yield path


@pytest.mark.parametrize("disk", ["fcd"])
def test_controller_and_node_pass(directory: Path, tmp_path: Path, disk: str) -> None:
    vcenter = VCenter(tmp_path / "vcenter")
    guest = Guest(vcenter, MACHINE, tmp_path / "guest")
    data = directory / "data"
    data.mkdir()
    password = vcenter.password.replace("\\", "\\\\").replace('"', '\\"')
    (data / "holdfast.toml").write_text(
        f"""
[vsphere.sanity]
server = "127.0.0.1"
port = {vcenter.port}
user = "{USER}"
password = "{password}"
ca_file = "{vcenter.certificate}"
datacenter = "DC0"
device_dir = "{guest.links}"
"""
    )
    for note in (
        data / "nodes" / drivers.NODE / "backends" / "vsphere",
        data / "csi" / "backends" / "vsphere",
        data / "csi" / DRIVER / "backends" / "vsphere",
    ):
        note.mkdir(parents=True)
        (note / "vm-uuid").write_text(vcenter.uuid_of(MACHINE))
    try:
        with drivers.Driver(directory, DRIVER) as driver:
            driver.start()
            result = sanity.run(
                sanity.Configuration(driver.socket, parameters={"disk": disk}), directory
            )
            assert result.failed == {}, result.report()
            assert len(result.passed) >= 71, result.skipped
            assert driver.stop() == 0
        assert vcenter.attached(MACHINE) == []
        assert "kubernetes-dynamic" not in vcenter.govc("disk.ls", "-ds", "LocalDS_0")
    finally:
        guest.close()
        vcenter.stop()
