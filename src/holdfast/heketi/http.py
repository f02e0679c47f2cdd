"""The REST service as an ASGI application: who asks, may they, which endpoint, what is sent.

Checks come in Heketi's order: token, role, admin mode, then the path - so an unknown path without a
token is 401, not 404. `/hello` and `/metrics` stand outside. Errors are a line of text.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any
from urllib.parse import parse_qsl

from holdfast.heketi import answers, auth, errors, metrics
from holdfast.heketi.answers import Answer, Asked
from holdfast.heketi.database import DatabaseError
from holdfast.heketi.endpoints import routes
from holdfast.heketi.service import Service

log = logging.getLogger("holdfast.heketi")
Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
_BODY_LIMIT = 64 * 1024 * 1024
_SLASHES = re.compile("//+")
_LOCAL = ("127.0.0.1", "::1")


class App:
    """The ASGI application."""

    def __init__(self, service: Service, gate: auth.Gate | None) -> None:
        self._service = service
        self._gate = gate

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            return
        try:
            answer = await self._answer(scope, receive)
        except errors.Refused as error:
            answer = answers.refused(error.status, error.text)
        except (errors.ExecutionFailed, DatabaseError) as error:
            answer = answers.refused(500, str(error))
        except ConnectionResetError:
            return
        except Exception as error:
            log.exception("request failed", extra={"path": scope["path"]})
            answer = answers.refused(500, f"{type(error).__name__}: see the server's log")
        await _send(send, answer, scope["method"] == "HEAD")

    async def _answer(self, scope: Scope, receive: Receive) -> Answer:
        method = scope["method"]
        # A server named with a slash at its end is asked for //volumes, and signs that.
        path = _SLASHES.sub("/", scope["path"])
        if path == "/hello":
            return Answer(200, b"Hello from Heketi", "text/plain; charset=UTF-8")
        if path == "/metrics":
            return Answer(200, metrics.text(self._service).encode(), metrics.CONTENT_TYPE)
        role = self._role(scope, method, path)
        self._check_mode(scope, method)
        found = self._route(method, path)
        if isinstance(found, Answer):
            return found
        endpoint, words = found
        asked = Asked(method, path, await _body(receive), role, _query(scope))
        return await endpoint(self._service, asked, *words)

    def _role(self, scope: Scope, method: str, path: str) -> str:
        if self._gate is None:
            return "admin"
        header = dict(scope["headers"]).get(b"authorization", b"").decode("latin-1")
        role = self._gate.role(header, method, scope["path"])
        auth.check_role(role, method, path)
        return role

    def _check_mode(self, scope: Scope, method: str) -> None:
        mode = self._service.admin_state
        if mode == "normal" or method in ("GET", "HEAD"):
            return
        local = (scope.get("client") or ("",))[0] in _LOCAL
        if mode == "read-only" or not local:
            raise errors.Refused("Service disabled for maintenance", 503)

    def _route(self, method: str, path: str) -> tuple[routes.Endpoint, tuple[str, ...]] | Answer:
        wanted = "GET" if method == "HEAD" else method
        found, words, known = routes.find(wanted, path)
        if found is not None:
            return found, words
        if known:
            return Answer(405)
        if path.endswith("/") and path != "/" and routes.find(wanted, path.rstrip("/"))[2]:
            return answers.elsewhere(path.rstrip("/"), 301)
        return answers.refused(404, "Invalid path or request")


def _query(scope: Scope) -> dict[str, str]:
    return dict(parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True))


async def _body(receive: Receive) -> bytes:
    parts: list[bytes] = []
    size = 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ConnectionResetError("the client went away while sending its request")
        part = message.get("body", b"")
        size += len(part)
        if size > _BODY_LIMIT:
            raise errors.Refused("request unable to be parsed", 413)
        parts.append(part)
        if not message.get("more_body"):
            return b"".join(parts)


async def _send(send: Send, answer: Answer, head: bool) -> None:
    headers = [(b"content-length", b"%d" % len(answer.body))]
    if answer.content_type:
        headers.append((b"content-type", answer.content_type.encode()))
    headers += [(key.lower().encode(), value.encode()) for key, value in answer.headers.items()]
    await send({"type": "http.response.start", "status": answer.status, "headers": headers})
    await send({"type": "http.response.body", "body": b"" if head else answer.body})
