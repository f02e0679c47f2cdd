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
    """Decode a body; raises `Refused` 422."""
    if optional and not content.strip():
        return kind()
    try:
        return msgspec.json.decode(content, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise errors.Refused("request unable to be parsed", 422) from error


def _invalid(text: str) -> errors.Invalid:
    return errors.Invalid(f"validation failed: {text}")


def check_uuid(value: str, field: str) -> None:
    """32 hexadecimal digits."""
    if not value:
        raise _invalid(f"{field}: cannot be blank.")
    if not _UUID.fullmatch(value):
        raise _invalid(f"{field}: {value} is not a valid UUID.")


def check_tags(tags: dict[str, str] | None) -> None:
    """At most 32, with short plain names and values."""
    if tags is None:
        return
    if len(tags) > 32:
        raise _invalid(f"tags: too many tags specified ({len(tags)}), up to 32 supported.")
    for name, value in tags.items():
        if not name:
            raise _invalid("tags: tag names may not be empty.")
        if len(name) > 32 or not _TAG.fullmatch(name):
            raise _invalid(f"tags: tag name {name}: must be in a valid format of 1 to 32 letters.")
        if len(value) > 64 or (value and not _TAG.fullmatch(value)):
            raise _invalid(f"tags: tag value {value}: must be in a valid format of at most 64.")


def check_node(body: NodeBody) -> None:
    """What POST /nodes asks for."""
    if body.zone == 0:
        raise _invalid("zone: cannot be blank.")
    if body.zone < 1:
        raise _invalid("zone: must be no less than 1.")
    for kind, names in (("manage", body.hostnames.manage), ("storage", body.hostnames.storage)):
        if not names:
            raise _invalid(f"hostnames: ({kind}: cannot be blank.).")
        for name in names:
            if not _HOST.fullmatch(name):
                raise _invalid(f"hostnames: ({kind}: {name} is not a valid {kind} hostname.).")
    check_uuid(body.cluster, "cluster")
    check_tags(body.tags)


def check_device(body: DeviceBody) -> None:
    """What POST /devices asks for."""
    if not body.name:
        raise _invalid("name: cannot be blank.")
    if not _DEVICE.fullmatch(body.name) or "/../" in f"{body.name}/":
        raise _invalid("name: must be in a valid format.")
    check_uuid(body.node, "node")
    check_tags(body.tags)


def check_state(body: StateBody) -> None:
    """One of three states; heal checks are switched on or off."""
    if body.state not in ("online", "offline", "failed"):
        raise _invalid(f"state: {body.state} is not valid state.")
    check_heal(body.healcheck)


def check_heal(value: str) -> None:
    """Empty and `enable` mean to look, `disable` not to."""
    if value not in ("", "enable", "disable"):
        raise _invalid(f"healcheck: {value} is not valid heal info check.")


def check_change(body: TagsBody) -> None:
    """What .../tags asks for."""
    if body.change_type not in ("set", "update", "delete"):
        raise _invalid(f"change_type: {body.change_type} is not a valid change type.")
    check_tags(body.tags)


def check_volume(body: VolumeBody) -> Durability:
    """What POST /volumes asks for; its durability with defaults filled in."""
    if body.size == 0:
        raise _invalid("size: cannot be blank.")
    if body.size < 1:
        raise _invalid("size: must be no less than 1.")
    for cluster in body.clusters or []:
        check_uuid(cluster, "clusters")
    check_name(body.name)
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
            raise errors.Invalid(
                f'validation failed: glustervolumeoptions: "{text}" is not "KEY VALUE".'
            )


def check_name(name: str) -> None:
    """Letters, digits, `_` and `-`."""
    if name and (not _NAME.fullmatch(name) or name.startswith("-")):
        raise _invalid("name: must be in a valid format.")


def _durability(body: DurabilityBody) -> Durability:
    kind = body.type or "none"
    replica = body.replicate.replica
    data, redundancy = body.disperse.data, body.disperse.redundancy
    if kind == "replicate" and not 0 <= replica <= 3:
        raise errors.Invalid("Invalid replica value")
    if kind == "disperse" and (data, redundancy) not in _DISPERSIONS:
        raise errors.Invalid(f"Invalid dispersion combination: {data}+{redundancy}")
    if kind not in ("none", "replicate", "disperse"):
        raise _invalid(f"durability: (type: {kind} is not a valid durability type.).")
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
    check_tags(result)
    return result


def anything(content: bytes) -> Any:
    """A JSON document of any shape; raises `Refused` 422."""
    return read(content, dict[str, Any])
