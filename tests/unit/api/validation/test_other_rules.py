# ruff: noqa: E501 (tables of cases read best with one case per line)
"""Rules of metadata and of the kinds around storage."""

from __future__ import annotations

import base64
import copy
from collections.abc import Callable
from typing import Any

import pytest

from holdfast.api import kinds, validation
from holdfast.api.kinds import Kind
from holdfast.api.validation import names

Object = dict[str, Any]


def pod() -> Object:
    return {
        "metadata": {"name": "p", "namespace": "n"},
        "spec": {
            "restartPolicy": "Always",
            "dnsPolicy": "ClusterFirst",
            "terminationGracePeriodSeconds": 30,
            "volumes": [{"name": "d", "persistentVolumeClaim": {"claimName": "c"}}],
            "containers": [
                {
                    "name": "main",
                    "image": "app:1",
                    "volumeMounts": [{"name": "d", "mountPath": "/d"}],
                }
            ],
        },
    }


def in_namespace(**content: Any) -> Object:
    return {"metadata": {"name": "x", "namespace": "n"}, **content}


def in_cluster(**content: Any) -> Object:
    return {"metadata": {"name": "x"}, **content}


def encoded(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


VALID: dict[Kind, Object] = {
    kinds.NAMESPACE: in_cluster(spec={"finalizers": ["kubernetes"]}),
    kinds.NODE: in_cluster(spec={"taints": [{"key": "a/b", "effect": "NoSchedule"}]}),
    kinds.POD: pod(),
    kinds.SECRET: in_namespace(type="Opaque", data={"a.b": encoded("x")}),
    kinds.CONFIG_MAP: in_namespace(data={"a": "x"}, binaryData={"b": encoded("y")}),
    kinds.SERVICE: in_namespace(
        spec={"type": "ClusterIP", "ports": [{"port": 80, "protocol": "TCP"}]}
    ),
    kinds.ENDPOINTS: in_namespace(
        subsets=[{"addresses": [{"ip": "10.0.0.1"}], "ports": [{"port": 1, "protocol": "TCP"}]}]
    ),
    kinds.EVENT: in_namespace(involvedObject={"namespace": "n", "name": "p"}),
    kinds.SERVICE_ACCOUNT: in_namespace(),
    kinds.LEASE: in_namespace(spec={"leaseDurationSeconds": 15, "leaseTransitions": 0}),
}


def test_every_served_kind_has_rules() -> None:
    assert set(validation.RULES) == set(kinds.ALL)


@pytest.mark.parametrize("kind", VALID, ids=lambda kind: kind.name)
def test_a_sound_object_is_accepted(kind: Kind) -> None:
    rules = validation.of(kind)
    assert rules.create(VALID[kind]) == []
    assert rules.update(VALID[kind], copy.deepcopy(VALID[kind])) == []


def said(kind: Kind, obj: Object) -> list[str]:
    return [cause.text() for cause in validation.of(kind).create(obj)]


@pytest.mark.parametrize(
    ("meta", "expected"),
    [
        ({"labels": {"a b": "x"}}, ['metadata.labels: Invalid value: "a b": name part']),
        ({"labels": {"a": "-"}}, ['metadata.labels: Invalid value: "-": a valid label must']),
        ({"labels": {"A/b": "x"}}, ['metadata.labels: Invalid value: "A/b": prefix part']),
        ({"labels": {"a/b/c": ""}}, ['metadata.labels: Invalid value: "a/b/c": a qualified name']),
        ({"annotations": {"Example.com/x": "any text"}}, []),
        ({"annotations": {"x": "é" * 131072}}, ["metadata.annotations: Too long: may not be more"]),
        ({"annotations": {"x": "e" * 262143}}, []),
        ({"finalizers": ["mine"]}, ['metadata.finalizers[0]: Invalid value: "mine": name is neit']),
        ({"finalizers": ["foregroundDeletion", "example.com/x"]}, []),
        ({"ownerReferences": [{"apiVersion": "v1", "kind": "Pod", "name": "p", "uid": "u"}]}, []),
        (
            {"ownerReferences": [{"apiVersion": "v1", "kind": "Pod", "name": "p"}]},
            ['metadata.ownerReferences.uid: Invalid value: "": uid must not be empty'],
        ),
        ({"generateName": "ok-"}, []),
        ({"generateName": "No-"}, ['metadata.generateName: Invalid value: "No-": a lowercase']),
    ],
)
def test_metadata_is_checked_alike_for_all_kinds(meta: Object, expected: list[str]) -> None:
    found = said(kinds.SERVICE_ACCOUNT, {"metadata": {"name": "x", "namespace": "n", **meta}})
    assert len(found) == len(expected)
    for text, start in zip(found, expected, strict=True):
        assert text.startswith(start)


def test_a_terminating_object_takes_no_new_finalizers_but_may_lose_one() -> None:
    old = {"name": "x", "deletionTimestamp": "t", "finalizers": ["a/b"]}
    rules = validation.of(kinds.NAMESPACE)
    added = {"metadata": {**old, "finalizers": ["a/b", "c/d"]}}
    (cause,) = rules.update(added, {"metadata": old})
    assert cause.field == "metadata.finalizers"
    assert cause.message.endswith('found new finalizers []string{"c/d"}')
    assert rules.update({"metadata": {**old, "finalizers": []}}, {"metadata": old}) == []


def test_names_say_every_thing_that_is_wrong() -> None:
    assert len(names.label("A" * 64)) == 2
    assert names.label("a" * 63) == ()
    assert names.label_1035("1a") != ()
    assert names.subdomain("a\n") != ()
    assert names.path_segment("a/b") == ("may not contain '/'",)


def edit(part: str, value: Any) -> Callable[[Object], None]:
    def change(obj: Object) -> None:
        obj["spec"][part] = value

    return change


def in_container(part: str, value: Any) -> Callable[[Object], None]:
    def change(obj: Object) -> None:
        obj["spec"]["containers"][0][part] = value

    return change


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (edit("containers", []), ["spec.containers: Required value"]),
        (in_container("name", ""), ["spec.containers[0].name: Required value"]),
        (in_container("image", ""), ["spec.containers[0].image: Required value"]),
        (
            edit("restartPolicy", "Maybe"),
            [
                'spec.restartPolicy: Unsupported value: "Maybe": '
                'supported values: "Always", "OnFailure", "Never"'
            ],
        ),
        (edit("volumes", []), ['spec.containers[0].volumeMounts[0].name: Not found: "d"']),
        (
            edit("volumes", [{"name": "d", "persistentVolumeClaim": {}}]),
            ["spec.volumes[0].persistentVolumeClaim.claimName: Required value"],
        ),
        (
            edit("volumes", [{"name": "d"}]),
            ["spec.volumes[0]: Required value: must specify a volume type"],
        ),
        (
            edit("volumes", [{"name": "d", "emptyDir": {}, "hostPath": {"path": "/"}}]),
            ["spec.volumes[0].hostPath: Forbidden: may not specify more than 1 volume type"],
        ),
        (
            edit("volumes", [{"name": "d", "emptyDir": {}}, {"name": "d", "emptyDir": {}}]),
            ['spec.volumes[1].name: Duplicate value: "d"'],
        ),
        (
            in_container("volumeMounts", [{"name": "d"}]),
            ["spec.containers[0].volumeMounts[0].mountPath: Required value"],
        ),
        (
            in_container("volumeMounts", [{"name": "d", "mountPath": "/d"}] * 2),
            [
                'spec.containers[0].volumeMounts[1].mountPath: Invalid value: "/d": must be unique',
            ],
        ),
        (
            in_container("volumeMounts", [{"name": "d", "mountPath": "/d", "subPath": "../x"}]),
            [
                "spec.containers[0].volumeMounts.subPath: "
                "Invalid value: \"../x\": must not contain '..'"
            ],
        ),
        (
            in_container("volumeDevices", [{"name": "d", "devicePath": "/e"}]),
            [
                'spec.containers[0].volumeMounts[0].name: Invalid value: "d": '
                "must not already exist in volumeDevices",
                'spec.containers[0].volumeDevices[0].name: Invalid value: "d": '
                "must not already exist in volumeMounts",
            ],
        ),
        (
            in_container("resources", {"requests": {"cpu": "2"}, "limits": {"cpu": "500m"}}),
            [
                'spec.containers[0].resources.requests: Invalid value: "2": '
                "must be less than or equal to cpu limit of 500m"
            ],
        ),
        (
            in_container("ports", [{"containerPort": 70000, "protocol": "TCP"}]),
            [
                "spec.containers[0].ports[0].containerPort: Invalid value: 70000: "
                "must be between 1 and 65535, inclusive"
            ],
        ),
        (
            edit("volumes", [{"name": "d", "ephemeral": {"volumeClaimTemplate": {"spec": {}}}}]),
            [
                "spec.volumes[0].ephemeral.volumeClaimTemplate.spec.accessModes: "
                "Required value: at least 1 access mode is required",
                "spec.volumes[0].ephemeral.volumeClaimTemplate.spec.resources[storage]: "
                "Required value",
            ],
        ),
    ],
)
def test_a_pod_is_refused_for(change: Callable[[Object], None], expected: list[str]) -> None:
    obj = pod()
    change(obj)
    if any(text.startswith("spec.volumes[0]") for text in expected):
        # A volume with a mistake is none that the container could mount.
        expected = [*expected, 'spec.containers[0].volumeMounts[0].name: Not found: "d"']
    assert said(kinds.POD, obj) == expected


