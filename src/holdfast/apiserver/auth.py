"""Who is calling: a bearer token from the data directory, or nobody.

One token, the administrator's, is made at the first start. A request without a token is
`system:anonymous` and may ask only whether the server lives; a wrong token is refused outright.
Tokens are compared in constant time and never logged.
"""

from __future__ import annotations

import hmac
from collections.abc import Mapping

from holdfast.api import errors

ANONYMOUS = "system:anonymous"
_PUBLIC = ("/healthz", "/livez", "/readyz", "/version")


class Authenticator:
    """Known tokens and their users."""

    def __init__(self, tokens: Mapping[str, str]) -> None:
        self._tokens = {token.encode(): user for token, user in tokens.items()}

    def user(self, authorization: str) -> str:
        """The user of an Authorization header; raises `Unauthorized` for a token nobody has."""
        if not authorization:
            return ANONYMOUS
        scheme, _, token = authorization.partition(" ")
        if scheme.lower() == "bearer":
            given = token.strip().encode()
            for known, user in self._tokens.items():
                if hmac.compare_digest(known, given):
                    return user
        raise errors.Unauthorized()


def check_anonymous(method: str, path: str) -> None:
    """Raise `Forbidden` unless the path is open to everybody."""
    if path.split("/", 2)[1:2] and "/" + path.split("/", 2)[1] in _PUBLIC:
        return
    raise errors.Forbidden(
        f'forbidden: User "{ANONYMOUS}" cannot {method.lower()} path "{path}": '
        "send the bearer token of the kubeconfig",
        details={},
    )
