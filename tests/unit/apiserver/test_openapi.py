"""The OpenAPI documents: complete, consistent in themselves, and the same in both versions."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from holdfast.api import kinds
from holdfast.api.kinds import Kind
from holdfast.apiserver import etags, gnostic, openapi, openapi_v2, protowire

_GVK = "x-kubernetes-group-version-kind"


def _document(kind: Kind) -> dict[str, Any]:
    body = openapi.document(kind.group, kind.version)
    assert body is not None
    loaded: dict[str, Any] = json.loads(body)
    return loaded


def _swagger() -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads(openapi_v2.document_json())
    return loaded


def _schema(kind: Kind, schemas: dict[str, Any]) -> dict[str, Any]:
    reference = {"group": kind.group, "version": kind.version, "kind": kind.name}
    found = [schema for schema in schemas.values() if reference in schema.get(_GVK, ())]
    assert len(found) == 1
    schema: dict[str, Any] = found[0]
    return schema


def _references(value: object) -> Iterator[str]:
    if isinstance(value, dict):
        if isinstance(value.get("$ref"), str):
            yield value["$ref"]
        for item in value.values():
            yield from _references(item)
    elif isinstance(value, list):
        for item in value:
            yield from _references(item)


def _operations(document: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for path in document["paths"].values():
        for name, operation in path.items():
            if name != "parameters":
                yield operation


def _texts(message: bytes | memoryview, number: int) -> list[memoryview]:
    values = (value for found, _, value in protowire.read_fields(message) if found == number)
    return [value for value in values if isinstance(value, memoryview)]


def _entries(message: bytes | memoryview, number: int) -> dict[str, memoryview]:
    """Read a mapping of a gnostic message: repeated {1: name, 2: value}."""
    return {
        str(_texts(entry, 1)[0], "utf-8"): _texts(entry, 2)[0] for entry in _texts(message, number)
    }


@pytest.mark.parametrize("kind", kinds.ALL, ids=lambda kind: kind.name)
def test_patching_a_kind_takes_field_validation_and_dry_run(kind: Kind) -> None:
    reference = {"group": kind.group, "version": kind.version, "kind": kind.name}
    patches = [
        path["patch"]
        for path in _document(kind)["paths"].values()
        if path.get("patch", {}).get(_GVK) == reference
    ]
    assert patches
    for patch in patches:
        names = {entry["name"] for entry in patch["parameters"] if entry["in"] == "query"}
        assert {"fieldValidation", "dryRun", "fieldManager"} <= names


@pytest.mark.parametrize("kind", kinds.ALL, ids=lambda kind: kind.name)
def test_every_kind_has_a_described_schema_in_both_versions(kind: Kind) -> None:
    modern = _schema(kind, _document(kind)["components"]["schemas"])
    older = _schema(kind, _swagger()["definitions"])
    assert set(modern["properties"]) == set(older["properties"])
    assert {"apiVersion", "kind", "metadata"} <= set(modern["properties"])
    assert modern["description"]
    assert all(field["description"] for field in modern["properties"].values())


def test_all_references_lead_somewhere() -> None:
    for group, version in openapi.group_versions():
        document = json.loads(openapi.document(group, version) or b"")
        known = {f"#/components/schemas/{name}" for name in document["components"]["schemas"]}
        assert set(_references(document)) <= known
    swagger = _swagger()
    assert set(_references(swagger)) <= {f"#/definitions/{n}" for n in swagger["definitions"]}


def test_operation_identifiers_are_unique() -> None:
    names = [operation["operationId"] for operation in _operations(_swagger())]
    assert len(names) == len(set(names))
    assert "replaceCoreV1NamespacedPersistentVolumeClaimStatus" in names


def test_the_index_names_each_document_by_its_content() -> None:
    paths = json.loads(openapi.index())["paths"]
    assert set(paths) == {
        "api/v1",
        "apis/apps/v1",
        "apis/storage.k8s.io/v1",
        "apis/authentication.k8s.io/v1",
        "apis/authorization.k8s.io/v1",
        "apis/coordination.k8s.io/v1",
        "apis/snapshot.storage.k8s.io/v1",
    }
    body = openapi.document("storage.k8s.io", "v1")
    assert body is not None
    url = f"/openapi/v3/apis/storage.k8s.io/v1?hash={etags.digest(body)}"
    assert paths["apis/storage.k8s.io/v1"] == {"serverRelativeURL": url}


def test_a_group_version_that_is_not_served_has_no_document() -> None:
    assert openapi.document("batch", "v1") is None


def test_merge_rules_are_published() -> None:
    schemas = _document(kinds.POD)["components"]["schemas"]
    containers = schemas["io.k8s.api.core.v1.PodSpec"]["properties"]["containers"]
    assert containers["x-kubernetes-patch-merge-key"] == "name"
    assert containers["x-kubernetes-patch-strategy"] == "merge"
    assert containers["x-kubernetes-list-type"] == "map"
    assert containers["x-kubernetes-list-map-keys"] == ["name"]


def test_the_values_of_an_enumeration_limit_the_elements_of_a_list() -> None:
    for schemas in (_document(kinds.CLAIM)["components"]["schemas"], _swagger()["definitions"]):
        modes = schemas["io.k8s.api.core.v1.PersistentVolumeClaimSpec"]["properties"]["accessModes"]
        assert "enum" not in modes
        assert "ReadWriteOncePod" in modes["items"]["enum"]


def test_the_answered_media_type_can_be_parsed_by_clients() -> None:
    # Go's parser of media types takes token characters only, and `@` is none.
    assert "@" in openapi_v2.ACCEPTED_TYPE
    assert "@" not in openapi_v2.PROTOBUF_TYPE


def test_a_quantity_may_be_a_number_only_where_the_version_can_say_so() -> None:
    name = "io.k8s.apimachinery.pkg.api.resource.Quantity"
    modern = _document(kinds.CLAIM)["components"]["schemas"][name]
    assert modern["oneOf"] == [{"type": "string"}, {"type": "number"}]
    assert _swagger()["definitions"][name]["type"] == "string"


def test_the_protobuf_form_has_the_paths_and_definitions_of_the_json_form() -> None:
    swagger, message = _swagger(), openapi_v2.document_protobuf()
    (paths,), (definitions,) = _texts(message, 8), _texts(message, 9)
    assert list(_entries(paths, 2)) == list(swagger["paths"])
    found = _entries(definitions, 1)
    assert list(found) == list(swagger["definitions"])
    for name, schema in swagger["definitions"].items():
        properties = [key for part in _texts(found[name], 25) for key in _entries(part, 1)]
        assert properties == list(schema.get("properties", ()))


def test_a_member_the_protobuf_form_cannot_carry_is_an_error() -> None:
    with pytest.raises(KeyError, match="license"):
        gnostic.encode({"info": {"license": {"name": "x"}}})


def test_a_default_that_is_a_list_stays_one_value() -> None:
    schema = {"type": "array", "default": ["Persistent"]}
    message = gnostic.encode({"definitions": {"T": schema}})
    found = _entries(_texts(message, 9)[0], 1)["T"]
    (default,) = _texts(found, 5)
    assert bytes(_texts(default, 2)[0]) == b'["Persistent"]'
