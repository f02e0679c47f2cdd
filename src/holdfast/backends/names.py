"""What a provisioner name, a CSI driver name and a volume source mean to a backend.

These are the records the registry's tables are made of; each backend's `legacy`
module fills in its own. `csi_source` and `csi_handle` are the one form of
source that every backend has.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from holdfast.backends import errors, secretrefs
from holdfast.backends.protocol import Volume, VolumeHandle, VolumeRequest
from holdfast.backends.secretrefs import ClaimIdentity, SecretRef, SecretRefs

# Namespace and name of an object.
Where = tuple[str, str]


@dataclass(frozen=True, slots=True)
class Made:
    """What a PersistentVolume is written from. `provisioner` is the class's."""

    volume: Volume
    request: VolumeRequest
    provisioner: str
    secrets: SecretRefs = field(default_factory=SecretRefs)
    claim: ClaimIdentity | None = None


@dataclass(frozen=True, slots=True)
class Endpoints:
    """Endpoints that a volume's source names, and a Service that keeps them: to be made with it.

    They list the addresses in `Volume.context["hosts"]`, with the port GlusterFS's plug-in wrote.
    """

    namespace: str
    name: str
    labels: Mapping[str, str] = field(default_factory=dict)
    port: int = 1


@dataclass(frozen=True, slots=True)
class Provisioner:
    """A name a class may give.

    `implied` are parameters that follow from the name. `source` writes the PersistentVolume's
    source on the embedded API; `secrets` reads the class's references to secrets. `annotations`
    are the volume's besides the usual ones; `companions` reads from its spec which Endpoints have
    to be there with it.
    """

    name: str
    backend: str
    source: Callable[[Made], dict[str, Any]]
    implied: Mapping[str, str] = field(default_factory=dict)
    secrets: Callable[[Mapping[str, str], ClaimIdentity], SecretRefs] = secretrefs.of_class
    annotations: Callable[[Made], Mapping[str, str]] = lambda made: {}
    companions: Callable[[Mapping[str, Any]], Endpoints | None] = lambda spec: None

    def parameters(self, given: Mapping[str, str] | None) -> dict[str, str]:
        """Return what the backend is told of the class's parameters, with the implied ones.

        Raises errors.Invalid when the class contradicts what the name implies.
        """
        for key, value in self.implied.items():
            if (given or {}).get(key, value) != value:
                raise errors.Invalid(
                    f'parameter "{key}" cannot be "{(given or {})[key]}" with provisioner '
                    f"{self.name}",
                    "StorageClass parameters",
                    f"leave it out, or write {value}",
                )
        return {**secretrefs.strip(given or {}), **self.implied}


@dataclass(frozen=True, slots=True)
class Source:
    """An in-tree source of a PersistentVolume, such as `rbd` or `cinder`.

    `read` makes the handle from the volume's spec and annotations. `secret` reads the source's
    reference to a node secret, given the namespace to use when it names none. `driver` is the
    CSI driver under whose name the volume is attached, empty when it needs no attaching.
    `endpoints` reads namespace and name of the Endpoints whose addresses the node side has to be
    told as `context["hosts"]`, given the namespace to use when the source names none.
    """

    backend: str
    read: Callable[[Mapping[str, Any], Mapping[str, str] | None], VolumeHandle | None]
    secret: Callable[[Mapping[str, Any], str], SecretRef | None] = lambda source, namespace: None
    driver: str = ""
    endpoints: Callable[[Mapping[str, Any], str], Where | None] = lambda source, namespace: None


def csi_source(made: Made) -> dict[str, Any]:
    """Return the `csi` fragment that names the volume, for provisioners named like a driver."""
    source: dict[str, Any] = {"driver": made.provisioner, "volumeHandle": made.volume.id}
    context = dict(made.volume.context)
    if made.request.mode == "Filesystem" and "fsType" in context:
        source["fsType"] = context["fsType"]
    if context:
        source["volumeAttributes"] = context
    refs = made.secrets
    named = {
        "controllerPublishSecretRef": refs.attach,
        "nodeStageSecretRef": refs.stage,
        "nodePublishSecretRef": refs.publish,
        "controllerExpandSecretRef": refs.expand,
        "nodeExpandSecretRef": refs.node_expand,
    }
    for key, ref in named.items():
        if ref is not None:
            source[key] = {"name": ref.name, "namespace": ref.namespace}
    return {"csi": source}


def csi_handle(spec: Mapping[str, Any]) -> VolumeHandle:
    """Return the handle of a PersistentVolume's spec with a `csi` source."""
    source = spec["csi"]
    return VolumeHandle(
        id=str(source.get("volumeHandle", "")),
        context=dict(source.get("volumeAttributes") or {}),
        fs_type=str(source.get("fsType") or ""),
        read_only=bool(source.get("readOnly")),
        mode="Block" if spec.get("volumeMode") == "Block" else "Filesystem",
        options=tuple(spec.get("mountOptions") or ()),
    )
