"""Everything under the API that is not a resource: discovery, OpenAPI, version, health, metrics.

The documents are built at first use, so starting the server does not pay for them, and carry an
ETag, so that kubectl fetches them once.
"""

from __future__ import annotations

from holdfast.api import errors
from holdfast.apiserver import discovery, etags, openapi, openapi_v2
from holdfast.apiserver.answers import Answer
from holdfast.apiserver.metrics import CONTENT_TYPE, Metrics
from holdfast.apiserver.requests import Request
from holdfast.store.log import Store

_TEXT = b"text/plain; charset=utf-8"
_ROOT = (
    b'{"paths":["/api","/api/v1","/apis","/healthz","/livez","/metrics","/openapi/v2",'
    b'"/openapi/v3","/readyz","/version"]}'
)
_HEALTH = ("healthz", "livez", "readyz")


class Pages:
    """Answers by path."""

    def __init__(self, store: Store, metrics: Metrics) -> None:
        self._store = store
        self._metrics = metrics

    def answer(self, request: Request) -> Answer:
        """The page; raises `MethodNotAllowed`, or answers 404 in plain text as Kubernetes does."""
        parts = request.path.strip("/").split("/")
        found = self._find(request, parts)
        if found is None:
            return Answer(b"404 page not found\n", 404, _TEXT)
        if request.method not in ("GET", "HEAD"):
            raise errors.MethodNotAllowed()
        return found

    def _find(self, request: Request, parts: list[str]) -> Answer | None:
        root = parts[0]
        if root in _HEALTH:
            return self._health(request, root)
        if root == "version" and len(parts) == 1:
            return _cached(request, discovery.version())
        if root == "metrics" and len(parts) == 1:
            return Answer(self._metrics.render(), 200, CONTENT_TYPE.encode())
        if root == "api" or root == "apis":
            return _discovery(request, parts)
        if root == "openapi":
            return _openapi(request, parts[1:])
        if parts == [""]:
            return Answer(_ROOT)
        return None

    def _health(self, request: Request, name: str) -> Answer:
        if "verbose" in request.query:
            store = f"[+]store ok (revision {self._store.revision})"
            return Answer(f"[+]ping ok\n{store}\n{name} check passed\n".encode(), 200, _TEXT)
        return Answer(b"ok", 200, _TEXT)


def _cached(request: Request, answer: discovery.Answer) -> Answer:
    content_type, body = answer
    if etags.matches(request.header(b"if-none-match"), body):
        return Answer(b"", 304, content_type.encode())
    headers = ((b"etag", etags.of(body).encode()), (b"vary", b"Accept"))
    return Answer(body, 200, content_type.encode(), headers=headers)


def _discovery(request: Request, parts: list[str]) -> Answer | None:
    answer: discovery.Answer | None
    if len(parts) == 1:
        form = discovery.negotiate(request.header(b"accept"))
        answer = discovery.api(form) if parts[0] == "api" else discovery.apis(form)
    elif parts[0] == "api":
        answer = discovery.resources("", parts[1]) if len(parts) == 2 else None
    elif len(parts) == 2:
        answer = discovery.group(parts[1])
    else:
        answer = discovery.resources(parts[1], parts[2]) if len(parts) == 3 else None
    return None if answer is None else _cached(request, answer)


def _openapi(request: Request, parts: list[str]) -> Answer | None:
    if parts == ["v2"]:
        if openapi_v2.ACCEPTED_TYPE in request.header(b"accept"):
            return _cached(request, (openapi_v2.PROTOBUF_TYPE, openapi_v2.document_protobuf()))
        return _cached(request, (openapi_v2.JSON_TYPE, openapi_v2.document_json()))
    if parts == ["v3"]:
        return _cached(request, ("application/json", openapi.index()))
    if parts[:1] != ["v3"]:
        return None
    group, version = ("", parts[2]) if parts[1:2] == ["api"] and len(parts) == 3 else ("", "")
    if parts[1:2] == ["apis"] and len(parts) == 4:
        group, version = parts[2], parts[3]
    body = openapi.document(group, version) if version else None
    return None if body is None else _cached(request, ("application/json", body))
