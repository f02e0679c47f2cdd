"""The CSIDriver objects of the drivers served here.

They tell everybody, the attach/detach controller of a cluster included, whether a driver's volumes
have to be attached before a node can use them. An object that somebody else made is left as it is;
ours carry a label and follow what the backends need.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from typing import Final

from holdfast.api import errors, kinds
from holdfast.runtime.client import Client

log = logging.getLogger("holdfast.controllers")

MANAGED_BY: Final = "app.kubernetes.io/managed-by"
OURS: Final = "holdfast"
_FIRST_RETRY, _LAST_RETRY = 1.0, 60.0


class DriverObjects:
    """Writes the objects once; `attach_required` by driver name."""

    def __init__(self, client: Client, attach_required: Mapping[str, bool]) -> None:
        self._client = client
        self._wanted = dict(attach_required)

    async def run(self) -> None:
        """Make every object be as it should, trying until that is done."""
        delay = _FIRST_RETRY
        left = dict(self._wanted)
        while left:
            for driver, required in list(left.items()):
                try:
                    await self._keep(driver, required)
                    del left[driver]
                except errors.StatusError as error:
                    extra = {"driver": driver, "error": str(error)}
                    log.warning("CSIDriver not written", extra=extra)
            if left:
                await asyncio.sleep(delay)
                delay = min(2 * delay, _LAST_RETRY)

    async def _keep(self, driver: str, required: bool) -> None:
        try:
            found = await self._client.get(kinds.CSI_DRIVER, driver)
        except errors.NotFound:
            await self._create(driver, required)
            return
        if found["spec"].get("attachRequired") == required:
            return
        if (found["metadata"].get("labels") or {}).get(MANAGED_BY) != OURS:
            log.warning(
                "a CSIDriver that is not ours says otherwise about attaching",
                extra={"driver": driver, "attachRequired": not required},
            )
            return
        # The field cannot be changed.
        await self._client.delete(kinds.CSI_DRIVER, driver, uid=found["metadata"]["uid"])
        await self._create(driver, required)

    async def _create(self, driver: str, required: bool) -> None:
        body = {
            "apiVersion": kinds.CSI_DRIVER.api_version,
            "kind": kinds.CSI_DRIVER.name,
            "metadata": {"name": driver, "labels": {MANAGED_BY: OURS}},
            "spec": {"attachRequired": required},
        }
        await self._client.create(kinds.CSI_DRIVER, body)