def test_a_pods_image_may_change_its_mounts_may_not() -> None:
    rules = validation.of(kinds.POD)
    newer, moved = pod(), pod()
    newer["spec"]["containers"][0]["image"] = "app:2"
    newer["spec"]["tolerations"] = [{"operator": "Exists"}]
    moved["spec"]["containers"][0]["volumeMounts"][0]["mountPath"] = "/e"
    assert rules.update(newer, pod()) == []
    (cause,) = rules.update(moved, pod())
    assert cause.field == "spec"
    assert cause.message.startswith("Forbidden: pod updates may not change fields other than `sp")
    assert rules.update(pod(), newer)[0].field == "spec.tolerations"
    larger = pod()
    larger["spec"]["containers"].append({"name": "more", "image": "x"})
    assert [cause.text() for cause in rules.update(larger, pod())] == [
        "spec.containers: Forbidden: pod updates may not add or remove containers"
    ]


@pytest.mark.parametrize(
    ("kind", "content", "expected"),
    [
        (kinds.SECRET, {"data": {"..x": ""}}, ['data[..x]: Invalid value: "..x": must not start with \'..\'']),
        (kinds.SECRET, {"type": "kubernetes.io/tls", "data": {"tls.crt": ""}}, ["data[tls.key]: Required value"]),
        (kinds.SECRET, {"data": {"a": "A" * 1398104}}, ["data: Too long: may not be more than 1048576 bytes"]),
        (kinds.SECRET, {"type": "kubernetes.io/dockercfg", "data": {".dockercfg": encoded("geheim")}}, ['data[.dockercfg]: Invalid value: "<secret contents redacted>": must be a JSON object']),
        (kinds.SECRET, {"type": "kubernetes.io/dockercfg", "data": {".dockercfg": encoded("{}")}}, []),
        (kinds.CONFIG_MAP, {"data": {"a": ""}, "binaryData": {"a": ""}}, ['data[a]: Invalid value: "a": duplicate of key present in binaryData']),
        (kinds.SERVICE, {"spec": {}}, ["spec.ports: Required value"]),
        (kinds.SERVICE, {"spec": {"clusterIP": "None"}}, []),
        (kinds.SERVICE, {"spec": {"type": "Odd", "clusterIP": "None"}}, ['spec.type: Unsupported value: "Odd": supported values: "ClusterIP", "ExternalName", "LoadBalancer", "NodePort"']),
        (kinds.SERVICE, {"spec": {"type": "ExternalName"}}, ["spec.externalName: Required value"]),
        (kinds.SERVICE, {"spec": {"ports": [{"port": 0, "protocol": "TCP"}]}}, ["spec.ports[0].port: Invalid value: 0: must be between 1 and 65535, inclusive"]),
        (kinds.ENDPOINTS, {"subsets": [{}]}, ["subsets[0]: Required value: must specify `addresses` or `notReadyAddresses`"]),
        (kinds.ENDPOINTS, {"subsets": [{"addresses": [{"ip": "host"}]}]}, ['subsets[0].addresses[0].ip: Invalid value: "host": must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)']),
        (kinds.EVENT, {"involvedObject": {"namespace": "m"}}, ['involvedObject.namespace: Invalid value: "m": does not match event.namespace']),
        (kinds.EVENT, {"involvedObject": {}}, ['involvedObject.namespace: Invalid value: "": does not match event.namespace']),
        (kinds.LEASE, {"spec": {"leaseDurationSeconds": 0}}, ["spec.leaseDurationSeconds: Invalid value: 0: must be greater than 0"]),
        (kinds.LEASE, {"spec": {"leaseTransitions": -1}}, ["spec.leaseTransitions: Invalid value: -1: must be greater than or equal to 0"]),
        (kinds.NODE, {"spec": {"taints": [{"key": "a", "effect": "Odd"}]}}, ['metadata.taints[0].effect: Unsupported value: "Odd": supported values: "NoSchedule", "PreferNoSchedule", "NoExecute"']),
    ],
)  # fmt: skip
def test_an_object_is_refused_for(kind: Kind, content: Object, expected: list[str]) -> None:
    assert said(kind, in_namespace(**content)) == expected


