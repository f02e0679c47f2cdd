"""The entry: finds the object that is asked about and answers."""

from __future__ import annotations

from holdfast.api import kinds
from holdfast.api.kinds import Kind
from holdfast.diagnosis.causes import claims, picture, pods, volumes
from holdfast.diagnosis.causes.answer import Answer, listed
from holdfast.kit import suggest
from holdfast.runtime.client import Client


class NoSuchObject(Exception):
    """There is no object of that name: where it was looked for, and what is there."""


def kind_of(word: str) -> Kind | None:
    """Return the kind somebody means: a claim, a volume or a pod."""
    for kind in (kinds.CLAIM, kinds.VOLUME, kinds.POD):
        if word.lower() in (kind.singular, kind.plural, *kind.short_names):
            return kind
    return None


async def why(client: Client, kind: Kind, name: str, namespace: str) -> Answer:
    """Answer why an object does not get further. Raises NoSuchObject and what the API raises."""
    seen = await picture.take(client, namespace)
    obj = seen.find(kind, name)
    if obj is None:
        if kind is kinds.CLAIM and (found := claims.absent(seen, name)):
            return found
        raise NoSuchObject(await _missing(client, seen, kind, name))
    if kind is kinds.CLAIM:
        return await claims.answer(client, seen, obj)
    if kind is kinds.POD:
        return await pods.answer(client, seen, obj)
    return volumes.answer(seen, obj)


async def _missing(client: Client, seen: picture.Picture, kind: Kind, name: str) -> str:
    what = f"there is no {kind.singular} {name}"
    if kind in seen.unread:
        return f"{kind.plural} cannot be read: {seen.unread[kind]}"
    if not kind.namespaced:
        near = suggest.nearest(name, seen.names(kind))
        return f"{what}; did you mean {near}?" if near else what
    everywhere = (await client.list(kind)).items
    elsewhere = sorted(
        obj["metadata"]["namespace"] for obj in everywhere if obj["metadata"]["name"] == name
    )
    if elsewhere:
        return f"{what} in namespace {seen.namespace}; there is one in {listed(elsewhere)} (-n)"
    near = suggest.nearest(name, seen.names(kind))
    hint = f"; did you mean {near}?" if near else ""
    return f"{what} in namespace {seen.namespace}{hint}{_because(seen)}"


def _because(seen: picture.Picture) -> str:
    used_up = claims.quotas(seen)
    return f"; {listed(used_up)}" if used_up else ""
