"""Which brick goes to which device: a complete search, balanced, the same for the same seed.

Two bricks of a set never share a node and, where zones are checked strictly, never a zone: call
that a group. Bricks of one kind are equally large, so a group's free space is a number of slots,
and S sets of B bricks can be placed exactly if the groups, each counted with at most S slots, have
S*B of them. A set takes the groups with the most room, in different zones where it can; where that
would take the place of a set to come, of this volume or a later one like it, it takes the groups
with the most slots left, which never does. With arbiter bricks there are two kinds; whether the
rest can still be placed is then decided by counting, for each group, the data slots left beside
any number of arbiters.

`plan` raises `NoSpace` only when no assignment exists for any brick size; `explanation` says why.
"""

from __future__ import annotations

import bisect
import math
import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from holdfast.heketi import errors, explanation, sizes
from holdfast.heketi.entries import ARBITER, GIB, NORMAL, Device, Durability, Node
from holdfast.heketi.sizes import Footprint, Limits

# So many sets to come of the same kind are looked after, those of this volume and of later ones.
FORESIGHT = 16


@dataclass(frozen=True, slots=True)
class Candidate:
    """A device that may be used, with its node and free space in KiB."""

    device: Device
    node: Node
    free: int
    data: bool = True
    arbiter: bool = True


@dataclass(frozen=True, slots=True)
class Request:
    """What has to be placed; `size` in GiB, `present` the bricks the volume has already."""

    size: int
    durability: Durability
    factor: float = 1.0
    arbiter: bool = False
    average_file: int = sizes.AVERAGE_FILE
    arbiter_least: int = sizes.ARBITER_LEAST
    strict_zones: bool = False
    seed: str = ""
    present: int = 0
    limits: Limits = field(default_factory=Limits)


@dataclass(frozen=True, slots=True)
class Placed:
    """One brick: where, what kind and how large."""

    device: Device
    node: Node
    kind: int
    footprint: Footprint


Sets = list[list[Placed]]


def plan(candidates: Sequence[Candidate], request: Request) -> Sets:
    """Place all bricks; raises `NoSpace` with the rule that cannot be kept."""
    tried: tuple[int, Kinds] | None = None
    extent = common_extent(candidates)
    for sets, size in sizes.layouts(
        request.size * GIB, request.durability, request.limits, request.present
    ):
        kinds = _kinds(request, size, extent)
        found = Search(candidates, request, kinds).place(sets)
        if found is not None:
            return found
        # The smallest bricks were the best chance: what they lacked is worth telling.
        if tried is None or size < tried[1].data.size:
            tried = sets, kinds
    if tried is None:
        raise errors.NoSpace(
            explanation.no_layout(request.size, request.durability, request.limits, request.present)
        )
    free = [(each.device, each.node, each.free, each.data, each.arbiter) for each in candidates]
    raise errors.NoSpace(
        explanation.no_room(
            free,
            tried[0],
            request.durability.bricks,
            tried[1].data,
            tried[1].arbiter,
            request.strict_zones,
        )
    )


@dataclass(frozen=True, slots=True)
class Kinds:
    """The footprint of data bricks and, in arbiter volumes, of the third brick of a set."""

    data: Footprint
    arbiter: Footprint | None = None


def common_extent(candidates: Iterable[Candidate]) -> int:
    """What pools are multiples of: LVM rounds up to a device's extent, unasked and uncounted."""
    return math.lcm(*(each.device.extent for each in candidates)) or sizes.EXTENT


def _kinds(request: Request, size: int, extent: int) -> Kinds:
    data = sizes.footprint(size, request.factor, extent)
    if not request.arbiter:
        return Kinds(data)
    names = sizes.arbiter_size(size, request.average_file, request.arbiter_least)
    return Kinds(data, sizes.footprint(names, request.factor, extent))


