"""Protobuf bodies: real bytes of the Go client against the JSON of the same objects.

The pairs in `data/protobuf` were marshalled by k8s.io/api 0.32 from one Go value
each, or answered by kube-apiserver 1.32; members that are null in Go's JSON are left out of the
expected side.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.api import errors, kinds
from holdfast.apiserver import protobuf, protowire
from holdfast.apiserver.protowire import WireError, delimited, tag, varint

_DATA = Path(__file__).parent / "data" / "protobuf"
_NAMES = sorted(path.stem for path in _DATA.glob("*.pb"))


def _body(api_version: str, kind: str, raw: bytes, *, more: bytes = b"") -> bytes:
    type_meta = delimited(1, api_version.encode()) + delimited(2, kind.encode())
    return protobuf.MAGIC + delimited(1, type_meta) + delimited(2, raw) + more


def _expected(name: str) -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads((_DATA / f"{name}.json").read_text())
    return loaded


def _raw(name: str) -> bytes:
    """Cut the object's own message out of a fixture's envelope."""
    body = (_DATA / f"{name}.pb").read_bytes().removeprefix(protobuf.MAGIC)
    found = (value for number, _, value in protowire.read_fields(body) if number == 2)
    return b"".join(bytes(value) for value in found if isinstance(value, memoryview))


def test_the_fixtures_cover_every_kind_that_has_a_path() -> None:
    covered = {_expected(name)["kind"] for name in _NAMES}
    # Custom resources, which the snapshot kinds are on a cluster, do not travel in protobuf.
    spoken = {kind.name for kind in kinds.SERVED if kind.group != kinds.SNAPSHOT_GROUP}
    assert spoken <= covered


@pytest.mark.parametrize("name", _NAMES)
def test_a_body_of_the_go_client_reads_as_its_json(name: str) -> None:
    assert protobuf.decode((_DATA / f"{name}.pb").read_bytes()) == _expected(name)


@pytest.mark.parametrize("name", _NAMES)
def test_fields_of_a_newer_client_are_skipped(name: str) -> None:
    expected = _expected(name)
    newer = b"".join(
        (
            delimited(9001, b"text"),
            tag(9002, protowire.VARINT) + varint(7),
            tag(9003, protowire.FIXED64) + bytes(8),
            tag(9004, protowire.FIXED32) + bytes(4),
        )
    )
    body = _body(expected["apiVersion"], expected["kind"], newer + _raw(name) + newer)
    assert protobuf.decode(body) == expected


@pytest.mark.parametrize("name", ["claim", "pod", "node"])
def test_a_body_cut_anywhere_is_a_bad_request_or_a_shorter_object(name: str) -> None:
    expected, raw = _expected(name), _raw(name)
    refused = 0
    for end in range(len(raw)):
        try:
            protobuf.decode(_body(expected["apiVersion"], expected["kind"], raw[:end]))
        except errors.BadRequest:
            refused += 1
    # A cut between two fields leaves a well-formed message, any other does not.
    boundaries = sum(1 for _ in protowire.read_fields(raw))
    assert refused == len(raw) - boundaries


@given(st.binary(max_size=200))
def test_arbitrary_bytes_never_raise_anything_but_a_bad_request(raw: bytes) -> None:
    for api_version, kind in (("v1", "PersistentVolumeClaim"), ("v1", "Pod"), ("v1", "Event")):
        try:
            found = protobuf.decode(_body(api_version, kind, raw))
        except errors.BadRequest:
            continue
        json.dumps(found)


@given(st.integers(min_value=-(2**63), max_value=2**63 - 1))
def test_every_integer_survives_the_varint_encoding(value: int) -> None:
    encoded = varint(value)
    found, end = protowire.read_varint(encoded, 0)
    assert (protowire.signed(found), end) == (value, len(encoded))


def test_a_varint_without_an_end_is_refused() -> None:
    with pytest.raises(WireError, match="longer than 10 bytes"):
        protowire.read_varint(b"\xff" * 20, 0)


def test_packed_numbers_read_like_separate_ones() -> None:
    # PodSecurityContext.supplementalGroups is field 4; spec 2, securityContext 14.
    packed = delimited(4, varint(0) + varint(70000) + varint(-1))
    separate = b"".join(tag(4, protowire.VARINT) + varint(n) for n in (0, 70000, -1))
    found = [
        protobuf.decode(_body("v1", "Pod", delimited(2, delimited(14, groups))))
        for groups in (packed, separate)
    ]
    assert found[0] == found[1]
    assert found[0]["spec"]["securityContext"]["supplementalGroups"] == [0, 70000, -1]


def test_a_map_entry_without_a_value_has_the_zero_value() -> None:
    found = protobuf.decode(_body("v1", "ConfigMap", delimited(2, delimited(1, b"key"))))
    assert found["data"] == {"key": ""}


def test_a_body_without_the_magic_is_refused() -> None:
    with pytest.raises(errors.BadRequest, match=r"expected prefix \[107 56 115 0\]"):
        protobuf.decode(b'{"kind":"Secret"}')


def test_an_unknown_kind_is_refused_by_name() -> None:
    with pytest.raises(errors.BadRequest, match='no kind "Gadget" is registered for version "v1"'):
        protobuf.decode(_body("v1", "Gadget", b""))


def test_a_part_of_an_object_is_not_a_body() -> None:
    with pytest.raises(errors.BadRequest, match='no kind "ObjectReference"'):
        protobuf.decode(_body("v1", "ObjectReference", b""))


def test_a_compressed_body_is_refused() -> None:
    with pytest.raises(errors.BadRequest, match='content encoding "gzip" is not supported'):
        protobuf.decode(_body("v1", "Secret", b"", more=delimited(3, b"gzip")))


def test_an_error_names_the_kind_and_the_place() -> None:
    metadata = delimited(1, delimited(1, b"\xff\xfe"))
    with pytest.raises(errors.BadRequest) as caught:
        protobuf.decode(_body("v1", "Secret", metadata))
    assert caught.value.message == (
        'Secret in version "v1" cannot be handled as a Secret: '
        "metadata: name: a string is not valid UTF-8"
    )


def test_a_field_of_the_wrong_wire_type_is_refused() -> None:
    number = tag(1, protowire.VARINT) + varint(5)
    with pytest.raises(errors.BadRequest, match="metadata: wire type 0 where 2 belongs"):
        protobuf.decode(_body("v1", "Secret", number))


def test_a_time_outside_the_calendar_is_refused() -> None:
    far = tag(1, protowire.VARINT) + varint(2**62)
    with pytest.raises(errors.BadRequest, match="is not a time"):
        protobuf.decode(_body("v1", "Secret", delimited(1, delimited(8, far))))


def test_delete_options_are_read_in_any_group() -> None:
    grace = tag(1, protowire.VARINT) + varint(0)
    found = protobuf.decode(_body("storage.k8s.io/v1", "DeleteOptions", grace))
    assert found["gracePeriodSeconds"] == 0
