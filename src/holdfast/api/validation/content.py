"""Rules for objects that hold data for pods: Secret, ConfigMap, ServiceAccount.

Contents of secrets never appear in a complaint: causes name keys only.
"""

from __future__ import annotations

import binascii
from typing import Final

import msgspec

from holdfast.api import fields
from holdfast.api.fields import Cause
from holdfast.api.validation import names
from holdfast.api.validation.rules import EMPTY, Object, Rules, each

MAX_BYTES: Final = 1024 * 1024
"""Bytes all values of one Secret or ConfigMap may have together."""

_IMMUTABLE: Final = "field is immutable when `immutable` is set"
_REDACTED: Final = "<secret contents redacted>"
_NEEDED_KEYS: Final = {
    "kubernetes.io/dockercfg": (".dockercfg",),
    "kubernetes.io/dockerconfigjson": (".dockerconfigjson",),
    "kubernetes.io/ssh-auth": ("ssh-privatekey",),
    "kubernetes.io/tls": ("tls.crt", "tls.key"),
}
_JSON_TYPES: Final = ("kubernetes.io/dockercfg", "kubernetes.io/dockerconfigjson")
_ACCOUNT: Final = "kubernetes.io/service-account.name"


class SecretRules(Rules):
    """Rules of Secret."""

    def same_body(self, new: Object, old: Object) -> bool:
        """A secret's content is at the top level."""
        return new.get("data") == old.get("data") and new.get("type") == old.get("type")

    def body(self, obj: Object) -> list[Cause]:
        """Check keys, size and what the secret's type promises."""
        data = obj.get("data", EMPTY)
        said: list[Cause] = []
        for key in data:
            said += each(f"data[{key}]", key, names.data_key(key))
        if sum(_decoded_size(value) for value in data.values()) > MAX_BYTES:
            said.append(fields.too_long("data", MAX_BYTES))
        return said + _promised(obj, data)

    def transition(self, new: Object, old: Object) -> list[Cause]:
        """Check that the type stays, and the data of an immutable secret."""
        said: list[Cause] = []
        if new.get("type") != old.get("type"):
            said.append(fields.immutable("type", new.get("type")))
        return said + _frozen(new, old, ("data",))


class ConfigMapRules(Rules):
    """Rules of ConfigMap."""

    def same_body(self, new: Object, old: Object) -> bool:
        """A config map's content is at the top level."""
        return all(new.get(part) == old.get(part) for part in ("data", "binaryData"))

    def body(self, obj: Object) -> list[Cause]:
        """Check keys, that no key stands in both maps, and size."""
        texts, binary = obj.get("data", EMPTY), obj.get("binaryData", EMPTY)
        said: list[Cause] = []
        for path, here in (("data", texts), ("binaryData", binary)):
            for key in here:
                said += each(f"{path}[{key}]", key, names.data_key(key))
        for key in texts.keys() & binary.keys():
            rule = "duplicate of key present in binaryData"
            said.append(fields.invalid(f"data[{key}]", key, rule))
        size = sum(len(value.encode()) for value in texts.values())
        if size + sum(_decoded_size(value) for value in binary.values()) > MAX_BYTES:
            # The reference has no path for the whole object, and prints it so.
            said.append(fields.too_long("[]", MAX_BYTES))
        return said

    def transition(self, new: Object, old: Object) -> list[Cause]:
        """Check that an immutable map stays."""
        return _frozen(new, old, ("data", "binaryData"))


class ServiceAccountRules(Rules):
    """Rules of ServiceAccount: metadata only."""

    unconditional_update = False


def _decoded_size(value: str) -> int:
    # Base64 without decoding: four characters hold three bytes, less the padding.
    return len(value) * 3 // 4 - value.count("=")


def _frozen(new: Object, old: Object, parts: tuple[str, ...]) -> list[Cause]:
    if not old.get("immutable"):
        return []
    changed = [part for part in parts if new.get(part) != old.get(part)]
    if not new.get("immutable"):
        changed.insert(0, "immutable")
    return [fields.forbidden(part, _IMMUTABLE) for part in changed]


def _promised(obj: Object, data: Object) -> list[Cause]:
    kind = obj.get("type", "Opaque")
    if kind == "kubernetes.io/service-account-token":
        if obj.get("metadata", EMPTY).get("annotations", EMPTY).get(_ACCOUNT):
            return []
        return [fields.required(f"metadata.annotations[{_ACCOUNT}]")]
    if kind == "kubernetes.io/basic-auth":
        if "username" in data or "password" in data:
            return []
        return [fields.required("data[username]"), fields.required("data[password]")]
    needed = _NEEDED_KEYS.get(kind, ())
    said = [fields.required(f"data[{key}]") for key in needed if key not in data]
    if kind in _JSON_TYPES and not said:
        said += _json(data[needed[0]], f"data[{needed[0]}]")
    return said


def _json(value: str, path: str) -> list[Cause]:
    try:
        msgspec.json.decode(binascii.a2b_base64(value), type=dict)
    except (msgspec.DecodeError, binascii.Error):
        # The reader's own message may quote the content, so it is not passed on.
        return [fields.invalid(path, _REDACTED, "must be a JSON object")]
    return []
