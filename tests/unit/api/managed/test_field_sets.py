"""Sets of paths in wire form: the operations, against sets of plain tuples as the model."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.api.managed import elements, entries, sets

_STEPS = ("f:a", "f:b", 'k:{"name":"x"}', 'v:"y"')
Paths = set[tuple[str, ...]]
_paths = st.sets(st.lists(st.sampled_from(_STEPS), min_size=1, max_size=3).map(tuple), max_size=8)


def made_of(paths: Paths) -> sets.FieldSet:
    """The set with these members, built one by one."""
    found: sets.FieldSet = {}
    for path in paths:
        found = sets.union(found, sets.of_path(path))
    return found


def members(found: sets.FieldSet) -> Paths:
    """The members of a set."""
    return set(sets.paths(found))


@given(_paths)
def test_a_set_has_the_members_it_was_made_of(paths: Paths) -> None:
    assert members(made_of(paths)) == paths


@given(_paths, _paths)
def test_operations_agree_with_those_on_sets_of_tuples(one: Paths, other: Paths) -> None:
    left, right = made_of(one), made_of(other)
    assert members(sets.union(left, right)) == one | other
    assert members(sets.difference(left, right)) == one - other
    assert members(sets.intersection(left, right)) == one & other
    trees = {path for path in one if any(path[: len(top)] == top for top in other)}
    assert members(sets.without_trees(left, right)) == one - trees


@given(_paths, _paths)
def test_operations_leave_their_arguments_alone(one: Paths, other: Paths) -> None:
    left, right = made_of(one), made_of(other)
    for operation in (sets.union, sets.difference, sets.intersection, sets.without_trees):
        operation(left, right)
    assert members(left) == one
    assert members(right) == other


@given(_paths)
def test_a_result_equal_to_the_left_operand_is_that_operand(paths: Paths) -> None:
    found = made_of(paths)
    assert sets.union(found, made_of(paths)) is found
    assert sets.difference(found, {"f:elsewhere": {}}) is found


@given(_paths)
def test_a_set_in_canonical_form_stays_as_it_is(paths: Paths) -> None:
    assert sets.canonical(made_of(paths)) == made_of(paths)


CANONICAL: list[tuple[str, Any, Any]] = [
    ("white space and order of keys", {'k:{ "b": 1, "a":"x"}': {}}, {'k:{"a":"x","b":1}': {}}),
    ("a node with only itself", {"f:a": {".": {}}}, {"f:a": {}}),
    ("itself and below", {"f:a": {".": {}, "f:b": {}}}, {"f:a": {".": {}, "f:b": {}}}),
    ("an unknown kind of step", {"x:a": {}, "f:a": {}}, {"f:a": {}}),
    ("a step to nothing known", {"f:a": {"x:b": {}}}, {"f:a": {}}),
    ("an index", {"f:a": {"i:03": {}}}, {"f:a": {"i:3": {}}}),
]


@pytest.mark.parametrize(("given_form", "expected"), [r[1:] for r in CANONICAL])
def test_a_client_may_write_steps_in_any_form(given_form: Any, expected: Any) -> None:
    assert sets.canonical(given_form) == expected


@pytest.mark.parametrize("step", ["a", "fa", "k:nothing", "k:[1]", "v:{", "i:x"])
def test_a_step_that_cannot_be_read_is_an_error(step: str) -> None:
    with pytest.raises(elements.ElementError):
        sets.canonical({step: {}})


def test_paths_are_printed_as_messages_show_them() -> None:
    path = ("f:spec", "f:ports", 'k:{"containerPort":80,"protocol":"TCP"}', "f:name")
    shown = "".join(map(elements.printed, path))
    assert shown == '.spec.ports[containerPort=80,protocol="TCP"].name'
    assert elements.printed('v:"a"') == '[="a"]'


def test_members_come_before_what_is_below_them_and_numbers_sort_as_numbers() -> None:
    found = made_of({('k:{"port":443}',), ('k:{"port":80}',), ("f:b", "f:c"), ("f:d",)})
    assert list(sets.paths(found)) == [
        ("f:d",),
        ('k:{"port":80}',),
        ('k:{"port":443}',),
        ("f:b", "f:c"),
    ]


def _updater(number: int) -> entries.Entry:
    owned = sets.of_path((f"f:{number}",))
    return entries.Writer(f"m{number}", "Update", "v1").entry(owned, f"2026-01-01T00:00:{number}Z")


def test_the_oldest_of_more_than_ten_updaters_become_one() -> None:
    capped = entries.ordered(entries.capped([_updater(number) for number in range(10, 22)]))
    assert [entry["manager"] for entry in capped] == [
        "ancient-changes",
        *(f"m{number}" for number in range(13, 22)),
    ]
    assert members(capped[0]["fieldsV1"]) == {("f:10",), ("f:11",), ("f:12",)}
    assert capped[0]["time"] == "2026-01-01T00:00:12Z"


@pytest.mark.parametrize(
    "entry",
    [
        {"operation": "Create", "apiVersion": "v1", "fieldsType": "FieldsV1"},
        {"operation": "Update", "fieldsType": "FieldsV1"},
        {"operation": "Update", "apiVersion": "v1"},
        {
            "operation": "Update",
            "apiVersion": "v1",
            "fieldsType": "FieldsV1",
            "fieldsV1": {"nonsense": {}},
        },
    ],
)
def test_an_entry_a_client_made_wrong_is_an_error(entry: dict[str, Any]) -> None:
    with pytest.raises(entries.EntryError):
        entries.given([entry])
