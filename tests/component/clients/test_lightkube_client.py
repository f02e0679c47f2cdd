"""lightkube against a real `holdfast up`."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from lightkube import Client, KubeConfig
from lightkube.core.exceptions import ApiError
from lightkube.models.core_v1 import PersistentVolumeClaimSpec, VolumeResourceRequirements
from lightkube.models.meta_v1 import ObjectMeta
from lightkube.resources.core_v1 import ConfigMap, Namespace, PersistentVolume
from lightkube.resources.core_v1 import PersistentVolumeClaim as Claim
from lightkube.types import PatchType

from machine import Machine


@pytest.fixture
def api(cluster: Machine) -> Iterator[Client]:
    config = KubeConfig.from_file(str(cluster.kubeconfig))
    with Client(config, field_manager="lightkube") as found:
        yield found


def _claim(name: str) -> Claim:
    spec = PersistentVolumeClaimSpec(
        accessModes=["ReadWriteOnce"],
        storageClassName="plain",
        resources=VolumeResourceRequirements(requests={"storage": "16Mi"}),
    )
    return Claim(metadata=ObjectMeta(name=name), spec=spec)


def test_a_claim_is_created_watched_applied_and_patched(api: Client) -> None:
    api.create(_claim("light"))
    for _, claim in api.watch(Claim, fields={"metadata.name": "light"}, server_timeout=20):
        if claim.status is not None and claim.status.phase == "Bound":
            break
    else:
        pytest.fail("the claim was not bound")
    assert claim.spec is not None and claim.spec.volumeName
    assert api.get(PersistentVolume, claim.spec.volumeName)
    applied = api.apply(Claim(metadata=ObjectMeta(name="light", labels={"a": "b"})))
    assert applied.metadata is not None and applied.metadata.labels == {"a": "b"}
    operation = [{"op": "add", "path": "/metadata/labels/c", "value": "d"}]
    patched = api.patch(Claim, "light", operation, patch_type=PatchType.JSON)
    assert patched.metadata is not None and patched.metadata.labels == {"a": "b", "c": "d"}
    api.delete(Claim, "light")


def test_lists_come_in_pages_and_by_label(api: Client) -> None:
    for number in range(5):
        labels = {"even": "yes" if number % 2 == 0 else "no"}
        api.create(ConfigMap(metadata=ObjectMeta(name=f"page-{number}", labels=labels)))
    found = api.list(ConfigMap, chunk_size=2, labels={"even": "yes"})
    names = [each.metadata.name for each in found if each.metadata]
    assert names == ["page-0", "page-2", "page-4"]
    api.deletecollection(ConfigMap)
    assert list(api.list(ConfigMap)) == []


def test_what_is_missing_is_an_api_error(api: Client) -> None:
    with pytest.raises(ApiError) as caught:
        api.get(Namespace, "none")
    assert (caught.value.status.code, caught.value.status.reason) == (404, "NotFound")
    assert caught.value.status.message == 'namespaces "none" not found'
