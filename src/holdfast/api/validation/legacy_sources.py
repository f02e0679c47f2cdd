"""Rules for the sources that have more of them than a list of fields that must be filled.

These are the storage systems that Kubernetes once drove itself: disks of clouds, fibre channel,
iSCSI and others. `RULES` holds for volumes and pods alike; `OF_VOLUMES` is what is asked of a
PersistentVolume besides, and gets its name too. Both are used by `sources` only.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from types import MappingProxyType
from typing import Final

from holdfast.api import fields
from holdfast.api.fields import Cause
from holdfast.api.validation import names
from holdfast.api.validation.rules import Object, each

Rule = Callable[[Object, str], list[Cause]]
VolumeRule = Callable[[Object, str, str], list[Cause]]

_CACHING: Final = ("None", "ReadOnly", "ReadWrite")
_DISK_KINDS: Final = ("Dedicated", "Managed", "Shared")
_MANAGED_DISK: Final = (
    "/subscriptions/{sub-id}/resourcegroups/{group-name}"
    "/providers/microsoft.compute/disks/{disk-id}"
)
_BLOB_DISK: Final = "https://{account-name}.blob.core.windows.net/{container-name}/{disk-name}.vhd"
REMOVED: Final[Mapping[str, str]] = MappingProxyType(
    {
        "photonPersistentDisk": "deprecated in v1.11, non-functional in v1.16+",
        "gitRepo": "deprecated in v1.11",
        "scaleIO": "deprecated in v1.16, non-functional in v1.22+",
        "flocker": "deprecated in v1.22, non-functional in v1.25+",
        "storageos": "deprecated in v1.22, non-functional in v1.25+",
        "quobyte": "deprecated in v1.22, non-functional in v1.25+",
        "glusterfs": "deprecated in v1.25, non-functional in v1.26+",
        "cephfs": "deprecated in v1.28, non-functional in v1.31+",
        "rbd": "deprecated in v1.28, non-functional in v1.31+",
    }
)
"""What is warned of at a source whose plug-in is gone or going."""
_ISCSI_FORM: Final = "must be valid format"
_ISCSI_NAMES: Final = {
    "iqn": re.compile(r"iqn\.\d{4}-\d{2}\.([A-Za-z0-9\-.]+)(:[^,;*&$|\s]+)$", re.ASCII),
    "eui": re.compile(r"eui.[A-Za-z0-9]{16}$"),
    "naa": re.compile(r"naa.[A-Za-z0-9]{32}$"),
}
_REGISTRY: Final = "must be a host:port pair or multiple pairs separated by commas"
_host_and_port = re.compile(r"(\[[^\[\]]*\]|[^:\[\]]*):[^:\[\]]*").fullmatch


def warnings(given: Object, path: str, but: Collection[str] = ()) -> list[str]:
    """Return what is warned of at the sources of a volume or of a volume's spec."""
    return [
        # The reference's field path, which is not the field's name here.
        f"{path}.{'storageOS' if source == 'storageos' else source}: {text}"
        for source, text in REMOVED.items()
        if given.get(source) is not None and source not in but
    ]


def _strings(values: Sequence[str]) -> fields.Go:
    return fields.Go(f"[]string{{{', '.join(map(fields.quote, values))}}}")


def _required(source: Object, path: str, *names: str) -> list[Cause]:
    return [fields.required(f"{path}.{name}") for name in names if not source.get(name)]


def _between(value: int, path: str, low: int) -> list[Cause]:
    if low <= value <= 255:
        return []
    return [fields.invalid(path, value, f"must be between {low} and 255, inclusive")]


def _gce(source: Object, path: str) -> list[Cause]:
    partition = source.get("partition", 0)
    said = _required(source, path, "pdName")
    # Partition 0 is a whole disk, though the text begins at 1.
    return said + (_between(partition, f"{path}.partition", 1) if partition else [])


def _aws(source: Object, path: str) -> list[Cause]:
    partition = source.get("partition", 0)
    said = _required(source, path, "volumeID")
    return said + (_between(partition, f"{path}.partition", 1) if partition else [])


def _azure_disk(source: Object, path: str) -> list[Cause]:
    said = _required(source, path, "diskName", "diskURI")
    for name, choices in (("cachingMode", _CACHING), ("kind", _DISK_KINDS)):
        value = source.get(name)
        if value is not None and value not in choices:
            said.append(fields.not_supported(f"{path}.{name}", value, choices))
    kind, place = source.get("kind"), source.get("diskURI", "")
    if kind is None:
        return said
    begin, form = (
        ("/subscriptions/", _MANAGED_DISK) if kind == "Managed" else ("https://", _BLOB_DISK)
    )
    if not place.startswith(begin):
        said.append(fields.not_supported(f"{path}.diskURI", place, (form,)))
    return said


def _cinder(source: Object, path: str) -> list[Cause]:
    return _required(source, path, "volumeID")


def _cinder_of_volume(source: Object, path: str, volume: str) -> list[Cause]:
    if "secretRef" not in source:
        return []
    return _required(source["secretRef"], f"{path}.secretRef", "name", "namespace")


def _azure_file_of_volume(source: Object, path: str, volume: str) -> list[Cause]:
    if source.get("secretNamespace") == "":
        return [fields.required(f"{path}.secretNamespace")]
    return []


def _glusterfs_of_volume(source: Object, path: str, volume: str) -> list[Cause]:
    namespace = source.get("endpointsNamespace")
    at = f"{path}.endpointsNamespace"
    if namespace == "":
        rule = "if the endpointnamespace is set, it must be a valid namespace name"
        return [fields.invalid(at, namespace, rule)]
    return each(at, namespace, names.label(namespace)) if namespace else []


