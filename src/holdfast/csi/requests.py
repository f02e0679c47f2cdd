"""What the calls share in reading a request: required fields, sizes and tokens.

A missing field is the caller's mistake and named; a size is one number between
the least and the most that was asked for.
"""

from __future__ import annotations

import base64
import binascii

from holdfast.backends import errors
from holdfast.csi import faults, naming
from holdfast.csi.wire import csi_pb2

DEFAULT_SIZE = 1 << 30

_MARK = b"1:"


def required(value: str, field: str) -> str:
    """Return a field that has to be set. Raises errors.Invalid."""
    if not value:
        raise errors.Invalid(f"{field} is missing", "request", f"set {field}")
    return value


def name(value: str) -> str:
    """Return the backend's name for a CSI name. Raises errors.Invalid."""
    required(value, "name")
    if len(value.encode(errors="surrogatepass")) > naming.LONGEST:
        raise errors.Invalid(
            f"the name is longer than {naming.LONGEST} bytes", "request", "use a shorter one"
        )
    return naming.of(value)


def size(given: csi_pb2.CapacityRange, default: int = DEFAULT_SIZE) -> int:
    """Return how many bytes to ask the backend for. Raises errors.Invalid, OutOfRange."""
    least, most = given.required_bytes, given.limit_bytes
    if least < 0 or most < 0:
        raise errors.Invalid("a size is negative", "capacity_range", "give bytes")
    if most and least > most:
        raise faults.OutOfRange(
            f"required_bytes {least} is more than limit_bytes {most}", "capacity_range"
        )
    return least or (min(default, most) if most else default)


def check_limit(given: csi_pb2.CapacityRange, made: int) -> None:
    """Raise faults.OutOfRange when what a backend makes is larger than the limit."""
    if given.limit_bytes and made > given.limit_bytes:
        raise faults.OutOfRange(
            f"the smallest volume that holds {given.required_bytes} bytes has {made}",
            "capacity_range",
            f"allow {made} bytes",
        )


def page(max_entries: int, starting_token: str) -> tuple[int, str]:
    """Return limit and token for a backend. Raises errors.Invalid, faults.BadToken."""
    if max_entries < 0:
        raise errors.Invalid("max_entries is negative", "request", "give 0 for all")
    if not starting_token:
        return max_entries, ""
    try:
        raw = base64.b64decode(starting_token, altchars=b"-_", validate=True)
        if raw.startswith(_MARK):
            return max_entries, raw.removeprefix(_MARK).decode()
    except (binascii.Error, UnicodeError, ValueError):
        pass
    raise faults.BadToken("this token is from no listing", "starting_token", "list from the start")


def token(after: str) -> str:
    """Return the token a caller gets for a backend's; empty at the end of a listing."""
    return base64.urlsafe_b64encode(_MARK + after.encode()).decode() if after else ""
