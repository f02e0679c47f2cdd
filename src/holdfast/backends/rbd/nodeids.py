"""What a machine is called towards Kubernetes: its name and a few digits that follow from it.

Ceph knows clients and no machines, so nobody can be asked whether a machine exists. The
digits tell an id that a node side has given from any other text, which is refused instead
of being taken for a machine without volumes.
"""

from __future__ import annotations

import hashlib

from holdfast.backends import errors

_MARK = "~"


def of(name: str) -> str:
    """Return the id of a machine."""
    return f"{name}{_MARK}{hashlib.sha256(name.encode()).hexdigest()[:6]}"


def name_of(id: str) -> str:
    """Return the machine's name. Raises errors.NotFound for what is no id."""
    name = id.rpartition(_MARK)[0]
    if not name or of(name) != id:
        raise errors.NotFound(
            f'"{id}" is no node of Ceph volumes',
            "",
            "nodes name themselves in their CSINode; see whether Holdfast runs there",
        )
    return name
