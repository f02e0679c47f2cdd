"""Disks that a pod names itself and that are attached: `vsphereVolume` and `cinder` in its volumes.

No object stands for such a volume, so it is written down as Kubernetes does when it hands in-tree
sources to CSI drivers: the spec of a volume with a `csi` source, which the attachment carries
instead of a name. Here it looks like a PersistentVolume without a uid.

The invariant: the key DRIVER^HANDLE, under which such a volume is worked on where others are by
their name, is no name a PersistentVolume can have.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import Any, Final

from holdfast.backends import registry
from holdfast.runtime.client import Object
from holdfast.runtime.informer import Informer

_INDEX: Final = "pods-by-inline-volume"


def of_pod(pod: Mapping[str, Any]) -> Iterator[Object]:
    """Return the pod's own volumes that have to be attached."""
    for volume in pod["spec"].get("volumes") or ():
        for source in volume.keys() & registry.SOURCES.keys():
            spec = {source: volume[source]}
            driver, found = registry.driver_of(spec), registry.handle_of(spec)
            if not driver or found is None or not found[1].id:
                continue
            handle = found[1]
            csi: Object = {"driver": driver, "volumeHandle": handle.id}
            if handle.context:
                csi["volumeAttributes"] = dict(handle.context)
            if handle.fs_type:
                csi["fsType"] = handle.fs_type
            if handle.read_only:
                csi["readOnly"] = True
            # An attachment is given no defaults, so it says the mode itself.
            modes = {"accessModes": ["ReadWriteOnce"], "volumeMode": "Filesystem"}
            yield _volume({**modes, "csi": csi})


def of_attachment(attachment: Mapping[str, Any]) -> Object | None:
    """Return the volume that an attachment carries; None when it names one."""
    spec = (attachment["spec"].get("source") or {}).get("inlineVolumeSpec")
    return _volume(spec) if spec and spec.get("csi") else None


def is_inline(volume: Mapping[str, Any]) -> bool:
    """Whether no object stands for the volume."""
    return "uid" not in volume["metadata"]


def key_of(volume: Mapping[str, Any]) -> str:
    """Return the key of such a volume."""
    source = volume["spec"]["csi"]
    return f"{source['driver']}^{source['volumeHandle']}"


def index(pods: Informer) -> None:
    """Have the informer of pods keep the index; to be called before it runs."""
    pods.add_index(_INDEX, keys)


def keys(pod: Mapping[str, Any]) -> list[str]:
    """Return the keys of the pod's own volumes that have to be attached."""
    return [key_of(volume) for volume in of_pod(pod)]


def using(pods: Informer, key: str) -> Collection[Object]:
    """The pods that name the volume, as objects; copy before awaiting."""
    return pods.by(_INDEX, key)


def _volume(spec: Object) -> Object:
    name = f"{spec['csi']['driver']}-{spec['csi'].get('volumeHandle', '')}"
    return {"metadata": {"name": name}, "spec": spec}
