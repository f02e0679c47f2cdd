"""The node agent's loop: from pods of this node to mounted volumes and containers, and back.

One key is one pod's uid. A pod that should run gets its volumes, one order per entry,
then its containers; what fails is tried again with back-off and reported. A pod that is
being deleted, has finished or is gone has its containers ended, then its volumes taken
down, from what is on disk, and a deleted one is then removed from the API.

The invariant: an object of a pod is removed only after nothing of it runs or is mounted,
and a restart of the agent disturbs neither volumes nor containers of a pod that still runs.
"""

from __future__ import annotations

import asyncio
import dataclasses
import logging
from collections.abc import Hashable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from holdfast.api import errors, kinds, views
from holdfast.backends import errors as backend_errors
from holdfast.backends.protocol import NodeSide
from holdfast.controllers import attachments, inlines, secrets
from holdfast.controllers.nodeagent import (
    attaching,
    drivers,
    evicting,
    groups,
    growing,
    losing,
    mounting,
    resolving,
    status,
    subpaths,
)
from holdfast.controllers.nodeagent.podrunner import PodRunner
from holdfast.controllers.nodeagent.registration import RENEW_SECONDS, Registration
from holdfast.controllers.nodeagent.running import PodContainers
from holdfast.controllers.nodeagent.states import COMMANDS_RUN
from holdfast.kit.backoff import Backoff
from holdfast.node import trial
from holdfast.runtime.client import Client
from holdfast.runtime.controller import After, Controller, Done, Outcome
from holdfast.runtime.informer import Informers
from holdfast.runtime.recorder import Recorder

log = logging.getLogger("holdfast.controllers")

FIRST_RETRY = 0.5
LAST_RETRY = 122.0
WORKERS = 8

BY_UID = "nodeagent/pod-by-uid"
BY_CLAIM = "nodeagent/pods-by-claim"


