"""What the rules of one kind look like: the class that every kind's rules extend.

A kind overrides the four hooks at the end and the two class attributes; the
order in which they run, and that an unchanged spec is not checked again, is
decided here once. All methods are pure: they return complaints and change nothing.

Invariant the callers rely on: objects are decoded and defaulted, and `old` is a
stored object, so it obeyed these rules when it was written.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

from holdfast.api import fields
from holdfast.api.fields import Cause
from holdfast.api.validation import metadata, names

Object = dict[str, Any]
"""A Kubernetes object, or a part of one, as it is on the wire."""

EMPTY: Object = {}
"""Stands in for a missing part; never changed."""


def each(path: str, value: object, texts: Sequence[str]) -> list[Cause]:
    """Make one Invalid cause of every text a grammar of `names` returned."""
    return [fields.invalid(path, value, text) for text in texts] if texts else []


class Rules:
    """The rules of a kind that needs nothing but sound metadata."""

    namespaced: ClassVar[bool] = True
    unconditional_update: ClassVar[bool] = True
    """Whether a PUT without resourceVersion is accepted; the write path enforces it."""

    def create(self, obj: Object) -> list[Cause]:
        """Return what is wrong with a new object, metadata first."""
        meta = obj.get("metadata", EMPTY)
        said = metadata.create(meta, namespaced=self.namespaced, check=self.check_name)
        said += self.body(obj)
        return said

    def update(self, new: Object, old: Object) -> list[Cause]:
        """Return what is wrong with a write to the main resource; `new` carries old's status."""
        said = metadata.update(new.get("metadata", EMPTY), old.get("metadata", EMPTY))
        if not self.same_body(new, old):
            said += self.body(new)
        said += self.transition(new, old)
        return said

    def status_update(self, new: Object, old: Object) -> list[Cause]:
        """Return what is wrong with a write to the status; `new` carries old's spec."""
        said = metadata.update(new.get("metadata", EMPTY), old.get("metadata", EMPTY))
        if new.get("status") != old.get("status"):
            said += self.status(new, old)
        return said

    def warnings(self, new: Object, old: Object | None) -> list[str]:
        """Return the texts for `Warning: 299` headers; never a reason to refuse."""
        return []

    def check_name(self, name: str) -> tuple[str, ...]:
        """Check the grammar of the object's name."""
        return names.subdomain(name)

    def same_body(self, new: Object, old: Object) -> bool:
        """Tell whether everything `body` looks at is as it was."""
        return bool(new.get("spec") == old.get("spec"))

    def body(self, obj: Object) -> list[Cause]:
        """Check everything outside metadata and status."""
        return []

    def transition(self, new: Object, old: Object) -> list[Cause]:
        """Check what may not change from one version to the next."""
        return []

    def status(self, new: Object, old: Object) -> list[Cause]:
        """Check a changed status."""
        return []
