"""Rules for PersistentVolumes: capacity, modes, policy, placement and the source.

A volume's source and mode never change and its node affinity is set at most
once; everything else (size, modes, class, policy, claim, mount options) may be
edited at any time, which is how administrators repair things.
"""

from __future__ import annotations

import posixpath
from typing import Final

from holdfast.api import fields
from holdfast.api.fields import Cause
from holdfast.api.validation import amounts, legacy_sources, selecting, sources
from holdfast.api.validation.rules import EMPTY, Object, Rules

_POLICIES: Final = ("Delete", "Recycle", "Retain")
_AFFINITY_IS_FIXED: Final = "field is immutable, except for updating from beta label to GA"
_GA_LABELS: Final = {
    "beta.kubernetes.io/arch": "kubernetes.io/arch",
    "beta.kubernetes.io/instance-type": "node.kubernetes.io/instance-type",
    "beta.kubernetes.io/os": "kubernetes.io/os",
    "failure-domain.beta.kubernetes.io/region": "topology.kubernetes.io/region",
    "failure-domain.beta.kubernetes.io/zone": "topology.kubernetes.io/zone",
}
_OLD_NOTES: Final = {
    amounts.BETA_CLASS: 'deprecated since v1.8; use "storageClassName" attribute instead',
    amounts.MOUNT_OPTIONS: 'deprecated since v1.31; use "mountOptions" attribute instead',
}
# Sources that read their mount options from the annotation before there was a field.
_WITH_OPTIONS: Final = frozenset(
    {
        "gcePersistentDisk",
        "awsElasticBlockStore",
        "glusterfs",
        "nfs",
        "rbd",
        "quobyte",
        "iscsi",
        "cinder",
        "cephfs",
        "azureFile",
        "vsphereVolume",
        "azureDisk",
        "photonPersistentDisk",
    }
)
_INLINE: Final = "may not be specified in the context of inline volumes"
# Of these the reference says nothing at a volume.
_UNMENTIONED: Final = ("flocker", "quobyte")


class VolumeRules(Rules):
    """Rules of PersistentVolume."""

    namespaced = False

    def body(self, obj: Object) -> list[Cause]:
        """Check the spec."""
        spec, meta = obj.get("spec", EMPTY), obj.get("metadata", EMPTY)
        said = _modes(spec, "spec.accessModes")
        said += _capacity(spec.get("capacity", EMPTY))
        policy = spec.get("persistentVolumeReclaimPolicy")
        if policy and policy not in _POLICIES:
            path = "spec.persistentVolumeReclaimPolicy"
            said.append(fields.not_supported(path, policy, _POLICIES))
        affinity = spec.get("nodeAffinity")
        if affinity is not None:
            said += _affinity(affinity)
        said += sources.of_volume(spec, meta.get("name", ""))
        if policy == "Recycle" and "hostPath" in spec:
            said += _recycled_root(spec["hostPath"])
        said += amounts.class_name(spec)
        said += amounts.volume_mode(spec)
        if amounts.MOUNT_OPTIONS in meta.get("annotations", EMPTY):
            said += _mount_options(spec)
        return said

    def transition(self, new: Object, old: Object) -> list[Cause]:
        """Check that source, mode and affinity stay."""
        new_spec, old_spec = new.get("spec", EMPTY), old.get("spec", EMPTY)
        if new_spec == old_spec:
            return []
        said: list[Cause] = []
        if _source_changed(new_spec, old_spec):
            rule = "spec.persistentvolumesource is immutable after creation"
            said.append(fields.forbidden("spec.persistentvolumesource", rule))
        if new_spec.get("volumeMode") != old_spec.get("volumeMode"):
            said.append(fields.immutable("volumeMode", new_spec.get("volumeMode")))
        was, now = old_spec.get("nodeAffinity"), new_spec.get("nodeAffinity")
        if was is not None and now != was and not _only_upgraded(now, was):
            said.append(fields.invalid("nodeAffinity", now, _AFFINITY_IS_FIXED))
        name = "volumeAttributesClassName"
        if new_spec.get(name) != old_spec.get(name):
            rule = "update is forbidden when the VolumeAttributesClass feature gate is disabled"
            said.append(fields.forbidden(f"spec.{name}", rule))
        return said

    def warnings(self, new: Object, old: Object | None) -> list[str]:
        """Warn of what still is accepted but deprecated or without function."""
        said: list[str] = []
        spec = new.get("spec", EMPTY)
        notes = new.get("metadata", EMPTY).get("annotations", EMPTY)
        said += [
            f"metadata.annotations[{key}]: {_OLD_NOTES[key]}" for key in _OLD_NOTES if key in notes
        ]
        if spec.get("persistentVolumeReclaimPolicy") == "Recycle":
            said.append(
                "spec.persistentVolumeReclaimPolicy: The Recycle reclaim policy is deprecated. "
                "Instead, the recommended approach is to use dynamic provisioning."
            )
        required = spec.get("nodeAffinity", EMPTY).get("required") or EMPTY
        said += selecting.old_labels(required, "spec.nodeAffinity.required")
        return said + legacy_sources.warnings(spec, "spec", _UNMENTIONED)


