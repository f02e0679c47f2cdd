"""Running one `holdfast up`: open, start, serve, stop, in an order that loses nothing.

The store is opened first and closed last. The API answers before the controllers start, and on
the way out the controllers stop before the store is closed, so every acknowledged write is on
disk. Cancelling `serve` is the way to stop it.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable

import holdfast
from holdfast.apiserver import auth, serving
from holdfast.apiserver.http import Api
from holdfast.apiserver.metrics import Metrics
from holdfast.apiserver.resources import Resources
from holdfast.kit import clock
from holdfast.server import address, assemble, bootstrap, config, control, kubeconfig, pki, rundir
from holdfast.store import errors as store_errors
from holdfast.store.log import Store

log = logging.getLogger("holdfast.server")

STORE_FILE = "state.db"
# Kubernetes' own rhythm: history is kept for five to ten minutes.
_COMPACTION_SECONDS = 300.0


async def serve(settings: config.Config, ready: Callable[[rundir.RunInfo], None]) -> None:
    """Run until cancelled; `ready` is called once, when the API answers.

    Raises the start-up errors of its parts (`StoreError`, `AddressError`, `PkiError`), each a
    sentence that says what, where and what to do.
    """
    store = Store.open(settings.data_dir / STORE_FILE)
    try:
        await _serve(settings, store, ready)
    finally:
        await store.close()


async def _serve(
    settings: config.Config, store: Store, ready: Callable[[rundir.RunInfo], None]
) -> None:
    sock = address.bind(settings.listen)
    url = address.url_of(sock)
    nodes = assemble.node_names(settings)
    keys = pki.ensure(settings.data_dir / "pki", [settings.listen.host], nodes)
    access = kubeconfig.Access(url, keys.authority, keys.admin.token)
    kubeconfig.write(kubeconfig.path_in(settings.data_dir), access)
    if not address.is_loopback(sock):
        log.warning("the API is reachable from other machines", extra={"url": url})
    resources = Resources(store, toleration_seconds=settings.nodes.toleration_seconds)
    await bootstrap.prepare(resources)
    users = {t.token: auth.User(t.user, t.uid, t.groups) for t in keys.tokens}
    plane = assemble.control_plane(settings, resources)
    api = Api(resources, auth.Authenticator(users), Metrics(store), plane.runners)
    started = asyncio.Event()
    try:
        async with asyncio.TaskGroup() as group:
            group.create_task(
                serving.serve(
                    api, sock, certificate=keys.server_cert, key=keys.server_key, started=started
                )
            )
            await started.wait()
            group.create_task(plane.informers.run())
            for component in plane.components:
                group.create_task(_running(component))
            group.create_task(control.serve(settings.data_dir, plane.machines))
            group.create_task(_compact(store))
            ready(_info(settings, url))
    finally:
        await plane.close()


async def _running(component: assemble.Run) -> None:
    await component()


def _info(settings: config.Config, url: str) -> rundir.RunInfo:
    return rundir.RunInfo(
        pid=os.getpid(),
        url=url,
        started=clock.rfc3339(clock.now()),
        node=settings.node_name,
        version=holdfast.__version__,
    )


async def _compact(store: Store) -> None:
    """Drop superseded revisions that are older than one round."""
    mark = store.revision
    while True:
        await asyncio.sleep(_COMPACTION_SECONDS)
        try:
            dropped = await store.compact(mark)
        except store_errors.StoreError as error:
            # Nothing is lost by keeping history longer; the disk may have room next time.
            log.warning("compaction failed, trying again later", extra={"error": str(error)})
            continue
        mark = store.revision
        if dropped:
            log.debug("compacted", extra={"rows": dropped, "revision": mark})
