"""Back-off delays per key."""

from __future__ import annotations

import pytest

from holdfast.kit.backoff import Backoff, Pauses


def test_delays_double_up_to_the_cap() -> None:
    backoff = Backoff(0.5, 3.0)
    assert [backoff.next("a") for _ in range(5)] == [0.5, 1.0, 2.0, 3.0, 3.0]


def test_keys_are_counted_apart_and_can_be_forgotten() -> None:
    backoff = Backoff(1, 100, factor=10)
    assert [backoff.next("a"), backoff.next("a"), backoff.next("b")] == [1, 10, 1]
    backoff.forget("a")
    backoff.forget("never seen")
    assert [backoff.next("a"), backoff.next("b")] == [1, 10]


def test_many_failures_do_not_overflow() -> None:
    backoff = Backoff(1, 60)
    assert {backoff.next("a") for _ in range(3000)} == {1, 2, 4, 8, 16, 32, 60}


@pytest.mark.parametrize(("first", "cap", "factor"), [(0, 1, 2), (2, 1, 2), (1, 2, 0.5)])
def test_senseless_settings_are_refused(first: float, cap: float, factor: float) -> None:
    with pytest.raises(ValueError, match="back-off needs"):
        Backoff(first, cap, factor)


async def test_a_key_rests_till_its_time_and_may_be_woken() -> None:
    pauses = Pauses()
    assert pauses.left("a") == 0
    pauses.begin("a", 60)
    pauses.begin("b", 0)
    assert 59 < pauses.left("a") <= 60
    assert pauses.left("b") == 0
    pauses.end("a")
    pauses.end("never seen")
    assert pauses.left("a") == 0 and not pauses.had("a")


async def test_a_pause_is_about_one_thing_and_remembered_when_it_is_over() -> None:
    pauses = Pauses()
    pauses.begin("a", 0, "1Gi")
    assert pauses.had("a", "1Gi") and pauses.left("a", "1Gi") == 0
    assert not pauses.had("a", "2Gi")
    pauses.begin("a", 60, "2Gi")
    assert pauses.left("a", "2Gi") > 59
    assert pauses.left("a", "1Gi") == 0 and not pauses.had("a", "1Gi")
