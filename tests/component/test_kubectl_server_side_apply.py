"""`kubectl apply --server-side` and its relatives: the real kubectl on a real `holdfast up`."""

from __future__ import annotations

import json
from typing import Any

import pytest

import machine

pytestmark = pytest.mark.kubectl("1.31")

Object = dict[str, Any]


def config_map(name: str, data: dict[str, str]) -> Object:
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": name, "labels": {"app": "x"}},
        "data": data,
    }


def apply(shared: machine.Machine, obj: Object, *options: str, check: bool = True) -> str:
    said: str = shared.kubectl("apply", *options, "-f", "-", stdin=json.dumps(obj), check=check)
    return said


def read(shared: machine.Machine, kind: str, name: str) -> Object | None:
    """An object as kubectl shows it; None when there is none."""
    text = shared.kubectl("get", kind, name, "-o", "json", "--ignore-not-found")
    found: Object | None = json.loads(text) if text.strip() else None
    return found


def owners(shared: machine.Machine, kind: str, name: str) -> dict[str, Object]:
    """The sets of an object by `manager/operation[/subresource]`."""
    text = shared.kubectl("get", kind, name, "-o", "json", "--show-managed-fields")
    return {
        "/".join(filter(None, (e["manager"], e["operation"], e.get("subresource")))): e["fieldsV1"]
        for e in json.loads(text)["metadata"]["managedFields"]
    }


def test_server_side_apply_creates_and_changes(shared: machine.Machine) -> None:
    said = apply(shared, config_map("made", {"a": "1", "b": "1"}), "--server-side")
    assert said == "configmap/made serverside-applied\n"
    apply(shared, config_map("made", {"a": "2"}), "--server-side")
    made = read(shared, "configmap", "made")
    assert made is not None
    assert made["data"] == {"a": "2"}
    assert owners(shared, "configmap", "made") == {
        "kubectl/Apply": {"f:data": {"f:a": {}}, "f:metadata": {"f:labels": {"f:app": {}}}}
    }


def test_a_conflict_is_explained_and_can_be_forced(shared: machine.Machine) -> None:
    apply(shared, config_map("fought", {"a": "1"}), "--server-side")
    other = ("--server-side", "--field-manager", "other")
    said = apply(shared, config_map("fought", {"a": "2"}), *other, check=False)
    assert 'Apply failed with 1 conflict: conflict with "kubectl": .data.a' in said
    assert "--force-conflicts" in said
    apply(shared, config_map("fought", {"a": "2"}), *other, "--force-conflicts")
    assert owners(shared, "configmap", "fought")["other/Apply"]["f:data"] == {"f:a": {}}
    assert "f:data" not in owners(shared, "configmap", "fought")["kubectl/Apply"]


def test_an_object_applied_from_the_client_moves_to_the_server(shared: machine.Machine) -> None:
    apply(shared, config_map("moved", {"a": "1", "b": "1"}))
    assert list(owners(shared, "configmap", "moved")) == ["kubectl-client-side-apply/Update"]
    apply(shared, config_map("moved", {"a": "2"}), "--server-side")
    moved = read(shared, "configmap", "moved")
    assert moved is not None
    assert moved["data"] == {"a": "2"}
    annotation = "kubectl.kubernetes.io/last-applied-configuration"
    assert json.loads(moved["metadata"]["annotations"][annotation])["data"] == {"a": "2"}
    after = owners(shared, "configmap", "moved")
    assert set(after) == {"kubectl/Apply", "kubectl-last-applied/Apply"}
    assert after["kubectl/Apply"]["f:data"] == {"f:a": {}}


def test_an_object_can_go_back_to_the_client(shared: machine.Machine) -> None:
    apply(shared, config_map("back", {"a": "1"}), "--server-side")
    apply(shared, config_map("back", {"a": "1"}))
    apply(shared, config_map("back", {"a": "3"}))
    back = read(shared, "configmap", "back")
    assert back is not None
    assert back["data"] == {"a": "3"}
    assert owners(shared, "configmap", "back")["kubectl-client-side-apply/Update"]["f:data"] == {
        "f:a": {}
    }


