"""Status errors: texts, details and the way over the wire; field causes."""

from __future__ import annotations

import pytest

from holdfast.api import errors, fields
from holdfast.api.fields import Cause


def test_messages_of_the_reference() -> None:
    assert errors.NotFound.of("", "persistentvolumes", "x").message == (
        'persistentvolumes "x" not found'
    )
    assert errors.NotFound.of("storage.k8s.io", "storageclasses", "x").message == (
        'storageclasses.storage.k8s.io "x" not found'
    )
    assert errors.NotFound.resource().message == (
        "the server could not find the requested resource"
    )
    exists = errors.AlreadyExists.of("", "persistentvolumeclaims", "a", terminating=True)
    assert exists.message == ('object is being deleted: persistentvolumeclaims "a" already exists')
    assert errors.Conflict.of("", "persistentvolumes", "x").message == (
        'Operation cannot be fulfilled on persistentvolumes "x": the object has been modified; '
        "please apply your changes to the latest version and try again"
    )
    assert errors.Forbidden.of("", "persistentvolumes", "x", "no").message == (
        'persistentvolumes "x" is forbidden: no'
    )
    assert errors.Forbidden.of("apps", "things", "", "no").message == (
        "things.apps is forbidden: no"
    )
    assert errors.Forbidden.of("", "", "", "no").message == "forbidden: no"
    future = errors.Timeout.future(9, 5)
    assert future.message == "Timeout: Too large resource version: 9, current: 5"
    assert future.has_cause("ResourceVersionTooLarge")
    assert not future.has_cause("NamespaceTerminating")


def test_the_status_object_has_the_members_of_the_reference() -> None:
    error = errors.NotFound.of("storage.k8s.io", "storageclasses", "fast")
    assert error.status() == {
        "kind": "Status",
        "apiVersion": "v1",
        "metadata": {},
        "status": "Failure",
        "message": 'storageclasses.storage.k8s.io "fast" not found',
        "reason": "NotFound",
        "details": {"name": "fast", "group": "storage.k8s.io", "kind": "storageclasses"},
        "code": 404,
    }
    plain = errors.InternalError.unknown("boom").status()
    assert "reason" not in plain
    assert "details" not in plain


def test_invalid_says_equal_texts_once_but_lists_every_cause() -> None:
    cause = fields.required("spec.accessModes", "at least 1 access mode is required")
    one = errors.Invalid.of("", "PersistentVolumeClaim", "a", [cause])
    assert one.message == (
        'PersistentVolumeClaim "a" is invalid: spec.accessModes: Required value: '
        "at least 1 access mode is required"
    )
    other = fields.forbidden("spec", "no")
    several = errors.Invalid.of("storage.k8s.io", "StorageClass", "a", [cause, other, cause])
    assert several.message == (
        'StorageClass.storage.k8s.io "a" is invalid: [spec.accessModes: Required value: at least '
        "1 access mode is required, spec: Forbidden: no]"
    )
    assert [entry["field"] for entry in several.causes] == [
        "spec.accessModes",
        "spec",
        "spec.accessModes",
    ]
    assert several.causes[1] == {
        "reason": "FieldValueForbidden",
        "message": "Forbidden: no",
        "field": "spec",
    }
    assert errors.Invalid.of("", "Pod", "a", []).message == 'Pod "a" is invalid'


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (errors.BadRequest("x"), 400),
        (errors.Unauthorized(), 401),
        (errors.Forbidden("x"), 403),
        (errors.NotFound("x"), 404),
        (errors.MethodNotAllowed(), 405),
        (errors.NotAcceptable.of(["application/json"]), 406),
        (errors.AlreadyExists("x"), 409),
        (errors.Conflict("x"), 409),
        (errors.Gone("x"), 410),
        (errors.Expired.of("x"), 410),
        (errors.RequestTooLarge.of(3), 413),
        (errors.UnsupportedMediaType.of(["application/json"]), 415),
        (errors.Invalid("x"), 422),
        (errors.TooManyRequests.of("x", 2), 429),
        (errors.InternalError.of("x"), 500),
        (errors.ServiceUnavailable("x"), 503),
        (errors.Timeout.of("x", 1), 504),
    ],
)
def test_every_error_comes_back_from_its_status_as_itself(
    error: errors.StatusError, code: int
) -> None:
    assert error.code == code
    again = errors.StatusError.from_status(error.status())
    assert type(again) is type(error)
    assert again.status() == error.status()
    assert str(again) == error.message


def test_an_unknown_reason_goes_by_the_code() -> None:
    odd = errors.StatusError.from_status({"code": 409, "reason": "Odd", "message": "m"})
    assert type(odd) is errors.Conflict
    assert odd.reason == "Odd"
    assert type(errors.StatusError.from_status({"code": 410})) is errors.Gone
    bare = errors.StatusError.from_status({"code": 418})
    assert type(bare) is errors.StatusError
    assert bare.message == "the server answered with code 418"


@pytest.mark.parametrize(
    ("cause", "reason", "message"),
    [
        (fields.required("f"), "FieldValueRequired", "Required value"),
        (
            fields.invalid("f", "v", "x"),
            "FieldValueInvalid",
            'Invalid value: "v": x',
        ),
        (fields.invalid("f", 3, "x"), "FieldValueInvalid", "Invalid value: 3: x"),
        (fields.invalid("f", True, "x"), "FieldValueInvalid", "Invalid value: true: x"),
        (fields.invalid("f", None, ""), "FieldValueInvalid", 'Invalid value: "null"'),
        (
            fields.immutable("f", "v"),
            "FieldValueInvalid",
            'Invalid value: "v": field is immutable',
        ),
        (
            fields.not_supported("f", "v", ["b", "a"]),
            "FieldValueNotSupported",
            'Unsupported value: "v": supported values: "a", "b"',
        ),
        (fields.forbidden("f", "x"), "FieldValueForbidden", "Forbidden: x"),
        (fields.duplicate("f", "v"), "FieldValueDuplicate", 'Duplicate value: "v"'),
        (fields.not_found("f", "v"), "FieldValueNotFound", 'Not found: "v"'),
        (
            fields.too_long("f", 63),
            "FieldValueTooLong",
            "Too long: may not be more than 63 bytes",
        ),
        (
            fields.too_many("f", 5, 1),
            "FieldValueTooMany",
            "Too many: 5: must have at most 1 item",
        ),
    ],
)
def test_causes_have_the_texts_of_the_reference(cause: Cause, reason: str, message: str) -> None:
    assert (cause.field, cause.reason, cause.message) == ("f", reason, message)
    assert cause.text() == f"f: {message}"


@pytest.mark.parametrize(
    ("text", "quoted"),
    [
        ("plain", '"plain"'),
        ('a"b\\c', r'"a\"b\\c"'),
        ("a\nb\tc\x07\x01\x7f", r'"a\nb\tc\a\x01\x7f"'),
        ("é☺", '"é☺"'),
        ("\u200b\U000e0001", r'"\u200b\U000e0001"'),
    ],
)
def test_strings_are_quoted_as_go_does(text: str, quoted: str) -> None:
    assert fields.quote(text) == quoted
