"""What a CSI `VolumeCapability` asks for, in the words of the backends.

CSI and Kubernetes name the access modes differently; the table is here. A volume
is raw blocks or a file system, never both, so the capabilities of one request
have to agree on that.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from holdfast.backends import errors
from holdfast.backends.protocol import Mode
from holdfast.csi.wire import csi_pb2

_Access = csi_pb2.VolumeCapability.AccessMode

# The access modes by the name Kubernetes gives them.
ACCESS: Mapping[int, str] = {
    _Access.SINGLE_NODE_WRITER: "ReadWriteOnce",
    _Access.SINGLE_NODE_READER_ONLY: "ReadWriteOnce",
    _Access.SINGLE_NODE_SINGLE_WRITER: "ReadWriteOncePod",
    _Access.SINGLE_NODE_MULTI_WRITER: "ReadWriteOnce",
    _Access.MULTI_NODE_READER_ONLY: "ReadOnlyMany",
    _Access.MULTI_NODE_SINGLE_WRITER: "ReadWriteMany",
    _Access.MULTI_NODE_MULTI_WRITER: "ReadWriteMany",
}
_READERS = (_Access.SINGLE_NODE_READER_ONLY, _Access.MULTI_NODE_READER_ONLY)


@dataclass(frozen=True, slots=True)
class Wish:
    """One capability, or the sum of several. `single_writer`: at one place only."""

    mode: Mode
    access: tuple[str, ...]
    fs_type: str = ""
    flags: tuple[str, ...] = ()
    read_only: bool = False
    single_writer: bool = False


def read(capability: csi_pb2.VolumeCapability) -> Wish:
    """Return what one capability asks for. Raises errors.Invalid."""
    kind = capability.WhichOneof("access_type")
    if kind is None:
        raise errors.Invalid(
            "neither block nor mount is set", "volume_capability", "set one of the two"
        )
    mode = capability.access_mode.mode
    if mode not in ACCESS:
        raise errors.Invalid("no access mode is set", "volume_capability", "set access_mode.mode")
    return Wish(
        mode="Block" if kind == "block" else "Filesystem",
        access=(ACCESS[mode],),
        fs_type=capability.mount.fs_type,
        flags=tuple(capability.mount.mount_flags),
        read_only=mode in _READERS,
        single_writer=mode == _Access.SINGLE_NODE_SINGLE_WRITER,
    )


def read_all(capabilities: Sequence[csi_pb2.VolumeCapability]) -> Wish:
    """Return what all capabilities of a request ask for together. Raises errors.Invalid."""
    if not capabilities:
        raise errors.Invalid("no volume_capabilities are given", "request", "give at least one")
    found = [read(each) for each in capabilities]
    kinds = {each.mode for each in found}
    types = {each.fs_type for each in found if each.fs_type}
    if len(kinds) > 1:
        raise errors.Invalid(
            "one volume is asked for as blocks and as a file system", "volume_capabilities"
        )
    if len(types) > 1:
        raise errors.Invalid(
            f"one volume is asked for with {' and '.join(sorted(types))}", "volume_capabilities"
        )
    access = dict.fromkeys(mode for each in found for mode in each.access)
    return Wish(found[0].mode, tuple(access), fs_type="".join(types))