def test_an_event_of_a_cluster_wide_object_lives_in_the_default_namespace() -> None:
    event = {"metadata": {"name": "x", "namespace": "default"}, "involvedObject": {"name": "pv"}}
    assert said(kinds.EVENT, event) == []


def test_an_immutable_map_keeps_its_data_and_its_mark() -> None:
    rules = validation.of(kinds.CONFIG_MAP)
    old = in_namespace(data={"a": "x"}, immutable=True)
    new = in_namespace(data={"a": "y"})
    assert [cause.field for cause in rules.update(new, old)] == ["immutable", "data"]


def test_a_secrets_type_and_an_assigned_address_stay() -> None:
    secret = validation.of(kinds.SECRET)
    changed = in_namespace(type="other")
    assert secret.update(changed, in_namespace(type="Opaque"))[0].field == "type"
    service = validation.of(kinds.SERVICE)
    old = copy.deepcopy(VALID[kinds.SERVICE])
    old["spec"]["clusterIP"] = "10.0.0.1"
    assert service.update(VALID[kinds.SERVICE], old)[0].field == "spec.clusterIP"


def test_a_namespaces_phase_agrees_with_its_deletion() -> None:
    rules = validation.of(kinds.NAMESPACE)
    live = in_cluster(status={"phase": "Active"})
    gone = in_cluster(status={"phase": "Terminating"})
    assert [cause.field for cause in rules.status_update(gone, live)] == ["status.Phase"]
    gone["metadata"]["deletionTimestamp"] = "t"
    deleted = {**gone, "status": {"phase": "Active"}}
    assert rules.status_update(gone, deleted) == []
