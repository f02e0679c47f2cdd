"""What the class of a datastore is called.

The name is the datastore's place below its datacenter, joined by dashes. One that is not
plain letters and digits is turned into a slug with a digest behind it, so that two
datastores whose names differ in punctuation get two classes. The rules and the digest are
those of Deckhouse, so a cluster that moves keeps its class names.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable

LONGEST = 150
_PLAIN = re.compile(r"[A-Za-z0-9]+")
_DASHED = frozenset("_./ ()+,:;=-&@|<>\\[]{}")
_CYRILLIC = dict(zip("абвгдезийклмнопрстуфхыэ", "abvgdeziyklmnoprstufhye", strict=True)) | {
    "ё": "e",
    "ж": "zh",
    "ц": "ts",
    "ч": "ch",
    "ш": "sh",
    "щ": "sch",
    "ю": "yu",
    "я": "ya",
}


def class_name(parts: Iterable[str], suffix: str = "") -> str:
    """Return the class's name for a datastore's folders and name, and perhaps a policy."""
    joined = "-".join(parts)
    base = slug(joined)
    if suffix:
        base = f"{base}-{suffix}"
    kept = re.sub(r"[^a-z0-9.-]", "", base.lower().replace(" ", "-"))
    return kept.strip("-.")


def slug(text: str) -> str:
    """Return a short name of lower-case letters, digits and dashes for any text."""
    if _PLAIN.fullmatch(text) and len(text) < LONGEST:
        return text
    digest = f"-{murmur3(text.encode()):x}"
    return _transliterated(text)[: LONGEST - len(digest)].rstrip("-") + digest


def _transliterated(text: str) -> str:
    found: list[str] = []
    for character in text.lower():
        if character in _CYRILLIC:
            found.append(_CYRILLIC[character])
        elif character in _DASHED:
            found.append("-")
        else:
            plain = unicodedata.normalize("NFKD", character)
            found += [one for one in plain if one.isascii() and one.isalnum()]
    return re.sub("-{2,}", "-", "".join(found)).strip("-")


def murmur3(data: bytes, seed: int = 0) -> int:
    """Return MurmurHash3 for 32 bits, as Austin Appleby defined it."""
    mask = 0xFFFFFFFF
    value = seed
    whole = len(data) & ~3
    for at in range(0, whole, 4):
        value ^= _scramble(int.from_bytes(data[at : at + 4], "little"))
        value = (value << 13 | value >> 19) & mask
        value = (value * 5 + 0xE6546B64) & mask
    if len(data) > whole:
        value ^= _scramble(int.from_bytes(data[whole:], "little"))
    value ^= len(data)
    value = ((value ^ value >> 16) * 0x85EBCA6B) & mask
    value = ((value ^ value >> 13) * 0xC2B2AE35) & mask
    return value ^ value >> 16


def _scramble(block: int) -> int:
    mask = 0xFFFFFFFF
    block = (block * 0xCC9E2D51) & mask
    block = (block << 15 | block >> 17) & mask
    return (block * 0x1B873593) & mask
