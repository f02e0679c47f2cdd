"""Real kubectl against a real `holdfast up`: every verb people use, and what it prints."""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest

from machine import Failed, Machine, eventually

Object = dict[str, Any]

VOLUME: Object = {
    "apiVersion": "v1",
    "kind": "PersistentVolume",
    "spec": {
        "capacity": {"storage": "5Gi"},
        "accessModes": ["ReadWriteOnce"],
        "storageClassName": "manual",
        "hostPath": {"path": "/tmp/holdfast-kubectl"},
    },
}
CLAIM: Object = {
    "apiVersion": "v1",
    "kind": "PersistentVolumeClaim",
    "spec": {
        "accessModes": ["ReadWriteOnce"],
        "storageClassName": "manual",
        "resources": {"requests": {"storage": "1Gi"}},
    },
}


def _named(obj: Object, name: str, **labels: str) -> Object:
    metadata: Object = {"name": name}
    if labels:
        metadata["labels"] = labels
    return {**obj, "metadata": metadata}


def _config(name: str, value: str = "1", **labels: str) -> Object:
    body = {"apiVersion": "v1", "kind": "ConfigMap", "data": {"key": value}}
    return _named(body, name, **labels)


def _refused(machine: Machine, *arguments: str, stdin: str | None = None) -> str:
    """What kubectl prints when it fails, which it has to."""
    with pytest.raises(Failed) as failure:
        machine.kubectl(*arguments, stdin=stdin)
    return str(failure.value)


@pytest.fixture(scope="module", autouse=True)
def volume(shared: Machine) -> Iterator[None]:
    """A volume for every test to look at."""
    shared.apply(_named(VOLUME, "pv-show", kind="shown"), _named(CLAIM, "claim-show", kind="shown"))
    shared.wait_for_phase("pvc", "claim-show", "Bound")
    yield


# get


def test_get_prints_volumes_and_claims_as_tables(shared: Machine) -> None:
    head, row = shared.kubectl("get", "pv", "pv-show").splitlines()
    assert " ".join(head.split()) == (
        "NAME CAPACITY ACCESS MODES RECLAIM POLICY STATUS CLAIM STORAGECLASS "
        "VOLUMEATTRIBUTESCLASS REASON AGE"
    )
    assert row.split()[:7] == [
        "pv-show",
        "5Gi",
        "RWO",
        "Retain",
        "Bound",
        "default/claim-show",
        "manual",
    ]
    head, row = shared.kubectl("get", "pvc", "claim-show", "-o", "wide").splitlines()
    assert head.split()[-3:] == ["VOLUMEATTRIBUTESCLASS", "AGE", "VOLUMEMODE"]
    assert row.split()[:6] == ["claim-show", "Bound", "pv-show", "5Gi", "RWO", "manual"]
    assert row.split()[-1] == "Filesystem"


def test_get_prints_several_kinds_and_namespaces(shared: Machine) -> None:
    text = shared.kubectl("get", "pvc,pv,sc", "-A")
    assert "default     persistentvolumeclaim/claim-show" in text
    assert "persistentvolume/pv-show" in text
    assert "storageclass.storage.k8s.io/local" in text


@pytest.mark.parametrize(
    ("output", "expected"),
    [
        ("name", "persistentvolume/pv-show\n"),
        ("jsonpath={.spec.capacity.storage}", "5Gi"),
        ("jsonpath={.status.phase}", "Bound"),
        ("go-template={{.kind}} {{.apiVersion}}", "PersistentVolume v1"),
        (
            "custom-columns=N:.metadata.name,P:.spec.claimRef.name",
            "N         P\npv-show   claim-show\n",
        ),
    ],
)
def test_get_prints_what_a_template_asks_for(shared: Machine, output: str, expected: str) -> None:
    assert shared.kubectl("get", "pv", "pv-show", "-o", output) == expected


def test_get_prints_whole_objects(shared: Machine) -> None:
    one = json.loads(shared.kubectl("get", "pv", "pv-show", "-o", "json"))
    assert (one["kind"], one["spec"]["claimRef"]["name"]) == ("PersistentVolume", "claim-show")
    many = json.loads(shared.kubectl("get", "pv", "-o", "json"))
    assert many["kind"] == "List"
    assert {item["kind"] for item in many["items"]} == {"PersistentVolume"}
    assert "kind: PersistentVolume\n" in shared.kubectl("get", "pv", "pv-show", "-o", "yaml")


