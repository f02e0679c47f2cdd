"""Changing objects over HTTP: PUT, the three kinds of patch, and what each may touch."""

from __future__ import annotations

import pytest

from holdfast.testing.apiserver import VIEW_TOKEN
from wire import (
    CLAIMS,
    CONFIG_MAPS,
    CORE,
    JSON_PATCH,
    MERGE_PATCH,
    NAMESPACES,
    PODS,
    STRATEGIC_PATCH,
    VOLUMES,
    Object,
    Wire,
    claim,
    config_map,
    meta,
    pod,
    volume,
)

UNKNOWN = 'strict decoding error: unknown field "spec.flavour"'
UNREADABLE = 'PersistentVolumeClaim in version "v1" cannot be handled as a PersistentVolumeClaim: '
QUANTITY = (
    "quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'"
)
HINT = '"10GB": use 10G (10^9 bytes) or 10Gi (2^30 bytes)'


# Update


async def test_a_put_with_a_stale_version_is_a_conflict(api: Wire) -> None:
    made = await api.make(VOLUMES, volume("v"))
    await api.patch(f"{VOLUMES}/v", {"metadata": {"labels": {"a": "b"}}})
    reply = await api.call("PUT", f"{VOLUMES}/v", made)
    assert (reply.code, reply.reason) == (409, "Conflict")
    assert reply.message == (
        'Operation cannot be fulfilled on persistentvolumes "v": the object has been modified; '
        "please apply your changes to the latest version and try again"
    )
    assert reply.body["details"] == {"name": "v", "kind": "persistentvolumes"}


async def test_a_put_without_a_version_is_unconditional(api: Wire) -> None:
    await api.make(VOLUMES, volume("v"))
    reply = await api.call("PUT", f"{VOLUMES}/v", volume("v", "2Gi"))
    assert (reply.code, reply.body["spec"]["capacity"]["storage"]) == (200, "2Gi")


async def test_a_lease_is_only_updated_at_a_known_version(api: Wire) -> None:
    leases = "/apis/coordination.k8s.io/v1/namespaces/default/leases"
    await api.make(leases, {"metadata": meta("l")})
    reply = await api.call("PUT", f"{leases}/l", {"metadata": meta("l")})
    assert (reply.code, reply.reason) == (422, "Invalid")
    [(field, _, message)] = reply.causes
    assert field == "metadata.resourceVersion"
    assert message.endswith("must be specified for an update")


@pytest.mark.parametrize(
    ("change", "code", "message"),
    [
        (
            {"name": "other"},
            400,
            "the name of the object (other) does not match the name on the URL (m)",
        ),
        (
            {"namespace": "other"},
            400,
            "the namespace of the provided object does not match the namespace sent on the request",
        ),
    ],
)
async def test_identity_cannot_change(
    api: Wire, change: dict[str, str], code: int, message: str | None
) -> None:
    made = await api.make(CONFIG_MAPS, config_map("m"))
    body = {**made, "metadata": {**made["metadata"], **change}}
    for reply in (
        await api.call("PUT", f"{CONFIG_MAPS}/m", body),
        await api.patch(f"{CONFIG_MAPS}/m", {"metadata": change}),
    ):
        assert reply.code == code
        if message is not None:
            assert reply.message == message


async def test_a_wrong_uid_conflicts_in_a_put_and_is_a_mistake_in_a_patch(api: Wire) -> None:
    made = await api.make(CONFIG_MAPS, config_map("m"))
    body = {**made, "metadata": {**made["metadata"], "uid": "wrong"}}
    assert (await api.call("PUT", f"{CONFIG_MAPS}/m", body)).code == 409
    assert (await api.patch(f"{CONFIG_MAPS}/m", {"metadata": {"uid": "wrong"}})).code == 422


async def test_a_write_that_changes_nothing_keeps_the_version(api: Wire) -> None:
    made = await api.make(CLAIMS, claim("a"))
    version = made["metadata"]["resourceVersion"]
    replies = [
        await api.call("PUT", f"{CLAIMS}/a", made),
        await api.call("PUT", f"{CLAIMS}/a/status", made),
        await api.patch(f"{CLAIMS}/a", {}),
        await api.patch(f"{CLAIMS}/a", {"metadata": {"labels": {"absent": None}}}),
        await api.patch(f"{CLAIMS}/a", {"spec": {"volumeMode": "Filesystem"}}, STRATEGIC_PATCH),
        await api.patch(f"{CLAIMS}/a", [], JSON_PATCH),
    ]
    for reply in replies:
        assert reply.code == 200, reply.content
        assert reply.body["metadata"]["resourceVersion"] == version


