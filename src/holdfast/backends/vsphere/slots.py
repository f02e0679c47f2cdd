"""Where a disk can hang in a VM: SCSI controllers and their units, as pure arithmetic.

A VM has up to four SCSI controllers. Each gives 15 disks a place (units 0 to 15, of which 7
is its own); a pvscsi controller of hardware version 14 and later gives 64 (0 to 64). vCenter
finds no slot by itself, and the simulator takes any, so both are decided here.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from holdfast.backends import errors

CONTROLLERS = 4
OWN_UNIT = 7
_NARROW = tuple(unit for unit in range(16) if unit != OWN_UNIT)
_WIDE = tuple(unit for unit in range(65) if unit != OWN_UNIT)
# Hardware version from which a pvscsi controller has 64 places.
WIDE_HARDWARE = 14


@dataclass(frozen=True, slots=True)
class Controller:
    """A SCSI controller in a VM: its key, bus, kind and the units in use."""

    key: int
    bus: int
    kind: str  # pvscsi | lsilogic-sas | another
    used: frozenset[int]


@dataclass(frozen=True, slots=True)
class Slot:
    """A place for a disk. `new_bus` is set when the controller has to be added first."""

    controller: int
    unit: int
    new_bus: int | None = None


def units(kind: str, hardware: str) -> tuple[int, ...]:
    """Return the units a controller has for disks."""
    match = re.fullmatch(r"vmx-(\d+)", hardware)
    wide = kind == "pvscsi" and match is not None and int(match[1]) >= WIDE_HARDWARE
    return _WIDE if wide else _NARROW


def choose(controllers: Sequence[Controller], kind: str, hardware: str, where: str) -> Slot:
    """Return a free slot, on a controller of the wanted kind if there can be one.

    Raises Exhausted when all four controllers are full.
    """
    ordered = sorted(controllers, key=lambda each: (each.kind != kind, each.bus))
    for each in (one for one in ordered if one.kind == kind):
        slot = _free(each, hardware)
        if slot is not None:
            return slot
    buses = {each.bus for each in controllers}
    if len(controllers) < CONTROLLERS:
        bus = next(number for number in range(CONTROLLERS) if number not in buses)
        return Slot(-100 - bus, units(kind, hardware)[0], bus)
    for each in ordered:
        slot = _free(each, hardware)
        if slot is not None:
            return slot
    raise errors.Exhausted(
        f"all SCSI slots are taken: {len(controllers)} controllers with "
        f"{sum(len(each.used) for each in controllers)} devices",
        where,
        "let the pod run on another node, or detach disks",
    )


def free(controllers: Sequence[Controller], kind: str, hardware: str) -> int:
    """Return how many more disks fit, with the controllers that may still be added."""
    present = sum(len(set(units(each.kind, hardware)) - each.used) for each in controllers)
    missing = max(0, CONTROLLERS - len(controllers))
    return present + missing * len(units(kind, hardware))


def _free(controller: Controller, hardware: str) -> Slot | None:
    for unit in units(controller.kind, hardware):
        if unit not in controller.used:
            return Slot(controller.key, unit)
    return None
