"""/devices."""

from __future__ import annotations

from msgspec.structs import replace

from holdfast.heketi import answers, bodies, documents, entries, errors
from holdfast.heketi.answers import Answer, Asked
from holdfast.heketi.entries import Brick, Device, Node
from holdfast.heketi.executors.protocol import Disk
from holdfast.heketi.service import Service


async def add(service: Service, asked: Asked) -> Answer:
    """POST /devices."""
    body = bodies.read(asked.body, bodies.DeviceBody)
    bodies.check_device(body)
    state = service.state
    node = state.find(Node, body.node)
    if node is None:
        raise errors.NotFound("Node id does not exist")
    service.check_free(node.id)
    for other in state.below(node, Device):
        if other.name == body.name or body.name in other.paths:
            raise errors.Conflict(
                f"Device {body.name} is already used by device with id {other.id}"
            )
    device = Device(
        id=entries.new_id(), node=node.id, name=body.name, total=0, tags=body.tags or {}
    )
    ticket = service.engine.start(
        "add-device",
        asked.role,
        lambda tx, op: service.add_device.build(tx, op, device, body.destroydata),
    )
    return answers.accepted(ticket)


def _get(service: Service, key: str) -> Device:
    device = service.state.get(Device, key)
    if device.pending:
        raise errors.NotFound()
    return device


async def info(service: Service, asked: Asked, key: str) -> Answer:
    """GET /devices/{id}."""
    return answers.document(documents.device(service.state, _get(service, key)))


async def delete(service: Service, asked: Asked, key: str) -> Answer:
    """DELETE /devices/{id}."""
    body = bodies.read(asked.body, bodies.ForgetBody, optional=True)
    device = _get(service, key)
    if device.state != "failed":
        raise errors.Invalid(f"device: {key} is not in failed state")
    if service.state.count_below(device, Brick):
        raise errors.Conflict(f"Unable to delete device [{key}] because it contains bricks")
    service.check_free(key)
    ticket = service.engine.start(
        "delete-device",
        asked.role,
        lambda tx, op: service.delete_device.build(tx, op, device, body.forceforget),
    )
    return answers.accepted(ticket)


async def set_state(service: Service, asked: Asked, key: str) -> Answer:
    """POST /devices/{id}/state; to `failed` means that its bricks move away first."""
    body = bodies.read(asked.body, bodies.StateBody)
    bodies.check_state(body)
    device = _get(service, key)
    if body.state == "failed" and device.state == "offline":
        service.check_free(key)
        heal = body.healcheck != "disable"
        ticket = service.engine.start(
            "remove-device", asked.role, lambda tx, op: service.remove.build(tx, op, device, heal)
        )
        return answers.accepted(ticket)
    if refusal := _refusal(device, body.state):
        return answers.accepted(service.engine.done(asked.role, error=refusal))
    if body.state == "online":
        service.check_free(key)
    with service.state.transaction() as transaction:
        transaction.put(replace(device, state=body.state))
    return answers.accepted(service.engine.done(asked.role))


def _refusal(device: Device, state: str) -> str:
    """Why it cannot change to a state; told as the result of the change, as Heketi does."""
    if device.state == "failed" and state == "online":
        return "Cannot move a failed/removed device to online state"
    if device.state == "online" and state == "failed":
        return f"Device must be offline before remove operation is performed, device:{device.id}"
    return ""


async def resync(service: Service, asked: Asked, key: str) -> Answer:
    """GET /devices/{id}/resync: measure it again; what no brick of ours takes is foreign."""
    state = service.state
    device = _get(service, key)
    node = state.get(Node, device.node)
    facts = await service.executor.measure_disk(node.manage, Disk(device.id, device.name))
    device = _get(service, key)
    if any(state.operation_on(brick.id) for brick in state.below(device, Brick)):
        raise errors.Conflict()
    ours = state.used(device) - device.foreign
    foreign = device.foreign if facts.free < 0 else max(0, facts.total - facts.free - ours)
    with state.transaction() as transaction:
        transaction.put(
            replace(
                device,
                total=facts.total,
                foreign=foreign,
                uuid=facts.uuid,
                paths=list(facts.paths),
                extent=facts.extent,
            )
        )
    return answers.accepted(service.engine.done(asked.role), link=True)


async def tags(service: Service, asked: Asked, key: str) -> Answer:
    """POST /devices/{id}/tags."""
    body = bodies.read(asked.body, bodies.TagsBody)
    bodies.check_change(body)
    device = _get(service, key)
    result = bodies.merged(device.tags, body)
    with service.state.transaction() as transaction:
        transaction.put(replace(device, tags=result))
    return answers.document(result)


async def evict(service: Service, asked: Asked, key: str) -> Answer:
    """POST /bricks/to-evict/{id}."""
    body = bodies.read(asked.body, bodies.EvictBody, optional=True)
    bodies.check(healcheck=bodies.heal_check(body.healcheck))
    brick = service.state.get(Brick, key)
    if brick.pending:
        raise errors.Conflict()
    service.check_free(key)
    service.check_free(brick.volume)
    heal = body.healcheck != "disable"
    ticket = service.engine.start(
        "evict-brick", asked.role, lambda tx, op: service.evict_brick.build(tx, op, brick, heal)
    )
    return answers.accepted(ticket)