async def test_what_was_never_there_is_not_found(api: Wire) -> None:
    for reply in (
        await api.call("PUT", f"{CLAIMS}/x", claim("x")),
        await api.patch(f"{CLAIMS}/x", {}),
        await api.call("DELETE", f"{CLAIMS}/x"),
        await api.call("GET", f"{CLAIMS}/x"),
    ):
        assert (reply.code, reply.message) == (404, 'persistentvolumeclaims "x" not found')


async def test_a_manifest_can_replace_a_namespace(api: Wire) -> None:
    await api.make(NAMESPACES, {"metadata": meta("n")})
    body = {"metadata": meta("n", labels={"a": "b"})}
    reply = await api.call("PUT", f"{NAMESPACES}/n", body)
    assert reply.body["spec"] == {"finalizers": ["kubernetes"]}
    assert reply.body["status"] == {"phase": "Active"}
    assert reply.body["metadata"]["labels"] == {"a": "b", "kubernetes.io/metadata.name": "n"}


async def test_a_manifest_can_replace_a_claim_with_a_source(api: Wire) -> None:
    body = claim("c", dataSource={"kind": "PersistentVolumeClaim", "name": "from"})
    made = await api.make(CLAIMS, body)
    assert made["spec"]["dataSourceRef"] == {"kind": "PersistentVolumeClaim", "name": "from"}
    body["metadata"]["labels"] = {"a": "b"}
    reply = await api.call("PUT", f"{CLAIMS}/c", body)
    assert (reply.code, reply.body["spec"]) == (200, made["spec"])


async def test_fields_behind_a_closed_gate_are_dropped(api: Wire) -> None:
    made = await api.make(CLAIMS, claim("c", volumeAttributesClassName="gold"))
    assert "volumeAttributesClassName" not in made["spec"]
    patch = await api.patch(f"{CLAIMS}/c", {"spec": {"volumeAttributesClassName": "gold"}})
    assert patch.body == made
    source = {"apiGroup": "example.com", "kind": "Thing", "name": "x"}
    dropped = await api.make(CLAIMS, claim("d", dataSource=source))
    assert not {"dataSource", "dataSourceRef"} & dropped["spec"].keys()
    kept = await api.make(CLAIMS, claim("e", dataSourceRef=source))
    assert kept["spec"]["dataSourceRef"] == kept["spec"]["dataSource"] == source


# Status


async def test_the_main_endpoint_and_status_do_not_mix(api: Wire) -> None:
    made = await api.make(VOLUMES, volume("v"))
    changed = {**made, "status": {"phase": "Available"}}
    changed["metadata"] = {**made["metadata"], "labels": {"x": "1"}}
    put = await api.call("PUT", f"{VOLUMES}/v", changed)
    assert put.body["status"] == made["status"]

    body = {
        "metadata": {"labels": {"y": "2"}},
        "spec": {"capacity": {"storage": "9Gi"}},
        "status": {"phase": "Available"},
    }
    status = await api.patch(f"{VOLUMES}/v/status", body)
    assert status.code == 200
    assert status.body["status"]["phase"] == "Available"
    assert status.body["metadata"]["labels"] == {"x": "1", "y": "2"}
    assert status.body["spec"] == made["spec"]
    read = await api.read(f"{VOLUMES}/v/status")
    assert read == status.body


async def test_a_phase_change_is_stamped_unless_the_writer_stamps_it(api: Wire) -> None:
    await api.make(VOLUMES, volume("v"))
    early = "2001-01-01T00:00:00Z"
    own = {"status": {"phase": "Available", "lastPhaseTransitionTime": early}}
    first = await api.patch(f"{VOLUMES}/v/status", own)
    assert first.body["status"]["lastPhaseTransitionTime"] == early
    second = await api.patch(f"{VOLUMES}/v/status", {"status": {"phase": "Made up"}})
    assert second.body["status"]["phase"] == "Made up"
    assert second.body["status"]["lastPhaseTransitionTime"] > "2026"


# Patches


