"""Exact amounts of a resource: `10Gi`, `1500m`, `1e3`.

An amount is an integer number of nano-units, so nothing is ever rounded except
what Kubernetes itself rounds: digits below one nano-unit go up, away from zero,
and values written with a binary suffix are capped at 2^63-1.

A quantity remembers the family of its suffix (decimal, binary, exponent) and
`canonical` prints it in that family with an integer in front of the largest
fitting suffix. Texts that look canonical to Kubernetes are kept as they were
written, some odd ones among them: `+1Gi`, `01Gi`, `1E3`, `1.500`. Equality and
order look at the amount alone: 1Gi == 1024Mi.
"""

from __future__ import annotations

import functools
import re
from typing import Final, Literal

Family = Literal["decimal", "binary", "exponent"]

NANO: Final = 10**9
MAX_BINARY: Final = (2**63 - 1) * NANO

PATTERN: Final = "^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$"
WRONG_FORMAT: Final = f"quantities must match the regular expression '{PATTERN}'"
WRONG_NUMBER: Final = "unable to parse numeric part of quantity"
WRONG_SUFFIX: Final = "unable to parse quantity's suffix"

# Longer numbers and larger exponents are refused: they mean nothing as an
# amount of storage and would only make the server compute.
_LONGEST: Final = 256
_LARGEST_EXPONENT: Final = 1000

