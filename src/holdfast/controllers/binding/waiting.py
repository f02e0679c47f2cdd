"""Claims that wait for a volume, and which of them a volume that became free can serve.

A claim that found nothing is filed here under its class and, when its selector demands a label,
under that label; among those by the size it asks for. A new free volume so finds a claim that
fits without asking all of them. A claim leaves when it is looked at again.

Claims that wait for their first consumer are kept apart: no free volume is theirs to take, only
one that is reserved for them.
"""

from __future__ import annotations

from collections.abc import Iterator

from sortedcontainers import SortedKeyList

from holdfast.controllers.binding.matching import Entry, Wish

Key = tuple[str, str]
_Label = tuple[str, str] | None
# A place no volume's label leads to.
_DELAYED: _Label = ("", "")


def _by_size(wish: Wish) -> tuple[int, str, str]:
    return wish.size, wish.namespace, wish.name


def _label_of(wish: Wish) -> _Label:
    if wish.selector is not None:
        for requirement in wish.selector.requirements:
            if requirement.operator == "In" and len(requirement.values) == 1:
                return requirement.key, requirement.values[0]
    return None


class WaitingClaims:
    """See the module's text."""

    def __init__(self) -> None:
        self._places: dict[Key, tuple[Wish, tuple[str, _Label]]] = {}
        self._filed: dict[tuple[str, _Label], SortedKeyList] = {}

    def __len__(self) -> int:
        return len(self._places)

    def __contains__(self, key: object) -> bool:
        return key in self._places

    def add(self, wish: Wish, *, delayed: bool = False) -> None:
        """The claim found no volume; `delayed` when it waits for its first consumer."""
        key = (wish.namespace, wish.name)
        self.remove(key)
        place = (wish.class_name, _DELAYED if delayed else _label_of(wish))
        self._places[key] = wish, place
        group = self._filed.get(place)
        if group is None:
            group = self._filed[place] = SortedKeyList(key=_by_size)
        group.add(wish)

    def remove(self, key: Key) -> None:
        """The claim is being looked at, bound or gone."""
        found = self._places.pop(key, None)
        if found is None:
            return
        wish, place = found
        group = self._filed[place]
        group.remove(wish)
        if not group:
            del self._filed[place]

    def fitting(self, entry: Entry) -> Key | None:
        """A claim the free volume can serve; of several, one that wastes least of it."""
        for label in (*entry.labels.items(), None):
            group = self._filed.get((entry.class_name, label))
            if group is not None:
                for wish in self._affordable(group, entry):
                    if wish.accepts(entry):
                        return wish.namespace, wish.name
        return None

    def _affordable(self, group: SortedKeyList, entry: Entry) -> Iterator[Wish]:
        largest = (entry.size, "\U0010ffff", "")
        return group.irange_key(None, largest, reverse=True)  # type: ignore[no-any-return]

    def delayed(self, key: Key) -> bool:
        """Whether the claim waits for its first consumer."""
        found = self._places.get(key)
        return found is not None and found[1][1] == _DELAYED

    def of_class(self, class_name: str) -> list[Key]:
        """Every waiting claim of a class."""
        return [
            (wish.namespace, wish.name)
            for (name, _), group in self._filed.items()
            if name == class_name
            for wish in group
        ]
