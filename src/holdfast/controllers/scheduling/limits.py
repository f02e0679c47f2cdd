"""How many volumes of a driver a node can take: Kubernetes' NodeVolumeLimits.

A node's limit stands in its CSINode. Volumes count once, however many pods use them: those of the
pods on the node, and those still attached to it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from holdfast.api import kinds, views
from holdfast.controllers import attachments, inlines, podclaims, provisioners
from holdfast.runtime.informer import Informers

TOO_MANY = "node(s) exceed max volume count"
_ATTACHED_TO = "scheduling/attachments-on-node"

Object = Mapping[str, Any]
# A driver and a volume of it: its handle, or the claim it is still to be made for.
Use = tuple[str, str]


class VolumeLimits:
    """Reads CSINodes, attachments and claims from the informers."""

    def __init__(self, informers: Informers) -> None:
        self._csi_nodes = informers.of(kinds.CSI_NODE)
        self._claims = informers.of(kinds.CLAIM)
        self._volumes = informers.of(kinds.VOLUME)
        self._classes = informers.of(kinds.STORAGE_CLASS)
        self._attachments = informers.of(kinds.VOLUME_ATTACHMENT)
        self._attachments.add_index(_ATTACHED_TO, _node_of)

    def refusal(
        self, pod: Object, node: str, pods_there: Callable[[], Iterable[Object]]
    ) -> str | None:
        """Return why the node cannot take the pod's volumes, or None.

        `pods_there` is asked only when the node has a limit.
        """
        limits = self._limits(node)
        if not limits:
            return None
        wanted = {use for use in self._uses(pod) if use[0] in limits}
        if not wanted:
            return None
        there = {use for other in pods_there() for use in self._uses(other)}
        there |= set(self._attached(node))
        for driver, limit in limits.items():
            new = {use for use in wanted - there if use[0] == driver}
            if new and sum(use[0] == driver for use in there) + len(new) > limit:
                return TOO_MANY
        return None

    def _limits(self, node: str) -> dict[str, int]:
        found = self._csi_nodes.get(node)
        entries = ((found or {}).get("spec") or {}).get("drivers") or ()
        counts = (
            (entry["name"], (entry.get("allocatable") or {}).get("count")) for entry in entries
        )
        return {name: count for name, count in counts if count is not None}

    def _uses(self, pod: Object) -> Iterable[Use]:
        for own in inlines.of_pod(pod):
            if use := attachments.identity(own):
                yield use
        for namespace, name in podclaims.claims_of(dict(pod)):
            claim = self._claims.get(name, namespace)
            if claim is None:
                continue
            volume = self._volumes.get(claim["spec"].get("volumeName") or "")
            if volume is not None:
                if use := attachments.identity(volume):
                    yield use
                continue
            found = self._classes.get(views.class_of(views.claim(claim)))
            if found is not None:
                maker = found["provisioner"]
                yield provisioners.MIGRATED.get(maker, maker), f"{namespace}/{name}"

    def _attached(self, node: str) -> Iterable[Use]:
        for attachment in self._attachments.by(_ATTACHED_TO, node):
            name = (attachment["spec"].get("source") or {}).get("persistentVolumeName", "")
            volume = inlines.of_attachment(attachment) or self._volumes.get(name)
            if volume is not None and (use := attachments.identity(volume)):
                yield use


def _node_of(attachment: Object) -> tuple[str, ...]:
    return (attachment["spec"].get("nodeName", ""),)
