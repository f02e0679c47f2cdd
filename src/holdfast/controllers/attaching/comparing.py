"""Notices volumes that somebody took from a node behind the attacher's back, and has them returned.

An attachment that is carried out is not looked at again, so a volume detached by hand in the
storage system would stay away until its pod is deleted. As external-attacher does, storage that can
list its attachments is asked for them once a minute, and what is not there is attached once more.

Invariant: only nodes that are ready get anything back. From a lost one an administrator may have
taken the volume for good reason.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable

from holdfast.api import kinds, views
from holdfast.backends import errors
from holdfast.backends.protocol import AttachmentLister, NodeObserver
from holdfast.controllers import attachments
from holdfast.controllers.attaching.attacher import AttachmentServer
from holdfast.controllers.provisioners import Provisioners
from holdfast.runtime.informer import Informers

log = logging.getLogger("holdfast.controllers")

PERIOD = 60.0


class Comparison:
    """The component; `run` until cancelled. `period` in seconds."""

    def __init__(
        self,
        informers: Informers,
        provisioners: Provisioners,
        attacher: AttachmentServer,
        *,
        period: float = PERIOD,
    ) -> None:
        self._informers = informers
        self._attachments = informers.of(kinds.VOLUME_ATTACHMENT)
        self._volumes = informers.of(kinds.VOLUME)
        self._nodes = informers.of(kinds.NODE)
        self._csi_nodes = informers.of(kinds.CSI_NODE)
        self._provisioners = provisioners
        self._attacher = attacher
        self._period = period

    async def run(self) -> None:
        """Compare once in each period until cancelled."""
        await self._informers.synced()
        while True:
            await asyncio.sleep(self._period)
            for driver in sorted(self._provisioners.drivers()):
                try:
                    await self._compare(driver)
                except errors.BackendError as error:
                    extra = {"driver": driver, "error": str(error)}
                    log.warning("the attachments of a driver are not known", extra=extra)

    async def _compare(self, driver: str) -> None:
        # Looked at before the storage is asked: what is attached meanwhile is not missed in it.
        expected = list(self._expected(driver))
        storage = self._provisioners.behind(driver) if expected else None
        # Who knows no machines lists who has a volume open (Ceph), which may be nobody for a while.
        if not (isinstance(storage, AttachmentLister) and isinstance(storage, NodeObserver)):
            return
        found = await storage.attachments()
        for name, handle, node in expected:
            if node not in found.get(handle, ()):
                extra = {"attachment": name, "volume": handle, "node": node}
                log.warning("a volume was taken from its node; attaching it again", extra=extra)
                self._attacher.repeat(name)

    def _expected(self, driver: str) -> Iterable[tuple[str, str, str]]:
        """Yield name, handle and node id of the driver's attachments that are carried out."""
        for obj in self._attachments.all():
            if obj["spec"]["attacher"] != driver or not attachments.is_attached(obj):
                continue
            node = self._nodes.get(obj["spec"]["nodeName"])
            source = obj["spec"].get("source") or {}
            volume = self._volumes.get(source.get("persistentVolumeName") or "")
            if node is None or not views.node(node).ready or volume is None:
                continue
            identity = attachments.identity(volume)
            id = attachments.node_id(self._csi_nodes.get(obj["spec"]["nodeName"]), (driver,))
            if identity is not None and id:
                yield obj["metadata"]["name"], identity[1], id
