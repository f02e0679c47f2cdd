"""A real API server in the test's own process: store on disk, HTTP on a unix socket.

It is to Holdfast what envtest is to Kubernetes: the code under test talks to the same server
that runs in production, only smaller. `client` goes in-process, `http` over the socket; both are
`runtime.client.Client`, and a test that passes with one must pass with the other.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from holdfast.api import kinds
from holdfast.apiserver import auth, serving
from holdfast.apiserver.http import Api
from holdfast.apiserver.inprocess import InProcessClient
from holdfast.apiserver.metrics import Metrics
from holdfast.apiserver.options import WriteOptions
from holdfast.apiserver.resources import Resources
from holdfast.runtime.http import HttpClient
from holdfast.store.log import Store

TOKEN = "test-token"
VIEW_TOKEN = "view-token"
NODE_TOKEN = "node-token"  # of the node `node-1`
USERS = {
    TOKEN: auth.User("kubernetes-admin", groups=(auth.MASTERS,)),
    VIEW_TOKEN: auth.User("holdfast:view", "holdfast:view", (auth.READERS,)),
    NODE_TOKEN: auth.User("system:node:node-1", "system:node:node-1", (auth.NODES,)),
}
NAMESPACES = ("default", "kube-system", "kube-public", "kube-node-lease")


@dataclass(frozen=True, slots=True)
class ApiServer:
    """What a test gets; `socket` is where HTTP listens, with `TOKEN` as the bearer token."""

    store: Store
    resources: Resources
    client: InProcessClient
    http: HttpClient
    socket: Path


@asynccontextmanager
async def api_server(directory: Path) -> AsyncIterator[ApiServer]:
    """Run a server whose state is in `directory`; a second run there continues the first."""
    store = Store.open(directory / "state.db")
    resources = Resources(store)
    socket = directory / "api.sock"
    socket.unlink(missing_ok=True)
    for name in NAMESPACES:
        if store.get(kinds.NAMESPACE.bucket, name) is None:
            body = {"metadata": {"name": name}}
            await resources.create(kinds.NAMESPACE, body, None, WriteOptions())
    api = Api(resources, auth.Authenticator(USERS), Metrics(store))
    started = asyncio.Event()
    try:
        async with asyncio.TaskGroup() as group:
            server = group.create_task(
                serving.serve(api, serving.listen_unix(socket), started=started)
            )
            await started.wait()
            # A context without authorities: reading the system's takes longer than most tests.
            tls = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            async with HttpClient("http://holdfast", token=TOKEN, socket=socket, ca=tls) as http:
                yield ApiServer(store, resources, InProcessClient(resources), http, socket)
            server.cancel()
    finally:
        await store.close()
