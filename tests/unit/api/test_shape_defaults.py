"""What objects say where their authors said nothing."""

from __future__ import annotations

from typing import Any

import pytest

from holdfast.api import shapes


def defaulted(kind: str, **value: Any) -> dict[str, Any]:
    shape = shapes.of(kind)
    return shape.default(shape.decode(value))


def test_a_volume_gets_its_defaults() -> None:
    volume = defaulted("PersistentVolume", spec={"hostPath": {"path": "/a"}})
    assert volume["spec"] == {
        "hostPath": {"path": "/a", "type": ""},
        "persistentVolumeReclaimPolicy": "Retain",
        "volumeMode": "Filesystem",
    }
    assert volume["status"] == {"phase": "Pending"}


def test_a_claim_gets_its_defaults_and_no_class() -> None:
    value = defaulted("PersistentVolumeClaim")
    assert value["spec"] == {"resources": {}, "volumeMode": "Filesystem"}
    assert value["status"] == {"phase": "Pending"}


def test_what_the_author_said_is_not_overridden() -> None:
    value = defaulted(
        "StorageClass", provisioner="p", reclaimPolicy="Retain", volumeBindingMode="Immediate"
    )
    assert value["reclaimPolicy"] == "Retain"
    assert defaulted("StorageClass")["reclaimPolicy"] == "Delete"
    assert defaulted("StorageClass")["volumeBindingMode"] == "Immediate"


def test_a_driver_gets_its_defaults_and_each_its_own_list() -> None:
    spec = defaulted("CSIDriver")["spec"]
    assert spec == {
        "attachRequired": True,
        "podInfoOnMount": False,
        "storageCapacity": False,
        "requiresRepublish": False,
        "seLinuxMount": False,
        "fsGroupPolicy": "ReadWriteOnceWithFSType",
        "volumeLifecycleModes": ["Persistent"],
    }
    spec["volumeLifecycleModes"].append("Ephemeral")
    assert defaulted("CSIDriver")["spec"]["volumeLifecycleModes"] == ["Persistent"]


def test_a_pod_gets_its_defaults() -> None:
    pod = defaulted("Pod", spec={"containers": [{"name": "a", "image": "busybox:1"}]})
    assert pod["spec"] == {
        "containers": [
            {
                "name": "a",
                "image": "busybox:1",
                "imagePullPolicy": "IfNotPresent",
                "resources": {},
                "terminationMessagePath": "/dev/termination-log",
                "terminationMessagePolicy": "File",
            }
        ],
        "dnsPolicy": "ClusterFirst",
        "enableServiceLinks": True,
        "restartPolicy": "Always",
        "schedulerName": "default-scheduler",
        "securityContext": {},
        "terminationGracePeriodSeconds": 30,
    }


def test_a_grace_period_of_zero_is_not_a_missing_one() -> None:
    pod = defaulted("Pod", spec={"terminationGracePeriodSeconds": 0})
    assert pod["spec"]["terminationGracePeriodSeconds"] == 0


@pytest.mark.parametrize(
    ("image", "policy"),
    [
        ("busybox", "Always"),
        ("busybox:latest", "Always"),
        ("registry:5000/busybox", "Always"),
        ("registry:5000/busybox:1.36", "IfNotPresent"),
        ("busybox@sha256:00", "IfNotPresent"),
        ("busybox:latest@sha256:00", "Always"),
    ],
)
def test_the_pull_policy_depends_on_the_tag(image: str, policy: str) -> None:
    pod = defaulted("Pod", spec={"initContainers": [{"name": "a", "image": image}]})
    assert pod["spec"]["initContainers"][0]["imagePullPolicy"] == policy


def test_requests_follow_limits() -> None:
    resources = {"limits": {"cpu": "2", "memory": "1Gi"}, "requests": {"cpu": "1"}}
    pod = defaulted("Pod", spec={"containers": [{"name": "a", "resources": resources}]})
    assert pod["spec"]["containers"][0]["resources"]["requests"] == {"cpu": "1", "memory": "1Gi"}


