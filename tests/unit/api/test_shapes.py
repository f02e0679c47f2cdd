"""Decoding and defaulting by shapes: the canonical form and the texts of errors.

The expected values were taken from a Kubernetes 1.32 decoder.
"""

from __future__ import annotations

import copy
import enum
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.api import shapes

CLAIM = shapes.of("PersistentVolumeClaim")
POD = shapes.of("Pod")


def claim(**spec: Any) -> dict[str, Any]:
    return CLAIM.decode({"spec": spec})


def decode_error(kind: str, value: object) -> shapes.DecodeError:
    with pytest.raises(shapes.DecodeError) as caught:
        shapes.of(kind).decode(value)
    return caught.value


# The canonical form


def test_structures_that_are_not_optional_are_always_written() -> None:
    assert CLAIM.decode({}) == {"metadata": {}, "spec": {"resources": {}}, "status": {}}


def test_a_new_node_shows_the_zero_values_that_kubernetes_shows() -> None:
    status = shapes.of("Node").decode({})["status"]
    assert status["daemonEndpoints"] == {"kubeletEndpoint": {"Port": 0}}
    assert status["nodeInfo"]["kubeletVersion"] == ""
    assert "capacity" not in status


def test_zero_values_of_optional_fields_are_dropped() -> None:
    assert claim(volumeName="", accessModes=[], selector=None) == CLAIM.decode({})


def test_zero_values_behind_pointers_are_kept() -> None:
    decoded = claim(storageClassName="", selector={})
    assert decoded["spec"] == {"storageClassName": "", "selector": {}, "resources": {}}


def test_a_null_creation_timestamp_is_dropped() -> None:
    assert CLAIM.decode({"metadata": {"name": "a", "creationTimestamp": None}})["metadata"] == {
        "name": "a"
    }


def test_nulls_inside_lists_and_maps_become_zero_values() -> None:
    decoded = CLAIM.decode(
        {
            "metadata": {"labels": {"a": None}},
            "spec": {
                "accessModes": [None, "ReadWriteOnce"],
                "selector": {"matchExpressions": [None]},
                "resources": {"requests": {"storage": None}},
            },
        }
    )
    assert decoded["metadata"]["labels"] == {"a": ""}
    assert decoded["spec"] == {
        "accessModes": ["", "ReadWriteOnce"],
        "selector": {"matchExpressions": [{"key": "", "operator": ""}]},
        "resources": {"requests": {"storage": "0"}},
    }


@pytest.mark.parametrize(
    ("given", "kept"),
    [("1024Mi", "1Gi"), ("1.5Gi", "1536Mi"), (1073741824, "1073741824"), ("1.5", "1500m")],
)
def test_quantities_are_kept_in_canonical_form(given: object, kept: str) -> None:
    decoded = claim(resources={"requests": {"storage": given}})
    assert decoded["spec"]["resources"] == {"requests": {"storage": kept}}


def test_times_are_kept_as_whole_seconds_of_utc() -> None:
    decoded = CLAIM.decode({"metadata": {"creationTimestamp": "2020-01-01T01:02:03.999+01:00"}})
    assert decoded["metadata"]["creationTimestamp"] == "2020-01-01T00:02:03Z"


def test_micro_times_are_kept_with_six_digits_of_utc() -> None:
    spec = {"renewTime": "2020-01-01T01:02:03.123456+01:00", "acquireTime": "2020-01-01T01:02:03Z"}
    assert shapes.of("Lease").decode({"spec": spec})["spec"] == {
        "renewTime": "2020-01-01T00:02:03.123456Z",
        "acquireTime": "2020-01-01T01:02:03.000000Z",
    }


def test_base64_is_kept_padded_and_without_line_breaks() -> None:
    secret = shapes.of("Secret").decode({"data": {"a": "YQ=\n=", "b": "YR==", "c": ""}})
    assert secret["data"] == {"a": "YQ==", "b": "YQ==", "c": ""}


def test_string_data_stays_beside_data() -> None:
    secret = shapes.of("Secret").decode({"stringData": {"a": "plain"}})
    assert secret == {"metadata": {}, "stringData": {"a": "plain"}}


def test_a_port_may_be_a_number_or_a_name() -> None:
    ports = [{"port": 80, "targetPort": "web"}, {"port": 81, "targetPort": 8081}, {"port": 82}]
    decoded = shapes.of("Service").decode({"spec": {"ports": ports}})
    assert [port["targetPort"] for port in decoded["spec"]["ports"]] == ["web", 8081, 0]


