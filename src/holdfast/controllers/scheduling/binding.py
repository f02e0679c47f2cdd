"""Volumes for a pod's claims: what is bound, what may wait, what to take on a node.

A claim of a class with WaitForFirstConsumer gets its volume only when a pod needs
it, so that the volume can be chosen or made where the pod will run. For one pod
and one node ``plan`` finds for each such claim an existing volume (the smallest
that fits) or leaves it to the claim's provisioner. ``carry_out`` writes the plan:
the volume's claimRef, or the claim's selected-node annotation. The binder and the
provisioner do the rest, and the pod is placed once every claim is bound.

The plan is not remembered: what was written is found again in the objects, so a
restart in the middle continues with the same node.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from holdfast.api import kinds, quantity, selectors, views
from holdfast.controllers.scheduling import affinity, capacity
from holdfast.runtime.client import Client
from holdfast.runtime.informer import Informers

NO_PROVISIONER = "kubernetes.io/no-provisioner"

NOTHING_TO_BIND = "node(s) didn't find available persistent volumes to bind"
AFFINITY_CONFLICT = "node(s) had volume node affinity conflict"
VOLUME_GONE = "node(s) unavailable due to one or more pvc(s) bound to non-existent pv(s)"
UNBOUND_IMMEDIATE = "pod has unbound immediate PersistentVolumeClaims"

FREE = "scheduling/free-by-class"
RESERVED = "scheduling/reserved-for"


class ClaimsUnready(Exception):
    """No node can take the pod because of its claims; the text is Kubernetes' reason."""


@dataclass(frozen=True, slots=True)
class Demand:
    """What a pod's claims need: volumes it must reach, and claims still to be bound."""

    bound: tuple[views.Volume | None, ...]
    delayed: tuple[tuple[views.Claim, views.StorageClass], ...]
    exclusive: tuple[views.Claim, ...]


@dataclass(frozen=True, slots=True)
class Plan:
    """For one node: claims that take an existing volume, and claims to provision there."""

    node: str
    takes: tuple[tuple[views.Claim, views.Volume], ...] = ()
    makes: tuple[views.Claim, ...] = ()


class VolumeBinder:
    """Reads claims, volumes and classes from the informers; writes through the client."""

    def __init__(self, client: Client, informers: Informers) -> None:
        self._client = client
        self._claims = informers.of(kinds.CLAIM)
        self._volumes = informers.of(kinds.VOLUME)
        self._classes = informers.of(kinds.STORAGE_CLASS)
        self._room = capacity.FreeStorage(informers)
        self._volumes.add_index(FREE, _free_class)
        self._volumes.add_index(RESERVED, _reserved_for)

    def demand(self, pod: views.Pod) -> Demand:
        """Sort the pod's claims by what they need; raise ClaimsUnready when none can help."""
        bound: list[views.Volume | None] = []
        delayed: list[tuple[views.Claim, views.StorageClass]] = []
        exclusive: list[views.Claim] = []
        immediate = False
        for claim in self._claims_of(pod):
            if "ReadWriteOncePod" in claim.spec.access_modes:
                exclusive.append(claim)
            if claim.bound:
                obj = self._volumes.get(claim.spec.volume_name)
                bound.append(views.volume(obj) if obj is not None else None)
                continue
            storage_class = self._class_of(claim)
            # A claim that names its volume is bound as it stands, whatever its class says.
            if storage_class and storage_class.delays_binding and not claim.spec.volume_name:
                delayed.append((claim, storage_class))
            else:
                immediate = True
        if immediate:
            raise ClaimsUnready(UNBOUND_IMMEDIATE)
        return Demand(tuple(bound), tuple(delayed), tuple(exclusive))

    def plan(self, demand: Demand, node: views.Node) -> Plan | str:
        """Say what the demand needs on the node, or why the node cannot serve it."""
        for volume in demand.bound:
            if volume is None:
                return VOLUME_GONE
            if not affinity.volume_admits(volume, node):
                return AFFINITY_CONFLICT
        takes: list[tuple[views.Claim, views.Volume]] = []
        makes: list[views.Claim] = []
        short = False
        # Small claims choose first, so that they do not sit on volumes large ones need.
        for claim, storage_class in sorted(demand.delayed, key=lambda pair: _request(pair[0])):
            chosen = claim.metadata.annotations.get(views.SELECTED_NODE)
            if chosen not in (None, node.metadata.name):
                return NOTHING_TO_BIND
            taken = {volume.metadata.name for _, volume in takes}
            volume = self._match(claim, node, taken) if chosen is None else None
            if volume is not None:
                takes.append((claim, volume))
            elif not _provisions(storage_class, node):
                return NOTHING_TO_BIND
            # Where the volume is on its way already, what is left says nothing about it.
            elif chosen is None and not self._room.suffices(claim, storage_class, node):
                short = True
            else:
                makes.append(claim)
        if short:
            return capacity.NOT_ENOUGH
        return Plan(node.metadata.name, tuple(takes), tuple(makes))

    async def carry_out(self, plan: Plan) -> int:
        """Write what the plan says and is not written yet; return how many writes it took."""
        writes = 0
        for claim, volume in plan.takes:
            reference = volume.spec.claim_ref
            if reference is None or reference.uid != claim.metadata.uid:
                patch = _take(claim, volume)
                name = volume.metadata.name
                self._volumes.observe(await self._client.patch(kinds.VOLUME, name, patch))
                writes += 1
        for claim in plan.makes:
            if claim.metadata.annotations.get(views.SELECTED_NODE) != plan.node:
                patch = _select(claim, plan.node)
                name, namespace = claim.metadata.name, claim.metadata.namespace
                written = await self._client.patch(kinds.CLAIM, name, patch, namespace)
                self._claims.observe(written)
                writes += 1
        return writes

    def _claims_of(self, pod: views.Pod) -> Iterator[views.Claim]:
        for entry, name in views.claims_of(pod):
            obj = self._claims.get(name, pod.metadata.namespace)
            if obj is None:
                if entry.ephemeral is not None:
                    raise ClaimsUnready(
                        "waiting for ephemeral volume controller to create the "
                        f'persistentvolumeclaim "{name}"'
                    )
                raise ClaimsUnready(f'persistentvolumeclaim "{name}" not found')
            claim = views.claim(obj)
            if claim.status.phase == "Lost":
                raise ClaimsUnready(
                    f'persistentvolumeclaim "{name}" bound to non-existent persistentvolume '
                    f'"{claim.spec.volume_name}"'
                )
            if claim.metadata.terminating:
                raise ClaimsUnready(f'persistentvolumeclaim "{name}" is being deleted')
            if entry.ephemeral is not None and not views.owned_by(claim.metadata, pod.metadata.uid):
                raise ClaimsUnready(
                    f"PVC {claim.metadata.namespace}/{name} was not created for pod "
                    f"{pod.metadata.namespace}/{pod.metadata.name} (pod is not owner)"
                )
            yield claim

    def _class_of(self, claim: views.Claim) -> views.StorageClass | None:
        name = views.class_of(claim)
        obj = self._classes.get(name) if name else None
        return views.storage_class(obj) if obj is not None else None

    def _match(self, claim: views.Claim, node: views.Node, taken: set[str]) -> views.Volume | None:
        """Find the volume reserved for the claim, or the smallest free one that fits."""
        for obj in self._volumes.by(RESERVED, claim.metadata.key):
            volume = views.volume(obj)
            if views.is_for(volume.spec.claim_ref, claim) and _fits(claim, volume):
                return volume if affinity.volume_admits(volume, node) else None
        selector = claim.spec.selector
        labels = selectors.LabelSelector.of(selector) if selector is not None else None
        best: views.Volume | None = None
        for obj in self._volumes.by(FREE, views.class_of(claim)):
            volume = views.volume(obj)
            if volume.metadata.name in taken or not _fits(claim, volume):
                continue
            if labels is not None and not labels.matches(volume.metadata.labels):
                continue
            if affinity.volume_admits(volume, node) and (best is None or _order(volume, best)):
                best = volume
        return best


