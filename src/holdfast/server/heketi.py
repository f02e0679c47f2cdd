"""Composition of `holdfast heketi`: settings to a database, an executor, the service and its face.

The database is opened first and closed last; operations that an earlier life left are resumed as
soon as requests are answered. Cancelling `serve` stops it.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import signal
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from holdfast.heketi import auth, http, serving
from holdfast.heketi.database import Database
from holdfast.heketi.entries import GIB
from holdfast.heketi.executors.kubernetes import KubernetesTransport, KubeSettings
from holdfast.heketi.executors.loop import LoopLayout
from holdfast.heketi.executors.lvm import LvmLayout, Tuning
from holdfast.heketi.executors.mock import MockExecutor
from holdfast.heketi.executors.namespaces import NamespaceTransport
from holdfast.heketi.executors.nodes import NodeExecutor
from holdfast.heketi.executors.protocol import Executor, Layout, Transport
from holdfast.heketi.executors.ssh import SshSettings, SshTransport
from holdfast.heketi.service import Service
from holdfast.heketi.settings import ExecutorSettings, Settings, SettingsError, truth
from holdfast.heketi.state import State
from holdfast.server import address, config

log = logging.getLogger("holdfast.heketi")
# Where a pod finds its own service account.
_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")


async def serve(settings: Settings, ready: Callable[[int], None]) -> None:
    """Run until cancelled; `ready` gets the port when requests are answered.

    Raises `SettingsError`, `DatabaseError` and OSError, each a sentence that says what to do.
    """
    gate = auth.Gate(settings.keys) if settings.keys is not None else None
    database = Database(settings.database)
    try:
        service = Service(settings, State(database), executor_of(settings.executor))
    except BaseException:
        database.close()
        raise
    # The entries are here to stay: looking for garbage among them only takes time.
    gc.collect()
    gc.freeze()
    await run(service, gate, ready)


async def run(service: Service, gate: auth.Gate | None, ready: Callable[[int], None]) -> None:
    """Serve a service until cancelled, then close it; see `serve`."""
    try:
        await _serve(service, http.App(service, gate), ready)
    finally:
        await service.close()


async def _serve(service: Service, app: http.App, ready: Callable[[int], None]) -> None:
    settings = service.settings
    sock = address.bind(config.Listen(settings.host, settings.port, fallback=False))
    started = asyncio.Event()
    loop = asyncio.get_running_loop()

    def normal() -> None:
        service.admin_state = "normal"

    loop.add_signal_handler(signal.SIGUSR2, normal)
    try:
        async with asyncio.TaskGroup() as group:
            group.create_task(
                serving.serve(
                    app, sock, certificate=settings.certificate, key=settings.key, started=started
                )
            )
            await started.wait()
            group.create_task(service.run())
            ready(sock.getsockname()[1])
    finally:
        loop.remove_signal_handler(signal.SIGUSR2)


def executor_of(settings: ExecutorSettings) -> Executor:
    """The executor that the settings describe. Raises `SettingsError`."""
    if settings.kind == "mock":
        return MockExecutor(settings.device_size_gib or 500)
    transport = transport_of(settings)
    return NodeExecutor(transport, layout_of(settings, transport), settings.timeout)


def layout_of(settings: ExecutorSettings, transport: Transport) -> Layout:
    """What is made of disks."""
    if settings.layout == "loop":
        size = settings.device_size_gib
        return LoopLayout(transport, settings.mounting, size * GIB if size else None)
    values = settings.values
    stripe = None
    if values.get("xfs_su") and values.get("xfs_sw"):
        stripe = int(values["xfs_su"]), int(values["xfs_sw"])
    tuning = Tuning(
        alignment=str(values.get("pv_data_alignment") or "256K"),
        extent=str(values.get("vg_physicalextentsize") or "4M"),
        chunk=str(values.get("lv_chunksize") or "256K"),
        stripe=stripe,
        wrapper=tuple(str(values.get("lvm_wrapper") or "").split()),
    )
    return LvmLayout(transport, settings.mounting, tuning)


def transport_of(settings: ExecutorSettings) -> Transport:
    """How nodes are reached."""
    values = settings.values
    if settings.kind == "namespaces":
        inits = values.get("inits") or {}
        if not inits:
            raise SettingsError("nsexec.inits must name, by host, the file with its init's pid")
        return NamespaceTransport({host: Path(path) for host, path in inits.items()})
    if settings.kind == "ssh":
        if not values.get("keyfile"):
            raise SettingsError("sshexec.keyfile (or HEKETI_SSH_KEYFILE) must name a private key")
        known = values.get("known_hosts")
        return SshTransport(
            SshSettings(
                keyfile=Path(values["keyfile"]),
                user=str(values.get("user") or "heketi"),
                port=int(values.get("port") or 22),
                sudo=truth(values.get("sudo", False)),
                known_hosts=Path(known) if known else None,
            )
        )
    return KubernetesTransport(_kube_settings(values))


def _kube_settings(values: Mapping[str, Any]) -> KubeSettings:
    token_file = Path(values.get("token_file") or _ACCOUNT / "token")
    try:
        token = token_file.read_text().strip()
    except OSError as error:
        raise SettingsError(
            f"{token_file} cannot be read ({error.strerror}): run in a pod with a service account, "
            "or name kubeexec.token_file"
        ) from error
    authority = Path(values.get("authority") or _ACCOUNT / "ca.crt")
    return KubeSettings(
        url=str(values.get("url") or "https://kubernetes.default.svc"),
        token=token,
        authority=authority if authority.exists() else None,
        namespace=str(values.get("namespace") or _own_namespace()),
        daemonset=truth(values.get("gluster_daemonset", False)),
        pod_names=truth(values.get("use_pod_names", False)),
        connections=int(values.get("max_connections") or 64),
    )


def _own_namespace() -> str:
    try:
        return (_ACCOUNT / "namespace").read_text().strip()
    except OSError:
        return "default"
