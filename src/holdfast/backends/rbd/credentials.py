"""Reads a Ceph user's key from the content of a Secret, and says what is wrong with it.

Three shapes of Secret are known: `key` alone, as the in-tree plug-in wants it;
`userID` and `userKey`, as ceph-csi does; and `keyring`, a whole keyring file. What
goes wrong in practice is always one of a few things - a keyring where the key
belongs, base64 applied twice, the key of nothing - and each has its own text.

Invariant: no error text contains any part of a key.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
import stat
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from holdfast.backends import errors

# A key is: type, creation time in seconds and nanoseconds, length, and the secret itself.
_HEADER = struct.Struct("<HIIH")
_KEY_NAMES = ("userKey", "key", "adminKey")
_USER_NAMES = ("userID", "userId", "adminID", "adminId")
_ENTRY = re.compile(r"^\s*\[client\.([^\]]+)\]|^\s*key\s*=\s*(\S+)", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Credentials:
    """A Ceph user (without `client.`; empty when the Secret does not say) and the key."""

    user: str
    key: str = field(repr=False)

    @property
    def fingerprint(self) -> str:
        """Tell keys apart without showing any."""
        return hashlib.sha256(self.key.encode()).hexdigest()[:16]


def of(secrets: Mapping[str, str], user: str = "", where: str = "Secret") -> Credentials | None:
    """Return what the Secret's values say, or None when they hold nothing of ours.

    A user that the Secret names wins over `user`. Raises errors.NoCredentials.
    """
    named = next((secrets[name] for name in _USER_NAMES if secrets.get(name)), user)
    named = named.strip().removeprefix("client.")
    if secrets.get("keyring"):
        return of_keyring(secrets["keyring"], named, where)
    for name in _KEY_NAMES:
        if name in secrets:
            return Credentials(named, check(secrets[name], where, name))
    if secrets:
        raise errors.NoCredentials(
            f"it has no Ceph key; its keys are {', '.join(sorted(secrets))}",
            where,
            'put the output of `ceph auth get-key client.NAME` into it under "key", '
            'or under "userKey" with the name in "userID"',
        )
    return None


def check(text: str, where: str, name: str = "key") -> str:
    """Return the key without white space. Raises errors.NoCredentials saying what it is instead."""
    key = text.strip()
    if _is_key(key):
        return key
    if not key:
        what, remedy = "is empty", "put the output of `ceph auth get-key client.NAME` there"
    elif "[client." in key or re.search(r"^\s*key\s*=", key, re.MULTILINE):
        what = "is a keyring file, not a key"
        remedy = "put only the part after `key = ` there, as `ceph auth get-key` prints it"
    elif _is_key(_decoded(key)):
        what = "is a Ceph key encoded with base64 once too often"
        remedy = (
            "under `data` encode what `ceph auth get-key` prints exactly once, "
            "or write it as it is under `stringData`"
        )
    else:
        what = f"is not a Ceph key ({len(key)} characters; a key has 40 and is base64 itself)"
        remedy = "put the output of `ceph auth get-key client.NAME` there, encoded once"
    raise errors.NoCredentials(f'its value "{name}" {what}', where, remedy)


def of_keyring(text: str, user: str = "", where: str = "keyring") -> Credentials:
    """Return the key of `user` (or of the only user) in a keyring's text.

    Raises errors.NoCredentials.
    """
    found: dict[str, str] = {}
    current = ""
    for match in _ENTRY.finditer(text):
        if match[1]:
            current = match[1]
        elif current:
            found[current] = match[2]
    chosen = user or (next(iter(found)) if len(found) == 1 else "")
    if chosen not in found:
        has = ", ".join(f"client.{name}" for name in found) or "no client"
        raise errors.NoCredentials(
            f"the keyring has {has}, not client.{chosen or 'NAME'}",
            where,
            "export the right user with `ceph auth get client.NAME`",
        )
    return Credentials(chosen, check(found[chosen], where))


def of_file(path: Path, user: str = "") -> Credentials:
    """Read a file with a key or a keyring; others than its owner must not be able to.

    Raises errors.NoCredentials.
    """
    try:
        mode = path.stat().st_mode
        text = path.read_text()
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", "") or "not text"
        raise errors.NoCredentials(
            f"the key file cannot be read ({reason})",
            str(path),
            "write it there with `ceph auth get client.NAME -o FILE`, mode 600",
        ) from error
    if stat.S_IMODE(mode) & 0o077:
        raise errors.NoCredentials(
            "the key file can be read by others", str(path), f"chmod 600 {path}"
        )
    if "[client." in text:
        return of_keyring(text, user, str(path))
    return Credentials(user, check(text, str(path)))


def _is_key(text: str) -> bool:
    try:
        raw = base64.b64decode(text, validate=True)
        kind, _, _, length = _HEADER.unpack_from(raw)
    except (binascii.Error, ValueError, struct.error):
        return False
    return kind in (1, 2) and length == len(raw) - _HEADER.size and length >= 16


def _decoded(text: str) -> str:
    try:
        return base64.b64decode(text, validate=True).decode().strip()
    except (binascii.Error, ValueError):
        return ""
