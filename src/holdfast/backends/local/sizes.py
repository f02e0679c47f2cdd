"""Byte counts: rounding to blocks, and as text for people.

Text keeps exact multiples exact ("10Gi") and gives one decimal otherwise
("9.3Gi"), because these numbers end up in sentences that explain why
something did not fit.
"""

from __future__ import annotations

BLOCK = 4096

_UNITS = ("", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei")


def round_up(size: int) -> int:
    """Return `size` rounded up to whole blocks of 4 KiB."""
    return -(-size // BLOCK) * BLOCK


def text(size: int) -> str:
    """Return `size` in the largest binary unit that leaves a number of 1 or more."""
    unit = 0
    while unit < len(_UNITS) - 1 and abs(size) >= 1024 ** (unit + 1):
        unit += 1
    whole, rest = divmod(size, 1024**unit)
    number = str(whole) if rest == 0 else f"{size / 1024**unit:.1f}"
    return f"{number}{_UNITS[unit]}" if unit else f"{number} bytes"