async def test_a_merge_patch_sets_replaces_and_removes(api: Wire) -> None:
    await api.make(VOLUMES, volume("v", mountOptions=["ro", "noatime"]))
    patch = {"spec": {"mountOptions": ["rw"], "capacity": {"storage": "3Gi"}}}
    changed = (await api.patch(f"{VOLUMES}/v", patch)).body["spec"]
    assert (changed["mountOptions"], changed["capacity"]) == (["rw"], {"storage": "3Gi"})
    removed = (await api.patch(f"{VOLUMES}/v", {"spec": {"mountOptions": None}})).body["spec"]
    assert "mountOptions" not in removed


async def test_a_json_patch_follows_its_operations(api: Wire) -> None:
    await api.make(VOLUMES, volume("v"))
    operations = [
        {"op": "test", "path": "/spec/capacity/storage", "value": "1Gi"},
        {"op": "replace", "path": "/spec/capacity/storage", "value": "2Gi"},
        {"op": "add", "path": "/metadata/labels", "value": {"a/b": "c"}},
        {"op": "replace", "path": "/metadata/labels/a~1b", "value": "d"},
    ]
    reply = await api.patch(f"{VOLUMES}/v", operations, JSON_PATCH)
    assert reply.body["spec"]["capacity"] == {"storage": "2Gi"}
    assert reply.body["metadata"]["labels"] == {"a/b": "d"}
    failed = await api.patch(f"{VOLUMES}/v", operations, JSON_PATCH)
    assert (failed.code, failed.reason) == (422, "Invalid")
    assert failed.message.startswith(
        "the server rejected our request due to an error in our request"
    )
    assert (await api.patch(f"{VOLUMES}/v", {}, JSON_PATCH)).code == 400
    assert (await api.patch(f"{VOLUMES}/v", b"nonsense", JSON_PATCH)).code == 400


async def test_a_strategic_patch_merges_lists_by_their_keys(api: Wire) -> None:
    made = await api.make(VOLUMES, volume("v"))
    path = f"{VOLUMES}/v"
    added = await api.patch(path, {"metadata": {"finalizers": ["a.b/c"]}}, STRATEGIC_PATCH)
    assert sorted(added.body["metadata"]["finalizers"]) == ["a.b/c", "kubernetes.io/pv-protection"]
    removal = {"metadata": {"$deleteFromPrimitiveList/finalizers": ["a.b/c"]}}
    removed = await api.patch(path, removal, STRATEGIC_PATCH)
    assert removed.body["metadata"]["finalizers"] == made["metadata"]["finalizers"]
    swap = {"spec": {"$retainKeys": ["path"], "hostPath": None}}
    refused = await api.patch(path, swap, STRATEGIC_PATCH)
    assert refused.code == 422

    await api.make(CLAIMS, claim("c"))
    for type, status in (("A", "True"), ("B", "True"), ("A", "False")):
        body = {"status": {"conditions": [{"type": type, "status": status}]}}
        reply = await api.patch(f"{CLAIMS}/c/status", body, STRATEGIC_PATCH)
    found = {c["type"]: c["status"] for c in reply.body["status"]["conditions"]}
    assert found == {"A": "False", "B": "True"}


@pytest.mark.parametrize(
    ("type", "patch"),
    [
        (MERGE_PATCH, {"spec": {"capacity": {"storage": "10GB"}}}),
        (STRATEGIC_PATCH, {"spec": {"capacity": {"storage": "10GB"}}}),
        (
            JSON_PATCH,
            [{"op": "replace", "path": "/spec/capacity/storage", "value": "10GB"}],
        ),
    ],
)
async def test_a_patch_that_spoils_an_object_is_unprocessable(
    api: Wire, type: str, patch: object
) -> None:
    await api.make(VOLUMES, volume("v"))
    reply = await api.patch(f"{VOLUMES}/v", patch, type)
    assert (reply.code, reply.reason) == (422, "Invalid")
    assert reply.causes[0][0] == "patch"
    assert reply.message.endswith(QUANTITY)
    assert HINT in reply.headers["warning"].replace("\\", "")
    if type == STRATEGIC_PATCH:
        assert reply.message.startswith(
            ' "" is invalid: patch: Invalid value: "map[spec:map[capacity:map[storage:10GB]]]": '
        )


async def test_only_an_apply_can_be_forced(api: Wire) -> None:
    await api.make(VOLUMES, volume("v"))
    reply = await api.patch(f"{VOLUMES}/v", {}, force="true")
    assert reply.message == (
        'PatchOptions.meta.k8s.io "" is invalid: force: '
        "Forbidden: may not be specified for non-apply patch"
    )


