"""/queue and /operations: what became of a request, and what is under way."""

from __future__ import annotations

from typing import Any

from holdfast.heketi import answers, bodies, errors
from holdfast.heketi.answers import Answer, Asked
from holdfast.heketi.entries import Operation, Ticket
from holdfast.heketi.service import Service


async def queue(service: Service, asked: Asked, key: str) -> Answer:
    """GET /queue/{id}: may be asked any number of times, also after a restart."""
    ticket = service.state.get(Ticket, key)
    if asked.role != "admin" and ticket.role != asked.role:
        raise errors.NotFound()
    if not ticket.done:
        return Answer(200, headers={"X-Pending": "true"})
    if ticket.error:
        return answers.refused(500, ticket.error)
    return answers.elsewhere(ticket.location) if ticket.location else Answer(204)


async def counts(service: Service, asked: Asked) -> Answer:
    """GET /operations."""
    found = service.state.all(Operation)
    running = service.engine.running
    return answers.document(
        {
            "total": len(found),
            "in_flight": len(running),
            "stale": sum(1 for each in found if each.status == "stale"),
            "failed": sum(1 for each in found if each.status == "failed"),
            "new": sum(1 for each in found if not each.status),
        }
    )


def _shown(service: Service, operation: Operation) -> dict[str, Any]:
    running = operation.id in service.engine.running
    return {
        "id": operation.id,
        "type_name": operation.type,
        "status": operation.status,
        "sub_status": "in-flight" if running else "",
    }


async def pending(service: Service, asked: Asked) -> Answer:
    """GET /operations/pending."""
    found = [_shown(service, each) for each in service.state.all(Operation)]
    return answers.document({"pendingoperations": found})


async def info(service: Service, asked: Asked, key: str) -> Answer:
    """GET /operations/pending/{id}."""
    operation = service.state.find(Operation, key)
    if operation is None:
        raise errors.NotFound(f"Id not found: {key}")
    changes = [{"id": each.id, "description": each.what} for each in operation.changes]
    return answers.document({**_shown(service, operation), "changes": changes})


async def cleanup(service: Service, asked: Asked) -> Answer:
    """POST /operations/pending/cleanup."""
    body = bodies.read(asked.body, bodies.CleanupBody, optional=True)
    bodies.check(operations=bodies.ids(body.operations))
    service.engine.retry(body.operations)
    return answers.accepted(service.engine.done(asked.role))
