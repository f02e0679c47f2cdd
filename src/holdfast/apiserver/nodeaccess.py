"""What a node may do, decided by which node it is and which object it asks for.

These are the rules of Kubernetes' node authorizer, with its words for what it refuses. They look
at the request only; what a node writes into an object is looked at by `noderestriction`.
"""

from __future__ import annotations

from collections.abc import Callable

from holdfast.api import kinds
from holdfast.api.kinds import Kind
from holdfast.apiserver import noderelations, permissions
from holdfast.apiserver.attributes import Attributes
from holdfast.store.log import Store

LEASES = "kube-node-lease"
_OWN = ("get", "create", "update", "patch", "delete")
_WRITING = ("create", "update", "patch")

Decision = tuple[bool, str]
"""Whether it is allowed, and why not where there is something to say."""


def decide(store: Store, node: str, wanted: Attributes) -> Decision:
    """Tell whether the node may do something, besides what its groups allow."""
    if not node:
        return False, ""
    rule = _BY_RESOURCE.get((wanted.group, wanted.resource))
    if rule is not None:
        return rule(store, node, wanted)
    return any(rule.allows(wanted) for rule in permissions.NODE), ""


def _related(store: Store, node: str, kind: Kind, wanted: Attributes) -> Decision:
    if not wanted.name:
        return False, "No Object name found"
    if noderelations.is_related(store, node, kind, wanted.namespace, wanted.name):
        return True, ""
    return False, f"no relationship found between node '{node}' and this object"


def _reads(kind: Kind) -> Callable[[Store, str, Attributes], Decision]:
    """Reading single objects in a namespace: secrets and config maps."""

    def rule(store: Store, node: str, wanted: Attributes) -> Decision:
        if wanted.verb not in permissions.READING:
            return False, "can only read resources of this type"
        if wanted.subresource:
            return False, "cannot read subresource"
        if not wanted.namespace:
            return False, "can only read namespaced object of this type"
        return _related(store, node, kind, wanted)

    return rule


def _gets(kind: Kind) -> Callable[[Store, str, Attributes], Decision]:
    """Getting objects, neither listing nor watching them."""

    def rule(store: Store, node: str, wanted: Attributes) -> Decision:
        if kind is kinds.CLAIM and wanted.subresource == "status":
            if wanted.verb not in ("update", "patch"):
                return False, "can only get/update/patch this type"
            return _related(store, node, kind, wanted)
        if wanted.verb != "get":
            return False, "can only get individual resources of this type"
        if wanted.subresource:
            return False, "cannot get subresource"
        return _related(store, node, kind, wanted)

    return rule


def _lease(store: Store, node: str, wanted: Attributes) -> Decision:
    if wanted.verb not in _OWN:
        return False, "can only get, create, update, patch, or delete a node lease"
    if wanted.namespace != LEASES:
        return False, f'can only access leases in the "{LEASES}" system namespace'
    if wanted.verb != "create" and wanted.name != node:
        return False, "can only access node lease with the same name as the requesting node"
    return True, ""


def _csi_node(store: Store, node: str, wanted: Attributes) -> Decision:
    if wanted.verb not in _OWN:
        return False, "can only get, create, update, patch, or delete a CSINode"
    if wanted.subresource:
        return False, "cannot authorize CSINode subresources"
    if wanted.verb != "create" and wanted.name != node:
        return False, "can only access CSINode with the same name as the requesting node"
    return True, ""


def _node(store: Store, node: str, wanted: Attributes) -> Decision:
    if wanted.subresource == "status":
        return wanted.verb in ("update", "patch"), ""
    if wanted.subresource:
        return False, ""
    if wanted.verb in permissions.READING and wanted.name != node:
        which = f"'{wanted.name}'" if wanted.name else "all nodes"
        return False, f"node '{node}' cannot read {which}, only its own Node object"
    return wanted.verb in (*permissions.READING, *_WRITING), ""


def _pod(store: Store, node: str, wanted: Attributes) -> Decision:
    if wanted.subresource == "status":
        return wanted.verb in ("update", "patch"), ""
    if wanted.subresource == "eviction":
        return wanted.verb == "create", ""
    if wanted.subresource:
        return False, ""
    if wanted.verb in ("list", "watch"):
        if ("spec.nodeName", node) in wanted.fields:
            return True, ""
        if not wanted.name:
            return False, "can only list/watch pods with spec.nodeName field selector"
    if wanted.verb in permissions.READING:
        return _related(store, node, kinds.POD, wanted)
    return wanted.verb in ("create", "delete"), ""


_BY_RESOURCE: dict[tuple[str, str], Callable[[Store, str, Attributes], Decision]] = {
    ("", "secrets"): _reads(kinds.SECRET),
    ("", "configmaps"): _reads(kinds.CONFIG_MAP),
    ("", "persistentvolumeclaims"): _gets(kinds.CLAIM),
    ("", "persistentvolumes"): _gets(kinds.VOLUME),
    ("storage.k8s.io", "volumeattachments"): _gets(kinds.VOLUME_ATTACHMENT),
    ("coordination.k8s.io", "leases"): _lease,
    ("storage.k8s.io", "csinodes"): _csi_node,
    ("", "nodes"): _node,
    ("", "pods"): _pod,
}