def test_a_string_enumeration_member_becomes_a_plain_string() -> None:
    class Mode(enum.StrEnum):
        BLOCK = "Block"

    decoded = claim(volumeMode=Mode.BLOCK, accessModes=[Mode.BLOCK])
    assert type(decoded["spec"]["volumeMode"]) is str
    assert type(decoded["spec"]["accessModes"][0]) is str


def test_decoding_leaves_its_argument_alone_and_shares_nothing_with_it() -> None:
    source = {
        "metadata": {"labels": {"a": "b"}, "finalizers": ["x"]},
        "spec": {
            "accessModes": ["ReadWriteOnce"],
            "resources": {"requests": {"storage": "1024Mi"}},
        },
    }
    before = copy.deepcopy(source)
    decoded = CLAIM.default(CLAIM.decode(source))
    decoded["metadata"]["labels"]["c"] = "d"
    decoded["metadata"]["finalizers"].append("y")
    decoded["spec"]["accessModes"].append("ReadOnlyMany")
    assert source == before


def test_the_zero_values_of_two_objects_are_not_shared() -> None:
    first, second = CLAIM.decode({}), CLAIM.decode({})
    first["spec"]["resources"]["requests"] = {"storage": "1Gi"}
    assert second["spec"] == {"resources": {}}


# Unknown fields


def test_unknown_fields_are_dropped_and_reported_by_path() -> None:
    unknown: list[str] = []
    pod = {
        "Kind": "Pod",
        "metadata": {"labels": {"any": "label"}, "nmae": "x"},
        "spec": {"containers": [{"name": "a"}, {"name": "b", "volumeMonts": [{"name": "v"}]}]},
    }
    decoded = POD.decode(pod, unknown)
    assert unknown == ["Kind", "metadata.nmae", "spec.containers[1].volumeMonts"]
    assert "volumeMonts" not in decoded["spec"]["containers"][1]
    assert decoded["metadata"] == {"labels": {"any": "label"}}


def test_unknown_fields_with_null_values_are_reported_too() -> None:
    unknown: list[str] = []
    CLAIM.decode({"spec": {"foo": None}}, unknown)
    assert unknown == ["spec.foo"]


def test_field_names_are_case_sensitive() -> None:
    unknown: list[str] = []
    assert CLAIM.decode({"spec": {"VolumeName": "v"}}, unknown)["spec"] == {"resources": {}}
    assert unknown == ["spec.VolumeName"]


# Errors


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (
            {"spec": {"accessModes": "x"}},
            "json: cannot unmarshal string into Go struct field "
            "PersistentVolumeClaimSpec.spec.accessModes of type []v1.PersistentVolumeAccessMode",
        ),
        (
            {"spec": {"accessModes": [1]}},
            "json: cannot unmarshal number into Go struct field "
            "PersistentVolumeClaimSpec.spec.accessModes of type v1.PersistentVolumeAccessMode",
        ),
        (
            {"spec": {"volumeMode": 1}},
            "json: cannot unmarshal number into Go struct field "
            "PersistentVolumeClaimSpec.spec.volumeMode of type v1.PersistentVolumeMode",
        ),
        (
            {"spec": "x"},
            "json: cannot unmarshal string into Go struct field "
            "PersistentVolumeClaim.spec of type v1.PersistentVolumeClaimSpec",
        ),
        (
            {"metadata": {"labels": {"a": 1}}},
            "json: cannot unmarshal number into Go struct field "
            "ObjectMeta.metadata.labels of type string",
        ),
        (
            {"metadata": {"labels": []}},
            "json: cannot unmarshal array into Go struct field "
            "ObjectMeta.metadata.labels of type map[string]string",
        ),
        (
            {"metadata": {"generation": 1.5}},
            "json: cannot unmarshal number 1.5 into Go struct field "
            "ObjectMeta.metadata.generation of type int64",
        ),
        (
            {"metadata": {"generation": True}},
            "json: cannot unmarshal bool into Go struct field "
            "ObjectMeta.metadata.generation of type int64",
        ),
        (
            {"status": {"conditions": [{"type": {}}]}},
            "json: cannot unmarshal object into Go struct field PersistentVolumeClaimCondition."
            "status.conditions.type of type v1.PersistentVolumeClaimConditionType",
        ),
        ([], "json: cannot unmarshal array into Go value of type v1.PersistentVolumeClaim"),
    ],
)
def test_a_value_of_the_wrong_type_is_refused_as_kubernetes_does(
    value: object, message: str
) -> None:
    assert str(decode_error("PersistentVolumeClaim", value)) == message


