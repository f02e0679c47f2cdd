"""Writes the Endpoints, and the Service that keeps them, which a volume's source names.

A GlusterFS volume in the old form is found through Endpoints in its claim's namespace. They belong
to the PersistentVolume: they are made when it appears, made again when somebody deletes them, and
go with it by garbage collection. Endpoints of that name that are somebody else's are left alone.
"""

from __future__ import annotations

import asyncio
import ipaddress
from typing import Final

from holdfast.api import errors, kinds, views
from holdfast.api.kinds import Kind
from holdfast.backends import errors as backend_errors
from holdfast.backends import registry
from holdfast.backends.names import Endpoints
from holdfast.controllers import secrets
from holdfast.controllers.provisioners import Provisioners
from holdfast.kit.backoff import Backoff
from holdfast.runtime.client import Client, Object
from holdfast.runtime.controller import After, Controller, Done, Outcome
from holdfast.runtime.informer import Informers
from holdfast.runtime.recorder import Recorder

COMPONENT: Final = "holdfast-endpoints"
_WORKERS = 4


class VolumeEndpoints:
    """The component; `run` until cancelled."""

    def __init__(
        self,
        client: Client,
        informers: Informers,
        recorder: Recorder,
        provisioners: Provisioners,
    ) -> None:
        self._client = client
        self._informers = informers
        self._volumes = informers.of(kinds.VOLUME)
        self._endpoints = informers.of(kinds.ENDPOINTS)
        self._services = informers.of(kinds.SERVICE)
        self._secrets = secrets.SecretReader(client)
        self._recorder = recorder
        self._provisioners = provisioners
        self._backoff = Backoff(0.5, 300.0)
        self.loop = Controller("endpoints", self.reconcile, workers=_WORKERS)

    async def run(self) -> None:
        """Follow changes and reconcile until cancelled."""
        await self._informers.synced()
        self._volumes.subscribe(self._changed)
        self._endpoints.subscribe(self._companion_changed)
        self._services.subscribe(self._companion_changed)
        await self.loop.run()

    def _changed(self, old: Object | None, new: Object | None) -> None:
        if new is not None and old is None and self._wanted(new) is not None:
            self.loop.enqueue(new["metadata"]["name"])

    def _companion_changed(self, old: Object | None, new: Object | None) -> None:
        if new is not None or old is None:
            return
        for owner in old["metadata"].get("ownerReferences") or ():
            if owner["kind"] == kinds.VOLUME.name:
                self.loop.enqueue(owner["name"])

    def _wanted(self, volume: Object) -> Endpoints | None:
        maker = (volume["metadata"].get("annotations") or {}).get(views.PROVISIONED_BY, "")
        served = self._provisioners.get(maker)
        return served.name.companions(volume["spec"]) if served is not None else None

    async def reconcile(self, name: str) -> Outcome:
        """Make what is missing for the volume."""
        volume = self._volumes.get(name)
        wanted = self._wanted(volume) if volume is not None else None
        if volume is None or wanted is None or "deletionTimestamp" in volume["metadata"]:
            self._backoff.forget(name)
            return Done
        missing = [
            kind
            for kind, cache in (
                (kinds.ENDPOINTS, self._endpoints),
                (kinds.SERVICE, self._services),
            )
            if cache.get(wanted.name, wanted.namespace) is None
        ]
        if not missing:
            return Done
        try:
            addresses = await self._addresses(volume)
        except (backend_errors.BackendError, OSError) as error:
            text = f"endpoints {wanted.namespace}/{wanted.name} cannot be written: {error}"
            self._recorder.event(volume, "Warning", "EndpointsFailed", text)
            return After(self._backoff.next(name))
        for kind in missing:
            await self._create(kind, volume, wanted, addresses)
        self._backoff.forget(name)
        return Done

    async def _addresses(self, volume: Object) -> list[str]:
        """Ask the storage system where the volume is served. Names become addresses."""
        annotations = volume["metadata"].get("annotations") or {}
        served = self._provisioners.get(annotations.get(views.PROVISIONED_BY, ""))
        found = registry.handle_of(volume["spec"], annotations)
        assert served is not None and found is not None
        values = await self._secrets.read(secrets.deletion_ref(annotations))
        made = await served.backend.get_volume(found[1].id, secrets=values)
        hosts = [host for host in made.context.get("hosts", "").split(",") if host]
        if not hosts:
            raise backend_errors.NotFound("no server of the volume is known", found[1].id)
        return list(dict.fromkeys([await _address(host) for host in hosts]))

    async def _create(
        self, kind: Kind, volume: Object, wanted: Endpoints, addresses: list[str]
    ) -> None:
        port = {"port": wanted.port, "protocol": "TCP"}
        obj: Object = {
            "apiVersion": "v1",
            "kind": kind.name,
            "metadata": {
                "name": wanted.name,
                "namespace": wanted.namespace,
                "labels": dict(wanted.labels),
                "ownerReferences": [_owner(volume)],
            },
        }
        if kind is kinds.SERVICE:
            # Without a selector nobody else writes its Endpoints.
            obj["spec"] = {"clusterIP": "None", "ports": [port]}
        else:
            obj["subsets"] = [{"addresses": [{"ip": ip} for ip in addresses], "ports": [port]}]
        try:
            await self._client.create(kind, obj, wanted.namespace)
        except (errors.AlreadyExists, errors.NotFound, errors.Forbidden):
            # There already, or the namespace is going and with it everything that would need it.
            return
        except errors.Invalid as error:
            # A Service's name has to begin with a letter; Endpoints may be named by a bare uid.
            text = f"{kind.plural} {wanted.namespace}/{wanted.name} cannot be written: {error}"
            self._recorder.event(volume, "Warning", "EndpointsFailed", text)


def _owner(volume: Object) -> Object:
    meta = volume["metadata"]
    return {
        "apiVersion": "v1",
        "kind": kinds.VOLUME.name,
        "name": meta["name"],
        "uid": meta["uid"],
    }


async def _address(host: str) -> str:
    """Return an address as it is, and look a name up, for Endpoints take only addresses."""
    try:
        return str(ipaddress.ip_address(host))
    except ValueError:
        found = await asyncio.get_running_loop().getaddrinfo(host, None)
        return str(found[0][4][0])
