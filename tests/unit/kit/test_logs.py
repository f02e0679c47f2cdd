"""Log lines as text and as JSON."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator

import pytest

from holdfast.kit import logs


@pytest.fixture(autouse=True)
def restore_logging() -> Iterator[None]:
    """Put the process-wide logging set-up back."""
    root, own = logging.getLogger(), logging.getLogger("holdfast")
    before = (list(root.handlers), root.level, own.level)
    yield
    root.handlers[:] = before[0]
    root.setLevel(before[1])
    own.setLevel(before[2])


def test_text_lines_carry_the_fields_as_pairs() -> None:
    stream = io.StringIO()
    logs.setup("info", "text", stream)
    logger = logging.getLogger("holdfast.controllers")
    logger.info("volume bound", extra={"volume": "pv-1", "why": "two words", "empty": ""})
    logger.debug("hidden")
    (line,) = stream.getvalue().splitlines()
    time, rest = line.split(" ", 1)
    assert time.endswith("Z")
    assert rest == ('info holdfast.controllers volume bound volume=pv-1 why="two words" empty=""')


def test_a_value_cannot_break_the_line() -> None:
    stream = io.StringIO()
    logs.setup("info", "text", stream)
    logging.getLogger("holdfast.x").warning("odd", extra={"v": 'a\nb" c=1'})
    assert stream.getvalue().count("\n") == 1
    assert r'v="a\nb\" c=1"' in stream.getvalue()


def test_json_lines_have_members_and_the_trace() -> None:
    stream = io.StringIO()
    logs.setup("debug", "json", stream)
    try:
        raise OSError("disk gone")
    except OSError:
        logging.getLogger("holdfast.store").exception("write failed", extra={"size": 3, "o": {1}})
    members = json.loads(stream.getvalue())
    assert members["level"] == "error"
    assert members["logger"] == "holdfast.store"
    assert members["message"] == "write failed"
    assert members["size"] == 3
    assert members["trace"].endswith("OSError: disk gone")


def test_a_second_setup_replaces_the_first() -> None:
    first, second = io.StringIO(), io.StringIO()
    logs.setup("info", "text", first)
    logs.setup("error", "text", second)
    logging.getLogger("holdfast.x").error("once")
    logging.getLogger("holdfast.x").info("no")
    assert first.getvalue() == ""
    assert second.getvalue().count("once") == 1
    assert "no\n" not in second.getvalue()


def test_libraries_are_heard_from_warnings_up() -> None:
    stream = io.StringIO()
    logs.setup("debug", "text", stream)
    logging.getLogger("somelib").info("chatter")
    logging.getLogger("somelib").warning("trouble")
    assert "chatter" not in stream.getvalue()
    assert "trouble" in stream.getvalue()


def test_unknown_level_and_format_are_refused() -> None:
    with pytest.raises(ValueError, match="log level"):
        logs.setup("loud", "text", io.StringIO())
    with pytest.raises(ValueError, match="log format"):
        logs.setup("info", "xml", io.StringIO())  # type: ignore[arg-type]
