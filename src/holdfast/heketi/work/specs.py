"""From entries to what executors and the placement are asked with."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from holdfast.heketi import errors, sizes
from holdfast.heketi.entries import ARBITER, Brick, Cluster, Device, Node, Volume
from holdfast.heketi.executors.protocol import BrickSpec, Disk, VolumeSpec
from holdfast.heketi.placement import Candidate, Request
from holdfast.heketi.settings import Settings
from holdfast.heketi.state import State

_MATCH = "user.heketi.device-tag-match"
_ZONES = "user.heketi.zone-checking"
_AVERAGE = "user.heketi.average-file-size"


def brick_spec(state: State, brick: Brick, gid: int) -> BrickSpec:
    """A brick for an executor."""
    device = state.get(Device, brick.device)
    return BrickSpec(
        id=brick.id,
        disk=Disk(device.id, device.name),
        size=brick.size,
        pool_size=brick.pool_size,
        pool_metadata=brick.pool_metadata,
        pool=brick.pool_name,
        lv=brick.lv_name,
        gid=gid,
        arbiter=brick.kind == ARBITER,
        path=brick.path,
    )


def address(state: State, brick: Brick) -> str:
    """A brick as GlusterFS names it."""
    node = state.node_of(brick)
    return f"{node.storage if node else ''}:{brick.path}"


def volume_spec(state: State, volume: Volume, bricks: Sequence[Brick]) -> VolumeSpec:
    """A volume for an executor, with these bricks."""
    kind = volume.durability
    return VolumeSpec(
        id=volume.id,
        name=volume.name,
        type=kind.type,
        bricks=tuple(address(state, brick) for brick in bricks),
        replica=kind.bricks if kind.type == "replicate" else 0,
        arbiter=volume.arbiter,
        data=kind.data,
        redundancy=kind.redundancy,
        options=tuple(volume.options),
    )


def strict_zones(settings: Settings, volume: Volume) -> bool:
    """Whether bricks of a set must be in different zones; the volume's option comes first."""
    own = volume.option(_ZONES)
    return own == "strict" if own else settings.strict_zones


def request_for(
    settings: Settings, volume: Volume, size: int, seed: str, present: int = 0
) -> Request:
    """What is to be placed for a volume that is made or grows by `size` GiB."""
    average = volume.option(_AVERAGE)
    return Request(
        size=size,
        durability=volume.durability,
        factor=volume.factor if volume.snapshot else 1.0,
        arbiter=volume.arbiter,
        average_file=int(average) if average.isdigit() else settings.average_file,
        arbiter_least=settings.arbiter_least,
        strict_zones=strict_zones(settings, volume),
        seed=seed,
        present=present,
        limits=settings.limits,
    )


def candidates(
    state: State, cluster: Cluster, volume: Volume, avoid: Collection[str]
) -> list[Candidate]:
    """The devices a volume's bricks may go to; `avoid` holds node ids and hosts to leave out.

    Raises `Refused` when a cluster has nothing to offer, before any size matters.
    """
    nodes = state.below(cluster, Node)
    if not nodes:
        raise errors.Refused("No nodes in cluster")
    rule, arbiter = volume.option(_MATCH), volume.arbiter
    found, online = [], 0
    for node in nodes:
        if node.state != "online" or node.id in avoid or node.manage in avoid:
            continue
        for device in state.below(node, Device):
            if device.state == "online" and not device.pending:
                found += _candidate(state, node, device, rule, arbiter)
                online += 1
    if online and not found:
        raise errors.NoSpace(
            f"No space: none of the {online} devices that may be used has tags that match "
            f"{_MATCH} {rule}"
        )
    if not found:
        raise errors.Refused("No online storage devices in cluster")
    return found


def _candidate(
    state: State, node: Node, device: Device, rule: str, arbiter: bool
) -> list[Candidate]:
    free = state.free(device)
    if not rule and not arbiter:
        return [Candidate(device, node, free)]
    tags = {**node.tags, **device.tags}
    if not _matches(tags, rule):
        return []
    use = tags.get("arbiter", "supported") if arbiter else "supported"
    return [Candidate(device, node, free, use != "required", use != "disabled")]


def _matches(tags: dict[str, str], rule: str) -> bool:
    if not rule:
        return True
    if "!=" in rule:
        key, _, value = rule.partition("!=")
        return tags.get(key.strip()) != value.strip()
    key, equals, value = rule.partition("=")
    if not equals:
        raise errors.Invalid(
            f"Invalid tag matching rule: Invalid tag match rule: {rule}: "
            f"write {_MATCH} KEY=VALUE or KEY!=VALUE"
        )
    return tags.get(key.strip()) == value.strip()


def footprint_of(brick: Brick) -> sizes.Footprint:
    """What a brick takes, for another in its place; a clone's brick becomes one of its own."""
    if brick.space:
        return sizes.Footprint(brick.size, brick.pool_size, brick.pool_metadata)
    return sizes.footprint(brick.size, 1.0)
