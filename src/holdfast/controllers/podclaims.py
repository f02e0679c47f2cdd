"""Which claims a pod mentions, and which pods mention a claim: one index for all controllers."""

from __future__ import annotations

from collections.abc import Collection, Iterator

from holdfast.api import views
from holdfast.runtime.client import Object
from holdfast.runtime.informer import Informer

_INDEX = "pods-by-claim"


def claims_of(pod: Object) -> Iterator[tuple[str, str]]:
    """(namespace, name) of every claim in the pod's volumes, ephemeral ones included."""
    meta = pod["metadata"]
    for volume in pod["spec"].get("volumes") or ():
        if "persistentVolumeClaim" in volume:
            yield meta["namespace"], volume["persistentVolumeClaim"]["claimName"]
        elif "ephemeral" in volume:
            yield meta["namespace"], f"{meta['name']}-{volume['name']}"


def named_by(pod: Object) -> Iterator[tuple[str, str]]:
    """(namespace, name) of every claim the pod names, without those made for it."""
    for volume in pod["spec"].get("volumes") or ():
        if "persistentVolumeClaim" in volume:
            yield pod["metadata"]["namespace"], volume["persistentVolumeClaim"]["claimName"]


def index(pods: Informer) -> None:
    """Have the informer of pods keep the index; to be called before it runs."""
    pods.add_index(_INDEX, claims_of)


def using(pods: Informer, namespace: str, name: str) -> Collection[Object]:
    """The pods that mention the claim, as objects; copy before awaiting."""
    return pods.by(_INDEX, (namespace, name))


def users(pods: Informer, namespace: str, name: str) -> list[views.Pod]:
    """The pods that mention the claim, whatever their phase."""
    return [views.pod(pod) for pod in pods.by(_INDEX, (namespace, name))]