def test_get_selects(shared: Machine) -> None:
    assert shared.kubectl("get", "pv", "-l", "kind=shown", "-o", "name").split() == [
        "persistentvolume/pv-show"
    ]
    by_name = ["--field-selector", "metadata.name=claim-show", "-o", "name"]
    assert shared.kubectl("get", "pvc", *by_name) == "persistentvolumeclaim/claim-show\n"
    text = shared.kubectl("get", "pv", "--field-selector", "spec.foo=x", check=False)
    assert '"spec.foo" is not a known field selector' in text
    assert shared.kubectl("get", "cm", "-l", "none=here", check=False) == (
        "No resources found in default namespace.\n"
    )


def test_get_of_what_is_not_there(shared: Machine) -> None:
    text = shared.kubectl("get", "pvc", "nope", check=False)
    assert text == 'Error from server (NotFound): persistentvolumeclaims "nope" not found\n'
    text = shared.kubectl("get", "flavours", check=False)
    assert text == 'error: the server doesn\'t have a resource type "flavours"\n'


def test_get_watches(shared: Machine, kubectl_path: Any) -> None:
    shared.apply(_config("watched-first"))
    # Ends by itself, so that a broken watch cannot hold the tests up.
    argv = [str(kubectl_path), "get", "cm", "-w", "--output-watch-events", "--request-timeout=20s"]
    with subprocess.Popen(
        argv, stdout=subprocess.PIPE, text=True, env=shared.environment()
    ) as process:
        assert process.stdout is not None
        # The table of what is there comes first, so the watch has begun.
        while "watched-first" not in (line := process.stdout.readline()):
            assert line, "kubectl ended"
        shared.apply(_config("watched"))
        shared.kubectl("delete", "cm", "watched")
        lines = [process.stdout.readline().split() for _ in range(2)]
        process.terminate()
    assert [line[:3] for line in lines] == [["ADDED", "watched", "1"], ["DELETED", "watched", "1"]]


def test_get_raw(shared: Machine) -> None:
    assert shared.kubectl("get", "--raw", "/readyz") == "ok"
    nodes = json.loads(shared.kubectl("get", "--raw", "/api/v1/nodes"))
    assert nodes["kind"] == "NodeList"


# describe and explain


@pytest.mark.parametrize(
    ("kind", "name", "lines"),
    [
        ("pv", "pv-show", ["Claim: default/claim-show", "Path: /tmp/holdfast-kubectl"]),
        ("pvc", "claim-show", ["Status: Bound", "Volume: pv-show", "Used By: <none>"]),
        ("sc", "local", ["Provisioner: local.holdfast.dev", "AllowVolumeExpansion: True"]),
        ("ns", "default", ["Labels: kubernetes.io/metadata.name=default", "Status: Active"]),
        ("node", "node-1", ["Name: node-1", "Unschedulable: false"]),
        ("sa", "default", ["Namespace: default"]),
    ],
)
def test_describe(shared: Machine, kind: str, name: str, lines: list[str]) -> None:
    text = re.sub(" +", " ", shared.kubectl("describe", kind, name))
    for line in lines:
        assert line in text


@pytest.mark.kubectl("1.31")
def test_explain(shared: Machine) -> None:
    text = shared.kubectl("explain", "pvc.spec.resources")
    assert "KIND:       PersistentVolumeClaim" in text
    assert "requests" in text
    text = shared.kubectl("explain", "pv", "--recursive")
    assert "persistentVolumeReclaimPolicy\t<string>" in text
    assert "does not exist" in shared.kubectl("explain", "pv.flavour", check=False)


# create


