"""What may change in a storage object and what may not, as Kubernetes words it."""

from __future__ import annotations

from typing import Any

import pytest

from wire import CLAIMS, CLASSES, STORAGE, VOLUMES, Object, Wire, claim, meta, volume
from wire import storage_class as klass

ATTACHMENTS = f"{STORAGE}/volumeattachments"
NODES = f"{STORAGE}/csinodes"
AFFINITY = {
    "required": {
        "nodeSelectorTerms": [
            {"matchExpressions": [{"key": "host", "operator": "In", "values": ["a"]}]}
        ]
    }
}
IMMUTABLE = (
    "Forbidden: spec is immutable after creation except resources.requests and "
    "volumeAttributesClassName for bound claims"
)
SOURCE = "Forbidden: spec.persistentvolumesource is immutable after creation"
FIXED = "field is immutable"
DRIVERS = f"{STORAGE}/csidrivers"


def _attaching(**source: Any) -> Object:
    spec = {"attacher": "a", "nodeName": "n", "source": source}
    return {"metadata": meta("x"), "spec": spec}


_UPDATE: list[tuple[str, str, Object, Object, str, str]] = [
    # what, path, object, merge patch, field, text
    (
        "claim grows unbound",
        CLAIMS,
        claim("x"),
        {"spec": {"resources": {"requests": {"storage": "2Gi"}}}},
        "spec",
        IMMUTABLE,
    ),
    (
        "claim changes modes",
        CLAIMS,
        claim("x"),
        {"spec": {"accessModes": ["ReadOnlyMany"]}},
        "spec",
        IMMUTABLE,
    ),
    (
        "claim changes class",
        CLAIMS,
        claim("x", storageClassName="a"),
        {"spec": {"storageClassName": "b"}},
        "spec",
        IMMUTABLE,
    ),
    (
        "claim changes volume",
        CLAIMS,
        claim("x", volumeName="a"),
        {"spec": {"volumeName": "b"}},
        "spec",
        IMMUTABLE,
    ),
    (
        "claim changes mode",
        CLAIMS,
        claim("x"),
        {"spec": {"volumeMode": "Block"}},
        "volumeMode",
        FIXED,
    ),
    (
        "volume changes source",
        VOLUMES,
        volume("x"),
        {"spec": {"hostPath": {"path": "/other"}}},
        "spec.persistentvolumesource",
        SOURCE,
    ),
    (
        "volume changes mode",
        VOLUMES,
        volume("x"),
        {"spec": {"volumeMode": "Block"}},
        "volumeMode",
        FIXED,
    ),
    (
        "volume changes affinity",
        VOLUMES,
        volume("x", nodeAffinity=AFFINITY),
        {"spec": {"nodeAffinity": None}},
        "nodeAffinity",
        "field is immutable, except for updating from beta label to GA",
    ),
    (
        "class changes parameters",
        CLASSES,
        klass("x"),
        {"parameters": {"a": "b"}},
        "parameters",
        "Forbidden: updates to parameters are forbidden.",
    ),
    (
        "class changes provisioner",
        CLASSES,
        klass("x"),
        {"provisioner": "b.example.com"},
        "provisioner",
        "Forbidden: updates to provisioner are forbidden.",
    ),
    (
        "class changes policy",
        CLASSES,
        klass("x"),
        {"reclaimPolicy": "Retain"},
        "reclaimPolicy",
        "Forbidden: updates to reclaimPolicy are forbidden.",
    ),
    (
        "class changes binding",
        CLASSES,
        klass("x"),
        {"volumeBindingMode": "WaitForFirstConsumer"},
        "volumeBindingMode",
        FIXED,
    ),
    (
        "attachment changes",
        ATTACHMENTS,
        _attaching(persistentVolumeName="v"),
        {"spec": {"nodeName": "m"}},
        "spec",
        FIXED,
    ),
    (
        "driver changes attachment",
        DRIVERS,
        {"metadata": meta("x"), "spec": {}},
        {"spec": {"attachRequired": False}},
        "spec.attachedRequired",
        FIXED,
    ),
    (
        "driver changes modes",
        DRIVERS,
        {"metadata": meta("x"), "spec": {}},
        {"spec": {"volumeLifecycleModes": ["Ephemeral"]}},
        "spec.volumeLifecycleModes",
        FIXED,
    ),
    (
        "node changes a driver",
        NODES,
        {"metadata": meta("x"), "spec": {"drivers": [{"name": "d", "nodeID": "1"}]}},
        {"spec": {"drivers": [{"name": "d", "nodeID": "2"}]}},
        "CSINodeDriver",
        FIXED,
    ),
]