class _Slot:
    """A device while a search goes on: what is left of it."""

    __slots__ = ("arbiter", "candidate", "data", "left", "order")

    def __init__(self, candidate: Candidate, order: int) -> None:
        self.candidate = candidate
        self.left = candidate.free
        self.data = candidate.data
        self.arbiter = candidate.arbiter
        self.order = order

    def room(self, space: int) -> int:
        """How many bricks of a size fit; one byte has to stay free, as Heketi has it."""
        return max(0, (self.left - 1) // space)

    def fullness(self) -> float:
        """The share that is taken."""
        total = self.candidate.device.total or 1
        return round(1 - self.left / total, 6)


class Search:
    """One try with bricks of given sizes."""

    def __init__(self, candidates: Iterable[Candidate], request: Request, kinds: Kinds) -> None:
        self._request = request
        self._kinds = kinds
        self._groups: dict[object, list[_Slot]] = {}
        for order, candidate in enumerate(_shuffled(candidates, request.seed)):
            node = candidate.node
            key: object = node.zone if request.strict_zones else node.id
            self._groups.setdefault(key, []).append(_Slot(candidate, order))

    def place(self, sets: int) -> Sets | None:
        """Place that many sets; None when it cannot be done."""
        if not self._possible(sets):
            return None
        choose = self._plain_set if self._kinds.arbiter is None else self._arbiter_set
        done: Sets = []
        reserve = self._reserve(sets)
        for left in range(sets, 0, -1):
            reserve -= 1
            chosen = choose(left, reserve)
            if chosen is None:
                return None
            done.append([_placed(slot, kind, size) for slot, kind, size in chosen])
        return done

    def _reserve(self, sets: int) -> int:
        """How many such sets there is room for, as far as is looked ahead."""
        following = range(sets + 1, max(sets, FORESIGHT) + 1)
        return sets + bisect.bisect_left(following, 1, key=lambda n: not self._possible(n))

    # Sets of equal bricks

    def _slots(self, group: list[_Slot], most: int, *, both: bool = False) -> int:
        """How many data bricks the group holds, counted until there are `most`.

        With `both` only on devices that take arbiter bricks as well.
        """
        space, found = self._kinds.data.space, 0
        for slot in group:
            if slot.data and (slot.arbiter or not both):
                found += slot.room(space)
                if found >= most:
                    return most
        return found

    def _possible(self, sets: int) -> bool:
        if self._kinds.arbiter is not None:
            return self._arbiters_possible(sets)
        return self._holds(sets, self._request.durability.bricks)

    def _holds(self, sets: int, bricks: int, *, both: bool = False) -> bool:
        """Whether sets of so many data bricks fit, no group used more than `sets` times."""
        slots = sum(self._slots(group, sets, both=both) for group in self._groups.values())
        return slots >= sets * bricks

    def _plain_set(self, left: int, reserve: int) -> list[tuple[_Slot, int, Footprint]] | None:
        """The set one would choose; where that takes room of sets to come, one that does not."""
        space = self._kinds.data.space
        chosen = self._ranked_set(left)
        if chosen and not self._taken(chosen, space, reserve):
            chosen = self._ranked_set(reserve + 1)
            for slot in chosen or ():
                slot.left -= space
        return [(slot, NORMAL, self._kinds.data) for slot in chosen] if chosen else None

    def _taken(self, chosen: list[_Slot], space: int, reserve: int) -> bool:
        """Take the slots if the sets to come can be placed afterwards."""
        for slot in chosen:
            slot.left -= space
        if self._possible(reserve):
            return True
        for slot in chosen:
            slot.left += space
        return False

    def _ranked_set(self, left: int) -> list[_Slot] | None:
        data = self._kinds.data
        open_ = [
            (self._slots(group, left), _left(group), self._emptiest(group, data, NORMAL))
            for group in self._groups.values()
        ]
        # A group whose slots are needed to the last must be in this set. Others compete, and the
        # one with the most room wins: what a small one has is kept to be its partner later.
        ranked = [(-slots, -room, *_preference(slot), slot) for slots, room, slot in open_ if slot]
        ranked.sort(key=lambda each: each[:-1])
        wanted = self._request.durability.bricks
        if len(ranked) < wanted:
            return None
        return _spread([(each[0], each[-1]) for each in ranked], wanted)

    def _emptiest(self, group: list[_Slot], size: Footprint, kind: int) -> _Slot | None:
        fitting = [
            slot
            for slot in group
            if (slot.data if kind == NORMAL else slot.arbiter) and slot.room(size.space)
        ]
        return min(fitting, key=_preference, default=None)

    # Sets with an arbiter

    def _arbiters_possible(self, sets: int) -> bool:
        """Whether 2*sets data and sets arbiter bricks fit, no group used more than `sets` times.

        Counts that fit can always be dealt out so that a set never has a group twice: it is an
        edge colouring of a bipartite graph whose degrees are at most `sets`.
        """
        # Where there is room for three data bricks each, nothing has to be counted out.
        if self._holds(sets, 3, both=True):
            return True
        reach: dict[int, int] = {0: 0}
        for group in self._groups.values():
            beside = self._data_beside(group, sets)
            following: dict[int, int] = {}
            for names, data in reach.items():
                for more, room in enumerate(beside):
                    if room < 0:
                        continue
                    key = min(sets, names + more)
                    best = data + min(room, sets - more)
                    if best > following.get(key, -1):
                        following[key] = best
            reach = following
        return reach.get(sets, -1) >= 2 * sets

    def _data_beside(self, group: list[_Slot], most: int) -> list[int]:
        """For 0..most arbiter bricks: the most data bricks the group holds beside them."""
        assert self._kinds.arbiter is not None
        data, names = self._kinds.data.space, self._kinds.arbiter.space
        best = [0] + [-1] * most
        for slot in group:
            following = [-1] * (most + 1)
            fits = min(slot.room(names), most) if slot.arbiter else 0
            for more in range(fits + 1):
                left = slot.left - 1 - more * names
                room = left // data if slot.data and left > 0 else 0
                for already, count in enumerate(best[: most + 1 - more]):
                    if count >= 0:
                        key = already + more
                        following[key] = max(following[key], count + room)
            best = following
        return best

    def _arbiter_set(self, left: int, reserve: int) -> list[tuple[_Slot, int, Footprint]] | None:
        """The first choice of three groups after which the rest is still possible."""
        data, names = self._kinds.data, self._kinds.arbiter
        assert names is not None
        groups = list(self._groups.values())
        # Devices kept for arbiters first, so that data finds its room elsewhere.
        third = [slot for group in groups if (slot := self._emptiest_arbiter(group, names))]
        third.sort(key=lambda slot: (slot.data, *_preference(slot)))
        for arbiter in third:
            arbiter.left -= names.space
            rest = [
                slot
                for group in groups
                if arbiter not in group and (slot := self._emptiest(group, data, NORMAL))
            ]
            rest.sort(key=_preference)
            pair = self._pair(rest, reserve)
            if pair is not None:
                first, second = pair
                return [(first, NORMAL, data), (second, NORMAL, data), (arbiter, ARBITER, names)]
            arbiter.left += names.space
        return None

    def _emptiest_arbiter(self, group: list[_Slot], names: Footprint) -> _Slot | None:
        fitting = [slot for slot in group if slot.arbiter and slot.room(names.space)]
        return min(fitting, key=lambda slot: (slot.data, *_preference(slot)), default=None)

    def _pair(self, rest: list[_Slot], left: int) -> tuple[_Slot, _Slot] | None:
        space = self._kinds.data.space
        for index, first in enumerate(rest):
            first.left -= space
            for second in rest[index + 1 :]:
                second.left -= space
                if not left or self._arbiters_possible(left):
                    return first, second
                second.left += space
            first.left += space
        return None


def _placed(slot: _Slot, kind: int, size: Footprint) -> Placed:
    return Placed(slot.candidate.device, slot.candidate.node, kind, size)


def _shuffled(candidates: Iterable[Candidate], seed: str) -> list[Candidate]:
    """In an order that depends on the seed and on nothing else."""
    found = sorted(candidates, key=lambda each: each.device.id)
    random.Random(seed).shuffle(found)
    return found


def _left(group: Iterable[_Slot]) -> int:
    """All that is free in a group."""
    return sum(slot.left for slot in group)


def _preference(slot: _Slot) -> tuple[float, int]:
    """Of the disks of a group the emptiest; the seed decides among equals."""
    return slot.fullness(), slot.order


def _spread(ranked: list[tuple[int, _Slot]], wanted: int) -> list[_Slot]:
    """Take from the front, but prefer a zone not yet used among those of the same rank.

    Ranks are negative slot counts: nothing of a worse rank displaces one of a better.
    """
    chosen: list[_Slot] = []
    zones: set[int] = set()
    waiting = list(ranked)
    while len(chosen) < wanted:
        rank = waiting[0][0]
        same = [each for each in waiting if each[0] == rank]
        fresh = [each for each in same if each[1].candidate.node.zone not in zones]
        taken = (fresh or same)[0]
        waiting.remove(taken)
        chosen.append(taken[1])
        zones.add(taken[1].candidate.node.zone)
    return chosen


def replacement(
    candidates: Sequence[Candidate],
    others: Sequence[Node],
    old: Device,
    size: Footprint,
    kind: int,
    *,
    strict_zones: bool,
    seed: str,
) -> Candidate | None:
    """Another device for one brick of a set whose other bricks are on `others`."""
    nodes = {node.id for node in others}
    zones = {node.zone for node in others}
    fitting = [
        _Slot(each, order)
        for order, each in enumerate(_shuffled(candidates, seed))
        if each.device.id != old.id
        and each.node.id not in nodes
        and not (strict_zones and each.node.zone in zones)
        and (each.data if kind == NORMAL else each.arbiter)
        and each.free > size.space
    ]
    fitting.sort(key=lambda slot: (slot.candidate.node.zone in zones, *_preference(slot)))
    return fitting[0].candidate if fitting else None
