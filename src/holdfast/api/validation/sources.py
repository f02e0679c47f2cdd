"""Rules for where a volume's data is: the `nfs:`, `csi:`, `hostPath:` ... parts.

`VOLUME_SOURCES` is in Kubernetes' order, which decides which of two sources is
reported as the superfluous one. Most sources only have fields that must be
filled; those stand in `_REQUIRED`, and the few with more rules have a function.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Final

from holdfast.api import fields
from holdfast.api.fields import Cause
from holdfast.api.validation import legacy_sources, names
from holdfast.api.validation.rules import Object, each

Rule = Callable[[Object, str], list[Cause]]
"""Checks one source; the second argument is the source's path."""

VOLUME_SOURCES: Final = (
    "hostPath",
    "gcePersistentDisk",
    "awsElasticBlockStore",
    "glusterfs",
    "flocker",
    "nfs",
    "rbd",
    "quobyte",
    "cephfs",
    "iscsi",
    "cinder",
    "fc",
    "flexVolume",
    "azureFile",
    "vsphereVolume",
    "photonPersistentDisk",
    "portworxVolume",
    "azureDisk",
    "scaleIO",
    "local",
    "storageos",
    "csi",
)

_REQUIRED: Final[Mapping[str, tuple[str, ...]]] = MappingProxyType(
    {
        "azureFile": ("secretName", "shareName"),
        "cephfs": ("monitors",),
        "glusterfs": ("endpoints", "path"),
        "photonPersistentDisk": ("pdID",),
        "portworxVolume": ("volumeID",),
        "rbd": ("monitors", "image"),
        "scaleIO": ("gateway", "system", "volumeName"),
        "vsphereVolume": ("volumePath",),
    }
)
_HOST_PATH_TYPES: Final = (
    "",
    "BlockDevice",
    "CharDevice",
    "Directory",
    "DirectoryOrCreate",
    "File",
    "FileOrCreate",
    "Socket",
)
# Kubernetes does not look at nodeStageSecretRef.
_CSI_SECRETS: Final = (
    "controllerPublishSecretRef",
    "controllerExpandSecretRef",
    "nodePublishSecretRef",
    "nodeExpandSecretRef",
)
# The one source that messages call by another name than its field.
CALLED: Final = {"gcePersistentDisk": "persistentDisk"}
_TOO_MUCH: Final = {"cephfs": "cephFS"}


def of_volume(spec: Object, volume: str = "", path: str = "spec") -> list[Cause]:
    """Check that the spec of the named volume has exactly one source, and that source."""
    given = [name for name in spec if name in _KNOWN]
    if len(given) > 1:
        given.sort(key=VOLUME_SOURCES.index)
    if not given:
        return [fields.required(path, "must specify a volume type")]
    first, *others = given
    at = f"{path}.{CALLED.get(first, first)}"
    said = one(first, spec[first], at)
    if first in legacy_sources.OF_VOLUMES:
        said += legacy_sources.OF_VOLUMES[first](spec[first], at, volume)
    if first == "local" and "nodeAffinity" not in spec:
        rule = "Local volume requires node affinity"
        said.append(fields.required(f"{path}.nodeAffinity", rule))
    rule = "may not specify more than 1 volume type"
    said += [fields.forbidden(f"{path}.{_TOO_MUCH.get(name, name)}", rule) for name in others]
    return said


def one(name: str, source: Object, path: str) -> list[Cause]:
    """Check one source by its name; also used for the volumes of pods."""
    said = [fields.required(f"{path}.{f}") for f in _REQUIRED.get(name, ()) if not source.get(f)]
    rule = _RULES.get(name)
    if rule is not None:
        said += rule(source, path)
    return said


def csi_driver_name(name: str, path: str) -> list[Cause]:
    """Check a driver's name: a subdomain, capitals allowed, 63 characters."""
    said = [] if name else [fields.required(path)]
    if len(name) > 63:
        said.append(fields.too_long(path, 63))
    return said + each(path, name, names.subdomain(name.lower()))


def _no_steps_back(source: Object, path: str) -> list[Cause]:
    place = source.get("path", "")
    if not place:
        return [fields.required(f"{path}.path")]
    if ".." in place.split("/"):
        return [fields.invalid(f"{path}.path", place, "must not contain '..'")]
    return []


def _host_path(source: Object, path: str) -> list[Cause]:
    said = _no_steps_back(source, path)
    kind = source.get("type", "")
    if kind not in _HOST_PATH_TYPES:
        said.append(fields.not_supported(f"{path}.type", kind, _HOST_PATH_TYPES))
    return said


def _nfs(source: Object, path: str) -> list[Cause]:
    said: list[Cause] = []
    if not source.get("server"):
        said.append(fields.required(f"{path}.server"))
    place = source.get("path", "")
    if not place:
        said.append(fields.required(f"{path}.path"))
    if not place.startswith("/"):
        said.append(fields.invalid(f"{path}.path", place, "must be an absolute path"))
    return said


def _csi(source: Object, path: str) -> list[Cause]:
    said = csi_driver_name(source.get("driver", ""), f"{path}.driver")
    if not source.get("volumeHandle"):
        said.append(fields.required(f"{path}.volumeHandle"))
    for name in _CSI_SECRETS:
        if name in source:
            said += _secret(source[name], f"{path}.{name}")
    return said


def _secret(reference: Object, path: str) -> list[Cause]:
    said: list[Cause] = []
    for part, check in (("name", names.subdomain), ("namespace", names.label)):
        value = reference.get(part)
        if value:
            said += each(f"{path}.{part}", value, check(value))
        else:
            said.append(fields.required(f"{path}.{part}"))
    return said


_KNOWN: Final = frozenset(VOLUME_SOURCES)
_RULES: Final[Mapping[str, Rule]] = MappingProxyType(
    {
        **legacy_sources.RULES,
        "csi": _csi,
        "hostPath": _host_path,
        "local": _no_steps_back,
        "nfs": _nfs,
    }
)
