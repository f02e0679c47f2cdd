"""GET requests to what pods listen on, as a kubelet makes them.

One request per connection, no proxy, certificates not looked at, at most 10 KiB of an answer
read. A redirect to the same host is followed, ten times at most; one to another host is the
answer itself, because following it would ask somebody who is not the pod.

The invariant: header names and values are checked before anything is sent, so that a pod's
spec can say what is in one request and not make two of it.
"""

from __future__ import annotations

import asyncio
import dataclasses
import re
from collections.abc import Iterable
from dataclasses import dataclass
from urllib.parse import quote, urljoin, urlsplit, urlunsplit

import httptools

from holdfast.controllers.nodeagent import connections
from holdfast.controllers.nodeagent.connections import ConnectionFailed
from holdfast.controllers.nodeagent.containerspecs import Container, HttpGetAction

VERSION = "1.32"
# Bytes: of a body that are read, and of headers that are too many.
MOST = 10 << 10
MOST_HEADERS = 10 << 20
REDIRECTS = 10
_FOLLOWED = (301, 302, 303, 307, 308)
_PORTS = {"http": 80, "https": 443}
_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_BAD_VALUE = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")
# What the request itself decides.
_OWN = ("Host", "Content-Length", "Transfer-Encoding", "Trailer", "Connection")
_SAFE = "/%:@!$&'()*+,;=~-._[]?"


class RequestFailed(Exception):
    """No answer came; the text names the URL and what went wrong."""


class AnswerBroken(Exception):
    """An answer began and did not end."""


@dataclass(frozen=True, slots=True)
class Request:
    """A GET request; `host` is the Host header where it is not the URL's."""

    url: str
    headers: tuple[tuple[str, str], ...] = ()
    host: str = ""

    @property
    def plain(self) -> Request:
        """The same without TLS and without credentials."""
        kept = tuple(each for each in self.headers if each[0] != "Authorization")
        url = urlunsplit(urlsplit(self.url)._replace(scheme="http"))
        return dataclasses.replace(self, url=url, headers=kept)


@dataclass(frozen=True, slots=True)
class Answer:
    """A status code and the beginning of a body."""

    code: int
    body: str
    location: str = ""


def request_of(action: HttpGetAction, container: Container, purpose: str) -> Request:
    """The request of a probe (`purpose` probe) or hook (lifecycle). Raises PortUnknown."""
    port = connections.resolve(action.port, container)
    scheme = action.scheme.lower() or "http"
    at = connections.joined(action.host or connections.POD_HOST, port)
    headers = [(_canonical(each.name), each.value) for each in action.http_headers]
    names = {name for name, _ in headers}
    if "User-Agent" not in names:
        headers.append(("User-Agent", f"kube-{purpose}/{VERSION}"))
    if "Accept" not in names:
        headers.append(("Accept", "*/*"))
    host = next((value for name, value in headers if name == "Host"), "")
    # One that is set to nothing is not sent.
    sent = [each for each in headers if each[1] or each[0] not in ("User-Agent", "Accept")]
    return Request(f"{scheme}://{at}{_target(action.path)}", tuple(sent), host)


def address(request: Request) -> str:
    """Host and port of a request."""
    return urlsplit(request.url).netloc


async def get(request: Request, seconds: float | None) -> Answer:
    """Ask and follow redirects. Raises RequestFailed, AnswerBroken."""
    asking = _Asking(request)
    try:
        async with asyncio.timeout(seconds):
            return await asking.run()
    except TimeoutError as error:
        late = "context deadline exceeded (Client.Timeout "
        if asking.answering:
            text = f"{late}or context cancellation while reading body)"
            raise AnswerBroken(text) from error
        raise asking.failure(f"{late}exceeded while awaiting headers)") from error
    except ValueError as error:
        # A redirect to what is no URL.
        raise asking.failure(f"failed to parse Location header: {error}") from error
    except ConnectionFailed as error:
        if asking.answering:
            raise AnswerBroken(str(error)) from error
        raise asking.failure(str(error)) from error


