"""What a node is to each storage system: its CSINode, and labels for where it stands.

Every driver whose backend has a part on this node is entered in the CSINode with the node's id in
that storage system, the topology keys, and how many volumes fit. A node side that finds these out
(`NodeDescriber`) may have to ask a service that is not up yet, so one that fails or is slow is
asked again in the background and the node starts without it.

Invariant: a driver is entered only with an id that is known, because attaching trusts it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable, Mapping
from typing import Any

from holdfast.api import errors, kinds
from holdfast.backends import errors as backend_errors
from holdfast.backends import registry
from holdfast.backends.protocol import NodeDescriber, NodeInfo, NodeSide
from holdfast.runtime.client import Client
from holdfast.runtime.informer import Informers

log = logging.getLogger("holdfast.controllers")

# How long the start of a node waits for descriptions, and the pauses after that, in seconds.
PATIENCE = 2.0
FIRST_RETRY, LAST_RETRY = 5.0, 300.0

Entry = dict[str, Any]


class NodeDrivers:
    """Enters the drivers of one node; `run` goes on with those that could not be at once."""

    def __init__(
        self, client: Client, informers: Informers, node: str, sides: Mapping[str, NodeSide]
    ) -> None:
        self._client = client
        self._nodes = informers.of(kinds.NODE)
        self._node = node
        self._sides = sides
        self._missing: set[str] = set()

    async def enter(self) -> None:
        """Enter what is known within a moment."""
        self._missing = set(self._sides)
        await self._try(PATIENCE)

    async def run(self) -> None:
        """Go on until every driver is entered."""
        delay = FIRST_RETRY
        while self._missing:
            await asyncio.sleep(delay)
            delay = min(2 * delay, LAST_RETRY)
            await self._try(LAST_RETRY)

    async def _try(self, patience: float) -> None:
        asked = sorted(self._missing)
        found = await asyncio.gather(*(self._describe(name, patience) for name in asked))
        known = {name: info for name, info in zip(asked, found, strict=True) if info is not None}
        try:
            await self._write(known)
        except errors.StatusError as error:
            # Others write here too; the next round reads what they have written.
            log.warning("drivers not entered", extra={"node": self._node, "error": str(error)})
            return
        self._missing -= set(known)

    async def _describe(self, backend: str, patience: float) -> NodeInfo | None:
        try:
            side = self._sides[backend]
            if not isinstance(side, NodeDescriber):
                return NodeInfo(self._node)
            async with asyncio.timeout(patience):
                return await side.describe()
        except backend_errors.NotFound as error:
            # Not a machine of that storage system, for all that is known.
            log.debug("no id", extra={"backend": backend, "why": str(error)})
        except (backend_errors.BackendError, TimeoutError) as error:
            why = str(error) or "no answer in time"
            log.info("node not described", extra={"backend": backend, "why": why})
        return None

    async def _write(self, infos: Mapping[str, NodeInfo]) -> None:
        ours = {driver: _entry(driver, info) for driver, info in _by_driver(infos)}
        if not ours:
            return
        await self._label({k: v for info in infos.values() for k, v in info.topology.items()})
        obj = await self._client.get(kinds.CSI_NODE, self._node)
        present: list[Entry] = (obj.get("spec") or {}).get("drivers") or []
        same = [e for e in present if e["name"] in ours and _same(e, ours[e["name"]])]
        kept = [e for e in present if e["name"] not in ours or e in same]
        if kept != present:
            # An entry cannot be changed, only removed and made anew.
            obj = await self._put(obj, kept)
        done = {entry["name"] for entry in same}
        added = [entry for name, entry in sorted(ours.items()) if name not in done]
        if added:
            await self._put(obj, [*kept, *added])

    async def _put(self, obj: dict[str, Any], drivers: list[Entry]) -> dict[str, Any]:
        version = obj["metadata"]["resourceVersion"]
        patch = {"metadata": {"resourceVersion": version}, "spec": {"drivers": drivers}}
        return await self._client.patch(kinds.CSI_NODE, self._node, patch)

    async def _label(self, labels: Mapping[str, str]) -> None:
        node = self._nodes.get(self._node)
        have = (node["metadata"].get("labels") or {}) if node is not None else {}
        if not labels.items() <= have.items():
            patch = {"metadata": {"labels": dict(labels)}}
            self._nodes.observe(await self._client.patch(kinds.NODE, self._node, patch))


def _by_driver(infos: Mapping[str, NodeInfo]) -> Iterable[tuple[str, NodeInfo]]:
    for driver, backend in registry.DRIVERS.items():
        if backend in infos:
            yield driver, infos[backend]
    for name, info in infos.items():
        # A side that is not in the registry is named like its driver.
        if "." in name:
            yield name, info


def _entry(driver: str, info: NodeInfo) -> Entry:
    entry: Entry = {"name": driver, "nodeID": info.id}
    if info.topology:
        entry["topologyKeys"] = sorted(info.topology)
    if info.max_volumes:
        entry["allocatable"] = {"count": info.max_volumes}
    return entry


def _same(present: Entry, wanted: Entry) -> bool:
    given = {key: value for key, value in present.items() if value not in (None, [], {})}
    return given == wanted
