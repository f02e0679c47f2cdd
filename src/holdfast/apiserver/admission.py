"""Admission: the rules that look beyond the object being written.

The plug-ins are Kubernetes' own, on by default there: NamespaceLifecycle, DefaultStorageClass,
StorageObjectInUseProtection, PersistentVolumeClaimResize and, after validation, ResourceQuota.
They read other objects from the store, newest state first, so a class made one request earlier
counts. DefaultTolerationSeconds looks at nothing else and stands in `tolerations`.
"""

from __future__ import annotations

from typing import Any

from holdfast.api import errors, fields, kinds, quantity
from holdfast.api.kinds import Kind
from holdfast.apiserver import addresses, quotas, tolerations
from holdfast.store.log import Store

Object = dict[str, Any]

BETA_CLASS = "volume.beta.kubernetes.io/storage-class"
DEFAULT_CLASS = (
    "storageclass.kubernetes.io/is-default-class",
    "storageclass.beta.kubernetes.io/is-default-class",
)
PROTECTION = {
    kinds.CLAIM: "kubernetes.io/pvc-protection",
    kinds.VOLUME: "kubernetes.io/pv-protection",
}
_RESIZE_UNBOUND = "Only bound persistent volume claims can be expanded"
_RESIZE_REFUSED = (
    "only dynamically provisioned pvc can be resized and "
    "the storageclass that provisions the pvc must support resize"
)


class Admission:
    """Called by `resources` before validation."""

    def __init__(self, store: Store, toleration_seconds: int) -> None:
        self._store = store
        self._toleration_seconds = toleration_seconds

    def admit_create(self, kind: Kind, obj: Object) -> None:
        """Fill in what depends on other objects; may change `obj`, which is fresh."""
        if kind.namespaced:
            self._require_namespace(kind, obj)
        finalizer = PROTECTION.get(kind)
        if finalizer is not None:
            finalizers = obj["metadata"].setdefault("finalizers", [])
            if finalizer not in finalizers:
                finalizers.append(finalizer)
        if kind is kinds.CLAIM:
            self._default_class(obj)
        elif kind is kinds.SERVICE:
            addresses.assign(self._store, obj)
        elif kind is kinds.POD:
            tolerations.fill_in(obj, self._toleration_seconds)

    def fill_in(self, kind: Kind, new: Object, old: Object) -> None:
        """Fill in what a manifest that replaces an object need not repeat; may change `new`."""
        if kind is kinds.POD and "spec" in new:
            for part in ("priority", "preemptionPolicy"):
                if part in old.get("spec", {}):
                    new["spec"].setdefault(part, old["spec"][part])
            tolerations.fill_in(new, self._toleration_seconds)

    def admit_update(self, kind: Kind, new: Object, old: Object) -> None:
        """Refuse what the object's own rules allow but the cluster's state does not."""
        if kind is kinds.CLAIM and new.get("spec") is not old.get("spec"):
            self._check_resize(new, old)
        elif kind is kinds.SERVICE:
            addresses.assign(self._store, new)

    def check_quotas(self, kind: Kind, new: Object, old: Object | None = None) -> None:
        """Refuse what asks for more than the namespace's quotas leave."""
        quotas.check(self._store, kind, new, old)

    def _require_namespace(self, kind: Kind, obj: Object) -> None:
        name = obj["metadata"].get("namespace", "")
        record = self._store.latest(kinds.NAMESPACE.bucket, name)
        if record is None:
            raise errors.NotFound.of("", "namespaces", name)
        meta = record.obj["metadata"]
        if "deletionTimestamp" in meta:
            raise errors.Forbidden.of(
                kind.group,
                kind.plural,
                obj["metadata"].get("name", ""),
                f"unable to create new content in namespace {name} because it is being terminated",
                [
                    fields.Cause(
                        "metadata.namespace",
                        "NamespaceTerminating",
                        f"namespace {name} is being terminated",
                    )
                ],
            )

    def _default_class(self, claim: Object) -> None:
        spec = claim.get("spec")
        annotations = claim["metadata"].get("annotations") or {}
        if spec is None or "storageClassName" in spec or BETA_CLASS in annotations:
            return
        default = default_class(
            [record.obj for record in self._store.scan(kinds.STORAGE_CLASS.bucket)]
        )
        if default is not None:
            spec["storageClassName"] = default

    def _check_resize(self, new: Object, old: Object) -> None:
        if _requested(new) <= _requested(old):
            return
        meta = new["metadata"]
        name = meta["name"]
        if (new.get("status") or {}).get("phase") != "Bound":
            raise errors.Forbidden.of(
                "",
                "persistentvolumeclaims",
                name,
                _RESIZE_UNBOUND,
            )
        class_name = _class_of(new)
        record = self._store.latest(kinds.STORAGE_CLASS.bucket, class_name) if class_name else None
        if (
            record is None
            or record.obj.get("allowVolumeExpansion") is not True
            or class_name != _class_of(old)
        ):
            raise errors.Forbidden.of("", "persistentvolumeclaims", name, _RESIZE_REFUSED)


def _class_of(claim: Object) -> str:
    annotations = claim["metadata"].get("annotations") or {}
    return str(annotations.get(BETA_CLASS, claim["spec"].get("storageClassName", "")))


def _requested(claim: Object) -> quantity.Quantity:
    requests = claim.get("spec", {}).get("resources", {}).get("requests", {})
    return quantity.parse(requests.get("storage", "0"))


def _is_default(annotations: Object) -> bool:
    return any(annotations.get(key) == "true" for key in DEFAULT_CLASS)


def default_class(classes: list[Object]) -> str | None:
    """The default class: of several, the newest; made in the same second, the first by name."""
    defaults = [
        obj["metadata"] for obj in classes if _is_default(obj["metadata"].get("annotations") or {})
    ]
    if not defaults:
        return None
    newest = max(meta["creationTimestamp"] for meta in defaults)
    return str(min(meta["name"] for meta in defaults if meta["creationTimestamp"] == newest))
