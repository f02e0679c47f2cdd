"""Why bricks cannot be placed: which rule, which device, how much is missing.

The text starts with the two words that clients of Heketi look for. It speaks of the smallest
bricks the rules allow, because those were the best chance.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

from holdfast.heketi.entries import GIB, Device, Durability, Node
from holdfast.heketi.sizes import Footprint, Limits

_SHOWN = 4
Free = tuple[Device, Node, int, bool, bool]


def amount(kib: int) -> str:
    """A number of KiB for people."""
    return f"{kib / GIB:.2f} GiB" if kib >= GIB // 10 else f"{kib} KiB"


def no_layout(size: int, durability: Durability, limits: Limits, present: int) -> str:
    """No number of bricks gives a brick size that the settings allow."""
    room = max(0, limits.bricks - present) // durability.bricks
    if room == 0:
        return (
            f"No space: a set takes {durability.bricks} bricks and the volume has {present} of "
            f"at most {limits.bricks} (max_bricks_per_volume)"
        )
    brick = size * GIB // (room * durability.parts)
    if brick > limits.brick_most:
        return (
            f"No space: {size} GiB in {room} sets, the most that {limits.bricks} bricks allow, are "
            f"bricks of {amount(brick)}; brick_max_size_gb allows {amount(limits.brick_most)}"
        )
    return (
        f"No space: {size} GiB over {durability.parts} bricks are bricks of "
        f"{amount(size * GIB // durability.parts)}; brick_min_size_gb asks for "
        f"{amount(limits.brick_least)}"
    )


def no_room(
    free: Sequence[Free],
    sets: int,
    wanted: int,
    data: Footprint,
    arbiter: Footprint | None,
    strict_zones: bool,
) -> str:
    """The devices do not hold the bricks."""
    what = "zone" if strict_zones else "node"
    groups: dict[object, list[Free]] = defaultdict(list)
    for each in free:
        groups[each[1].zone if strict_zones else each[1].id].append(each)
    text = f"No space: {sets} x {wanted} bricks, each taking {amount(data.space)} of a device"
    if arbiter is not None:
        text += f" (the arbiter {amount(arbiter.space)})"
    if len(groups) < wanted:
        return (
            f"{text}; the bricks of a set must be on {wanted} different {what}s and only "
            f"{len(groups)} {'has' if len(groups) == 1 else 'have'} devices that may be used"
        )
    rooms = {key: _room(each, data) for key, each in groups.items()}
    enough = sum(1 for room in rooms.values() if room)
    text += f"; {enough} of {len(groups)} {what}s have room for one, {wanted} are needed"
    if enough >= wanted:
        slots = sum(min(room, sets) for room in rooms.values())
        text += f", and together they hold {slots} of {sets * wanted}"
    return text + _lacking(free, data, arbiter)


def _room(group: Sequence[Free], data: Footprint) -> int:
    return sum(max(0, (free - 1) // data.space) for _, _, free, usable, _ in group if usable)


def _lacking(free: Sequence[Free], data: Footprint, arbiter: Footprint | None) -> str:
    short = sorted(
        (each for each in free if each[2] <= data.space), key=lambda each: each[2], reverse=True
    )
    lines = [
        f"device {device.id} ({node.manage}:{device.name}) has {amount(left)} free, "
        f"{amount(data.space - left + 1)} too little"
        for device, node, left, _, _ in short[:_SHOWN]
    ]
    if len(short) > _SHOWN:
        lines.append(f"{len(short) - _SHOWN} more have less")
    if arbiter is not None and not any(each[4] for each in free):
        lines.append("no device may hold arbiter bricks (tag arbiter:disabled)")
    elif arbiter is not None and not any(each[3] for each in free):
        lines.append("all devices are kept for arbiter bricks (tag arbiter:required)")
    return "".join(f"; {line}" for line in lines)