def _storageos_of_volume(source: Object, path: str, volume: str) -> list[Cause]:
    said = _required(source, path, "volumeName")
    for name in ("volumeName", "volumeNamespace"):
        if source.get(name):
            said += each(f"{path}.{name}", source[name], names.label(source[name]))
    if "secretRef" in source:
        said += _required(source["secretRef"], f"{path}.secretRef", "name", "namespace")
    return said


def _fc(source: Object, path: str) -> list[Cause]:
    said: list[Cause] = []
    wide_names, ids = source.get("targetWWNs"), source.get("wwids")
    if not wide_names and not ids:
        rule = "must specify either targetWWNs or wwids, but not both"
        said.append(fields.required(f"{path}.targetWWNs", rule))
    if wide_names and ids:
        rule = "targetWWNs and wwids can not be specified simultaneously"
        said.append(fields.invalid(f"{path}.targetWWNs", _strings(wide_names), rule))
    if wide_names and "lun" not in source:
        said.append(fields.required(f"{path}.lun", "lun is required if targetWWNs is specified"))
    elif wide_names:
        said += _between(source["lun"], f"{path}.lun", 0)
    return said


def _flex(source: Object, path: str) -> list[Cause]:
    said = _required(source, path, "driver")
    for key in source.get("options", {}):
        domain = "." + key.partition("/")[0].lower()
        if domain.endswith((".kubernetes.io", ".k8s.io")):
            rule = "kubernetes.io and k8s.io namespaces are reserved"
            said.append(fields.invalid(f"{path}.options[{key}]", key, rule))
    return said


def _flocker(source: Object, path: str) -> list[Cause]:
    name, uuid = source.get("datasetName", ""), source.get("datasetUUID", "")
    said: list[Cause] = []
    if not name and not uuid:
        said.append(fields.required(path, "one of datasetName and datasetUUID is required"))
    if name and uuid:
        rule = "datasetName and datasetUUID can not be specified simultaneously"
        said.append(fields.invalid(path, "resource", rule))
    if "/" in name:
        said.append(fields.invalid(f"{path}.datasetName", name, "must not contain '/'"))
    return said


def iscsi_of_pod(source: Object, path: str) -> list[Cause]:
    """Check the source in a pod, where a name of no known form is told so."""
    return _iscsi(source, path, f"{_ISCSI_FORM} starting with iqn, eui, or naa")


def _iscsi(source: Object, path: str, unknown: str = _ISCSI_FORM) -> list[Cause]:
    said = _required(source, path, "targetPortal", "iqn")
    if source.get("iqn"):
        said += _iscsi_name(source["iqn"], f"{path}.iqn", unknown)
    said += _between(source.get("lun", 0), f"{path}.lun", 0)
    with_passwords = source.get("chapAuthDiscovery") or source.get("chapAuthSession")
    if with_passwords and "secretRef" not in source:
        said.append(fields.required(f"{path}.secretRef"))
    if "secretRef" in source:
        said += _required(source["secretRef"], f"{path}.secretRef", "name")
    if "initiatorName" in source:
        said += _iscsi_name(source["initiatorName"], f"{path}.initiatorname", unknown)
    return said


def _iscsi_name(name: str, path: str, unknown: str) -> list[Cause]:
    form = _ISCSI_NAMES.get(name[:3])
    if form is None:
        return [fields.invalid(path, name, unknown)]
    # A qualified name may stand anywhere in the text, the other two forms are all of it.
    found = form.search(name) if name.startswith("iqn") else form.match(name)
    return [] if found else [fields.invalid(path, name, _ISCSI_FORM)]


def _iscsi_of_volume(source: Object, path: str, volume: str) -> list[Cause]:
    portal = source.get("targetPortal", "")
    if "initiatorName" not in source or len(f"{volume}:{portal}") <= 64:
        return []
    rule = (
        "Total length of <volume name>:<iscsi.targetPortal> must be under 64 characters "
        "if iscsi.initiatorName is specified."
    )
    return [fields.invalid(f"{path}.targetportal", portal, rule)]


def _quobyte(source: Object, path: str) -> list[Cause]:
    registry = source.get("registry", "")
    said: list[Cause] = []
    if not registry:
        said.append(fields.required(f"{path}.registry", _REGISTRY))
    elif len(source.get("tenant", "")) > 64:
        rule = "must be a UUID and may not exceed a length of 64 characters"
        said.append(fields.required(f"{path}.tenant", rule))
    else:
        wrong = [pair for pair in registry.split(",") if not _host_and_port(pair)]
        said += [fields.invalid(f"{path}.registry", registry, _REGISTRY) for _ in wrong]
    return said + _required(source, path, "volume")


RULES: Final[Mapping[str, Rule]] = MappingProxyType(
    {
        "awsElasticBlockStore": _aws,
        "azureDisk": _azure_disk,
        "cinder": _cinder,
        "fc": _fc,
        "flexVolume": _flex,
        "flocker": _flocker,
        "gcePersistentDisk": _gce,
        "iscsi": _iscsi,
        "quobyte": _quobyte,
    }
)
OF_VOLUMES: Final[Mapping[str, VolumeRule]] = MappingProxyType(
    {
        "azureFile": _azure_file_of_volume,
        "cinder": _cinder_of_volume,
        "glusterfs": _glusterfs_of_volume,
        "iscsi": _iscsi_of_volume,
        "storageos": _storageos_of_volume,
    }
)