class _Asking:
    """One request and those it is redirected to."""

    def __init__(self, request: Request) -> None:
        self._first = self._now = request
        self.answering = False

    def failure(self, why: str) -> RequestFailed:
        return RequestFailed(f'Get "{self._now.url}": {why}')

    async def run(self) -> Answer:
        for _ in range(REDIRECTS):
            answer = await self._once()
            if answer.code not in _FOLLOWED or not answer.location:
                return answer
            url = urljoin(self._now.url, answer.location)
            if urlsplit(url).hostname != urlsplit(self._first.url).hostname:
                return answer
            self._redirect(url, relative=not urlsplit(answer.location).scheme)
        raise self.failure(f"stopped after {REDIRECTS} redirects")

    def _redirect(self, url: str, *, relative: bool) -> None:
        kept = [each for each in self._first.headers if each[0] != "Referer"]
        if not (self._now.url.startswith("https:") and url.startswith("http:")):
            kept.append(("Referer", self._now.url))
        host = self._first.host if relative else ""
        self._now = Request(url, tuple(kept), host)

    async def _once(self) -> Answer:
        self.answering = False
        parts = urlsplit(self._now.url)
        if parts.scheme not in _PORTS:
            raise self.failure(f'unsupported protocol scheme "{parts.scheme}"')
        head = self._head()
        port = parts.port or _PORTS[parts.scheme]
        tls = parts.scheme == "https"
        async with connections.opened(parts.hostname or "", port, tls=tls) as (reader, writer):
            writer.write(head)
            await writer.drain()
            return await self._read(reader)

    def _head(self) -> bytes:
        """Everything that is sent."""
        parts = urlsplit(self._now.url)
        target = f"{parts.path or '/'}{'?' if parts.query else ''}{parts.query}"
        first = [
            ("Host", self._now.host or parts.netloc.rpartition("@")[2]),
            ("Connection", "close"),
        ]
        lines = [f"GET {quote(target, safe=_SAFE)} HTTP/1.1"]
        for name, value in (*first, *_without(self._now.headers, _OWN)):
            if not _NAME.fullmatch(name):
                raise self.failure(f'net/http: invalid header field name "{name}"')
            if _BAD_VALUE.search(value):
                raise self.failure(f'net/http: invalid header field value for "{name}"')
            lines.append(f"{name}: {value.strip()}")
        return "\r\n".join([*lines, "", ""]).encode(errors="replace")

    async def _read(self, reader: asyncio.StreamReader) -> Answer:
        told = _Told()
        seen = 0
        while not told.complete and len(told.body) < MOST:
            data = await reader.read(1 << 14)
            if not data:
                if told.begun and not told.measured:
                    break  # the end of the connection is the end of the body
                if told.begun:
                    raise AnswerBroken("unexpected EOF")
                raise self.failure("EOF")
            try:
                told.feed(data)
            except httptools.HttpParserError as error:
                if told.begun:
                    raise AnswerBroken(f"malformed body: {error}") from error
                first = data.split(b"\r\n")[0][:80].decode(errors="replace")
                broken = "net/http: HTTP/1.x transport connection broken: malformed HTTP response"
                raise self.failure(f'{broken} "{first}"') from error
            self.answering = told.begun
            seen += len(data)
            if seen > MOST_HEADERS and not told.begun:
                text = f"net/http: server response headers exceeded {MOST_HEADERS} bytes; aborted"
                raise self.failure(text)
        body = bytes(told.body[:MOST]).decode(errors="replace")
        return Answer(told.code, body, told.location)


class _Told:
    """What the parser says about an answer; answers before the final one are passed over."""

    def __init__(self) -> None:
        self._parser = httptools.HttpResponseParser(self)
        self.code = 0
        self.location = ""
        self.body = bytearray()
        self.begun = self.complete = self.measured = False

    def feed(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            self.complete = True

    def on_header(self, name: bytes, value: bytes) -> None:
        lowered = name.lower()
        if lowered == b"location":
            self.location = value.decode(errors="replace")
        self.measured |= lowered in (b"content-length", b"transfer-encoding")

    def on_headers_complete(self) -> None:
        self.code = self._parser.get_status_code()
        self.begun = self.code >= 200 or self.code == 101

    def on_body(self, data: bytes) -> None:
        self.body += data

    def on_message_complete(self) -> None:
        self.complete = self.begun


def _without(
    headers: Iterable[tuple[str, str]], names: tuple[str, ...]
) -> Iterable[tuple[str, str]]:
    return (each for each in headers if each[0] not in names)


def _canonical(name: str) -> str:
    """A header's name as it is usually written."""
    return "-".join(part.capitalize() for part in name.split("-"))


def _target(path: str) -> str:
    """The path and query of a URL from what a spec calls path."""
    try:
        parts = urlsplit(path)
    except ValueError:
        return "/" + quote(path.lstrip("/"))
    rooted = parts.path if parts.path.startswith("/") or not parts.path else "/" + parts.path
    query = f"?{parts.query}" if parts.query else ""
    return quote(rooted, safe=_SAFE) + quote(query, safe=_SAFE)
