"""Which volume is whose: claims, volume objects and what the storage systems have, side by side.

Two things must not be: a volume of ours in a storage system that no object knows (an orphan: it
costs room and nobody will delete it), and an object whose volume is gone. The first is recognised
by its name, which follows from a claim's uid; names that are not ours are nobody's business here.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from holdfast.api import kinds, views
from holdfast.backends import errors, registry
from holdfast.backends.protocol import Backend, VolumeHandle
from holdfast.controllers import secrets
from holdfast.runtime.client import Client, Object

_OURS = re.compile(r"pvc-([0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})")

ORPHAN = "orphan: no volume object"
MISSING = "missing: not in the storage system"
MAKING = "being made"


@dataclass(frozen=True, slots=True)
class Entry:
    """One volume. Empty fields are not known or do not apply; `problem` is empty when well."""

    claim: str = ""
    volume: str = ""
    status: str = ""
    size: str = ""
    backend: str = ""
    id: str = ""
    node: str = ""
    problem: str = ""


@dataclass(frozen=True, slots=True)
class Inventory:
    """All volumes, and why a storage system could not be asked, by backend."""

    entries: Sequence[Entry]
    unasked: Mapping[str, str]


async def take(
    client: Client, configured: Sequence[str], open_backend: Callable[[str], Backend]
) -> Inventory:
    """Read the API and list the storage systems that are configured or used."""
    volumes = (await client.list(kinds.VOLUME)).items
    claims = (await client.list(kinds.CLAIM)).items
    nodes = await _nodes(client, claims)
    handles = {obj["metadata"]["name"]: _handle(obj) for obj in volumes}
    used = [found[0] for found in handles.values() if found is not None and _asked(found[0])]
    listed, unasked = await _listed(dict.fromkeys((*configured, *used)), open_backend)
    reader = secrets.SecretReader(client)
    entries: list[Entry] = []
    for obj in volumes:
        name = obj["metadata"]["name"]
        found = handles[name]
        problem = ""
        if found is not None and _dynamic(obj) and found[0] in listed:
            gone = found[1].id not in listed[found[0]] and await _is_gone(
                obj, found[1], open_backend(found[0]), reader
            )
            problem = MISSING if gone else ""
        entries.append(_entry(obj, found, nodes.get(name, ""), problem))
    known = {found[1].id for found in handles.values() if found is not None}
    entries += [_pending(obj) for obj in claims if not obj["spec"].get("volumeName")]
    entries += _orphans(listed, known, {obj["metadata"]["uid"] for obj in claims})
    return Inventory(entries, unasked)


def _orphans(
    listed: Mapping[str, Mapping[str, str]], known: set[str], uids: set[str]
) -> list[Entry]:
    found: list[Entry] = []
    for backend, names in listed.items():
        for id, name in names.items():
            ours = _OURS.search(id) or _OURS.search(name)
            if id in known or ours is None:
                continue
            problem = MAKING if ours[1] in uids else ORPHAN
            found.append(Entry(backend=backend, id=id, problem=problem))
    return found


async def _listed(
    wanted: Mapping[str, None], open_backend: Callable[[str], Backend]
) -> tuple[dict[str, dict[str, str]], dict[str, str]]:
    """Return the volumes' names by id, for systems whose ids do not have them, and errors."""
    listed: dict[str, dict[str, str]] = {}
    unasked: dict[str, str] = {}
    for backend in wanted:
        try:
            page = await open_backend(backend).list_volumes()
            listed[backend] = {each.id: each.context.get("name", "") for each in page.volumes}
        except errors.BackendError as error:
            unasked[backend] = str(error)
    return listed, unasked


async def _is_gone(
    obj: Object, handle: VolumeHandle, backend: Backend, reader: secrets.SecretReader
) -> bool:
    """Ask for a volume that was not listed: a class may lead where no configuration does."""
    try:
        values = await reader.read(secrets.deletion_ref(obj["metadata"].get("annotations") or {}))
        await backend.get_volume(handle.id, secrets=values)
    except secrets.Missing:
        return False
    except errors.NotFound:
        return True
    except errors.BackendError:
        return False
    return False


async def _nodes(client: Client, claims: Sequence[Object]) -> dict[str, str]:
    """Return by volume the nodes it is attached to, or where pods use it."""
    found: dict[str, set[str]] = {}
    for obj in (await client.list(kinds.VOLUME_ATTACHMENT)).items:
        name = (obj["spec"].get("source") or {}).get("persistentVolumeName")
        if name and (obj.get("status") or {}).get("attached"):
            found.setdefault(name, set()).add(obj["spec"]["nodeName"])
    volume_of = {
        (obj["metadata"]["namespace"], obj["metadata"]["name"]): obj["spec"].get("volumeName")
        for obj in claims
    }
    for obj in (await client.list(kinds.POD)).items:
        pod = views.pod(obj)
        for _, claim in views.claims_of(pod):
            name = volume_of.get((pod.metadata.namespace, claim))
            if name and pod.spec.node_name and not pod.finished:
                found.setdefault(name, set()).add(pod.spec.node_name)
    return {name: ",".join(sorted(nodes)) for name, nodes in found.items()}


def _entry(obj: Object, found: tuple[str, VolumeHandle] | None, node: str, problem: str) -> Entry:
    volume = views.volume(obj)
    reference = volume.spec.claim_ref
    going = volume.metadata.terminating
    return Entry(
        claim=f"{reference.namespace}/{reference.name}" if reference is not None else "",
        volume=volume.metadata.name,
        status="Terminating" if going else volume.status.phase,
        size=(obj["spec"].get("capacity") or {}).get("storage", ""),
        backend=found[0] if found is not None else volume.spec.source()[0],
        id=found[1].id if found is not None else "",
        node=node,
        problem=problem,
    )


def _pending(obj: Object) -> Entry:
    claim = views.claim(obj)
    where = f"{claim.metadata.namespace}/{claim.metadata.name}"
    return Entry(claim=where, status=claim.status.phase or "Pending", size=claim.spec.request)


def _handle(obj: Object) -> tuple[str, VolumeHandle] | None:
    return registry.handle_of(obj["spec"], obj["metadata"].get("annotations"))


def _asked(backend: str) -> bool:
    return backend == "local" or backend in registry.BACKENDS


def _dynamic(obj: Object) -> bool:
    """Whether a provisioner of ours made it; a static local volume is only a path."""
    maker = (obj["metadata"].get("annotations") or {}).get(views.PROVISIONED_BY, "")
    return registry.find(maker) is not None
