"""Rules of the snapshot kinds."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from holdfast.api import kinds, validation

Object = dict[str, Any]


def snapshot(**spec: Any) -> Object:
    source = {"persistentVolumeClaimName": "data"}
    return {"metadata": {"name": "s", "namespace": "n"}, "spec": {"source": source, **spec}}


def content(**spec: Any) -> Object:
    full = {
        "deletionPolicy": "Delete",
        "driver": "d",
        "source": {"volumeHandle": "v"},
        "volumeSnapshotRef": {"name": "s", "namespace": "n"},
        "sourceVolumeMode": "Filesystem",
        **spec,
    }
    return {"metadata": {"name": "c"}, "spec": full}


def texts(causes: list[Any]) -> list[str]:
    return [cause.text() for cause in causes]


def test_sound_objects_are_accepted() -> None:
    assert validation.of(kinds.SNAPSHOT).create(snapshot()) == []
    assert validation.of(kinds.SNAPSHOT_CONTENT).create(content()) == []
    sound = {"metadata": {"name": "c"}, "driver": "d", "deletionPolicy": "Retain"}
    assert validation.of(kinds.SNAPSHOT_CLASS).create(sound) == []


ONE = "exactly one of volumeSnapshotContentName and persistentVolumeClaimName must be set"


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ({"source": {}}, f'spec.source: Invalid value: "object": {ONE}'),
        (
            {"source": {"persistentVolumeClaimName": "a", "volumeSnapshotContentName": "b"}},
            f'spec.source: Invalid value: "object": {ONE}',
        ),
        (
            {"volumeSnapshotClassName": ""},
            'spec.volumeSnapshotClassName: Invalid value: "string": '
            "volumeSnapshotClassName must not be the empty string when set",
        ),
    ],
)
def test_a_snapshot_has_one_source_and_a_named_class(spec: Object, said: str) -> None:
    assert texts(validation.of(kinds.SNAPSHOT).create(snapshot(**spec))) == [said]


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ({"driver": ""}, "spec.driver: Required value"),
        (
            {"deletionPolicy": "Keep"},
            'spec.deletionPolicy: Unsupported value: "Keep": supported values: "Delete", "Retain"',
        ),
        (
            {"source": {}},
            'spec.source: Invalid value: "object": '
            "exactly one of volumeHandle and snapshotHandle must be set",
        ),
        (
            {"volumeSnapshotRef": {"name": "s"}},
            'spec.volumeSnapshotRef: Invalid value: "object": both spec.volumeSnapshotRef.name '
            "and spec.volumeSnapshotRef.namespace must be set",
        ),
    ],
)
def test_a_content_says_what_it_is(spec: Object, said: str) -> None:
    assert texts(validation.of(kinds.SNAPSHOT_CONTENT).create(content(**spec))) == [said]


def test_a_class_has_a_driver_and_a_policy() -> None:
    rules = validation.of(kinds.SNAPSHOT_CLASS)
    assert texts(rules.create({"metadata": {"name": "c"}})) == [
        "deletionPolicy: Required value",
        "driver: Required value",
    ]


def changed(obj: Object, **spec: Any) -> Object:
    new = copy.deepcopy(obj)
    new["metadata"]["resourceVersion"] = obj["metadata"]["resourceVersion"] = "1"
    new["spec"] |= spec
    return new


def test_a_source_stays() -> None:
    old = snapshot()
    new = changed(old, source={"persistentVolumeClaimName": "other"})
    assert texts(validation.of(kinds.SNAPSHOT).update(new, old)) == [
        'spec.source.persistentVolumeClaimName: Invalid value: "string": '
        "persistentVolumeClaimName is immutable"
    ]
    old = content()
    new = changed(old, source={"snapshotHandle": "x"})
    assert texts(validation.of(kinds.SNAPSHOT_CONTENT).update(new, old)) == [
        'spec.source: Invalid value: "object": volumeHandle is required once set'
    ]
    new = changed(old, sourceVolumeMode="Block")
    assert texts(validation.of(kinds.SNAPSHOT_CONTENT).update(new, old)) == [
        'spec.sourceVolumeMode: Invalid value: "string": sourceVolumeMode is immutable'
    ]


def test_a_policy_may_change() -> None:
    old = content()
    assert (
        validation.of(kinds.SNAPSHOT_CONTENT).update(changed(old, deletionPolicy="Retain"), old)
        == []
    )
