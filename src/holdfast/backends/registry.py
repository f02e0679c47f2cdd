"""Which backend answers to which provisioner name: two visible tables.

`BACKENDS` lists the backends there are. `PROVISIONERS` lists every name that a
StorageClass may give, with the backend behind it and the parameters the name
itself implies. `SOURCES` reads a PersistentVolume back.

Invariant: nothing registers itself by being imported. A new backend is a line
in each table.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from holdfast.backends import errors
from holdfast.backends.local import legacy as local_legacy
from holdfast.backends.local.backend import LocalBackend
from holdfast.backends.local.node_side import LocalNodeSide
from holdfast.backends.protocol import NodeSide, Volume, VolumeHandle, VolumeRequest
from holdfast.kit import suggest


@dataclass(frozen=True, slots=True)
class Provisioner:
    """A name a class may give. `implied` are parameters that follow from the name."""

    name: str
    backend: str
    source: Callable[[Volume, VolumeRequest, str], dict[str, Any]]
    implied: Mapping[str, str] = field(default_factory=dict)

    def parameters(self, given: Mapping[str, str] | None) -> dict[str, str]:
        """Return the class's parameters with the implied ones.

        Raises errors.Invalid when the class contradicts what the name implies.
        """
        for key, value in self.implied.items():
            if (given or {}).get(key, value) != value:
                raise errors.Invalid(
                    f'parameter "{key}" cannot be "{(given or {})[key]}" with provisioner '
                    f"{self.name}",
                    "StorageClass parameters",
                    f"leave it out, or write {value}",
                )
        return {**(given or {}), **self.implied}

    def pv_source(self, volume: Volume, request: VolumeRequest) -> dict[str, Any]:
        """Return the spec fragment of the PersistentVolume that names `volume`."""
        return self.source(volume, request, self.name)


BACKENDS: dict[str, type[LocalBackend]] = {"local": LocalBackend}

NODE_SIDES: dict[str, type[NodeSide]] = {"local": LocalNodeSide}

PROVISIONERS: dict[str, Provisioner] = {
    entry.name: entry
    for entry in (
        Provisioner(local_legacy.PROVISIONER, "local", local_legacy.pv_source),
        Provisioner(
            local_legacy.HOST_PATH_PROVISIONER,
            "local",
            local_legacy.pv_source,
            {"layout": "directory"},
        ),
    )
}

_HandleReader = Callable[[Mapping[str, Any], Mapping[str, str] | None], VolumeHandle | None]

SOURCES: dict[str, _HandleReader] = {"local": local_legacy.handle_of}


def find(provisioner: str) -> Provisioner | None:
    """Return what answers to a class's `provisioner`, or None when nobody here does."""
    return PROVISIONERS.get(provisioner)


def nearest(provisioner: str) -> str | None:
    """Return the known provisioner name that looks most like a misspelt one."""
    return suggest.nearest(provisioner, PROVISIONERS)


def csi_source(volume: Volume, request: VolumeRequest, driver: str) -> dict[str, Any]:
    """Return the `csi` fragment that names `volume`, for provisioners whose name is a driver's."""
    source: dict[str, Any] = {"driver": driver, "volumeHandle": volume.id}
    if volume.context:
        source["volumeAttributes"] = dict(volume.context)
    if request.mode == "Filesystem" and "fsType" in volume.context:
        source["fsType"] = volume.context["fsType"]
    return {"csi": source}


def csi_handle(spec: Mapping[str, Any]) -> VolumeHandle:
    """Return the handle of a PersistentVolume's spec with a `csi` source."""
    source = spec["csi"]
    return VolumeHandle(
        id=str(source.get("volumeHandle", "")),
        context=dict(source.get("volumeAttributes") or {}),
        fs_type=str(source.get("fsType") or ""),
        read_only=bool(source.get("readOnly")),
        mode="Block" if spec.get("volumeMode") == "Block" else "Filesystem",
    )


def handle_of(
    spec: Mapping[str, Any], annotations: Mapping[str, str] | None = None
) -> tuple[str, VolumeHandle] | None:
    """Return the backend's name and the handle for a PersistentVolume's spec, or None."""
    if "csi" in spec:
        return str(spec["csi"].get("driver", "")), csi_handle(spec)
    for backend, read in SOURCES.items():
        handle = read(spec, annotations)
        if handle is not None:
            return backend, handle
    return None