def test_pod_volumes_get_their_defaults() -> None:
    volumes = [
        {"name": "a", "secret": {"secretName": "s"}},
        {"name": "b", "projected": {"sources": [{"serviceAccountToken": {"path": "t"}}]}},
        {"name": "c"},
        {"name": "d", "ephemeral": {"volumeClaimTemplate": {"metadata": {"labels": {"a": "b"}}}}},
    ]
    secret, projected, nothing, ephemeral = defaulted("Pod", spec={"volumes": volumes})["spec"][
        "volumes"
    ]
    assert secret["secret"]["defaultMode"] == 0o644
    assert projected["projected"]["defaultMode"] == 0o644
    assert projected["projected"]["sources"][0]["serviceAccountToken"]["expirationSeconds"] == 3600
    assert nothing == {"name": "c", "emptyDir": {}}
    assert ephemeral["ephemeral"]["volumeClaimTemplate"] == {
        "metadata": {"labels": {"a": "b"}},
        "spec": {"resources": {}, "volumeMode": "Filesystem"},
    }


def test_the_two_names_of_the_service_account_are_kept_equal() -> None:
    spec = defaulted("Pod", spec={"serviceAccount": "robot"})["spec"]
    assert (spec["serviceAccountName"], spec["serviceAccount"]) == ("robot", "robot")


def test_ports_of_a_pod_on_the_host_network_are_ports_of_the_host() -> None:
    containers = [{"name": "a", "ports": [{"containerPort": 80}]}]
    pod = defaulted("Pod", spec={"hostNetwork": True, "containers": containers})
    assert pod["spec"]["containers"][0]["ports"] == [
        {"containerPort": 80, "hostPort": 80, "protocol": "TCP"}
    ]


def test_a_service_gets_its_defaults() -> None:
    assert defaulted("Service", spec={"ports": [{"port": 80}]})["spec"] == {
        "type": "ClusterIP",
        "sessionAffinity": "None",
        "internalTrafficPolicy": "Cluster",
        "ports": [{"port": 80, "targetPort": 80, "protocol": "TCP"}],
    }


def test_a_service_with_client_affinity_gets_its_time_out() -> None:
    spec = defaulted("Service", spec={"type": "LoadBalancer", "sessionAffinity": "ClientIP"})[
        "spec"
    ]
    assert spec["sessionAffinityConfig"] == {"clientIP": {"timeoutSeconds": 10800}}
    assert spec["externalTrafficPolicy"] == "Cluster"
    assert spec["allocateLoadBalancerNodePorts"] is True


def test_a_namespace_carries_its_name_as_a_label() -> None:
    value = defaulted("Namespace", metadata={"name": "team", "labels": {"a": "b"}})
    assert value["metadata"]["labels"] == {"a": "b", "kubernetes.io/metadata.name": "team"}
    assert value["status"] == {"phase": "Active"}


def test_a_node_can_allocate_all_it_has_unless_it_says_otherwise() -> None:
    node = defaulted("Node", status={"capacity": {"cpu": "2"}})
    assert node["status"]["allocatable"] == {"cpu": "2"}
    node["status"]["allocatable"]["cpu"] = "1"
    assert node["status"]["capacity"] == {"cpu": "2"}


@pytest.mark.parametrize(
    ("amount", "kept"), [("1n", "1m"), ("1500u", "2m"), ("1500m", "1500m"), ("-1500u", "-1m")]
)
def test_resources_are_rounded_up_to_thousandths(amount: str, kept: str) -> None:
    volume = defaulted("PersistentVolume", spec={"capacity": {"storage": amount}})
    assert volume["spec"]["capacity"] == {"storage": kept}


def test_a_secret_is_opaque_unless_it_says_otherwise() -> None:
    assert defaulted("Secret")["type"] == "Opaque"
    assert defaulted("Secret", type="Other")["type"] == "Other"
