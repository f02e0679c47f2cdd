"""csi-sanity against GlusterFS volumes of a real cluster."""

from __future__ import annotations

import pytest

import drivers
import sanity

from .conftest import Site

pytestmark = [pytest.mark.e2e, pytest.mark.root, pytest.mark.timeout(900)]


def test_the_gluster_driver_passes(clean: Site) -> None:
    with (
        drivers.short_directory() as directory,
        drivers.Driver(directory, "gluster.holdfast.dev") as driver,
    ):
        data = directory / "data"
        data.mkdir(exist_ok=True)
        # Some calls of csi-sanity name no class, so the service is configured. Bricks are image
        # files here, and only LVM copies bricks: the driver is told, and does not offer clones.
        section = f'[gluster.main]\nresturl = "{clean.heketi.url}"\nclones = false\n'
        (data / "holdfast.toml").write_text(section)
        driver.start()
        configuration = sanity.Configuration(
            driver.socket,
            parameters={"volumetype": "none"},
        )
        result = sanity.run(configuration, directory)
        assert result.failed == {}, result.report()
        assert len(result.passed) >= 49
        assert drivers.mounted_below(directory) == []
    assert clean.volumes() == []
