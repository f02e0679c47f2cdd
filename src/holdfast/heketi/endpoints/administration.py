"""/admin, /internal, /db and /backup."""

from __future__ import annotations

import logging
from typing import Any

from holdfast.heketi import answers, bodies, checking, errors, importing, interchange, rebuilding
from holdfast.heketi.answers import Answer, Asked
from holdfast.heketi.service import Service
from holdfast.heketi.settings import ADMIN_STATES, LOG_LEVELS

_PYTHON_LEVELS = {"none": "CRITICAL", "critical": "CRITICAL"}


async def mode(service: Service, asked: Asked) -> Answer:
    """GET /admin."""
    return answers.document({"state": service.admin_state})


async def set_mode(service: Service, asked: Asked) -> Answer:
    """POST /admin; read-only is left by SIGUSR2 or a restart."""
    wanted = bodies.read(asked.body, bodies.StateBody).state
    if wanted not in ADMIN_STATES:
        bodies.check(state=bodies.NOT_VALID if wanted else bodies.BLANK)
    service.admin_state = wanted
    return Answer(204)


async def logging_level(service: Service, asked: Asked) -> Answer:
    """GET /internal/logging."""
    return answers.document({"loglevel": {"glusterfs": service.log_level}})


async def set_logging_level(service: Service, asked: Asked) -> Answer:
    """POST /internal/logging."""
    try:
        wanted = bodies.anything(asked.body)
    except errors.Refused as error:
        raise errors.Invalid("request unable to be parsed") from error
    levels: Any = wanted.get("loglevel")
    if not isinstance(levels, dict) or set(levels) != {"glusterfs"}:
        raise errors.Refused('Only "glusterfs" logger may be modified', 422)
    level = levels["glusterfs"]
    if level not in LOG_LEVELS:
        raise errors.Refused(f"invalid log level: {level}", 422)
    service.log_level = level
    logging.getLogger("holdfast.heketi").setLevel(_PYTHON_LEVELS.get(level, level.upper()))
    return await logging_level(service, asked)


async def dump(service: Service, asked: Asked) -> Answer:
    """GET /db/dump."""
    return answers.document(interchange.dump(service.state), indent=4)


async def check(service: Service, asked: Asked) -> Answer:
    """GET /db/check."""
    return answers.document(checking.check(service.state), indent=4)


async def repair(service: Service, asked: Asked) -> Answer:
    """POST /db/repair: remove what leads nowhere; GlusterFS and bricks are not touched."""
    return answers.document(checking.repair(service.state), indent=4)


async def take_over(service: Service, asked: Asked) -> Answer:
    """POST /db/import: a dump of Heketi, into an empty database."""
    return answers.document(importing.load(service.state, bodies.anything(asked.body)), indent=4)


async def rebuild(service: Service, asked: Asked) -> Answer:
    """POST /db/rebuild: fill an empty database from the cluster itself."""
    body = bodies.read(asked.body, rebuilding.RebuildBody)
    return answers.document(await rebuilding.rebuild(service, body), indent=4)


async def examine(service: Service, asked: Asked) -> Answer:
    """GET /internal/state/examine/gluster."""
    return answers.document(await rebuilding.examine(service), indent=4)


async def backup(service: Service, asked: Asked) -> Answer:
    """GET /backup/db: the SQLite file."""
    headers = {"Content-Disposition": 'attachment; filename="heketi.db"'}
    return Answer(200, service.state.backup(), "application/octet-stream", headers)
