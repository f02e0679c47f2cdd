"""Waiting claims: a free volume wakes a claim it can serve, or none when there is none."""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from holdfast.api import views
from holdfast.controllers.binding.matching import Entry, Wish
from holdfast.controllers.binding.waiting import WaitingClaims
from holdfast.testing import objects


def wish(name: str, size: str = "1Gi", **spec: Any) -> Wish:
    return Wish.of(views.claim(objects.claim(name, size, **spec)))


def entry(size: str = "1Gi", **fields: Any) -> Entry:
    volume = objects.volume("v", size, **fields)
    volume["status"] = {"phase": "Available"}
    return Entry.of(views.volume(volume))


selectors = st.one_of(
    st.none(),
    st.builds(
        lambda labels: {"matchLabels": labels},
        st.dictionaries(st.sampled_from("ab"), st.sampled_from("12"), max_size=2),
    ),
    st.sampled_from(
        [
            {"matchExpressions": [{"key": "a", "operator": "In", "values": ["1", "2"]}]},
            {"matchExpressions": [{"key": "b", "operator": "NotIn", "values": ["1"]}]},
            {"matchExpressions": [{"key": "a", "operator": "DoesNotExist"}]},
        ]
    ),
)
class_names = st.sampled_from(["", "gold"])


@st.composite
def wishes(draw: st.DrawFn) -> Wish:
    spec: dict[str, Any] = {"storageClassName": draw(class_names)}
    selector = draw(selectors)
    if selector is not None:
        spec["selector"] = selector
    if draw(st.booleans()):
        spec["volumeMode"] = "Block"
    return wish(f"c{draw(st.integers(0, 8))}", f"{draw(st.integers(1, 4))}Gi", **spec)


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.tuples(wishes(), st.booleans(), st.booleans()), max_size=15),
    st.integers(1, 5),
    class_names,
    st.dictionaries(st.sampled_from("ab"), st.sampled_from("12"), max_size=2),
)
def test_a_volume_finds_a_waiting_claim_exactly_when_one_accepts_it(
    steps: list[tuple[Wish, bool, bool]], size: int, class_name: str, labels: dict[str, str]
) -> None:
    waiting = WaitingClaims()
    filed: dict[tuple[str, str], Wish] = {}
    for one, remove, delayed in steps:
        key = (one.namespace, one.name)
        waiting.add(one, delayed=delayed)
        filed.pop(key, None)
        if not delayed:
            filed[key] = one
        if remove:
            waiting.remove(key)
            filed.pop(key, None)
    offered = entry(f"{size}Gi", labels=labels, storageClassName=class_name)

    key_found = waiting.fitting(offered)

    if key_found is None:
        assert not any(one.accepts(offered) for one in filed.values())
    else:
        assert filed[key_found].accepts(offered)


def test_the_claim_that_wastes_least_of_the_volume_is_chosen() -> None:
    waiting = WaitingClaims()
    for size in (1, 3, 2, 6):
        waiting.add(wish(f"c{size}", f"{size}Gi"))

    assert waiting.fitting(entry("5Gi")) == ("default", "c3")


def test_a_claim_filed_again_is_filed_under_its_new_class_only() -> None:
    waiting = WaitingClaims()
    waiting.add(wish("c", storageClassName="old"))
    waiting.add(wish("c", storageClassName="new"))

    assert waiting.of_class("old") == []
    assert waiting.of_class("new") == [("default", "c")]
    assert len(waiting) == 1


def test_a_claim_that_waits_for_its_consumer_is_woken_by_its_class_but_not_by_volumes() -> None:
    waiting = WaitingClaims()
    waiting.add(wish("c", storageClassName="late"), delayed=True)

    assert waiting.fitting(entry(storageClassName="late")) is None
    assert waiting.of_class("late") == [("default", "c")]
    assert waiting.delayed(("default", "c"))
    assert ("default", "c") in waiting

    waiting.remove(("default", "c"))
    assert len(waiting) == 0
    assert not waiting.delayed(("default", "c"))
