# ruff: noqa: E501 (tables of cases read best with one case per line)
"""Tables: the columns of every kind and the cells of telling objects."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from holdfast.api import kinds
from holdfast.api.kinds import Kind
from holdfast.apiserver import tables

Object = dict[str, Any]
NOW = datetime(2026, 1, 1, 12, 0, 0, tzinfo=UTC)
CREATED = "2026-01-01T11:58:00Z"


def made(name: str = "x", **meta: Any) -> Object:
    return {"name": name, "creationTimestamp": CREATED, **meta}


COLUMNS = [
    (kinds.VOLUME, "Name, Capacity, Access Modes, Reclaim Policy, Status, Claim, StorageClass, VolumeAttributesClass, Reason, Age | VolumeMode"),
    (kinds.CLAIM, "Name, Status, Volume, Capacity, Access Modes, StorageClass, VolumeAttributesClass, Age | VolumeMode"),
    (kinds.STORAGE_CLASS, "Name, Provisioner, ReclaimPolicy, VolumeBindingMode, AllowVolumeExpansion, Age"),
    (kinds.VOLUME_ATTACHMENT, "Name, Attacher, PV, Node, Attached, Age"),
    (kinds.CSI_DRIVER, "Name, AttachRequired, PodInfoOnMount, StorageCapacity, TokenRequests, RequiresRepublish, Modes, Age"),
    (kinds.CSI_NODE, "Name, Drivers, Age"),
    (kinds.EVENT, "Last Seen, Type, Reason, Object, Message | Subobject, Source, First Seen, Count, Name"),
    (kinds.NAMESPACE, "Name, Status, Age"),
    (kinds.POD, "Name, Ready, Status, Restarts, Age | IP, Node, Nominated Node, Readiness Gates"),
    (kinds.NODE, "Name, Status, Roles, Age, Version | Internal-IP, External-IP, OS-Image, Kernel-Version, Container-Runtime"),
    (kinds.SECRET, "Name, Type, Data, Age"),
    (kinds.CONFIG_MAP, "Name, Data, Age"),
    (kinds.SERVICE, "Name, Type, Cluster-IP, External-IP, Port(s), Age | Selector"),
    (kinds.ENDPOINTS, "Name, Endpoints, Age"),
    (kinds.SERVICE_ACCOUNT, "Name, Secrets, Age"),
    (kinds.LEASE, "Name, Holder, Age"),
    (kinds.RESOURCE_QUOTA, "Name, Age, Request, Limit"),
    (kinds.SNAPSHOT_CLASS, "Name, Driver, DeletionPolicy, Age"),
    (kinds.SNAPSHOT_CONTENT, "Name, ReadyToUse, RestoreSize, DeletionPolicy, Driver, VolumeSnapshotClass, VolumeSnapshot, VolumeSnapshotNamespace, Age"),
    (kinds.SNAPSHOT, "Name, ReadyToUse, SourcePVC, SourceSnapshotContent, RestoreSize, SnapshotClass, SnapshotContent, CreationTime, Age"),
    (kinds.DEPLOYMENT, "Name, Ready, Up-to-date, Available, Age | Containers, Images, Selector"),
    (kinds.REPLICA_SET, "Name, Desired, Current, Ready, Age | Containers, Images, Selector"),
    (kinds.STATEFUL_SET, "Name, Ready, Age | Containers, Images"),
    (kinds.CONTROLLER_REVISION, "Name, Controller, Revision, Age"),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "expected"), COLUMNS, ids=lambda v: getattr(v, "name", ""))
def test_a_kind_has_the_columns_of_kubernetes(kind: Kind, expected: str) -> None:
    shown = tables.columns(kind)
    plain = ", ".join(c["name"] for c in shown if c["priority"] == 0)
    wide = ", ".join(c["name"] for c in shown if c["priority"] == 1)
    assert (f"{plain} | {wide}" if wide else plain) == expected
    assert [c["format"] for c in shown].count("name") == 1
    assert all(c["description"] and c["type"] for c in shown)


@pytest.mark.parametrize("kind", kinds.ALL, ids=lambda kind: kind.name)
def test_an_empty_object_of_any_kind_can_be_printed(kind: Kind) -> None:
    assert len(tables.cells(kind, {}, NOW)) == len(tables.columns(kind))


VOLUME = {
    "metadata": made("pv"),
    "spec": {
        "capacity": {"storage": "1Gi"},
        "accessModes": ["ReadWriteOncePod", "ReadWriteMany", "ReadOnlyMany", "ReadWriteOnce"],
        "persistentVolumeReclaimPolicy": "Retain",
        "claimRef": {"namespace": "n", "name": "c"},
        "storageClassName": "fast",
        "volumeMode": "Block",
    },
    "status": {"phase": "Bound"},
}
CLAIM = {
    "metadata": made("c"),
    "spec": {"storageClassName": "fast", "volumeName": "pv", "volumeMode": "Filesystem"},
    "status": {"phase": "Bound", "capacity": {"storage": "2Gi"}, "accessModes": ["ReadWriteOnce"]},
}
EVENT = {
    "metadata": made("e.1"),
    "firstTimestamp": "2026-01-01T11:00:00Z",
    "lastTimestamp": "2026-01-01T11:59:30Z",
    "count": 4,
    "type": "Warning",
    "reason": "Lost",
    "message": " gone \n",
    "involvedObject": {"kind": "PersistentVolumeClaim", "name": "p1", "fieldPath": "spec"},
    "source": {"component": "binder", "host": "h"},
}

ROWS = [
    (kinds.VOLUME, VOLUME, ["pv", "1Gi", "RWO,ROX,RWX,RWOP", "Retain", "Bound", "n/c", "fast", "<unset>", "", "2m", "Block"]),
    (kinds.CLAIM, CLAIM, ["c", "Bound", "pv", "2Gi", "RWO", "fast", "<unset>", "2m", "Filesystem"]),
    (kinds.CLAIM, {**CLAIM, "spec": {"volumeMode": "Block"}}, ["c", "Bound", "", "", "", "", "<unset>", "2m", "Block"]),
    (kinds.EVENT, EVENT, ["30s", "Warning", "Lost", "persistentvolumeclaim/p1", "spec", "binder, h", "gone", "60m", 4, "e.1"]),
    (kinds.EVENT, {"metadata": made("e"), "eventTime": "2026-01-01T11:59:00.000000Z", "reportingComponent": "r"}, ["60s", "", "", "", "", "r", "", "60s", 1, "e"]),
    (kinds.STORAGE_CLASS, {"metadata": made("f", annotations={"storageclass.kubernetes.io/is-default-class": "true"}), "provisioner": "p", "reclaimPolicy": "Retain", "volumeBindingMode": "WaitForFirstConsumer", "allowVolumeExpansion": True}, ["f (default)", "p", "Retain", "WaitForFirstConsumer", True, "2m"]),
    (kinds.STORAGE_CLASS, {"metadata": made("f", annotations={"storageclass.kubernetes.io/is-default-class": "yes"}), "provisioner": "p"}, ["f", "p", "Delete", "Immediate", False, "2m"]),
    (kinds.VOLUME_ATTACHMENT, {"metadata": made(), "spec": {"attacher": "a", "nodeName": "n", "source": {"persistentVolumeName": "pv"}}, "status": {"attached": True}}, ["x", "a", "pv", "n", True, "2m"]),
    (kinds.CSI_DRIVER, {"metadata": made(), "spec": {"attachRequired": False, "podInfoOnMount": True, "volumeLifecycleModes": ["Persistent", "Ephemeral"], "tokenRequests": [{"audience": "a"}]}}, ["x", False, True, False, "a", False, "Persistent,Ephemeral", "2m"]),
    (kinds.CSI_NODE, {"metadata": made(), "spec": {"drivers": [{}, {}]}}, ["x", 2, "2m"]),
    (kinds.NAMESPACE, {"metadata": made(), "status": {"phase": "Active"}}, ["x", "Active", "2m"]),
    (kinds.SECRET, {"metadata": made(), "type": "Opaque", "data": {"a": ""}}, ["x", "Opaque", 1, "2m"]),
    (kinds.CONFIG_MAP, {"metadata": made(), "data": {"a": ""}, "binaryData": {"b": ""}}, ["x", 2, "2m"]),
    (kinds.SERVICE, {"metadata": made(), "spec": {"type": "NodePort", "clusterIP": "10.0.0.1", "ports": [{"port": 80, "nodePort": 3000, "protocol": "TCP"}], "selector": {"b": "2", "a": "1"}}}, ["x", "NodePort", "10.0.0.1", "<none>", "80:3000/TCP", "2m", "a=1,b=2"]),
    (kinds.SERVICE, {"metadata": made(), "spec": {"type": "LoadBalancer"}}, ["x", "LoadBalancer", "<none>", "<pending>", "<none>", "2m", "<none>"]),
    (kinds.ENDPOINTS, {"metadata": made(), "subsets": [{"addresses": [{"ip": f"10.0.0.{n}"} for n in range(5)], "ports": [{"port": 1}]}]}, ["x", "10.0.0.0:1,10.0.0.1:1,10.0.0.2:1 + 2 more...", "2m"]),
    (kinds.SERVICE_ACCOUNT, {"metadata": made()}, ["x", 0, "2m"]),
    (kinds.LEASE, {"metadata": made(), "spec": {"holderIdentity": "me"}}, ["x", "me", "2m"]),
    (kinds.NODE, {"metadata": made(labels={"node-role.kubernetes.io/worker": "", "kubernetes.io/role": "db"}), "spec": {"unschedulable": True}, "status": {"conditions": [{"type": "Ready", "status": "True"}], "addresses": [{"type": "InternalIP", "address": "10.1.1.1"}], "nodeInfo": {"kubeletVersion": "v1", "osImage": "Linux"}}}, ["x", "Ready,SchedulingDisabled", "db,worker", "2m", "v1", "10.1.1.1", "<none>", "Linux", "<unknown>", "<unknown>"]),
    (kinds.NODE, {"metadata": made(), "status": {"conditions": [{"type": "Ready", "status": "Unknown"}]}}, ["x", "NotReady", "<none>", "2m", "", "<none>", "<none>", "<unknown>", "<unknown>", "<unknown>"]),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "obj", "expected"), ROWS)
def test_an_object_prints_as(kind: Kind, obj: Object, expected: list[Any]) -> None:
    assert tables.cells(kind, obj, NOW) == expected


@pytest.mark.parametrize(("kind", "obj"), [(kinds.VOLUME, VOLUME), (kinds.CLAIM, CLAIM)])
def test_what_is_being_deleted_shows_so_and_the_class_annotation_wins(
    kind: Kind, obj: Object
) -> None:
    notes = {"volume.beta.kubernetes.io/storage-class": "old"}
    going = {**obj, "metadata": made(deletionTimestamp=CREATED, annotations=notes)}
    cells = dict(
        zip([c["name"] for c in tables.columns(kind)], tables.cells(kind, going, NOW), strict=True)
    )
    assert cells["Status"] == "Terminating"
    assert cells["StorageClass"] == "old"


def a_pod(status: Object, **meta: Any) -> Object:
    spec = {"containers": [{"name": "a"}, {"name": "b"}], "initContainers": [{"name": "i"}]}
    return {"metadata": made(**meta), "spec": spec, "status": status}


def running(name: str, restarts: int = 0, **more: Any) -> Object:
    return {"name": name, "ready": True, "restartCount": restarts, "state": {"running": {}}, **more}


def waiting(name: str, reason: str) -> Object:
    return {"name": name, "state": {"waiting": {"reason": reason}}}


def ended(name: str, **how: Any) -> Object:
    return {"name": name, "state": {"terminated": how}}


READY = [{"type": "Ready", "status": "True"}]
PODS = [
    ({"phase": "Pending"}, ["0/2", "Pending", "0"]),
    ({"phase": "Pending", "containerStatuses": [waiting("a", "ContainerCreating")]}, ["0/2", "ContainerCreating", "0"]),
    ({"phase": "Running", "containerStatuses": [running("a", 1), running("b", 2)]}, ["2/2", "Running", "3"]),
    ({"phase": "Running", "containerStatuses": [running("a", 1, lastState={"terminated": {"finishedAt": "2026-01-01T11:55:00Z"}})]}, ["1/2", "Running", "1 (5m ago)"]),
    ({"phase": "Succeeded", "containerStatuses": [ended("a", reason="Completed", exitCode=0)]}, ["0/2", "Completed", "0"]),
    ({"phase": "Running", "conditions": READY, "containerStatuses": [ended("a", reason="Completed"), running("b")]}, ["1/2", "Running", "0"]),
    ({"phase": "Running", "containerStatuses": [ended("a", reason="Completed"), running("b")]}, ["1/2", "NotReady", "0"]),
    ({"phase": "Failed", "containerStatuses": [ended("a", exitCode=7)]}, ["0/2", "ExitCode:7", "0"]),
    ({"phase": "Failed", "containerStatuses": [ended("a", signal=9)]}, ["0/2", "Signal:9", "0"]),
    ({"phase": "Failed", "reason": "Evicted"}, ["0/2", "Evicted", "0"]),
    ({"phase": "Pending", "initContainerStatuses": [{"name": "i", "state": {"running": {}}}]}, ["0/2", "Init:0/1", "0"]),
    ({"phase": "Pending", "initContainerStatuses": [waiting("i", "ImagePullBackOff")]}, ["0/2", "Init:ImagePullBackOff", "0"]),
    ({"phase": "Pending", "initContainerStatuses": [ended("i", exitCode=1)]}, ["0/2", "Init:ExitCode:1", "0"]),
    ({"phase": "Pending", "initContainerStatuses": [{**ended("i", exitCode=0), "restartCount": 4}], "containerStatuses": [waiting("a", "CrashLoopBackOff")]}, ["0/2", "CrashLoopBackOff", "0"]),
    ({"phase": "Pending", "conditions": [{"type": "PodScheduled", "reason": "SchedulingGated"}]}, ["0/2", "SchedulingGated", "0"]),
]  # fmt: skip


@pytest.mark.parametrize(("status", "expected"), PODS)
def test_a_pod_is_summed_up_in_one_word(status: Object, expected: list[str]) -> None:
    assert tables.cells(kinds.POD, a_pod(status), NOW)[1:4] == expected


def test_a_pod_being_deleted_is_terminating_unless_it_has_ended() -> None:
    for phase, word in (("Running", "Terminating"), ("Succeeded", "Succeeded")):
        pod = a_pod({"phase": phase}, deletionTimestamp=CREATED)
        assert tables.cells(kinds.POD, pod, NOW)[2] == word
    lost = a_pod({"phase": "Running", "reason": "NodeLost"}, deletionTimestamp=CREATED)
    assert tables.cells(kinds.POD, lost, NOW)[2] == "Unknown"


def test_a_sidecar_counts_as_a_container_and_keeps_its_restarts() -> None:
    pod = a_pod(
        {
            "phase": "Running",
            "initContainerStatuses": [running("i", 2, started=True)],
            "containerStatuses": [running("a"), running("b")],
        }
    )
    pod["spec"]["initContainers"][0]["restartPolicy"] = "Always"
    assert tables.cells(kinds.POD, pod, NOW)[1:4] == ["3/3", "Running", "2"]


def test_the_wide_cells_of_a_pod_say_where_it_is() -> None:
    pod = a_pod({"podIPs": [{"ip": "10.0.0.9"}], "conditions": [{"type": "g", "status": "True"}]})
    pod["spec"].update(
        nodeName="n1", readinessGates=[{"conditionType": "g"}, {"conditionType": "h"}]
    )
    assert tables.cells(kinds.POD, pod, NOW)[5:] == ["10.0.0.9", "n1", "<none>", "1/2"]


def test_a_table_wraps_rows_with_what_was_asked_for() -> None:
    def one(include: tables.Include, columns: bool = True) -> Object:
        return tables.table(
            kinds.NAMESPACE,
            [{"kind": "Namespace", "metadata": made()}],
            list_meta={"resourceVersion": "7"},
            include=include,
            now=NOW,
            columns=columns,
        )

    full = one("Object")
    assert full["kind"] == "Table"
    assert full["apiVersion"] == "meta.k8s.io/v1"
    assert full["metadata"] == {"resourceVersion": "7"}
    assert full["columnDefinitions"] == tables.columns(kinds.NAMESPACE)
    assert full["rows"][0]["object"]["kind"] == "Namespace"
    assert one("Metadata")["rows"][0]["object"] == {
        "kind": "PartialObjectMetadata",
        "apiVersion": "meta.k8s.io/v1",
        "metadata": made(),
    }
    assert one("None")["rows"][0]["object"] is None
    assert one("None", columns=False)["columnDefinitions"] is None