def test_every_verb_of_kubectl_owns_what_it_writes(shared: machine.Machine) -> None:
    apply(shared, config_map("verbs", {"a": "1"}), "--server-side")
    shared.kubectl("label", "configmap", "verbs", "l=1")
    shared.kubectl("annotate", "configmap", "verbs", "n=1")
    shared.kubectl("patch", "configmap", "verbs", "-p", '{"data":{"p":"1"}}')
    shared.kubectl("create", "configmap", "created", "--from-literal=a=1")
    found = owners(shared, "configmap", "verbs")
    assert found["kubectl-label/Update"] == {"f:metadata": {"f:labels": {"f:l": {}}}}
    assert found["kubectl-annotate/Update"] == {
        "f:metadata": {"f:annotations": {".": {}, "f:n": {}}}
    }
    assert found["kubectl-patch/Update"] == {"f:data": {"f:p": {}}}
    assert list(owners(shared, "configmap", "created")) == ["kubectl-create/Update"]


@pytest.mark.parametrize("options", [(), ("--server-side",)], ids=["client", "server"])
def test_diff_shows_the_change_and_nothing_else(
    shared: machine.Machine, options: tuple[str, ...]
) -> None:
    name = f"differs-{len(options)}"
    apply(shared, config_map(name, {"a": "1"}), *options)
    changed, same = (json.dumps(config_map(name, {"a": value})) for value in "21")
    assert shared.kubectl("diff", *options, "-f", "-", stdin=same) == ""
    shown = shared.kubectl("diff", *options, "-f", "-", stdin=changed, check=False)
    lines = [line for line in shown.splitlines() if line[:1] in "+-" and line[:3] not in "+++---"]
    assert lines == ['-  a: "1"', '+  a: "2"']
    unchanged = read(shared, "configmap", name)
    assert unchanged is not None
    assert unchanged["data"] == {"a": "1"}


def test_a_dry_run_on_the_server_changes_nothing(shared: machine.Machine) -> None:
    said = apply(shared, config_map("dry", {"a": "1"}), "--server-side", "--dry-run=server")
    assert said == "configmap/dry serverside-applied (server dry run)\n"
    assert read(shared, "configmap", "dry") is None


def test_an_unknown_field_is_refused(shared: machine.Machine) -> None:
    said = apply(shared, {**config_map("odd", {}), "foo": 1}, "--server-side", check=False)
    assert "(default/odd; /v1, Kind=ConfigMap): .foo: field not declared in schema" in said


def test_a_bound_claim_can_be_applied_again(shared: machine.Machine) -> None:
    volume = {
        "apiVersion": "v1",
        "kind": "PersistentVolume",
        "metadata": {"name": "owned"},
        "spec": {
            "capacity": {"storage": "1024Mi"},
            "accessModes": ["ReadWriteOnce"],
            "hostPath": {"path": "/tmp"},
            "storageClassName": "owned",
        },
    }
    claim = {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": "owned"},
        "spec": {
            "accessModes": ["ReadWriteOnce"],
            "resources": {"requests": {"storage": "1024Mi"}},
            "storageClassName": "owned",
        },
    }
    for obj in (volume, claim):
        apply(shared, obj, "--server-side")
    shared.kubectl("wait", "pvc/owned", "--for=jsonpath={.status.phase}=Bound", "--timeout=20s")
    bound = read(shared, "persistentvolumeclaim", "owned")
    for obj in (volume, claim):
        apply(shared, obj, "--server-side")
    assert read(shared, "persistentvolumeclaim", "owned") == bound
    found = owners(shared, "persistentvolumeclaim", "owned")
    assert found["kubectl/Apply"] == {
        "f:spec": {
            "f:accessModes": {},
            "f:resources": {"f:requests": {"f:storage": {}}},
            "f:storageClassName": {},
        }
    }
    controller = found["kube-controller-manager/Update"]
    assert controller["f:spec"] == {"f:volumeName": {}}
    status = found["kube-controller-manager/Update/status"]
    assert status["f:status"]["f:phase"] == {}
