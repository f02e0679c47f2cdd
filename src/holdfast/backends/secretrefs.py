"""Where the secrets of a volume are: references, read from a class's parameters.

A class names its secrets in one of two ways. CSI's sidecars read the keys
`csi.storage.k8s.io/<use>-secret-name` and `-namespace`, whose values may hold
placeholders; the old in-tree plug-ins each had keys of their own, which the
backend's `legacy` module reads. Both give a `SecretRefs`.

Invariant: a reference is a name, never a value. Values are read by the
controllers when they are needed and are not kept.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

from holdfast.backends import errors

PREFIX = "csi.storage.k8s.io/"
FS_TYPE = PREFIX + "fstype"
_PLACEHOLDER = re.compile(r"\$\{([^}]*)\}")
_ANNOTATION = re.compile(r"pvc\.annotations\['([^']+)'\]")


@dataclass(frozen=True, slots=True)
class SecretRef:
    """A Secret's place; `type` is the type it must have, empty for any."""

    namespace: str
    name: str
    type: str = ""

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}"


@dataclass(frozen=True, slots=True)
class SecretRefs:
    """The secrets of one volume by who needs them; None where none is named.

    `provision` makes, deletes and finds volumes. `stage` and `publish` are the node's.
    """

    provision: SecretRef | None = None
    attach: SecretRef | None = None
    stage: SecretRef | None = None
    publish: SecretRef | None = None
    expand: SecretRef | None = None
    node_expand: SecretRef | None = None


# Reads a Secret of the Kubernetes API, decoded. Raises errors.NotFound, Unauthorized, Unavailable.
SecretSource = Callable[[SecretRef], Awaitable[Mapping[str, str]]]


@runtime_checkable
class SecretUser(Protocol):
    """A backend or node side whose configuration may name a Secret of the Kubernetes API."""

    def use_secrets(self, read: SecretSource) -> None:
        """Read Secrets by `read`, on the event loop, each time one is needed."""
        ...


@dataclass(frozen=True, slots=True)
class ClaimIdentity:
    """What placeholders may refer to: the claim, and the name of its volume."""

    namespace: str
    name: str
    volume: str
    annotations: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class SnapshotIdentity:
    """What placeholders of a VolumeSnapshotClass may refer to: the snapshot and its content."""

    namespace: str
    name: str
    content: str


@dataclass(frozen=True, slots=True)
class _Placeholders:
    """The values of placeholders: in namespaces and names, and in names alone.

    A user who may write a namespace could reach anybody's secrets, so what users choose freely
    counts in names only. `where` says in errors whose parameters they are.
    """

    where: str
    anywhere: Mapping[str, str]
    in_names: Mapping[str, str]
    annotations: Mapping[str, str] = field(default_factory=dict)


def of_class(parameters: Mapping[str, str], claim: ClaimIdentity) -> SecretRefs:
    """Read the `csi.storage.k8s.io/...-secret-...` keys; raises errors.Invalid.

    The keys and placeholders are those of external-provisioner. A class may give
    name and namespace of a secret or neither.
    """
    values = _Placeholders(
        "StorageClass parameters",
        {"pv.name": claim.volume, "pvc.namespace": claim.namespace},
        {"pvc.name": claim.name},
        claim.annotations,
    )
    return SecretRefs(
        provision=_read(parameters, "provisioner", values),
        attach=_read(parameters, "controller-publish", values),
        stage=_read(parameters, "node-stage", values),
        publish=_read(parameters, "node-publish", values),
        expand=_read(parameters, "controller-expand", values),
        node_expand=_read(parameters, "node-expand", values),
    )


def of_snapshot_class(
    parameters: Mapping[str, str], snapshot: SnapshotIdentity
) -> SecretRef | None:
    """Read the snapshotter's secret from a VolumeSnapshotClass; raises errors.Invalid.

    The placeholders are those of external-snapshotter.
    """
    values = _Placeholders(
        "VolumeSnapshotClass parameters",
        {
            "volumesnapshotcontent.name": snapshot.content,
            "volumesnapshot.namespace": snapshot.namespace,
        },
        {"volumesnapshot.name": snapshot.name},
    )
    return _read(parameters, "snapshotter", values)


def strip(parameters: Mapping[str, str]) -> dict[str, str]:
    """Return the parameters that are the backend's, the file system's type as `fsType`.

    Raises errors.Invalid for a key with CSI's prefix that means nothing.
    """
    kept: dict[str, str] = {}
    for key, value in parameters.items():
        if key == FS_TYPE:
            kept["fsType"] = value
        elif not key.startswith(PREFIX):
            kept[key] = value
        elif not re.fullmatch(r"[a-z-]+-secret-(name|namespace)", key.removeprefix(PREFIX)):
            raise errors.Invalid(
                f'unknown parameter "{key}"',
                "StorageClass parameters",
                f"reserved for {PREFIX}fstype and {PREFIX}<use>-secret-name/-namespace",
            )
    return kept


def _read(parameters: Mapping[str, str], use: str, values: _Placeholders) -> SecretRef | None:
    name_key, namespace_key = (f"{PREFIX}{use}-secret-{part}" for part in ("name", "namespace"))
    name, namespace = parameters.get(name_key, ""), parameters.get(namespace_key, "")
    if not name and not namespace:
        return None
    if not name or not namespace:
        given, missing = (name_key, namespace_key) if name else (namespace_key, name_key)
        raise errors.Invalid(
            f'"{given}" is given without "{missing}"', values.where, "give both, or neither"
        )
    return SecretRef(_fill(namespace, namespace_key, values), _fill(name, name_key, values))


def _fill(template: str, key: str, values: _Placeholders) -> str:
    is_name = key.endswith("-name")
    known = {**values.anywhere, **values.in_names} if is_name else values.anywhere

    def value(match: re.Match[str]) -> str:
        token = match[1]
        annotation = _ANNOTATION.fullmatch(token)
        if annotation and is_name and "pvc.name" in known:
            return values.annotations.get(annotation[1], "")
        if token not in known:
            raise errors.Invalid(
                f'parameter "{key}" has the unknown placeholder "${{{token}}}"',
                values.where,
                f"known there: {', '.join('${' + name + '}' for name in known)}",
            )
        return known[token]

    filled = _PLACEHOLDER.sub(value, template)
    if not filled:
        raise errors.Invalid(f'parameter "{key}" is empty for this claim', values.where, "")
    return filled
