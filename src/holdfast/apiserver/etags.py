"""Entity tags of documents that never change while the process runs.

Discovery and the OpenAPI documents are built once and served from memory; a
client that has one (kubectl keeps both on disk) asks again with If-None-Match
and gets a 304 without a body.  A tag depends on the bytes alone, so it is the
same after a restart of the same version.
"""

from __future__ import annotations

import functools
import hashlib


@functools.lru_cache(maxsize=64)
def digest(body: bytes) -> str:
    """Return the upper-case hexadecimal SHA-256 of a document."""
    return hashlib.sha256(body).hexdigest().upper()


def of(body: bytes) -> str:
    """Return the quoted ETag of a document."""
    return f'"{digest(body)}"'


def matches(header: str, body: bytes) -> bool:
    """Tell whether an If-None-Match header names this document."""
    tags = {part.strip().removeprefix("W/") for part in header.split(",")}
    return "*" in tags or of(body) in tags
