"""The node's part in attaching: say what is in use, and wait for what is not attached yet.

A volume is listed in the node's `status.volumesInUse` before it is looked whether it is attached,
and is taken off the list when it is unmounted. The controller detaches only what is not listed,
so a volume is never taken away under a mount.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from holdfast.api import errors, kinds
from holdfast.controllers import attachments
from holdfast.controllers.nodeagent import mounting, resolving
from holdfast.runtime.client import Client, Object
from holdfast.runtime.informer import Informers


class NotAttached(Exception):
    """The volume is not attached to this node yet; its attachment's change is the time to look."""


class NodeAttachments:
    """The attachments of one node, seen from there."""

    def __init__(
        self, client: Client, informers: Informers, volumes: mounting.PodVolumes, node: str
    ) -> None:
        self._client = client
        self._nodes = informers.of(kinds.NODE)
        self._drivers = informers.of(kinds.CSI_DRIVER)
        self._mounted = volumes
        self._node = node
        # Volumes that are about to be mounted and have no record yet.
        self._coming: set[str] = set()

    async def ready(self, order: resolving.Order) -> resolving.Order:
        """Return the order with what the attachment says; raises NotAttached."""
        if not isinstance(order, resolving.BackendOrder) or not order.driver:
            return order
        if not attachments.required(self._drivers.get(order.driver)):
            return order
        self._coming.add(attachments.unique_name(order.driver, order.handle.id))
        await self.tell()
        name = attachments.name_of(order.handle.id, order.driver, self._node)
        try:
            found = await self._client.get(kinds.VOLUME_ATTACHMENT, name)
        except errors.NotFound as error:
            raise NotAttached(order.title) from error
        if not attachments.is_attached(found):
            raise NotAttached(order.title)
        return dataclasses.replace(order, context=_metadata(found))

    async def context_of(self, driver: str, handle: str) -> Mapping[str, str]:
        """Return what attaching a volume to this node returned; nothing where none is needed."""
        if not driver or not attachments.required(self._drivers.get(driver)):
            return {}
        name = attachments.name_of(handle, driver, self._node)
        try:
            return _metadata(await self._client.get(kinds.VOLUME_ATTACHMENT, name))
        except errors.NotFound:
            return {}

    async def tell(self) -> None:
        """List what is in use on the node's status; nothing is written that is listed already."""
        staged = {
            attachments.unique_name(driver, handle)
            for driver, handle in self._mounted.driven()
            if attachments.required(self._drivers.get(driver))
        }
        wanted = sorted(staged | self._coming)
        node = self._nodes.get(self._node)
        if node is None or ((node.get("status") or {}).get("volumesInUse") or []) == wanted:
            return
        patch = {"status": {"volumesInUse": wanted or None}}
        written = await self._client.patch(kinds.NODE, self._node, patch, subresource="status")
        self._nodes.observe(written)

    def left(self) -> None:
        """Forget what was coming: what has been mounted has a record, the rest will ask again."""
        self._coming.clear()


def _metadata(attachment: Object) -> Mapping[str, str]:
    return (attachment.get("status") or {}).get("attachmentMetadata") or {}
