"""Claims that wait for a volume, and which of them a volume that became free can serve.

A claim that found nothing is filed here under its class and, when its selector demands a label,
under that label; among those by the size it asks for. A new free volume so finds a claim that
fits without asking all of them. A claim leaves when it is looked at again.
"""

from __future__ import annotations

from collections.abc import Iterator

from sortedcontainers import SortedKeyList

from holdfast.controllers.binding.matching import Entry, Wish

Key = tuple[str, str]
_Label = tuple[str, str] | None


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
        self._wishes: dict[Key, Wish] = {}
        self._filed: dict[tuple[str, _Label], SortedKeyList] = {}

    def __len__(self) -> int:
        return len(self._wishes)

    def add(self, wish: Wish) -> None:
        """The claim found no volume."""
        key = (wish.namespace, wish.name)
        self.remove(key)
        self._wishes[key] = wish
        place = (wish.class_name, _label_of(wish))
        group = self._filed.get(place)
        if group is None:
            group = self._filed[place] = SortedKeyList(key=_by_size)
        group.add(wish)

    def remove(self, key: Key) -> None:
        """The claim is being looked at, bound or gone."""
        wish = self._wishes.pop(key, None)
        if wish is None:
            return
        place = (wish.class_name, _label_of(wish))
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

    def of_class(self, class_name: str) -> list[Key]:
        """Every waiting claim of a class."""
        return [
            (wish.namespace, wish.name)
            for (name, _), group in self._filed.items()
            if name == class_name
            for wish in group
        ]
