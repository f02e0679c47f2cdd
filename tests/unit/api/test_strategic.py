"""Strategic merge patch: merge keys, sets, directives and order."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from holdfast.api import strategic
from holdfast.api.patches import PatchError, merge_patch


@dataclass(frozen=True)
class Field:
    """A field as the shapes of the API describe it."""

    key: str | None = None
    patch: str | None = None
    element: Shape | None = None
    is_list: bool = False
    is_map: bool = False


@dataclass(frozen=True)
class Shape:
    """A type as the shapes of the API describe it."""

    fields: Mapping[str, Field] = field(default_factory=dict)


PORT = Shape({"port": Field(), "name": Field()})
ITEM = Shape(
    {
        "name": Field(),
        "ports": Field(key="port", patch="merge", element=PORT, is_list=True),
        "args": Field(is_list=True),
    }
)
SHAPE = Shape(
    {
        "items": Field(key="name", patch="merge,retainKeys", element=ITEM, is_list=True),
        "finalizers": Field(patch="merge", is_list=True),
        "modes": Field(is_list=True),
        "keyless": Field(patch="merge", element=PORT, is_list=True),
        "labels": Field(is_map=True),
        "parts": Field(is_map=True, element=ITEM),
        "strategy": Field(patch="retainKeys", element=PORT),
        "whole": Field(patch="replace", element=PORT),
    }
)


def merge(doc: dict[str, Any], patch: dict[str, Any]) -> dict[str, Any]:
    before = copy.deepcopy((doc, patch))
    merged = strategic.strategic_merge(doc, patch, SHAPE)
    assert (doc, patch) == before, "an input was changed"
    return merged


A, B, C = {"name": "a"}, {"name": "b"}, {"name": "c"}


@pytest.mark.parametrize(
    ("doc", "patch", "expected"),
    [
        # Lists without a strategy are replaced, lists of scalars with one are sets.
        ({"modes": [1, 2]}, {"modes": [3]}, {"modes": [3]}),
        ({"finalizers": ["a", "b"]}, {"finalizers": ["b", "c"]}, {"finalizers": ["a", "b", "c"]}),
        ({"finalizers": ["a", "b"]}, {"finalizers": ["c"]}, {"finalizers": ["c", "a", "b"]}),
        ({}, {"finalizers": ["c"]}, {"finalizers": ["c"]}),
        ({"finalizers": []}, {"finalizers": []}, {"finalizers": []}),
        ({"finalizers": ["a"]}, {"finalizers": None}, {}),
        (
            {"finalizers": ["a", "b", "a"]},
            {"$deleteFromPrimitiveList/finalizers": ["a", "x"]},
            {"finalizers": ["b"]},
        ),
        ({}, {"$deleteFromPrimitiveList/finalizers": ["a"]}, {}),
        (
            {"finalizers": ["a", "b"]},
            {
                "$setElementOrder/finalizers": ["b", "c"],
                "$deleteFromPrimitiveList/finalizers": ["a"],
                "finalizers": ["c"],
            },
            {"finalizers": ["b", "c"]},
        ),
        # Lists of objects are merged by key.
        (
            {"items": [{"name": "a", "x": 1}, B]},
            {"items": [{"name": "a", "y": 2, "x": None}]},
            {"items": [{"name": "a", "y": 2}, B]},
        ),
        ({"items": [A, B]}, {"items": [C]}, {"items": [C, A, B]}),
        (
            {"items": [A, B]},
            {"$setElementOrder/items": [B, A], "items": []},
            {"items": [B, A]},
        ),
        ({"items": [A, B]}, {"$setElementOrder/items": [B, A]}, {"items": [B, A]}),
        ({}, {"$setElementOrder/items": [A]}, {}),
        (
            {"items": [A, C]},
            {"$setElementOrder/items": [A, B], "items": [{"name": "b", "args": [1]}]},
            {"items": [A, {"name": "b", "args": [1]}, C]},
        ),
        ({"items": [A, B, C]}, {"items": [{"$patch": "delete", "name": "b"}]}, {"items": [A, C]}),
        ({"items": [A, B]}, {"items": [{"$patch": "replace"}, C]}, {"items": [C]}),
        ({}, {"items": [{"$patch": "delete", "name": "b"}, A]}, {"items": [A]}),
        (
            {"items": [{"name": "a", "ports": [{"port": 1}, {"port": 2, "name": "x"}]}]},
            {"items": [{"name": "a", "ports": [{"port": 2, "name": "y"}]}]},
            {"items": [{"name": "a", "ports": [{"port": 1}, {"port": 2, "name": "y"}]}]},
        ),
        # Directives on objects.
        ({"strategy": {"a": 1}}, {"strategy": {"$patch": "delete"}}, {"strategy": {}}),
        (
            {"strategy": {"a": 1}},
            {"strategy": {"$patch": "replace", "b": 2}},
            {"strategy": {"b": 2}},
        ),
        (
            {"strategy": {"a": 1}},
            {"strategy": {"$patch": "merge", "b": 2}},
            {"strategy": {"a": 1, "b": 2}},
        ),
        (
            {"strategy": {"type": "Rolling", "rolling": {"x": 1}}},
            {"strategy": {"$retainKeys": ["type"], "type": "Recreate", "rolling": None}},
            {"strategy": {"type": "Recreate"}},
        ),
        ({}, {"strategy": {"$retainKeys": ["a"], "a": 1, "b": None}}, {"strategy": {"a": 1}}),
        ({"whole": {"a": 1}}, {"whole": {"b": 2}}, {"whole": {"b": 2}}),
        ({"items": [A], "x": 1}, {"$patch": "replace", "y": 2}, {"y": 2}),
        ({"x": 1}, {"$patch": "delete"}, {}),
        # Maps, unknown fields and changes of type.
        ({"labels": {"a": "1"}}, {"labels": {"a": None, "b": "2"}}, {"labels": {"b": "2"}}),
        (
            {"parts": {"p": {"ports": [{"port": 1}]}}},
            {"parts": {"p": {"ports": [{"port": 2}]}}},
            {"parts": {"p": {"ports": [{"port": 2}, {"port": 1}]}}},
        ),
        ({"odd": {"l": [1], "k": 1}}, {"odd": {"l": [2]}}, {"odd": {"l": [2], "k": 1}}),
        ({"labels": "text"}, {"labels": {"a": "1", "b": None}}, {"labels": {"a": "1"}}),
    ],
)
def test_patches_merge_as_in_the_reference(
    doc: dict[str, Any], patch: dict[str, Any], expected: dict[str, Any]
) -> None:
    assert merge(doc, patch) == expected


@pytest.mark.parametrize(
    ("doc", "patch", "message"),
    [
        ({}, {"$patch": "explode"}, "unknown patch type: explode"),
        ({"items": [A]}, {"items": [{"$patch": "merge"}]}, "merging lists cannot yet be"),
        ({"items": [A]}, {"items": [{"$patch": "odd", "name": "a"}]}, "unknown patch type: odd"),
        ({"items": [A]}, {"items": [{"x": 1}]}, "does not contain declared merge key: name"),
        ({"items": [A]}, {"items": [{"$patch": "delete"}]}, "declared merge key: name"),
        ({"items": [A]}, {"items": ["a"]}, "list of objects with a list of scalars"),
        ({"keyless": [A]}, {"keyless": [B]}, "without merge key"),
        ({"strategy": {}}, {"strategy": {"$retainKeys": ["a"], "b": 1}}, "format of retainKeys"),
        ({"strategy": {}}, {"strategy": {"$retainKeys": "a"}}, "format of retainKeys"),
        ({"finalizers": ["a"]}, {"$deleteFromPrimitiveList/finalizers": "a"}, "primitive list"),
        ({"items": [A]}, {"$setElementOrder/items": "a"}, "must be lists"),
        ({}, {"$setElementOrder/items": [A], "items": [B]}, "doesn't match"),
        ({}, {"$setElementOrder/items": [A, B], "items": [B, A]}, "doesn't match"),
    ],
)
def test_contradictory_patches_are_refused(
    doc: dict[str, Any], patch: dict[str, Any], message: str
) -> None:
    with pytest.raises(PatchError, match=message):
        merge(doc, patch)


PLAIN = st.dictionaries(
    st.sampled_from("abc"),
    st.none() | st.integers(0, 2) | st.dictionaries(st.sampled_from("xy"), st.integers(0, 2)),
    max_size=3,
)


@settings(max_examples=100)
@given(PLAIN, PLAIN)
def test_without_a_shape_it_is_a_merge_patch(doc: dict[str, Any], patch: dict[str, Any]) -> None:
    assert strategic.strategic_merge(doc, patch, None) == merge_patch(doc, patch)


NAMES = st.lists(st.sampled_from("abcdef"), unique=True, max_size=5)


@settings(max_examples=100)
@given(NAMES, NAMES)
def test_a_merged_set_is_the_union_and_keeps_both_orders(old: list[str], new: list[str]) -> None:
    merged = merge({"finalizers": old}, {"finalizers": new})["finalizers"]
    assert sorted(merged) == sorted({*old, *new})
    assert [item for item in merged if item in new] == new
    others = [item for item in old if item not in new]
    assert [item for item in merged if item in others] == others


@settings(max_examples=100)
@given(NAMES, NAMES)
def test_the_order_directive_gives_what_was_asked_for(old: list[str], wanted: list[str]) -> None:
    def items(names: list[str]) -> list[dict[str, str]]:
        return [{"name": name} for name in names]

    patch = {
        "$setElementOrder/items": items(wanted),
        "items": items([name for name in wanted if name not in old])
        + [{"name": name, "$patch": "delete"} for name in old if name not in wanted],
    }
    merged = merge({"items": items(old)}, patch)
    assert merged["items"] == items(wanted)
