"""Tells pods whose volume has died under them, with the cause and what to do.

Some storage is brought to the node by a process of its own. When it is killed the mount stays and
gives errors, and nothing in Kubernetes notices. Node sides that can tell (`ConnectionObserver`) are
asked from time to time, and before a volume is set up for another pod: that mends the volume, and
the first pod would never learn what happened to it.

The invariant: a pod is told once about each volume, and only while it has it mounted.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping

from holdfast.backends import errors
from holdfast.backends.protocol import ConnectionObserver, Finding, NodeSide
from holdfast.controllers.nodeagent.mounting import PodVolumes
from holdfast.controllers.nodeagent.records import Record
from holdfast.runtime.client import Object
from holdfast.runtime.recorder import Recorder

log = logging.getLogger("holdfast.controllers")

SECONDS = 5.0
# The reason under which the kubelet reports what a driver says of a volume's health.
REASON = "VolumeConditionAbnormal"


class LostVolumes:
    """Watches the connections of one node. `pod_of` finds a pod by its uid."""

    def __init__(
        self,
        recorder: Recorder,
        volumes: PodVolumes,
        sides: Mapping[str, NodeSide],
        pod_of: Callable[[str], Object | None],
    ) -> None:
        self._recorder = recorder
        self._volumes = volumes
        self._sides = sides
        self._pod_of = pod_of
        self._told: set[tuple[str, str]] = set()

    async def run(self) -> None:
        """Look from time to time until cancelled."""
        while True:
            await self.look()
            await asyncio.sleep(SECONDS)

    async def look(self) -> None:
        """Tell the pods of all volumes that are lost now."""
        connected = list(self._volumes.all_connected())
        self._told &= {(uid, record.entry) for uid, record in connected}
        for name in sorted({record.side for _, record in connected}):
            lost = await self._lost(name)
            for uid, record in connected if lost else ():
                if record.side == name and record.handle is not None and record.handle.id in lost:
                    await self._tell(uid, record, lost[record.handle.id])

    async def _lost(self, name: str) -> Mapping[str, Finding]:
        try:
            side = self._sides[name]
            return await side.lost() if isinstance(side, ConnectionObserver) else {}
        except (errors.BackendError, OSError, KeyError) as error:
            # Looked at again in a moment; what the volume itself lacks is told when it is used.
            log.debug("connections not looked at", extra={"backend": name, "why": str(error)})
            return {}

    async def _tell(self, uid: str, record: Record, finding: Finding) -> None:
        pod, key = self._pod_of(uid), (uid, record.entry)
        if pod is None or key in self._told or record.entry not in await self._volumes.ready(uid):
            return
        self._told.add(key)
        text = (
            f'Volume "{record.title}" gives I/O errors ({finding.where}): {finding.what}; '
            f"{finding.remedy}"
        )
        self._recorder.event(pod, "Warning", REASON, text)
