"""Who needs which volume on which node: read from pods, claims, volumes and nodes."""

from __future__ import annotations

from collections.abc import Collection, Iterator

from holdfast.api import kinds, views
from holdfast.backends import registry
from holdfast.controllers import attachments, inlines, podclaims
from holdfast.runtime.client import Object
from holdfast.runtime.informer import Informers

MANAGED = "volumes.kubernetes.io/controller-managed-attach-detach"
_SHARED = frozenset({"ReadWriteMany", "ReadOnlyMany"})


class Wanted:
    """Answers from the caches."""

    def __init__(self, informers: Informers) -> None:
        self._pods = informers.of(kinds.POD)
        self._claims = informers.of(kinds.CLAIM)
        self._volumes = informers.of(kinds.VOLUME)
        self._nodes = informers.of(kinds.NODE)
        self._drivers = informers.of(kinds.CSI_DRIVER)
        podclaims.index(self._pods)
        inlines.index(self._pods)

    def attachable(self, volume: Object) -> bool:
        """Whether the volume has to be attached before a node can use it."""
        driver = registry.driver_of(volume["spec"])
        return bool(driver) and attachments.required(self._drivers.get(driver))

    def volume(self, name: str) -> Object | None:
        """Return a volume by its name, or one that pods name themselves by its key."""
        found = self._volumes.get(name)
        if found is not None:
            return found
        own = (each for pod in inlines.using(self._pods, name) for each in inlines.of_pod(pod))
        return next((each for each in own if inlines.key_of(each) == name), None)

    def volumes_of(self, pod: Object) -> Iterator[str]:
        """Name the volumes behind the pod's claims, and the keys of its own."""
        yield from inlines.keys(pod)
        for namespace, name in podclaims.claims_of(pod):
            claim = self._claims.get(name, namespace)
            if claim is not None and claim["spec"].get("volumeName"):
                yield claim["spec"]["volumeName"]

    def pods_by_node(self, volume: Object) -> dict[str, list[Object]]:
        """Return the pods that want the volume, by node, the oldest pod's node first."""
        if inlines.is_inline(volume):
            return self._by_node(inlines.using(self._pods, inlines.key_of(volume)))
        reference = volume["spec"].get("claimRef") or {}
        claim = self._claims.get(reference.get("name", ""), reference.get("namespace", ""))
        if claim is None or claim["metadata"]["uid"] != reference.get("uid"):
            return {}
        if claim["spec"].get("volumeName") != volume["metadata"]["name"]:
            return {}
        return self._by_node(podclaims.using(self._pods, reference["namespace"], reference["name"]))

    def _by_node(self, pods: Collection[Object]) -> dict[str, list[Object]]:
        found: dict[str, list[Object]] = {}
        for pod in sorted(pods, key=_age):
            node = pod["spec"].get("nodeName")
            if node and not _finished(pod) and self._managed(node):
                found.setdefault(node, []).append(pod)
        return found

    def _managed(self, node: str) -> bool:
        obj = self._nodes.get(node)
        return obj is not None and (obj["metadata"].get("annotations") or {}).get(MANAGED) == "true"


def shared(volume: Object) -> bool:
    """Whether several nodes may have the volume at once."""
    return bool(_SHARED & set(volume["spec"].get("accessModes") or ()))


def _finished(pod: Object) -> bool:
    return (pod.get("status") or {}).get("phase") in views.FINISHED


def _age(pod: Object) -> tuple[str, str]:
    return pod["metadata"]["creationTimestamp"], pod["metadata"]["name"]
