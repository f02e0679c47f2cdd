"""The state an object is counted under."""

from __future__ import annotations

from typing import Any

import pytest

from holdfast.cli import status


@pytest.mark.parametrize(
    ("kind", "obj", "phase"),
    [
        ("claims", {"status": {"phase": "Bound"}}, "Bound"),
        ("claims", {}, "Pending"),
        ("nodes", {"status": {"conditions": [{"type": "Ready", "status": "True"}]}}, "Ready"),
        ("nodes", {"status": {"conditions": [{"type": "Ready", "status": "False"}]}}, "NotReady"),
        ("nodes", {}, "NotReady"),
    ],
)
def test_an_object_is_counted_under_its_phase(kind: str, obj: dict[str, Any], phase: str) -> None:
    assert status.phase_of(kind, {"metadata": {"name": "x"}, **obj}) == phase


def test_an_object_that_is_being_deleted_is_terminating() -> None:
    obj = {"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z"}, "status": {"phase": "Bound"}}
    assert status.phase_of("volumes", obj) == "Terminating"
