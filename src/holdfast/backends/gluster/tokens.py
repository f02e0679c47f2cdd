"""Tokens that the Heketi service asks for: JWT, signed with the user's key, for one request each.

The claim `qsh` binds a token to a method and path, so a stolen one is of little use. It is valid
for five minutes, because clocks differ.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import time

VALID_SECONDS = 300


def make(user: str, key: str, method: str, path: str) -> str:
    """Return the token for one request; `path` is decoded and has no query."""
    now = int(time.time())
    claims = {
        "iss": user,
        "iat": now,
        "exp": now + VALID_SECONDS,
        "qsh": hashlib.sha256(f"{method}&{path}".encode()).hexdigest(),
    }
    signed = f"{_part({'alg': 'HS256', 'typ': 'JWT'})}.{_part(claims)}"
    signature = hmac.digest(key.encode(), signed.encode(), "sha256")
    return f"{signed}.{_text(signature)}"


def _part(content: dict[str, object]) -> str:
    return _text(json.dumps(content, separators=(",", ":")).encode())


def _text(content: bytes) -> str:
    return base64.urlsafe_b64encode(content).rstrip(b"=").decode()
