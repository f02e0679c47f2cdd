"""The rules for storage objects, as Kubernetes words them: one row per broken rule."""

from __future__ import annotations

from typing import Any

import pytest

from holdfast.api.validation import names
from wire import CLAIMS, CLASSES, STORAGE, VOLUMES, Object, Reply, Wire, claim, meta, volume
from wire import storage_class as klass

REQUIRED, INVALID = "FieldValueRequired", "FieldValueInvalid"
UNSUPPORTED, FORBIDDEN = "FieldValueNotSupported", "FieldValueForbidden"
DUPLICATE = "FieldValueDuplicate"
MODES = 'supported values: "ReadOnlyMany", "ReadWriteMany", "ReadWriteOnce", "ReadWriteOncePod"'
NAME = (
    "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or "
    "'.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used "
    "for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')"
)
ONCE_POD = "Forbidden: may not use ReadWriteOncePod with other access modes"
ATTACHMENTS = f"{STORAGE}/volumeattachments"
NODES = f"{STORAGE}/csinodes"
Row = tuple[str, str, str]


def _spec(obj: Object, **changes: Any) -> Object:
    spec = {**obj["spec"], **changes}
    return {**obj, "spec": {key: value for key, value in spec.items() if value is not None}}


def _sourced(**sources: Any) -> Object:
    """A volume with these sources instead of the usual one."""
    return _spec(volume("v"), hostPath=None, **sources)


def _requesting(amount: object) -> Object:
    return claim("c", resources={"requests": {"storage": amount}} if amount is not None else {})


def _selecting(operator: str) -> Object:
    expression = {"key": "a", "operator": operator, "values": ["b"]}
    return claim("c", selector={"matchExpressions": [expression]})


def _attaching(**source: Any) -> Object:
    spec = {"attacher": "a", "nodeName": "n", "source": source}
    return {"metadata": meta("x"), "spec": spec}


