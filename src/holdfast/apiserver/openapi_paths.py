"""The paths of the API and what can be done at each, before either OpenAPI version.

`routes` derives them from a kind: the collection in one namespace, the collection
over all namespaces, the object, and one path per subresource.  `openapi` and
`openapi_v2` only differ in how they write a `Route` down.

Clients read less of it than it looks: kubectl finds the PATCH operation of a kind
by `x-kubernetes-group-version-kind` and looks whether it takes `fieldValidation`
and `dryRun`.  The rest serves code generators and people.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from holdfast.api.kinds import Kind
from holdfast.apiserver import openapi_schemas
from holdfast.apiserver.openapi_schemas import META, name_of

PATCH_TYPES: Final = (
    "application/json-patch+json",
    "application/merge-patch+json",
    "application/strategic-merge-patch+json",
    "application/apply-patch+yaml",
)
BODY_TYPES: Final = ("application/json", "application/yaml", "application/vnd.kubernetes.protobuf")

DELETE_OPTIONS: Final = f"{META}.DeleteOptions"
STATUS: Final = f"{META}.Status"

QUERY: Final[Mapping[str, tuple[str, str]]] = {
    "allowWatchBookmarks": ("boolean", "Ask for BOOKMARK events in a watch."),
    "continue": ("string", "The token of the previous page; opaque."),
    "dryRun": ("string", "All: check and answer, but store nothing."),
    "fieldManager": ("string", "The name of the program that makes the change."),
    "fieldSelector": ("string", "Only objects whose fields match."),
    "fieldValidation": ("string", "What unknown and doubled fields do: Ignore, Warn or Strict."),
    "force": ("boolean", "Take over fields that other managers own (server-side apply only)."),
    "gracePeriodSeconds": ("integer", "Seconds an object is given to end; 0 means at once."),
    "labelSelector": ("string", "Only objects whose labels match."),
    "limit": ("integer", "The most objects in one answer."),
    "propagationPolicy": ("string", "What happens to dependents: Orphan, Background, Foreground."),
    "resourceVersion": ("string", "The revision to read from."),
    "resourceVersionMatch": ("string", "How resourceVersion is meant: Exact or NotOlderThan."),
    "sendInitialEvents": ("boolean", "Begin a watch with the objects that exist."),
    "timeoutSeconds": ("integer", "When to end a list or watch."),
    "watch": ("boolean", "Stream changes instead of listing."),
}
"""Name to type and description of every query parameter, in the order of names."""

PATH: Final[Mapping[str, str]] = {
    "name": "The name of the object.",
    "namespace": "The namespace of the objects.",
}

_SELECTING: Final = ("continue", "fieldSelector", "labelSelector", "limit", "resourceVersion")
_LISTING: Final = tuple(
    sorted(
        {
            *_SELECTING,
            "allowWatchBookmarks",
            "resourceVersionMatch",
            "sendInitialEvents",
            "timeoutSeconds",
            "watch",
        }
    )
)
_WRITING: Final = ("dryRun", "fieldManager", "fieldValidation")
_DELETING: Final = ("dryRun", "gracePeriodSeconds", "propagationPolicy")


@dataclass(frozen=True)
class Operation:
    """One method at a path; `body` and `result` are names of schemas, `body` "" for none."""

    method: str
    action: str
    """Kubernetes' word for it, such as `list` or `deletecollection`."""
    verb: str
    """The word the operation's identifier begins with, such as `replace`."""
    summary: str
    result: str
    query: tuple[str, ...] = ()
    body: str = ""
    success: tuple[int, ...] = (200,)

    @property
    def consumes(self) -> tuple[str, ...]:
        """The media types of the body."""
        return PATCH_TYPES if self.method == "patch" else BODY_TYPES


