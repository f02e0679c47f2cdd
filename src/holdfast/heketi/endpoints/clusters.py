"""/clusters."""

from __future__ import annotations

from msgspec.structs import replace

from holdfast.heketi import answers, bodies, documents, entries, errors
from holdfast.heketi.answers import Answer, Asked
from holdfast.heketi.entries import BlockVolume, Cluster, Node, Operation, Volume
from holdfast.heketi.service import Service


async def create(service: Service, asked: Asked) -> Answer:
    """POST /clusters."""
    body = bodies.read(asked.body, bodies.ClusterBody)
    cluster = Cluster(id=entries.new_id(), file=body.file, block=body.block)
    with service.state.transaction() as transaction:
        transaction.put(cluster)
    return answers.document(documents.cluster(service.state, cluster), 201)


async def list_all(service: Service, asked: Asked) -> Answer:
    """GET /clusters."""
    return answers.document({"clusters": [each.id for each in service.state.all(Cluster)]})


async def info(service: Service, asked: Asked, key: str) -> Answer:
    """GET /clusters/{id}."""
    cluster = service.state.get(Cluster, key)
    return answers.document(documents.cluster(service.state, cluster))


async def flags(service: Service, asked: Asked, key: str) -> Answer:
    """POST /clusters/{id}/flags: both are overwritten."""
    body = bodies.read(asked.body, bodies.ClusterBody)
    cluster = service.state.get(Cluster, key)
    with service.state.transaction() as transaction:
        transaction.put(replace(cluster, file=body.file, block=body.block))
    return Answer(200, b"", answers.JSON)


async def delete(service: Service, asked: Asked, key: str) -> Answer:
    """DELETE /clusters/{id}."""
    state = service.state
    cluster = state.get(Cluster, key)
    coming = any(
        each.type == "add-node" and each.request["node"]["cluster"] == key
        for each in state.all(Operation)
    )
    if coming or any(state.count_below(cluster, kind) for kind in (Node, Volume, BlockVolume)):
        raise errors.Conflict(
            f"Unable to delete cluster [{key}] because it contains volumes and/or nodes"
        )
    with state.transaction() as transaction:
        transaction.remove(cluster)
    return Answer(200)


async def topology(service: Service, asked: Asked) -> Answer:
    """GET /topology: everything in one answer; Heketi itself makes clients ask for each."""
    return answers.document(documents.topology(service.state))
