"""csi-sanity against volumes of a real Cinder, attached through Nova: mounted, and as blocks."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

import drivers
import sanity
from servers.openstack import catalog
from servers.openstack.cloud import Cloud
from servers.openstack.guests import Guests

pytestmark = [pytest.mark.e2e, pytest.mark.root, pytest.mark.timeout(900)]

# Why a spec is skipped, by what csi-sanity says about it. A reason that is not here fails.
SKIPS = {
    "GroupControllerService not supported": "volumes are snapshotted one by one",
    "SNAPSHOT_ACCESSIBILITY_CONSTRAINTS not supported": "alpha; a snapshot lies beside its volume",
    "ControllerModifyVolume not supported": "no backend changes volumes by VolumeAttributesClass",
    "Modify volume not supported": "the same",
    "Modify Volume not supported": "the same",
    "ControllerListVolumeHealth not supported": "alpha; a disk's health is not known here",
    "ControllerGetVolumeHealth not supported": "the same",
    "NodeGetVolumeHealth not supported": "the same",
    "NodeGetStorageHealth not supported": "the same",
    "ControllerPublishVolume.readonly field not supported": "Nova attaches disks to be written",
    "testnodevolumeattachlimit not enabled": "Nova's own limit is smaller here, and tested apart",
    "pending": "switched off in csi-sanity itself",
}


@pytest.fixture
def directory() -> Iterator[Path]:
    """A directory whose path is short enough for sockets."""
    with drivers.short_directory() as path:
        yield path


@pytest.mark.parametrize("block", [False, True])
def test_cinder_passes(
    directory: Path, openstack_cloud: Cloud, servers: Guests, block: bool
) -> None:
    servers.boot("node-sanity")
    data = directory / "data"
    data.mkdir(mode=0o700)
    root = servers.root("node-sanity")
    (data / "holdfast.toml").write_text(
        f'[cinder.default]\ncloud_conf = "{openstack_cloud.cloud_conf}"\nroot = "{root}"\n'
    )
    with drivers.Driver(directory, "cinder.csi.openstack.org") as driver:
        driver.start()
        result = sanity.run(
            sanity.Configuration(
                driver.socket, parameters={"type": "file"}, block=block, seconds=800
            ),
            directory,
        )
        assert result.failed == {}, result.report()
        reasons = {text.removeprefix("skipped - ") for text in result.skipped.values()}
        assert reasons - set(SKIPS) == set()
        assert len(result.passed) >= 71
        assert drivers.mounted_below(directory) == []
        assert driver.stop() == 0
    with catalog.connected(openstack_cloud.ports, admin=False) as member:
        left = [v for v in member.block_storage.volumes() if "holdfast.dev/owner" in v.metadata]
        assert [each.name for each in left] == []