@pytest.mark.parametrize(
    ("path", "body", "patch", "field", "text"),
    [row[1:] for row in _UPDATE],
    ids=[row[0] for row in _UPDATE],
)
async def test_a_change_that_is_not_allowed(
    api: Wire, path: str, body: Object, patch: Object, field: str, text: str
) -> None:
    made = await api.make(path, body)
    reply = await api.patch(f"{path}/x", patch)
    assert (reply.code, reply.reason) == (422, "Invalid"), reply.content
    said = {name: message.partition("\n")[0] for name, _, message in reply.causes}
    assert said[field].startswith(text) or said[field].endswith(text), said
    assert await api.read(f"{path}/x") == made


@pytest.mark.parametrize(
    ("path", "body", "patch"),
    [
        (CLAIMS, claim("x"), {"spec": {"volumeName": "v"}}),
        (CLAIMS, claim("x"), {"spec": {"storageClassName": "late"}}),
        (CLAIMS, claim("x"), {"spec": {"storageClassName": ""}}),
        (VOLUMES, volume("x"), {"spec": {"capacity": {"storage": "7Gi"}}}),
        (VOLUMES, volume("x"), {"spec": {"accessModes": ["ReadOnlyMany"]}}),
        (VOLUMES, volume("x"), {"spec": {"storageClassName": "other"}}),
        (VOLUMES, volume("x"), {"spec": {"persistentVolumeReclaimPolicy": "Delete"}}),
        (VOLUMES, volume("x"), {"spec": {"claimRef": {"namespace": "a", "name": "b"}}}),
        (VOLUMES, volume("x"), {"spec": {"mountOptions": ["ro"]}}),
        (VOLUMES, volume("x"), {"spec": {"nodeAffinity": AFFINITY}}),
        (VOLUMES, volume("x"), {"metadata": {"labels": {"a": "b"}}}),
        (CLASSES, klass("x"), {"allowVolumeExpansion": True}),
        (CLASSES, klass("x"), {"mountOptions": ["ro"]}),
        (DRIVERS, {"metadata": meta("x"), "spec": {}}, {"spec": {"podInfoOnMount": True}}),
        (
            NODES,
            {"metadata": meta("x"), "spec": {"drivers": []}},
            {"spec": {"drivers": [{"name": "d", "nodeID": "1"}]}},
        ),
    ],
)
async def test_a_change_that_is_allowed(api: Wire, path: str, body: Object, patch: Object) -> None:
    await api.make(path, body)
    reply = await api.patch(f"{path}/x", patch)
    assert reply.code == 200, reply.content


async def test_the_old_class_annotation_stays_as_it_is(api: Wire) -> None:
    name = "volume.beta.kubernetes.io/storage-class"
    body = claim("x")
    body["metadata"]["annotations"] = {name: "old"}
    made = await api.call("POST", CLAIMS, body)
    assert made.code == 201
    assert len(made.warnings) == 1
    reply = await api.patch(f"{CLAIMS}/x", {"metadata": {"annotations": {name: "new"}}})
    assert [(field, text.rpartition(": ")[2]) for field, _, text in reply.causes] == [
        (f"metadata.annotations.{name}", FIXED)
    ]
    moved = await api.patch(f"{CLAIMS}/x", {"spec": {"storageClassName": "old"}})
    assert moved.code == 200
