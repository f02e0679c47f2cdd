"""Rules of ResourceQuota."""

from __future__ import annotations

from typing import Any

import pytest

from holdfast.api import kinds, validation

Object = dict[str, Any]


def quota(**hard: str) -> Object:
    return {"metadata": {"name": "q", "namespace": "n"}, "spec": {"hard": hard}}


def said(hard: Object) -> list[str]:
    return [cause.text() for cause in validation.of(kinds.RESOURCE_QUOTA).create(quota(**hard))]


def test_storage_counts_and_classes_may_be_limited() -> None:
    hard = {
        "requests.storage": "10Gi",
        "persistentvolumeclaims": "5",
        "gold.storageclass.storage.k8s.io/requests.storage": "1Gi",
        "gold.storageclass.storage.k8s.io/persistentvolumeclaims": "2",
        "count/secrets": "7",
        "limits.memory": "1Gi",
    }
    assert said(hard) == []


@pytest.mark.parametrize(
    ("name", "amount", "text"),
    [
        ("disks", "1", 'Invalid value: "disks": must be a standard resource for quota'),
        ("persistentvolumeclaims", "1500m", 'Invalid value: "1500m": must be an integer'),
        ("requests.storage", "-1", 'Invalid value: "-1": must be greater than or equal to 0'),
    ],
)
def test_what_cannot_be_limited_is_named(name: str, amount: str, text: str) -> None:
    assert said({name: amount}) == [f"spec.hard[{name}]: {text}"]


def test_scopes_stay() -> None:
    old = quota(pods="1")
    old["metadata"]["resourceVersion"] = "1"
    new = {**old, "spec": {**old["spec"], "scopes": ["BestEffort"]}}
    causes = validation.of(kinds.RESOURCE_QUOTA).update(new, old)
    assert [(cause.field, cause.reason) for cause in causes] == [
        ("spec.scopes", "FieldValueInvalid")
    ]