def inline(spec: Object, path: str) -> list[Cause]:
    """Check the spec that an attachment carries instead of naming a volume."""
    said = [
        fields.forbidden(f"{path}.{n}", _INLINE) for n in ("claimRef", "capacity") if spec.get(n)
    ]
    if "csi" not in spec:
        rule = "has to be specified in the context of inline volumes"
        said.append(fields.required(f"{path}.csi", rule))
    said += _modes(spec, f"{path}.accessModes")
    policy = spec.get("persistentVolumeReclaimPolicy")
    if policy and policy != "Retain":
        rule = "may only be Retain in the context of inline volumes"
        said.append(fields.forbidden(f"{path}.persistentVolumeReclaimPolicy", rule))
    if "nodeAffinity" in spec:
        said.append(fields.forbidden(f"{path}.nodeAffinity", _INLINE))
    said += sources.of_volume(spec, path=path)
    if spec.get("storageClassName"):
        said.append(fields.forbidden(f"{path}.storageClassName", _INLINE))
    if spec.get("volumeMode", "Filesystem") != "Filesystem":
        rule = "may not specify volumeMode other than Filesystem in the context of inline volumes"
        said.append(fields.forbidden(f"{path}.volumeMode", rule))
    return said


def _modes(spec: Object, path: str) -> list[Cause]:
    modes = spec.get("accessModes")
    return amounts.access_modes(modes, path) if modes else [fields.required(path)]


def _mount_options(spec: Object) -> list[Cause]:
    if spec.keys() & _WITH_OPTIONS:
        return []
    rule = "may not specify mount options for this volume type"
    return [fields.forbidden(f"metadata.annotations.{amounts.MOUNT_OPTIONS}", rule)]


def _capacity(capacity: Object) -> list[Cause]:
    said: list[Cause] = []
    path = "spec.capacity"
    if not capacity:
        # Two complaints, as Kubernetes has it; the second prints Go's nil map.
        said.append(fields.required(path))
        message = 'Unsupported value: core.ResourceList(nil): supported values: "storage"'
        said.append(Cause(path, fields.NOT_SUPPORTED, message))
    elif "storage" not in capacity or len(capacity) > 1:
        said.append(fields.not_supported(path, capacity, ("storage",)))
    for name, text in capacity.items():
        said += amounts.in_bytes(text, f"{path}[{name}]")
        said += amounts.positive(text, f"{path}[{name}]")
    return said


def _affinity(affinity: Object) -> list[Cause]:
    required = affinity.get("required")
    path = "spec.nodeAffinity.required"
    if required is None:
        return [fields.required(path, "must specify required node constraints")]
    return selecting.node_selector(required, path)


def _recycled_root(source: Object) -> list[Cause]:
    path = source.get("path", "")
    if not path or posixpath.normpath(path).strip("/"):
        return []
    rule = "may not be 'recycle' for a hostPath mount of '/'"
    return [fields.forbidden("spec.persistentVolumeReclaimPolicy", rule)]


def _source_changed(new_spec: Object, old_spec: Object) -> bool:
    for name in sources.VOLUME_SOURCES:
        now, was = new_spec.get(name), old_spec.get(name)
        if now == was:
            continue
        if name != "csi" or now is None or was is None:
            return True
        secret = "controllerExpandSecretRef"
        # Secrets for growing came later than CSI volumes, so one may be added, once.
        if secret in was or {k: v for k, v in now.items() if k != secret} != was:
            return True
    return False


def _only_upgraded(now: Object | None, was: Object) -> bool:
    """Tell whether beta label keys were replaced by their final names and nothing else."""
    if not now or not now.get("required") or not was.get("required"):
        return False
    return _with_final_labels(was, now) == now


def _with_final_labels(was: Object, now: Object) -> Object:
    new_terms = now["required"].get("nodeSelectorTerms", ())
    terms = []
    for index, term in enumerate(was["required"].get("nodeSelectorTerms", ())):
        expressions = term.get("matchExpressions")
        if not expressions or index >= len(new_terms):
            terms.append(term)
            continue
        wanted = [item.get("key") for item in new_terms[index].get("matchExpressions", ())]
        upgraded = []
        for place, item in enumerate(expressions):
            final = _GA_LABELS.get(item.get("key", ""))
            take = final is not None and place < len(wanted) and wanted[place] == final
            upgraded.append({**item, "key": final} if take else item)
        terms.append({**term, "matchExpressions": upgraded})
    return {**was, "required": {**was["required"], "nodeSelectorTerms": terms}}
