"""One HTTP request as the API reads it: method, target, query, headers, body.

A path of the API has one of four forms, with `/api/v1` or `/apis/GROUP/VERSION` in front:
`PLURAL`, `PLURAL/NAME[/SUB]`, `namespaces/NS/PLURAL`, `namespaces/NS/PLURAL/NAME[/SUB]`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, NamedTuple
from urllib.parse import parse_qsl

from holdfast.api import errors, kinds
from holdfast.api.kinds import Kind
from holdfast.apiserver import auth

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

# The limit of Kubernetes' API server for one request.
BODY_LIMIT = 3 * 1024 * 1024
_SERVED = frozenset((kind.group, kind.version) for kind in kinds.SERVED)


class Target(NamedTuple):
    """What a path names; `namespace` is None for all namespaces and cluster-scoped kinds."""

    kind: Kind
    namespace: str | None
    name: str | None
    subresource: str | None


class Request:
    """The request; the body is read at most once."""

    __slots__ = (
        "_headers",
        "_receive",
        "method",
        "path",
        "query",
        "receive",
        "scope",
        "user",
        "warnings",
    )

    def __init__(self, scope: Scope, receive: Receive) -> None:
        self.scope = scope
        self.receive = receive
        self.method: str = scope["method"]
        self.path: str = scope["path"]
        query = scope["query_string"]
        self.query: dict[str, str] = (
            dict(parse_qsl(query.decode("latin-1"), keep_blank_values=True)) if query else {}
        )
        self._headers: dict[bytes, bytes] | None = None
        # Until somebody has looked at the token.
        self.user = auth.ANONYMOUS
        self.warnings: list[str] = []
        """What the answer is to warn of, also when it is a refusal."""

    def header(self, name: bytes) -> str:
        """A header by its lower-case name; "" when it is missing."""
        if self._headers is None:
            self._headers = dict(self.scope["headers"])
        return self._headers.get(name, b"").decode("latin-1")

    def flag(self, name: str) -> bool:
        """A boolean query parameter; present without a value counts as true."""
        value = self.query.get(name)
        return value is not None and value.lower() not in ("0", "false", "f")

    async def body(self) -> bytes:
        """The whole body; raises `RequestTooLarge`."""
        parts: list[bytes] = []
        size = 0
        while True:
            message = await self.receive()
            if message["type"] == "http.disconnect":
                raise ConnectionResetError("the client went away while sending its request")
            part = message.get("body", b"")
            size += len(part)
            if size > BODY_LIMIT:
                raise errors.RequestTooLarge.of(BODY_LIMIT)
            parts.append(part)
            if not message.get("more_body"):
                return b"".join(parts)


def target_of(path: str) -> Target | None:
    """What the path names; None for a path that is not of the resource API.

    Raises `NotFound` for a resource that is not served. The server has decoded the path already.
    """
    parts = path.strip("/").split("/")
    if parts[:2] == ["api", "v1"]:
        group, version, rest = "", "v1", parts[2:]
    elif parts[0] == "apis" and len(parts) > 3:
        group, version, rest = parts[1], parts[2], parts[3:]
    else:
        return None
    if not rest or (group, version) not in _SERVED:
        return None
    namespace = None
    if rest[0] == "namespaces" and len(rest) > 2 and not _of_namespace(rest):
        namespace, rest = rest[1], rest[2:]
    kind = kinds.find(group, version, rest[0])
    if kind is None or len(rest) > 3 or (namespace is not None and not kind.namespaced):
        raise errors.NotFound.resource()
    name = rest[1] if len(rest) > 1 else None
    subresource = rest[2] if len(rest) > 2 else None
    if name is not None and kind.namespaced and namespace is None:
        raise errors.NotFound.resource()
    return Target(kind, namespace, name, subresource)


def _of_namespace(rest: list[str]) -> bool:
    """Whether the path goes on with a subresource of the namespace itself."""
    return len(rest) == 3 and rest[2] in kinds.NAMESPACE.subresources
