"""What /proc tells about the process that serves: its capabilities and its memory.

Anything unreadable counts as absent: no capability, unknown memory.
"""

from __future__ import annotations

from pathlib import Path

_CAP_SYS_ADMIN = 1 << 21


def can_mount(pid: int | None) -> bool:
    """Say whether the process may mount and this machine has loop devices."""
    return _capabilities(pid) & _CAP_SYS_ADMIN != 0 and Path("/dev/loop-control").exists()


def resident_bytes(pid: int | None) -> int | None:
    """Give the process' resident memory in bytes, None when it cannot be read."""
    value = _status(pid).get("VmRSS", "")
    return int(value.split()[0]) * 1024 if value else None


def _capabilities(pid: int | None) -> int:
    return int(_status(pid).get("CapEff", "0"), 16)


def _status(pid: int | None) -> dict[str, str]:
    try:
        text = Path(f"/proc/{pid}/status").read_text("ascii", "replace")
    except OSError:
        return {}
    return {
        key: value.strip() for key, _, value in (line.partition(":") for line in text.splitlines())
    }
