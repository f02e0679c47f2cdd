"""One look at a claim that waits for a volume of ours.

The order makes every crash harmless: finalizer on the claim, volume in the backend, volume
object, finalizer off. While the finalizer is there the claim cannot vanish, so what was begun
for it is finished or, if the claim is being deleted, undone. Each step finds its own work when
it is repeated, because the volume's name follows from the claim's uid.

A claim that failed is not tried again before its pause is over, whatever changes about it, or
scheduler and provisioner would chase each other; only a change of its class ends the pause.
"""

from __future__ import annotations

import dataclasses

from holdfast.api import errors, kinds, views
from holdfast.backends import errors as backend_errors
from holdfast.backends.protocol import Volume, VolumeRequest
from holdfast.controllers import secrets
from holdfast.controllers.binding.writes import Writes
from holdfast.controllers.provisioners import Provisioners, Served
from holdfast.controllers.provisioning import sources, volumes
from holdfast.controllers.scheduling import affinity
from holdfast.kit.backoff import Backoff, Pauses
from holdfast.runtime.client import Client, Object
from holdfast.runtime.controller import After, Controller, Done, Outcome, Terminal
from holdfast.runtime.informer import Informers
from holdfast.runtime.recorder import Recorder

FINALIZER = "holdfast.dev/provisioning"
_WORKERS = 32
# external-provisioner's pauses between failed attempts, in seconds.
_FIRST_RETRY, _LAST_RETRY = 1.0, 300.0
_BY_CLASS = "provisioning/unbound-by-class"
# The in-tree plug-in whose volumes are never mounted, so it takes no options for that.
_WITHOUT_OPTIONS = "kubernetes.io/host-path"
# The API says no to a volume's object, by its own rules, an admission's or for want of a right.
_REFUSALS = (errors.BadRequest, errors.Forbidden, errors.Invalid, errors.RequestTooLarge)


class _Refused(Exception):
    """The backend is not even asked; the text is told as it is."""


class _WrongNode(_Refused):
    """The node that the scheduler chose will not do, so it has to choose again."""


