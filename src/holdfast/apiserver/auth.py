"""Who is calling: a bearer token from the data directory, or nobody.

One token, the administrator's, is made at the first start. A request without a token is
`system:anonymous` and may ask only whether the server lives; a wrong token is refused outright.
Tokens are compared in constant time and never logged.
"""

from __future__ import annotations

import hmac
from collections.abc import Mapping

from holdfast.api import errors
from holdfast.apiserver import requests
from holdfast.apiserver.requests import Request

ANONYMOUS = "system:anonymous"
_VERBS = {"GET": "get", "POST": "create", "PUT": "update"}
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


def check_anonymous(request: Request) -> None:
    """Raise `Forbidden`, in the words of Kubernetes, unless the path is open to everybody."""
    if "/" + request.path.split("/", 2)[1] in _PUBLIC:
        return
    try:
        target = requests.target_of(request.path)
    except errors.NotFound:
        target = None
    if target is None:
        what = f'cannot {request.method.lower()} path "{request.path}"'
        raise errors.Forbidden(f'forbidden: User "{ANONYMOUS}" {what}', details={})
    kind, namespace, name, subresource = target
    resource = f"{kind.plural}/{subresource}" if subresource else kind.plural
    where = f'in the namespace "{namespace}"' if namespace else "at the cluster scope"
    why = (
        f'User "{ANONYMOUS}" cannot {_verb(request, name)} resource "{resource}" '
        f'in API group "{kind.group}" {where}'
    )
    raise errors.Forbidden.of(kind.group, kind.plural, name or "", why)


def _verb(request: Request, name: str | None) -> str:
    if request.method == "GET" and name is None:
        return "watch" if request.flag("watch") else "list"
    if request.method == "DELETE" and name is None:
        return "deletecollection"
    return _VERBS.get(request.method, request.method.lower())
