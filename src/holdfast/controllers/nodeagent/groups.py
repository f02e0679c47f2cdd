"""Groups that volumes ask for: the annotation `pv.beta.kubernetes.io/gid` of a PersistentVolume.

Files of a shared volume belong to a group of its own, and only who is in it may write them. A pod
that uses the volume is put into the group, whatever user it runs as.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

GID = "pv.beta.kubernetes.io/gid"


def of_volumes(volumes: Iterable[Mapping[str, Any] | None]) -> list[int]:
    """Return the group ids that volumes name; one that is no number is nobody's."""
    found = []
    for volume in volumes:
        text = ((volume or {}).get("metadata", {}).get("annotations") or {}).get(GID, "")
        if text.isascii() and text.isdigit():
            found.append(int(text))
    return found


def joined(pod: Mapping[str, Any], gids: Iterable[int]) -> Mapping[str, Any]:
    """Return the pod with further supplemental groups; the given object stays as it is."""
    security = pod["spec"].get("securityContext") or {}
    has = list(security.get("supplementalGroups") or ())
    new = [gid for gid in dict.fromkeys(gids) if gid not in has]
    if not new:
        return pod
    security = {**security, "supplementalGroups": [*has, *new]}
    return {**pod, "spec": {**pod["spec"], "securityContext": security}}
