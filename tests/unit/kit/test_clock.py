"""Times as text and the short ages of tables."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from holdfast.kit import clock

MOMENT = datetime(2026, 11, 21, 7, 37, 0, 123456, UTC)


def test_times_are_written_in_utc() -> None:
    local = MOMENT.astimezone(timezone(timedelta(hours=2)))
    assert clock.rfc3339(local) == "2026-11-21T07:37:00Z"
    assert clock.rfc3339_micro(local) == "2026-11-21T07:37:00.123456Z"


@settings(max_examples=50)
@given(st.datetimes(min_value=datetime(1000, 1, 1), timezones=st.just(UTC)))
def test_microsecond_text_reads_back_equal(moment: datetime) -> None:
    assert clock.parse(clock.rfc3339_micro(moment)) == moment


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2026-11-21T09:37:00+02:00", MOMENT.replace(microsecond=0)),
        ("2026-11-21T05:07:00-02:30", MOMENT.replace(microsecond=0)),
        ("2026-11-21T07:37:00.123456789Z", MOMENT),
    ],
)
def test_offsets_and_nanoseconds_are_read(text: str, expected: datetime) -> None:
    assert clock.parse(text) == expected
    assert clock.parse(text).tzinfo is UTC


@pytest.mark.parametrize(
    "text",
    ["", "2026-11-21", "2026-11-21T07:37:00", "20261121T073700Z", "2026-13-01T00:00:00Z", "now"],
)
def test_other_text_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="time"):
        clock.parse(text)


def test_now_is_aware_and_current() -> None:
    assert abs(datetime.now(UTC) - clock.now()) < timedelta(seconds=5)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (-5, "<invalid>"),
        (-1.5, "0s"),
        (0.9, "0s"),
        (119, "119s"),
        (120, "2m"),
        (125, "2m5s"),
        (599, "9m59s"),
        (605, "10m"),
        (179 * 60, "179m"),
        (180 * 60, "3h"),
        (185 * 60, "3h5m"),
        (8 * 3600 + 300, "8h"),
        (47 * 3600, "47h"),
        (48 * 3600, "2d"),
        (50 * 3600, "2d2h"),
        (8 * 86400 + 3600, "8d"),
        (729 * 86400, "729d"),
        (730 * 86400, "2y"),
        (731 * 86400, "2y1d"),
        (8 * 365 * 86400 + 86400, "8y"),
    ],
)
def test_ages_use_coarser_units_as_they_grow(seconds: float, text: str) -> None:
    assert clock.age(seconds) == text
