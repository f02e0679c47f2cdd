"""`holdfast why` beside a real `holdfast up`: one row for each cause there is on one machine."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import time
from dataclasses import dataclass
from typing import Any

import pytest

import machine
from holdfast.diagnosis.causes import asking
from holdfast.runtime import access
from manifests import LOCAL, Object, claim, pod, storage_class, volume

NOTHING: dict[str, Any] = {"nfs": {"server": "nfs.example", "path": "/none"}}
WFFC = "WaitForFirstConsumer"
NOWHERE = {
    "required": {
        "nodeSelectorTerms": [
            {"matchExpressions": [{"key": "disk", "operator": "In", "values": ["far"]}]}
        ]
    }
}


@dataclass(frozen=True)
class Row:
    """Objects, the question, and what the answer has to say."""

    code: str
    ask: str
    objects: tuple[Object, ...]
    says: tuple[str, ...]
    fix: str = ""
    waits: bool = False
    settle: str = ""


def _static(name: str, **spec: Any) -> Object:
    return volume(name, NOTHING, **{"storageClassName": name, **spec})


def _wants(name: str, **spec: Any) -> Object:
    return claim(name, storage_class=spec.pop("storage_class", name), **spec)


def _only_static(name: str, **fields: Any) -> Object:
    return storage_class(name, "kubernetes.io/no-provisioner", **fields)


def _secret_class(name: str, **fields: Any) -> Object:
    parameters = {
        "layout": "directory",
        "csi.storage.k8s.io/provisioner-secret-name": f"{name}-key",
        "csi.storage.k8s.io/provisioner-secret-namespace": "default",
    }
    return storage_class(name, parameters=parameters, **fields)


ROWS = (
    Row(
        "no-default-class",
        "pvc/r1",
        (_wants("r1", storage_class=None), _only_static("r1-other")),
        ("there is no default class",),
        "kubectl annotate storageclass",
    ),
    Row("class-empty", "pvc/r2", (_wants("r2", storage_class=""),), ('its class is ""',)),
    Row(
        "class-missing",
        "pvc/r3",
        (storage_class("r3-fast"), _wants("r3", storage_class="r3-fats")),
        ("r3-fats does not exist", "did you mean r3-fast?"),
        "kubectl -n default delete pvc r3",
    ),
    Row(
        "provisioner-misspelt",
        "pvc/r4",
        (storage_class("r4", "local.holdfst.dev"), _wants("r4")),
        ("did you mean local.holdfast.dev?",),
        "kubectl replace --force",
    ),
    Row(
        "provisioner-gone",
        "pvc/r5",
        (storage_class("r5", "kubernetes.io/quobyte"), _wants("r5")),
        ("Kubernetes has no such plug-in any more",),
    ),
    Row(
        "driver-missing",
        "pvc/r6",
        (storage_class("r6", "pd.csi.storage.gke.io"), _wants("r6")),
        ("nobody answers to provisioner pd.csi.storage.gke.io",),
    ),
    Row(
        "driver-missing",
        "pvc/r7",
        (storage_class("r7", "kubernetes.io/aws-ebs"), _wants("r7")),
        ("passes kubernetes.io/aws-ebs on to CSI driver ebs.csi.aws.com",),
    ),
    Row(
        "parameter",
        "pvc/r8",
        (storage_class("r8", parameters={"layuot": "directory"}), _wants("r8")),
        ("layuot", "layout"),
        "kubectl replace --force",
        settle="ProvisioningFailed",
    ),
    Row(
        "parameter",
        "pvc/r9",
        (
            storage_class(
                "r9", parameters={"csi.storage.k8s.io/provisioner-secret-name": "only-half"}
            ),
            _wants("r9"),
        ),
        ("is given without",),
    ),
    Row(
        "secret-missing",
        "pvc/r10",
        (_secret_class("r10"), _wants("r10")),
        ("its secret default/r10-key does not exist",),
        "kubectl -n default create secret generic r10-key",
    ),
    Row(
        "secret-wrong",
        "pvc/r11",
        (
            {
                "apiVersion": "v1",
                "kind": "Secret",
                "metadata": {"name": "r11-key"},
                "data": {"key": "YldGdVlXZGxjbE5sWTNKbGREMTA="},
            },
            # The local backend asks for no secret, so a volume would be made all the same.
            _secret_class("r11", volumeBindingMode=WFFC),
            _wants("r11"),
        ),
        ("base64 of base64",),
    ),
    Row(
        "no-room",
        "pvc/r12",
        (storage_class("r12"), _wants("r12", storage="900Ti")),
        ("900Ti",),
        "holdfast check local",
        settle="ProvisioningFailed",
    ),
    Row(
        "selector",
        "pvc/r13",
        (storage_class("r13"), _wants("r13", selector={"matchLabels": {"a": "b"}})),
        ("it has a selector",),
    ),
    Row(
        "source-missing",
        "pvc/r14",
        (
            storage_class("r14"),
            _wants("r14", dataSource={"kind": "PersistentVolumeClaim", "name": "r14-none"}),
        ),
        ("claim r14-none, does not exist",),
    ),
    Row(
        "source-missing",
        "pvc/r15",
        (
            storage_class("r15"),
            _wants(
                "r15",
                dataSource={
                    "kind": "VolumeSnapshot",
                    "apiGroup": "snapshot.storage.k8s.io",
                    "name": "r15-none",
                },
            ),
        ),
        ("snapshot r15-none, does not exist",),
    ),
    Row(
        "topology",
        "pvc/r16",
        (
            storage_class(
                "r16",
                allowedTopologies=[
                    {"matchLabelExpressions": [{"key": "zone", "values": ["moon"]}]}
                ],
            ),
            _wants("r16"),
        ),
        ("admit no node", "zone in moon"),
    ),
    Row(
        "first-consumer",
        "pvc/r17",
        (storage_class("r17", volumeBindingMode=WFFC), _wants("r17")),
        ("it waits for a pod that uses it",),
        waits=True,
    ),
    Row(
        "node-name-set",
        "pvc/r18",
        (
            storage_class("r18", volumeBindingMode=WFFC),
            _wants("r18"),
            pod("r18", "r18", nodeName=machine.NODE),
        ),
        ("passes the scheduler by",),
        "kubectl -n default delete pod r18",
    ),
    Row(
        "nodes",
        "pvc/r19",
        (
            storage_class("r19", volumeBindingMode=WFFC),
            _wants("r19"),
            pod("r19", "r19", nodeSelector={"no": "where"}),
        ),
        ("waits for pod r19 to be scheduled", "didn't match Pod's node affinity/selector"),
    ),
    Row(
        "volume-missing",
        "pvc/r20",
        (_wants("r20", storage_class="", volumeName="r20-none"),),
        ("names volume r20-none, which does not exist",),
    ),
    Row(
        "no-static-volume",
        "pvc/r21",
        (_only_static("r21"), _wants("r21")),
        ("no volume is made for class r21",),
    ),
    Row(
        "volume-size",
        "pvc/r22",
        (_only_static("r22"), _static("r22", storage="4Mi"), _wants("r22")),
        ("r22, does not fit: it has 4Mi, 16Mi is asked for",),
    ),
    Row(
        "volume-access",
        "pvc/r23",
        (_only_static("r23"), _static("r23"), _wants("r23", modes=("ReadWriteMany",))),
        ("it offers ReadWriteOnce, the claim wants ReadWriteMany",),
    ),
    Row(
        "volume-mode",
        "pvc/r24",
        (_only_static("r24"), _static("r24"), _wants("r24", volumeMode="Block")),
        ("its volumeMode is Filesystem, the claim's is Block",),
    ),
    Row(
        "volume-selector",
        "pvc/r25",
        (
            _only_static("r25"),
            _static("r25", labels={"tier": "slow"}),
            _wants("r25", selector={"matchLabels": {"tier": "fast"}}),
        ),
        ("its labels are not what the claim's selector wants",),
        "kubectl label pv r25",
    ),
    Row(
        "volume-reserved",
        "pvc/r26",
        (
            _only_static("r26"),
            _static("r26", claimRef={"namespace": "default", "name": "r26-other"}),
            _wants("r26"),
        ),
        ("reserves it for claim default/r26-other",),
        "kubectl patch pv r26",
    ),
    Row(
        "volume-class",
        "pvc/r27",
        (
            _static("r27", storageClassName="r27-other"),
            _wants("r27", storage_class="", volumeName="r27"),
        ),
        ("its class is r27-other, the claim's is empty",),
    ),
    Row(
        "volume-earlier-claim",
        "pvc/r28",
        (
            _only_static("r28"),
            _static(
                "r28",
                claimRef={
                    "kind": "PersistentVolumeClaim",
                    "namespace": "default",
                    "name": "r28",
                    "uid": "00000000-0000-4000-8000-000000000000",
                },
            ),
            _wants("r28"),
        ),
        ("uid of an earlier claim default/r28",),
        "kubectl patch pv r28",
    ),
    Row(
        "claim-missing",
        "pod/r30",
        (pod("r30", "r30-none"),),
        ("its claim r30-none does not exist in namespace default",),
    ),
    Row(
        "class-missing",
        "pod/r31",
        (_wants("r31", storage_class="r31-none"), pod("r31", "r31")),
        ("its claim r31 is Pending: its class r31-none does not exist",),
    ),
    Row(
        "node-affinity",
        "pod/r32",
        (
            _only_static("r32"),
            _static("r32", nodeAffinity=NOWHERE),
            _wants("r32"),
            pod("r32", "r32"),
        ),
        ("no node can run it where its volume is", "disk In far"),
        settle="FailedScheduling",
    ),
    Row(
        "mount-failed",
        "pod/r33",
        (
            _only_static("r33"),
            volume(
                "r33",
                {"hostPath": {"path": "/r33/none", "type": "Directory"}},
                storageClassName="r33",
            ),
            _wants("r33"),
            pod("r33", "r33"),
        ),
        ("/r33/none",),
        settle="FailedMount",
    ),
    Row(
        "gated",
        "pod/r34",
        (
            storage_class("r34", volumeBindingMode=WFFC),
            _wants("r34"),
            pod("r34", "r34", schedulingGates=[{"name": "example.com/later"}]),
        ),
        ("scheduling gates example.com/later",),
        waits=True,
    ),
    Row("free", "pv/r40", (_static("r40"),), ("no claim has asked for it",), waits=True),
    Row(
        "volume-size",
        "pv/r41",
        (_only_static("r41"), _static("r41", storage="4Mi"), _wants("r41")),
        ("claim r41 does not because it has 4Mi",),
        "holdfast why pvc/r41",
        waits=True,
    ),
    Row(
        "reserved",
        "pv/r42",
        (_static("r42", claimRef={"namespace": "default", "name": "r42-none"}),),
        ("it is reserved for claim default/r42-none",),
        waits=True,
    ),
)


def asked(here: machine.Machine, what: str) -> dict[str, Any]:
    """Ask as the command does, without a process for each question."""

    async def ask() -> dict[str, Any]:
        word, _, name = what.partition("/")
        kind = asking.kind_of(word)
        assert kind is not None
        async with access.from_kubeconfig(here.kubeconfig).client() as client:
            return dataclasses.asdict(await asking.why(client, kind, name, "default"))

    return asyncio.run(ask())


def why(here: machine.Machine, what: str, *options: str) -> tuple[int, dict[str, Any]]:
    done = here.holdfast("why", "--json", what, *options, check=False)
    assert done.stdout, done.stderr
    return done.returncode, json.loads(done.stdout)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: f"{row.ask} {row.code}")
def test_the_answer_names_the_cause(shared: machine.Machine, row: Row) -> None:
    shared.apply(*row.objects)
    name = row.ask.partition("/")[2]
    if row.settle:
        shared.wait_for_event(name, row.settle)

    def look() -> bool:
        seen.update(asked(shared, row.ask))
        return (seen["cause"] or {}).get("code") == row.code

    seen: dict[str, Any] = {}
    try:
        machine.eventually(look, 10)
    except machine.Failed as error:
        raise AssertionError(f"{json.dumps(seen, indent=1)}") from error
    finally:
        for each in reversed(row.objects):
            word = f"{each['kind'].lower()}/{each['metadata']['name']}"
            shared.kubectl("delete", word, "--wait=false", "--grace-period=0", check=False)
    assert seen["cause"]["waiting"] == row.waits
    for text in row.says:
        assert text in seen["cause"]["what"]
    assert row.fix in seen["cause"]["fix"]


def _bound(here: machine.Machine, name: str, **fields: Any) -> str:
    parameters = {"layout": "directory"}
    here.apply(
        storage_class(name, LOCAL, parameters=parameters, **fields), claim(name, storage_class=name)
    )
    found: str = here.wait_for_phase("pvc", name, "Bound")["spec"]["volumeName"]
    return found


def test_a_class_that_was_made_again_is_not_blamed_for_what_was_before(
    shared: machine.Machine,
) -> None:
    bad = storage_class("mended", parameters={"layuot": "image"})
    shared.apply(bad, claim("mended", storage_class="mended"))
    shared.wait_for_event("mended", "ProvisioningFailed")
    assert why(shared, "pvc/mended")[1]["cause"]["code"] == "parameter"
    time.sleep(1.1)  # times in the API are whole seconds
    shared.kubectl("delete", "storageclass", "mended")
    mended = storage_class("mended", parameters={"layout": "directory"}, volumeBindingMode=WFFC)
    shared.apply(mended)
    machine.eventually(
        lambda: (asked(shared, "pvc/mended")["cause"] or {}).get("code") == "first-consumer"
    )


def test_what_is_well_has_no_cause(shared: machine.Machine) -> None:
    _bound(shared, "well")
    code, answer = why(shared, "pvc/well")
    assert (code, answer["state"], answer["cause"]) == (0, "Bound", None)
    printed = shared.holdfast("why", "pvc/well").stdout
    assert printed.startswith("pvc/well in namespace default is Bound\nNothing keeps it.")


@pytest.mark.root
def test_a_claim_in_use_that_is_deleted_names_the_pod(shared: machine.Machine) -> None:
    _bound(shared, "inuse")
    shared.run_pod(pod("inuse", "inuse"))
    shared.kubectl("delete", "pvc", "inuse", "--wait=false")
    code, answer = why(shared, "pvc/inuse")
    assert (code, answer["state"], answer["cause"]["code"]) == (1, "Terminating", "claim-in-use")
    assert answer["cause"]["fix"] == "kubectl -n default delete pod inuse"
    shared.kubectl("delete", "pod", "inuse", "--grace-period=0", "--force")
    shared.wait_until_gone("pvc", "inuse")


def test_volumes_that_are_kept_deleted_or_held_say_by_whom(shared: machine.Machine) -> None:
    name = _bound(shared, "keep", reclaimPolicy="Retain")
    shared.kubectl("delete", "pv", name, "--wait=false")
    code, answer = why(shared, f"pv/{name}")
    assert (code, answer["cause"]["code"]) == (1, "volume-has-a-claim")
    assert answer["cause"]["fix"] == "kubectl -n default delete pvc keep"
    other = _bound(shared, "keep2", reclaimPolicy="Retain")
    shared.kubectl("delete", "pvc", "keep2")
    shared.wait_for_phase("pv", other, "Released")
    code, answer = why(shared, f"pv/{other}")
    assert (code, answer["cause"]["code"]) == (0, "retained")
    shared.kubectl("patch", "pv", other, "-p", '{"metadata":{"finalizers":["mine.example/hold"]}}')
    shared.kubectl("delete", "pv", other, "--wait=false")
    code, answer = why(shared, f"pv/{other}")
    assert (code, answer["cause"]["code"]) == (1, "foreign-finalizer")
    assert "mine.example/hold" in answer["cause"]["what"]
    shared.kubectl("patch", "pv", other, "-p", '{"metadata":{"finalizers":null}}')


def test_a_claim_whose_volume_is_gone_says_which(shared: machine.Machine) -> None:
    shared.apply(
        storage_class("gone", "kubernetes.io/no-provisioner"),
        volume("gone", NOTHING, storageClassName="gone"),
        claim("gone", storage_class="gone"),
    )
    shared.wait_for_phase("pvc", "gone", "Bound")
    shared.kubectl("patch", "pv", "gone", "-p", '{"metadata":{"finalizers":null}}')
    shared.kubectl("delete", "pv", "gone", "--wait=false")
    shared.kubectl("patch", "pv", "gone", "-p", '{"metadata":{"finalizers":null}}', check=False)
    shared.wait_for_phase("pvc", "gone", "Lost")
    code, answer = why(shared, "pvc/gone")
    assert (code, answer["cause"]["code"]) == (1, "volume-gone")


def test_a_name_that_is_not_there_says_where_it_is(shared: machine.Machine) -> None:
    _bound(shared, "somewhere")
    done = shared.holdfast("why", "pvc/somewhree", check=False)
    assert done.returncode == 1
    assert "did you mean somewhere?" in done.stderr
    done = shared.holdfast("why", "pvc/somewhere", "-n", "kube-system", check=False)
    assert "there is one in default (-n)" in done.stderr
    assert shared.holdfast("why", "node/x", check=False).returncode == 2


def test_a_claim_that_a_quota_forbids_is_found_in_what_its_maker_was_told(
    shared: machine.Machine,
) -> None:
    labels = {"app": "quota"}
    template = claim("data", "8Mi")
    shared.apply(
        {
            "apiVersion": "v1",
            "kind": "ResourceQuota",
            "metadata": {"name": "storage"},
            "spec": {"hard": {"local.storageclass.storage.k8s.io/requests.storage": "1Mi"}},
        },
        {
            "apiVersion": "apps/v1",
            "kind": "StatefulSet",
            "metadata": {"name": "limited"},
            "spec": {
                "serviceName": "limited",
                "selector": {"matchLabels": labels},
                "template": {
                    "metadata": {"labels": labels},
                    "spec": {"containers": [{"name": "main", "image": "busybox"}]},
                },
                "volumeClaimTemplates": [{"metadata": {"name": "data"}, "spec": template["spec"]}],
            },
        },
    )
    shared.wait_for_event("limited", "FailedCreate")
    code, answer = why(shared, "pvc/data-limited-0")
    assert (code, answer["cause"]["code"]) == (1, "quota")
    shared.kubectl("delete", "statefulset/limited", "resourcequota/storage")
