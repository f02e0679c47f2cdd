"""Carries commands into the pods that run glusterd, as `kubectl exec` does.

The pod of a node is the one labelled `glusterfs-node=<manage host>`, or with a DaemonSet the pod
labelled `glusterfs` on the node of that name. Commands go through the API's websocket with the
protocol `v5.channel.k8s.io` (or v4); the last channel carries the exit code.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlencode, urlsplit

import msgspec
from websockets.asyncio.client import connect
from websockets.exceptions import WebSocketException
from websockets.typing import Subprotocol

from holdfast.api import errors as api_errors
from holdfast.api import kinds
from holdfast.heketi import errors
from holdfast.heketi.executors import turns
from holdfast.heketi.executors.protocol import Output
from holdfast.kit import locks
from holdfast.runtime import http

_PROTOCOLS = [Subprotocol("v5.channel.k8s.io"), Subprotocol("v4.channel.k8s.io")]
_STDOUT, _STDERR, _STATUS = 1, 2, 3


@dataclass(frozen=True, slots=True)
class KubeSettings:
    """The API and where the pods are."""

    url: str
    token: str = field(repr=False)
    authority: Path | None = None
    namespace: str = "default"
    daemonset: bool = False
    pod_names: bool = False
    connections: int = 64


class KubernetesTransport:
    """See `protocol.Transport`."""

    def __init__(self, settings: KubeSettings) -> None:
        self._settings = settings
        self._tls: ssl.SSLContext | None = None
        if settings.url.startswith("https:"):
            self._tls = ssl.create_default_context(cafile=settings.authority)
        self._client = http.HttpClient(settings.url, token=settings.token, ca=self._tls)
        self._locks = locks.KeyedLocks()
        self._free = asyncio.Semaphore(settings.connections)

    async def run(
        self, host: str, argv: Sequence[str], *, timeout: float = 600.0, check: bool = True
    ) -> Output:
        """See the protocol."""
        async with self._locks.hold(host), self._free:
            try:
                pod, container = await self._pod(host)
                async with asyncio.timeout(timeout):
                    done = await self._exec(pod, container, turns.taken(argv))
            except TimeoutError as error:
                text = f"no answer within {timeout:g} s"
                raise errors.Unreachable(host, argv[0], text) from error
            except (OSError, WebSocketException, api_errors.StatusError) as error:
                raise errors.Unreachable(host, f"exec of {argv[0]}", str(error)) from error
        turns.judge(host, argv, done, check)
        return done

    async def _pod(self, host: str) -> tuple[str, str]:
        """Name and first container of the pod that runs glusterd for a host."""
        settings = self._settings
        if settings.pod_names:
            pods = [await self._client.get(kinds.POD, host, settings.namespace)]
        else:
            labels = "glusterfs-node" if settings.daemonset else f"glusterfs-node={host}"
            listing = await self._client.list(kinds.POD, settings.namespace, labels=labels)
            pods = list(listing.items)
            if settings.daemonset:
                pods = [pod for pod in pods if pod["spec"].get("nodeName") == host]
        if len(pods) != 1:
            what = "no pod" if not pods else f"{len(pods)} pods"
            raise errors.Unreachable(
                host, "exec", f"{what} of GlusterFS in namespace {settings.namespace} for this host"
            )
        return pods[0]["metadata"]["name"], pods[0]["spec"]["containers"][0]["name"]

    async def _exec(self, pod: str, container: str, argv: Sequence[str]) -> Output:
        settings = self._settings
        query = [("container", container), ("stdout", "true"), ("stderr", "true")]
        query += [("command", word) for word in argv]
        path = http.path_of(kinds.POD, settings.namespace, pod, "exec")
        parts = urlsplit(settings.url)
        scheme = "wss" if parts.scheme == "https" else "ws"
        address = f"{scheme}://{parts.netloc}{path}?{urlencode(query)}"
        said: dict[int, bytearray] = {_STDOUT: bytearray(), _STDERR: bytearray()}
        status = bytearray()
        async with connect(
            address,
            ssl=self._tls,
            subprotocols=_PROTOCOLS,
            additional_headers={"Authorization": f"Bearer {settings.token}"},
            max_size=None,
            proxy=None,
        ) as socket:
            async for frame in socket:
                data = frame.encode() if isinstance(frame, str) else frame
                if data[:1] == bytes([_STATUS]):
                    status += data[1:]
                elif data and data[0] in said:
                    said[data[0]] += data[1:]
        out, err = (said[channel].decode(errors="replace") for channel in (_STDOUT, _STDERR))
        return Output(_code(bytes(status)), out, err)

    async def close(self) -> None:
        """See the protocol."""
        await self._client.aclose()


def _code(status: bytes) -> int:
    """The exit code in the Status object that ends an exec."""
    try:
        found: Any = msgspec.json.decode(status)
    except msgspec.DecodeError as error:
        raise OSError("the connection ended before the command did") from error
    if found.get("status") == "Success":
        return 0
    for cause in (found.get("details") or {}).get("causes") or []:
        if cause.get("reason") == "ExitCode":
            return int(cause.get("message") or 1)
    raise OSError(found.get("message") or "the command was not run")
