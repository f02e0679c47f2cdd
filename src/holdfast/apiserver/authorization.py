"""Whether a user may do something: the one place that decides.

A user may do what one of the rules of one of its groups allows (`permissions`), and a node also
what its own business is (`nodeaccess`). Nothing forbids what something else allows.
"""

from __future__ import annotations

from holdfast.apiserver import attributes, nodeaccess, permissions
from holdfast.apiserver.attributes import Attributes
from holdfast.apiserver.auth import User
from holdfast.apiserver.nodeaccess import Decision
from holdfast.apiserver.permissions import Rule
from holdfast.apiserver.requests import Request
from holdfast.store.log import Store

_IMPERSONATION = b"impersonate-"


class Authorizer:
    """Decides from the rules and, for nodes, from what is stored."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def decide(self, user: User, wanted: Attributes) -> Decision:
        """Tell whether the user may do it, and why not where there is something to say."""
        if any(rule.allows(wanted) for rule in permissions.rules_of(user)):
            return True, ""
        if user.node is None:
            return False, ""
        return nodeaccess.decide(self._store, user.node, wanted)

    def check(self, user: User, request: Request) -> None:
        """Raise `Forbidden` unless the user may make the request."""
        _check_impersonation(user, request)
        if user.is_master:
            return
        wanted = attributes.attributes_of(request.method, request.path, request.query)
        allowed, reason = self.decide(user, wanted)
        if not allowed:
            raise attributes.refusal(user.name, wanted, reason)

    def check_create(self, user: User, request: Request) -> None:
        """Raise `Forbidden` unless the user may create what the request replaces."""
        wanted = attributes.attributes_of("POST", request.path, request.query)
        allowed, reason = self.decide(user, wanted)
        if not allowed:
            raise attributes.refusal(user.name, wanted, reason)

    def rules(self, user: User) -> tuple[list[Rule], bool]:
        """The rules that hold for a user, and whether they are all there is to say."""
        return list(dict.fromkeys(permissions.rules_of(user))), user.node is None


def _check_impersonation(user: User, request: Request) -> None:
    """Nobody acts as somebody else here; to answer as if nothing was asked would mislead."""
    for name, value in request.scope["headers"]:
        if name.startswith(_IMPERSONATION):
            what = {b"impersonate-user": "users", b"impersonate-group": "groups"}.get(name, "users")
            wanted = Attributes("impersonate", resource=what, name=value.decode("latin-1"))
            raise attributes.refusal(user.name, wanted, "impersonation is not served here")
