"""/nodes."""

from __future__ import annotations

from msgspec.structs import replace

from holdfast.heketi import answers, bodies, documents, entries, errors
from holdfast.heketi.answers import Answer, Asked
from holdfast.heketi.entries import Cluster, Device, Node, Operation
from holdfast.heketi.service import Service


async def add(service: Service, asked: Asked) -> Answer:
    """POST /nodes."""
    body = bodies.read(asked.body, bodies.NodeBody)
    bodies.check_node(body)
    state = service.state
    if state.find(Cluster, body.cluster) is None:
        raise errors.NotFound("Cluster id does not exist")
    node = Node(
        id=entries.new_id(),
        cluster=body.cluster,
        zone=body.zone,
        manage=body.hostnames.manage[0],
        storage=body.hostnames.storage[0],
        tags=body.tags or {},
        more_manage=body.hostnames.manage[1:],
        more_storage=body.hostnames.storage[1:],
    )
    _check_names(service, node)
    ticket = service.engine.start(
        "add-node", asked.role, lambda tx, op: service.add_node.build(tx, op, node)
    )
    return answers.accepted(ticket)


def _check_names(service: Service, node: Node) -> None:
    underway = [
        Node(**operation.request["node"])
        for operation in service.state.all(Operation)
        if operation.type == "add-node"
    ]
    for other in [*service.state.all(Node), *underway]:
        for name in (node.manage, node.storage):
            if name in (other.manage, other.storage):
                raise errors.Conflict(f"Hostname {name} already used by node with id {other.id}")


async def info(service: Service, asked: Asked, key: str) -> Answer:
    """GET /nodes/{id}."""
    return answers.document(documents.node(service.state, service.state.get(Node, key)))


async def delete(service: Service, asked: Asked, key: str) -> Answer:
    """DELETE /nodes/{id}."""
    node = service.state.get(Node, key)
    if service.state.count_below(node, Device):
        raise errors.Conflict(f"Unable to delete node [{key}] because it contains devices")
    service.check_free(key)
    ticket = service.engine.start(
        "delete-node", asked.role, lambda tx, op: service.delete_node.build(tx, op, node)
    )
    return answers.accepted(ticket)


async def set_state(service: Service, asked: Asked, key: str) -> Answer:
    """POST /nodes/{id}/state."""
    body = bodies.read(asked.body, bodies.StateBody)
    bodies.check_state(body)
    node = service.state.get(Node, key)
    if body.state == "failed" and node.state == "offline":
        service.check_free(key)
        heal = body.healcheck != "disable"
        ticket = service.engine.start(
            "remove-node", asked.role, lambda tx, op: service.remove.build(tx, op, node, heal)
        )
        return answers.accepted(ticket)
    if refusal := _refusal(node, body.state):
        return answers.accepted(service.engine.done(asked.role, error=refusal))
    if body.state == "online":
        service.check_free(key)
    with service.state.transaction() as transaction:
        transaction.put(replace(node, state=body.state))
    return answers.accepted(service.engine.done(asked.role))


def _refusal(node: Node, state: str) -> str:
    """Why it cannot change to a state; told as the result of the change, as Heketi does."""
    if node.state == "failed" and state != "failed":
        return f"Cannot move a failed/removed node to {state} state"
    if node.state == "online" and state == "failed":
        return f"Node must be offline before remove operation is performed, node:{node.id}"
    return ""


async def tags(service: Service, asked: Asked, key: str) -> Answer:
    """POST /nodes/{id}/tags."""
    body = bodies.read(asked.body, bodies.TagsBody)
    bodies.check_change(body)
    node = service.state.get(Node, key)
    result = bodies.merged(node.tags, body)
    with service.state.transaction() as transaction:
        transaction.put(replace(node, tags=result))
    return answers.document(result)
