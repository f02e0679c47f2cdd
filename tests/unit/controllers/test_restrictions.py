"""What keeps a pod off a node besides its claims: disks in use, and other zones."""

from __future__ import annotations

from typing import Any

import pytest

from holdfast.api import views
from holdfast.controllers.scheduling import restrictions

Object = dict[str, Any]
ZONE = "topology.kubernetes.io/zone"
OLD_ZONE = "failure-domain.beta.kubernetes.io/zone"


def pod(**source: Object) -> Object:
    return {"spec": {"volumes": [{"name": "v", **source}]}}


def image(name: str, *monitors: str, **more: Any) -> Object:
    return {"rbd": {"monitors": list(monitors), "pool": "p", "image": name, **more}}


@pytest.mark.parametrize(
    ("one", "other", "taken"),
    [
        (image("i", "a", "b"), image("i", "b"), True),
        (image("i", "a"), image("i", "b"), False),
        (image("i", "a"), image("j", "a"), False),
        (image("i", "a", readOnly=True), image("i", "a", readOnly=True), False),
        (image("i", "a", readOnly=True), image("i", "a"), True),
        ({"iscsi": {"iqn": "x", "lun": 0}}, {"iscsi": {"iqn": "x", "lun": 1}}, True),
        ({"gcePersistentDisk": {"pdName": "x"}}, {"gcePersistentDisk": {"pdName": "x"}}, True),
        (
            {"awsElasticBlockStore": {"volumeID": "x", "readOnly": True}},
            {"awsElasticBlockStore": {"volumeID": "x", "readOnly": True}},
            True,
        ),
        ({"nfs": {"server": "s", "path": "/"}}, {"nfs": {"server": "s", "path": "/"}}, False),
    ],
)
def test_a_disk_is_written_by_one_pod_of_a_node(one: Object, other: Object, taken: bool) -> None:
    said = restrictions.disk_taken(pod(**one), lambda: [pod(), pod(**other)])
    assert said == (restrictions.DISK_TAKEN if taken else None)


def test_the_pods_of_a_node_are_not_looked_at_for_a_pod_without_disks() -> None:
    def asked() -> list[Object]:
        raise AssertionError("asked")

    assert restrictions.disk_taken(pod(emptyDir={}), asked) is None


@pytest.mark.parametrize(
    ("volume", "node", "reached"),
    [
        ({ZONE: "a"}, {ZONE: "a"}, True),
        ({ZONE: "a"}, {ZONE: "b"}, False),
        ({ZONE: "a__b"}, {ZONE: "b"}, True),
        ({ZONE: "a__"}, {ZONE: "b"}, True),
        ({OLD_ZONE: "a"}, {ZONE: "a"}, True),
        ({OLD_ZONE: "a"}, {ZONE: "b"}, False),
        ({ZONE: "a"}, {"topology.kubernetes.io/region": "r"}, False),
        ({ZONE: "a"}, {}, True),
        ({}, {ZONE: "b"}, True),
    ],
)
def test_a_volume_is_reached_from_its_zone(volume: Object, node: Object, reached: bool) -> None:
    held = views.volume({"metadata": {"name": "v", "labels": volume}, "spec": {}})
    there = views.node({"metadata": {"name": "n", "labels": node}})
    said = restrictions.other_zone([None, held], there)
    assert said == (None if reached else restrictions.OTHER_ZONE)
