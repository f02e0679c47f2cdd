"""Image features: their names, what they need of each other, and what may be taken off.

The kernel's client supports fewer features than the library, and refuses a whole
image for one it does not know. All but `layering`, `striping` and `data-pool` can
be taken off an image that exists.
"""

from __future__ import annotations

from collections.abc import Iterable

from holdfast.backends import errors
from holdfast.kit import suggest

BITS = {
    "layering": 1 << 0,
    "striping": 1 << 1,
    "exclusive-lock": 1 << 2,
    "object-map": 1 << 3,
    "fast-diff": 1 << 4,
    "deep-flatten": 1 << 5,
    "journaling": 1 << 6,
    "data-pool": 1 << 7,
    "operations": 1 << 8,
    "migrating": 1 << 9,
    "non-primary": 1 << 10,
}
# What a class may name; striping and data-pool follow from their own parameters.
CHOICES = (
    "layering",
    "exclusive-lock",
    "object-map",
    "fast-diff",
    "deep-flatten",
    "journaling",
)
NEEDS = {
    "object-map": "exclusive-lock",
    "fast-diff": "object-map",
    "journaling": "exclusive-lock",
}
# In the order in which they can be taken off.
REMOVABLE = ("fast-diff", "object-map", "journaling", "deep-flatten", "exclusive-lock")
ALL = sum(BITS.values())
# What every kernel since 4.9 maps, and what lets a second writer be refused.
DEFAULT = "layering,exclusive-lock"


def parse(text: str) -> int:
    """Read a comma-separated list; empty means DEFAULT. Raises errors.Invalid."""
    names = [name.strip() for name in (text or DEFAULT).split(",") if name.strip()]
    for name in names:
        if name not in CHOICES:
            guess = suggest.nearest(name, CHOICES)
            hint = f'did you mean "{guess}"? ' if guess else ""
            raise errors.Invalid(
                f'parameter "imageFeatures" cannot have "{name}"',
                "StorageClass parameters",
                f"{hint}possible: {', '.join(CHOICES)}",
            )
    for name in names:
        needed = NEEDS.get(name)
        if needed and needed not in names:
            raise errors.Invalid(
                f'image feature "{name}" needs "{needed}"',
                "StorageClass parameters",
                f'add "{needed}" to imageFeatures, or take "{name}" out',
            )
    return mask(names)


def mask(names: Iterable[str]) -> int:
    """Return the bits of features by name."""
    return sum(BITS[name] for name in set(names))


def names(bits: int) -> list[str]:
    """Return the names of features; an unknown bit as its number."""
    known = [name for name, bit in BITS.items() if bits & bit]
    rest = bits & ~ALL
    return [*known, *([hex(rest)] if rest else [])]


def removable(bits: int) -> list[str]:
    """Return the features that can be taken off, in the order in which that works."""
    return [name for name in REMOVABLE if bits & BITS[name]]


def with_dependants(bits: int, image: int) -> int:
    """Return `bits` and those of `image`'s features that need one of them."""
    wanted = bits
    for name in ("object-map", "fast-diff", "journaling"):
        if wanted & BITS[NEEDS[name]] and image & BITS[name]:
            wanted |= BITS[name]
    return wanted
