"""OpenAPI version 3: one document per group version, and the index of them.

kubectl reads the index, then the document of the object's group, before every
create, apply, edit and replace; `kubectl explain` prints from the same document.
All of it is made from kinds and shapes.

A document is built at first use and kept as bytes, so a start of the server costs
nothing.  The index names each document with a hash of its content; clients keep
what they fetched under such an address for good, so the hash must change with the
content, and it does because it is taken from the bytes.
"""

from __future__ import annotations

import functools
from typing import Any, Final

import msgspec

from holdfast.api import kinds, shapes
from holdfast.api.kinds import Kind
from holdfast.apiserver import etags, openapi_paths, openapi_schemas
from holdfast.apiserver.openapi_paths import Operation, Route
from holdfast.apiserver.openapi_schemas import META, V3, Schema

CONTENT_TYPE: Final = "application/json"
TITLE: Final = "Holdfast"
VERSION: Final = "v1.32.13"

# Types that operations name although no stored object contains them.
EXTRA_TYPES: Final = ("DeleteOptions", "Status")


@functools.cache
def index() -> bytes:
    """Return the answer to `/openapi/v3`: where each document is."""
    paths: dict[str, Any] = {}
    for group, version in group_versions():
        body = document(group, version)
        assert body is not None
        root = openapi_paths.root(group, version)
        paths[root] = {"serverRelativeURL": f"/openapi/v3/{root}?hash={etags.digest(body)}"}
    return msgspec.json.encode({"paths": paths})


@functools.cache
def document(group: str, version: str) -> bytes | None:
    """Return the document of a group version (the core group is ""); None if not served."""
    found = kinds_of(group, version)
    if not found:
        return None
    schemas = openapi_schemas.collect(found, extra_types(group), V3)
    schemas[f"{META}.Patch"] = PATCH_SCHEMA
    routes = (route for kind in found for route in openapi_paths.routes(kind))
    content = {
        "openapi": "3.0.0",
        "info": {"title": TITLE, "version": VERSION},
        "paths": {route.path: _path(route) for route in routes},
        "components": {"schemas": schemas},
    }
    return msgspec.json.encode(content)


def group_versions() -> tuple[tuple[str, str], ...]:
    """Return what is served, in the order of the kinds."""
    return tuple(dict.fromkeys((kind.group, kind.version) for kind in kinds.SERVED))


def kinds_of(group: str, version: str) -> tuple[Kind, ...]:
    """Return the kinds of a group version in the order of their plurals."""
    found = (kind for kind in kinds.SERVED if (kind.group, kind.version) == (group, version))
    return tuple(sorted(found, key=lambda kind: kind.plural))


def extra_types(group: str) -> tuple[str, ...]:
    """Return the types that are not stored but travel in a group's requests."""
    below = {"": ("Binding", "Eviction"), "apps": ("Scale",)}
    found = (*EXTRA_TYPES, *below.get(group, ()))
    return tuple(name for name in found if name in shapes.names())


PATCH_SCHEMA: Final[Schema] = {
    "type": "object",
    "description": "A change to an object, in the form the Content-Type names.",
}


def _path(route: Route) -> dict[str, Any]:
    path: dict[str, Any] = {
        "parameters": [
            {
                "name": name,
                "in": "path",
                "required": True,
                "description": openapi_paths.PATH[name],
                "schema": {"type": "string"},
            }
            for name in route.parameters
        ]
    }
    for operation in route.operations:
        path[operation.method] = _operation(route, operation)
    return path


def _operation(route: Route, operation: Operation) -> dict[str, Any]:
    result = {"application/json": {"schema": V3.reference(operation.result)}}
    found: dict[str, Any] = {
        "tags": [route.tag],
        "description": operation.summary,
        "operationId": route.identifier(operation),
        "parameters": [_query(name) for name in operation.query],
        "responses": {
            str(code): {"description": "Created" if code == 201 else "OK", "content": result}
            for code in operation.success
        },
        **route.extensions(operation),
    }
    if operation.body:
        schema = {"schema": V3.reference(operation.body)}
        found["requestBody"] = {
            "content": {media: schema for media in operation.consumes},
            "required": operation.method != "delete",
        }
    return found


def _query(name: str) -> dict[str, Any]:
    type_name, description = openapi_paths.QUERY[name]
    return {
        "name": name,
        "in": "query",
        "description": description,
        "schema": {"type": type_name, "uniqueItems": True},
    }
