"""The names CSI gives, as names every storage system can take.

A CSI name may hold any character. What consists of letters, digits, '-', '_' and
'.' stays as it is; anything else becomes its readable part and a digest, the same
each time. Names that look like such a result get a digest too, so that two
different names never become one.
"""

from __future__ import annotations

import hashlib
import re

LONGEST = 128

_PLAIN = re.compile(r"[A-Za-z0-9]([-._A-Za-z0-9]{0,126}[A-Za-z0-9])?", re.ASCII)
_MAPPED = re.compile(r"csi-.*-[0-9a-f]{32}", re.ASCII)
_OTHER = re.compile(r"[^A-Za-z0-9]+", re.ASCII)
_READABLE = 48


def of(name: str) -> str:
    """Return the backend's name for a CSI name; at most 128 characters."""
    if _PLAIN.fullmatch(name) and not _MAPPED.fullmatch(name):
        return name
    readable = _OTHER.sub("-", name)[:_READABLE].strip("-") or "volume"
    digest = hashlib.sha256(name.encode(errors="surrogatepass")).hexdigest()[:32]
    return f"csi-{readable}-{digest}"
