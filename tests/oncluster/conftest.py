"""A cluster for `holdfast controller`: a real control plane, or the embedded one in its place.

Where `KUBEBUILDER_ASSETS` names Kubernetes' programs, each test runs against etcd, kube-apiserver
and kube-controller-manager. It always runs against the embedded API with the binder, the
protection and the attach/detach controller that stand for kube-controller-manager, none of which
knows a provisioner.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import ssl
import tempfile
import warnings
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import yaml

from holdfast.controllers import attaching, binding
from holdfast.controllers.protection import Protection
from holdfast.controllers.provisioners import Provisioners
from holdfast.controllers.reclaiming import Reclaimer
from holdfast.runtime.access import Access
from holdfast.runtime.http import HttpClient
from holdfast.runtime.informer import Informers
from holdfast.runtime.recorder import Recorder
from holdfast.testing.apiserver import TOKEN, api_server
from oncluster.place import Cluster
from oncluster.storage import MACHINE, NODE, Systems
from servers.ceph.cluster import Cluster as Ceph
from servers.ceph.pools import Pool
from servers.kubernetes.controlplane import ASSETS, ControlPlane
from servers.openstack import catalog
from servers.openstack.cloud import Cloud
from servers.openstack.guests import Guests
from servers.vsphere.guest import Guest
from servers.vsphere.vcenter import VCenter


def _kubeconfig(path: Path, url: str, token: str, authority: str) -> Path:
    named = {"name": "test"}
    path.touch(mode=0o600)
    document = {
        "clusters": [{**named, "cluster": {"server": url, "certificate-authority": authority}}],
        "users": [{**named, "user": {"token": token}}],
        "contexts": [{**named, "context": {"cluster": "test", "user": "test"}}],
        "current-context": "test",
    }
    path.write_text(yaml.safe_dump(document))
    return path


@pytest.fixture(scope="module", autouse=True)
def garbage() -> Iterator[None]:
    """Let go of sockets here that ended replicas left behind, not in a file that leaves none."""
    yield
    gc.collect()


@pytest.fixture(scope="session")
def real_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """One control plane of Kubernetes for all tests."""
    directory = tmp_path_factory.mktemp("kubernetes")
    plane = ControlPlane(Path(os.environ[ASSETS]), directory)
    try:
        plane.start()
        context = ssl.create_default_context(cadata=plane.authority)
        access = Access(plane.url, context, lambda: plane.token)
        file = directory / "certificates" / "apiserver.crt"
        yield Cluster(
            access, _kubeconfig(directory / "config", plane.url, plane.token, str(file)), True
        )
    finally:
        plane.stop()


@pytest.fixture(scope="session")
def pool(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pool]:
    """A pool of a running Ceph. Sockets' paths are short, so it is not below pytest's directory."""
    with tempfile.TemporaryDirectory(prefix="hf-ceph-", ignore_cleanup_errors=True) as home:
        ceph = Ceph(Path(home))
        try:
            key = ceph.start().make_pool("kube", "kube")
            key_file = tmp_path_factory.mktemp("ceph") / "key"
            key_file.touch(mode=0o600)
            key_file.write_text(key)
            yield Pool(ceph, "kube", "kube", key, key_file)
        finally:
            ceph.wipe()


@pytest.fixture(scope="session")
def systems(pool: Pool, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Systems]:
    """The pool, and a cloud with a server and a vCenter with a VM that this machine plays."""
    cloud = Cloud(tmp_path_factory.mktemp("openstack"))
    directory = tmp_path_factory.mktemp("vsphere")
    with contextlib.ExitStack() as stack:
        stack.callback(cloud.stop)
        cloud.start()
        vcenter = VCenter(directory / "vcenter")
        stack.callback(vcenter.stop)
        guest = Guest(vcenter, MACHINE, directory / "guest")
        stack.callback(guest.close)
        catalog.make_types(cloud.ports)
        catalog.set_quota(cloud.ports, volumes=50, gigabytes=200, snapshots=10)
        with catalog.connected(cloud.ports) as admin:
            guests = Guests(cloud, admin)
            guests.boot(NODE)
            yield Systems(pool, cloud, vcenter, guest)
            # The library warns of its own parts, and this may run behind another file's test.
            with warnings.catch_warnings(action="ignore"):
                guests.delete_all()


@pytest.fixture(params=["embedded", "kubernetes"])
async def cluster(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Cluster]:
    """A cluster whose volumes nobody provisions yet."""
    if request.param == "kubernetes":
        if ASSETS not in os.environ:
            pytest.skip(f"{ASSETS} names no programs of Kubernetes; tools/servers/kubernetes/build")
        yield request.getfixturevalue("real_cluster")
        return
    async with _embedded(tmp_path) as found:
        yield found


@asynccontextmanager
async def _embedded(directory: Path) -> AsyncIterator[Cluster]:
    root = directory / "embedded"
    root.mkdir()
    async with api_server(root) as server, asyncio.TaskGroup() as group:
        client, nobody = server.client, Provisioners({})
        informers = Informers(client)
        events = Recorder(client, "persistentvolume-controller")
        reclaimer = Reclaimer(client, informers, events, nobody)
        parts = (
            events.run,
            binding.Binder(client, informers, events, nobody, reclaimer).run,
            Protection(client, informers).run,
            attaching.AttachDetachController(client, informers, events).run,
        )
        tasks = [group.create_task(informers.run())]
        tasks += [group.create_task(part()) for part in parts]
        yield Cluster(_Socket(server.socket), root / "none", False)
        for task in tasks:
            task.cancel()


class _Socket(Access):
    """The embedded API, which listens on a unix socket."""

    def __init__(self, socket: Path) -> None:
        super().__init__(f"unix://{socket}", None, lambda: TOKEN)

    def client(self, timeout: float = 30.0) -> HttpClient:
        tls = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        socket = Path(self.url.removeprefix("unix://"))
        return HttpClient("http://holdfast", token=TOKEN, socket=socket, ca=tls, timeout=timeout)


@pytest.fixture
async def client(cluster: Cluster) -> AsyncIterator[HttpClient]:
    """The cluster's API as its user sees it."""
    async with cluster.access.client() as http:
        yield http