_CREATE: list[tuple[str, str, Object, list[Row]]] = [
    (
        "claim without modes",
        CLAIMS,
        claim("c", accessModes=[]),
        [("spec.accessModes", REQUIRED, "Required value: at least 1 access mode is required")],
    ),
    (
        "claim of an unknown mode",
        CLAIMS,
        claim("c", accessModes=["ReadTwice"]),
        [("spec.accessModes", UNSUPPORTED, f'Unsupported value: "ReadTwice": {MODES}')],
    ),
    (
        "volume of an unknown mode",
        VOLUMES,
        volume("v", accessModes=["ReadTwice"]),
        [("spec.accessModes", UNSUPPORTED, f'Unsupported value: "ReadTwice": {MODES}')],
    ),
    (
        "claim for one pod and others",
        CLAIMS,
        claim("c", accessModes=["ReadWriteOncePod", "ReadWriteOnce"]),
        [("spec.accessModes", FORBIDDEN, ONCE_POD)],
    ),
    (
        "volume for one pod and others",
        VOLUMES,
        volume("v", accessModes=["ReadWriteOncePod", "ReadWriteOnce"]),
        [("spec.accessModes", FORBIDDEN, ONCE_POD)],
    ),
    (
        "claim without a request",
        CLAIMS,
        _requesting(None),
        [("spec.resources[storage]", REQUIRED, "Required value")],
    ),
    (
        "claim for nothing",
        CLAIMS,
        _requesting("0"),
        [("spec.resources[storage]", INVALID, 'Invalid value: "0": must be greater than zero')],
    ),
    (
        "claim of an unknown volume mode",
        CLAIMS,
        claim("c", volumeMode="Tape"),
        [
            (
                "spec.volumeMode",
                UNSUPPORTED,
                'Unsupported value: "Tape": supported values: "Block", "Filesystem"',
            )
        ],
    ),
    (
        "volume of an unknown volume mode",
        VOLUMES,
        volume("v", volumeMode="Tape"),
        [
            (
                "spec.volumeMode",
                UNSUPPORTED,
                'Unsupported value: "Tape": supported values: "Block", "Filesystem"',
            )
        ],
    ),
    (
        "claim of a class with a bad name",
        CLAIMS,
        claim("c", storageClassName="Not_A_Name"),
        [("spec.storageClassName", INVALID, f'Invalid value: "Not_A_Name": {NAME}')],
    ),
    (
        "volume of a class with a bad name",
        VOLUMES,
        volume("v", storageClassName="Not_A_Name"),
        [("spec.storageClassName", INVALID, f'Invalid value: "Not_A_Name": {NAME}')],
    ),
    (
        "claim with an unknown selector operator",
        CLAIMS,
        _selecting("Like"),
        [
            (
                "spec.selector.matchExpressions[0].operator",
                INVALID,
                'Invalid value: "Like": not a valid selector operator',
            )
        ],
    ),
    (
        "claim from a core object that is no claim",
        CLAIMS,
        claim("c", dataSourceRef={"kind": "Pod", "name": "p"}),
        [
            (
                "spec.dataSource",
                INVALID,
                "must be 'PersistentVolumeClaim' when referencing the default apiGroup",
            ),
            (
                "spec.dataSourceRef",
                INVALID,
                "must be 'PersistentVolumeClaim' when referencing the default apiGroup",
            ),
        ],
    ),
    (
        "volume without a source",
        VOLUMES,
        _sourced(),
        [("spec", REQUIRED, "Required value: must specify a volume type")],
    ),
    (
        "volume with two sources",
        VOLUMES,
        volume("v", nfs={"server": "s", "path": "/p"}),
        [("spec.nfs", FORBIDDEN, "Forbidden: may not specify more than 1 volume type")],
    ),
    (
        "volume without capacity",
        VOLUMES,
        volume("v", capacity=None),
        [
            ("spec.capacity", REQUIRED, "Required value"),
            (
                "spec.capacity",
                UNSUPPORTED,
                'Unsupported value: core.ResourceList(nil): supported values: "storage"',
            ),
        ],
    ),
    (
        "volume of no size",
        VOLUMES,
        volume("v", "0"),
        [("spec.capacity[storage]", INVALID, 'Invalid value: "0": must be greater than zero')],
    ),
    (
        "volume without modes",
        VOLUMES,
        volume("v", accessModes=[]),
        [("spec.accessModes", REQUIRED, "Required value")],
    ),
    (
        "volume with an unknown policy",
        VOLUMES,
        volume("v", persistentVolumeReclaimPolicy="Burn"),
        [
            (
                "spec.persistentVolumeReclaimPolicy",
                UNSUPPORTED,
                'Unsupported value: "Burn": supported values: "Delete", "Recycle", "Retain"',
            )
        ],
    ),
    (
        "volume that would recycle the root",
        VOLUMES,
        volume("v", hostPath={"path": "/"}, persistentVolumeReclaimPolicy="Recycle"),
        [
            (
                "spec.persistentVolumeReclaimPolicy",
                FORBIDDEN,
                "Forbidden: may not be 'recycle' for a hostPath mount of '/'",
            )
        ],
    ),
    (
        "volume that climbs",
        VOLUMES,
        volume("v", hostPath={"path": "/a/../b"}),
        [("spec.hostPath.path", INVALID, "Invalid value: \"/a/../b\": must not contain '..'")],
    ),
    (
        "local volume on any node",
        VOLUMES,
        _sourced(local={"path": "/d"}),
        [
            (
                "spec.nodeAffinity",
                REQUIRED,
                "Required value: Local volume requires node affinity",
            )
        ],
    ),
    (
        "volume with an empty affinity",
        VOLUMES,
        volume("v", nodeAffinity={}),
        [
            (
                "spec.nodeAffinity.required",
                REQUIRED,
                "Required value: must specify required node constraints",
            )
        ],
    ),
    (
        "CSI volume without a handle",
        VOLUMES,
        _sourced(csi={"driver": "d.example.com"}),
        [("spec.csi.volumeHandle", REQUIRED, "Required value")],
    ),
    (
        "CSI volume without a driver",
        VOLUMES,
        _sourced(csi={"volumeHandle": "h"}),
        [
            ("spec.csi.driver", REQUIRED, "Required value"),
            ("spec.csi.driver", INVALID, names.subdomain("")[0]),
        ],
    ),
    (
        "class without a provisioner",
        CLASSES,
        {"metadata": meta("c")},
        [("provisioner", REQUIRED, "Required value")],
    ),
    (
        "class that recycles",
        CLASSES,
        klass("c", reclaimPolicy="Recycle"),
        [
            (
                "reclaimPolicy",
                UNSUPPORTED,
                'Unsupported value: "Recycle": supported values: "Delete", "Retain"',
            )
        ],
    ),
    (
        "class with an unknown binding mode",
        CLASSES,
        klass("c", volumeBindingMode="Later"),
        [
            (
                "volumeBindingMode",
                UNSUPPORTED,
                'Unsupported value: "Later": supported values: "Immediate", "WaitForFirstConsumer"',
            )
        ],
    ),
    (
        "class with a nameless parameter",
        CLASSES,
        klass("c", parameters={"": "x"}),
        [("parameters", INVALID, 'Invalid value: "": field can not be empty.')],
    ),
    (
        "attachment of nothing",
        ATTACHMENTS,
        _attaching(),
        [
            (
                "spec.source",
                REQUIRED,
                "Required value: must specify exactly one of inlineVolumeSpec "
                "and persistentVolumeName",
            )
        ],
    ),
    (
        "attachment of two things",
        ATTACHMENTS,
        _attaching(persistentVolumeName="v", inlineVolumeSpec=volume("v")["spec"]),
        [
            (
                "spec.source",
                FORBIDDEN,
                "Forbidden: must specify exactly one of inlineVolumeSpec and persistentVolumeName",
            )
        ],
    ),
    (
        "node with a driver twice",
        NODES,
        {"metadata": meta("n"), "spec": {"drivers": [{"name": "d", "nodeID": "1"}] * 2}},
        [("spec.drivers[1].name", DUPLICATE, 'Duplicate value: "d"')],
    ),
    (
        "node with a driver without id",
        NODES,
        {"metadata": meta("n"), "spec": {"drivers": [{"name": "d", "nodeID": ""}]}},
        [("spec.drivers[0].nodeID", REQUIRED, "Required value")],
    ),
]


