"""Which volume a claim without a volume gets: the index of free and reserved volumes.

Kubernetes visits volumes in groups of equal access modes, those with the fewest modes first, and
takes from the first group that has a match the smallest volume that is large enough. Here each
group keeps its free volumes sorted by capacity, per class and volume mode, so a match is a
binary search; labels have an index of their own for claims with a selector. Binding N claims to
N volumes costs N log N.

The invariant: `_free` holds, once each, exactly the volumes a claim may take now: Available,
unclaimed, not being deleted, and not taken by a bind that is under way.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from sortedcontainers import SortedKeyList

from holdfast.api import quantity, selectors, views
from holdfast.api.selectors import LabelSelector

Modes = frozenset[str]
_Shelf = tuple[Modes, str, str]
# With fewer volumes that carry a wanted label, looking at each beats walking the sorted list,
# in which the others lie between; with more, a match is found soon on the walk.
_MANY = 256


@dataclass(frozen=True, slots=True)
class Entry:
    """What matching has to know of a volume."""

    name: str
    size: int
    modes: Modes
    mode: str
    class_name: str
    labels: dict[str, str]
    claim: views.Reference | None
    barred: bool
    available: bool

    @classmethod
    def of(cls, volume: views.Volume) -> Entry:
        """From the volume; `size` is in nanobytes, so comparisons are exact."""
        spec = volume.spec
        return cls(
            name=volume.metadata.name,
            size=quantity.parse(spec.size).nanos if spec.size else 0,
            modes=frozenset(spec.access_modes),
            mode=spec.volume_mode,
            class_name=views.class_of(volume),
            labels=volume.metadata.labels,
            claim=spec.claim_ref,
            # A volume of an attributes class is never matched while that feature is off.
            barred=volume.metadata.terminating or bool(spec.volume_attributes_class_name),
            available=volume.status.phase == "Available",
        )

    @property
    def free(self) -> bool:
        """Whether any claim may take it."""
        return self.available and self.claim is None and not self.barred

    def offers_as(self, other: Entry | None) -> bool:
        """Whether a claim that names the volume would judge both states alike."""
        return other is not None and replace(other, available=self.available) == self


@dataclass(frozen=True, slots=True)
class Wish:
    """What matching has to know of a claim."""

    namespace: str
    name: str
    uid: str
    size: int
    modes: Modes
    mode: str
    class_name: str
    selector: LabelSelector | None

    @classmethod
    def of(cls, claim: views.Claim) -> Wish:
        """From the claim; a selector that cannot be read selects nothing."""
        spec = claim.spec
        selector = None
        if spec.selector is not None:
            try:
                selector = selectors.LabelSelector.of(spec.selector)
            except selectors.SelectorError:
                selector = LabelSelector(nothing=True)
        return cls(
            namespace=claim.metadata.namespace,
            name=claim.metadata.name,
            uid=claim.metadata.uid,
            size=quantity.parse(spec.request or "0").nanos,
            modes=frozenset(spec.access_modes),
            mode=spec.volume_mode,
            class_name=views.class_of(claim),
            selector=selector,
        )

    def accepts(self, entry: Entry) -> bool:
        """Whether the volume meets every requirement of the claim."""
        return (
            entry.size >= self.size
            and entry.class_name == self.class_name
            and entry.mode == self.mode
            and self.modes <= entry.modes
            and self.selects(entry)
        )

    def selects(self, entry: Entry) -> bool:
        """Whether the claim's selector, if it has one, selects the volume."""
        return self.selector is None or self.selector.matches(entry.labels)

    def reserves(self, entry: Entry) -> bool:
        """Whether the volume is reserved for this claim."""
        reference = entry.claim
        return (
            reference is not None
            and reference.name == self.name
            and reference.namespace == self.namespace
            and reference.uid in ("", self.uid)
        )


def _by_size(entry: Entry) -> tuple[int, str]:
    return entry.size, entry.name


