"""Wall-clock time in the forms that the API uses.

Times are timezone-aware UTC datetimes inside the program and RFC 3339 text
outside: whole seconds for ordinary fields, six digits of microseconds for
leases and event series. `age` is the short duration that tables show.

Measure intervals with the event loop's monotonic time, not with this module.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta, timezone

_RFC3339 = re.compile(
    r"(\d{4})-(\d\d)-(\d\d)T(\d\d):(\d\d):(\d\d)(?:[.,](\d+))?(?:Z|([+-])(\d\d):(\d\d))",
    re.ASCII,
)


def now() -> datetime:
    """Return the current time in UTC."""
    return datetime.now(UTC)


def rfc3339(moment: datetime) -> str:
    """Format with whole seconds, e.g. 2026-11-21T07:37:00Z; fractions are cut off."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def rfc3339_micro(moment: datetime) -> str:
    """Format with six digits of microseconds, e.g. 2026-11-21T07:37:00.000000Z."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def parse(text: str) -> datetime:
    """Read RFC 3339 text with any offset; digits beyond microseconds are cut off.

    Raises ValueError for anything else, including a missing offset.
    """
    found = _RFC3339.fullmatch(text)
    if found is None:
        raise ValueError(f'"{text}" is not an RFC 3339 time: write it like 2026-11-21T07:37:00Z')
    year, month, day, hour, minute, second = (int(part) for part in found.groups()[:6])
    fraction, sign, offset_hours, offset_minutes = found.groups()[6:]
    micro = int(fraction[:6].ljust(6, "0")) if fraction else 0
    zone = UTC
    if sign:
        offset = timedelta(hours=int(offset_hours), minutes=int(offset_minutes))
        zone = timezone(offset if sign == "+" else -offset)
    try:
        return datetime(year, month, day, hour, minute, second, micro, zone).astimezone(UTC)
    except (ValueError, OverflowError) as error:
        raise ValueError(f'"{text}" is not a valid time: {error}') from error


def age(seconds: float) -> str:
    """Shorten a duration for people: the rules of Kubernetes' HumanDuration.

    The units get coarser as the duration grows, so at most two are shown. Up to
    two seconds of clock difference count as zero; more is `<invalid>`.
    """
    total = int(seconds)
    if total < -1:
        return "<invalid>"
    if total < 120:
        return f"{max(total, 0)}s"
    minutes, hours = total // 60, total // 3600
    if minutes < 180:
        return _two(minutes, "m", total % 60, "s") if minutes < 10 else f"{minutes}m"
    if hours < 48:
        return _two(hours, "h", minutes % 60, "m") if hours < 8 else f"{hours}h"
    days = hours // 24
    if days < 365 * 2:
        return _two(days, "d", hours % 24, "h") if days < 8 else f"{days}d"
    years = days // 365
    return _two(years, "y", days % 365, "d") if years < 8 else f"{years}y"


def _two(large: int, large_unit: str, small: int, small_unit: str) -> str:
    return f"{large}{large_unit}{small}{small_unit}" if small else f"{large}{large_unit}"