class NodeAgent:
    """Mounts the volumes of the pods that are bound to one node."""

    def __init__(
        self,
        client: Client,
        informers: Informers,
        recorder: Recorder,
        *,
        node_name: str,
        root: Path,
        node_sides: Mapping[str, NodeSide],
        hidden: tuple[str, ...] = (),
        renew_seconds: float = RENEW_SECONDS,
    ) -> None:
        self._client = client
        self._informers = informers
        self._recorder = recorder
        self._node = node_name
        self._root = root
        self._pods = informers.of(kinds.POD)
        self._pods.add_index(f"{BY_UID}/{node_name}", self._uid_here)
        self._pods.add_index(f"{BY_CLAIM}/{node_name}", self._claims_here)
        self._registration = Registration(
            client, informers, node_name, root, renew_seconds=renew_seconds
        )
        self._resolver = resolving.Resolver(client, informers, node_sides)
        self._volumes = mounting.PodVolumes(root, node_sides)
        self._drivers = drivers.NodeDrivers(client, informers, node_name, node_sides)
        self._secrets = secrets.SecretReader(client)
        self._attached = attaching.NodeAttachments(client, informers, self._volumes, node_name)
        self._growth = growing.VolumeGrowth(
            client, informers, recorder, self._volumes, self._attached, node_name
        )
        self._run = PodContainers(
            client, recorder, root, hidden=hidden, changed=self._container_changed
        )
        self._limits = evicting.ScratchLimits(
            self._volumes, recorder, self._pods_here, self._container_changed
        )
        self._lost = losing.LostVolumes(recorder, self._volumes, node_sides, self._pod_of)
        # Why containers cannot be run here; found out when the agent starts.
        self._obstacle = "the node agent is starting"
        self._controller = Controller("nodeagent", self._reconcile, workers=WORKERS)
        self._backoff = Backoff(FIRST_RETRY, LAST_RETRY)
        # When a volume that failed may be tried again, by (uid, entry), in loop time.
        self._held: dict[tuple[str, str], float] = {}
        self._pods.subscribe(self._pod_changed)
        informers.of(kinds.CLAIM).subscribe(self._claim_changed)
        informers.of(kinds.VOLUME).subscribe(self._volume_changed)
        informers.of(kinds.VOLUME_ATTACHMENT).subscribe(self._attachment_changed)
        informers.of(kinds.CSI_DRIVER).subscribe(self._driver_changed)

    async def run(self) -> None:
        """Serve the node until cancelled; mounted volumes stay mounted afterwards."""
        await self._informers.synced()
        await self._registration.register()
        await self._drivers.enter()
        self._obstacle = await trial.obstacle(self._root)
        if self._obstacle:
            log.warning("containers are not run", extra={"why": self._obstacle})
        for uid in {*await self._volumes.load(), *await self._run.load()}:
            self._controller.enqueue(uid)
        await self._attached.tell()
        async with asyncio.TaskGroup() as group:
            group.create_task(self._registration.run())
            group.create_task(self._drivers.run())
            group.create_task(self._growth.run())
            group.create_task(self._lost.run())
            group.create_task(self._run.run())
            group.create_task(self._limits.run())
            group.create_task(self._controller.run())

    async def power_off(self) -> None:
        """Leave the node as a power cut does: nothing runs, nothing is mounted, disks keep all.

        To be called when `run` has ended. What pods had on disk is remembered, so that an agent
        that starts here later mounts it again.
        """
        await self._run.kill_all()
        await self._volumes.load()
        await self._volumes.drop()

    # --- one pod --------------------------------------------------------------

    async def _reconcile(self, uid: str) -> Outcome:
        obj = self._pod_of(uid)
        if obj is None:
            return await self._stop(uid, None)
        terminating = "deletionTimestamp" in obj["metadata"]
        if terminating or obj.get("status", {}).get("phase") in views.FINISHED:
            return await self._stop(uid, obj)
        if self._limits.why(uid):
            return await self._evict(uid, obj)
        return await self._start(uid, obj)

    async def _start(self, uid: str, obj: dict[str, Any]) -> Outcome:
        pod = views.pod(obj)
        missing = await self._missing(pod)
        if missing and not pod.status.container_statuses:
            obj = await self._write(obj, status.creating(obj, self._registration.address, {}))
        await asyncio.gather(*(self._set_up(obj, pod, entry) for entry in missing))
        waits = [time for (owner, _), time in self._held.items() if owner == uid]
        if waits:
            await self._write(obj, status.creating(obj, self._registration.address, {}))
            return After(max(0.0, min(waits) - asyncio.get_running_loop().time()))
        return await self._run_containers(uid, obj, pod)

    async def _missing(self, pod: views.Pod) -> list[views.PodVolume]:
        ready = await self._volumes.ready(pod.metadata.uid)
        return [entry for entry in pod.spec.volumes if entry.name not in ready]

    async def _set_up(self, obj: dict[str, Any], pod: views.Pod, entry: views.PodVolume) -> None:
        """Mount one entry; on failure note when to try again."""
        key = (pod.metadata.uid, entry.name)
        if self._held.get(key, 0.0) > asyncio.get_running_loop().time():
            return
        title = entry.name
        try:
            order = await self._resolver.resolve(obj, pod, entry)
            title = order.shown
            order = await self._attached.ready(order)
            if isinstance(order, resolving.BackendOrder):
                await self._lost.look()
            await self._volumes.set_up(pod.metadata.uid, await self._with_secrets(order))
        except attaching.NotAttached:
            # The controller tells the pod why; the attachment's change ends the wait.
            self._held[key] = asyncio.get_running_loop().time() + LAST_RETRY
        except (resolving.Unmountable, mounting.MountFailed) as error:
            self._held[key] = asyncio.get_running_loop().time() + self._backoff.next(key)
            if isinstance(error, resolving.Unmountable):
                title = error.title or title
            text = f'MountVolume.SetUp failed for volume "{title}" : {error}'
            self._recorder.event(obj, "Warning", "FailedMount", text)
        else:
            self._forget(key)
            self._growth.mounted(order.title)
            text = f'MountVolume.SetUp succeeded for volume "{title}" '
            self._recorder.event(obj, "Normal", "SuccessfulMountVolume", text)

    async def _with_secrets(self, order: resolving.Order) -> resolving.Order:
        if not isinstance(order, resolving.BackendOrder) or order.secret is None:
            return order
        try:
            values = await self._secrets.read(order.secret)
        except backend_errors.BackendError as error:
            raise mounting.MountFailed(order.title, str(error)) from error
        handle = dataclasses.replace(order.handle, secrets=values)
        return dataclasses.replace(order, handle=handle)

    async def _run_containers(self, uid: str, obj: dict[str, Any], pod: views.Pod) -> Outcome:
        if self._obstacle:
            return await self._pretend_to_run(uid, obj, pod)
        paths = {entry.name: self._volumes.path(uid, entry.name) for entry in pod.spec.volumes}
        gids = groups.of_volumes(self._claimed(pod))
        progress = await self._run.reconcile(groups.joined(obj, gids), paths)
        await self._write(obj, status.of(obj, self._registration.address, progress))
        return Done if progress.wait is None else After(progress.wait)

    def _claimed(self, pod: views.Pod) -> Iterator[dict[str, Any] | None]:
        """The volumes behind the pod's claims."""
        claims, volumes = self._informers.of(kinds.CLAIM), self._informers.of(kinds.VOLUME)
        for _, name in views.claims_of(pod):
            claim = claims.get(name, pod.metadata.namespace)
            yield volumes.get(claim["spec"].get("volumeName") or "") if claim is not None else None

    async def _pretend_to_run(self, uid: str, obj: dict[str, Any], pod: views.Pod) -> Outcome:
        """Say that all containers run but those whose subPath cannot be had."""
        broken: dict[str, str] = {}
        paths = {entry.name: self._volumes.path(uid, entry.name) for entry in pod.spec.volumes}
        for container in (*pod.spec.init_containers, *pod.spec.containers):
            if not subpaths.wanted(container):
                continue
            try:
                await asyncio.to_thread(subpaths.prepare, container, paths)
            except subpaths.SubPathError as error:
                broken[container.name] = str(error)
        if not broken:
            if self._obstacle and not any(
                each.type == COMMANDS_RUN for each in pod.status.conditions
            ):
                text = f"Containers are not run, their volumes are there: {self._obstacle}"
                self._recorder.event(obj, "Warning", "ContainersNotRun", text)
            built = status.running(obj, self._registration.address, self._obstacle)
            await self._write(obj, built)
            self._backoff.forget(uid)
            return Done
        for message in broken.values():
            self._recorder.event(obj, "Warning", "Failed", f"Error: {message}")
        await self._write(obj, status.creating(obj, self._registration.address, broken))
        return After(self._backoff.next(uid))

    async def _evict(self, uid: str, obj: dict[str, Any]) -> Outcome:
        """End the pod's containers, then call it Failed; that write brings the key back."""
        brief = {**obj["metadata"], "deletionGracePeriodSeconds": evicting.GRACE}
        if not await self._run.stop(uid, {**obj, "metadata": brief}):
            return Done  # the end of a container brings the key back
        progress = dataclasses.replace(await self._run.observe(obj), phase="Failed")
        built = status.of(obj, self._registration.address, progress)
        why = {"reason": evicting.REASON, "message": self._limits.why(uid)}
        await self._write(obj, {**built, **why})
        return Done

    async def _stop(self, uid: str, obj: dict[str, Any] | None) -> Outcome:
        """End the pod's containers, take its volumes down, then let a deleted pod go."""
        if not await self._run.stop(uid, obj):
            return Done  # the end of a container brings the key back
        terminating = obj is not None and "deletionTimestamp" in obj["metadata"]
        if obj is not None and terminating and self._run.containers.of(uid):
            progress = await self._run.observe(obj)
            built = status.of(obj, self._registration.address, progress)
            obj = await self._write(obj, {**built, "phase": obj["status"]["phase"]})
        try:
            await self._volumes.tear_down(uid)
        except mounting.MountFailed as error:
            if obj is not None:
                text = f'UnmountVolume.TearDown failed for volume "{error.title}" : {error}'
                self._recorder.event(obj, "Warning", "FailedUnMount", text)
            return After(self._backoff.next(uid))
        self._forget_pod(uid)
        self._attached.left()
        await self._attached.tell()
        if obj is None or terminating:
            await self._run.forget(uid)
        if obj is not None and "deletionTimestamp" in obj["metadata"]:
            meta = obj["metadata"]
            try:
                await self._client.delete(
                    kinds.POD, meta["name"], meta["namespace"], uid=uid, grace=0
                )
            except (errors.NotFound, errors.Conflict):
                pass
        return Done

    async def _write(self, obj: dict[str, Any], wanted: status.Status) -> dict[str, Any]:
        """Write what is new in the status; return the pod as it is then."""
        changed = status.difference(obj, wanted)
        if not changed:
            return obj
        meta = obj["metadata"]
        patch = {"metadata": {"uid": meta["uid"]}, "status": changed}
        try:
            written = await self._client.patch(
                kinds.POD, meta["name"], patch, meta["namespace"], subresource="status"
            )
        except errors.NotFound:
            # Deleted by force meanwhile: its event brings the key back for tear-down.
            return obj
        self._pods.observe(written)
        return written

    def _pod_of(self, uid: str) -> dict[str, Any] | None:
        return next(iter(self._pods.by(f"{BY_UID}/{self._node}", uid)), None)

    def runner(self) -> PodRunner:
        """What the API server asks for logs and for programs in this node's containers."""
        return PodRunner(self._run.containers, lambda: self._obstacle)

    def _container_changed(self, uid: str) -> None:
        self._controller.enqueue(uid)

    def _forget(self, key: tuple[str, str]) -> None:
        self._held.pop(key, None)
        self._backoff.forget(key)

    def _forget_pod(self, uid: str) -> None:
        self._limits.forget(uid)
        self._backoff.forget(uid)
        for key in [key for key in self._held if key[0] == uid]:
            self._forget(key)

    # --- what wakes pods ------------------------------------------------------

    def _pod_changed(self, old: dict[str, Any] | None, new: dict[str, Any] | None) -> None:
        for obj in (old, new):
            if obj is not None and self._is_here(obj):
                self._controller.enqueue(obj["metadata"]["uid"])

    def _claim_changed(self, old: dict[str, Any] | None, new: dict[str, Any] | None) -> None:
        if new is None:
            return
        facts = [_claim_facts(obj) for obj in (old, new) if obj is not None]
        if facts[0] != facts[-1] or old is None:
            meta = new["metadata"]
            self._retry_now((meta.get("namespace", ""), meta["name"]))

    def _volume_changed(self, old: dict[str, Any] | None, new: dict[str, Any] | None) -> None:
        spec = new.get("spec", {}) if new is not None else {}
        reference = spec.get("claimRef")
        if reference and (old is None or old.get("spec") != spec):
            self._retry_now((reference.get("namespace", ""), reference.get("name", "")))

    def _attachment_changed(self, old: dict[str, Any] | None, new: dict[str, Any] | None) -> None:
        spec = new["spec"] if new is not None else {}
        if spec.get("nodeName") != self._node:
            return
        name = attachments.volume_of(new) if new is not None else ""
        self._retry_now(("", name))
        volume = self._informers.of(kinds.VOLUME).get(name)
        reference = volume["spec"].get("claimRef") if volume is not None else None
        if reference:
            self._retry_now((reference.get("namespace", ""), reference.get("name", "")))

    def _driver_changed(self, old: dict[str, Any] | None, new: dict[str, Any] | None) -> None:
        """Whether a driver's volumes are attached first may just have been told."""
        for uid, entry in self._held:
            self._held[uid, entry] = 0.0
            self._controller.enqueue(uid)

    def _retry_now(self, claim: tuple[str, str]) -> None:
        """Try the failed volumes of this claim's pods at once: what they lacked may be there."""
        for obj in self._pods.by(f"{BY_CLAIM}/{self._node}", claim):
            uid = obj["metadata"]["uid"]
            held = [key for key in self._held if key[0] == uid]
            for key in held:
                self._held[key] = 0.0
            if held:
                self._controller.enqueue(uid)

    def _pods_here(self) -> list[dict[str, Any]]:
        return [obj for obj in self._pods.all() if self._is_here(obj)]

    def _is_here(self, obj: Mapping[str, Any]) -> bool:
        return bool(obj.get("spec", {}).get("nodeName") == self._node)

    def _uid_here(self, obj: dict[str, Any]) -> Iterable[Hashable]:
        return (obj["metadata"]["uid"],) if self._is_here(obj) else ()

    def _claims_here(self, obj: dict[str, Any]) -> Iterable[Hashable]:
        if not self._is_here(obj):
            return ()
        pod = views.pod(obj)
        # A volume that the pod itself names is in no namespace.
        own = [("", key) for key in inlines.keys(obj)]
        return [*own, *((pod.metadata.namespace, name) for _, name in views.claims_of(pod))]


def _claim_facts(obj: Mapping[str, Any]) -> tuple[object, ...]:
    claim = views.claim(obj)
    return (claim.bound, claim.spec.volume_name, claim.metadata.terminating)
