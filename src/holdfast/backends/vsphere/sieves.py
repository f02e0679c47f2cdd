"""Leaves out of an answer the VMs that surely do not have the disk that is looked for.

Before a disk is attached or deleted, the devices of all VMs are read that may have it, and mostly
one of them is of interest: the node's. To parse the others took nearly all of our time. So the text
is searched first, for whatever would tell the disk: its file, its UUID, its id.

Invariant: a VM that has the disk is never left out. What is searched for is less than what
`holders.is_disk` compares, in a form that no writing of it escapes; and an answer that is not built
as expected is passed on whole.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

_BEGIN, _END = b"<objects>", b"</objects>"
# No letter in it is ever written another way in XML.
_PLAIN = re.compile(r"[A-Za-z0-9._-]+")
# UUIDs are written with dashes, with spaces or with neither, in small letters or large ones.
_LOWER = bytes(range(256)).lower()
_LEFT_OUT = b"- "


@dataclass(frozen=True, slots=True)
class Sieve:
    """What is looked for: a VM by its managed object id, and marks of a disk."""

    machine: str
    marks: tuple[bytes, ...]

    def __call__(self, content: bytes) -> bytes:
        """Return an answer of the PropertyCollector without the objects of no interest."""
        head, *objects = content.split(_BEGIN)
        own = f">{self.machine}</obj>".encode()
        # Mostly nobody has it, and that is seen by one look at all of them.
        sought = self._may_have(content)
        kept, found = [head], not self.machine
        for each in objects:
            body, end, rest = each.partition(_END)
            if not end:
                return content
            mine = own in body
            found = found or mine
            if mine or (sought and self._may_have(body)):
                kept += [_BEGIN, body, end]
            kept.append(rest)
        return b"".join(kept) if found else content

    def _may_have(self, text: bytes) -> bool:
        # Who could not say everything may have it too.
        plain = text.translate(_LOWER, _LEFT_OUT)
        return b"missingset" in plain or any(mark in plain for mark in self.marks)


def for_disk(machine: str, file: str, *identities: str) -> Sieve | None:
    """Return what keeps the VMs that may have a disk; None when it cannot be searched for.

    `identities` are UUIDs of it, in any writing; empty ones do not count.
    """
    name = re.split(r"[/\]]", file)[-1].strip()
    known = [*([name] if file else []), *(each for each in identities if each)]
    if not known or not all(_PLAIN.fullmatch(each) for each in known):
        return None
    marks = tuple(each.encode().translate(_LOWER, _LEFT_OUT) for each in known)
    return Sieve(machine, marks) if all(marks) else None
