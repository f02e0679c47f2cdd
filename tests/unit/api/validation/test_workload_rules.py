# ruff: noqa: E501 (tables of cases read best with one case per line)
"""Rules of Deployment, ReplicaSet, StatefulSet and ControllerRevision."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from holdfast.api import kinds, validation
from holdfast.api.kinds import Kind

Object = dict[str, Any]


def workload(kind: Kind, **spec: Any) -> Object:
    obj = {
        "metadata": {"name": "web", "namespace": "n"},
        "spec": {
            "selector": {"matchLabels": {"app": "web"}},
            "template": {
                "metadata": {"labels": {"app": "web"}},
                "spec": {"containers": [{"name": "main", "image": "app:1"}]},
            },
            **({"serviceName": "web"} if kind is kinds.STATEFUL_SET else {}),
            **spec,
        },
    }
    return kind.shape.default(kind.shape.decode(obj))


def said(kind: Kind, **spec: Any) -> list[str]:
    return [cause.text() for cause in validation.of(kind).create(workload(kind, **spec))]


def template(labels: dict[str, str] | None = None, **pod: Any) -> Object:
    spec = {"containers": [{"name": "main", "image": "app:1"}], **pod}
    return {"metadata": {"labels": {"app": "web"} if labels is None else labels}, "spec": spec}


WORKLOADS = (kinds.DEPLOYMENT, kinds.REPLICA_SET, kinds.STATEFUL_SET)


@pytest.mark.parametrize("kind", WORKLOADS, ids=lambda kind: kind.name)
def test_a_plain_workload_is_accepted_and_may_stay_as_it_is(kind: Kind) -> None:
    obj = workload(kind)
    assert validation.of(kind).create(obj) == []
    assert validation.of(kind).update(copy.deepcopy(obj), obj) == []


@pytest.mark.parametrize("kind", WORKLOADS, ids=lambda kind: kind.name)
@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ({"replicas": -1}, "spec.replicas: Invalid value: -1: must be greater than or equal to 0"),
        ({"minReadySeconds": -1}, "spec.minReadySeconds: Invalid value: -1: must be greater than or equal to 0"),
        ({"template": template({"app": "other"})}, 'spec.template.metadata.labels: Invalid value: map[string]string{"app":"other"}: `selector` does not match template `labels`'),
        ({"template": template({})}, "spec.template.metadata.labels: Invalid value: map[string]string(nil): `selector` does not match template `labels`"),
        ({"template": template(restartPolicy="Never")}, 'spec.template.spec.restartPolicy: Unsupported value: "Never": supported values: "Always"'),
    ],
)  # fmt: skip
def test_what_every_workload_refuses(kind: Kind, spec: Object, expected: str) -> None:
    assert said(kind, **spec) == [expected]


@pytest.mark.parametrize("kind", [kinds.DEPLOYMENT, kinds.REPLICA_SET, kinds.STATEFUL_SET])
def test_no_selector_fits_no_template(kind: Kind) -> None:
    assert said(kind, selector=None) == [
        "spec.selector: Required value",
        'spec.template.metadata.labels: Invalid value: map[string]string{"app":"web"}: '
        "`selector` does not match template `labels`",
    ]


@pytest.mark.parametrize(
    ("kind", "word"),
    [(kinds.DEPLOYMENT, "deployment"), (kinds.REPLICA_SET, "deployment"), (kinds.STATEFUL_SET, "statefulset")],
)  # fmt: skip
def test_a_selector_that_selects_everything_is_refused(kind: Kind, word: str) -> None:
    shown = "v1.LabelSelector{MatchLabels:map[string]string(nil), MatchExpressions:[]v1.LabelSelectorRequirement(nil)}"
    assert said(kind, selector={}) == [
        f"spec.selector: Invalid value: {shown}: empty selector is invalid for {word}"
    ]


def test_the_pod_of_a_deployment_is_checked_below_its_template() -> None:
    pod = template(containers=[{"name": "main", "image": ""}])
    assert said(kinds.DEPLOYMENT, template=pod) == [
        "spec.template.spec.containers[0].image: Required value"
    ]


def test_a_stateful_pod_may_mount_what_only_its_claim_templates_have() -> None:
    mount = {"name": "data", "mountPath": "/data"}
    pod = template(containers=[{"name": "main", "image": "app:1", "volumeMounts": [mount]}])
    assert said(kinds.STATEFUL_SET, template=pod) == []
    assert said(kinds.DEPLOYMENT, template=pod) != []


ZERO = 'intstr.IntOrString{Type:0, IntVal:0, StrVal:""}'


@pytest.mark.parametrize(
    ("strategy", "expected"),
    [
        ({"type": "Recreate"}, []),
        ({"type": "Recreate", "rollingUpdate": {"maxSurge": 1}}, ["spec.strategy.rollingUpdate: Forbidden: may not be specified when strategy `type` is 'Recreate'"]),
        ({"type": "Blue"}, ['spec.strategy: Unsupported value: {"type":"Blue"}: supported values: "Recreate", "RollingUpdate"']),
        ({"rollingUpdate": {"maxSurge": 0, "maxUnavailable": 0}}, [f"spec.strategy.rollingUpdate.maxUnavailable: Invalid value: {ZERO}: may not be 0 when `maxSurge` is 0"]),
        ({"rollingUpdate": {"maxSurge": 1, "maxUnavailable": "0%"}}, []),
        ({"rollingUpdate": {"maxUnavailable": "120%"}}, ['spec.strategy.rollingUpdate.maxUnavailable: Invalid value: intstr.IntOrString{Type:1, IntVal:0, StrVal:"120%"}: must not be greater than 100%']),
        ({"rollingUpdate": {"maxSurge": -1}}, ['spec.strategy.rollingUpdate.maxSurge: Invalid value: intstr.IntOrString{Type:0, IntVal:-1, StrVal:""}: must be greater than or equal to 0']),
        ({"rollingUpdate": {"maxSurge": "many"}}, ["spec.strategy.rollingUpdate.maxSurge: Invalid value: intstr.IntOrString{Type:1, IntVal:0, StrVal:\"many\"}: a valid percent string must be a numeric string followed by an ending '%' (e.g. '1%',  or '93%', regex used for validation is '[0-9]+%')"]),
    ],
)  # fmt: skip
def test_the_strategy_of_a_deployment(strategy: Object, expected: list[str]) -> None:
    assert said(kinds.DEPLOYMENT, strategy=strategy) == expected


def test_the_progress_deadline_outlasts_the_wait_for_readiness() -> None:
    assert said(kinds.DEPLOYMENT, progressDeadlineSeconds=5, minReadySeconds=5) == [
        "spec.progressDeadlineSeconds: Invalid value: 5: must be greater than minReadySeconds"
    ]


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ({"podManagementPolicy": "Any"}, ["spec.podManagementPolicy: Invalid value: \"Any\": must be 'OrderedReady' or 'Parallel'"]),
        ({"podManagementPolicy": "Parallel"}, []),
        ({"updateStrategy": {"type": "OnDelete"}}, []),
        ({"updateStrategy": {"type": "OnDelete", "rollingUpdate": {"partition": 1}}}, ["spec.updateStrategy.rollingUpdate: Invalid value: {\"partition\":1}: only allowed for updateStrategy 'RollingUpdate'"]),
        ({"updateStrategy": {"rollingUpdate": {"partition": -1}}}, ["spec.updateStrategy.rollingUpdate.partition: Invalid value: -1: must be greater than or equal to 0"]),
        ({"persistentVolumeClaimRetentionPolicy": {"whenScaled": "Keep"}}, ['spec.persistentVolumeClaimRetentionPolicy.whenScaled: Unsupported value: "Keep": supported values: "Retain", "Delete"']),
        ({"ordinals": {"start": -1}}, ["spec.ordinals.start: Invalid value: -1: must be greater than or equal to 0"]),
    ],
)  # fmt: skip
def test_what_only_a_stateful_set_says(spec: Object, expected: list[str]) -> None:
    assert said(kinds.STATEFUL_SET, **spec) == expected


@pytest.mark.parametrize("kind", [kinds.DEPLOYMENT, kinds.REPLICA_SET], ids=lambda kind: kind.name)
def test_a_selector_cannot_be_changed(kind: Kind) -> None:
    old = workload(kind)
    labels = {"app": "web", "tier": "front"}
    new = workload(kind, selector={"matchLabels": {"tier": "front"}}, template=template(labels))
    (cause,) = validation.of(kind).update(new, old)
    assert cause.text() == (
        'spec.selector: Invalid value: v1.LabelSelector{MatchLabels:map[string]string{"tier":"front"}, '
        "MatchExpressions:[]v1.LabelSelectorRequirement(nil)}: field is immutable"
    )


@pytest.mark.parametrize(
    ("part", "value", "allowed"),
    [
        ("replicas", 5, True),
        ("template", template({"app": "web", "v": "2"}), True),
        ("minReadySeconds", 3, True),
        ("ordinals", {"start": 2}, True),
        ("updateStrategy", {"type": "OnDelete"}, True),
        ("persistentVolumeClaimRetentionPolicy", {"whenScaled": "Delete", "whenDeleted": "Retain"}, True),
        ("serviceName", "other", False),
        ("podManagementPolicy", "Parallel", False),
        ("volumeClaimTemplates", [{"metadata": {"name": "data"}, "spec": {}}], False),
        ("selector", {"matchLabels": {"app": "web", "v": "1"}}, False),
    ],
)  # fmt: skip
def test_little_of_a_stateful_set_may_change(part: str, value: Any, allowed: bool) -> None:
    more = {"template": template({"app": "web", "v": "1"})} if part == "selector" else {}
    old = workload(kinds.STATEFUL_SET, **more)
    new = workload(kinds.STATEFUL_SET, **{**more, part: value})
    texts = [cause.text() for cause in validation.of(kinds.STATEFUL_SET).update(new, old)]
    refused = (
        "spec: Forbidden: updates to statefulset spec for fields other than 'replicas', 'ordinals', "
        "'template', 'updateStrategy', 'persistentVolumeClaimRetentionPolicy' and 'minReadySeconds' "
        "are forbidden"
    )
    assert texts == ([] if allowed else [refused])


def test_a_status_counts_no_more_than_there_is() -> None:
    old = workload(kinds.DEPLOYMENT)
    status = {"replicas": 2, "readyReplicas": 1, "availableReplicas": 2, "updatedReplicas": 3}
    causes = validation.of(kinds.DEPLOYMENT).status_update({**old, "status": status}, old)
    assert [cause.text() for cause in causes] == [
        "status.updatedReplicas: Invalid value: 3: cannot be greater than status.replicas",
        "status.availableReplicas: Invalid value: 2: cannot be greater than readyReplicas",
    ]


def test_a_revision_needs_content_and_keeps_it() -> None:
    rules = validation.of(kinds.CONTROLLER_REVISION)
    meta = {"metadata": {"name": "web-1", "namespace": "n"}}
    old = {**meta, "revision": 1, "data": {"a": 1}}
    assert rules.create(old) == []
    assert [c.text() for c in rules.create({**meta, "revision": -1})] == [
        "revision: Invalid value: -1: must be greater than or equal to 0",
        "data: Required value: data is mandatory",
    ]
    assert rules.update({**old, "revision": 2}, old) == []
    (cause,) = rules.update({**old, "data": {"a": 2}}, old)
    assert cause.text() == 'data: Invalid value: {"a":2}: field is immutable'


def test_defaults_are_those_of_kubernetes() -> None:
    deployment = workload(kinds.DEPLOYMENT)["spec"]
    assert deployment["strategy"] == {
        "type": "RollingUpdate",
        "rollingUpdate": {"maxUnavailable": "25%", "maxSurge": "25%"},
    }
    assert (deployment["replicas"], deployment["revisionHistoryLimit"]) == (1, 10)
    assert deployment["progressDeadlineSeconds"] == 600
    claim = {"metadata": {"name": "data"}, "spec": {}}
    stateful = workload(kinds.STATEFUL_SET, volumeClaimTemplates=[claim])["spec"]
    assert stateful["podManagementPolicy"] == "OrderedReady"
    assert stateful["updateStrategy"] == {
        "type": "RollingUpdate",
        "rollingUpdate": {"partition": 0},
    }
    assert stateful["persistentVolumeClaimRetentionPolicy"] == {
        "whenDeleted": "Retain",
        "whenScaled": "Retain",
    }
    (made,) = stateful["volumeClaimTemplates"]
    assert (made["kind"], made["apiVersion"]) == ("PersistentVolumeClaim", "v1")
    assert (made["spec"]["volumeMode"], made["status"]["phase"]) == ("Filesystem", "Pending")
