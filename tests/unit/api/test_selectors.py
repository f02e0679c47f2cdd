"""Label and field selectors."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from holdfast.api import selectors
from holdfast.api.selectors import FieldSelector, LabelSelector

LABELS = {"app": "db", "tier": "a", "size": "12", "example.com/role": ""}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", True),
        ("  ", True),
        ("app=db", True),
        ("app==db", True),
        ("app = web", False),
        ("app!=web", True),
        ("missing!=web", True),
        ("missing=web", False),
        ("app", True),
        ("missing", False),
        ("!missing", True),
        ("! app", False),
        ("tier in (a, b)", True),
        ("tier in (b)", False),
        ("tier notin (b),app", True),
        ("missing notin (b)", True),
        ("example.com/role=", True),
        ("example.com/role in ()", True),
        ("missing=", False),
        ("size>11,size<13", True),
        ("size>12", False),
        ("tier>1", False),
        ("app=db,tier=b", False),
        ("app=in", False),
    ],
)
def test_query_text_selects(text: str, expected: bool) -> None:
    assert LabelSelector.parse(text).matches(LABELS) is expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a b", "found 'b', expected: in, notin, =, ==, !=, gt, lt"),
        (",", "found ',', expected: !, identifier, or 'end of string'"),
        ("a,", "found '', expected: identifier after ','"),
        ("a=b c", "found 'c', expected: ',' or 'end of string'"),
        ("a in b", "found 'b' expected: '('"),
        ("a in (b", "found '', expected: ',' or ')'"),
        ("a==!", "found '!', expected: identifier"),
        ("!=b", "found '!=', expected: !, identifier, or 'end of string'"),
        ("a>b", "values[0][a]: Invalid value: \"b\": for 'Gt', 'Lt' operators"),
        ("-a", '<nil>: Invalid value: "-a": name part must consist of'),
        ("a=b_", 'values[0][a]: Invalid value: "b_": a valid label must be'),
        ("/a", "prefix part must be non-empty"),
        ("A.com/a", "prefix part a lowercase RFC 1123 subdomain"),
        ("a=" + "b" * 64, "must be no more than 63 characters"),
        ("a" * 64, "name part must be no more than 63 characters"),
        ("a/", "name part must be non-empty"),
        ("a/b/c", "name part must consist of"),
    ],
)
def test_bad_query_text_is_refused_with_its_fault(text: str, message: str) -> None:
    with pytest.raises(selectors.SelectorError) as caught:
        LabelSelector.parse(text)
    # What stands after a requirement is not part of one.
    start = "" if text in ("a,", "a=b c") else "unable to parse requirement: "
    assert str(caught.value).startswith(start)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("selector", "expected"),
    [
        (None, False),
        ({}, True),
        ({"matchLabels": None, "matchExpressions": None}, True),
        ({"matchLabels": {"app": "db"}}, True),
        ({"matchLabels": {"app": "db", "tier": "b"}}, False),
        ({"matchExpressions": [{"key": "tier", "operator": "In", "values": ["a"]}]}, True),
        ({"matchExpressions": [{"key": "zone", "operator": "NotIn", "values": ["a"]}]}, True),
        ({"matchExpressions": [{"key": "zone", "operator": "Exists"}]}, False),
        ({"matchExpressions": [{"key": "zone", "operator": "DoesNotExist"}]}, True),
    ],
)
def test_selector_objects_select(selector: dict[str, Any] | None, expected: bool) -> None:
    assert LabelSelector.of(selector).matches(LABELS) is expected


@pytest.mark.parametrize(
    ("expression", "message"),
    [
        ({"key": "a", "operator": "Near"}, '"Near" is not a valid label selector operator'),
        ({"key": "a", "operator": "In"}, "values set can't be empty"),
        ({"key": "a", "operator": "Exists", "values": ["b"]}, "values set must be empty"),
        ({"key": "", "operator": "Exists"}, "name part must be non-empty"),
    ],
)
def test_bad_selector_objects_are_refused(expression: dict[str, Any], message: str) -> None:
    with pytest.raises(selectors.SelectorError, match=message):
        LabelSelector.of({"matchExpressions": [expression]})


def test_empty_means_everything_and_absent_labels_count_as_none() -> None:
    assert LabelSelector.parse("").empty
    assert LabelSelector.of({}).empty
    assert not LabelSelector.of(None).empty
    assert not LabelSelector.parse("a").matches(None)
    assert LabelSelector.parse("!a").matches(None)


KEYS = st.sampled_from(["a", "b", "in", "x.io/c"])
VALUES = st.sampled_from(["", "1", "two", "in"])


@settings(max_examples=100)
@given(
    st.dictionaries(KEYS, VALUES),
    st.lists(st.tuples(KEYS, st.booleans(), st.sets(VALUES, min_size=1)), max_size=4),
)
def test_text_and_object_forms_agree_with_the_definition(
    labels: dict[str, str], terms: list[tuple[str, bool, set[str]]]
) -> None:
    text = ",".join(
        f"{key} {'in' if wanted else 'notin'} ({','.join(sorted(values))})"
        for key, wanted, values in terms
    )
    expressions = [
        {"key": key, "operator": "In" if wanted else "NotIn", "values": list(values)}
        for key, wanted, values in terms
    ]
    expected = all((labels.get(key) in values) == wanted for key, wanted, values in terms)
    assert LabelSelector.parse(text).matches(labels) is expected
    assert LabelSelector.of({"matchExpressions": expressions}).matches(labels) is expected


def test_field_terms_are_read_and_matched() -> None:
    selector = FieldSelector.parse("metadata.name=a,spec.x!=b,status.phase==Bound,,e=")
    assert selector.terms == (
        ("metadata.name", "=", "a"),
        ("spec.x", "!=", "b"),
        ("status.phase", "=", "Bound"),
        ("e", "=", ""),
    )
    assert selector.matches({"metadata.name": "a", "status.phase": "Bound"})
    assert not selector.matches({"metadata.name": "a", "status.phase": "Bound", "spec.x": "b"})
    assert FieldSelector.parse("").empty
    assert FieldSelector.parse("").matches({})


@settings(max_examples=100)
@given(st.lists(st.text("ab\\,=! ", min_size=1), min_size=1, max_size=3))
def test_escaped_field_values_come_back(values: list[str]) -> None:
    escaped = [
        value.replace("\\", "\\\\").replace(",", "\\,").replace("=", "\\=") for value in values
    ]
    text = ",".join(f"f{n}={value}" for n, value in enumerate(escaped))
    assert [value for _, _, value in FieldSelector.parse(text).terms] == values


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a", "invalid selector: 'a'; can't understand 'a'"),
        ("x=1,a", "invalid selector: 'x=1,a'; can't understand 'a'"),
        ("a=b=c", "unescaped character in value: ="),
        ("a=b\\c", r"invalid escape sequence: \\c"),
        ("a=b\\", "invalid escape sequence"),
    ],
)
def test_bad_field_selectors_are_refused(text: str, message: str) -> None:
    with pytest.raises(selectors.SelectorError, match=message):
        FieldSelector.parse(text)