@pytest.mark.kubectl("1.31")
def test_create_from_a_file(shared: Machine) -> None:
    text = json.dumps(_config("made"))
    assert shared.kubectl("create", "-f", "-", stdin=text) == "configmap/made created\n"
    again = _refused(shared, "create", "-f", "-", stdin=text)
    assert 'Error from server (AlreadyExists): error when creating "STDIN"' in again
    assert 'configmaps "made" already exists' in again
    unknown = json.dumps(_config("unknown") | {"flavour": "mint"})
    refused = _refused(shared, "create", "-f", "-", stdin=unknown)
    assert 'strict decoding error: unknown field "flavour"' in refused
    tolerated = shared.kubectl("create", "--validate=warn", "-f", "-", stdin=unknown, check=False)
    assert 'Warning: unknown field "flavour"' in tolerated
    assert "configmap/unknown created" in tolerated


@pytest.mark.parametrize(
    ("arguments", "printed"),
    [
        (("namespace", "made-ns"), "namespace/made-ns created\n"),
        (("secret", "generic", "made-s", "--from-literal=a=b"), "secret/made-s created\n"),
        (("configmap", "made-c", "--from-literal=a=b"), "configmap/made-c created\n"),
        (("serviceaccount", "made-sa"), "serviceaccount/made-sa created\n"),
        (("service", "clusterip", "made-svc", "--tcp=80:8080"), "service/made-svc created\n"),
    ],
)
def test_create_by_generator(shared: Machine, arguments: tuple[str, ...], printed: str) -> None:
    dry = shared.kubectl("create", *arguments, "--dry-run=server")
    assert dry == printed.replace("created", "created (server dry run)")
    assert shared.kubectl("create", *arguments) == printed
    kind, name = printed.split()[0].split("/")
    text = shared.kubectl("describe", kind, name)
    assert re.search(rf"Name: +{name}\n", text)


def test_create_in_a_namespace_that_is_not_there(shared: Machine) -> None:
    text = shared.kubectl("create", "cm", "x", "-n", "nowhere", check=False)
    assert 'namespaces "nowhere" not found' in text


def test_a_bad_quantity_is_explained(shared: Machine) -> None:
    body = _named(VOLUME, "pv-bad")
    body["spec"] = {**body["spec"], "capacity": {"storage": "10GB"}}
    text = _refused(shared, "create", "-f", "-", stdin=json.dumps(body))
    assert "quantities must match the regular expression" in text
    assert "use 10G (10^9 bytes) or 10Gi (2^30 bytes)" in text


# apply, edit, replace


def test_apply_creates_and_changes_only_what_differs(shared: Machine) -> None:
    assert shared.apply(_config("applied")) == "configmap/applied created\n"
    assert shared.apply(_config("applied")) == "configmap/applied unchanged\n"
    assert shared.apply(_config("applied", "2")) == "configmap/applied configured\n"
    found = shared.get("cm", "applied")
    assert found is not None
    assert found["data"] == {"key": "2"}
    # A field that the manifest no longer has goes away.
    emptied = _config("applied")
    del emptied["data"]
    shared.apply(emptied)
    assert "data" not in (shared.get("cm", "applied") or {})


def test_apply_of_a_bound_claim_and_volume_changes_nothing(shared: Machine) -> None:
    text = shared.apply(
        _named(VOLUME, "pv-show", kind="shown"), _named(CLAIM, "claim-show", kind="shown")
    )
    assert text == (
        "persistentvolume/pv-show unchanged\npersistentvolumeclaim/claim-show unchanged\n"
    )
    changed = _named(CLAIM, "claim-show", kind="shown")
    changed["spec"] = {**changed["spec"], "accessModes": ["ReadOnlyMany"]}
    text = _refused(shared, "apply", "-f", "-", stdin=json.dumps(changed))
    assert (
        'The PersistentVolumeClaim "claim-show" is invalid: spec: Forbidden: '
        "spec is immutable after creation" in text
    )


def test_diff_shows_what_apply_would_change(shared: Machine) -> None:
    shared.apply(_config("differs"))
    body = json.dumps(_config("differs", "2"))
    text = shared.kubectl("diff", "-f", "-", stdin=body, check=False)
    assert '-  key: "1"\n+  key: "2"\n' in text
    assert "resourceVersion" not in "".join(line for line in text.splitlines() if line[:1] in "+-")
    assert shared.kubectl("diff", "-f", "-", stdin=json.dumps(_config("differs"))) == ""


