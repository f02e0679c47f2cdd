"""Creating objects over HTTP: what the body may be, what is stored, what is refused."""

from __future__ import annotations

import re
from typing import Any

import pytest

from holdfast.apiserver.protowire import delimited
from wire import (
    CLAIMS,
    CLASSES,
    CONFIG_MAPS,
    CORE,
    MERGE_PATCH,
    NAMESPACES,
    STORAGE,
    STRATEGIC_PATCH,
    VOLUMES,
    Wire,
    claim,
    config_map,
    meta,
    storage_class,
    volume,
)

UNKNOWN = 'strict decoding error: unknown field "spec.flavour"'
UNREADABLE = 'PersistentVolumeClaim in version "v1" cannot be handled as a PersistentVolumeClaim: '
QUANTITY = (
    "quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'"
)
HINT = '"10GB": use 10G (10^9 bytes) or 10Gi (2^30 bytes)'


# Create


async def test_a_created_object_is_answered_with_201_as_it_is_stored(api: Wire) -> None:
    reply = await api.call("POST", CLAIMS, claim("a"))
    assert reply.code == 201
    assert reply.headers["content-type"] == "application/json"
    stored = await api.read(f"{CLAIMS}/a")
    assert reply.body == stored
    assert list(stored)[:3] == ["kind", "apiVersion", "metadata"]
    assert stored["status"] == {"phase": "Pending"}
    assert stored["spec"]["volumeMode"] == "Filesystem"
    assert stored["metadata"]["finalizers"] == ["kubernetes.io/pvc-protection"]
    assert re.fullmatch(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", stored["metadata"]["uid"])


async def test_what_the_server_sets_cannot_be_given(api: Wire) -> None:
    body = volume("v")
    body["metadata"] |= {
        "uid": "mine",
        "creationTimestamp": "2001-01-01T00:00:00Z",
        "deletionTimestamp": "2001-01-01T00:00:00Z",
        "deletionGracePeriodSeconds": 5,
        "namespace": "dropped",
    }
    body["status"] = {"phase": "Bound"}
    made = await api.make(VOLUMES, body)
    assert made["metadata"]["uid"] != "mine"
    assert not made["metadata"]["creationTimestamp"].startswith("2001")
    assert not {"deletionTimestamp", "namespace"} & made["metadata"].keys()
    assert made["status"]["phase"] == "Pending"
    assert made["status"]["lastPhaseTransitionTime"] == made["metadata"]["creationTimestamp"]


@pytest.mark.parametrize(
    ("path", "body", "expected"),
    [
        (
            VOLUMES,
            volume("v"),
            {"persistentVolumeReclaimPolicy": "Retain", "volumeMode": "Filesystem"},
        ),
        (VOLUMES, volume("v"), {"hostPath": {"path": "/data/v", "type": ""}}),
        (CLAIMS, claim("c"), {"volumeMode": "Filesystem"}),
        (
            f"{STORAGE}/csidrivers",
            {"metadata": meta("d.example.com"), "spec": {}},
            {
                "attachRequired": True,
                "podInfoOnMount": False,
                "storageCapacity": False,
                "requiresRepublish": False,
                "seLinuxMount": False,
                "fsGroupPolicy": "ReadWriteOnceWithFSType",
                "volumeLifecycleModes": ["Persistent"],
            },
        ),
    ],
)
async def test_defaults_are_filled_in(
    api: Wire, path: str, body: dict[str, Any], expected: dict[str, Any]
) -> None:
    spec = (await api.make(path, body))["spec"]
    assert {key: spec.get(key) for key in expected} == expected


async def test_a_class_deletes_at_once_by_default(api: Wire) -> None:
    made = await api.make(CLASSES, storage_class("c"))
    assert made["reclaimPolicy"] == "Delete"
    assert made["volumeBindingMode"] == "Immediate"


async def test_an_attachment_starts_detached(api: Wire) -> None:
    spec = {"attacher": "x", "nodeName": "n", "source": {"persistentVolumeName": "v"}}
    body = {"metadata": meta("va"), "spec": spec, "status": {"attached": True}}
    path = f"{STORAGE}/volumeattachments"
    assert (await api.make(path, body))["status"] == {"attached": False}
    # Its status is written through /status only.
    made = await api.read(f"{path}/va")
    put = await api.call("PUT", f"{path}/va", {**made, "status": {"attached": True}})
    assert put.body["status"] == {"attached": False}
    patched = await api.patch(f"{path}/va/status", {"status": {"attached": True}})
    assert patched.body["status"] == {"attached": True}


async def test_a_taken_name_is_a_conflict(api: Wire) -> None:
    await api.make(CLAIMS, claim("a"))
    reply = await api.call("POST", CLAIMS, claim("a"))
    assert (reply.code, reply.reason) == (409, "AlreadyExists")
    assert reply.message == 'persistentvolumeclaims "a" already exists'
    assert reply.body["details"] == {"name": "a", "kind": "persistentvolumeclaims"}


async def test_the_group_is_part_of_the_name_of_the_resource(api: Wire) -> None:
    reply = await api.call("GET", f"{CLASSES}/none")
    assert reply.message == 'storageclasses.storage.k8s.io "none" not found'
    assert reply.body == {
        "kind": "Status",
        "apiVersion": "v1",
        "metadata": {},
        "status": "Failure",
        "message": 'storageclasses.storage.k8s.io "none" not found',
        "reason": "NotFound",
        "details": {"name": "none", "group": "storage.k8s.io", "kind": "storageclasses"},
        "code": 404,
    }


async def test_an_object_to_create_has_no_resource_version(api: Wire) -> None:
    body = config_map("a", resourceVersion="7")
    reply = await api.call("POST", CONFIG_MAPS, body)
    assert reply.code == 500
    assert reply.message == "resourceVersion should not be set on objects to be created"
    assert "reason" not in reply.body


async def test_a_generated_name_has_five_safe_characters(api: Wire) -> None:
    made = await api.make(CLAIMS, {**claim(""), "metadata": {"generateName": "data-"}})
    assert re.fullmatch("data-[bcdfghjklmnpqrstvwxz2456789]{5}", made["metadata"]["name"])
    assert made["metadata"]["generateName"] == "data-"
    long = "x" * 80
    made = await api.make(CLAIMS, {**claim(""), "metadata": {"generateName": long}})
    assert len(made["metadata"]["name"]) == 63


@pytest.mark.parametrize(
    ("namespace", "body", "code", "message"),
    [
        ("nope", config_map("a"), 404, 'namespaces "nope" not found'),
        (
            "default",
            config_map("a", namespace="other"),
            400,
            "the namespace of the provided object does not match the namespace sent on the request",
        ),
    ],
)
async def test_the_namespace_has_to_be_there_and_match(
    api: Wire, namespace: str, body: dict[str, Any], code: int, message: str
) -> None:
    reply = await api.call("POST", f"{CORE}/namespaces/{namespace}/configmaps", body)
    assert (reply.code, reply.message) == (code, message)


async def test_nothing_is_made_in_a_namespace_that_ends(api: Wire) -> None:
    await api.make(NAMESPACES, {"metadata": meta("end")})
    ended = await api.call("DELETE", f"{NAMESPACES}/end")
    assert (ended.code, ended.body["status"]["phase"]) == (200, "Terminating")
    assert "deletionGracePeriodSeconds" not in ended.body["metadata"]
    reply = await api.call("POST", f"{NAMESPACES}/end/configmaps", config_map("a"))
    assert (reply.code, reply.reason) == (403, "Forbidden")
    assert reply.message == (
        'configmaps "a" is forbidden: unable to create new content in namespace end '
        "because it is being terminated"
    )
    cause = ("metadata.namespace", "NamespaceTerminating", "namespace end is being terminated")
    assert reply.causes == [cause]


# What the body may be


@pytest.mark.parametrize(
    ("body", "code", "message"),
    [
        (b"{", 400, None),
        (b"", 400, None),
        (b"[]", 400, None),
        (b'{"metadata": "\xff"}', 400, None),
        (b"[" * 100_000, 400, None),
        (
            {**claim("a"), "spec": {"accessModes": "ReadWriteOnce"}},
            400,
            f"{UNREADABLE}json: cannot unmarshal string into Go struct field "
            "PersistentVolumeClaimSpec.spec.accessModes of type []v1.PersistentVolumeAccessMode",
        ),
        (claim("a", "10GB"), 400, f"{UNREADABLE}{QUANTITY}"),
        (
            {**claim("a"), "apiVersion": "v2"},
            400,
            'PersistentVolumeClaim in version "v2" cannot be handled as a PersistentVolumeClaim: '
            'no kind "PersistentVolumeClaim" is registered for version "v2" '
            'in scheme "pkg/api/legacyscheme/scheme.go:30"',
        ),
        (volume("a"), 400, None),
    ],
)
async def test_a_body_that_cannot_be_read_is_a_bad_request(
    api: Wire, body: object, code: int, message: str | None
) -> None:
    reply = await api.call("POST", CLAIMS, body)
    assert (reply.code, reply.reason) == (code, "BadRequest"), reply.content
    if message is not None:
        assert reply.message == message


async def test_an_amount_that_is_none_is_refused_with_a_hint_as_a_warning(api: Wire) -> None:
    reply = await api.call("POST", CLAIMS, claim("a", "10GB"))
    quoted = HINT.replace('"', '\\"')
    assert reply.headers["warning"] == f'299 - "spec.resources.requests: {quoted}"'


async def test_a_body_of_unknown_type_is_refused(api: Wire) -> None:
    reply = await api.call("POST", CLAIMS, b"<claim/>", type="text/xml")
    assert (reply.code, reply.reason) == (415, "UnsupportedMediaType")
    assert reply.message.startswith("the body of the request was in an unknown format")
    patch = await api.patch(f"{CLAIMS}/a", {}, type="application/json")
    assert patch.code == 415


async def test_yaml_is_read_as_well(api: Wire) -> None:
    text = b"metadata: {name: y}\ndata: {day: 2026-11-21, answer: 'yes'}\n"
    reply = await api.call("POST", CONFIG_MAPS, text, type="application/yaml")
    assert reply.body["data"] == {"day": "2026-11-21", "answer": "yes"}


async def test_a_typed_client_may_send_protobuf(api: Wire) -> None:
    protobuf = "application/vnd.kubernetes.protobuf"
    name, value = delimited(1, b"pb"), delimited(2, delimited(1, b"key") + delimited(2, b"value"))
    type_meta = delimited(1, b"v1") + delimited(2, b"ConfigMap")
    content = b"k8s\x00" + delimited(1, type_meta) + delimited(2, delimited(1, name) + value)
    reply = await api.call(
        "POST", CONFIG_MAPS, content, type=protobuf, accept=f"{protobuf},application/json"
    )
    assert (reply.code, reply.headers["content-type"]) == (201, "application/json")
    assert reply.body["data"] == {"key": "value"}
    bad = await api.call("POST", CONFIG_MAPS, b"k8s\x00\xff", type=protobuf)
    assert bad.code == 400


async def test_a_body_has_a_limit(api: Wire) -> None:
    body = config_map("big", {"key": "x" * (3 * 1024 * 1024)})
    reply = await api.call("POST", CONFIG_MAPS, body)
    assert (reply.code, reply.reason) == (413, "RequestEntityTooLarge")


@pytest.mark.parametrize(
    ("given", "canonical"),
    [
        ("1024Mi", "1Gi"),
        ("1.5Gi", "1536Mi"),
        ("0.5Gi", "512Mi"),
        ("1.5", "1500m"),
        ("1000000k", "1G"),
        (1073741824, "1073741824"),
        ("1e3", "1e3"),
        ("10Ei", "9223372036854775807"),
    ],
)
async def test_quantities_are_stored_in_canonical_form(
    api: Wire, given: object, canonical: str
) -> None:
    body = claim("q")
    body["spec"]["resources"]["requests"]["storage"] = given
    made = await api.make(CLAIMS, body)
    assert made["spec"]["resources"]["requests"]["storage"] == canonical


# Field validation


async def test_strict_validation_refuses_unknown_fields(api: Wire) -> None:
    body = claim("a", flavour="mint")
    reply = await api.call("POST", CLAIMS, body, fieldValidation="Strict")
    assert (reply.code, reply.message) == (400, f"{UNREADABLE}{UNKNOWN}")


async def test_strict_validation_names_every_field(api: Wire) -> None:
    body = (
        b'{"metadata": {"name": "a"}, "data": {"k": "1", "k": "2"}, "dat": {}, '
        b'"metadata": {"name": "a", "labels": {"x": "1", "x": "2"}}}'
    )
    reply = await api.call("POST", CONFIG_MAPS, body, fieldValidation="Strict")
    assert reply.message == (
        'ConfigMap in version "v1" cannot be handled as a ConfigMap: strict decoding error: '
        'duplicate field "metadata", duplicate field "metadata.labels.x", '
        'duplicate field "data.k", unknown field "dat"'
    )


@pytest.mark.parametrize("level", ["", "Warn"])
async def test_validation_warns_unless_told_otherwise(api: Wire, level: str) -> None:
    query: dict[str, Any] = {"fieldValidation": level} if level else {}
    body = b'{"metadata": {"name": "a", "name": "a"}, "dat": {}}'
    reply = await api.call("POST", CONFIG_MAPS, body, **query)
    assert reply.code == 201
    assert reply.warnings == [
        '299 - "duplicate field \\"metadata.name\\""',
        '299 - "unknown field \\"dat\\""',
    ]
    assert "dat" not in reply.body


async def test_validation_can_be_switched_off(api: Wire) -> None:
    body = b'{"metadata": {"name": "a", "name": "a"}, "dat": {}}'
    reply = await api.call("POST", CONFIG_MAPS, body, fieldValidation="Ignore")
    assert (reply.code, reply.warnings) == (201, [])


async def test_an_unknown_level_of_validation_is_refused(api: Wire) -> None:
    reply = await api.call("POST", CONFIG_MAPS, config_map("a"), fieldValidation="Lax")
    assert (reply.code, reply.body["details"]["kind"]) == (422, "CreateOptions")
    assert reply.message == (
        'CreateOptions.meta.k8s.io "" is invalid: fieldValidation: '
        'Unsupported value: "Lax": supported values: "", "Ignore", "Strict", "Warn"'
    )


async def test_a_put_and_a_patch_are_validated_strictly_too(api: Wire) -> None:
    made = await api.make(CLAIMS, claim("a"))
    made["spec"]["flavour"] = "mint"
    put = await api.call("PUT", f"{CLAIMS}/a", made, fieldValidation="Strict")
    assert (put.code, put.message) == (400, f"{UNREADABLE}{UNKNOWN}")
    for type in (MERGE_PATCH, STRATEGIC_PATCH):
        patch = await api.patch(
            f"{CLAIMS}/a", {"spec": {"flavour": "mint"}}, type, fieldValidation="Strict"
        )
        assert (patch.code, patch.reason) == (422, "Invalid")
        assert patch.message.startswith(' "" is invalid: patch: Invalid value: ')
        assert patch.message.endswith(UNKNOWN)


async def test_warnings_tell_what_is_unwise(api: Wire) -> None:
    cases = [
        (
            CLAIMS,
            claim("fraction", "100m"),
            'spec.resources.requests[storage]: fractional byte value \\"100m\\" is invalid, '
            "must be an integer",
        ),
        (
            VOLUMES,
            volume("recycled", persistentVolumeReclaimPolicy="Recycle"),
            "spec.persistentVolumeReclaimPolicy: The Recycle reclaim policy is deprecated. "
            "Instead, the recommended approach is to use dynamic provisioning.",
        ),
    ]
    for path, body, text in cases:
        reply = await api.call("POST", path, body)
        assert reply.code == 201, reply.content
        assert reply.warnings == [f'299 - "{text}"']


# Dry run


async def test_a_dry_run_stores_nothing(api: Wire) -> None:
    reply = await api.call("POST", CLAIMS, claim("a"), dryRun="All")
    assert reply.code == 201
    assert "resourceVersion" not in reply.body["metadata"]
    assert reply.body["status"] == {"phase": "Pending"}
    assert (await api.call("GET", f"{CLAIMS}/a")).code == 404

    made = await api.make(CONFIG_MAPS, config_map("m"))
    patched = await api.patch(f"{CONFIG_MAPS}/m", {"data": {"key": "new"}}, dryRun="All")
    assert patched.body["data"] == {"key": "new"}
    assert patched.body["metadata"] == made["metadata"]
    deleted = await api.call("DELETE", f"{CONFIG_MAPS}/m", dryRun="All")
    assert deleted.code == 200
    assert await api.read(f"{CONFIG_MAPS}/m") == made


async def test_a_dry_run_is_checked_like_the_real_thing(api: Wire) -> None:
    await api.make(CLAIMS, claim("a"))
    taken = await api.call("POST", CLAIMS, claim("a"), dryRun="All")
    assert taken.code == 409
    bad = await api.call("POST", CLAIMS, claim("b", "0"), dryRun="All")
    assert bad.code == 422
    half = await api.call("POST", CLAIMS, claim("b"), dryRun="Half")
    assert half.message == (
        'CreateOptions.meta.k8s.io "" is invalid: dryRun: '
        'Unsupported value: []string{"Half"}: supported values: "All"'
    )
