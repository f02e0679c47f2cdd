"""What /proc says about a process: read for ourselves, absent for nobody."""

from __future__ import annotations

import os
import resource

from holdfast.cli import process


def test_our_own_memory_is_plausible() -> None:
    resident = process.resident_bytes(os.getpid())
    assert resident is not None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    assert 1 << 20 < resident <= peak + (64 << 20)


def test_a_process_that_is_gone_has_neither_memory_nor_rights() -> None:
    assert process.resident_bytes(None) is None
    assert not process.can_mount(None)
