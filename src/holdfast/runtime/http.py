"""`client.Client` over HTTP: a URL or a unix socket, TLS, a bearer token, kept connections.

Used against a real cluster, by the command line and by tests. A watch is a line-by-line stream;
an ERROR line in it becomes the same exception a failed request raises.
"""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx2
import msgspec

from holdfast.api import errors
from holdfast.api.kinds import Kind
from holdfast.runtime.client import Listing, Object

MERGE_PATCH = "application/merge-patch+json"
_decode = msgspec.json.decode
_encode = msgspec.json.encode


def path_of(
    kind: Kind,
    namespace: str | None = None,
    name: str | None = None,
    subresource: str | None = None,
) -> str:
    """The URL path of a collection, an object or a subresource."""
    parts = ["/api/v1" if not kind.group else f"/apis/{kind.group}/{kind.version}"]
    if namespace and kind.namespaced:
        parts += ["namespaces", namespace]
    parts.append(kind.plural)
    parts += [part for part in (name, subresource) if part]
    return "/".join(parts)


def _query(**values: str | int | None) -> dict[str, str | int]:
    return {key: value for key, value in values.items() if value not in (None, "")}


class HttpClient:
    """See `client.Client`. Close it with `aclose`, or use it as an async context manager."""

    def __init__(
        self,
        url: str,
        *,
        token: str | None = None,
        ca: ssl.SSLContext | None = None,
        socket: Path | None = None,
        timeout: float = 30.0,
    ) -> None:
        transport = httpx2.AsyncHTTPTransport(
            verify=ca if ca is not None else True, uds=str(socket) if socket else None
        )
        headers = {"Accept": "application/json", "User-Agent": "holdfast"}
        if token:
            headers["Authorization"] = f"Bearer {token}"
        self._http = httpx2.AsyncClient(
            base_url=url, headers=headers, transport=transport, timeout=timeout, trust_env=False
        )

    async def __aenter__(self) -> HttpClient:
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Close the kept connections."""
        await self._http.aclose()

    async def request(
        self,
        method: str,
        path: str,
        *,
        body: object = None,
        content_type: str = "application/json",
        query: dict[str, str | int] | None = None,
    ) -> Any:
        """One request; the decoded answer, or the `StatusError` it carries."""
        content = None if body is None else _encode(body)
        try:
            response = await self._http.request(
                method, path, content=content, params=query, headers={"Content-Type": content_type}
            )
        except httpx2.HTTPError as error:
            raise OSError(f"{method} {path}: {error or type(error).__name__}") from error
        _raise_for_status(response.status_code, response.content)
        return _decode(response.content)

    async def get(self, kind: Kind, name: str, namespace: str | None = None) -> Object:
        """See `Client.get`."""
        return await self.request("GET", path_of(kind, namespace, name))  # type: ignore[no-any-return]

    async def list(
        self, kind: Kind, namespace: str | None = None, *, labels: str = "", fields: str = ""
    ) -> Listing:
        """See `Client.list`."""
        query = _query(labelSelector=labels, fieldSelector=fields)
        answer = await self.request("GET", path_of(kind, namespace), query=query)
        head = {"apiVersion": kind.api_version, "kind": kind.name}
        items = [{**head, **item} for item in answer.get("items") or []]
        return Listing(items, answer["metadata"]["resourceVersion"])

    async def create(
        self,
        kind: Kind,
        obj: Object,
        namespace: str | None = None,
        *,
        subresource: str | None = None,
        name: str | None = None,
    ) -> Object:
        """See `Client.create`."""
        namespace = namespace or obj.get("metadata", {}).get("namespace")
        path = path_of(kind, namespace, name, subresource)
        return await self.request("POST", path, body=obj)  # type: ignore[no-any-return]

    async def replace(self, kind: Kind, obj: Object, *, subresource: str | None = None) -> Object:
        """See `Client.replace`."""
        meta = obj["metadata"]
        path = path_of(kind, meta.get("namespace"), meta["name"], subresource)
        return await self.request("PUT", path, body=obj)  # type: ignore[no-any-return]

    async def patch(
        self,
        kind: Kind,
        name: str,
        patch: Object,
        namespace: str | None = None,
        *,
        subresource: str | None = None,
    ) -> Object:
        """See `Client.patch`."""
        path = path_of(kind, namespace, name, subresource)
        return await self.request("PATCH", path, body=patch, content_type=MERGE_PATCH)  # type: ignore[no-any-return]

    async def delete(
        self,
        kind: Kind,
        name: str,
        namespace: str | None = None,
        *,
        uid: str | None = None,
        grace: int | None = None,
    ) -> Object:
        """See `Client.delete`."""
        options: Object = {"apiVersion": "v1", "kind": "DeleteOptions"}
        if uid:
            options["preconditions"] = {"uid": uid}
        if grace is not None:
            options["gracePeriodSeconds"] = grace
        return await self.request("DELETE", path_of(kind, namespace, name), body=options)  # type: ignore[no-any-return]

    async def watch(
        self, kind: Kind, namespace: str | None = None, *, revision: str
    ) -> AsyncIterator[tuple[str, Object]]:
        """See `Client.watch`."""
        query = {"watch": "1", "resourceVersion": revision, "allowWatchBookmarks": "true"}
        timeout = httpx2.Timeout(30.0, read=None)
        try:
            async with self._http.stream(
                "GET", path_of(kind, namespace), params=query, timeout=timeout
            ) as response:
                if response.status_code >= 400:
                    _raise_for_status(response.status_code, await response.aread())
                async for line in response.aiter_lines():
                    event = _decode(line.encode())
                    if event["type"] == "ERROR":
                        raise errors.StatusError.from_status(event["object"])
                    yield event["type"], event["object"]
        except httpx2.HTTPError as error:
            raise OSError(f"watch of {kind.plural}: {error or type(error).__name__}") from error


def _raise_for_status(code: int, content: bytes) -> None:
    if code < 400:
        return
    try:
        status = _decode(content)
    except msgspec.DecodeError:
        status = None
    if not isinstance(status, dict) or status.get("kind") != "Status":
        text = content[:200].decode(errors="replace").strip()
        status = {"code": code, "reason": "", "message": text or f"HTTP {code}"}
    raise errors.StatusError.from_status(status)
