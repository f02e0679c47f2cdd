"""Node selectors, as pods and volumes write them."""

from __future__ import annotations

from typing import Any

import pytest

from holdfast.api import views
from holdfast.controllers.scheduling import affinity

LABELS = {"zone": "a", "disks": "4", "ssd": ""}


def term(key: str, operator: str, *values: str) -> dict[str, Any]:
    return {"matchExpressions": [{"key": key, "operator": operator, "values": list(values)}]}


def node(name: str = "n1", **labels: str) -> views.Node:
    return views.node({"metadata": {"name": name, "labels": labels or LABELS}})


def pod(spec: dict[str, Any]) -> views.Pod:
    return views.pod({"metadata": {"name": "p"}, "spec": spec})


@pytest.mark.parametrize(
    ("key", "operator", "values", "expected"),
    [
        ("zone", "In", ("a", "b"), True),
        ("zone", "In", ("b",), False),
        ("missing", "In", ("a",), False),
        ("zone", "NotIn", ("b",), True),
        ("zone", "NotIn", ("a",), False),
        ("missing", "NotIn", ("a",), True),
        ("ssd", "Exists", (), True),
        ("missing", "Exists", (), False),
        ("missing", "DoesNotExist", (), True),
        ("ssd", "DoesNotExist", (), False),
        ("disks", "Gt", ("3",), True),
        ("disks", "Gt", ("4",), False),
        ("disks", "Lt", ("10",), True),
        ("disks", "Lt", ("4",), False),
        ("zone", "Gt", ("3",), False),
        ("disks", "Gt", ("x",), False),
        ("disks", "Gt", ("1", "2"), False),
        ("missing", "Lt", ("3",), False),
        ("zone", "Near", ("a",), False),
    ],
)
def test_each_operator(key: str, operator: str, values: tuple[str, ...], expected: bool) -> None:
    assert affinity.term_matches(term(key, operator, *values), LABELS, "n1") is expected


def test_terms_are_alternatives_and_expressions_within_one_add_up() -> None:
    both = {
        "matchExpressions": [
            {"key": "zone", "operator": "In", "values": ["a"]},
            {"key": "disks", "operator": "In", "values": ["9"]},
        ]
    }
    assert not affinity.matches({"nodeSelectorTerms": [both]}, LABELS, "n1")
    alternatives = [both, term("zone", "In", "a")]
    assert affinity.matches({"nodeSelectorTerms": alternatives}, LABELS, "n1")


def test_no_selector_admits_all_but_no_terms_and_empty_terms_admit_none() -> None:
    assert affinity.matches(None, LABELS, "n1")
    assert not affinity.matches({"nodeSelectorTerms": []}, LABELS, "n1")
    assert not affinity.matches({"nodeSelectorTerms": [{}]}, LABELS, "n1")


def test_fields_match_the_name_of_the_node() -> None:
    expression = {"key": "metadata.name", "operator": "In", "values": ["n1"]}
    selector = {"nodeSelectorTerms": [{"matchFields": [expression]}]}
    assert affinity.matches(selector, {}, "n1")
    assert not affinity.matches(selector, {}, "n2")


def test_a_pods_selector_and_its_affinity_must_both_hold() -> None:
    required = {"nodeSelectorTerms": [term("disks", "Gt", "2")]}
    wanted = {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": required}}
    assert affinity.pod_admits(pod({"nodeSelector": {"zone": "a"}, "affinity": wanted}), node())
    assert not affinity.pod_admits(pod({"nodeSelector": {"zone": "b"}, "affinity": wanted}), node())
    assert not affinity.pod_admits(pod({"affinity": wanted}), node(disks="1"))
    assert affinity.pod_admits(pod({}), node())


def test_the_weights_of_preferred_terms_that_hold_add_up() -> None:
    preferred = [
        {"weight": 10, "preference": term("zone", "In", "a")},
        {"weight": 5, "preference": term("ssd", "Exists")},
        {"weight": 80, "preference": term("zone", "In", "b")},
    ]
    wanted = {"nodeAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": preferred}}
    assert affinity.pod_preference(pod({"affinity": wanted}), node()) == 15


def test_a_volume_without_affinity_is_reachable_from_everywhere() -> None:
    volume = views.volume({"metadata": {"name": "v"}, "spec": {}})
    assert affinity.volume_admits(volume, node())


def test_a_volume_is_reachable_only_where_its_affinity_says() -> None:
    required = {"nodeSelectorTerms": [term("kubernetes.io/hostname", "In", "n1")]}
    spec = {"nodeAffinity": {"required": required}}
    volume = views.volume({"metadata": {"name": "v"}, "spec": spec})
    assert affinity.volume_admits(volume, node(**{"kubernetes.io/hostname": "n1"}))
    assert not affinity.volume_admits(volume, node(**{"kubernetes.io/hostname": "n2"}))


def test_allowed_topologies_of_a_class() -> None:
    terms = [{"matchLabelExpressions": [{"key": "zone", "values": ["a", "b"]}]}]
    assert affinity.topology_admits([], {})
    assert affinity.topology_admits(terms, {"zone": "b"})
    assert not affinity.topology_admits(terms, {"zone": "c"})
    assert not affinity.topology_admits(terms, {})
    assert not affinity.topology_admits([{}], {"zone": "a"})
