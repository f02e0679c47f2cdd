"""Rules for the volumes of a pod and for how its containers use them.

A volume has a name and exactly one source. Containers refer to it by name, as a
directory (`volumeMounts`) or, if it is a claim, as a device (`volumeDevices`).
"""

from __future__ import annotations

import posixpath
from collections.abc import Sequence
from typing import Final

from holdfast.api import fields
from holdfast.api.fields import Cause
from holdfast.api.validation import amounts, names, sources
from holdfast.api.validation.claims import ClaimRules
from holdfast.api.validation.rules import Object, each

_PROPAGATIONS: Final = ("Bidirectional", "HostToContainer", "None")
_CLAIMS: Final = ClaimRules()
_ONE_TYPE: Final = "may not specify more than 1 volume type"


def volumes(given: Sequence[Object]) -> tuple[list[Cause], dict[str, Object]]:
    """Check `spec.volumes`; also return them by name for the checks of mounts."""
    said: list[Cause] = []
    by_name: dict[str, Object] = {}
    for index, volume in enumerate(given):
        at = f"spec.volumes[{index}]"
        name = volume.get("name", "")
        if not name:
            said.append(fields.required(f"{at}.name"))
        said += each(f"{at}.name", name, names.label(name)) if name else []
        if name in by_name:
            said.append(fields.duplicate(f"{at}.name", name))
        by_name[name] = volume
        said += _volume(volume, at)
    return said, by_name


def mounts(container: Object, at: str, by_name: dict[str, Object]) -> list[Cause]:
    """Check a container's mounts and devices against the pod's volumes."""
    said: list[Cause] = []
    places: set[str] = set()
    mounted: set[str] = set()
    for index, mount in enumerate(container.get("volumeMounts") or ()):
        said += _mount(mount, f"{at}.volumeMounts[{index}]", by_name, places)
        mounted.add(mount.get("name", ""))
    devices: set[str] = set()
    for index, device in enumerate(container.get("volumeDevices") or ()):
        path = f"{at}.volumeDevices[{index}]"
        said += _device(device, path, by_name, places)
        name = device.get("name", "")
        if name in mounted:
            rule = "must not already exist in volumeMounts"
            said.append(fields.invalid(f"{path}.name", name, rule))
        if name in devices:
            said.append(fields.invalid(f"{path}.name", name, "must be unique"))
        devices.add(name)
    return said


def _volume(volume: Object, at: str) -> list[Cause]:
    kinds = [name for name in volume if name != "name"]
    if not kinds:
        return [fields.required(at, "must specify a volume type")]
    said: list[Cause] = []
    for extra in kinds[1:]:
        said.append(fields.forbidden(f"{at}.{extra}", _ONE_TYPE))
    kind = kinds[0]
    source, path = volume[kind], f"{at}.{kind}"
    rule = _POD_ONLY.get(kind)
    return said + (rule(source, path) if rule else sources.one(kind, source, path))


def _mount(mount: Object, at: str, by_name: dict[str, Object], places: set[str]) -> list[Cause]:
    said = _reference(mount, at, by_name)
    place = mount.get("mountPath", "")
    if not place:
        said.append(fields.required(f"{at}.mountPath"))
    elif place in places:
        said.append(fields.invalid(f"{at}.mountPath", place, "must be unique"))
    places.add(place)
    if mount.get("subPath") and mount.get("subPathExpr"):
        rule = "subPathExpr and subPath are mutually exclusive"
        said.append(fields.invalid(f"{at}.subPathExpr", mount["subPathExpr"], rule))
    for part in ("subPath", "subPathExpr"):
        if mount.get(part):
            said += _inside(mount[part], f"{at}.{part}")
    propagation = mount.get("mountPropagation")
    if propagation is not None and propagation not in _PROPAGATIONS:
        path = f"{at}.mountPropagation"
        said.append(fields.not_supported(path, propagation, _PROPAGATIONS))
    return said


def _device(device: Object, at: str, by_name: dict[str, Object], places: set[str]) -> list[Cause]:
    said = _reference(device, at, by_name)
    volume = by_name.get(device.get("name", ""))
    if volume is not None and "persistentVolumeClaim" not in volume and "ephemeral" not in volume:
        rule = (
            "can only use volume source type of PersistentVolumeClaim or Ephemeral for block mode"
        )
        said.append(fields.invalid(f"{at}.name", device.get("name", ""), rule))
    place = device.get("devicePath", "")
    if not place:
        said.append(fields.required(f"{at}.devicePath"))
    elif place in places:
        said.append(fields.invalid(f"{at}.devicePath", place, "must be unique"))
    elif ".." in place.split("/"):
        rule = "can not contain backsteps ('..')"
        said.append(fields.invalid(f"{at}.devicePath", place, rule))
    places.add(place)
    return said


def _reference(use: Object, at: str, by_name: dict[str, Object]) -> list[Cause]:
    name = use.get("name", "")
    if not name:
        return [fields.required(f"{at}.name")]
    return [] if name in by_name else [fields.not_found(f"{at}.name", name)]


def _inside(path_in_volume: str, path: str) -> list[Cause]:
    said: list[Cause] = []
    if posixpath.isabs(path_in_volume):
        said.append(fields.invalid(path, path_in_volume, "must be a relative path"))
    if ".." in path_in_volume.split("/"):
        said.append(fields.invalid(path, path_in_volume, "must not contain '..'"))
    return said


def _claim(source: Object, path: str) -> list[Cause]:
    return [] if source.get("claimName") else [fields.required(f"{path}.claimName")]


def _csi(source: Object, path: str) -> list[Cause]:
    return sources.csi_driver_name(source.get("driver", ""), f"{path}.driver")


def _empty_dir(source: Object, path: str) -> list[Cause]:
    limit = source.get("sizeLimit")
    if limit is None:
        return []
    rule = "SizeLimit field must be a valid resource quantity"
    return amounts.not_negative(limit, f"{path}.sizeLimit", rule)


def _ephemeral(source: Object, path: str) -> list[Cause]:
    template = source.get("volumeClaimTemplate")
    if template is None:
        return [fields.required(f"{path}.volumeClaimTemplate")]
    return [
        Cause(f"{path}.volumeClaimTemplate.{cause.field}", cause.reason, cause.message)
        for cause in _CLAIMS.body(template)
    ]


def _files(name_field: str) -> sources.Rule:
    def check(source: Object, path: str) -> list[Cause]:
        said = [] if source.get(name_field) else [fields.required(f"{path}.{name_field}")]
        return said + _items(source, path)

    return check


def _items(source: Object, path: str) -> list[Cause]:
    said: list[Cause] = []
    mode = source.get("defaultMode")
    if mode is not None and not 0 <= mode <= 0o777:
        rule = "must be a number between 0 and 0777 (octal), both inclusive"
        said.append(fields.invalid(f"{path}.defaultMode", mode, rule))
    for index, item in enumerate(source.get("items") or ()):
        at = f"{path}.items[{index}]"
        for part in ("key", "path"):
            if not item.get(part):
                said.append(fields.required(f"{at}.{part}"))
        if item.get("path"):
            said += _inside(item["path"], f"{at}.path")
    return said


_POD_ONLY: Final[dict[str, sources.Rule]] = {
    "configMap": _files("name"),
    "csi": _csi,
    "downwardAPI": lambda source, path: [],
    "emptyDir": _empty_dir,
    "ephemeral": _ephemeral,
    "persistentVolumeClaim": _claim,
    "projected": lambda source, path: [],
    "secret": _files("secretName"),
}
