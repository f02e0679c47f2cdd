"""Rules that claims, volumes and pods share: access modes, modes, classes and amounts.

Amounts come in canonical text; their comparison is exact and belongs to
`holdfast.api.quantity`. Plain positive integers with a suffix, which is what
nearly every object holds, are recognised without parsing.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

from holdfast.api import fields, quantity
from holdfast.api.fields import Cause
from holdfast.api.validation import names
from holdfast.api.validation.rules import Object, each

BETA_CLASS: Final = "volume.beta.kubernetes.io/storage-class"
MOUNT_OPTIONS: Final = "volume.beta.kubernetes.io/mount-options"

_ACCESS_MODES: Final = ("ReadOnlyMany", "ReadWriteMany", "ReadWriteOnce", "ReadWriteOncePod")
_VOLUME_MODES: Final = ("Block", "Filesystem")
_SINGLE_POD: Final = "ReadWriteOncePod"
_plainly_positive = re.compile(r"[1-9][0-9]*(?:[KMGTPE]i|[kMGTPE])?").fullmatch


def access_modes(modes: Sequence[str], path: str) -> list[Cause]:
    """Check the words and that ReadWriteOncePod stands alone; emptiness is the caller's."""
    said: list[Cause] = []
    known_others = False
    for mode in modes:
        if mode not in _ACCESS_MODES:
            said.append(fields.not_supported(path, mode, _ACCESS_MODES))
        elif mode != _SINGLE_POD:
            known_others = True
    if known_others and _SINGLE_POD in modes:
        rule = "may not use ReadWriteOncePod with other access modes"
        said.append(fields.forbidden(path, rule))
    return said


def volume_mode(spec: Object) -> list[Cause]:
    """Check `spec.volumeMode`, which may be missing."""
    mode = spec.get("volumeMode")
    if mode is None or mode in _VOLUME_MODES:
        return []
    return [fields.not_supported("spec.volumeMode", mode, _VOLUME_MODES)]


def class_name(spec: Object) -> list[Cause]:
    """Check `spec.storageClassName`; the empty name is fine and means no class."""
    name = spec.get("storageClassName")
    return each("spec.storageClassName", name, names.subdomain(name)) if name else []


def positive(text: str, path: str) -> list[Cause]:
    """Check that an amount is greater than zero."""
    if _plainly_positive(text) or quantity.parse(text) > quantity.parse("0"):
        return []
    return [fields.invalid(path, text, "must be greater than zero")]


def in_bytes(text: str, path: str) -> list[Cause]:
    """Check that an amount is zero or more; the message has its number, rounded up."""
    if _plainly_positive(text) or quantity.parse(text) >= quantity.parse("0"):
        return []
    number = -(-quantity.parse(text).nanos // quantity.NANO)
    return [fields.invalid(path, number, "must be a valid resource quantity")]


def not_negative(
    text: str, path: str, rule: str = "must be a valid resource quantity"
) -> list[Cause]:
    """Check that an amount is zero or more."""
    if _plainly_positive(text) or quantity.parse(text) >= quantity.parse("0"):
        return []
    return [fields.invalid(path, text, rule)]


def has_fraction(text: str) -> bool:
    """Tell whether an amount of bytes is not a whole number."""
    return not _plainly_positive(text) and not quantity.parse(text).is_integer
