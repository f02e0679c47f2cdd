"""Chooses how an image is mapped on this machine, by what image and machine can do.

A mapper that lacks a feature of the image is passed over. When no other is left,
features that may be taken off are, unless the class or a volume that we did not
make forbids it; then the error says which command takes them off.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from holdfast.backends import errors
from holdfast.backends.rbd import failures, features
from holdfast.backends.rbd.mappers import Mapper
from holdfast.backends.rbd.shelf import Shelf

# How the data lies is no matter of the mapper; the kernel reports these by other means.
_IRRELEVANT = features.BITS["operations"]


@dataclass(frozen=True, slots=True)
class Choice:
    """A mapper, and the features to take off before it can map."""

    mapper: Mapper
    take_off: Sequence[str] = ()


async def choose(
    mappers: Sequence[Mapper],
    image_features: int,
    spec: str,
    context: Mapping[str, str],
) -> Choice:
    """Return how to map. Raises errors.Unsupported with every mapper's reason."""
    wanted = context.get("mounter", "auto")
    wanted = {"rbd": "krbd", "rbd-nbd": "nbd", "": "auto"}.get(wanted, wanted)
    pinned = wanted != "auto" and context.get("tryOtherMounters") == "false"
    ordered = sorted(mappers, key=lambda each: each.name != wanted)
    reasons: list[str] = []
    reducible: list[Choice] = []
    for mapper in ordered:
        if pinned and mapper.name != wanted:
            continue
        if refusal := await mapper.refusal():
            reasons.append(f"{mapper.name}: {refusal}")
            continue
        lacking = image_features & ~mapper.supported() & ~_IRRELEVANT
        if not lacking:
            return Choice(mapper)
        names = features.names(lacking)
        reasons.append(f"{mapper.name}: does not support {', '.join(names)}")
        off = features.removable(features.with_dependants(lacking, image_features))
        if set(names) <= set(off):
            reducible.append(Choice(mapper, off))
    if reducible and _may_downgrade(context):
        return reducible[0]
    remedy = "install what is named"
    if reducible:
        remedy = f"rbd feature disable {spec} {' '.join(reducible[0].take_off)}"
    raise errors.Unsupported(
        f"no mapper of this machine can map the image ({'; '.join(reasons)})", spec, remedy
    )


def take_off(shelf: Shelf, image: str, names: Sequence[str]) -> None:
    """Take features off an image that nobody has open."""
    with (
        shelf.opened(image, writable=True) as handle,
        failures.translated("take features off the image", shelf.id(image).spec),
    ):
        for name in names:
            handle.update_features(features.BITS[name], False)


def made_by_hand(context: Mapping[str, str]) -> bool:
    """Return whether the volume's image is nobody's that we know, so that it stays as it is."""
    return "true" in (context.get("static"), context.get("staticVolume"))


def _may_downgrade(context: Mapping[str, str]) -> bool:
    return not made_by_hand(context) and context.get("downgradeFeatures") != "false"
