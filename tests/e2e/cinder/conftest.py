"""One real cloud for all tests of this directory, and servers in it."""

from __future__ import annotations

import subprocess
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest

from holdfast.backends import mountinfo
from holdfast.backends.cinder.backend import CinderBackend
from servers.openstack import catalog, cloud, guests

# openstacksdk's resources, which the tests use, warn of how openstacksdk itself uses them.
_OWN_WARNINGS = pytest.mark.filterwarnings("ignore::openstack.warnings._RemovedInSDKWarning")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Let openstacksdk warn of itself in the tests of this directory."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(_OWN_WARNINGS)


@pytest.fixture(scope="session")
def openstack_cloud(tmp_path_factory: pytest.TempPathFactory) -> Iterator[cloud.Cloud]:
    """Keystone, Cinder, Placement and Nova, with volume types and a roomy quota."""
    made = cloud.Cloud(tmp_path_factory.mktemp("openstack"))
    try:
        made.start()
        catalog.make_types(made.ports)
        catalog.set_quota(made.ports, volumes=200, gigabytes=1000, snapshots=50)
        yield made
    finally:
        made.stop()


@pytest.fixture(scope="session")
def servers(openstack_cloud: cloud.Cloud) -> Iterator[guests.Guests]:
    """Boots servers by name, and deletes them at the end."""
    with catalog.connected(openstack_cloud.ports) as admin:
        made = guests.Guests(openstack_cloud, admin)
        yield made
        made.delete_all()


@pytest.fixture
async def new_backend(
    openstack_cloud: cloud.Cloud, tmp_path: Path
) -> AsyncIterator[Callable[..., CinderBackend]]:
    """A function that opens backends as the plain member; they are closed at the end."""
    opened: list[CinderBackend] = []

    def open_backend(**keys: object) -> CinderBackend:
        instance = keys or {"cloud_conf": str(openstack_cloud.cloud_conf)}
        opened.append(CinderBackend({"default": instance}, tmp_path))
        return opened[-1]

    yield open_backend
    for each in opened:
        await each.close()


@pytest.fixture
def backend(new_backend: Callable[..., CinderBackend]) -> CinderBackend:
    """The backend as a plain member of the project."""
    return new_backend()


@pytest.fixture
def admin_backend(
    new_backend: Callable[..., CinderBackend], openstack_cloud: cloud.Cloud
) -> CinderBackend:
    """The backend with an administrator's login in the same project, who sees compute hosts."""
    conf = openstack_cloud.directory / "admin-cloud.conf"
    catalog.write_admin_conf(openstack_cloud.ports, conf)
    return new_backend(cloud_conf=str(conf))


@pytest.fixture
def places(tmp_path: Path) -> Iterator[Path]:
    """A directory to mount in; what a failed test left mounted there is unmounted."""
    yield tmp_path
    for mount in reversed(mountinfo.beneath(tmp_path)):
        subprocess.run(["umount", "--lazy", mount.point], check=False)
