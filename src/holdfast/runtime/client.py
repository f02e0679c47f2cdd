"""The Kubernetes API as controllers see it.

`Client` is the one interface. `runtime.http.HttpClient` speaks it to any API server;
`apiserver.inprocess` calls the embedded one without a socket. Objects are plain dicts, shared
between readers: never change one, build a new one.

Every method raises a subclass of `api.errors.StatusError`, the same for both transports.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any, NamedTuple, Protocol

from holdfast.api.kinds import Kind

Object = dict[str, Any]


class Listing(NamedTuple):
    """A list and the revision it is exact at: a watch from there misses nothing."""

    items: list[Object]
    revision: str


class Client(Protocol):
    """Reads and writes of one API server."""

    async def get(self, kind: Kind, name: str, namespace: str | None = None) -> Object:
        """One object; raises `NotFound`."""
        ...

    async def list(
        self, kind: Kind, namespace: str | None = None, *, labels: str = "", fields: str = ""
    ) -> Listing:
        """All objects of a kind, of one namespace or of all."""
        ...

    async def create(
        self,
        kind: Kind,
        obj: Object,
        namespace: str | None = None,
        *,
        subresource: str | None = None,
        name: str | None = None,
    ) -> Object:
        """Create; with `subresource` and `name`, POST there (a pod's `binding`)."""
        ...

    async def replace(self, kind: Kind, obj: Object, *, subresource: str | None = None) -> Object:
        """Replace the object of that name; `metadata.resourceVersion`, if set, must match."""
        ...

    async def patch(
        self,
        kind: Kind,
        name: str,
        patch: Object,
        namespace: str | None = None,
        *,
        subresource: str | None = None,
    ) -> Object:
        """JSON merge patch. A `metadata.resourceVersion` or `metadata.uid` in it must match."""
        ...

    async def delete(
        self,
        kind: Kind,
        name: str,
        namespace: str | None = None,
        *,
        uid: str | None = None,
        grace: int | None = None,
        propagation: str | None = None,
    ) -> Object:
        """Delete; `uid` is a precondition, `grace` the seconds a pod gets.

        `propagation` says what becomes of dependents: Background, Foreground or Orphan.
        """
        ...

    def watch(
        self, kind: Kind, namespace: str | None = None, *, revision: str
    ) -> AsyncIterator[tuple[str, Object]]:
        """Changes after a revision as (ADDED|MODIFIED|DELETED|BOOKMARK, object).

        Ends when the server ends it; raises `Expired` when the revision is too old.
        """
        ...


def revision_of(obj: Object) -> int:
    """The object's resourceVersion as a number (both servers count)."""
    return int(obj["metadata"].get("resourceVersion") or 0)
