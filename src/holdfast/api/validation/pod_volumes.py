"""Rules for the volumes of a pod and for how its containers use them.

A volume has a name and exactly one source. Containers refer to it by name, as a
directory (`volumeMounts`) or, if it is a claim, as a device (`volumeDevices`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from holdfast.api import fields
from holdfast.api.fields import Cause
from holdfast.api.validation import amounts, legacy_sources, metadata, names, pod_content, sources
from holdfast.api.validation.claims import ClaimRules
from holdfast.api.validation.rules import Object, each

_PROPAGATIONS: Final = ("Bidirectional", "HostToContainer", "None")
_CLAIMS: Final = ClaimRules()
# What a claim made from a template is given by its pod, and how messages call it.
_NOT_IN_TEMPLATES: Final = {
    "name": "name",
    "generateName": "generateName",
    "namespace": "namespace",
    "uid": "uID",
    "resourceVersion": "resourceVersion",
    "generation": "generation",
    "creationTimestamp": "creationTimestamp",
    "deletionTimestamp": "deletionTimestamp",
    "deletionGracePeriodSeconds": "deletionGracePeriodSeconds",
    "ownerReferences": "ownerReferences",
    "finalizers": "finalizers",
    "managedFields": "managedFields",
}
# The reference's order, which decides which of two sources is the superfluous one.
_ORDER: Final = (
    *("emptyDir", "hostPath", "gitRepo", "gcePersistentDisk", "awsElasticBlockStore", "secret"),
    *("nfs", "iscsi", "glusterfs", "flocker", "persistentVolumeClaim", "rbd", "cinder", "cephfs"),
    *("quobyte", "downwardAPI", "fc", "flexVolume", "configMap", "azureFile", "vsphereVolume"),
    *("photonPersistentDisk", "portworxVolume", "azureDisk", "storageos", "projected", "scaleIO"),
    *("csi", "ephemeral", "image"),
)
# What the superfluous one is called, where that is not its name.
_EXTRA: Final = {"cephfs": "cephFS", "downwardAPI": "downwarAPI"}
_BELOW: Final = ("Disabled", "Enabled", "IfPossible")
_ONE_TYPE: Final = "may not specify more than 1 volume type"


def volumes(given: Sequence[Object], pod: str = "") -> tuple[list[Cause], dict[str, Object]]:
    """Check `spec.volumes` of the named pod; also return them by name for the checks of mounts."""
    said: list[Cause] = []
    by_name: dict[str, Object] = {}
    for index, volume in enumerate(given):
        at = f"spec.volumes[{index}]"
        name = volume.get("name", "")
        if not name:
            said.append(fields.required(f"{at}.name"))
        wrong = each(f"{at}.name", name, names.label(name)) if name else []
        if name in by_name:
            wrong.append(fields.duplicate(f"{at}.name", name))
        wrong += _volume(volume, at)
        if pod and name and "ephemeral" in volume:
            wrong += _claim_name(f"{pod}-{name}", name, f"{at}.name")
        if name and not wrong:
            # A volume with a mistake is none that could be mounted.
            by_name[name] = volume
        said += wrong
    return said, by_name


def mounts(container: Object, at: str, by_name: dict[str, Object]) -> list[Cause]:
    """Check a container's mounts and devices against the pod's volumes."""
    said: list[Cause] = []
    mounted, raw = container.get("volumeMounts") or (), container.get("volumeDevices") or ()
    places: set[str] = set()
    for index, mount in enumerate(mounted):
        path = f"{at}.volumeMounts"
        said += _mount(mount, f"{path}[{index}]", by_name, places)
        said += _taken(mount, f"{path}[{index}]", ("mountPath", "devicePath"), raw, "volumeDevices")
        # These complaints do not say which of the mounts they are about.
        said += _place_inside(mount, path)
        said += _propagation(mount, path, container)
        said += _read_only_below(mount, f"{path}.recursiveReadOnly")
    places, devices = set(), set[str]()
    for index, device in enumerate(raw):
        path = f"{at}.volumeDevices[{index}]"
        name = device.get("name", "")
        if name in devices:
            said.append(fields.invalid(f"{path}.name", name, "must be unique"))
        said += _device(device, path, by_name, places)
        said += _taken(device, path, ("devicePath", "mountPath"), mounted, "volumeMounts")
        if name:
            devices.add(name)
    return said


def _volume(volume: Object, at: str) -> list[Cause]:
    kinds = sorted((name for name in volume if name != "name"), key=_ORDER.index)
    if not kinds:
        return [fields.required(at, "must specify a volume type")]
    said: list[Cause] = []
    for extra in kinds[1:]:
        said.append(fields.forbidden(f"{at}.{_EXTRA.get(extra, extra)}", _ONE_TYPE))
    kind = kinds[0]
    source, path = volume[kind], f"{at}.{sources.CALLED.get(kind, kind)}"
    rule = _POD_ONLY.get(kind)
    return said + (rule(source, path) if rule else sources.one(kind, source, path))


def _mount(mount: Object, at: str, by_name: dict[str, Object], places: set[str]) -> list[Cause]:
    said = _reference(mount, at, by_name)
    place = mount.get("mountPath", "")
    if not place:
        said.append(fields.required(f"{at}.mountPath"))
    if place in places:
        said.append(fields.invalid(f"{at}.mountPath", place, "must be unique"))
    places.add(place)
    if mount.get("subPath") and mount.get("subPathExpr"):
        rule = "subPathExpr and subPath are mutually exclusive"
        said.append(fields.invalid(f"{at}.subPathExpr", mount["subPathExpr"], rule))
    return said


def _place_inside(mount: Object, at: str) -> list[Cause]:
    said: list[Cause] = []
    for part in ("subPath", "subPathExpr"):
        if mount.get(part):
            said += pod_content.below(mount[part], f"{at}.{part}")
    return said


def _propagation(mount: Object, at: str, container: Object) -> list[Cause]:
    propagation, path = mount.get("mountPropagation"), f"{at}.mountPropagation"
    if propagation is None:
        return []
    if propagation not in _PROPAGATIONS:
        return [fields.not_supported(path, propagation, _PROPAGATIONS)]
    privileged = (container.get("securityContext") or {}).get("privileged")
    if propagation == "Bidirectional" and not privileged:
        rule = "Bidirectional mount propagation is available only to privileged containers"
        return [fields.forbidden(path, rule)]
    return []


def _read_only_below(mount: Object, path: str) -> list[Cause]:
    mode = mount.get("recursiveReadOnly")
    if mode in (None, "Disabled"):
        return []
    if mode not in _BELOW:
        return [fields.not_supported(path, mode, _BELOW)]
    said: list[Cause] = []
    if not mount.get("readOnly"):
        said.append(fields.forbidden(path, "may only be specified when readOnly is true"))
    if mount.get("mountPropagation", "None") != "None":
        rule = "may only be specified when mountPropagation is None or not specified"
        said.append(fields.forbidden(path, rule))
    return said


def _taken(
    use: Object, at: str, parts: tuple[str, str], others: Sequence[Object], called: str
) -> list[Cause]:
    """Check that a volume and a path serve as a directory or as a device, not as both."""
    said: list[Cause] = []
    name, place = use.get("name", ""), use.get(parts[0], "")
    if any(other.get("name", "") == name for other in others):
        said.append(fields.invalid(f"{at}.name", name, f"must not already exist in {called}"))
    if any(other.get(parts[1], "") == place for other in others):
        rule = f"must not already exist as a path in {called}"
        said.append(fields.invalid(f"{at}.{parts[0]}", place, rule))
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
    if place in places:
        said.append(fields.invalid(f"{at}.devicePath", place, "must be unique"))
    if ".." in place.split("/"):
        rule = "can not contain backsteps ('..')"
        said.append(fields.invalid(f"{at}.devicePath", place, rule))
    else:
        places.add(place)
    return said


def _reference(use: Object, at: str, by_name: dict[str, Object]) -> list[Cause]:
    name = use.get("name", "")
    said = [] if name else [fields.required(f"{at}.name")]
    return said if name in by_name else [*said, fields.not_found(f"{at}.name", name)]


def _claim(source: Object, path: str) -> list[Cause]:
    return [] if source.get("claimName") else [fields.required(f"{path}.claimName")]


def _csi(source: Object, path: str) -> list[Cause]:
    said = sources.csi_driver_name(source.get("driver", ""), f"{path}.driver")
    secret = source.get("nodePublishSecretRef")
    if secret is not None and not secret.get("name"):
        said.append(fields.required(f"{path}.nodePublishSecretRef.name"))
    return said


def _empty_dir(source: Object, path: str) -> list[Cause]:
    limit = source.get("sizeLimit")
    if limit is None:
        return []
    rule = "SizeLimit field must be a valid resource quantity"
    wrong = amounts.not_negative(limit, f"{path}.sizeLimit", rule)
    return [fields.forbidden(f"{path}.sizeLimit", rule)] if wrong else []


def _ephemeral(source: Object, path: str) -> list[Cause]:
    template = source.get("volumeClaimTemplate")
    if template is None:
        return [fields.required(f"{path}.volumeClaimTemplate")]
    at = f"{path}.volumeClaimTemplate"
    given = template.get("metadata", {})
    said = metadata.notes(given.get("annotations", {}), f"{at}.metadata.annotations")
    said += metadata.labels(given.get("labels", {}), f"{at}.metadata.labels")
    said += [
        fields.forbidden(f"{at}.metadata.{shown}", "cannot be set")
        for name, shown in _NOT_IN_TEMPLATES.items()
        if given.get(name)
    ]
    spec = _CLAIMS.body(template)
    return said + [Cause(f"{at}.{cause.field}", cause.reason, cause.message) for cause in spec]


def _claim_name(claim: str, volume: str, path: str) -> list[Cause]:
    """Check that the claim made for an ephemeral volume may have the name it will have."""
    rules = names.subdomain(claim)
    return [fields.invalid(path, volume, f"PVC name {fields.quote(claim)}: {r}") for r in rules]


def _git_repo(source: Object, path: str) -> list[Cause]:
    said = [] if source.get("repository") else [fields.required(f"{path}.repository")]
    return said + pod_content.below(source.get("directory", ""), f"{path}.directory")


def _files(name_field: str) -> sources.Rule:
    def check(source: Object, path: str) -> list[Cause]:
        said = [] if source.get(name_field) else [fields.required(f"{path}.{name_field}")]
        return said + _items(source, path)

    return check


def _items(source: Object, path: str) -> list[Cause]:
    return pod_content.mode(source, "defaultMode", path) + pod_content.items(source, path)


_POD_ONLY: Final[dict[str, sources.Rule]] = {
    "configMap": _files("name"),
    "csi": _csi,
    "downwardAPI": pod_content.downward,
    "emptyDir": _empty_dir,
    "ephemeral": _ephemeral,
    "gitRepo": _git_repo,
    "iscsi": legacy_sources.iscsi_of_pod,
    "persistentVolumeClaim": _claim,
    "projected": pod_content.projected,
    "secret": _files("secretName"),
}
