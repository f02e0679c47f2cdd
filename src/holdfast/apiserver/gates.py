"""What feature gates take away that are off by default in Kubernetes 1.32.

A field behind such a gate may be sent, is decoded and counted as its sender's, and is dropped
before the object is checked. An object that has it already, from elsewhere, keeps it.

VolumeAttributesClass and CrossNamespaceVolumeDataSource stand with their kinds in `strategies`.
"""

from __future__ import annotations

from typing import Any

Object = dict[str, Any]

_CONTAINERS = ("containers", "initContainers", "ephemeralContainers")


def drop_from_pod(spec: Object, old: Object | None = None) -> None:
    """Take volumes of images (ImageVolume) from the spec of a pod, with what mounts them.

    Of bundles of certificates (ClusterTrustBundleProjection) an empty source is left.
    """
    volumes = spec.get("volumes") or ()
    for volume in volumes:
        for source in (volume.get("projected") or {}).get("sources") or ():
            source.pop("clusterTrustBundle", None)
    gone = {volume.get("name") for volume in volumes if "image" in volume}
    if not gone or any("image" in volume for volume in (old or {}).get("volumes") or ()):
        return
    _keep(spec, "volumes", [volume for volume in volumes if "image" not in volume])
    for part in _CONTAINERS:
        for container in spec.get(part) or ():
            mounts = container.get("volumeMounts") or ()
            _keep(container, "volumeMounts", [m for m in mounts if m.get("name") not in gone])


def _keep(owner: Object, part: str, left: list[Object]) -> None:
    if left:
        owner[part] = left
    else:
        owner.pop(part, None)
