"""The API as a client sees it: one request, and the answer with its headers.

`Wire.call` talks to the server of `holdfast.testing.apiserver` over its unix socket; nothing of
Holdfast's own client is in between, so a test sees exactly the bytes that any client would see.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import httpx2

from holdfast.testing.apiserver import TOKEN, ApiServer

CORE = "/api/v1"
STORAGE = "/apis/storage.k8s.io/v1"
VOLUMES = f"{CORE}/persistentvolumes"
CLAIMS = f"{CORE}/namespaces/default/persistentvolumeclaims"
CLASSES = f"{STORAGE}/storageclasses"
CONFIG_MAPS = f"{CORE}/namespaces/default/configmaps"
NAMESPACES = f"{CORE}/namespaces"
PODS = f"{CORE}/namespaces/default/pods"

JSON_PATCH = "application/json-patch+json"
MERGE_PATCH = "application/merge-patch+json"
STRATEGIC_PATCH = "application/strategic-merge-patch+json"
TABLE = "application/json;as=Table;v=v1;g=meta.k8s.io"

Object = dict[str, Any]


@dataclass(frozen=True)
class Reply:
    """One answer."""

    code: int
    content: bytes
    headers: httpx2.Headers

    @property
    def body(self) -> Any:
        """The decoded JSON."""
        return json.loads(self.content)

    @property
    def message(self) -> str:
        """The message of the Status."""
        text: str = self.body["message"]
        return text

    @property
    def reason(self) -> str:
        """The reason of the Status; empty when it has none."""
        text: str = self.body.get("reason", "")
        return text

    @property
    def causes(self) -> list[tuple[str, str, str]]:
        """The Status's causes as (field, reason, message)."""
        found = (self.body.get("details") or {}).get("causes") or []
        return [(c.get("field", ""), c.get("reason", ""), c.get("message", "")) for c in found]

    @property
    def warnings(self) -> list[str]:
        """The Warning headers, as sent."""
        return self.headers.get_list("warning")


class Wire:
    """A connection to the server."""

    def __init__(self, server: ApiServer, http: httpx2.AsyncClient) -> None:
        self.server = server
        self._http = http

    async def call(
        self,
        method: str,
        path: str,
        body: object = None,
        *,
        type: str = "application/json",
        accept: str = "application/json",
        token: str | None = TOKEN,
        headers: dict[str, str] | None = None,
        **query: Any,
    ) -> Reply:
        """Send a request; a body that is not bytes is encoded as JSON."""
        sent = {"Accept": accept, **(headers or {})}
        if body is not None:
            sent["Content-Type"] = type
        if token is not None:
            sent["Authorization"] = f"Bearer {token}"
        content = body if isinstance(body, bytes | None) else json.dumps(body).encode()
        answer = await self._http.request(
            method, path, content=content, headers=sent, params=query or None
        )
        return Reply(answer.status_code, answer.content, answer.headers)

    async def make(self, path: str, body: Object) -> Any:
        """Create an object and return it as stored."""
        reply = await self.call("POST", path, body)
        assert reply.code == 201, reply.content
        return reply.body

    async def read(self, path: str, **query: Any) -> Any:
        """Return what a GET answers, which has to be a success."""
        reply = await self.call("GET", path, **query)
        assert reply.code == 200, reply.content
        return reply.body

    async def patch(self, path: str, body: object, type: str = MERGE_PATCH, **query: Any) -> Reply:
        """Send a patch."""
        return await self.call("PATCH", path, body, type=type, **query)

    @asynccontextmanager
    async def watch(
        self, path: str, *, accept: str = "application/json", **query: Any
    ) -> AsyncIterator[Stream]:
        """Watch a collection; the server has begun to watch when the block is entered."""
        headers = {"Accept": accept, "Authorization": f"Bearer {TOKEN}"}
        async with self._http.stream(
            "GET", path, headers=headers, params={"watch": "1", **query}
        ) as answer:
            yield Stream(answer)


class Stream:
    """The events of one watch."""

    def __init__(self, answer: httpx2.Response) -> None:
        self.code = answer.status_code
        self._answer = answer
        self._lines = answer.aiter_lines()

    async def next(self, seconds: float = 5.0) -> tuple[str, Any]:
        """Return the next event as (type, object)."""
        async with asyncio.timeout(seconds):
            event = json.loads(await anext(self._lines))
        return event["type"], event["object"]

    async def rest(self, seconds: float = 5.0) -> list[tuple[str, Any]]:
        """Return all events up to the end of the stream, which has to come."""
        async with asyncio.timeout(seconds):
            events = [json.loads(line) async for line in self._lines]
        return [(event["type"], event["object"]) for event in events]

    async def status(self) -> Any:
        """Return the body of an answer that is not a stream."""
        return json.loads(await self._answer.aread())


def meta(name: str, **rest: Any) -> Object:
    """Return the metadata of an object to make."""
    return {"name": name, **rest}


def config_map(name: str, data: dict[str, str] | None = None, **metadata: Any) -> Object:
    """Return a ConfigMap: the plainest object there is."""
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": meta(name, **metadata),
        "data": data or {"key": "value"},
    }


def claim(name: str, storage: str = "1Gi", **spec: Any) -> Object:
    """Return a claim for a single writer."""
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": meta(name),
        "spec": {
            "accessModes": ["ReadWriteOnce"],
            "resources": {"requests": {"storage": storage}},
            **spec,
        },
    }


def volume(name: str, storage: str = "1Gi", **spec: Any) -> Object:
    """Return a volume on a path of the host."""
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolume",
        "metadata": meta(name),
        "spec": {
            "capacity": {"storage": storage},
            "accessModes": ["ReadWriteOnce"],
            "hostPath": {"path": f"/data/{name}"},
            **spec,
        },
    }


def storage_class(name: str, **rest: Any) -> Object:
    """Return a class of volumes nobody provisions."""
    return {
        "apiVersion": "storage.k8s.io/v1",
        "kind": "StorageClass",
        "metadata": meta(name, **rest.pop("metadata", {})),
        "provisioner": "example.com/none",
        **rest,
    }


def pod(name: str, **spec: Any) -> Object:
    """Return a pod of one container."""
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": meta(name),
        "spec": {"containers": [{"name": "main", "image": "busybox"}], **spec},
    }
