# ruff: noqa: E501 (tables of cases read best with one case per line)
"""Rules of the storage kinds: one row per line of Kubernetes' behaviour.

Every row takes a valid object, makes one change and names the complaint expected,
so a rule that stops working and a rule that starts complaining too much both fail.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest

from holdfast.api import kinds, validation
from holdfast.api.fields import Cause
from holdfast.api.kinds import Kind
from holdfast.api.validation import names

Object = dict[str, Any]
Change = Callable[[Object], Any]

SUBDOMAIN = (
    "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or "
    "'.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used "
    "for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')"
)
MODES = '"ReadOnlyMany", "ReadWriteMany", "ReadWriteOnce", "ReadWriteOncePod"'
BETA = "volume.beta.kubernetes.io/storage-class"
SPEC_FIXED = (
    "Forbidden: spec is immutable after creation except resources.requests and "
    "volumeAttributesClassName for bound claims"
)
AFFINITY = {
    "required": {
        "nodeSelectorTerms": [
            {"matchExpressions": [{"key": "host", "operator": "In", "values": ["n"]}]}
        ]
    }
}


def claim() -> Object:
    return {
        "metadata": {"name": "data", "namespace": "team"},
        "spec": {
            "accessModes": ["ReadWriteOnce"],
            "resources": {"requests": {"storage": "2Gi"}},
            "storageClassName": "fast",
            "volumeMode": "Filesystem",
        },
        "status": {"phase": "Pending"},
    }


def bound() -> Object:
    obj = claim()
    obj["spec"]["volumeName"] = "pv"
    obj["status"] = {"phase": "Bound", "capacity": {"storage": "1Gi"}}
    return obj


def volume() -> Object:
    return {
        "metadata": {"name": "pv"},
        "spec": {
            "accessModes": ["ReadWriteOnce"],
            "capacity": {"storage": "1Gi"},
            "persistentVolumeReclaimPolicy": "Retain",
            "hostPath": {"path": "/srv", "type": ""},
            "volumeMode": "Filesystem",
        },
    }


def storage_class() -> Object:
    return {
        "metadata": {"name": "fast"},
        "provisioner": "Example.com/disk",
        "parameters": {"pool": "a"},
        "reclaimPolicy": "Delete",
        "volumeBindingMode": "Immediate",
    }


def attachment() -> Object:
    source = {"persistentVolumeName": "pv"}
    spec = {"attacher": "d.example.com", "nodeName": "n1", "source": source}
    return {"metadata": {"name": "va"}, "spec": spec}


def driver() -> Object:
    return {
        "metadata": {"name": "d.example.com"},
        "spec": {
            "attachRequired": True,
            "podInfoOnMount": False,
            "storageCapacity": False,
            "fsGroupPolicy": "File",
            "volumeLifecycleModes": ["Persistent"],
        },
    }


def csi_node() -> Object:
    drivers = [{"name": "d.example.com", "nodeID": "i-1", "topologyKeys": ["zone"]}]
    return {"metadata": {"name": "n1"}, "spec": {"drivers": drivers}}


VALID: dict[Kind, Callable[[], Object]] = {
    kinds.CLAIM: claim,
    kinds.VOLUME: volume,
    kinds.STORAGE_CLASS: storage_class,
    kinds.VOLUME_ATTACHMENT: attachment,
    kinds.CSI_DRIVER: driver,
    kinds.CSI_NODE: csi_node,
}


def put(*path: Any) -> Change:
    """Return a change that sets path[:-1] to path[-1]."""

    def change(obj: Object) -> None:
        place: Any = obj
        for step in path[:-2]:
            place = place.setdefault(step, {}) if isinstance(place, dict) else place[step]
        place[path[-2]] = path[-1]

    return change


def drop(*path: str) -> Change:
    def change(obj: Object) -> None:
        for step in path[:-1]:
            obj = obj[step]
        del obj[path[-1]]

    return change


def both(*changes: Change) -> Change:
    def change(obj: Object) -> None:
        for each in changes:
            each(obj)

    return change


def texts(causes: list[Cause]) -> list[str]:
    return [cause.text() for cause in causes]


CLAIM_CREATE = [
    (drop("spec", "accessModes"), ["spec.accessModes: Required value: at least 1 access mode is required"]),
    (put("spec", "accessModes", ["Any"]), [f'spec.accessModes: Unsupported value: "Any": supported values: {MODES}']),
    (put("spec", "accessModes", ["ReadWriteOncePod", "ReadOnlyMany"]), ["spec.accessModes: Forbidden: may not use ReadWriteOncePod with other access modes"]),
    (put("spec", "accessModes", ["ReadWriteOncePod"]), []),
    (drop("spec", "resources"), ["spec.resources[storage]: Required value"]),
    (put("spec", "resources", "requests", "storage", "0"), ['spec.resources[storage]: Invalid value: "0": must be greater than zero']),
    (put("spec", "resources", "requests", "storage", "-1Gi"), ['spec.resources[storage]: Invalid value: "-1Gi": must be greater than zero']),
    (put("spec", "resources", "requests", "storage", "1500m"), []),
    (put("spec", "resources", "limits", {"storage": "1"}), []),
    (put("spec", "volumeMode", "Tape"), ['spec.volumeMode: Unsupported value: "Tape": supported values: "Block", "Filesystem"']),
    (put("spec", "storageClassName", "Bad_Name"), [f'spec.storageClassName: Invalid value: "Bad_Name": {SUBDOMAIN}']),
    (put("spec", "storageClassName", ""), []),
    (put("spec", "storageClassName", "nobody-has-it"), []),
    (put("spec", "selector", {"matchExpressions": [{"key": "a", "operator": "Near"}]}), ['spec.selector.matchExpressions[0].operator: Invalid value: "Near": not a valid selector operator']),
    (put("spec", "selector", {"matchExpressions": [{"key": "a", "operator": "In"}]}), ["spec.selector.matchExpressions[0].values: Required value: must be specified when `operator` is 'In' or 'NotIn'"]),
    (put("spec", "selector", {"matchExpressions": [{"key": "a", "operator": "Exists", "values": ["b"]}]}), ["spec.selector.matchExpressions[0].values: Forbidden: may not be specified when `operator` is 'Exists' or 'DoesNotExist'"]),
    (put("spec", "dataSource", {"kind": "Pod", "name": "x"}), ["spec.dataSource: Invalid value: \"Pod\": must be 'PersistentVolumeClaim' when referencing the default apiGroup"]),
    (put("spec", "dataSourceRef", {"kind": "Pod", "name": "x"}), ["spec.dataSourceRef: Invalid value: \"Pod\": must be 'PersistentVolumeClaim' when referencing the default apiGroup"]),
    (put("spec", "dataSourceRef", {"kind": "PersistentVolumeClaim"}), ["spec.dataSourceRef.name: Required value"]),
    (put("metadata", "name", "Data"), [f'metadata.name: Invalid value: "Data": {SUBDOMAIN}']),
    (put("metadata", "name", "a" * 254), [f'metadata.name: Invalid value: "{"a" * 254}": must be no more than 253 characters']),
    (drop("metadata", "name"), ["metadata.name: Required value: name or generateName is required"]),
    (drop("metadata", "namespace"), ["metadata.namespace: Required value"]),
]  # fmt: skip

VOLUME_CREATE = [
    (drop("spec", "hostPath"), ["spec: Required value: must specify a volume type"]),
    (put("spec", "nfs", {"server": "s", "path": "/"}), ["spec.nfs: Forbidden: may not specify more than 1 volume type"]),
    (drop("spec", "capacity"), ["spec.capacity: Required value", 'spec.capacity: Unsupported value: core.ResourceList(nil): supported values: "storage"']),
    (put("spec", "capacity", "storage", "0"), ['spec.capacity[storage]: Invalid value: "0": must be greater than zero']),
    (put("spec", "capacity", "storage", "-1"), ['spec.capacity[storage]: Invalid value: -1: must be a valid resource quantity', 'spec.capacity[storage]: Invalid value: "-1": must be greater than zero']),
    (drop("spec", "accessModes"), ["spec.accessModes: Required value"]),
    (put("spec", "accessModes", ["Any"]), [f'spec.accessModes: Unsupported value: "Any": supported values: {MODES}']),
    (put("spec", "accessModes", ["ReadWriteOncePod", "ReadWriteOnce"]), ["spec.accessModes: Forbidden: may not use ReadWriteOncePod with other access modes"]),
    (put("spec", "persistentVolumeReclaimPolicy", "Burn"), ['spec.persistentVolumeReclaimPolicy: Unsupported value: "Burn": supported values: "Delete", "Recycle", "Retain"']),
    (both(put("spec", "hostPath", "path", "/x/.."), put("spec", "persistentVolumeReclaimPolicy", "Recycle")), ["spec.hostPath.path: Invalid value: \"/x/..\": must not contain '..'", "spec.persistentVolumeReclaimPolicy: Forbidden: may not be 'recycle' for a hostPath mount of '/'"]),
    (both(put("spec", "hostPath", "path", "/"), put("spec", "persistentVolumeReclaimPolicy", "Recycle")), ["spec.persistentVolumeReclaimPolicy: Forbidden: may not be 'recycle' for a hostPath mount of '/'"]),
    (put("spec", "persistentVolumeReclaimPolicy", "Recycle"), []),
    (put("spec", "hostPath", "path", "/a/../b"), ["spec.hostPath.path: Invalid value: \"/a/../b\": must not contain '..'"]),
    (put("spec", "hostPath", "path", "/a..b"), []),
    (both(drop("spec", "hostPath"), put("spec", "local", {"path": "/d"})), ["spec.nodeAffinity: Required value: Local volume requires node affinity"]),
    (both(drop("spec", "hostPath"), put("spec", "local", {"path": "/d/.."}), put("spec", "nodeAffinity", AFFINITY)), ["spec.local.path: Invalid value: \"/d/..\": must not contain '..'"]),
    (put("spec", "nodeAffinity", {}), ["spec.nodeAffinity.required: Required value: must specify required node constraints"]),
    (put("spec", "nodeAffinity", {"required": {}}), ["spec.nodeAffinity.required.nodeSelectorTerms: Required value: must have at least one node selector term"]),
    (both(drop("spec", "hostPath"), put("spec", "csi", {})), ["spec.csi.driver: Required value", 'spec.csi.driver: Invalid value: "": ' + names.subdomain("")[0], "spec.csi.volumeHandle: Required value"]),
    (both(drop("spec", "hostPath"), put("spec", "csi", {"driver": "D.example.com", "volumeHandle": "h"})), []),
    (both(drop("spec", "hostPath"), put("spec", "nfs", {"server": "s", "path": "data"})), ['spec.nfs.path: Invalid value: "data": must be an absolute path']),
    (put("spec", "storageClassName", "-"), [f'spec.storageClassName: Invalid value: "-": {SUBDOMAIN}']),
    (put("spec", "volumeMode", "Tape"), ['spec.volumeMode: Unsupported value: "Tape": supported values: "Block", "Filesystem"']),
    (put("spec", "mountOptions", ["ro"]), []),
    (put("metadata", "namespace", "kept-quiet"), []),
]  # fmt: skip

OTHER_CREATE = [
    (kinds.STORAGE_CLASS, drop("provisioner"), ["provisioner: Required value"]),
    (kinds.STORAGE_CLASS, put("reclaimPolicy", "Recycle"), ['reclaimPolicy: Unsupported value: "Recycle": supported values: "Delete", "Retain"']),
    (kinds.STORAGE_CLASS, put("volumeBindingMode", "Soon"), ['volumeBindingMode: Unsupported value: "Soon": supported values: "Immediate", "WaitForFirstConsumer"']),
    (kinds.STORAGE_CLASS, put("parameters", {"": "x"}), ['parameters: Invalid value: "": field can not be empty.']),
    (kinds.STORAGE_CLASS, put("parameters", {f"k{n}": "" for n in range(513)}), ["parameters: Too long: may not be more than 512 bytes"]),
    (kinds.STORAGE_CLASS, put("parameters", {"k": "x" * 2**18}), ["parameters: Too long: may not be more than 262144 bytes"]),
    (kinds.STORAGE_CLASS, put("allowedTopologies", [{"matchLabelExpressions": [{"key": "zone"}]}]), ["allowedTopologies[0].matchLabelExpressions[0].values: Required value"]),
    (kinds.VOLUME_ATTACHMENT, put("spec", "source", {}), ["spec.source: Required value: must specify exactly one of inlineVolumeSpec and persistentVolumeName"]),
    (kinds.VOLUME_ATTACHMENT, put("spec", "source", "inlineVolumeSpec", {}), ["spec.source: Forbidden: must specify exactly one of inlineVolumeSpec and persistentVolumeName"]),
    (kinds.CSI_NODE, drop("spec", "drivers"), []),
    (kinds.CSI_NODE, put("spec", "drivers", [{"name": "d", "nodeID": "i"}] * 2), ['spec.drivers[1].name: Duplicate value: "d"']),
    (kinds.CSI_NODE, put("spec", "drivers", [{"name": "d"}]), ["spec.drivers[0].nodeID: Required value"]),
    (kinds.CSI_DRIVER, put("spec", "fsGroupPolicy", "All"), ['spec.fsGroupPolicy: Unsupported value: "All": supported values: "File", "None", "ReadWriteOnceWithFSType"']),
    (kinds.CSI_DRIVER, put("metadata", "name", "d_x"), [f'metadata.name: Invalid value: "d_x": {SUBDOMAIN}']),
]  # fmt: skip


@pytest.mark.parametrize("kind", VALID, ids=lambda kind: kind.name)
def test_a_sound_object_is_accepted_and_may_be_written_again_unchanged(kind: Kind) -> None:
    rules = validation.of(kind)
    assert rules.create(VALID[kind]()) == []
    assert rules.update(VALID[kind](), VALID[kind]()) == []
    assert rules.status_update(VALID[kind](), VALID[kind]()) == []
    assert rules.warnings(VALID[kind](), None) == []


@pytest.mark.parametrize(
    ("kind", "change", "expected"),
    [(kinds.CLAIM, *row) for row in CLAIM_CREATE]
    + [(kinds.VOLUME, *row) for row in VOLUME_CREATE]
    + OTHER_CREATE,
)
def test_a_new_object_is_judged_in_the_words_of_kubernetes(
    kind: Kind, change: Change, expected: list[str]
) -> None:
    obj = VALID[kind]()
    change(obj)
    before = copy.deepcopy(obj)
    assert texts(validation.of(kind).create(obj)) == expected
    assert obj == before


def test_sources_that_differ_are_refused_without_comparing_the_printed_value() -> None:
    obj = claim()
    obj["spec"]["dataSource"] = {"kind": "PersistentVolumeClaim", "name": "a"}
    obj["spec"]["dataSourceRef"] = {"kind": "PersistentVolumeClaim", "name": "b"}
    (cause,) = validation.of(kinds.CLAIM).create(obj)
    assert cause.field == "spec"
    assert cause.message.endswith(": must match dataSourceRef")


SIZE = ("spec", "resources", "requests", "storage")
SHRUNK = "spec.resources.requests.storage: Forbidden: field can not be less than status.capacity"
CLAIM_UPDATE = [
    (claim, put("metadata", "labels", {"a": "b"}), []),
    (claim, put(*SIZE, "3Gi"), [f"spec: {SPEC_FIXED}"]),
    (claim, put(*SIZE, "1Gi"), [f"spec: {SPEC_FIXED}"]),
    (bound, put(*SIZE, "3Gi"), []),
    (bound, put(*SIZE, "1025Mi"), []),
    (bound, put(*SIZE, "1Gi"), [SHRUNK]),
    (bound, put(*SIZE, "1M"), [SHRUNK]),
    (bound, put("spec", "resources", "limits", {"storage": "9Gi"}), [f"spec: {SPEC_FIXED}"]),
    (claim, put("spec", "volumeName", "pv"), []),
    (bound, put("spec", "volumeName", "other"), [f"spec: {SPEC_FIXED}"]),
    (bound, drop("spec", "volumeName"), [f"spec: {SPEC_FIXED}"]),
    (claim, put("spec", "storageClassName", "slow"), [f"spec: {SPEC_FIXED}"]),
    (claim, put("spec", "accessModes", ["ReadOnlyMany"]), [f"spec: {SPEC_FIXED}"]),
    (
        claim,
        put("spec", "volumeMode", "Block"),
        [f"spec: {SPEC_FIXED}", 'volumeMode: Invalid value: "Block": field is immutable'],
    ),
    (
        claim,
        put("metadata", "annotations", {BETA: "fast"}),
        [f'metadata.annotations.{BETA}: Invalid value: "fast": field is immutable'],
    ),
    (
        claim,
        put("metadata", "name", "other"),
        ['metadata.name: Invalid value: "other": field is immutable'],
    ),
]


@pytest.mark.parametrize(("make", "change", "expected"), CLAIM_UPDATE)
def test_a_claim_changes_only_through_its_doors(
    make: Callable[[], Object], change: Change, expected: list[str]
) -> None:
    old, new = make(), make()
    change(new)
    assert texts(validation.of(kinds.CLAIM).update(new, old)) == expected
    assert old == make()


def test_a_claim_without_class_gets_one_at_any_time_even_the_empty_one() -> None:
    old = bound()
    del old["spec"]["storageClassName"]
    for name in ("fast", ""):
        new = copy.deepcopy(old)
        new["spec"]["storageClassName"] = name
        assert validation.of(kinds.CLAIM).update(new, old) == []
        assert validation.of(kinds.CLAIM).update(old, new) != []


def test_the_class_of_the_annotation_may_move_into_the_field_only_unchanged() -> None:
    old = claim()
    del old["spec"]["storageClassName"]
    old["metadata"]["annotations"] = {BETA: "fast"}
    rules = validation.of(kinds.CLAIM)
    moved = claim()
    assert rules.update(moved, old) == []
    kept = copy.deepcopy(moved)
    kept["metadata"]["annotations"] = {BETA: "fast"}
    assert rules.update(kept, old) == []
    other = copy.deepcopy(kept)
    other["spec"]["storageClassName"] = "slow"
    assert texts(rules.update(other, old)) == [f"spec: {SPEC_FIXED}"]
    removed = copy.deepcopy(old)
    del removed["metadata"]["annotations"]
    assert texts(rules.update(removed, old)) == [
        f'metadata.annotations.{BETA}: Invalid value: "": field is immutable'
    ]


CSI = {"driver": "d", "volumeHandle": "h"}
SECRET = {"name": "s", "namespace": "n"}
SOURCE_FIXED = (
    "spec.persistentvolumesource: Forbidden: "
    "spec.persistentvolumesource is immutable after creation"
)
AFFINITY_FIXED = "field is immutable, except for updating from beta label to GA"


@pytest.mark.parametrize(
    "change",
    [
        put("spec", "capacity", "storage", "5Gi"),
        put("spec", "accessModes", ["ReadOnlyMany"]),
        put("spec", "storageClassName", "slow"),
        put("spec", "persistentVolumeReclaimPolicy", "Delete"),
        put("spec", "claimRef", {"name": "c", "namespace": "n"}),
        put("spec", "mountOptions", ["ro"]),
        put("metadata", "labels", {"a": "b"}),
        put("spec", "nodeAffinity", AFFINITY),
    ],
)
def test_most_of_a_volume_may_change_at_any_time(change: Change) -> None:
    new = volume()
    change(new)
    assert validation.of(kinds.VOLUME).update(new, volume()) == []


def test_source_and_mode_of_a_volume_stay() -> None:
    rules = validation.of(kinds.VOLUME)
    moved, raw, swapped = volume(), volume(), volume()
    moved["spec"]["hostPath"]["path"] = "/other"
    raw["spec"]["volumeMode"] = "Block"
    swapped["spec"]["csi"] = CSI
    del swapped["spec"]["hostPath"]
    assert texts(rules.update(moved, volume())) == [SOURCE_FIXED]
    assert texts(rules.update(swapped, volume())) == [SOURCE_FIXED]
    assert texts(rules.update(raw, volume())) == [
        'volumeMode: Invalid value: "Block": field is immutable'
    ]


def test_the_secret_for_growing_may_be_added_once() -> None:
    rules = validation.of(kinds.VOLUME)
    plain, secret, other = (volume() for _ in range(3))
    for obj, csi in (
        (plain, CSI),
        (secret, {**CSI, "controllerExpandSecretRef": SECRET}),
        (other, {**CSI, "controllerExpandSecretRef": {**SECRET, "name": "t"}}),
    ):
        del obj["spec"]["hostPath"]
        obj["spec"]["csi"] = csi
    assert rules.update(secret, plain) == []
    assert texts(rules.update(other, secret)) == [SOURCE_FIXED]
    assert texts(rules.update(plain, secret)) == [SOURCE_FIXED]


def with_affinity(key: str, value: str = "n") -> Object:
    obj = volume()
    obj["spec"]["nodeAffinity"] = copy.deepcopy(AFFINITY)
    expression = obj["spec"]["nodeAffinity"]["required"]["nodeSelectorTerms"][0][
        "matchExpressions"
    ][0]
    expression.update(key=key, values=[value])
    return obj


def test_affinity_is_set_once_and_then_only_its_beta_labels_are_renamed() -> None:
    rules = validation.of(kinds.VOLUME)
    beta = with_affinity("failure-domain.beta.kubernetes.io/zone")
    final = with_affinity("topology.kubernetes.io/zone")
    assert rules.update(final, beta) == []
    for new, old in (
        (beta, final),
        (with_affinity("topology.kubernetes.io/zone", "m"), beta),
        (volume(), final),
    ):
        (cause,) = rules.update(new, old)
        assert cause.field == "nodeAffinity"
        assert cause.message.endswith(AFFINITY_FIXED)


@pytest.mark.parametrize(
    ("kind", "change", "expected"),
    [
        (kinds.STORAGE_CLASS, put("parameters", {}), ["parameters: Forbidden: updates to parameters are forbidden."]),
        (kinds.STORAGE_CLASS, put("provisioner", "x"), ["provisioner: Forbidden: updates to provisioner are forbidden."]),
        (kinds.STORAGE_CLASS, put("reclaimPolicy", "Retain"), ["reclaimPolicy: Forbidden: updates to reclaimPolicy are forbidden."]),
        (kinds.STORAGE_CLASS, put("volumeBindingMode", "WaitForFirstConsumer"), ['volumeBindingMode: Invalid value: "WaitForFirstConsumer": field is immutable']),
        (kinds.STORAGE_CLASS, put("allowVolumeExpansion", True), []),
        (kinds.STORAGE_CLASS, put("mountOptions", ["ro"]), []),
        (kinds.STORAGE_CLASS, put("allowedTopologies", [{"matchLabelExpressions": [{"key": "z", "values": ["a"]}]}]), []),
        (kinds.CSI_DRIVER, put("spec", "attachRequired", False), ["spec.attachedRequired: Invalid value: false: field is immutable"]),
        (kinds.CSI_DRIVER, put("spec", "volumeLifecycleModes", ["Ephemeral"]), ['spec.volumeLifecycleModes: Invalid value: ["Ephemeral"]: field is immutable']),
        (kinds.CSI_DRIVER, put("spec", "podInfoOnMount", True), []),
        (kinds.CSI_NODE, put("spec", "drivers", []), []),
        (kinds.CSI_NODE, put("spec", "drivers", [{"name": "e", "nodeID": "i"}]), []),
        (kinds.VOLUME_ATTACHMENT, put("status", {"attached": True}), []),
    ],
)  # fmt: skip
def test_other_storage_kinds_keep_what_pods_rely_on(
    kind: Kind, change: Change, expected: list[str]
) -> None:
    new = VALID[kind]()
    change(new)
    assert texts(validation.of(kind).update(new, VALID[kind]())) == expected


@pytest.mark.parametrize(
    ("kind", "change", "field"),
    [
        (kinds.VOLUME_ATTACHMENT, put("spec", "nodeName", "n2"), "spec"),
        (kinds.CSI_NODE, put("spec", "drivers", 0, "nodeID", "i-2"), "CSINodeDriver"),
    ],
)
def test_an_attachment_and_a_drivers_entry_are_fixed(
    kind: Kind, change: Change, field: str
) -> None:
    new = VALID[kind]()
    change(new)
    (cause,) = validation.of(kind).update(new, VALID[kind]())
    assert cause.field == field
    assert cause.message.endswith(": field is immutable")


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        ({"phase": "Anything", "capacity": {"storage": "5Gi"}}, []),
        ({"capacity": {"storage": "-1"}}, ['status.capacity[storage]: Invalid value: -1: must be a valid resource quantity']),
        ({"allocatedResourceStatuses": {"storage": "NodeResizePending"}}, []),
        ({"allocatedResourceStatuses": {"storage": "Odd"}}, ['status.allocatedResourceStatus: Unsupported value: storage: supported values: "ControllerResizeInProgress", "ControllerResizeInfeasible", "NodeResizeInProgress", "NodeResizeInfeasible", "NodeResizePending"']),
        ({"allocatedResources": {"cpu": "1"}}, ['status.allocatedResources: Unsupported value: "cpu": supported values: "storage"']),
        ({"allocatedResources": {"storage": "1Gi"}}, []),
    ],
)  # fmt: skip
def test_a_claims_status_is_checked_for_amounts_and_resize_states(
    status: Object, expected: list[str]
) -> None:
    new = {**bound(), "status": status}
    assert texts(validation.of(kinds.CLAIM).status_update(new, bound())) == expected


@pytest.mark.parametrize(
    ("kind", "change", "expected"),
    [
        (kinds.CLAIM, put("spec", "resources", "requests", "storage", "100m"), ['spec.resources.requests[storage]: fractional byte value "100m" is invalid, must be an integer']),
        (kinds.CLAIM, put("metadata", "annotations", {BETA: "x"}), [f'metadata.annotations[{BETA}]: deprecated since v1.8; use "storageClassName" attribute instead']),
        (kinds.VOLUME, put("spec", "rbd", {}), ["spec.rbd: deprecated in v1.28, non-functional in v1.31+"]),
        (kinds.VOLUME, put("spec", "persistentVolumeReclaimPolicy", "Recycle"), ["spec.persistentVolumeReclaimPolicy: The Recycle reclaim policy is deprecated. Instead, the recommended approach is to use dynamic provisioning."]),
    ],
)  # fmt: skip
def test_unwise_but_accepted_values_give_warnings(
    kind: Kind, change: Change, expected: list[str]
) -> None:
    obj = VALID[kind]()
    change(obj)
    assert validation.of(kind).warnings(obj, None) == expected
