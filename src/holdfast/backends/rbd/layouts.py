"""How librbd is told the shape of a new image: features, objects, stripes, data pool."""

from __future__ import annotations

from typing import Any

from holdfast.backends.rbd import features
from holdfast.backends.rbd.parameters import RbdParameters


def of(data_pool: str, chosen: RbdParameters) -> dict[str, Any]:
    """Return how librbd is told the shape of a new image."""
    options: dict[str, Any] = {"features": chosen.features}
    if chosen.object_size:
        options["order"] = chosen.object_size.bit_length() - 1
    if chosen.stripe_count:
        options["stripe_unit"] = chosen.stripe_unit
        options["stripe_count"] = chosen.stripe_count
        if chosen.stripe_count > 1:
            options["features"] |= features.BITS["striping"]
    if data_pool:
        options["data_pool"] = data_pool
    return options
