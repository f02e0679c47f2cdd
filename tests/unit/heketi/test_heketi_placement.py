"""Placement: every assignment that exists is found, and no rule is broken by what is found."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from holdfast.heketi import errors, placement, sizes
from holdfast.heketi.entries import ARBITER, GIB, NORMAL, Device, Durability, Node
from holdfast.heketi.placement import Candidate, Kinds, Request, Search, Sets
from holdfast.heketi.sizes import Footprint

THREE = Durability(type="replicate", replica=3)


def _candidates(
    rooms: Sequence[tuple[int, int, int]], tags: Sequence[tuple[bool, bool]] = ()
) -> list[Candidate]:
    """Devices as (node, zone, free KiB)."""
    found = []
    for index, (number, zone, free) in enumerate(rooms):
        node = Node(id=f"n{number}", cluster="c", zone=zone, manage=f"h{number}", storage="s")
        device = Device(id=f"d{index}", node=node.id, name=f"/dev/{index}", total=max(free, 1))
        data, arbiter = tags[index] if tags else (True, True)
        found.append(Candidate(device, node, free, data, arbiter))
    return found


def _check(found: Sets, request: Request, candidates: Sequence[Candidate]) -> None:
    taken: Counter[str] = Counter()
    allowed = {each.device.id: each for each in candidates}
    for each in found:
        assert len(each) == request.durability.bricks
        groups = [placed.node.zone if request.strict_zones else placed.node.id for placed in each]
        assert len(set(groups)) == len(groups)
        for placed in each:
            taken[placed.device.id] += placed.footprint.space
            device = allowed[placed.device.id]
            assert device.data if placed.kind == NORMAL else device.arbiter
    for key, space in taken.items():
        assert space < allowed[key].free


@pytest.mark.parametrize(
    ("gib", "factor", "pool", "metadata", "space"),
    [
        (1, 1.0, 1048576, 8192, 1056768),
        (10, 1.0, 10485760, 53248, 10539008),
        (100, 1.5, 157286400, 786432, 158072832),
    ],
)
def test_a_brick_takes_what_heketi_gives_it(
    gib: int, factor: float, pool: int, metadata: int, space: int
) -> None:
    found = sizes.footprint(gib * GIB, factor)
    assert (found.pool, found.metadata, found.space) == (pool, metadata, space)


def test_the_largest_brick_of_an_empty_disk_of_500_gib_is_heketis() -> None:
    step = 1024
    room = 500 * GIB
    largest = max(
        size
        for size in range(521 * 10**6 // step * step, room, step)
        if sizes.footprint(size, 1.0).space < room
    )
    assert largest == 521674752


def _exists(
    rooms: list[list[int]], sets: int, wanted: int, space: int, left: int | None = None
) -> bool:
    """Try everything: rooms are the free sizes of the disks of each group."""
    if (sets if left is None else left) == 0:
        return True
    left = sets if left is None else left
    options = [
        (group, disk)
        for group, disks in enumerate(rooms)
        for disk, free in enumerate(disks)
        if free > space
    ]
    for chosen in itertools.combinations(options, wanted):
        if len({group for group, _ in chosen}) < wanted:
            continue
        after = [list(disks) for disks in rooms]
        for group, disk in chosen:
            after[group][disk] -= space
        if _exists(after, sets, wanted, space, left - 1):
            return True
    return False


@settings(max_examples=300, deadline=None)
@given(
    rooms=st.lists(st.lists(st.integers(0, 35), min_size=1, max_size=2), min_size=1, max_size=4),
    sets=st.integers(1, 3),
    wanted=st.integers(1, 3),
)
def test_sets_are_placed_exactly_when_trying_everything_places_them(
    rooms: list[list[int]], sets: int, wanted: int
) -> None:
    flat = [(group, group, free) for group, disks in enumerate(rooms) for free in disks]
    durability = Durability(type="replicate", replica=wanted)
    request = Request(size=1, durability=durability)
    candidates = _candidates(flat)
    search = Search(candidates, request, Kinds(Footprint(9, 9, 1)))
    found = search.place(sets)
    assert (found is not None) == _exists(rooms, sets, wanted, 10)
    if found is not None:
        _check(found, request, candidates)


def _arbiters_exist(  # noqa: C901
    candidates: Sequence[Candidate], sets: int, data: int, names: int
) -> bool:
    free = [each.free for each in candidates]

    def attempt(left: int) -> bool:
        if not left:
            return True
        for first, second, third in itertools.permutations(range(len(candidates)), 3):
            if first > second:
                continue
            chosen = [candidates[each] for each in (first, second, third)]
            if len({each.node.id for each in chosen}) < 3:
                continue
            if not (chosen[0].data and chosen[1].data and chosen[2].arbiter):
                continue
            if free[first] <= data or free[second] <= data or free[third] <= names:
                continue
            for index, space in ((first, data), (second, data), (third, names)):
                free[index] -= space
            if attempt(left - 1):
                return True
            for index, space in ((first, data), (second, data), (third, names)):
                free[index] += space
        return False

    return attempt(sets)


@settings(max_examples=200, deadline=None)
@given(
    rooms=st.lists(
        st.tuples(st.integers(0, 3), st.integers(0, 30), st.booleans(), st.booleans()),
        min_size=1,
        max_size=6,
    ),
    sets=st.integers(1, 3),
)
def test_arbiter_sets_are_placed_exactly_when_trying_everything_places_them(
    rooms: list[tuple[int, int, bool, bool]], sets: int
) -> None:
    candidates = _candidates(
        [(node, 1, free) for node, free, _, _ in rooms],
        [(data, arbiter) for _, _, data, arbiter in rooms],
    )
    request = Request(size=1, durability=THREE, arbiter=True)
    search = Search(candidates, request, Kinds(Footprint(9, 9, 1), Footprint(2, 2, 1)))
    found = search.place(sets)
    assert (found is not None) == _arbiters_exist(candidates, sets, 10, 3)
    if found is not None:
        _check(found, request, candidates)
        assert all([placed.kind for placed in each][2] == ARBITER for each in found)


@settings(max_examples=300, deadline=None)
@given(
    rooms=st.lists(
        st.tuples(st.integers(0, 4), st.integers(1, 3), st.integers(0, 90)),
        min_size=3,
        max_size=9,
    ),
    arbiter=st.booleans(),
)
def test_volumes_one_by_one_find_as_much_room_as_all_at_once(
    rooms: list[tuple[int, int, int]], arbiter: bool
) -> None:
    kinds = Kinds(Footprint(9, 9, 1), Footprint(2, 2, 1) if arbiter else None)
    request = Request(size=1, durability=THREE, arbiter=arbiter)
    candidates = _candidates(rooms)

    def place(sets: int) -> Sets | None:
        return Search(candidates, request, kinds).place(sets)

    at_once = max((sets for sets in range(1, placement.FORESIGHT) if place(sets)), default=0)
    for _ in range(at_once):
        found = place(1)
        assert found is not None
        _check(found, request, candidates)
        taken = {placed.device.id: placed.footprint.space for placed in found[0]}
        candidates = [
            replace(each, free=each.free - taken.get(each.device.id, 0)) for each in candidates
        ]


def test_strict_zones_are_kept_and_none_is_taken_twice() -> None:
    candidates = _candidates([(1, 1, 9 * GIB), (2, 1, 9 * GIB), (3, 2, 9 * GIB), (4, 3, 9 * GIB)])
    request = Request(size=2, durability=THREE, strict_zones=True)
    _check(placement.plan(candidates, request), request, candidates)
    with pytest.raises(errors.NoSpace, match="3 different zones and only 2"):
        placement.plan(candidates[:3], request)


def test_zones_are_spread_over_where_that_is_possible() -> None:
    candidates = _candidates(
        [(1, 1, 9 * GIB), (2, 1, 9 * GIB), (3, 1, 9 * GIB), (4, 2, 9 * GIB), (5, 3, 9 * GIB)]
    )
    for seed in map(str, range(20)):
        found = placement.plan(candidates, Request(size=2, durability=THREE, seed=seed))
        assert {placed.node.zone for placed in found[0]} == {1, 2, 3}


def test_the_same_seed_places_the_same_and_others_differ() -> None:
    candidates = _candidates([(number, 1, 9 * GIB) for number in range(8)])

    def devices(seed: str) -> list[str]:
        found = placement.plan(candidates, Request(size=2, durability=THREE, seed=seed))
        return [placed.device.id for placed in found[0]]

    assert devices("a") == devices("a")
    assert len({tuple(sorted(devices(str(seed)))) for seed in range(30)}) > 5


def test_the_emptiest_disks_are_taken() -> None:
    candidates = [
        Candidate(each.device, each.node, each.free - each.device.total // 2) if index < 3 else each
        for index, each in enumerate(_candidates([(number, 1, 9 * GIB) for number in range(6)]))
    ]
    found = placement.plan(candidates, Request(size=1, durability=THREE, seed="x"))
    assert {placed.node.id for placed in found[0]} == {"n3", "n4", "n5"}


def test_a_volume_larger_than_any_disk_is_split_into_sets() -> None:
    candidates = _candidates([(number, 1, 4 * GIB) for number in (1, 2, 3) for _ in range(3)])
    found = placement.plan(candidates, Request(size=9, durability=THREE))
    # Not doubling, which stops at 2.25 GiB a brick in 4 sets, but three sets exist.
    assert len(found) * found[0][0].footprint.size >= 9 * GIB


def test_a_refusal_says_which_disk_lacks_how_much() -> None:
    candidates = _candidates([(1, 1, 9 * GIB), (2, 1, 9 * GIB), (3, 1, GIB)])
    with pytest.raises(errors.NoSpace) as refused:
        placement.plan(candidates, Request(size=1, durability=THREE))
    text = refused.value.text
    assert text.startswith("No space")
    assert "device d2 (h3:/dev/2) has 1.00 GiB free, 8193 KiB too little" in text
    assert "2 of 3 nodes have room for one, 3 are needed" in text


def test_too_many_bricks_are_named() -> None:
    request = Request(size=1, durability=THREE, present=30)
    with pytest.raises(errors.NoSpace, match="has 30 of at most 32"):
        placement.plan(_candidates([(1, 1, GIB)]), request)


def test_pools_are_whole_extents_of_the_disks_they_may_lie_on() -> None:
    candidates = [
        replace(each, device=msgspec.structs.replace(each.device, extent=extent))
        for each, extent in zip(
            _candidates([(n, n, 99 * GIB) for n in range(3)]), (4096, 32768, 8192), strict=True
        )
    ]
    found = placement.plan(candidates, Request(1, THREE, factor=1.01, seed="s"))
    for placed in found[0]:
        assert placed.footprint.pool % 32768 == placed.footprint.metadata % 32768 == 0
        assert placed.footprint.pool >= 1.01 * GIB
