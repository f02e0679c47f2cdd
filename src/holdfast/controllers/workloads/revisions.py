"""The history of a stateful set's templates: one ControllerRevision for each.

A revision holds the template as a strategic merge patch, which is what `kubectl rollout undo`
applies. Its name carries the template's hash, so the same template is one revision however often
it comes back; coming back only gives it the highest number again.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from holdfast.api import errors, kinds
from holdfast.controllers.workloads import ownership, rollout
from holdfast.runtime.client import Client
from holdfast.runtime.informer import Informers

HASH_LABEL = "controller.kubernetes.io/hash"

Object = dict[str, Any]


def template_of(revision: Object) -> Object:
    """Return the pod template a revision holds."""
    content = revision.get("data", {}).get("spec", {}).get("template") or {}
    return {key: value for key, value in content.items() if key != "$patch"}


def number_of(revision: Object) -> int:
    """Return a revision's number; the newest has the highest."""
    found: int = revision.get("revision", 0)
    return found


class Revisions:
    """Reads and writes the revisions of stateful sets."""

    def __init__(self, client: Client, informers: Informers) -> None:
        self._client = client
        self._revisions = informers.of(kinds.CONTROLLER_REVISION)
        ownership.index(self._revisions)
        self._claiming = ownership.Claiming(client, self._revisions, kinds.STATEFUL_SET)

    async def of(self, obj: Object) -> list[Object]:
        """Return the set's revisions, the oldest first."""
        return sorted(await self._claiming.claim(obj), key=number_of)

    async def ensure(self, obj: Object, known: list[Object], collisions: int) -> Object:
        """Return the revision of the present template, which has the highest number.

        Raises `AlreadyExists` when somebody else's revision has its name.
        """
        content = {"spec": {"template": {**obj["spec"].get("template", {}), "$patch": "replace"}}}
        number = number_of(known[-1]) + 1 if known else 1
        for revision in reversed(known):
            if revision.get("data") == content:
                return revision if revision is known[-1] else await self._renumber(revision, number)
        digest = rollout.hash_of(content, collisions)
        meta = obj["metadata"]
        labels = obj["spec"].get("template", {}).get("metadata", {}).get("labels") or {}
        body = {
            "apiVersion": "apps/v1",
            "kind": "ControllerRevision",
            "metadata": {
                "name": f"{meta['name']}-{digest}",
                "namespace": meta["namespace"],
                "labels": {**labels, HASH_LABEL: digest},
                "ownerReferences": [ownership.reference(obj, kinds.STATEFUL_SET)],
            },
            "data": content,
            "revision": number,
        }
        made = await self._client.create(kinds.CONTROLLER_REVISION, body, meta["namespace"])
        self._revisions.observe(made)
        return made

    async def _renumber(self, revision: Object, number: int) -> Object:
        meta = revision["metadata"]
        patch = {"metadata": {"uid": meta["uid"]}, "revision": number}
        written = await self._client.patch(
            kinds.CONTROLLER_REVISION, meta["name"], patch, meta["namespace"]
        )
        self._revisions.observe(written)
        return written

    async def forget(self, known: Iterable[Object], used: set[str], limit: int) -> None:
        """Delete the oldest revisions nobody uses, down to `limit` of them."""
        unused = [each for each in known if each["metadata"]["name"] not in used]
        for revision in unused[: max(0, len(unused) - limit)]:
            meta = revision["metadata"]
            try:
                await self._client.delete(
                    kinds.CONTROLLER_REVISION, meta["name"], meta["namespace"], uid=meta["uid"]
                )
            except errors.NotFound:
                continue