@dataclass(frozen=True)
class Route:
    """One path with its operations; `subject` ends the identifiers of its operations."""

    path: str
    kind: Kind
    subject: str
    operations: tuple[Operation, ...]

    @property
    def parameters(self) -> tuple[str, ...]:
        """The names in braces in the path."""
        return tuple(name for name in PATH if f"{{{name}}}" in self.path)

    @property
    def tag(self) -> str:
        """The group version in one word, as in `storage_v1`."""
        return f"{self.kind.group.partition('.')[0] or 'core'}_{self.kind.version}"

    def identifier(self, operation: Operation) -> str:
        """Return the operation's unique name, such as `readCoreV1NamespacedPodStatus`."""
        group, _, version = self.tag.partition("_")
        return f"{operation.verb}{group.capitalize()}{version.capitalize()}{self.subject}"

    def extensions(self, operation: Operation) -> dict[str, Any]:
        """Return what ties an operation to its kind."""
        return {
            "x-kubernetes-action": operation.action,
            openapi_schemas.GVK: openapi_schemas.reference(self.kind),
        }


# Subresources that are no objects but streams; clients know them without a schema.
_STREAMS = frozenset({"attach", "exec", "log", "portforward"})


def root(group: str, version: str) -> str:
    """Return the path below which a group version is served, without a leading slash."""
    return f"apis/{group}/{version}" if group else f"api/{version}"


def routes(kind: Kind) -> Iterator[Route]:
    """Yield every path of a kind."""
    top = f"/{root(kind.group, kind.version)}"
    inside = f"{top}/namespaces/{{namespace}}" if kind.namespaced else top
    subject = f"Namespaced{kind.name}" if kind.namespaced else kind.name
    collection = f"{inside}/{kind.plural}"
    yield Route(collection, kind, subject, tuple(_collection(kind)))
    if "get" not in kind.verbs:
        return
    item = f"{collection}/{{name}}"
    yield Route(item, kind, subject, tuple(_item(kind, f"the specified {kind.name}")))
    for name in kind.subresources:
        if name in _STREAMS:
            continue
        operations = tuple(_subresource(kind, name))
        yield Route(f"{item}/{name}", kind, f"{subject}{name.capitalize()}", operations)
    if kind.namespaced:
        everywhere = _listing(kind, "in all namespaces")
        yield Route(f"{top}/{kind.plural}", kind, f"{kind.name}ForAllNamespaces", (everywhere,))


def _listing(kind: Kind, where: str = "") -> Operation:
    summary = f"list or watch objects of kind {kind.name} {where}".rstrip()
    result = f"{name_of(kind.name)}List"
    return Operation("get", "list", "list", summary, result, _LISTING)


def _collection(kind: Kind) -> Iterator[Operation]:
    name = name_of(kind.name)
    if "list" in kind.verbs:
        yield _listing(kind)
    summary = f"create a {kind.name}"
    yield Operation("post", "post", "create", summary, name, _WRITING, name, (201,))
    if "deletecollection" in kind.verbs:
        summary = f"delete a collection of {kind.name}"
        query = tuple(sorted({*_SELECTING, *_DELETING}))
        yield Operation(
            "delete",
            "deletecollection",
            "deleteCollection",
            summary,
            STATUS,
            query,
            DELETE_OPTIONS,
        )


def _item(kind: Kind, what: str) -> Iterator[Operation]:
    yield from _read_and_write(kind, what)
    summary, name = f"delete a {kind.name}", name_of(kind.name)
    yield Operation("delete", "delete", "delete", summary, name, _DELETING, DELETE_OPTIONS)


def _read_and_write(kind: Kind, what: str, name: str = "") -> Iterator[Operation]:
    name = name or name_of(kind.name)
    yield Operation("get", "get", "read", f"read {what}", name)
    yield Operation("put", "put", "replace", f"replace {what}", name, _WRITING, name)
    query = tuple(sorted({*_WRITING, "force"}))
    body = f"{META}.Patch"
    yield Operation("patch", "patch", "patch", f"partially update {what}", name, query, body)


def _subresource(kind: Kind, name: str) -> Iterator[Operation]:
    what = f"{name} of the specified {kind.name}"
    schema = name_of(kind.name)
    if name == "binding":
        body = name_of("Binding")
        yield Operation("post", "post", "create", f"create {what}", STATUS, _WRITING, body, (201,))
    elif name == "eviction":
        body = name_of("Eviction")
        yield Operation("post", "post", "create", f"create {what}", STATUS, _WRITING, body, (201,))
    elif name == "scale":
        yield from _read_and_write(kind, what, name_of("Scale"))
    elif name == "finalize":
        yield Operation("put", "put", "replace", f"replace {what}", schema, _WRITING, schema)
    else:
        yield from _read_and_write(kind, what)
