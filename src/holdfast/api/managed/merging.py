"""Merging an applied configuration into the live object.

What the configuration gives replaces what the object has, leaf by leaf; nothing is removed here.
A list takes the order of the configuration where that says something, and keeps its own order
for the elements only it has.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from holdfast.api.managed import items
from holdfast.api.managed.types import Type


def merge(live: Mapping[str, Any], config: Mapping[str, Any], type: Type) -> dict[str, Any]:
    """The object with the configuration merged in; raises `items.ItemError`."""
    merged = dict(live)
    for key, value in config.items():
        part = type.fields.get(key, type.element)
        if key in live and part is not None:
            value = _merged(live[key], value, part)
        merged[key] = value
    return merged


def _merged(old: Any, new: Any, type: Type) -> Any:
    if type.leaf or not old:
        return new
    if type.form == "list":
        return _Lists(old, new or [], type).merged()
    return merge(old, new or {}, type)


class _Lists:
    """Two lists becoming one: a walk through both at once, led by the order of the new one."""

    def __init__(self, old: list[Any], new: list[Any], type: Type) -> None:
        assert type.element is not None
        self._element = type.element
        self._old = [(items.step_of(item, type), item) for item in old]
        self._olds, self._news = items.indexed(old, type), items.indexed(new, type)
        self._new = list(self._news)
        self._shared = [step for step in self._new if step in self._olds]
        """What both have and is not taken yet, in the new order."""
        self._left = self._right = 0
        self._done: set[str] = set()
        self._merged: list[Any] = []

    def merged(self) -> list[Any]:
        """The elements of both."""
        while self._left < len(self._old) or self._right < len(self._new):
            if self._left < len(self._old) and self._keep_old():
                continue
            if self._right < len(self._new):
                self._take_new()
        return self._merged

    def _keep_old(self) -> bool:
        """Go on in the old list if its turn is; False when it is the new list's."""
        step, item = self._old[self._left]
        if self._right < len(self._new):
            if step == self._new[self._right]:
                self._left += 1
                self._take_new()
                return True
            if step in self._news and self._shared and self._shared[0] != step:
                # The new list has it elsewhere; it comes when its turn comes there.
                self._left += 1
                return True
        if step not in self._news:
            self._merged.append(item)
            self._left += 1
            return True
        if step in self._done:
            self._left += 1
        return False

    def _take_new(self) -> None:
        """Put the new list's element in, merged with its counterpart unless that is twofold."""
        step = self._new[self._right]
        item = self._news[step][0]
        same = self._olds.get(step, ())
        self._merged.append(_merged(same[0], item, self._element) if len(same) == 1 else item)
        self._done.add(step)
        self._right += 1
        if self._shared and self._shared[0] == step:
            self._shared.pop(0)