def _free_class(obj: dict[str, Any]) -> Iterable[Hashable]:
    volume = views.volume(obj)
    free = volume.spec.claim_ref is None and volume.status.phase == "Available"
    return (views.class_of(volume),) if free and not volume.metadata.terminating else ()


def _reserved_for(obj: dict[str, Any]) -> Iterable[Hashable]:
    reference = obj.get("spec", {}).get("claimRef")
    return ((reference.get("namespace", ""), reference.get("name", "")),) if reference else ()


def _request(claim: views.Claim) -> quantity.Quantity:
    return quantity.parse(claim.spec.request or "0")


def _order(volume: views.Volume, other: views.Volume) -> bool:
    """Whether the volume is smaller than the other; names make equal sizes repeatable."""
    size, its = quantity.parse(volume.spec.size or "0"), quantity.parse(other.spec.size or "0")
    return size < its or (size == its and volume.metadata.name < other.metadata.name)


def _fits(claim: views.Claim, volume: views.Volume) -> bool:
    return (
        not volume.metadata.terminating
        and volume.spec.volume_mode == claim.spec.volume_mode
        and set(claim.spec.access_modes) <= set(volume.spec.access_modes)
        and quantity.parse(volume.spec.size or "0") >= _request(claim)
    )


def _provisions(storage_class: views.StorageClass, node: views.Node) -> bool:
    if storage_class.provisioner in ("", NO_PROVISIONER):
        return False
    return affinity.topology_admits(storage_class.allowed_topologies, node.metadata.labels)


def _take(claim: views.Claim, volume: views.Volume) -> dict[str, Any]:
    """Build the patch that gives the volume to the claim, if nobody changed it meanwhile."""
    metadata: dict[str, Any] = {"resourceVersion": volume.metadata.resource_version}
    if volume.spec.claim_ref is None:
        metadata["annotations"] = {views.BOUND_BY_CONTROLLER: "yes"}
    reference: Mapping[str, str] = {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "namespace": claim.metadata.namespace,
        "name": claim.metadata.name,
        "uid": claim.metadata.uid,
        "resourceVersion": claim.metadata.resource_version,
    }
    return {"metadata": metadata, "spec": {"claimRef": reference}}


def _select(claim: views.Claim, node: str) -> dict[str, Any]:
    # The revision is given so that a claim bound or deleted meanwhile is looked at again.
    return {
        "metadata": {
            "resourceVersion": claim.metadata.resource_version,
            "annotations": {views.SELECTED_NODE: node},
        }
    }
