"""Reads `cloud.conf`, the file that Kubernetes' OpenStack cloud provider is configured with.

The format is git's: `[Section]` or `[Section "name"]`, keys without regard to
case, values with or without quotes, comments after `#` or `;` at the start of
a line. Sections for things other than volumes (networks, load balancers) are
skipped, so that one file serves both programs. In our own sections an unknown
key is an error, because a misspelt one would silently do nothing.

Invariant: no error text holds a value, as any of them may be a password.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Mapping

from holdfast.backends import errors
from holdfast.kit import suggest

GLOBAL = frozenset(
    [
        "auth-url",
        "username",
        "user-id",
        "password",
        "tenant-id",
        "tenant-name",
        "project-id",
        "project-name",
        "domain-id",
        "domain-name",
        "user-domain-id",
        "user-domain-name",
        "tenant-domain-id",
        "tenant-domain-name",
        "project-domain-id",
        "project-domain-name",
        "region",
        "ca-file",
        "cert-file",
        "key-file",
        "tls-insecure",
        "application-credential-id",
        "application-credential-name",
        "application-credential-secret",
        "trust-id",
        "trustee-id",
        "trustee-password",
        "use-clouds",
        "clouds-file",
        "cloud",
        "os-endpoint-type",
        "endpoint-type",
        "secret-name",
        "secret-namespace",
        "kubeconfig-path",
    ]
)
KNOWN: Mapping[str, frozenset[str]] = {
    "global": GLOBAL,
    "blockstorage": frozenset(
        [
            "bs-version",
            "trust-device-path",
            "ignore-volume-az",
            "node-volume-attach-limit",
            "rescan-on-resize",
            "ignore-volume-microversion",
        ]
    ),
    "metadata": frozenset({"search-order", "request-timeout"}),
}
_IGNORED = frozenset({"keymanager", "networking", "loadbalancer", "loadbalancerclass", "route"})
_SECTION = re.compile(r'\[\s*([\w-]+)\s*(?:"([^"]*)")?\s*\]\s*(?:[#;].*)?')

# By section and, for `[Global "name"]`, the name; keys and section names in small letters.
Sections = Mapping[tuple[str, str], Mapping[str, str]]


def parse(text: str, where: str) -> Sections:
    """Return the sections that matter. Raises errors.Invalid naming the line."""
    _refuse_encoded(text, where)
    found: dict[tuple[str, str], dict[str, str]] = {}
    current: dict[str, str] | None = None
    section = ""
    for number, raw in enumerate(text.splitlines(), 1):
        line = raw.strip()
        place = f"{where} line {number}"
        if not line or line[0] in "#;":
            continue
        if line.startswith("["):
            section, name = _header(line, place)
            current = found.setdefault((section, name), {}) if section in KNOWN else None
            continue
        if not section:
            raise errors.Invalid("a key stands before the first [Section]", place)
        if current is not None:
            key, value = _entry(line, section, place)
            current[key] = value
    return found


def yes(value: str) -> bool:
    """Return whether a value is one of git's ways of saying yes."""
    return value.lower() in ("true", "yes", "on", "1")


def _refuse_encoded(text: str, where: str) -> None:
    """A Secret's data is encoded once; whoever encoded the text before gets it back encoded."""
    squeezed = "".join(text.split())
    try:
        inner = base64.b64decode(squeezed, validate=True)
    except (binascii.Error, ValueError):
        return
    if b"[" in inner and b"=" in inner:
        raise errors.Invalid(
            "the file's text is still base64: it was encoded twice",
            where,
            "put the plain file into the Secret's `stringData`, or its base64 into `data`",
        )


def _header(line: str, place: str) -> tuple[str, str]:
    match = _SECTION.fullmatch(line)
    if match is None:
        raise errors.Invalid("is no section header", place, "write [Global]")
    section = match[1].lower()
    if section not in KNOWN and section not in _IGNORED:
        guess = suggest.nearest(section, ("Global", "BlockStorage", "Metadata"))
        hint = f"did you mean [{guess}]?" if guess else "known: [Global] [BlockStorage] [Metadata]"
        raise errors.Invalid(f"unknown section [{match[1]}]", place, hint)
    return section, match[2] or ""


def _entry(line: str, section: str, place: str) -> tuple[str, str]:
    key, equals, value = line.partition("=")
    key, value = key.strip().lower(), value.strip()
    if key not in KNOWN[section]:
        guess = suggest.nearest(key, KNOWN[section])
        hint = f"did you mean {guess}?" if guess else "look at the reference of cloud.conf"
        raise errors.Invalid(f"unknown key {key}", place, hint)
    if not equals:
        # git's way of saying yes.
        return key, "true"
    return key, _unquoted(value, place)


def _unquoted(value: str, place: str) -> str:
    if not value.startswith('"'):
        # A comment needs a blank before it: passwords hold both signs.
        return re.split(r"\s[#;]", value, maxsplit=1)[0].rstrip()
    match = re.match(r'"((?:[^"\\]|\\.)*)"\s*(?:[#;].*)?$', value)
    if match is None:
        raise errors.Invalid("a quoted value does not end", place, 'close it with "')
    return re.sub(r"\\(.)", r"\1", match[1])
