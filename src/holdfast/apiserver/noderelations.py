"""Whether an object is a node's business: what the pods bound to the node need, and no more.

A node reaches its pods, their secrets and config maps, their claims, the volumes these are bound
to with the secrets of those volumes, and the attachments to itself. It is worked out from the
store each time, so there is nothing to keep up to date.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from holdfast.api import kinds
from holdfast.api.kinds import Kind
from holdfast.apiserver.resources import key_of
from holdfast.store.log import Store

Object = dict[str, Any]


def is_related(store: Store, node: str, kind: Kind, namespace: str, name: str) -> bool:
    """Tell whether the node may know of the object; no for one that does not exist."""
    if kind is kinds.SECRET:
        return _has_secret(store, node, namespace, name)
    if kind is kinds.VOLUME:
        return any(volume["metadata"]["name"] == name for volume in _volumes(store, node))
    record = store.get(kind.bucket, key_of(kind, name, namespace))
    if record is None:
        return False
    spec = record.obj.get("spec") or {}
    if kind in (kinds.POD, kinds.VOLUME_ATTACHMENT):
        return bool(spec.get("nodeName") == node)
    pods = _pods(store, node, namespace)
    if kind is kinds.CONFIG_MAP:
        return any(name in _named_below(pod["spec"], _CONFIG_MAPS) for pod in pods)
    if kind is kinds.CLAIM:
        return any(name in _claims(pod) for pod in pods)
    return False


# Where a pod names secrets and config maps: (field that holds the reference, member with the name).
_SECRETS = {
    "secret": ("secretName", "name"),
    "secretRef": ("name",),
    "secretKeyRef": ("name",),
    "nodePublishSecretRef": ("name",),
    "azureFile": ("secretName",),
    "imagePullSecrets": ("name",),
}
_CONFIG_MAPS = {"configMap": ("name",), "configMapRef": ("name",), "configMapKeyRef": ("name",)}


def _has_secret(store: Store, node: str, namespace: str, name: str) -> bool:
    for pod in _pods(store, node, namespace):
        if name in _named_below(pod["spec"], _SECRETS):
            return True
    return any(
        (namespace, name) in _secrets_of_volume(volume["spec"]) for volume in _volumes(store, node)
    )


def _secrets_of_volume(spec: Object) -> Iterator[tuple[str, str]]:
    claim_namespace = (spec.get("claimRef") or {}).get("namespace", "")
    azure = spec.get("azureFile") or {}
    if azure.get("secretName"):
        yield azure.get("secretNamespace") or claim_namespace, azure["secretName"]
    for source in spec.values():
        if not isinstance(source, dict):
            continue
        for field, reference in source.items():
            # What the controller's calls need is none of a node's business.
            if field.startswith("controller") or not isinstance(reference, dict):
                continue
            if field.lower().endswith("secretref") and reference.get("name"):
                yield reference.get("namespace") or claim_namespace, reference["name"]


def _pods(store: Store, node: str, namespace: str = "") -> Iterator[Object]:
    prefix = f"{namespace}/" if namespace else ""
    for record in store.scan(kinds.POD.bucket, prefix):
        if record.obj["spec"].get("nodeName") == node:
            yield record.obj


def _claims(pod: Object) -> Iterator[str]:
    for volume in pod["spec"].get("volumes") or ():
        if "persistentVolumeClaim" in volume:
            yield volume["persistentVolumeClaim"]["claimName"]
        elif "ephemeral" in volume:
            yield f"{pod['metadata']['name']}-{volume['name']}"


def _volumes(store: Store, node: str) -> Iterator[Object]:
    """The volumes that claims of the node's pods are bound to, each with its claim's consent."""
    for pod in _pods(store, node):
        namespace = pod["metadata"]["namespace"]
        for claim_name in _claims(pod):
            claim = store.get(kinds.CLAIM.bucket, f"{namespace}/{claim_name}")
            volume_name = claim.obj["spec"].get("volumeName") if claim else None
            volume = store.get(kinds.VOLUME.bucket, volume_name) if volume_name else None
            if volume is None:
                continue
            reference = volume.obj["spec"].get("claimRef") or {}
            if (reference.get("namespace"), reference.get("name")) == (namespace, claim_name):
                yield volume.obj


def _named_below(value: Any, fields: Mapping[str, tuple[str, ...]]) -> Iterator[str]:
    """The names that references below a value hold, wherever they stand."""
    if isinstance(value, list):
        for item in value:
            yield from _named_below(item, fields)
    elif isinstance(value, dict):
        for key, item in value.items():
            for member in fields.get(key, ()):
                for reference in item if isinstance(item, list) else (item,):
                    if isinstance(reference, dict) and reference.get(member):
                        yield reference[member]
            yield from _named_below(item, fields)
