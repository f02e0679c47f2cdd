"""csi-sanity, the conformance test of CSI drivers, against a real Ceph cluster."""

from __future__ import annotations

import pytest

import drivers
import sanity
from servers.ceph.pools import Pool

pytestmark = [pytest.mark.e2e, pytest.mark.root, pytest.mark.timeout(600)]

# Reasons why a spec may be skipped, as csi-sanity words them.
SKIPS = {
    "GroupControllerService not supported",
    "SNAPSHOT_ACCESSIBILITY_CONSTRAINTS not supported",
    "ControllerModifyVolume not supported",
    "Modify volume not supported",
    "Modify Volume not supported",
    "ControllerListVolumeHealth not supported",
    "ControllerGetVolumeHealth not supported",
    "NodeGetVolumeHealth not supported",
    "NodeGetStorageHealth not supported",
    "ControllerPublishVolume.readonly field not supported",
    "testnodevolumeattachlimit not enabled",
    "pending",
}
GIB = 1 << 30


@pytest.mark.parametrize("block", [False, True])
def test_the_rbd_backend_passes(pool: Pool, block: bool) -> None:
    pool.ceph.start(manager=True)
    with drivers.short_directory() as directory:
        (directory / "data").mkdir()
        (directory / "data" / "holdfast.toml").write_text(pool.settings)
        with drivers.Driver(directory, "rbd.holdfast.dev") as driver:
            driver.start()
            asked = sanity.Configuration(
                driver.socket,
                parameters={"clusterID": "main", "pool": pool.name},
                size=GIB,
                expanded_size=2 * GIB,
                block=block,
            )
            result = sanity.run(asked, directory)
            assert result.failed == {}, result.report()
            reasons = {text.removeprefix("skipped - ") for text in result.skipped.values()}
            assert reasons - SKIPS == set()
            assert len(result.passed) >= 71
            assert drivers.mounted_below(directory) == []
            assert driver.stop() == 0
    assert pool.images() == []
    assert pool.leftovers() == set()
