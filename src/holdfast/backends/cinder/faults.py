"""What an answer of OpenStack, or its absence, means to a caller.

An HTTP status alone says little: 400 is both "that makes no sense" and "not in
this state". The service's own sentence decides between them, and is kept in
the error because it names limits, states and ids.

Invariant: `NotFound` is what the service itself said of a thing it was asked
for. Callers take it for "gone", so a proxy that knows no such page, a missing
service or an unreadable file must never become one.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from holdfast.backends import errors

_STATE = re.compile(
    r"status must be|must be available|invalid volume|in vm_state|while it is in|in use|"
    r"is busy|still has|attached|task_state|being migrated|cannot '",
    re.IGNORECASE,
)
_LOGIN = "check user, password and project in cloud.conf, or make a new application credential"


def of_answer(status: int, body: Any, where: str) -> errors.BackendError:
    """Return the error for an answer with a status of 400 or more."""
    said = message(body) or f"HTTP status {status}"
    if status == 401:
        return errors.Unauthorized(f"the login was refused: {said}", where, _LOGIN)
    if status == 413 or (status == 403 and "quota" in said.lower()):
        remedy = "ask for a larger quota (openstack quota set), or delete volumes"
        return errors.Exhausted(said, where, remedy)
    if status == 403 and re.search(r"maximum|exceed|too many", said, re.IGNORECASE):
        return errors.Exhausted(said, where, "use another node, or remove volumes from this one")
    if status == 403:
        remedy = "give the user the role it needs (usually member) in its project"
        return errors.Unauthorized(f"not allowed: {said}", where, remedy)
    if status == 404 and is_own(body):
        return errors.NotFound(said, where)
    if status == 404:
        return errors.Unavailable(
            f"somebody else answers at its address, with status 404: {said[:100]}",
            where,
            "compare `openstack catalog list` with where the service is",
        )
    if status == 409 or (status == 400 and _STATE.search(said)):
        return errors.Conflict(said, where)
    if status in (429, 500, 502, 503, 504):
        return errors.Unavailable(f"does not work at present: {said}", where, "tried again later")
    return errors.Invalid(said, where)


def is_own(body: Any) -> bool:
    """Return whether a body has the form that all services of OpenStack give their errors."""
    return isinstance(body, Mapping) and any(
        isinstance(value, Mapping) and isinstance(value.get("message"), str)
        for value in body.values()
    )


def message(body: Any) -> str:
    """Return the sentence in an OpenStack error body, or ''."""
    if isinstance(body, Mapping):
        for value in body.values():
            if isinstance(value, Mapping) and isinstance(value.get("message"), str):
                return str(value["message"]).strip()
        if isinstance(body.get("message"), str):
            return str(body["message"]).strip()
    return ""
