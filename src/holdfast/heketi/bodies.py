"""What a request's body must look like, and the texts that say what is wrong with it.

Bodies are read with their types checked and unknown keys ignored. What cannot be read is 422, what
can be read and makes no sense is 400, both as text.
"""

from __future__ import annotations

import re
from typing import Any, TypeVar

import msgspec

from holdfast.heketi import errors
from holdfast.heketi.entries import Durability

_UUID = re.compile(r"[0-9a-fA-F]{32}")
_NAME = re.compile(r"[a-zA-Z0-9_-]+")
_DEVICE = re.compile(r"/[a-zA-Z0-9_.:/-]+")
_TAG = re.compile(r"[a-zA-Z0-9_.-]+")
_HOST = re.compile(r"[a-zA-Z0-9_.:-]+")
_DISPERSIONS = ((2, 1), (4, 2), (8, 3), (8, 4))
_GID_END = 2**31 - 1
BLANK, NOT_VALID, _FORMAT = "cannot be blank", "must be a valid value", "must be in a valid format"
T = TypeVar("T")


class ClusterBody(msgspec.Struct):
    """POST /clusters and its flags; absent means true, as the documentation always said."""

    file: bool = True
    block: bool = True


class HostsBody(msgspec.Struct):
    """Where a node is."""

    manage: list[str] = []
    storage: list[str] = []


class NodeBody(msgspec.Struct):
    """POST /nodes."""

    zone: int = 0
    hostnames: HostsBody = msgspec.field(default_factory=HostsBody)
    cluster: str = ""
    tags: dict[str, str] | None = None


class DeviceBody(msgspec.Struct):
    """POST /devices."""

    node: str = ""
    name: str = ""
    destroydata: bool = False
    tags: dict[str, str] | None = None


class StateBody(msgspec.Struct):
    """POST /nodes/{id}/state and /devices/{id}/state."""

    state: str = ""
    healcheck: str = ""


class TagsBody(msgspec.Struct):
    """POST .../tags."""

    change_type: str = ""
    tags: dict[str, str] = {}


class ReplicateBody(msgspec.Struct):
    """Part of a durability."""

    replica: int = 0


class DisperseBody(msgspec.Struct):
    """Part of a durability."""

    data: int = 0
    redundancy: int = 0


class DurabilityBody(msgspec.Struct):
    """Part of a volume."""

    type: str = ""
    replicate: ReplicateBody = msgspec.field(default_factory=ReplicateBody)
    disperse: DisperseBody = msgspec.field(default_factory=DisperseBody)


class SnapshotBody(msgspec.Struct):
    """Part of a volume."""

    enable: bool = False
    factor: float = 0.0


class VolumeBody(msgspec.Struct):
    """POST /volumes."""

    size: int = 0
    clusters: list[str] | None = None
    name: str = ""
    durability: DurabilityBody = msgspec.field(default_factory=DurabilityBody)
    gid: int = 0
    glustervolumeoptions: list[str] | None = None
    block: bool = False
    snapshot: SnapshotBody = msgspec.field(default_factory=SnapshotBody)


class ExpandBody(msgspec.Struct):
    """POST /volumes/{id}/expand."""

    expand_size: int = 0


class CloneBody(msgspec.Struct):
    """POST /volumes/{id}/clone."""

    name: str = ""


class RestrictionBody(msgspec.Struct):
    """POST /volumes/{id}/block-restriction."""

    restriction: str = ""


class EvictBody(msgspec.Struct):
    """POST /bricks/to-evict/{id}."""

    healcheck: str = ""


class ForgetBody(msgspec.Struct):
    """DELETE /devices/{id}."""

    forceforget: bool = False


class CleanupBody(msgspec.Struct):
    """POST /operations/pending/cleanup."""

    operations: list[str] = []


def read(content: bytes, kind: type[T], *, optional: bool = False) -> T:
    """Decode a body; raises `Refused` 422. A null is as if the key were not there, as in Go."""
    if optional and not content.strip():
        return kind()
    try:
        if b"null" not in content:
            return msgspec.json.decode(content, type=kind)
        given = _without_nulls(msgspec.json.decode(content))
        return kind() if given is None else msgspec.convert(given, kind)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise errors.Refused("request unable to be parsed", 422) from error


def _without_nulls(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_nulls(each) for key, each in value.items() if each is not None}
    return [_without_nulls(each) for each in value] if isinstance(value, list) else value


# Each of these says what is wrong with a value, or "".


def check(**problems: str) -> None:
    """Refuse a request that has problems, with all of them by the name of the field."""
    found = [f"{name}: {text}" for name, text in sorted(problems.items()) if text]
    if found:
        raise errors.Invalid(f"validation failed: {'; '.join(found)}.")


def uuid(value: str) -> str:
    """32 hexadecimal digits."""
    if not value:
        return BLANK
    return "" if _UUID.fullmatch(value) else f"{value} is not a valid UUID"


def ids(values: list[str]) -> str:
    """At most 32 of them."""
    if len(values) > 32:
        return f"too many ids specified ({len(values)}), up to 32 supported"
    return next((text for each in values if (text := uuid(each))), "")


