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
        ("a.example.com/disks", "1500m", 'Invalid value: "1500m": must be an integer'),
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


def scoped(hard: Object, **spec: Any) -> list[str]:
    obj = quota(**hard)
    obj["spec"] |= spec
    return [cause.text() for cause in validation.of(kinds.RESOURCE_QUOTA).create(obj)]


def test_scopes_that_fit_their_limits_are_taken() -> None:
    hard = {"pods": "1", "requests.cpu": "1", "limits.memory": "1Gi"}
    assert scoped(hard, scopes=["NotBestEffort", "Terminating"]) == []
    assert scoped({"pods": "1"}, scopes=["BestEffort"]) == []
    one = {"scopeName": "PriorityClass", "operator": "In", "values": ["gold"]}
    assert scoped(hard, scopeSelector={"matchExpressions": [one]}) == []


def test_pods_that_ask_for_nothing_have_no_limit_of_processor() -> None:
    assert scoped({"requests.cpu": "1"}, scopes=["BestEffort"]) == [
        'spec.scopes: Invalid value: []core.ResourceQuotaScope{"BestEffort"}: '
        "unsupported scope applied to resource"
    ]


def test_a_condition_needs_a_known_operator_with_fitting_values() -> None:
    def complaints(operator: str, *values: str) -> list[str]:
        one = {"scopeName": "PriorityClass", "operator": operator, "values": list(values)}
        return scoped({"pods": "1"}, scopeSelector={"matchExpressions": [one]})

    at = "spec.scopeSelector.matchExpressions"
    assert complaints("Exists") == complaints("NotIn", "a") == []
    (text,) = complaints("NotIn")
    assert text.startswith(f"{at}.values: Required value: must be at least one value")
    (text,) = complaints("Exists", "a")
    assert text.startswith(f'{at}.values: Invalid value: []string{{"a"}}: must be no value')
    (text,) = complaints("Like")
    assert text == f'{at}.operator: Invalid value: "Like": not a valid selector operator'


def test_a_resource_that_is_none_is_named_without_quotes() -> None:
    assert said({"disks": "1"}) == [
        "spec.hard[disks]: Invalid value: disks: must be a standard resource type or "
        "fully qualified",
        "spec.hard[disks]: Invalid value: disks: must be a standard resource for quota",
    ]
