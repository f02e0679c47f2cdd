"""csi-sanity, the conformance test of CSI drivers, against the local backend."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

import drivers
import sanity

pytestmark = [pytest.mark.e2e, pytest.mark.root, pytest.mark.timeout(300)]

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
    "ControllerPublishVolume not supported": "a volume on a node's own disk is not attached",
    "ControllerUnpublishVolume not supported": "the same",
    "Controller Publish, UnpublishVolume not supported": "the same",
    "pending": "switched off in csi-sanity itself",
}


@pytest.fixture
def directory() -> Iterator[Path]:
    """A directory whose path is short enough for sockets."""
    with drivers.short_directory() as path:
        yield path


@pytest.mark.parametrize(
    ("layout", "block"), [("image", False), ("image", True), ("directory", False)]
)
def test_the_local_backend_passes(directory: Path, layout: str, block: bool) -> None:
    with drivers.Driver(directory) as driver:
        driver.start()
        result = sanity.run(
            sanity.Configuration(driver.socket, parameters={"layout": layout}, block=block),
            directory,
        )
        assert result.failed == {}, result.report()
        reasons = {text.removeprefix("skipped - ") for text in result.skipped.values()}
        assert reasons - set(SKIPS) == set()
        assert len(result.passed) >= 71
        volumes = directory / "data" / "csi" / drivers.LOCAL / "volumes"
        left = [path.name for path in volumes.iterdir() if path.name != ".snapshots"]
        assert left == []
        assert drivers.mounted_below(directory) == []
        assert driver.stop() == 0
