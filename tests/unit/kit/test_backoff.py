"""Back-off delays per key."""

from __future__ import annotations

import pytest

from holdfast.kit.backoff import Backoff


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
