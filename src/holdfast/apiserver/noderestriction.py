"""What a node may write: the admission plug-in NodeRestriction, in the words of Kubernetes.

A node writes its own Node, Lease and CSINode and the status of pods bound to it. It cannot take
its own taints away, label itself as it likes, or make pods: whoever takes over a machine must not
be able to draw the work and the secrets of others there.
"""

from __future__ import annotations

from typing import Any

from holdfast.api import errors, kinds
from holdfast.api.kinds import Kind
from holdfast.apiserver.auth import User

Object = dict[str, Any]

_MIRROR = "kubernetes.io/config.mirror"
_RESTRICTED = "node-restriction.kubernetes.io"
# Labels of Kubernetes' own domains that a node may give itself.
_LABELS = frozenset(
    {
        "kubernetes.io/hostname",
        "kubernetes.io/arch",
        "kubernetes.io/os",
        "beta.kubernetes.io/arch",
        "beta.kubernetes.io/os",
        "beta.kubernetes.io/instance-type",
        "node.kubernetes.io/instance-type",
        "failure-domain.beta.kubernetes.io/region",
        "failure-domain.beta.kubernetes.io/zone",
        "topology.kubernetes.io/region",
        "topology.kubernetes.io/zone",
    }
)
_LABEL_DOMAINS = ("kubelet.kubernetes.io", "node.kubernetes.io")
# What a node writes about a claim that it lets grow.
_CLAIM_STATUS = ("capacity", "conditions", "allocatedResources", "allocatedResourceStatuses")


def check_create(user: User | None, kind: Kind, obj: Object) -> None:
    """Raise `Forbidden` when a node creates what it must not."""
    node = user.node if user is not None else None
    if node is None:
        return
    name = obj["metadata"].get("name", "")
    if kind is kinds.POD:
        mirror = _MIRROR in (obj["metadata"].get("annotations") or {})
        raise _refused(kind, name, _NO_MIRRORS if mirror else _POD_CREATED.format(_MIRROR, node))
    if kind is kinds.NODE:
        _check_own(kind, node, name, _NODE_CHANGED.format(node, name))
        labels = _forbidden_labels(obj["metadata"].get("labels") or {}, {})
        if labels:
            why = f'node "{node}" is not allowed to set the following labels: {", ".join(labels)}'
            raise _refused(kind, name, why)
    elif kind in _OWN:
        _check_own(kind, node, name, _OWN[kind])


def check_update(
    user: User | None, kind: Kind, new: Object, old: Object, subresource: str | None
) -> None:
    """Raise `Forbidden` when a node changes what it must not."""
    node = user.node if user is not None else None
    if node is None:
        return
    name = old["metadata"]["name"]
    if kind is kinds.NODE:
        _check_node(node, name, new, old)
    elif kind is kinds.POD and subresource == "status":
        _check_pod_status(node, name, new, old)
    elif kind is kinds.CLAIM and _without_growth(new) != _without_growth(old):
        raise _refused(kind, name, _CLAIM_CHANGED.format(node))
    elif kind in _OWN:
        _check_own(kind, node, name, _OWN[kind])


def check_delete(user: User | None, kind: Kind, old: Object, *, evict: bool = False) -> None:
    """Raise `Forbidden` when a node deletes or evicts a pod that is not bound to it."""
    node = user.node if user is not None else None
    if node is None or kind is not kinds.POD or old["spec"].get("nodeName") == node:
        return
    can = f"node {node} can only evict" if evict else f'node "{node}" can only delete'
    raise _refused(kind, old["metadata"]["name"], f"{can} pods with spec.nodeName set to itself")


_POD_CREATED = 'pod does not have "{}" annotation, node "{}" can only create mirror pods'
_NO_MIRRORS = "there are no static pods here, so nodes create no mirror pods"
_NODE_CHANGED = 'node "{}" is not allowed to modify node "{}"'
_CLAIM_CHANGED = (
    'node "{}" is not allowed to update fields other than status.capacity and status.conditions'
)
_OWN = {
    kinds.LEASE: "can only access node lease with the same name as the requesting node",
    kinds.CSI_NODE: "can only access CSINode with the same name as the requesting node",
}


def _refused(kind: Kind, name: str, why: str) -> errors.Forbidden:
    return errors.Forbidden.of(kind.group, kind.plural, name, why)


def _check_own(kind: Kind, node: str, name: str, why: str) -> None:
    if name != node:
        raise _refused(kind, name, why)


def _check_node(node: str, name: str, new: Object, old: Object) -> None:
    _check_own(kinds.NODE, node, name, _NODE_CHANGED.format(node, name))
    if (new.get("spec") or {}).get("taints") != (old.get("spec") or {}).get("taints"):
        raise _refused(kinds.NODE, name, f'node "{node}" is not allowed to modify taints')
    labels = _forbidden_labels(
        new["metadata"].get("labels") or {}, old["metadata"].get("labels") or {}
    )
    if labels:
        why = f"is not allowed to modify labels: {', '.join(labels)}"
        raise _refused(kinds.NODE, name, why)


def _check_pod_status(node: str, name: str, new: Object, old: Object) -> None:
    if old["spec"].get("nodeName") != node:
        why = f'node "{node}" can only update pod status for pods with spec.nodeName set to itself'
        raise _refused(kinds.POD, name, why)
    if (new["metadata"].get("labels") or {}) != (old["metadata"].get("labels") or {}):
        why = f'node "{node}" cannot update labels through pod status'
        raise _refused(kinds.POD, name, why)


def _forbidden_labels(new: dict[str, str], old: dict[str, str]) -> list[str]:
    changed = {key for key in new.keys() | old.keys() if new.get(key) != old.get(key)}
    return sorted(key for key in changed if _is_forbidden(key))


def _is_forbidden(label: str) -> bool:
    domain = label.partition("/")[0] if "/" in label else ""
    if _is_below(domain, _RESTRICTED):
        return True
    if not (_is_below(domain, "kubernetes.io") or _is_below(domain, "k8s.io")):
        return False
    return label not in _LABELS and not any(_is_below(domain, each) for each in _LABEL_DOMAINS)


def _is_below(domain: str, parent: str) -> bool:
    return domain == parent or domain.endswith(f".{parent}")


def _without_growth(claim: Object) -> Object:
    meta = {
        key: value
        for key, value in claim["metadata"].items()
        if key not in ("resourceVersion", "managedFields")
    }
    status = {
        key: value for key, value in (claim.get("status") or {}).items() if key not in _CLAIM_STATUS
    }
    return {**claim, "metadata": meta, "status": status}
