"""Who is calling: a bearer token from the data directory, or nobody.

A token stands for a `User`: a name and the groups that say what it may do (`authorization`).
A request without a token is `system:anonymous`; a token nobody has is refused outright.
Tokens are compared in constant time and never logged.
"""

from __future__ import annotations

import hmac
from collections.abc import Mapping
from dataclasses import dataclass

from holdfast.api import errors

MASTERS = "system:masters"
READERS = "holdfast:readers"
NODES = "system:nodes"
AUTHENTICATED = "system:authenticated"
UNAUTHENTICATED = "system:unauthenticated"
_NODE_PREFIX = "system:node:"


@dataclass(frozen=True, slots=True)
class User:
    """Who somebody is."""

    name: str
    uid: str = ""
    groups: tuple[str, ...] = ()

    @property
    def is_master(self) -> bool:
        """Whether nothing is forbidden to this user."""
        return MASTERS in self.groups

    @property
    def node(self) -> str | None:
        """The node this user is; None for a user that is no node, "" for one without a name."""
        if NODES not in self.groups:
            return None
        return self.name.removeprefix(_NODE_PREFIX) if self.name.startswith(_NODE_PREFIX) else ""


ANONYMOUS = User("system:anonymous", groups=(UNAUTHENTICATED,))


class Authenticator:
    """Known tokens and their users."""

    def __init__(self, tokens: Mapping[str, User]) -> None:
        self._tokens = {token.encode(): _authenticated(user) for token, user in tokens.items()}

    def user(self, authorization: str) -> User:
        """The user of an Authorization header; raises `Unauthorized` for a token nobody has."""
        if not authorization:
            return ANONYMOUS
        scheme, _, token = authorization.partition(" ")
        user = self.holder(token.strip()) if scheme.lower() == "bearer" else None
        if user is None:
            raise errors.Unauthorized()
        return user

    def holder(self, token: str) -> User | None:
        """The user a token stands for."""
        given = token.encode()
        for known, user in self._tokens.items():
            if hmac.compare_digest(known, given):
                return user
        return None


def _authenticated(user: User) -> User:
    if AUTHENTICATED in user.groups:
        return user
    return User(user.name, user.uid, (*user.groups, AUTHENTICATED))