def test_edit_sends_what_the_editor_changed(shared: Machine, monkeypatch: Any) -> None:
    shared.apply(_config("edited"))
    environment = shared.environment() | {"KUBE_EDITOR": "sed -i s/key:.*/key:\\ edited/"}
    monkeypatch.setattr(shared, "environment", lambda: environment)
    assert shared.kubectl("edit", "cm", "edited") == "configmap/edited edited\n"
    found = shared.get("cm", "edited")
    assert found is not None
    assert found["data"] == {"key": "edited"}


def test_replace(shared: Machine) -> None:
    shared.apply(_config("replaced"))
    before = shared.get("cm", "replaced")
    text = shared.kubectl("replace", "-f", "-", stdin=json.dumps(_config("replaced", "2")))
    assert text == "configmap/replaced replaced\n"
    after = shared.get("cm", "replaced")
    assert before is not None and after is not None
    assert after["data"] == {"key": "2"}
    assert after["metadata"]["uid"] == before["metadata"]["uid"]
    shared.kubectl("replace", "--force", "-f", "-", stdin=json.dumps(_config("replaced", "3")))
    forced = shared.get("cm", "replaced")
    assert forced is not None
    assert forced["metadata"]["uid"] != before["metadata"]["uid"]


# patch, label, annotate


@pytest.mark.parametrize(
    ("type", "patch"),
    [
        ("strategic", '{"data": {"key": "p"}}'),
        ("merge", '{"data": {"key": "p"}}'),
        ("json", '[{"op": "replace", "path": "/data/key", "value": "p"}]'),
    ],
)
def test_patch(shared: Machine, type: str, patch: str) -> None:
    name = f"patched-{type}"
    shared.apply(_config(name))
    arguments = ["patch", "cm", name, "--type", type, "-p", patch]
    assert shared.kubectl(*arguments) == f"configmap/{name} patched\n"
    assert shared.kubectl(*arguments) == f"configmap/{name} patched (no change)\n"


@pytest.mark.kubectl("1.31")
def test_patch_of_the_status(shared: Machine) -> None:
    shared.apply(_named(VOLUME | {"spec": VOLUME["spec"] | {"storageClassName": "x"}}, "pv-patch"))
    shared.wait_for_phase("pv", "pv-patch", "Available")
    patch = '{"status": {"reason": "seen"}, "spec": {"capacity": {"storage": "9Gi"}}}'
    shared.kubectl("patch", "pv", "pv-patch", "--subresource=status", "--type=merge", "-p", patch)
    found = shared.get("pv", "pv-patch")
    assert found is not None
    assert (found["status"]["reason"], found["spec"]["capacity"]["storage"]) == ("seen", "5Gi")
    text = shared.kubectl("get", "pv", "pv-patch", "--subresource=status", "-o", "name")
    assert text == "persistentvolume/pv-patch\n"


def test_label_and_annotate(shared: Machine) -> None:
    shared.apply(_config("labelled"))
    for verb in ("label", "annotate"):
        done = {"label": "labeled", "annotate": "annotated"}[verb]
        assert shared.kubectl(verb, "cm", "labelled", "a=1") == f"configmap/labelled {done}\n"
        taken = shared.kubectl(verb, "cm", "labelled", "a=2", check=False)
        assert "already has a value (1)" in taken
        shared.kubectl(verb, "cm", "labelled", "a=2", "--overwrite")
        shared.kubectl(verb, "cm", "labelled", "a-")
    found = shared.get("cm", "labelled")
    assert found is not None
    assert "labels" not in found["metadata"]


# delete and wait


def test_delete_by_name_label_and_all(shared: Machine) -> None:
    shared.kubectl("create", "namespace", "bin")
    for name, label in (("a", "x"), ("b", "x"), ("c", "y"), ("d", "y")):
        shared.kubectl("create", "-n", "bin", "-f", "-", stdin=json.dumps(_config(name, l=label)))
    assert shared.kubectl("delete", "-n", "bin", "cm", "a") == 'configmap "a" deleted\n'
    assert shared.kubectl("delete", "-n", "bin", "cm", "-l", "l=x") == 'configmap "b" deleted\n'
    text = shared.kubectl("delete", "-n", "bin", "cm", "--all")
    assert text == 'configmap "c" deleted\nconfigmap "d" deleted\n'
    # The namespace goes with what is left in it, and delete waits for that.
    shared.kubectl("create", "-n", "bin", "configmap", "left")
    assert shared.kubectl("delete", "namespace", "bin") == 'namespace "bin" deleted\n'
    assert shared.get("namespace", "bin") is None