# Digits may be missing, whatever the API's own pattern says: `Gi` and `+` are zero.
_SPLIT = re.compile(r"([+-]?)([0-9]*)(?:\.([0-9]*))?([eEinumkKMGTP]*[-+]?[0-9]*)", re.ASCII)
# How many digits Kubernetes reads the fast way, which is the one that keeps texts.
_FAST_DECIMAL: Final = 18
_FAST_BINARY: Final = 14
_DECIMAL: Final = {"n": -9, "u": -6, "m": -3, "": 0, "k": 3, "M": 6, "G": 9, "T": 12, "P": 15}
_DECIMAL_POWERS: Final = {**_DECIMAL, "E": 18}
_DECIMAL_SUFFIXES: Final = {power: suffix for suffix, power in _DECIMAL_POWERS.items()}
_BINARY_SUFFIXES: Final = ("", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei")
_BINARY_POWERS: Final = {suffix: 10 * n for n, suffix in enumerate(_BINARY_SUFFIXES) if n}

_MISSPELT = re.compile(
    r"([+-]?[0-9]+(?:[.,][0-9]+)?)\s*([kmgtpe])?(i)?(?:b|bytes?)?", re.I | re.ASCII
)


class QuantityError(ValueError):
    """Text that is not a quantity; `hint` says what its writer may have meant."""

    def __init__(self, message: str, text: str) -> None:
        super().__init__(message)
        self.message = message
        self.text = text

    @property
    def hint(self) -> str:
        """A sentence for people; the message itself is fixed by the API."""
        return _hint(self.text)


@functools.total_ordering
class Quantity:
    """An amount; immutable and hashable."""

    __slots__ = ("_text", "family", "nanos")

    def __init__(self, nanos: int, family: Family = "decimal", text: str | None = None) -> None:
        self.nanos: Final = nanos
        self.family: Final[Family] = family
        self._text = text

    @classmethod
    def of_bytes(cls, count: int) -> Quantity:
        """Make a quantity of whole bytes that prints with a binary suffix."""
        return cls(count * NANO, "binary")

    def canonical(self) -> str:
        """Return the one text in which this quantity is stored and compared."""
        if self._text is None:
            self._text = _format(self.nanos, self.family)
        return self._text

    def bytes(self) -> int:
        """Return the amount as an integer, fractions rounded away from zero."""
        whole = -(-abs(self.nanos) // NANO)
        return -whole if self.nanos < 0 else whole

    @property
    def is_integer(self) -> bool:
        """Whether there is no fraction."""
        return self.nanos % NANO == 0

    def __eq__(self, other: object) -> bool:
        return self.nanos == other.nanos if isinstance(other, Quantity) else NotImplemented

    def __lt__(self, other: Quantity) -> bool:
        return self.nanos < other.nanos if isinstance(other, Quantity) else NotImplemented

    def __hash__(self) -> int:
        return hash(self.nanos)

    def __bool__(self) -> bool:
        return self.nanos != 0

    def __str__(self) -> str:
        return self.canonical()

    def __repr__(self) -> str:
        return f"Quantity({self.canonical()!r})"


def parse(text: str | int | float) -> Quantity:
    """Read a quantity from a JSON string or number.

    Raises QuantityError whose message is the one of the reference.
    """
    if isinstance(text, str):
        return _parse(text)
    if isinstance(text, bool) or not isinstance(text, int | float):
        raise QuantityError(WRONG_FORMAT, str(text))
    return _parse(repr(text))


@functools.lru_cache(maxsize=4096)
def _parse(text: str) -> Quantity:
    if len(text) > _LONGEST:
        raise QuantityError(WRONG_NUMBER, text)
    bare = text.strip()
    found = _SPLIT.fullmatch(bare)
    if found is None or not bare:
        raise QuantityError(WRONG_FORMAT, text)
    sign, whole, fraction, suffix = found[1], found[2], found[3] or "", found[4]
    base, power, family = _interpret(suffix, text)
    if not whole and not fraction:
        if not _is_fast("", "", base, power):
            raise QuantityError(WRONG_NUMBER, text)
        return Quantity(0, family)
    digits = int(whole + fraction)
    if base == 2:
        nanos = _shift(digits << power, 9 - len(fraction))
        nanos = min(nanos, MAX_BINARY)
    else:
        nanos = _shift(digits, power + 9 - len(fraction))
    kept = bare if _is_kept(whole.lstrip("0"), fraction, base, power) else None
    return Quantity(-nanos if sign == "-" else nanos, family, kept)


def _is_fast(whole: str, fraction: str, base: int, power: int) -> bool:
    """Whether Kubernetes reads the number as an int64; `whole` has no leading zeros."""
    length = len(whole) or 1
    if base == 2:
        return not fraction and length + power * 3 // 10 <= _FAST_BINARY
    return length + len(fraction) <= _FAST_DECIMAL and power - len(fraction) >= -9


def _is_kept(whole: str, fraction: str, base: int, power: int) -> bool:
    """Whether Kubernetes takes the text for canonical and keeps it: it looks at the end alone."""
    if not _is_fast(whole, fraction, base, power):
        return False
    if base == 2:
        return int(whole or "0") & 7 != 0
    digits = f"{whole or '0'}{fraction}"
    return (power - len(fraction)) % 3 == 0 and digits[0] != "0" and not digits.endswith("000")


def _interpret(suffix: str, text: str) -> tuple[int, int, Family]:
    """Return base, power and family that a suffix stands for."""
    power = _DECIMAL_POWERS.get(suffix)
    if power is not None:
        return 10, power, "decimal"
    power = _BINARY_POWERS.get(suffix)
    if power is not None:
        return 2, power, "binary"
    if suffix[0] in "eE":
        try:
            power = int(suffix[1:])
        except ValueError as error:
            raise QuantityError(WRONG_SUFFIX, text) from error
        if power <= _LARGEST_EXPONENT:
            return 10, max(power, -_LARGEST_EXPONENT), "exponent"
    raise QuantityError(WRONG_SUFFIX, text)


def _shift(digits: int, power: int) -> int:
    """Multiply by a power of ten; what falls off the end rounds up."""
    scale: int = 10 ** abs(power)
    return digits * scale if power >= 0 else -(-digits // scale)


def _format(nanos: int, family: Family) -> str:
    if nanos == 0:
        return "0"
    if family == "binary" and nanos % NANO == 0 and abs(nanos) >= 1024 * NANO:
        return _format_binary(nanos // NANO)
    # Small or fractional binary amounts are printed in decimal, to lose nothing.
    mantissa, power = nanos, -9
    highest = 18 if family != "exponent" else _LARGEST_EXPONENT + _LONGEST
    while mantissa % 1000 == 0 and power < highest:
        mantissa //= 1000
        power += 3
    if family != "exponent":
        return f"{mantissa}{_DECIMAL_SUFFIXES[power]}"
    return f"{mantissa}e{power}" if power else str(mantissa)


def _format_binary(amount: int) -> str:
    step = 0
    while amount % 1024 == 0:
        amount //= 1024
        step += 1
    return f"{amount}{_BINARY_SUFFIXES[step]}"


def _hint(text: str) -> str:
    found = _MISSPELT.fullmatch(text.strip())
    if found is None:
        return f'"{text}": write a number and a suffix, such as 500Mi, 10Gi or 2T'
    number, letter, binary = found[1].replace(",", "."), (found[2] or "").upper(), found[3]
    if not letter:
        return f'"{text}": use {number} (bytes)'
    binary_form = f"{number}{letter}i (2^{_BINARY_POWERS[letter + 'i']} bytes)"
    if binary:
        return f'"{text}": use {binary_form}'
    decimal = "k" if letter == "K" else letter
    decimal_form = f"{number}{decimal} (10^{_DECIMAL_POWERS[decimal]} bytes)"
    return f'"{text}": use {decimal_form} or {binary_form}'
