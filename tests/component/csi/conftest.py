"""What the tests of CSI drivers share."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

import drivers


@pytest.fixture
def directory() -> Iterator[Path]:
    """A directory whose path is short enough for sockets."""
    with drivers.short_directory() as path:
        yield path
