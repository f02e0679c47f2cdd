"""What stands in for a backend that cannot be opened on this machine: every call says why.

A machine without a storage system's library serves all others. A class or a volume of that system
still has to be answered, and the answer is the same everywhere: what is missing and what to
install. So this one has every capability, and none of them works.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

from holdfast.backends.errors import BackendError
from holdfast.backends.protocol import (
    NO_PARAMETERS,
    NO_SECRETS,
    Finding,
    Snapshot,
    SnapshotPage,
    Volume,
    VolumePage,
    VolumeRequest,
)


class MissingBackend:
    """Raises the error that opening the backend ended with."""

    clones: Literal[True] = True

    def __init__(self, kind: str, error: BackendError) -> None:
        self.kind = kind
        self.error = error

    async def create_volume(self, request: VolumeRequest) -> Volume:
        """See `Backend.create_volume`."""
        raise self._raised()

    async def find_volume(self, request: VolumeRequest) -> Volume | None:
        """See `Backend.find_volume`."""
        raise self._raised()

    async def delete_volume(self, id: str, *, secrets: Mapping[str, str] = NO_SECRETS) -> None:
        """See `Backend.delete_volume`."""
        raise self._raised()

    async def get_volume(self, id: str, *, secrets: Mapping[str, str] = NO_SECRETS) -> Volume:
        """See `Backend.get_volume`."""
        raise self._raised()

    async def list_volumes(self, token: str = "", limit: int = 0) -> VolumePage:
        """See `Backend.list_volumes`."""
        raise self._raised()

    async def checks(self) -> Sequence[Finding]:
        """Return the one finding there is."""
        error = self.error
        return [Finding("library", "error", error.what, error.where, error.remedy)]

    async def close(self) -> None:
        """Nothing is open."""

    async def expand(
        self, id: str, size: int, *, secrets: Mapping[str, str] = NO_SECRETS
    ) -> Volume:
        """See `Expander.expand`."""
        raise self._raised()

    async def attach(
        self, id: str, node: str, read_only: bool, *, secrets: Mapping[str, str] = NO_SECRETS
    ) -> Mapping[str, str]:
        """See `Attacher.attach`."""
        raise self._raised()

    async def detach(self, id: str, node: str, *, secrets: Mapping[str, str] = NO_SECRETS) -> None:
        """See `Attacher.detach`."""
        raise self._raised()

    async def create_snapshot(
        self,
        name: str,
        volume_id: str,
        *,
        parameters: Mapping[str, str] = NO_PARAMETERS,
        secrets: Mapping[str, str] = NO_SECRETS,
    ) -> Snapshot:
        """See `Snapshotter.create_snapshot`."""
        raise self._raised()

    async def delete_snapshot(self, id: str, *, secrets: Mapping[str, str] = NO_SECRETS) -> None:
        """See `Snapshotter.delete_snapshot`."""
        raise self._raised()

    async def get_snapshot(self, id: str, *, secrets: Mapping[str, str] = NO_SECRETS) -> Snapshot:
        """See `Snapshotter.get_snapshot`."""
        raise self._raised()

    async def list_snapshots(self, token: str = "", limit: int = 0) -> SnapshotPage:
        """See `Snapshotter.list_snapshots`."""
        raise self._raised()

    def _raised(self) -> BackendError:
        # A new one each time: an exception gathers the traces of all who raise it.
        error = self.error
        return type(error)(error.what, error.where, error.remedy)
