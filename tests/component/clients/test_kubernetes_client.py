"""The official Python client, typed and dynamic, against a real `holdfast up`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from kubernetes import client, config, dynamic, watch

from machine import Machine


@pytest.fixture
def api(cluster: Machine) -> Iterator[Any]:
    """A client with the administrator's kubeconfig."""
    with config.new_client_from_config(str(cluster.kubeconfig)) as found:
        yield found


def _claim(name: str) -> Any:
    spec = client.V1PersistentVolumeClaimSpec(
        access_modes=["ReadWriteOnce"],
        storage_class_name="plain",
        resources=client.V1VolumeResourceRequirements(requests={"storage": "16Mi"}),
    )
    return client.V1PersistentVolumeClaim(metadata=client.V1ObjectMeta(name=name), spec=spec)


def test_a_claim_is_created_watched_and_patched(api: Any) -> None:
    core = client.CoreV1Api(api)
    made = core.create_namespaced_persistent_volume_claim("default", _claim("typed"))
    assert made.status.phase == "Pending"
    watcher, phases = watch.Watch(), []
    stream = watcher.stream(
        core.list_namespaced_persistent_volume_claim,
        "default",
        field_selector="metadata.name=typed",
        resource_version=made.metadata.resource_version,
        timeout_seconds=20,
    )
    for event in stream:
        phases.append(event["object"].status.phase)
        if phases[-1] == "Bound":
            watcher.stop()
    assert phases[-1] == "Bound"
    change = {"metadata": {"labels": {"a": "b"}}}
    patched = core.patch_namespaced_persistent_volume_claim("typed", "default", change)
    assert patched.metadata.labels == {"a": "b"}
    volume = core.read_persistent_volume(patched.spec.volume_name)
    assert volume.spec.claim_ref.name == "typed"
    core.delete_namespaced_persistent_volume_claim("typed", "default")


def test_errors_are_the_clients_own(api: Any) -> None:
    core = client.CoreV1Api(api)
    with pytest.raises(client.ApiException) as missing:
        core.read_namespaced_persistent_volume_claim("none", "default")
    assert (missing.value.status, missing.value.reason) == (404, "Not Found")
    with pytest.raises(client.ApiException) as invalid:
        core.create_namespaced_persistent_volume_claim("default", _claim("Not_A_Name"))
    assert invalid.value.status == 422


def test_every_list_can_be_read(api: Any) -> None:
    core, storage, apps = client.CoreV1Api(api), client.StorageV1Api(api), client.AppsV1Api(api)
    leases = client.CoordinationV1Api(api)
    assert [node.metadata.name for node in core.list_node().items] == ["node-1"]
    assert {"local", "plain"} <= {c.metadata.name for c in storage.list_storage_class().items}
    for read in (
        core.list_config_map_for_all_namespaces,
        core.list_endpoints_for_all_namespaces,
        core.list_event_for_all_namespaces,
        core.list_namespace,
        core.list_persistent_volume,
        core.list_pod_for_all_namespaces,
        core.list_resource_quota_for_all_namespaces,
        core.list_secret_for_all_namespaces,
        core.list_service_account_for_all_namespaces,
        core.list_service_for_all_namespaces,
        storage.list_csi_driver,
        storage.list_csi_node,
        storage.list_volume_attachment,
        apps.list_deployment_for_all_namespaces,
        apps.list_replica_set_for_all_namespaces,
        apps.list_stateful_set_for_all_namespaces,
        leases.list_lease_for_all_namespaces,
    ):
        assert read().metadata.resource_version


def test_identities_are_asked_for(api: Any) -> None:
    me = client.AuthenticationV1Api(api).create_self_subject_review(client.V1SelfSubjectReview())
    assert me.status.user_info.username == "kubernetes-admin"
    attributes = client.V1ResourceAttributes(verb="create", resource="pods", namespace="default")
    spec = client.V1SelfSubjectAccessReviewSpec(resource_attributes=attributes)
    asked = client.V1SelfSubjectAccessReview(spec=spec)
    found = client.AuthorizationV1Api(api).create_self_subject_access_review(asked)
    assert found.status.allowed is True


def test_the_dynamic_client_finds_resources_and_applies(
    api: Any, tmp_path_factory: pytest.TempPathFactory
) -> None:
    cache = str(tmp_path_factory.mktemp("discovery") / "cache.json")
    found = dynamic.DynamicClient(api, cache_file=cache)
    claims = found.resources.get(api_version="v1", kind="PersistentVolumeClaim")
    body = {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": "dynamic", "labels": {"a": "b"}},
        "spec": {
            "accessModes": ["ReadWriteOnce"],
            "storageClassName": "plain",
            "resources": {"requests": {"storage": "16Mi"}},
        },
    }
    made = claims.create(body=body, namespace="default")
    assert made.status.phase == "Pending"
    labels = {"metadata": {"name": "dynamic", "labels": {"c": "d"}}}
    applied = claims.server_side_apply(
        body={"apiVersion": "v1", "kind": "PersistentVolumeClaim", **labels},
        name="dynamic",
        namespace="default",
        field_manager="test",
    )
    assert applied.metadata.labels.to_dict() == {"a": "b", "c": "d"}
    for event in claims.watch(namespace="default", name="dynamic", timeout=20):
        if event["object"].status.phase == "Bound":
            break
    else:
        pytest.fail("the claim was not bound")
    snapshots = found.resources.get(api_version="snapshot.storage.k8s.io/v1", kind="VolumeSnapshot")
    assert snapshots.get(namespace="default").items == []
    claims.delete(name="dynamic", namespace="default")
