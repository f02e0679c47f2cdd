"""/blockvolumes: those of an imported database are shown; none are made or changed.

A block volume is a file of a volume served by gluster-block's iSCSI target, which no distribution
ships any more; the refusal says so.
"""

from __future__ import annotations

from holdfast.heketi import answers, documents, errors
from holdfast.heketi.answers import Answer, Asked
from holdfast.heketi.entries import BlockVolume
from holdfast.heketi.service import Service

_REFUSAL = (
    "Block volumes need gluster-block, which is not supported here; "
    "create a file volume (POST /volumes, `volume create`) instead"
)


async def list_all(service: Service, asked: Asked) -> Answer:
    """GET /blockvolumes."""
    return answers.document({"blockvolumes": [each.id for each in service.state.all(BlockVolume)]})


async def info(service: Service, asked: Asked, key: str) -> Answer:
    """GET /blockvolumes/{id}."""
    return answers.document(documents.block_volume(service.state.get(BlockVolume, key)))


async def create(service: Service, asked: Asked) -> Answer:
    """POST /blockvolumes."""
    raise errors.Refused(_REFUSAL, 501)


async def change(service: Service, asked: Asked, key: str) -> Answer:
    """DELETE /blockvolumes/{id} and its expansion."""
    service.state.get(BlockVolume, key)
    raise errors.Refused(_REFUSAL, 501)