def test_delete_by_force(shared: Machine) -> None:
    shared.kubectl("create", "cm", "forced")
    text = shared.kubectl("delete", "cm", "forced", "--grace-period=0", "--force", check=False)
    assert 'configmap "forced" force deleted' in text
    assert shared.get("cm", "forced") is None


def test_delete_waits_for_finalizers(shared: Machine) -> None:
    body = _config("held")
    body["metadata"]["finalizers"] = ["example.com/hold"]
    shared.apply(body)
    text = shared.kubectl("delete", "cm", "held", "--timeout=1s", check=False)
    assert 'configmap "held" deleted' in text
    assert "timed out waiting for the condition on configmaps/held" in text
    patch = '{"metadata": {"finalizers": null}}'
    shared.kubectl("patch", "cm", "held", "--type=merge", "-p", patch)
    assert shared.get("cm", "held") is None


@pytest.mark.kubectl("1.31")
def test_wait(shared: Machine) -> None:
    shared.kubectl("wait", "pv/pv-show", "--for=jsonpath={.status.phase}=Bound", "--timeout=5s")
    shared.kubectl("wait", "node/node-1", "--for=condition=Ready", "--timeout=5s")
    shared.kubectl("create", "cm", "waited")
    shared.kubectl("delete", "cm", "waited", "--wait=false")
    text = shared.kubectl("wait", "cm/waited", "--for=delete", "--timeout=5s", check=False)
    assert "timed out" not in text
    late = _refused(
        shared, "wait", "pv/pv-show", "--for=jsonpath={.status.phase}=X", "--timeout=1s"
    )
    assert "timed out waiting for the condition on persistentvolumes/pv-show" in late


# What the server is


def test_api_resources_and_versions(shared: Machine) -> None:
    text = re.sub(" +", " ", shared.kubectl("api-resources"))
    assert "persistentvolumeclaims pvc v1 true PersistentVolumeClaim" in text
    assert "storageclasses sc storage.k8s.io/v1 false StorageClass" in text
    versions = shared.kubectl("api-versions").split()
    assert {"v1", "storage.k8s.io/v1", "coordination.k8s.io/v1"} <= set(versions)


@pytest.mark.kubectl("1.31")
def test_version_and_cluster_info(shared: Machine) -> None:
    assert "Server Version: v1.32." in shared.kubectl("version")
    text = shared.kubectl("cluster-info")
    assert "Kubernetes control plane" in text
    assert shared.url in text


@pytest.mark.kubectl("1.31")
def test_events(shared: Machine) -> None:
    body = _named(CLAIM, "claim-lonely")
    body["spec"] = {**body["spec"], "storageClassName": "missing"}
    shared.apply(body)

    def seen() -> str:
        text = shared.kubectl("events", "--for", "pvc/claim-lonely")
        return text if "ProvisioningFailed" in text else ""

    text = eventually(seen, 10, "an event about the claim")
    assert 'storageclass.storage.k8s.io "missing" not found' in text
    assert "persistentvolumeclaim/claim-lonely" in shared.kubectl("get", "events").lower()
    described = shared.kubectl("describe", "pvc", "claim-lonely")
    assert "ProvisioningFailed" in described


def test_without_the_token_nothing_can_be_read(shared: Machine, kubectl_path: Any) -> None:
    argv = [str(kubectl_path), "get", "pv", "--server", shared.url, "--insecure-skip-tls-verify"]
    environment = {**shared.environment(), "KUBECONFIG": os.devnull}
    nobody = subprocess.run(argv, env=environment, input="", capture_output=True, check=False)
    assert nobody.returncode != 0
    wrong = subprocess.run(
        [*argv, "--token", "wrong"], env=environment, capture_output=True, text=True, check=False
    )
    assert "Unauthorized" in wrong.stderr or "logged in" in wrong.stderr
