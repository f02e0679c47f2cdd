"""Checks of one Secret: is it there, is it of the right type, is it encoded once.

The mistakes are those people make by hand: the wrong namespace, the wrong type, a value that went
through base64 twice, a line break that `echo` added. No finding contains a value.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from holdfast.backends import errors
from holdfast.backends.protocol import NO_SECRETS, Finding
from holdfast.backends.secretrefs import SecretRef
from holdfast.controllers import secrets

_CHECK = "secret"
# Shorter texts are base64 by accident too often.
_LEAST = 12


@dataclass(frozen=True, slots=True)
class SecretReport:
    """What was found, and the values for checks that go further; `usable` if there are any."""

    findings: Sequence[Finding]
    usable: bool
    values: Mapping[str, str] = field(default_factory=dict, repr=False)

    @property
    def sound(self) -> bool:
        """Whether there are values, and none that is certainly wrong."""
        return self.usable and all(each.severity != "error" for each in self.findings)


async def check(reader: secrets.SecretReader, ref: SecretRef | None, user: str) -> SecretReport:
    """Look at the secret a reference names; `user` says who names it."""
    if ref is None:
        return SecretReport((), True, NO_SECRETS)
    where = f"{user}, secret {ref}"
    try:
        values = await reader.read(ref)
    except errors.BackendError as error:
        return SecretReport([Finding(_CHECK, "error", error.what, where, error.remedy)], False)
    found = [finding for key in sorted(values) for finding in _value(where, key, values[key])]
    if not found:
        found = [Finding(_CHECK, "ok", f"holds {', '.join(sorted(values)) or 'nothing'}", where)]
    return SecretReport(found, True, values)


def encoded_twice(value: str) -> bool:
    """Whether a decoded value is base64 of printable text once more.

    A Ceph key is base64 of bytes, so it does not count.
    """
    text = value.strip()
    if len(text) < _LEAST:
        return False
    try:
        inner = base64.b64decode(text, validate=True).decode("ascii")
    except (binascii.Error, UnicodeDecodeError):
        return False
    return all(letter.isprintable() or letter in "\r\n\t" for letter in inner)


def _value(where: str, key: str, value: str) -> Sequence[Finding]:
    if encoded_twice(value):
        return [
            Finding(
                _CHECK,
                "error",
                f'the value of "{key}" is base64 of base64',
                where,
                "under data: encode once; kubectl create secret and stringData: do not encode",
            )
        ]
    if value.endswith("\n") and "\n" not in value[:-1]:
        return [
            Finding(
                _CHECK,
                "warning",
                f'the value of "{key}" ends with a line break, which may count as part of it',
                where,
                "encode with echo -n or printf, not with echo",
            )
        ]
    return ()
