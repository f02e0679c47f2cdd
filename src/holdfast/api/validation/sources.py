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
from holdfast.api.validation import names
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
        "awsElasticBlockStore": ("volumeID",),
        "azureDisk": ("diskName", "diskURI"),
        "azureFile": ("secretName", "shareName"),
        "cephfs": ("monitors",),
        "cinder": ("volumeID",),
        "flexVolume": ("driver",),
        "gcePersistentDisk": ("pdName",),
        "glusterfs": ("endpoints", "path"),
        "iscsi": ("targetPortal", "iqn"),
        "photonPersistentDisk": ("pdID",),
        "portworxVolume": ("volumeID",),
        "quobyte": ("registry", "volume"),
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
_CSI_SECRETS: Final = (
    "controllerPublishSecretRef",
    "controllerExpandSecretRef",
    "nodePublishSecretRef",
    "nodeStageSecretRef",
    "nodeExpandSecretRef",
)


def of_volume(spec: Object) -> list[Cause]:
    """Check that a PersistentVolume has exactly one source, and that source."""
    given = [name for name in spec if name in _KNOWN]
    if len(given) > 1:
        given.sort(key=VOLUME_SOURCES.index)
    if not given:
        return [fields.required("spec", "must specify a volume type")]
    first, *others = given
    said = one(first, spec[first], f"spec.{first}")
    if first == "local" and not _places(spec):
        rule = "Local volume requires node affinity"
        said.append(fields.required("spec.nodeAffinity", rule))
    rule = "may not specify more than 1 volume type"
    said += [fields.forbidden(f"spec.{name}", rule) for name in others]
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
    if not name:
        return [fields.required(path)]
    said = [fields.too_long(path, 63)] if len(name) > 63 else []
    return said + each(path, name, names.subdomain(name.lower()))


def _places(spec: Object) -> bool:
    affinity = spec.get("nodeAffinity")
    return bool(affinity and affinity.get("required") is not None)


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
    elif not place.startswith("/"):
        said.append(fields.invalid(f"{path}.path", place, "must be an absolute path"))
    return said


def _fc(source: Object, path: str) -> list[Cause]:
    names_given, ids_given = bool(source.get("targetWWNs")), bool(source.get("wwids"))
    if names_given and ids_given:
        rule = "targetWWNs and wwids can not be specified simultaneously"
        return [fields.invalid(f"{path}.targetWWNs", source["targetWWNs"], rule)]
    if not names_given and not ids_given:
        rule = "must specify either targetWWNs or wwids, but not both"
        return [fields.required(f"{path}.targetWWNs", rule)]
    if names_given and "lun" not in source:
        rule = "lun is required if targetWWNs is specified"
        return [fields.required(f"{path}.lun", rule)]
    return []


def _iscsi(source: Object, path: str) -> list[Cause]:
    said: list[Cause] = []
    name = source.get("iqn", "")
    if name and not name.startswith(("iqn", "eui", "naa")):
        rule = "must be valid format starting with iqn, eui, or naa"
        said.append(fields.invalid(f"{path}.iqn", name, rule))
    lun = source.get("lun", 0)
    if not 0 <= lun <= 255:
        said.append(fields.invalid(f"{path}.lun", lun, "must be between 0 and 255, inclusive"))
    with_passwords = source.get("chapAuthDiscovery") or source.get("chapAuthSession")
    if with_passwords and not source.get("secretRef"):
        said.append(fields.required(f"{path}.secretRef"))
    return said


def _flocker(source: Object, path: str) -> list[Cause]:
    name, uuid = source.get("datasetName", ""), source.get("datasetUUID", "")
    if name and uuid:
        rule = "datasetName and datasetUUID can not be specified simultaneously"
        return [fields.invalid(path, "resource", rule)]
    if not name and not uuid:
        return [fields.required(path, "one of datasetName and datasetUUID is required")]
    if "/" in name:
        return [fields.invalid(f"{path}.datasetName", name, "must not contain '/'")]
    return []


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
        "csi": _csi,
        "fc": _fc,
        "flocker": _flocker,
        "hostPath": _host_path,
        "iscsi": _iscsi,
        "local": _no_steps_back,
        "nfs": _nfs,
    }
)
