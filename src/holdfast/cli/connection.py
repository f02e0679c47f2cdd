"""A plain HTTPS connection to the running API, for commands that look and apply.

It trusts only the authority in the kubeconfig, sends its token, and ignores
proxies of the environment. Failures become `CommandError`: the API's own
message where it answered, else which address did not.
"""

from __future__ import annotations

import ssl
from types import TracebackType
from typing import Any

import httpx2

from holdfast.cli import terminal
from holdfast.server import kubeconfig

_TIMEOUT_SECONDS = 15.0


class Connection:
    """One keep-alive connection; use it as a context manager."""

    def __init__(self, access: kubeconfig.Access) -> None:
        self._url = access.url
        context = ssl.create_default_context(cadata=access.authority.decode("ascii"))
        self._client = httpx2.Client(
            base_url=access.url,
            verify=context,
            headers={"Authorization": f"Bearer {access.token}"},
            timeout=_TIMEOUT_SECONDS,
            trust_env=False,
        )

    def get(self, path: str) -> dict[str, Any] | None:
        """Read one object; None when there is none."""
        answer = self._send("GET", path)
        return None if answer.status_code == 404 else self._document(answer)

    def items(self, path: str) -> list[dict[str, Any]]:
        """Read all objects of a collection."""
        found: list[dict[str, Any]] = self._document(self._send("GET", path)).get("items") or []
        return found

    def create(self, path: str, obj: dict[str, Any]) -> dict[str, Any] | None:
        """Create an object in a collection; None when it exists already."""
        answer = self._send("POST", path, obj)
        if answer.status_code == 409 and answer.json().get("reason") == "AlreadyExists":
            return None
        return self._document(answer)

    def __enter__(self) -> Connection:
        """Open; connecting happens with the first request."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close the connection."""
        self._client.close()

    def _send(self, method: str, path: str, obj: dict[str, Any] | None = None) -> httpx2.Response:
        try:
            return self._client.request(method, path, json=obj)
        except httpx2.HTTPError as error:
            raise terminal.CommandError(
                f"the API at {self._url} does not answer ({error}): see `holdfast status`"
            ) from error

    def _document(self, answer: httpx2.Response) -> dict[str, Any]:
        try:
            document = answer.json()
        except ValueError:
            document = {}
        if answer.is_success and isinstance(document, dict):
            return document
        message = document.get("message") if isinstance(document, dict) else None
        raise terminal.CommandError(
            f"{answer.request.method} {answer.request.url.path}: "
            f"{message or answer.text[:200] or answer.reason_phrase} (HTTP {answer.status_code})"
        )
