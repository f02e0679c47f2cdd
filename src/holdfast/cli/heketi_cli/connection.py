"""Requests to a Heketi service: a token each, waiting for results, patience when it is busy.

A server's refusal is its text; `Failure` carries that text to the one place that prints it.
"""

from __future__ import annotations

import random
import ssl
import sys
import time
from collections.abc import Sequence
from typing import Any

import httpx2
import msgspec

from holdfast.cli import terminal
from holdfast.heketi import auth

_POLL_FIRST, _POLL_MOST = 0.05, 1.0
_BUSY_TRIES = 6
_BUSY_SECONDS = (10.0, 30.0)
_LEAST_PATIENCE = 1.0


class Failure(Exception):
    """What is printed after `Error: `."""


class Connection:
    """A service and who asks it."""

    def __init__(
        self,
        url: str,
        user: str,
        secret: str,
        *,
        verify: bool = True,
        trusted: Sequence[str] = (),
        raw: bool = False,
    ) -> None:
        self._user = user
        self._secret = secret
        # Whether answers are printed as JSON.
        self.raw = raw
        try:
            self._client = httpx2.Client(
                base_url=url,
                verify=_trusting(trusted) if verify and trusted else verify,
                timeout=120.0,
                trust_env=False,
            )
        except (httpx2.InvalidURL, ValueError) as error:
            raise Failure(f"{url}: {error}") from error

    def get(self, path: str) -> Any:
        """A JSON document."""
        return self._json(self.send("GET", path))

    def text(self, path: str) -> str:
        """An answer as it is."""
        return self._checked(self.send("GET", path)).text

    def post(self, path: str, body: Any) -> Any:
        """Post a document; the JSON that comes back, or what an accepted request leads to."""
        return self._json(self.send("POST", path, body))

    def delete(self, path: str, body: Any = None) -> None:
        """Delete, and wait until it is done."""
        self._json(self.send("DELETE", path, body))

    def find(self, path: str) -> Any:
        """A JSON document, None where the server does not know the path or keeps it for others."""
        answer = self.send("GET", path)
        return None if answer.status_code in (401, 404) else self._json(answer)

    def send(self, method: str, path: str, body: Any = None) -> httpx2.Response:
        """One request, repeated while the server is busy, followed until it is done."""
        for left in range(_BUSY_TRIES, -1, -1):
            answer = self._once(method, path, body)
            if answer.status_code != 429 or not left:
                break
            time.sleep(self._patience(answer))
        return self._followed(answer, path) if answer.status_code in (202, 303) else answer

    def _patience(self, answer: httpx2.Response) -> float:
        told = answer.headers.get("retry-after", "")
        if told.isdigit():
            return max(_LEAST_PATIENCE, float(told))
        return random.uniform(*_BUSY_SECONDS)

    def _once(self, method: str, path: str, body: Any = None) -> httpx2.Response:
        headers = {}
        if self._user or self._secret:
            plain = path.partition("?")[0]
            token = auth.token(self._user, self._secret, method, plain)
            headers["Authorization"] = f"bearer {token}"
        content = None if body is None else msgspec.json.encode(body)
        if content is not None:
            headers["Content-Type"] = "application/json"
        try:
            return self._client.request(method, path, content=content, headers=headers)
        except httpx2.HTTPError as error:
            address = f"{str(self._client.base_url).rstrip('/')}{path}"
            raise Failure(f'{method.capitalize()} "{address}": {error}') from error

    def _followed(self, answer: httpx2.Response, path: str) -> httpx2.Response:
        """Ask for the result until there is one; on a terminal it shows that it waits."""
        where = answer.headers.get("location", "")
        progress = terminal.Progress(f"{path.strip('/')}: waiting") if _live() else None
        delay = _POLL_FIRST
        try:
            while True:
                answer = self._once("GET", where)
                if answer.headers.get("x-pending") != "true":
                    break
                if progress is not None:
                    progress.tick()
                time.sleep(delay)
                delay = min(_POLL_MOST, delay * 1.5)
        finally:
            if progress is not None:
                progress.__exit__(None, None, None)
        if answer.status_code == 303:
            return self._once("GET", answer.headers.get("location", ""))
        return answer

    def _checked(self, answer: httpx2.Response) -> httpx2.Response:
        if answer.status_code >= 400:
            raise Failure(answer.text.strip() or f"HTTP {answer.status_code}")
        return answer

    def _json(self, answer: httpx2.Response) -> Any:
        content = self._checked(answer).content
        if not content.strip():
            return None
        try:
            return msgspec.json.decode(content)
        except msgspec.DecodeError as error:
            raise Failure(f"the server answered something that is not JSON: {error}") from error


def _trusting(files: Sequence[str]) -> ssl.SSLContext:
    """Only what these certificates vouch for."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    for file in files:
        try:
            context.load_verify_locations(file)
        except OSError as error:
            why = error.strerror or str(error)
            raise Failure(f"failed to read cert file {file}: {why}") from error
    return context


def _live() -> bool:
    return sys.stderr.isatty()