def positive(value: int) -> str:
    """A number that is there and not negative."""
    if value == 0:
        return BLANK
    return "" if value > 0 else "must be no less than 1"


def one_of(value: str, *allowed: str) -> str:
    """One of some words."""
    if not value:
        return BLANK
    return "" if value in allowed else NOT_VALID


def tags_of(tags: dict[str, str] | None) -> str:
    """At most 32, with short plain names and short values."""
    if tags is None:
        return ""
    if len(tags) > 32:
        return f"too many tags specified ({len(tags)}), up to 32 supported"
    return next((text for name, value in tags.items() if (text := _tag(name, value))), "")


def _tag(name: str, value: str) -> str:
    if not name:
        return "tag names may not be empty"
    if len(name) > 32:
        return f"tag name {name}: the length must be between 1 and 32"
    if len(value) > 64:
        return f"value of tag {name}: the length must be no more than 64"
    return "" if _TAG.fullmatch(name) else f"invalid characters in tag name {name}"


def _hosts(kind: str, names: list[str]) -> str:
    if not names:
        return f"{kind}: {BLANK}"
    if all(_HOST.fullmatch(name) for name in names):
        return ""
    return f"{kind}: [{' '.join(names)}] is not a valid {kind} hostname"


def check_node(body: NodeBody) -> None:
    """What POST /nodes asks for."""
    kinds = (("manage", body.hostnames.manage), ("storage", body.hostnames.storage))
    wrong = [text for kind, names in kinds if (text := _hosts(kind, names))]
    check(
        cluster=uuid(body.cluster),
        hostnames=f"({'; '.join(wrong)}.)" if wrong else "",
        tags=tags_of(body.tags),
        zone=positive(body.zone),
    )


def check_device(body: DeviceBody) -> None:
    """What POST /devices asks for."""
    name = BLANK if not body.name else ""
    if not name and (not _DEVICE.fullmatch(body.name) or "/../" in f"{body.name}/"):
        name = _FORMAT
    check(name=name, node=uuid(body.node), tags=tags_of(body.tags))


def check_state(body: StateBody) -> None:
    """One of three states; heal checks are switched on or off."""
    state = one_of(body.state, "online", "offline", "failed")
    if state == NOT_VALID:
        state = f"{body.state} is not valid state"
    check(state=state, healcheck=heal_check(body.healcheck))


def heal_check(value: str) -> str:
    """Empty and `enable` mean to look, `disable` not to."""
    return "" if value in ("", "enable", "disable") else f"{value} is not valid heal info check"


def check_change(body: TagsBody) -> None:
    """What .../tags asks for."""
    check(change_type=one_of(body.change_type, "set", "update", "delete"), tags=tags_of(body.tags))


def check_volume(body: VolumeBody) -> Durability:
    """What POST /volumes asks for; its durability with defaults filled in."""
    check(size=positive(body.size), name=volume_name(body.name))
    if body.durability.type not in ("", "none", "replicate", "disperse"):
        raise errors.Invalid("Unknown durability type")
    if body.gid < 0:
        raise errors.Invalid("Bad group id less than zero")
    if body.gid >= _GID_END:
        raise errors.Invalid("Bad group id equal or greater than 2**32")
    if body.snapshot.enable and not 1 <= body.snapshot.factor <= 100:
        raise errors.Invalid("Invalid snapshot factor")
    check_options(body.glustervolumeoptions or [])
    return _durability(body.durability)


def check_options(options: list[str]) -> None:
    """Options are "key value"; nothing in them may look like another argument of `gluster`."""
    for text in options:
        key, _, value = text.strip().partition(" ")
        if not text.strip():
            continue
        if not re.fullmatch(r"[a-z][a-zA-Z0-9_.-]*", key) or not value.strip():
            check(glustervolumeoptions=f'"{text}" is not "KEY VALUE"')


def volume_name(name: str) -> str:
    """Letters, digits, `_` and `-`."""
    return "" if not name or (_NAME.fullmatch(name) and not name.startswith("-")) else _FORMAT


def _durability(body: DurabilityBody) -> Durability:
    kind = body.type or "none"
    replica = body.replicate.replica
    data, redundancy = body.disperse.data, body.disperse.redundancy
    if kind == "replicate" and not 0 <= replica <= 3:
        raise errors.Invalid("Invalid replica value")
    if kind == "disperse" and (data, redundancy) not in _DISPERSIONS:
        raise errors.Invalid(f"Invalid dispersion combination: {data}+{redundancy}")
    # What does not matter for the type is kept as it was sent, because it is shown again.
    return Durability(type=kind, replica=replica, data=data, redundancy=redundancy)  # type: ignore[arg-type]


def merged(old: dict[str, str], body: TagsBody) -> dict[str, str]:
    """Tags after a change."""
    if body.change_type == "set":
        result = dict(body.tags)
    elif body.change_type == "update":
        result = {**old, **body.tags}
    else:
        result = {key: value for key, value in old.items() if key not in body.tags}
    check(tags=tags_of(result))
    return result


def anything(content: bytes) -> Any:
    """A JSON document of any shape; raises `Refused` 422."""
    return read(content, dict[str, Any])
