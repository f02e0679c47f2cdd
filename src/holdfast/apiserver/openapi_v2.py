"""OpenAPI version 2 (Swagger): one document for everything, as JSON and as protobuf.

Clients from before Kubernetes 1.27, among them the kubectl of some distributions,
know nothing of version 3.  They validate manifests against this document and read
it only in the protobuf form, which `gnostic` writes from the same dictionary.

Built at first use, then kept.
"""

from __future__ import annotations

import functools
from typing import Any, Final

import msgspec

from holdfast.api import kinds
from holdfast.apiserver import gnostic, openapi, openapi_paths, openapi_schemas
from holdfast.apiserver.openapi_paths import Operation, Route
from holdfast.apiserver.openapi_schemas import META, V2

JSON_TYPE: Final = "application/json"
ACCEPTED_TYPE: Final = "application/com.github.proto-openapi.spec.v2@v1.0+protobuf"
"""What the Accept header of a client says that wants the protobuf form."""
PROTOBUF_TYPE: Final = "application/com.github.proto-openapi.spec.v2.v1.0+protobuf"
"""What the Content-Type of the answer must say: clients refuse an `@` in it."""


@functools.cache
def document_json() -> bytes:
    """Return the document as JSON."""
    return msgspec.json.encode(_document())


@functools.cache
def document_protobuf() -> bytes:
    """Return the document as a message `openapi.v2.Document`."""
    return gnostic.encode(_document())


def _document() -> dict[str, Any]:
    definitions = openapi_schemas.collect(kinds.SERVED, (*openapi.extra_types(""), "Scale"), V2)
    definitions[f"{META}.Patch"] = openapi.PATCH_SCHEMA
    routes = (route for kind in kinds.SERVED for route in openapi_paths.routes(kind))
    return {
        "swagger": "2.0",
        "info": {"title": openapi.TITLE, "version": openapi.VERSION},
        "paths": {route.path: _path(route) for route in routes},
        "definitions": definitions,
    }


def _path(route: Route) -> dict[str, Any]:
    path: dict[str, Any] = {
        operation.method: _operation(route, operation) for operation in route.operations
    }
    parameters = [
        {
            "name": name,
            "in": "path",
            "required": True,
            "type": "string",
            "description": openapi_paths.PATH[name],
        }
        for name in route.parameters
    ]
    if parameters:
        path["parameters"] = parameters
    return path


def _operation(route: Route, operation: Operation) -> dict[str, Any]:
    parameters = [_query(name) for name in operation.query]
    found: dict[str, Any] = {
        "tags": [route.tag],
        "description": operation.summary,
        "operationId": route.identifier(operation),
        "produces": [JSON_TYPE],
        "responses": {
            str(code): {
                "description": "Created" if code == 201 else "OK",
                "schema": V2.reference(operation.result),
            }
            for code in operation.success
        },
        **route.extensions(operation),
    }
    if operation.body:
        found["consumes"] = list(operation.consumes)
        body: dict[str, Any] = {
            "name": "body",
            "in": "body",
            "schema": V2.reference(operation.body),
        }
        if operation.method != "delete":
            body["required"] = True
        parameters.insert(0, body)
    if parameters:
        found["parameters"] = parameters
    return found


def _query(name: str) -> dict[str, Any]:
    type_name, description = openapi_paths.QUERY[name]
    return {
        "name": name,
        "in": "query",
        "description": description,
        "type": type_name,
        "uniqueItems": True,
    }