def _told(reply: Reply, rows: list[Row]) -> bool:
    """Whether the causes are these rows; a long row may be the end of what is said."""
    assert (reply.code, reply.reason) == (422, "Invalid"), reply.content
    return len(reply.causes) == len(rows) and all(
        (field, reason) == row[:2] and message.endswith(row[2])
        for (field, reason, message), row in zip(reply.causes, rows, strict=True)
    )


@pytest.mark.parametrize(
    ("path", "body", "rows"), [row[1:] for row in _CREATE], ids=[row[0] for row in _CREATE]
)
async def test_a_new_object_that_breaks_a_rule(
    api: Wire, path: str, body: Object, rows: list[Row]
) -> None:
    reply = await api.call("POST", path, body)
    assert _told(reply, rows), reply.causes
    details = reply.body["details"]
    assert details["name"] == body["metadata"]["name"]
    assert details["kind"][0].isupper()
    texts = [f"{field}: {message}" for field, _, message in reply.causes]
    said = texts[0] if len(texts) == 1 else f"[{', '.join(texts)}]"
    group = f".{details['group']}" if "group" in details else ""
    name = details["name"]
    assert reply.message == f'{details["kind"]}{group} "{name}" is invalid: {said}'


@pytest.mark.parametrize("path", [VOLUMES, CLAIMS, CLASSES])
@pytest.mark.parametrize("name", ["Upper", "under_score", "-dash", "x" * 254])
async def test_names_follow_one_rule(api: Wire, path: str, name: str) -> None:
    body = {VOLUMES: volume, CLAIMS: claim, CLASSES: klass}[path](name)
    reply = await api.call("POST", path, body)
    assert reply.code == 422
    assert {field for field, _, _ in reply.causes} == {"metadata.name"}
    if len(name) < 254:
        assert reply.causes[0][2] == f'Invalid value: "{name}": {NAME}'


async def test_a_negative_size_breaks_two_rules(api: Wire) -> None:
    reply = await api.call("POST", VOLUMES, volume("v", "-1Gi"))
    assert {message for _, _, message in reply.causes} == {
        "Invalid value: -1073741824: must be a valid resource quantity",
        'Invalid value: "-1Gi": must be greater than zero',
    }


@pytest.mark.parametrize(
    ("path", "body"),
    [
        (
            CLAIMS,
            _spec(claim("c"), resources={"requests": {"storage": "2"}, "limits": {"storage": "1"}}),
        ),
        (CLAIMS, claim("c", storageClassName="unknown")),
        (VOLUMES, volume("v", mountOptions=["anything"])),
        (VOLUMES, {**volume("v"), "metadata": meta("v", namespace="dropped")}),
    ],
)
async def test_what_looks_wrong_but_is_allowed(api: Wire, path: str, body: Object) -> None:
    await api.make(path, body)
