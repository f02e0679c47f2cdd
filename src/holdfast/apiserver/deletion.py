"""What deleting means: graceful for pods, held back by finalizers, guarded by preconditions.

An object with finalizers is only marked (`metadata.deletionTimestamp`); whoever owns a finalizer
takes it away when its work is done, and with the last one the object goes in the same request.
A scheduled pod is marked and stays until its node says that it has stopped.
"""

from __future__ import annotations

import datetime
from typing import Any

from holdfast.api import errors, fields, kinds
from holdfast.api.fields import Cause
from holdfast.api.kinds import Kind
from holdfast.apiserver.options import DeleteOptions
from holdfast.kit import clock

Object = dict[str, Any]

_PERMANENT_NAMESPACES = frozenset({"default", "kube-public", "kube-system"})
_POD_GRACE = 30
# The finalizers with which an object waits for its dependents.
_PROPAGATION = {"Foreground": "foregroundDeletion", "Orphan": "orphan"}
# Deleting one of these answers with the object, the others with a Status.
ANSWERS_WITH_OBJECT = frozenset(
    {
        kinds.VOLUME,
        kinds.CLAIM,
        kinds.STORAGE_CLASS,
        kinds.VOLUME_ATTACHMENT,
        kinds.CSI_DRIVER,
        kinds.CSI_NODE,
        kinds.POD,
        kinds.NAMESPACE,
        kinds.SERVICE,
        kinds.SERVICE_ACCOUNT,
        kinds.RESOURCE_QUOTA,
    }
)


def check_allowed(kind: Kind, obj: Object, options: DeleteOptions) -> None:
    """Refuse a deletion whose preconditions fail, and that of a built-in namespace."""
    meta = obj["metadata"]
    name = meta["name"]
    if options.uid and options.uid != meta["uid"]:
        raise errors.Conflict.of(
            kind.group,
            kind.name,
            name,
            f"the UID in the precondition ({options.uid}) does not match the UID in record "
            f"({meta['uid']}). The object might have been deleted and then recreated",
        )
    if options.revision and options.revision != meta["resourceVersion"]:
        raise errors.Conflict.of(
            kind.group,
            kind.name,
            name,
            f"the ResourceVersion in the precondition ({options.revision}) does not match the "
            f"ResourceVersion in record ({meta['resourceVersion']}). "
            "The object might have been modified",
        )
    if kind is kinds.NAMESPACE and name in _PERMANENT_NAMESPACES:
        raise errors.Forbidden.of("", "namespaces", name, "this namespace may not be deleted")


def mark(kind: Kind, obj: Object, options: DeleteOptions) -> Object:
    """The object marked as being deleted; the same dict when nothing has to change."""
    obj = _with_propagation(obj, options.propagation)
    grace = _grace(kind, obj, options)
    meta = obj["metadata"]
    if "deletionTimestamp" in meta:
        # Asked again, the time left can only become shorter, and only if asked for a time.
        left = meta.get("deletionGracePeriodSeconds", 0)
        if grace >= left or options.grace is None:
            return obj
    when = clock.rfc3339(clock.now() + datetime.timedelta(seconds=grace))
    if kind is kinds.NAMESPACE:
        status = {**obj.get("status", {}), "phase": "Terminating"}
        return {**obj, "metadata": {**meta, "deletionTimestamp": when}, "status": status}
    changed = {**meta, "deletionTimestamp": when, "deletionGracePeriodSeconds": grace}
    if "generation" in meta:
        changed["generation"] = meta["generation"] + 1
    return {**obj, "metadata": changed}


def last_state(kind: Kind, obj: Object, marked: Object) -> Object:
    """What a deletion that takes effect at once leaves as the last state.

    A pod ends as marked; anything else that nothing held back was never seen as terminating.
    """
    return marked if kind is kinds.POD or "deletionTimestamp" in obj["metadata"] else obj


def _with_propagation(obj: Object, policy: str | None) -> Object:
    """Give the object the finalizer that its garbage collection needs, and take the other away.

    Without a policy a finalizer that is there already decides.
    """
    if policy is None:
        return obj
    present: list[str] = obj["metadata"].get("finalizers") or []
    wanted = [name for name in present if name not in _PROPAGATION.values()]
    if policy in _PROPAGATION:
        wanted.append(_PROPAGATION[policy])
    if sorted(wanted) == sorted(present):
        return obj
    meta = {key: value for key, value in obj["metadata"].items() if key != "finalizers"}
    if wanted:
        meta["finalizers"] = wanted
    return {**obj, "metadata": meta}


def _grace(kind: Kind, obj: Object, options: DeleteOptions) -> int:
    if kind is not kinds.POD or not obj.get("spec", {}).get("nodeName"):
        return 0
    if obj.get("status", {}).get("phase") in ("Succeeded", "Failed"):
        return 0
    if options.grace is not None:
        return options.grace
    return int(obj["spec"].get("terminationGracePeriodSeconds", _POD_GRACE))


def finished(kind: Kind, obj: Object) -> bool:
    """Whether nothing holds back an object that is marked."""
    meta = obj["metadata"]
    if "deletionTimestamp" not in meta or meta.get("finalizers"):
        return False
    if kind is kinds.NAMESPACE and obj.get("spec", {}).get("finalizers"):
        return False
    return not meta.get("deletionGracePeriodSeconds")


def check_finalizers(new: Object, old: Object) -> list[Cause]:
    """An object that is being deleted cannot be held back by one more finalizer."""
    if "deletionTimestamp" not in old["metadata"]:
        return []
    before = old["metadata"].get("finalizers", ())
    added = [name for name in new["metadata"].get("finalizers", ()) if name not in before]
    if not added:
        return []
    listed = ", ".join(f'"{name}"' for name in added)
    return [
        fields.forbidden(
            "metadata.finalizers",
            "no new finalizers can be added if the object is being deleted, "
            f"found new finalizers []string{{{listed}}}",
        )
    ]