async def test_patches_carry_preconditions(api: Wire) -> None:
    made = await api.make(CONFIG_MAPS, config_map("m"))
    await api.patch(f"{CONFIG_MAPS}/m", {"data": {"key": "1"}})
    stale = {"resourceVersion": made["metadata"]["resourceVersion"]}
    reply = await api.patch(f"{CONFIG_MAPS}/m", {"metadata": stale, "data": {"key": "2"}})
    assert (reply.code, reply.reason) == (409, "Conflict")


# Kinds with habits of their own


async def test_the_texts_of_a_secret_become_data(api: Wire) -> None:
    body = {"metadata": meta("s"), "stringData": {"user": "ada"}}
    secrets = f"{CORE}/namespaces/default/secrets"
    made = await api.make(secrets, body)
    assert (made["data"], made["type"]) == ({"user": "YWRh"}, "Opaque")
    assert "stringData" not in made
    patched = await api.patch(f"{secrets}/s", {"stringData": {"pass": "x"}})
    assert patched.body["data"] == {"user": "YWRh", "pass": "eA=="}


async def test_a_pod_is_bound_to_its_node_once(api: Wire) -> None:
    await api.make(PODS, pod("p"))
    binding = {
        "apiVersion": "v1",
        "kind": "Binding",
        "metadata": meta("p"),
        "target": {"kind": "Node", "name": "n1"},
    }
    bound = await api.call("POST", f"{PODS}/p/binding", binding)
    assert (bound.code, bound.body["status"]) == (201, "Success")
    assert (await api.read(f"{PODS}/p"))["spec"]["nodeName"] == "n1"
    binding["target"] = {"kind": "Node", "name": "n2"}
    again = await api.call("POST", f"{PODS}/p/binding", binding)
    assert again.code == 409
    assert again.message == (
        'Operation cannot be fulfilled on pods/binding "p": pod p is already assigned to node "n1"'
    )


@pytest.mark.parametrize(
    ("method", "path", "code"),
    [
        ("POST", f"{CLAIMS}/a", 405),
        ("PUT", CLAIMS, 405),
        ("PATCH", CLAIMS, 405),
        ("DELETE", f"{CLAIMS}/a/status", 405),
        ("POST", f"{CLAIMS}/a/status", 405),
        ("GET", f"{PODS}/p/binding", 405),
        ("GET", f"{CLAIMS}/a/flavour", 404),
        ("PUT", f"{CLAIMS}/a/flavour", 404),
        ("DELETE", f"{CORE}/persistentvolumeclaims", 405),
    ],
)
async def test_verbs_a_path_does_not_know_are_refused(
    api: Wire, method: str, path: str, code: int
) -> None:
    reply = await api.call(method, path, None if method == "GET" else claim("a"))
    assert reply.code == code
    texts = {
        404: "the server could not find the requested resource",
        405: "the server does not allow this method on the requested resource",
    }
    assert (reply.message, reply.body["details"]) == (texts[code], {})


# Replacing what is not there


@pytest.mark.parametrize(
    ("path", "body"),
    [
        (f"{CORE}/namespaces/default/endpoints", {}),
        (
            f"{CORE}/namespaces/default/events",
            {"involvedObject": {"kind": "Pod", "name": "p", "namespace": "default"}},
        ),
        ("/apis/coordination.k8s.io/v1/namespaces/default/leases", {}),
    ],
)
async def test_some_kinds_are_created_by_a_replacement(api: Wire, path: str, body: Object) -> None:
    body = {"metadata": {"name": "n", "resourceVersion": "7"}, **body}
    reply = await api.call("PUT", f"{path}/n", body)
    assert (reply.code, reply.body["metadata"]["name"]) == (201, "n")
    again = {**reply.body, "metadata": {**reply.body["metadata"], "labels": {"a": "b"}}}
    assert (await api.call("PUT", f"{path}/n", again)).code == 200
    other = await api.call("PUT", f"{path}/m", body)
    assert (other.code, other.reason) == (400, "BadRequest")
    uid = {**body, "metadata": {"name": "m", "uid": "1"}}
    assert (await api.call("PUT", f"{path}/m", uid)).code == 409
    refused = await api.call("PUT", f"{path}/m", body, token=VIEW_TOKEN)
    assert refused.code == 403


async def test_other_kinds_are_not(api: Wire) -> None:
    reply = await api.call("PUT", f"{CONFIG_MAPS}/n", config_map("n"))
    assert (reply.code, reply.reason) == (404, "NotFound")
