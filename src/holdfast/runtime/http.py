"""`client.Client` over HTTP: a URL or a unix socket, TLS, a bearer token, kept connections.

Used against a real cluster, by the command line and by tests. A watch is a line-by-line stream;
an ERROR line in it becomes the same exception a failed request raises. A server that cannot be
reached, or that answers something that is not the API, is an `OSError` that names the server.

The invariant: the token goes into a request header and nowhere else, no text of an error
included.
"""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx2
import msgspec

from holdfast.api import errors
from holdfast.api.kinds import Kind
from holdfast.runtime.client import Listing, Object

MERGE_PATCH = "application/merge-patch+json"
_decode = msgspec.json.decode
_encode = msgspec.json.encode
# Servers send a bookmark about every minute: a watch without one for so long is dead.
_SILENCE = 300.0


def path_of(
    kind: Kind,
    namespace: str | None = None,
    name: str | None = None,
    subresource: str | None = None,
) -> str:
    """The URL path of a collection, an object or a subresource.

    Raises `NotFound` for an empty name, which would address the whole collection.
    """
    if name == "":
        raise errors.NotFound.of(kind.group, kind.plural, name)
    parts = ["/api/v1" if not kind.group else f"/apis/{kind.group}/{kind.version}"]
    if namespace and kind.namespaced:
        parts += ["namespaces", quote(namespace, safe="")]
    parts.append(kind.plural)
    parts += [quote(part, safe="") for part in (name, subresource) if part]
    return "/".join(parts)


def _query(**values: str | int | None) -> dict[str, str | int]:
    return {key: value for key, value in values.items() if value not in (None, "")}


class HttpClient:
    """See `client.Client`. Close it with `aclose`, or use it as an async context manager.

    `token` is asked before each request when it is a function: tokens may be renewed.
    Raises `ValueError` for a token that cannot be sent in a header.
    """

    def __init__(
        self,
        url: str,
        *,
        token: str | Callable[[], str] | None = None,
        ca: ssl.SSLContext | None = None,
        socket: Path | None = None,
        timeout: float = 30.0,
    ) -> None:
        transport = httpx2.AsyncHTTPTransport(
            verify=ca if ca is not None else True, uds=str(socket) if socket else None
        )
        headers = {"Accept": "application/json", "User-Agent": "holdfast"}
        hooks: dict[str, list[Callable[..., Any]]] = {}
        if callable(token):
            hooks["request"] = [_signing(token)]
        elif token:
            headers["Authorization"] = f"Bearer {_sendable(token)}"
        self._server = _server(url, socket)
        self._http = httpx2.AsyncClient(
            base_url=url,
            headers=headers,
            transport=transport,
            timeout=timeout,
            trust_env=False,
            event_hooks=hooks,
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
            raise self._unreachable(method, path, error) from error
        _raise_for_status(response.status_code, response.content)
        return self._read(response.content)

    def _unreachable(self, method: str, path: str, error: httpx2.HTTPError) -> OSError:
        why = str(error) or type(error).__name__
        return OSError(
            f"{method} {path} at {self._server}: {why}; check that the server runs there"
        )

    def _read(self, content: bytes) -> Any:
        try:
            return _decode(content)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise OSError(
                f"{self._server} answered something that is not JSON ({error}); "
                "check that it is a Kubernetes API"
            ) from error

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
        if subresource is None:
            # Built-in kinds follow from the path; a custom resource has to say what it is.
            obj = {"apiVersion": kind.api_version, "kind": kind.name, **obj}
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
        propagation: str | None = None,
    ) -> Object:
        """See `Client.delete`."""
        options: Object = {"apiVersion": "v1", "kind": "DeleteOptions"}
        if uid:
            options["preconditions"] = {"uid": uid}
        if grace is not None:
            options["gracePeriodSeconds"] = grace
        if propagation is not None:
            options["propagationPolicy"] = propagation
        return await self.request("DELETE", path_of(kind, namespace, name), body=options)  # type: ignore[no-any-return]

    async def watch(
        self, kind: Kind, namespace: str | None = None, *, revision: str
    ) -> AsyncIterator[tuple[str, Object]]:
        """See `Client.watch`."""
        query = {"watch": "1", "resourceVersion": revision, "allowWatchBookmarks": "true"}
        path = path_of(kind, namespace)
        timeout = httpx2.Timeout(30.0, read=_SILENCE)
        try:
            async with self._http.stream("GET", path, params=query, timeout=timeout) as response:
                if response.status_code >= 400:
                    _raise_for_status(response.status_code, await response.aread())
                async for line in _lines(response):
                    event = self._read(line)
                    if event["type"] == "ERROR":
                        raise errors.StatusError.from_status(event["object"])
                    yield event["type"], event["object"]
        except httpx2.HTTPError as error:
            raise self._unreachable("watch", path, error) from error


async def _lines(response: httpx2.Response) -> AsyncIterator[bytes]:
    """The lines of a stream. Only \\n ends one: JSON may have Unicode's other breaks in it."""
    rest = b""
    async for chunk in response.aiter_bytes():
        *lines, rest = (rest + chunk).split(b"\n")
        for line in lines:
            if line:
                yield line


def _signing(token: Callable[[], str]) -> Callable[[httpx2.Request], Awaitable[None]]:
    async def sign(request: httpx2.Request) -> None:
        request.headers["Authorization"] = f"Bearer {_sendable(token())}"

    return sign


def _sendable(token: str) -> str:
    token = token.strip()
    # The library's own complaint would quote the token.
    if not token.isascii() or not token.isprintable() or " " in token:
        raise ValueError("the bearer token has characters in it that no HTTP header may have")
    return token


def _server(url: str, socket: Path | None) -> str:
    if socket is not None:
        return f"unix socket {socket}"
    parts = httpx2.URL(url)
    return f"{parts.scheme}://{parts.netloc.decode('ascii')}"


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
