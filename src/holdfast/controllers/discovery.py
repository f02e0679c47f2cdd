"""Keeps the StorageClasses that a storage system asks for, and the nodes' regions and zones.

A system that can say so (`Discoverer`) is asked every few seconds. Its classes are made,
made anew when what cannot be changed has changed, and removed when nobody asks for them any
more. Claims and volumes only name their class, so they do not mind. Classes of other people
are left alone, also under a wanted name.

Invariant: an answer that is an error changes nothing. What there is stays as it is until the
system can be asked again.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from holdfast.api import errors, kinds
from holdfast.backends import errors as backend_errors
from holdfast.backends.protocol import Backend, Discoverer, WantedClass
from holdfast.runtime.client import Client

log = logging.getLogger("holdfast.controllers")

PERIOD: Final = 5.0
MANAGED_BY: Final = "app.kubernetes.io/managed-by"
OURS: Final = "holdfast"
FOUND_BY: Final = "holdfast.dev/discovered-by"
DEFAULT: Final = "storageclass.kubernetes.io/is-default-class"
# What the API does not let anybody change in a class that exists.
_FIXED = ("provisioner", "parameters", "reclaimPolicy", "volumeBindingMode", "allowedTopologies")

Object = dict[str, Any]


class ClassDiscovery:
    """Asks the storage systems in `openers` by their kind, `drivers` being theirs by name."""

    def __init__(
        self,
        client: Client,
        openers: Mapping[str, Callable[[], Backend]],
        drivers: Mapping[str, str],
        *,
        period: float = PERIOD,
    ) -> None:
        self._client = client
        self._openers = openers
        self._drivers = drivers
        self._period = period
        self._said: dict[str, str] = {}

    async def run(self) -> None:
        """Go on until cancelled."""
        while True:
            for kind, opener in self._openers.items():
                await self.once(kind, opener())
            await asyncio.sleep(self._period)

    async def once(self, kind: str, backend: Backend) -> None:
        """Ask one storage system, and do what follows from its answer."""
        if not isinstance(backend, Discoverer):
            return
        try:
            wanted = await backend.wanted_classes()
            await self._keep(kind, wanted)
            await self._label(kind, backend)
        except (backend_errors.BackendError, errors.StatusError) as error:
            # Said once, and again when it is another reason.
            if self._said.get(kind) != str(error):
                log.warning("classes left as they are", extra={"backend": kind, "why": str(error)})
            self._said[kind] = str(error)
            return
        if self._said.pop(kind, None):
            log.info("classes are followed again", extra={"backend": kind})

    async def _keep(self, kind: str, wanted: Sequence[WantedClass]) -> None:
        present = {
            obj["metadata"]["name"]: obj
            for obj in (await self._client.list(kinds.STORAGE_CLASS)).items
        }
        others_default = any(
            _is_default(obj) for obj in present.values() if not _is_ours(obj, kind)
        )
        for each in wanted:
            body = _body(kind, each, default=each.default and not others_default)
            await self._keep_one(kind, body, present.get(each.name))
        names = {each.name for each in wanted}
        for name, obj in present.items():
            if name not in names and _is_ours(obj, kind):
                await self._delete(obj)
                log.info("class retired", extra={"class": name, "backend": kind})

    async def _keep_one(self, kind: str, body: Object, present: Object | None) -> None:
        name = body["metadata"]["name"]
        if present is None:
            await self._client.create(kinds.STORAGE_CLASS, body)
            log.info("class found", extra={"class": name, "backend": kind})
            return
        if not _is_ours(present, kind):
            why = f"class {name} is not Holdfast's"
            if self._said.get(name) != why:
                log.warning("class not made", extra={"class": name, "why": why})
            self._said[name] = why
            return
        if any(_plain(present.get(key)) != _plain(body.get(key)) for key in _FIXED):
            await self._delete(present)
            # Whoever made it the default, or not, meant the class and not the object.
            body["metadata"]["annotations"] |= _default_of(present)
            await self._client.create(kinds.STORAGE_CLASS, body)
            log.info("class made anew", extra={"class": name, "backend": kind})
        elif present.get("allowVolumeExpansion") != body["allowVolumeExpansion"]:
            change = {"allowVolumeExpansion": body["allowVolumeExpansion"]}
            await self._client.patch(kinds.STORAGE_CLASS, name, change)

    async def _delete(self, obj: Object) -> None:
        name, uid = obj["metadata"]["name"], obj["metadata"]["uid"]
        try:
            await self._client.delete(kinds.STORAGE_CLASS, name, uid=uid)
        except errors.NotFound:
            return

    async def _label(self, kind: str, backend: Discoverer) -> None:
        """Give every node of the storage system its region and zone."""
        drivers = {name for name, found in self._drivers.items() if found == kind}
        nodes = {
            obj["metadata"]["name"]: obj for obj in (await self._client.list(kinds.NODE)).items
        }
        for obj in (await self._client.list(kinds.CSI_NODE)).items:
            node = nodes.get(obj["metadata"]["name"])
            entries = (obj.get("spec") or {}).get("drivers") or ()
            ids = {each["nodeID"] for each in entries if each["name"] in drivers}
            if node is None or not ids:
                continue
            labels = dict(await backend.node_labels(min(ids)))
            have = node["metadata"].get("labels") or {}
            if not labels.items() <= have.items():
                patch = {"metadata": {"labels": labels}}
                await self._client.patch(kinds.NODE, node["metadata"]["name"], patch)


def _body(kind: str, wanted: WantedClass, *, default: bool) -> Object:
    annotations = dict(wanted.annotations)
    if default:
        annotations[DEFAULT] = "true"
    body: Object = {
        "apiVersion": kinds.STORAGE_CLASS.api_version,
        "kind": kinds.STORAGE_CLASS.name,
        "metadata": {
            "name": wanted.name,
            "labels": {MANAGED_BY: OURS, FOUND_BY: kind},
            "annotations": annotations,
        },
        "provisioner": wanted.provisioner,
        "parameters": dict(wanted.parameters),
        "reclaimPolicy": "Delete",
        "volumeBindingMode": "WaitForFirstConsumer" if wanted.late else "Immediate",
        "allowVolumeExpansion": wanted.expansion,
    }
    if wanted.topology:
        body["allowedTopologies"] = [
            {
                "matchLabelExpressions": [
                    {"key": key, "values": list(values)}
                    for key, values in sorted(wanted.topology.items())
                ]
            }
        ]
    return body


def _is_ours(obj: Mapping[str, Any], kind: str) -> bool:
    labels = obj["metadata"].get("labels") or {}
    return bool(labels.get(MANAGED_BY) == OURS and labels.get(FOUND_BY) == kind)


def _is_default(obj: Mapping[str, Any]) -> bool:
    return (obj["metadata"].get("annotations") or {}).get(DEFAULT) == "true"


def _default_of(obj: Mapping[str, Any]) -> dict[str, str]:
    said = (obj["metadata"].get("annotations") or {}).get(DEFAULT)
    return {} if said is None else {DEFAULT: str(said)}


def _plain(value: Any) -> Any:
    return value or None
