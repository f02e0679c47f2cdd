"""A kopf operator: claims labelled `backup: "yes"` are written down, followed and let go.

Its finalizer keeps a deleted claim until the farewell is done.
"""

from __future__ import annotations

from typing import Any

import kopf

BACKED_UP = {"backup": "yes"}


@kopf.on.create("persistentvolumeclaims", labels=BACKED_UP)
def begin(spec: kopf.Spec, patch: kopf.Patch, **_: Any) -> None:
    """Note the size, and say in the status that the claim is looked after."""
    patch.metadata.annotations["backup.example.com/size"] = spec["resources"]["requests"]["storage"]
    patch.status["conditions"] = [
        {"type": "BackedUp", "status": "True", "reason": "Begun", "lastTransitionTime": None}
    ]


@kopf.on.update("persistentvolumeclaims", labels=BACKED_UP, field="metadata.labels.schedule")
def change(old: str | None, new: str | None, patch: kopf.Patch, **_: Any) -> None:
    """Note what the schedule was and is."""
    patch.metadata.annotations["backup.example.com/schedule"] = f"{old} to {new}"


@kopf.on.delete("persistentvolumeclaims", labels=BACKED_UP)
def end(name: str, body: kopf.Body, **_: Any) -> None:
    """Say goodbye in an event."""
    kopf.info(body, reason="BackupEnded", message=f"the backup of {name} has ended")
