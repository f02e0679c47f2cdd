"""JSON merge patch and JSON patch."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from holdfast.api import patches

SCALARS = st.none() | st.booleans() | st.integers(0, 2) | st.sampled_from(["", "a"])
DOCS = st.recursive(
    SCALARS,
    lambda inner: (
        st.dictionaries(st.sampled_from("abc"), inner, max_size=3) | st.lists(inner, max_size=2)
    ),
    max_leaves=8,
)


@pytest.mark.parametrize(
    ("doc", "patch", "expected"),
    [
        ({"a": "b"}, {"a": "c"}, {"a": "c"}),
        ({"a": "b"}, {"b": "c"}, {"a": "b", "b": "c"}),
        ({"a": "b"}, {"a": None}, {}),
        ({"a": "b", "b": "c"}, {"a": None}, {"b": "c"}),
        ({"a": ["b"]}, {"a": "c"}, {"a": "c"}),
        ({"a": "c"}, {"a": ["b"]}, {"a": ["b"]}),
        ({"a": {"b": "c"}}, {"a": {"b": "d", "c": None}}, {"a": {"b": "d"}}),
        ({"a": [{"b": "c"}]}, {"a": [1]}, {"a": [1]}),
        (["a", "b"], ["c", "d"], ["c", "d"]),
        ({"a": "b"}, ["c"], ["c"]),
        ({"a": "foo"}, None, None),
        ({"e": None}, {"a": 1}, {"e": None, "a": 1}),
        ([1, 2], {"a": "b", "c": None}, {"a": "b"}),
        ({}, {"a": {"bb": {"ccc": None}}}, {"a": {"bb": {}}}),
        ({"a": 1}, {"a": True}, {"a": True}),
        ({"a": [1]}, {"a": [True]}, {"a": [True]}),
    ],
)
def test_the_examples_of_rfc_7386(doc: Any, patch: Any, expected: Any) -> None:
    merged = patches.merge_patch(doc, patch)
    assert repr(merged) == repr(expected)


def _plain_merge(doc: Any, patch: Any) -> Any:
    """Follow the algorithm of RFC 7386, section 2, without sharing."""
    if not isinstance(patch, dict):
        return patch
    result = dict(doc) if isinstance(doc, dict) else {}
    for key, value in patch.items():
        if value is None:
            result.pop(key, None)
        else:
            result[key] = _plain_merge(result.get(key), value)
    return result


@settings(max_examples=300)
@given(DOCS, DOCS)
def test_merging_agrees_with_the_plain_algorithm_and_changes_no_input(doc: Any, patch: Any) -> None:
    before = copy.deepcopy((doc, patch))
    merged = patches.merge_patch(doc, patch)
    assert repr(merged) == repr(_plain_merge(doc, patch))
    assert repr((doc, patch)) == repr(before)


def test_untouched_parts_are_shared_and_a_no_op_is_the_document() -> None:
    doc: dict[str, Any] = {"spec": {"a": {"x": 1}, "b": {"y": 2}}, "status": {"phase": "Bound"}}
    merged = patches.merge_patch(doc, {"spec": {"a": {"x": 3}}})
    assert merged["status"] is doc["status"]
    assert merged["spec"]["b"] is doc["spec"]["b"]
    assert doc["spec"]["a"] == {"x": 1}
    assert patches.merge_patch(doc, {"status": {"phase": "Bound", "gone": None}}) is doc


def test_operations_are_applied_in_order_to_a_copy() -> None:
    doc = {"a": {"b": [1, 2]}, "x": 1}
    value: dict[str, Any] = {"n": {}}
    ops: list[dict[str, Any]] = [
        {"op": "test", "path": "/x", "value": 1},
        {"op": "add", "path": "/new", "value": value},
        {"op": "add", "path": "/new/n/deep", "value": 5},
        {"op": "add", "path": "/a/b/-", "value": 3},
        {"op": "remove", "path": "/a/b/0"},
        {"op": "replace", "path": "/x", "value": 2},
        {"op": "move", "from": "/x", "path": "/y"},
        {"op": "copy", "from": "/a/b", "path": "/c"},
        {"op": "add", "path": "/m~1n~0", "value": 0},
    ]
    assert patches.json_patch(doc, ops) == {
        "a": {"b": [2, 3]},
        "new": {"n": {"deep": 5}},
        "y": 2,
        "c": [2, 3],
        "m/n~": 0,
    }
    assert doc == {"a": {"b": [1, 2]}, "x": 1}
    assert value == {"n": {}}


@pytest.mark.parametrize(
    ("ops", "message", "malformed"),
    [
        ({"op": "add"}, "must be a list", True),
        (["add"], "operation 0 must be an object", True),
        ([{"op": "add"}], 'operation 0 needs "path"', True),
        ([{"path": "/a"}], 'operation 0 needs "op"', True),
        ([{"op": "add", "path": "/z"}], "value", False),
        ([{"op": "fly", "path": "/z"}], "fly", False),
        ([{"op": "copy", "path": "/z"}], "from", False),
        ([{"op": "remove", "path": "/z"}], r"operation 0 \(remove /z\)", False),
        ([{"op": "replace", "path": "/a/b/c", "value": 1}], "operation 0", False),
        ([{"op": "add", "path": "/l/9", "value": 1}], "operation 0", False),
        ([{"op": "add", "path": "no-slash", "value": 1}], "operation 0", False),
        ([{"op": "copy", "from": "/z", "path": "/y"}], "operation 0", False),
        ([{"op": "test", "path": "/a", "value": 2}], "testing value /a failed", False),
        ([{"op": "test", "path": "/z", "value": 2}], "testing value /z failed|operation 0", False),
    ],
)
def test_patches_that_cannot_be_applied_are_refused(
    ops: Any, message: str, malformed: bool
) -> None:
    with pytest.raises(patches.PatchError, match=message) as caught:
        patches.json_patch({"a": 1, "l": [1]}, ops)
    assert caught.value.malformed is malformed


def test_copies_cannot_blow_up_the_document() -> None:
    ops = [{"op": "copy", "from": "/l", "path": "/l/-"} for _ in range(64)]
    with pytest.raises(patches.PatchError, match="more than the 3145728 allowed"):
        patches.json_patch({"l": ["x" * 100]}, ops)


def test_too_many_operations_are_refused() -> None:
    ops = [{"op": "test", "path": "/a", "value": 1}] * (patches.MAX_OPERATIONS + 1)
    with pytest.raises(patches.PatchError, match="allowed maximum operations"):
        patches.json_patch({"a": 1}, ops)
