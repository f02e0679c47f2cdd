"""A simulated vCenter for each module here, a proxy that makes it fail, and a backend behind that.

A module says in `OPTIONS` what the simulator is started with, and in `SETTINGS` what its backend
is told besides. One that needs others has fixtures of its own under these names.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from holdfast.backends.vsphere.backend import VsphereBackend
from servers.vsphere.faultproxy import FaultProxy
from servers.vsphere.vcenter import VCenter


@pytest.fixture(scope="module")
def vcenter(
    tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest
) -> Iterator[VCenter]:
    """The vCenter; tests use volume names of their own."""
    options = getattr(request.module, "OPTIONS", ("-ds", "2"))
    found = VCenter(tmp_path_factory.mktemp("hf-vcenter"), *options)
    yield found
    found.stop()


@pytest.fixture
def proxy(vcenter: VCenter) -> Iterator[FaultProxy]:
    """The way to the vCenter, on which calls can be made to fail."""
    made = FaultProxy(vcenter.port, vcenter.certificate, vcenter.directory / "vcenter.key")
    yield made
    made.stop()


@pytest.fixture
async def backend(
    vcenter: VCenter, proxy: FaultProxy, tmp_path: Path, request: pytest.FixtureRequest
) -> AsyncIterator[VsphereBackend]:
    """A backend that asks by the proxy."""
    more = getattr(request.module, "SETTINGS", {})
    settings = vcenter.settings(port=proxy.port, default_datastore="LocalDS_0", **more)
    made = VsphereBackend({"main": settings}, tmp_path / "own")
    yield made
    await made.close()
