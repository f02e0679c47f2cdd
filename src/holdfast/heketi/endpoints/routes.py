"""The table of paths. `{id}` is any run of hexadecimal digits; all else is taken literally."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable

from holdfast.heketi.answers import Answer
from holdfast.heketi.endpoints import (
    administration,
    blocks,
    clusters,
    devices,
    nodes,
    operations,
    volumes,
)

Endpoint = Callable[..., Awaitable[Answer]]

ROUTES: tuple[tuple[str, str, Endpoint], ...] = (
    ("GET", "/topology", clusters.topology),
    ("POST", "/clusters", clusters.create),
    ("GET", "/clusters", clusters.list_all),
    ("GET", "/clusters/{id}", clusters.info),
    ("DELETE", "/clusters/{id}", clusters.delete),
    ("POST", "/clusters/{id}/flags", clusters.flags),
    ("POST", "/nodes", nodes.add),
    ("GET", "/nodes/{id}", nodes.info),
    ("DELETE", "/nodes/{id}", nodes.delete),
    ("POST", "/nodes/{id}/state", nodes.set_state),
    ("POST", "/nodes/{id}/tags", nodes.tags),
    ("POST", "/devices", devices.add),
    ("GET", "/devices/{id}", devices.info),
    ("DELETE", "/devices/{id}", devices.delete),
    ("POST", "/devices/{id}/state", devices.set_state),
    ("POST", "/devices/{id}/tags", devices.tags),
    ("GET", "/devices/{id}/resync", devices.resync),
    ("POST", "/volumes", volumes.create),
    ("GET", "/volumes", volumes.list_all),
    ("GET", "/volumes/{id}", volumes.info),
    ("DELETE", "/volumes/{id}", volumes.delete),
    ("POST", "/volumes/{id}/expand", volumes.expand),
    ("POST", "/volumes/{id}/clone", volumes.clone),
    ("POST", "/volumes/{id}/block-restriction", volumes.restrict),
    ("POST", "/blockvolumes", blocks.create),
    ("GET", "/blockvolumes", blocks.list_all),
    ("GET", "/blockvolumes/{id}", blocks.info),
    ("DELETE", "/blockvolumes/{id}", blocks.change),
    ("POST", "/blockvolumes/{id}/expand", blocks.change),
    ("POST", "/bricks/to-evict/{id}", devices.evict),
    ("GET", "/queue/{id}", operations.queue),
    ("GET", "/operations", operations.counts),
    ("GET", "/operations/pending", operations.pending),
    ("POST", "/operations/pending/cleanup", operations.cleanup),
    ("GET", "/operations/pending/{id}", operations.info),
    ("GET", "/admin", administration.mode),
    ("POST", "/admin", administration.set_mode),
    ("GET", "/internal/logging", administration.logging_level),
    ("POST", "/internal/logging", administration.set_logging_level),
    ("GET", "/internal/state/examine/gluster", administration.examine),
    ("GET", "/db/dump", administration.dump),
    ("GET", "/db/check", administration.check),
    ("POST", "/db/repair", administration.repair),
    ("POST", "/db/import", administration.take_over),
    ("POST", "/db/rebuild", administration.rebuild),
    ("GET", "/backup/db", administration.backup),
)

_COMPILED = tuple(
    (method, re.compile(path.replace("{id}", "([A-Fa-f0-9]+)")), endpoint)
    for method, path, endpoint in ROUTES
)


def find(method: str, path: str) -> tuple[Endpoint | None, tuple[str, ...], bool]:
    """The endpoint and the ids in the path; and whether the path is known at all."""
    known = False
    for wanted, pattern, endpoint in _COMPILED:
        found = pattern.fullmatch(path)
        if found is None:
            continue
        known = True
        if wanted == method:
            return endpoint, found.groups(), True
    return None, (), known
