"""Namespace deletion: everything inside goes first, then the namespace.

A terminating namespace keeps its `kubernetes` finalizer until nothing is left in it.
All objects of all namespaced kinds are deleted once; what has finalizers of its own
(a claim in use, a pod whose volumes are being unmounted) is waited for, and the
namespace's conditions say for what. Then the finalizer is removed through the
`finalize` subresource, which deletes the namespace.

The invariant: the finalizer goes only after lists of every kind came back empty,
taken after the namespace was terminating, when nothing new can be created in it.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Mapping
from typing import Any

from holdfast.api import errors, kinds
from holdfast.controllers import conditions
from holdfast.kit.backoff import Backoff
from holdfast.runtime.client import Client
from holdfast.runtime.controller import After, Controller, Done, Outcome
from holdfast.runtime.informer import Informers
from holdfast.runtime.recorder import Recorder

FINALIZER = "kubernetes"
PARALLEL = 16
# Pods first: what they use is released while the rest is deleted. Events last, so that
# those of the deletion itself go too.
ORDER = sorted(
    (kind for kind in kinds.ALL if kind.namespaced),
    key=lambda kind: (kind is kinds.EVENT, kind is not kinds.POD, kind.resource),
)

Remaining = dict[str, list[dict[str, Any]]]


class NamespaceDeletion:
    """Empties and finalizes terminating namespaces."""

    def __init__(self, client: Client, informers: Informers, recorder: Recorder) -> None:
        self._client = client
        self._namespaces = informers.of(kinds.NAMESPACE)
        self._controller = Controller("namespaces", self._reconcile, workers=2)
        self._waits = Backoff(0.1, 5.0)
        self._namespaces.subscribe(self._changed)

    async def run(self) -> None:
        """Delete namespaces until cancelled."""
        await self._namespaces.synced()
        await self._controller.run()

    def _changed(self, old: dict[str, Any] | None, new: dict[str, Any] | None) -> None:
        if new is not None and "deletionTimestamp" in new["metadata"]:
            self._controller.enqueue(new["metadata"]["name"])
        elif new is None and old is not None:
            self._waits.forget(old["metadata"]["name"])

    async def _reconcile(self, name: str) -> Outcome:
        obj = self._namespaces.get(name)
        if obj is None or "deletionTimestamp" not in obj["metadata"]:
            return Done
        finalizers: list[str] = list(obj.get("spec", {}).get("finalizers") or ())
        if FINALIZER not in finalizers:
            return Done
        if obj.get("status", {}).get("phase") != "Terminating":
            obj = await self._patch_status(obj, {"phase": "Terminating"})
        await self._delete_content(name)
        remaining = await self._content(name)
        if remaining:
            await self._report(obj, remaining)
            return After(self._waits.next(name))
        kept = [entry for entry in finalizers if entry != FINALIZER]
        finalized = {**obj, "spec": {**obj.get("spec", {}), "finalizers": kept}}
        try:
            await self._client.replace(kinds.NAMESPACE, finalized, subresource="finalize")
        except errors.NotFound:
            pass
        return Done

    async def _content(self, namespace: str) -> Remaining:
        """Return what is left, by resource."""
        found = {}
        for kind in ORDER:
            listing = await self._client.list(kind, namespace)
            if listing.items:
                found[kind.resource] = listing.items
        return found

    async def _delete_content(self, namespace: str) -> None:
        limit = asyncio.Semaphore(PARALLEL)

        async def delete(kind: kinds.Kind, obj: Mapping[str, Any]) -> None:
            meta = obj["metadata"]
            async with limit:
                try:
                    await self._client.delete(kind, meta["name"], namespace, uid=meta["uid"])
                except (errors.NotFound, errors.Conflict):
                    pass

        for kind in ORDER:
            listing = await self._client.list(kind, namespace)
            async with asyncio.TaskGroup() as group:
                for obj in listing.items:
                    if "deletionTimestamp" not in obj["metadata"]:
                        group.create_task(delete(kind, obj))

    async def _report(self, obj: dict[str, Any], remaining: Remaining) -> None:
        """Say in the namespace's conditions what it waits for."""
        status = obj
        for type, reason, message in _explain(remaining):
            made = conditions.made(
                status, type, "True" if message else "False", reason=reason, message=message
            )
            if made is not None:
                status = {**status, "status": {**status.get("status", {}), **made}}
        if status is not obj:
            await self._patch_status(obj, {"conditions": status["status"]["conditions"]})

    async def _patch_status(self, obj: dict[str, Any], status: dict[str, Any]) -> dict[str, Any]:
        meta = obj["metadata"]
        patch = {"metadata": {"resourceVersion": meta["resourceVersion"]}, "status": status}
        written = await self._client.patch(
            kinds.NAMESPACE, meta["name"], patch, subresource="status"
        )
        self._namespaces.observe(written)
        return written


def _explain(remaining: Remaining) -> list[tuple[str, str, str]]:
    """Return (condition, reason, message) in Kubernetes' words."""
    content = ", ".join(
        f"{resource} has {len(items)} resource instances"
        for resource, items in sorted(remaining.items())
    )
    counted = Counter(
        finalizer
        for items in remaining.values()
        for obj in items
        for finalizer in obj["metadata"].get("finalizers") or ()
    )
    held = ", ".join(f"{name} in {n} resource instances" for name, n in sorted(counted.items()))
    return [
        (
            "NamespaceContentRemaining",
            "SomeResourcesRemain",
            f"Some resources are remaining: {content}",
        ),
        (
            "NamespaceFinalizersRemaining",
            "SomeFinalizersRemain" if held else "ContentHasNoFinalizers",
            f"Some content in the namespace has finalizers remaining: {held}" if held else "",
        ),
    ]
