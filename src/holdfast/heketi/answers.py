"""What is sent back: JSON, text, or the place where a result can be asked for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from holdfast.heketi import documents

JSON = "application/json; charset=UTF-8"
TEXT = "text/plain; charset=utf-8"
HTML = "text/html; charset=utf-8"


@dataclass(frozen=True, slots=True)
class Asked:
    """One request: what endpoints see of it."""

    method: str
    path: str
    body: bytes = b""
    role: str = "admin"
    query: Mapping[str, str] = field(default_factory=dict)

    def flag(self, name: str) -> bool:
        """A parameter that is there and does not say no."""
        return self.query.get(name, "false").lower() not in ("false", "0", "no")


@dataclass(frozen=True, slots=True)
class Answer:
    """Status, body and headers."""

    status: int = 200
    body: bytes = b""
    content_type: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)


def document(content: Any, status: int = 200, indent: int | None = None) -> Answer:
    """A JSON document."""
    return Answer(status, documents.encode(content, indent), JSON)


def refused(status: int, text: str) -> Answer:
    """A line of text, as Go's http.Error sends it."""
    headers = {"X-Content-Type-Options": "nosniff"}
    return Answer(status, f"{text}\n".encode(), TEXT, headers)


def accepted(ticket: str, *, link: bool = False) -> Answer:
    """The result is to be asked for; a GET is answered with a link to it."""
    where = f"/queue/{ticket}"
    body = f'<a href="{where}">Accepted</a>.\n\n'.encode() if link else b""
    return Answer(202, body, HTML if link else "", {"Location": where})


def elsewhere(path: str, status: int = 303) -> Answer:
    """It is there."""
    text = "See Other" if status == 303 else "Moved Permanently"
    return Answer(status, f'<a href="{path}">{text}</a>.\n\n'.encode(), HTML, {"Location": path})
