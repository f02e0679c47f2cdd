"""What commands print: sizes, columns, and progress that keeps quiet when it can."""

from __future__ import annotations

import time

import pytest

from holdfast.cli import terminal


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0B"), (1023, "1023B"), (1024, "1.0Ki"), (1 << 30, "1.0Gi"), (3 << 59, "1536.0Pi")],
)
def test_sizes_are_written_for_people(count: int, text: str) -> None:
    assert terminal.size(count) == text


def test_columns_are_as_wide_as_their_widest_cell() -> None:
    rows = [("a", "long cell", ""), ("bbb", "x", "y")]
    assert list(terminal.table(rows)) == ["  a    long cell", "  bbb  x          y"]


def test_a_table_without_rows_is_nothing() -> None:
    assert list(terminal.table([])) == []


def test_a_short_wait_leaves_no_trace_in_a_log(capsys: pytest.CaptureFixture[str]) -> None:
    with terminal.Progress("waiting") as progress:
        progress.tick()
    assert capsys.readouterr().err == ""


def test_a_long_wait_says_what_and_how_long(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    with terminal.Progress("starting") as progress:
        now[0] += 6.0
        progress.tick()
        progress.tick()
        now[0] += 6.0
        progress.tick("finishing")
    assert capsys.readouterr().err == "starting ... 6.0 s\nfinishing ... 12.0 s\n"
