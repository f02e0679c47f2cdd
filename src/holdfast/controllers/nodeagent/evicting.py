"""Finds pods of this node that keep more in an emptyDir than its sizeLimit.

Looked at every few seconds, as a kubelet does; what a directory in memory holds is limited by its
mount already. The agent then ends the pod's containers and calls it Failed, for good.

The invariant: a pod found once stays found until it is gone, so that emptying the directory
meanwhile does not leave it half stopped.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

from holdfast.api import quantity, views
from holdfast.controllers.nodeagent import mounting
from holdfast.node import diskusage
from holdfast.runtime.recorder import Recorder

SECONDS: Final = 10.0
REASON: Final = "Evicted"
# The time between the signal and the kill, in seconds.
GRACE: Final = 1

Object = dict[str, Any]


class ScratchLimits:
    """The pods of one node that must go; `found` is told the uid of each."""

    def __init__(
        self,
        volumes: mounting.PodVolumes,
        recorder: Recorder,
        pods: Callable[[], Iterable[Object]],
        found: Callable[[str], None],
    ) -> None:
        self._volumes = volumes
        self._recorder = recorder
        self._pods = pods
        self._found = found
        self._why: dict[str, str] = {}

    async def run(self) -> None:
        """Look again and again, until cancelled."""
        while True:
            await asyncio.sleep(SECONDS)
            for pod in list(self._pods()):
                await self._look(pod)

    def why(self, uid: str) -> str:
        """Return why the pod must go, or ""."""
        return self._why.get(uid, "")

    def forget(self, uid: str) -> None:
        """The pod has gone."""
        self._why.pop(uid, None)

    async def _look(self, pod: Object) -> None:
        uid = pod["metadata"]["uid"]
        limits = _limits(pod)
        if not limits or uid in self._why or _is_ending(pod):
            return
        places = await self._volumes.places(uid)
        for name, limit in limits.items():
            if name not in places:
                continue
            used = await asyncio.to_thread(diskusage.of, places[name])
            if used > quantity.parse(limit).bytes():
                text = f'Usage of EmptyDir volume "{name}" exceeds the limit "{limit}". '
                self._why[uid] = text
                self._recorder.event(pod, "Warning", REASON, text)
                self._found(uid)
                return


def _limits(pod: Mapping[str, Any]) -> dict[str, str]:
    sources = {
        each["name"]: each.get("emptyDir") or {} for each in pod["spec"].get("volumes") or ()
    }
    limits = {name: source.get("sizeLimit") for name, source in sources.items()}
    return {name: limit for name, limit in limits.items() if limit and quantity.parse(limit)}


def _is_ending(pod: Mapping[str, Any]) -> bool:
    over = (pod.get("status") or {}).get("phase") in views.FINISHED
    return over or "deletionTimestamp" in pod["metadata"]