class VolumeIndex:
    """Free and reserved volumes, kept by `put` and `remove`."""

    def __init__(self) -> None:
        self._entries: dict[str, Entry] = {}
        # How many binds of a volume are under way; two claims may name the same one.
        self._taken: dict[str, int] = {}
        self._free: dict[_Shelf, SortedKeyList] = {}
        self._modes: dict[Modes, int] = {}
        self._labels: dict[tuple[str, str], dict[str, Entry]] = {}
        self._reserved: dict[tuple[str, str], dict[str, Entry]] = {}

    def put(self, volume: views.Volume) -> Entry:
        """Add a volume, or take in its new state."""
        entry = Entry.of(volume)
        old = self._entries.get(entry.name)
        if old is not None:
            self._unfile(old)
        self._entries[entry.name] = entry
        self._file(entry)
        return entry

    def remove(self, name: str) -> None:
        """Forget a volume."""
        entry = self._entries.pop(name, None)
        if entry is not None:
            self._unfile(entry)

    def get(self, name: str) -> Entry | None:
        """The volume's entry."""
        return self._entries.get(name)

    def is_free(self, entry: Entry) -> bool:
        """Whether the volume may be taken now."""
        return entry.free and entry.name not in self._taken

    def take(self, name: str) -> None:
        """Keep others from the volume while a bind is under way."""
        self._unshelve(name)
        self._taken[name] = self._taken.get(name, 0) + 1

    def release(self, name: str) -> bool:
        """The bind is over: what the volume now is decides. True when it is free again."""
        self._taken[name] -= 1
        if self._taken[name]:
            return False
        del self._taken[name]
        entry = self._entries.get(name)
        if entry is None or not entry.free:
            return False
        self._shelve(entry)
        return True

    def of_claim(self, key: tuple[str, str]) -> list[str]:
        """The volumes whose claimRef names the claim, whatever its uid."""
        return list(self._reserved.get(key, ()))

    def _file(self, entry: Entry) -> None:
        self._modes[entry.modes] = self._modes.get(entry.modes, 0) + 1
        if entry.claim is not None:
            key = (entry.claim.namespace, entry.claim.name)
            self._reserved.setdefault(key, {})[entry.name] = entry
        if self.is_free(entry):
            self._shelve(entry)

    def _unfile(self, entry: Entry) -> None:
        self._modes[entry.modes] -= 1
        if not self._modes[entry.modes]:
            del self._modes[entry.modes]
        if entry.claim is not None:
            key = (entry.claim.namespace, entry.claim.name)
            group = self._reserved[key]
            del group[entry.name]
            if not group:
                del self._reserved[key]
        if self.is_free(entry):
            self._unshelve(entry.name, entry)

    def _shelve(self, entry: Entry) -> None:
        shelf = (entry.modes, entry.class_name, entry.mode)
        volumes = self._free.get(shelf)
        if volumes is None:
            volumes = self._free[shelf] = SortedKeyList(key=_by_size)
        volumes.add(entry)
        for label in entry.labels.items():
            self._labels.setdefault(label, {})[entry.name] = entry

    def _unshelve(self, name: str, entry: Entry | None = None) -> None:
        entry = entry or self._entries.get(name)
        if entry is None or not self.is_free(entry):
            return
        shelf = (entry.modes, entry.class_name, entry.mode)
        volumes = self._free[shelf]
        volumes.remove(entry)
        if not volumes:
            del self._free[shelf]
        for label in entry.labels.items():
            group = self._labels[label]
            del group[name]
            if not group:
                del self._labels[label]

    def find(self, wish: Wish, *, reserved_only: bool = False) -> Entry | None:
        """The volume the claim gets, or None.

        `reserved_only` is for claims that wait for their first consumer: they take a volume here
        only when it is reserved for them.
        """
        reserved = self._reserved_for(wish)
        if reserved_only or not self._free:
            return min(reserved, key=lambda entry: len(entry.modes), default=None)
        for modes in sorted(self._modes, key=len):
            if not wish.modes <= modes:
                continue
            for entry in reserved:
                if entry.modes == modes:
                    return entry
            found = self._smallest(wish, modes)
            if found is not None:
                return found
        return None

    def _reserved_for(self, wish: Wish) -> list[Entry]:
        return [
            entry
            for entry in self._reserved.get((wish.namespace, wish.name), {}).values()
            if wish.reserves(entry)
            and wish.modes <= entry.modes
            and entry.size >= wish.size
            and entry.mode == wish.mode
            and not entry.barred
        ]

    def _smallest(self, wish: Wish, modes: Modes) -> Entry | None:
        volumes = self._free.get((modes, wish.class_name, wish.mode))
        if volumes is None:
            return None
        large_enough: Iterator[Entry] = volumes.irange_key((wish.size, ""))
        if wish.selector is None:
            return next(large_enough, None)
        labelled = self._rarest_label(wish.selector)
        if labelled is not None:
            fitting = [e for e in labelled if e.modes == modes and wish.accepts(e)]
            return min(fitting, key=_by_size, default=None)
        return next(filter(wish.selects, large_enough), None)

    def _rarest_label(self, selector: LabelSelector) -> list[Entry] | None:
        """The free volumes that can satisfy the selector's most telling requirement."""
        choices = [
            [self._labels.get((requirement.key, value), {}) for value in requirement.values]
            for requirement in selector.requirements
            if requirement.operator == "In"
        ]
        if not choices:
            return None
        best = min(choices, key=lambda groups: sum(map(len, groups)))
        if sum(map(len, best)) >= _MANY:
            return None
        return [entry for group in best for entry in group.values()]
