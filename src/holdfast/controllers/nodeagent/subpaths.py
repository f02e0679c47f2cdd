"""The subPaths of a container: parts of volumes that must be there before it starts.

Each is made where it is missing and opened without leaving the volume; what the
container is given comes from there. Volumes that are a device or a single file have
no subPaths.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from holdfast.api import views
from holdfast.backends import errors
from holdfast.node import subpaths


class SubPathError(Exception):
    """A container's subPath cannot be provided; the text is shown to users."""


def wanted(container: views.Container) -> bool:
    """Whether the container asks for a part of a volume."""
    return any(mount.sub_path or mount.sub_path_expr for mount in container.volume_mounts)


def prepare(container: views.Container, volumes: Mapping[str, Path]) -> None:
    """Make and check the subPaths; `volumes` maps entries to directories. Blocks."""
    for mount in container.volume_mounts:
        if "$(" in mount.sub_path_expr:
            raise SubPathError(
                f'subPathExpr "{mount.sub_path_expr}" of container "{container.name}" needs '
                "environment variables, which sandboxes do not have"
            )
        path = mount.sub_path or mount.sub_path_expr
        if not path:
            continue
        volume = volumes.get(mount.name)
        if volume is None:
            raise SubPathError(f'the volume "{mount.name}" of a volumeMount is not in the pod')
        try:
            with subpaths.opened(volume, path, create=not mount.read_only):
                pass
        except (errors.BackendError, OSError) as error:
            raise SubPathError(
                f'failed to prepare subPath for volumeMount "{mount.name}" of container '
                f'"{container.name}": {error}'
            ) from error
