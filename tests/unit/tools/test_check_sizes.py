"""The size limits: what counts, and where the line is."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path

import pytest

import machine

SCRIPT = machine.ROOT / "tools" / "check_sizes.py"
PATH = Path("src/x.py")
Excesses = Callable[[Path, str], list[str]]


@pytest.fixture
def excesses() -> Excesses:
    spec = importlib.util.spec_from_file_location("check_sizes", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    found: Excesses = module.excesses
    return found


def _function(lines: int, docstring: str = "") -> str:
    head = f"async def f():\n{docstring}"
    return head + "    pass\n" * (lines - 1)


def test_a_function_of_60_lines_passes_and_of_61_fails(excesses: Excesses) -> None:
    assert excesses(PATH, _function(60)) == []
    assert excesses(PATH, _function(61)) == [
        "src/x.py:1: f has 61 lines; a function has at most 60"
    ]


def test_the_docstring_does_not_count(excesses: Excesses) -> None:
    assert excesses(PATH, _function(60, '    """One.\n\n    Two.\n    """\n')) == []


def test_a_module_of_501_lines_fails(excesses: Excesses) -> None:
    assert excesses(PATH, "x = 1\n" * 500) == []
    assert excesses(PATH, "x = 1\n" * 501) == ["src/x.py: 501 lines; a module has at most 500"]