def test_a_number_that_does_not_fit_is_quoted() -> None:
    port = {"spec": {"containers": [{"ports": [{"containerPort": 3000000000}]}]}}
    assert str(decode_error("Pod", port)) == (
        "json: cannot unmarshal number 3000000000 into Go struct field "
        "ContainerPort.spec.containers.ports.containerPort of type int32"
    )


@pytest.mark.parametrize("amount", ["10GB", "", True, [1]])
def test_a_bad_quantity_is_refused_with_the_expression_it_must_match(amount: object) -> None:
    error = decode_error(
        "PersistentVolumeClaim", {"spec": {"resources": {"requests": {"storage": amount}}}}
    )
    assert str(error) == (
        "quantities must match the regular expression "
        "'^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'"
    )
    assert error.path == ["spec", "resources", "requests"]


def test_a_bad_quantity_carries_a_hint_for_its_writer() -> None:
    error = decode_error("PersistentVolume", {"spec": {"capacity": {"storage": "10GB"}}})
    assert "10Gi" in error.hint


@pytest.mark.parametrize("text", ["x", "", "2020-02-30T01:02:03Z", "2020-01-01 01:02:03"])
def test_a_bad_time_is_refused(text: str) -> None:
    error = decode_error("Pod", {"metadata": {"creationTimestamp": text}})
    assert str(error).startswith(f'parsing time "{text}"')


def test_a_time_that_is_no_text_is_refused() -> None:
    error = decode_error("Pod", {"metadata": {"creationTimestamp": 1}})
    assert str(error).endswith("ObjectMeta.metadata.creationTimestamp of type string")


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("x", 0),
        ("YQ=", 3),
        ("Y!Q=", 1),
        ("YWE", 0),
        ("YQ==YQ==", 4),
        ("YQ=a", 2),
        ("YWE=a", 4),
        ("YWFh=", 4),
    ],
)
def test_bad_base64_is_refused_with_the_place_of_the_error(text: str, place: int) -> None:
    error = decode_error("Secret", {"data": {"a": text}})
    assert str(error) == f"illegal base64 data at input byte {place}"


def test_errors_in_secrets_do_not_show_the_data() -> None:
    error = decode_error("Secret", {"data": {"password": "hunter2!"}})
    assert "hunter2" not in f"{error} {error.hint}"


# Properties


def values_of(shape: shapes.Shape, depth: int = 0) -> st.SearchStrategy[dict[str, Any]]:
    """Values of a shape as a client might send them, zeros and nulls included."""
    fields = {} if depth > 4 else shape.fields
    return st.fixed_dictionaries(
        {}, optional={name: value_of(field, depth) for name, field in fields.items()}
    )


def value_of(field: shapes.Field, depth: int) -> st.SearchStrategy[Any]:
    element = field.element
    one = SCALARS[field.leaf] if element is None else values_of(element, depth + 1)
    if field.is_list:
        one = st.lists(one, max_size=2)
    elif field.is_map:
        one = st.dictionaries(st.sampled_from(["a", "storage"]), one, max_size=2)
    return st.none() | one


SCALARS: dict[str, st.SearchStrategy[Any]] = {
    "string": st.sampled_from(["", "a"]),
    "bool": st.booleans(),
    "int32": st.sampled_from([0, 1, -(2**31)]),
    "int64": st.sampled_from([0, 1, 2**63 - 1]),
    "float": st.sampled_from([0.0, 1.5]),
    "quantity": st.sampled_from([0, "0", "1024Mi", "1e3", "1500000n", 1.5]),
    "time": st.sampled_from(["2026-01-02T03:04:05Z", "2026-01-02T03:04:05.6+02:00"]),
    "microtime": st.sampled_from(["2026-01-02T03:04:05.000001Z"]),
    "intorstring": st.sampled_from([0, 80, "", "web"]),
    "bytes": st.sampled_from(["", "YQ==", "YWJj\n"]),
    "any": st.just({"x": 1}),
    "fields": st.just({"f:x": {}}),
}


@pytest.mark.parametrize(
    "name", ["PersistentVolumeClaim", "StorageClass", "Event", "CSINode", "Lease", "Secret"]
)
@given(data=st.data())
def test_decoding_and_defaulting_again_changes_nothing(name: str, data: st.DataObject) -> None:
    shape = shapes.of(name)
    once = shape.default(shape.decode(data.draw(values_of(shape))))
    again = shape.default(shape.decode(once))
    assert again == once
