"""Whether a volume that exists, or a source to copy from, is what a request asks for.

Comparing is what makes create repeatable: an equal request finds its volume,
a different one under the same name is told every difference at once.
"""

from __future__ import annotations

from pathlib import Path

from holdfast.backends import errors
from holdfast.backends.local import parameters as local_parameters
from holdfast.backends.local import sizes
from holdfast.backends.local.records import SnapshotRecord, VolumeRecord
from holdfast.backends.protocol import VolumeRequest
from holdfast.kit import clock

_COMPARED = (
    ("requested", "size"),
    ("layout", "layout"),
    ("fs_type", "fsType"),
    ("mode", "volumeMode"),
    ("source", "source"),
    ("parameters", "parameters"),
)


def record_of(request: VolumeRequest, chosen: local_parameters.LocalParameters) -> VolumeRecord:
    """Return the record that the volume for `request` will have."""
    size = sizes.round_up(request.size)
    return VolumeRecord(
        name=request.name,
        requested=size,
        size=size,
        layout=chosen.layout,
        fs_type=chosen.fs_type,
        mode=request.mode,
        created=clock.rfc3339(clock.now()),
        parameters=dict(request.parameters),
        source=f"{request.source.kind}:{request.source.id}" if request.source else "",
    )


def check_same(directory: Path, record: VolumeRecord, wanted: VolumeRecord) -> None:
    """Raise errors.AlreadyExists, naming every difference, unless the two agree."""
    differing = [
        f"{label} is {getattr(record, field) or 'none'}, not {getattr(wanted, field) or 'none'}"
        for field, label in _COMPARED
        if getattr(record, field) != getattr(wanted, field)
    ]
    if differing:
        raise errors.AlreadyExists(
            f'volume "{record.name}" exists and differs: {"; ".join(differing)}',
            str(directory),
            "use another name, or delete the volume that is there",
        )


def check_origin(origin: VolumeRecord | SnapshotRecord, wanted: VolumeRecord) -> None:
    """Raise errors.Invalid unless a volume like `wanted` can start as a copy of `origin`."""
    compared = [("layout", "layout"), ("mode", "volumeMode")]
    if wanted.mode == "Filesystem":
        compared.append(("fs_type", "fsType"))
    for field, label in compared:
        had, wants = getattr(origin, field), getattr(wanted, field)
        if had != wants:
            raise errors.Invalid(
                f'the source "{origin.name}" has {label} {had}, the new volume asks for {wants}',
                "request",
                f"use a class and claim with {label} {had}",
            )
    if wanted.size < origin.size:
        raise errors.Invalid(
            f'the source "{origin.name}" has {sizes.text(origin.size)}, '
            f"more than the {sizes.text(wanted.size)} asked for",
            "request",
            f"ask for at least {sizes.text(origin.size)}",
        )