class ProvisioningController:
    """The component; `run` until cancelled."""

    def __init__(
        self,
        client: Client,
        informers: Informers,
        recorders: dict[str, Recorder],
        provisioners: Provisioners,
    ) -> None:
        self._client = client
        self._informers = informers
        self._claims = informers.of(kinds.CLAIM)
        self._volumes = informers.of(kinds.VOLUME)
        self._classes = informers.of(kinds.STORAGE_CLASS)
        self._nodes = informers.of(kinds.NODE)
        self._claims.add_index(_BY_CLASS, _unbound_class)
        self._writes = Writes(client, informers)
        self._sources = sources.Sources(client, informers)
        self._secrets = secrets.SecretReader(client)
        self._recorders = recorders
        self._provisioners = provisioners
        self._backoff = Backoff(_FIRST_RETRY, _LAST_RETRY)
        # When a claim that failed may be tried again, in the event loop's time.
        self._pauses = Pauses()
        self.loop = Controller("provisioner", self.reconcile, workers=_WORKERS)

    async def run(self) -> None:
        """Follow changes and reconcile until cancelled."""
        await self._informers.synced()
        self._claims.subscribe(self._claim_changed)
        self._classes.subscribe(self._class_changed)
        self._sources.follow(self._try_now)
        await self.loop.run()

    def _claim_changed(self, old: Object | None, new: Object | None) -> None:
        if new is None:
            return
        meta = new["metadata"]
        waits = not new["spec"].get("volumeName") and bool(self._asked(new))
        if waits or FINALIZER in (meta.get("finalizers") or ()):
            self.loop.enqueue((meta["namespace"], meta["name"]))

    def _asked(self, claim: Object) -> str:
        """The provisioner that the claim waits for; empty for none."""
        annotations = claim["metadata"].get("annotations") or {}
        name = annotations.get(views.STORAGE_PROVISIONER, "")
        if name or not self._provisioners.by_class:
            return str(name)
        found = self._classes.get(views.class_of(views.claim(claim)))
        provisioner = found["provisioner"] if found is not None else ""
        return provisioner if provisioner in self._provisioners.by_class else ""

    def _class_changed(self, old: Object | None, new: Object | None) -> None:
        if new is None:
            return
        for claim in self._claims.by(_BY_CLASS, new["metadata"]["name"]):
            self._try_now(claim)

    def _try_now(self, claim: Object) -> None:
        """End the claim's pause: what it failed for has changed."""
        self._pauses.end((claim["metadata"]["namespace"], claim["metadata"]["name"]))
        self._claim_changed(None, claim)

    async def reconcile(self, key: tuple[str, str]) -> Outcome:
        """Look at the claim once."""
        obj = self._claims.get(key[1], key[0])
        if obj is None:
            self._forget(key)
            return Done
        claim = views.claim(obj)
        name = self._asked(obj)
        served = self._provisioners.get(name)
        begun = FINALIZER in claim.metadata.finalizers
        if served is None:
            if begun:
                raise Terminal(
                    f"a volume was begun for it, but provisioner {name!r} is not served here; "
                    f"look for the volume, then remove the finalizer {FINALIZER}"
                )
            return Done
        try:
            if _unwanted(claim):
                return await self._undo(obj, claim, served) if begun else Done
            if claim.spec.volume_name or self._volumes.get(volumes.name_of(claim)) is not None:
                await self._release(obj)
                return Done
            pause = self._pauses.left(key)
            return After(pause) if pause else await self._provision(obj, claim, served)
        except errors.NotFound:
            # The claim is gone; its deletion is on its way to the cache.
            return Done

    def _forget(self, key: tuple[str, str]) -> None:
        self._backoff.forget(key)
        self._pauses.end(key)

    async def _provision(self, obj: Object, claim: views.Claim, served: Served) -> Outcome:
        found = self._classes.get(views.class_of(claim))
        if found is None:
            return Done
        storage_class = views.storage_class(found)
        node = claim.metadata.annotations.get(views.SELECTED_NODE)
        if storage_class.delays_binding and node is None:
            return Done
        served = self._provisioners.for_class(served.driver, storage_class.provisioner) or served
        try:
            request = await self._request(claim, storage_class, served, node)
            volume = await self._create(obj, claim, served, request)
        except (_Refused, backend_errors.BackendError) as error:
            return await self._failed(obj, claim, served, storage_class, error)
        newest = self._claims.get(claim.metadata.name, claim.metadata.namespace)
        if newest is not None and _unwanted(views.claim(newest)):
            # Deleted or bound to another volume while this one was made.
            return await self._undo(newest, claim, served)
        try:
            await self._publish(volumes.object_of(claim, storage_class, served, request, volume))
        except _REFUSALS as error:
            return self._not_taken(obj, claim, served, error)
        self._forget(claim.metadata.key)
        self._say_made(obj, served, request.name)
        await self._release(obj)
        return Done

    async def _request(
        self,
        claim: views.Claim,
        storage_class: views.StorageClass,
        served: Served,
        node: str | None,
    ) -> VolumeRequest:
        if claim.spec.selector is not None:
            # A volume made for the claim has no labels that the selector could match.
            raise _Refused(
                "claim Selector is not supported: a selector chooses among volumes that exist, "
                "none is made to match it; remove it, or label a volume of class "
                f'"{storage_class.metadata.name}" so that it matches'
            )
        if served.name.name == _WITHOUT_OPTIONS and storage_class.mount_options:
            name, options = storage_class.metadata.name, " ".join(storage_class.mount_options)
            raise _Refused(
                "Mount options are not supported by the provisioner "
                f'but StorageClass "{name}" has mount options [{options}]'
            )
        topology = self._place(storage_class, served, node)
        refs = volumes.secrets_of(claim, storage_class, served)
        found = await self._secrets.read(refs.provision)
        source = await self._sources.of(claim, served)
        return volumes.request_of(claim, storage_class, served, source, topology, found)

    def _place(
        self, storage_class: views.StorageClass, served: Served, node: str | None
    ) -> dict[str, str] | None:
        """Return the labels of the node the volume is for; None where any place will do."""
        terms = storage_class.allowed_topologies
        if node is not None:
            found = self._nodes.get(node)
            if found is None:
                what = "Failed to get target node: " if served.in_tree else ""
                raise _WrongNode(f'{what}node "{node}" not found')
            labels = views.node(found).metadata.labels
            if not affinity.topology_admits(terms, labels):
                raise _Refused(
                    "error generating accessibility requirements: "
                    f"selected node '\"{node}\"' is not in allowed topologies"
                )
            return labels
        if not terms:
            return None
        nodes = sorted((views.node(each) for each in self._nodes.all()), key=_name_of)
        for each in nodes:
            if affinity.topology_admits(terms, each.metadata.labels):
                return each.metadata.labels
        asked = affinity.topology_text(terms, (each.metadata.labels for each in nodes))
        raise _Refused(
            "error generating accessibility requirements: no available topology found: class "
            f"{storage_class.metadata.name} allows only {asked}. Label a node so, or make the "
            "class again with other allowedTopologies"
        )

    async def _create(
        self, obj: Object, claim: views.Claim, served: Served, request: VolumeRequest
    ) -> Volume:
        """Hold the claim and make its volume.

        A claim is let go again when the very first attempt cannot have made anything, so that
        whoever misspelt something can delete it.
        """
        first = FINALIZER not in claim.metadata.finalizers
        obj = await self._begin(obj, claim, served)
        try:
            return await served.backend.create_volume(request)
        except backend_errors.BackendError as error:
            if first and _is_vain(error) and await _is_absent(served, request):
                await self._release(obj)
            raise

    async def _begin(self, obj: Object, claim: views.Claim, served: Served) -> Object:
        """Hold the claim before anything is made for it."""
        if not served.in_tree:
            where = f"{claim.metadata.namespace}/{claim.metadata.name}"
            self._recorder(served).event(
                obj,
                "Normal",
                "Provisioning",
                f'External provisioner is provisioning volume for claim "{where}"',
            )
        if FINALIZER in claim.metadata.finalizers:
            return obj
        finalizers = [*claim.metadata.finalizers, FINALIZER]
        return await self._writes.claim(obj, {"metadata": {"finalizers": finalizers}})

    async def _publish(self, volume: Object) -> None:
        try:
            written = await self._client.create(kinds.VOLUME, volume)
        except errors.AlreadyExists:
            # Made by an earlier attempt that was cut off; the name belongs to this claim alone.
            return
        self._volumes.observe(written)

    def _not_taken(
        self, obj: Object, claim: views.Claim, served: Served, error: errors.StatusError
    ) -> Outcome:
        """The storage is there and its object is not: keep it, so that the next attempt finds it.

        As external-provisioner does. The claim is held meanwhile, and its deletion deletes it.
        """
        key = claim.metadata.key
        text = (
            f"Error creating provisioned PV object for claim {key[0]}/{key[1]}: {error.message}. "
            "The volume is kept for the next attempt; deleting the claim deletes it."
        )
        self._recorder(served).event(obj, "Warning", "ProvisioningFailed", text)
        delay = self._backoff.next(key)
        self._pauses.begin(key, delay)
        return After(delay)

    async def _release(self, obj: Object) -> None:
        # The finalizer list may have changed meanwhile: take ours from the newest one.
        meta = obj["metadata"]
        newest = self._claims.get(meta["name"], meta["namespace"]) or obj
        finalizers = newest["metadata"].get("finalizers") or []
        if FINALIZER in finalizers:
            kept = [name for name in finalizers if name != FINALIZER]
            await self._writes.claim(newest, {"metadata": {"finalizers": kept}})

    async def _undo(self, obj: Object, claim: views.Claim, served: Served) -> Outcome:
        """The claim does not need it any more: leave nothing behind only it could have used."""
        name = volumes.name_of(claim)
        key = claim.metadata.key
        try:
            await self._client.get(kinds.VOLUME, name)
        except errors.NotFound:
            try:
                await self._undo_storage(claim, served)
            except backend_errors.BackendError as error:
                message = (
                    f"Error cleaning provisioned volume for claim {key[0]}/{key[1]}: {error}. "
                    "Please delete manually."
                )
                self._recorder(served).event(obj, "Warning", "ProvisioningCleanupFailed", message)
                return After(self._backoff.next(key))
        # A volume object that exists is released with the claim and reclaimed as its policy says.
        self._forget(key)
        await self._release(obj)
        return Done

    async def _undo_storage(self, claim: views.Claim, served: Served) -> None:
        """Find what was made, or begun, for the claim in the way it was made, and delete it.

        Only the class says where to look and with which secrets: the claim is its user's to edit.
        """
        name = views.class_of(claim)
        found = self._classes.get(name)
        if found is None:
            raise backend_errors.NotFound(
                f'StorageClass "{name}" is gone, so it is not known where the volume '
                f"{volumes.name_of(claim)} would be",
                "",
                "create the class again until the claim is gone, or look for the volume and then "
                f"remove the finalizer {FINALIZER}",
            )
        storage_class = views.storage_class(found)
        served = self._provisioners.for_class(served.driver, storage_class.provisioner) or served
        try:
            refs = volumes.secrets_of(claim, storage_class, served)
            request = volumes.request_of(claim, storage_class, served)
        except backend_errors.Invalid:
            # Nothing can have been made for a class that cannot be understood.
            return
        values = await self._secrets.read(refs.provision)
        made = await served.backend.find_volume(dataclasses.replace(request, secrets=values))
        if made is not None:
            await served.backend.delete_volume(made.id, secrets=values)

    def _say_made(self, obj: Object, served: Served, name: str) -> None:
        message = f"Successfully provisioned volume {name}"
        if served.in_tree:
            message += f" using {served.name.name}"
        self._recorder(served).event(obj, "Normal", "ProvisioningSucceeded", message)

    async def _failed(
        self,
        obj: Object,
        claim: views.Claim,
        served: Served,
        storage_class: views.StorageClass,
        error: _Refused | backend_errors.BackendError,
    ) -> Outcome:
        message = str(error)
        infeasible = isinstance(error, backend_errors.BackendError) and error.infeasible
        if isinstance(error, _Refused):
            pass
        elif served.in_tree:
            name = storage_class.metadata.name
            message = f'Failed to provision volume with StorageClass "{name}": {message}'
        elif infeasible:
            message = (
                "Volume provisioning failed with infeasible error. "
                f"Retries will be delayed. {message}"
            )
        self._recorder(served).event(obj, "Warning", "ProvisioningFailed", message)
        # The pause counts from before the write that wakes the scheduler.
        delay = self._backoff.next(claim.metadata.key)
        delay = _LAST_RETRY if infeasible else delay
        if isinstance(error, secrets.Missing | secrets.Unusable):
            delay = min(delay, secrets.RETRY_SECONDS)
        self._pauses.begin(claim.metadata.key, delay)
        elsewhere = served.in_tree or isinstance(error, _WrongNode | backend_errors.Exhausted)
        if elsewhere and views.SELECTED_NODE in claim.metadata.annotations:
            # Let the scheduler look for a node where there is room. What is begun on this one and
            # not known to have failed stays with it.
            await self._writes.claim(
                self._claims.get(*reversed(claim.metadata.key)) or obj,
                {"metadata": {"annotations": {views.SELECTED_NODE: None}}},
            )
        return After(delay)

    def _recorder(self, served: Served) -> Recorder:
        return self._recorders[served.name.name]


def _unwanted(claim: views.Claim) -> bool:
    """Whether the claim is going, or has found another volume than the one made for it."""
    return claim.metadata.terminating or claim.spec.volume_name not in ("", volumes.name_of(claim))


def _name_of(node: views.Node) -> str:
    return node.metadata.name


def _unbound_class(claim: Object) -> tuple[str, ...]:
    if claim["spec"].get("volumeName"):
        return ()
    return (views.class_of(views.claim(claim)),)


async def _is_absent(served: Served, request: VolumeRequest) -> bool:
    """Return whether nothing was made; what cannot be looked for could not be made either."""
    try:
        return await served.backend.find_volume(request) is None
    except backend_errors.BackendError as error:
        return _is_vain(error)


def _is_vain(error: backend_errors.BackendError) -> bool:
    """Return whether a request with these words and secrets cannot have done anything."""
    return error.infeasible or isinstance(error, backend_errors.NoCredentials)
