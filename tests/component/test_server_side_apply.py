"""Server-side apply and managedFields over HTTP, request by request."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx2
import pytest

from holdfast.api import kinds
from holdfast.testing.apiserver import TOKEN, ApiServer, api_server

Object = dict[str, Any]
MAPS = "/api/v1/namespaces/default/configmaps"
APPLY = "application/apply-patch+yaml"
MERGE = "application/merge-patch+json"
JSON_PATCH = "application/json-patch+json"


class Api:
    """Plain HTTP to a server of the test's own."""

    def __init__(self, server: ApiServer) -> None:
        self.server = server
        self._http = httpx2.AsyncClient(
            base_url="http://holdfast",
            transport=httpx2.AsyncHTTPTransport(uds=str(server.socket)),
            headers={"Authorization": f"Bearer {TOKEN}"},
            trust_env=False,
        )

    async def close(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def send(
        self, method: str, path: str, body: Any, kind: str = "application/json", **query: str
    ) -> tuple[int, Object]:
        """One request: the code and the decoded answer; `agent` is the User-Agent."""
        headers = {"Content-Type": kind}
        if agent := query.pop("agent", ""):
            headers["User-Agent"] = agent
        content = {"content": body} if isinstance(body, str) else {"json": body}
        answer = await self._http.request(method, path, headers=headers, params=query, **content)
        return answer.status_code, answer.json()

    async def apply(self, path: str, body: Any, manager: str, **query: str) -> tuple[int, Object]:
        """Apply as a manager."""
        return await self.send("PATCH", path, body, APPLY, fieldManager=manager, **query)

    async def get(self, path: str) -> Object:
        """Read one object."""
        found: Object = (await self._http.get(path)).json()
        return found


@pytest.fixture
async def api(tmp_path: Path) -> AsyncIterator[Api]:
    async with api_server(tmp_path) as server:
        made = Api(server)
        yield made
        await made.close()


def config_map(data: Object | None = None, **meta: Any) -> Object:
    obj: Object = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c", **meta}}
    return obj if data is None else {**obj, "data": data}


def owners(obj: Object) -> dict[str, Object]:
    """The sets of an object by `manager/operation[/subresource]`."""
    return {
        "/".join(filter(None, (e["manager"], e["operation"], e.get("subresource")))): e["fieldsV1"]
        for e in obj["metadata"].get("managedFields", ())
    }


async def test_applying_what_does_not_exist_creates_it(api: Api) -> None:
    code, made = await api.apply(f"{MAPS}/c", config_map({"a": "1"}), "m1")
    assert code == 201
    assert owners(made) == {"m1/Apply": {"f:data": {"f:a": {}}}}
    (entry,) = made["metadata"]["managedFields"]
    assert (entry["apiVersion"], entry["fieldsType"]) == ("v1", "FieldsV1")
    assert entry["time"].endswith("Z")


async def test_applying_the_same_again_changes_nothing(api: Api) -> None:
    _, made = await api.apply(f"{MAPS}/c", config_map({"a": "1"}), "m1")
    code, again = await api.apply(f"{MAPS}/c", config_map({"a": "1"}), "m1")
    assert (code, again) == (200, made)


async def test_the_configuration_may_be_yaml(api: Api) -> None:
    text = "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: c\ndata:\n  a: '1'\n"
    code, made = await api.apply(f"{MAPS}/c", text, "m1")
    assert (code, made["data"]) == (201, {"a": "1"})


async def test_what_is_declared_no_more_is_removed_unless_somebody_else_owns_it(api: Api) -> None:
    await api.apply(f"{MAPS}/c", config_map({"a": "1", "b": "2", "c": "3"}), "m1")
    await api.apply(f"{MAPS}/c", config_map({"b": "2"}), "m2")
    await api.send("PATCH", f"{MAPS}/c", {"data": {"d": "4"}}, MERGE, fieldManager="m3")
    _, left = await api.apply(f"{MAPS}/c", config_map({"a": "1"}), "m1")
    assert left["data"] == {"a": "1", "b": "2", "d": "4"}
    assert left["metadata"]["name"] == "c"


async def test_another_owners_field_is_a_conflict(api: Api) -> None:
    await api.apply(f"{MAPS}/c", config_map(labels={"a": "1"}), "m1")
    code, status = await api.apply(f"{MAPS}/c", config_map(labels={"a": "2"}), "m2")
    assert (code, status["reason"]) == (409, "Conflict")
    wanted = 'Apply failed with 1 conflict: conflict with "m1": .metadata.labels.a'
    assert status["message"] == wanted
    assert status["details"]["causes"] == [
        {
            "reason": "FieldManagerConflict",
            "message": 'conflict with "m1"',
            "field": ".metadata.labels.a",
        }
    ]


async def test_several_conflicts_are_listed_by_owner(api: Api) -> None:
    await api.apply(f"{MAPS}/c", config_map({"a": "1", "b": "1"}), "m1")
    await api.send("PATCH", f"{MAPS}/c", {"data": {"c": "1"}}, MERGE, fieldManager="m0")
    _, status = await api.apply(f"{MAPS}/c", config_map({"a": "2", "b": "2", "c": "2"}), "m2")
    assert status["message"] == (
        'Apply failed with 3 conflicts: conflicts with "m0" using v1:\n- .data.c\n'
        'conflicts with "m1":\n- .data.a\n- .data.b'
    )


async def test_force_takes_fields_from_their_owners(api: Api) -> None:
    await api.apply(f"{MAPS}/c", config_map({"a": "1", "b": "1"}), "m1")
    code, taken = await api.apply(f"{MAPS}/c", config_map({"a": "2"}), "m2", force="true")
    assert (code, taken["data"]) == (200, {"a": "2", "b": "1"})
    assert owners(taken) == {
        "m1/Apply": {"f:data": {"f:b": {}}},
        "m2/Apply": {"f:data": {"f:a": {}}},
    }


async def test_an_equal_value_is_shared_without_a_conflict(api: Api) -> None:
    await api.apply(f"{MAPS}/c", config_map({"a": "1"}), "m1")
    code, shared = await api.apply(f"{MAPS}/c", config_map({"a": "1"}), "m2")
    assert code == 200
    assert owners(shared)["m1/Apply"] == owners(shared)["m2/Apply"] == {"f:data": {"f:a": {}}}


async def test_the_owner_of_an_update_is_the_field_manager_or_the_user_agent(api: Api) -> None:
    body = config_map({"a": "1"})
    _, made = await api.send("POST", MAPS, body, agent="curl/8.1 (x)")
    _, named = await api.send(
        "PATCH", f"{MAPS}/c", {"data": {"b": "2"}}, MERGE, fieldManager="me", agent="curl/8.1"
    )
    assert owners(made) == {"curl/Update": {"f:data": {".": {}, "f:a": {}}}}
    assert owners(named) == {
        "curl/Update": {"f:data": {".": {}, "f:a": {}}},
        "me/Update": {"f:data": {"f:b": {}}},
    }


async def test_an_update_takes_ownership_of_what_it_changes(api: Api) -> None:
    await api.apply(f"{MAPS}/c", config_map({"a": "1", "b": "1"}), "m1")
    changed = await api.get(f"{MAPS}/c")
    changed["data"]["a"] = "2"
    _, put = await api.send("PUT", f"{MAPS}/c", changed, fieldManager="me")
    assert owners(put) == {
        "m1/Apply": {"f:data": {"f:b": {}}},
        "me/Update": {"f:data": {"f:a": {}}},
    }


async def test_a_client_without_managed_fields_does_not_delete_them(api: Api) -> None:
    await api.apply(f"{MAPS}/c", config_map({"a": "1"}), "m1")
    _, put = await api.send("PUT", f"{MAPS}/c", config_map({"a": "1", "b": "2"}), fieldManager="me")
    assert owners(put)["m1/Apply"] == {"f:data": {"f:a": {}}}


@pytest.mark.parametrize("reset", [[], [{}]])
async def test_an_empty_list_forgets_all_owners(api: Api, reset: list[Object]) -> None:
    await api.apply(f"{MAPS}/c", config_map({"a": "1"}), "m1")
    for kind, patch in (
        (MERGE, {"metadata": {"managedFields": reset}}),
        (JSON_PATCH, [{"op": "replace", "path": "/metadata/managedFields", "value": reset}]),
    ):
        code, left = await api.send("PATCH", f"{MAPS}/c", patch, kind)
        assert (code, owners(left)) == (200, {})
        await api.apply(f"{MAPS}/c", config_map({"a": "1"}), "m1", force="true")
    body = config_map({"a": "1"}, managedFields=reset)
    _, left = await api.send("PUT", f"{MAPS}/c", body)
    assert owners(left) == {}


async def test_without_known_owners_the_first_apply_makes_one_of_all_before(api: Api) -> None:
    await api.send("POST", MAPS, config_map({"a": "1", "b": "1"}))
    body = config_map({"a": "1", "b": "1"}, managedFields=[])
    await api.send("PUT", f"{MAPS}/c", body)
    await api.send("PATCH", f"{MAPS}/c", {"data": {"c": "1"}}, MERGE, fieldManager="me")
    assert owners(await api.get(f"{MAPS}/c")) == {}
    code, status = await api.apply(f"{MAPS}/c", config_map({"a": "2"}), "m1")
    assert (code, 'conflict with "before-first-apply" using v1' in status["message"]) == (409, True)


async def test_a_json_patch_of_managed_fields_is_honoured(api: Api) -> None:
    _, made = await api.send("POST", MAPS, config_map({"a": "1"}), fieldManager="old")
    entry = {**made["metadata"]["managedFields"][0], "manager": "new", "operation": "Apply"}
    steps = [
        {"op": "replace", "path": "/metadata/managedFields", "value": [entry]},
        {
            "op": "replace",
            "path": "/metadata/resourceVersion",
            "value": made["metadata"]["resourceVersion"],
        },
    ]
    code, patched = await api.send("PATCH", f"{MAPS}/c", steps, JSON_PATCH)
    assert (code, list(owners(patched))) == (200, ["new/Apply"])
    code, _ = await api.send("PATCH", f"{MAPS}/c", steps, JSON_PATCH)
    assert code == 409


async def test_status_has_owners_of_its_own(api: Api) -> None:
    body = {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": "p"}}
    spec = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}
    path = "/api/v1/namespaces/default/persistentvolumeclaims"
    status = {"phase": "Bound"}
    _, made = await api.send("POST", path, {**body, "spec": spec, "status": status}, agent="a/1")
    assert owners(made) == {
        "a/Update": {
            "f:spec": {
                "f:accessModes": {},
                "f:resources": {"f:requests": {".": {}, "f:storage": {}}},
                "f:volumeMode": {},
            }
        }
    }
    sent = {**body, "spec": {"volumeName": "v"}, "status": {**status, "capacity": {"storage": "1"}}}
    code, done = await api.apply(f"{path}/p/status", sent, "m1")
    assert (code, done["spec"].get("volumeName"), done["status"]["phase"]) == (200, None, "Bound")
    assert owners(done)["m1/Apply/status"] == {
        "f:status": {"f:capacity": {"f:storage": {}}, "f:phase": {}}
    }
    _, refusal = await api.apply(f"{path}/p/status", {**body, "status": {"phase": "Lost"}}, "m2")
    assert refusal["message"] == (
        'Apply failed with 1 conflict: conflict with "m1" with subresource "status": .status.phase'
    )


async def test_a_component_in_the_process_owns_what_it_writes(api: Api) -> None:
    _, _ = await api.apply(f"{MAPS}/c", config_map({"a": "1"}), "m1")
    component = api.server.client.named("component")
    patched = await component.patch(kinds.CONFIG_MAP, "c", {"data": {"a": "2"}}, "default")
    assert owners(patched) == {"component/Update": {"f:data": {"f:a": {}}}}


REFUSALS: list[tuple[str, Object, Object, int, str]] = [
    (
        "no manager",
        config_map(),
        {"fieldManager": ""},
        422,
        'PatchOptions.meta.k8s.io "" is invalid: fieldManager: Required value: '
        "is required for apply patch",
    ),
    (
        "a long manager",
        config_map(),
        {"fieldManager": "m" * 129},
        422,
        'PatchOptions.meta.k8s.io "" is invalid: fieldManager: Too long: '
        "may not be more than 128 bytes",
    ),
    (
        "managed fields",
        config_map(managedFields=[]),
        {},
        400,
        "metadata.managedFields must be nil",
    ),
    (
        "another kind",
        {**config_map(), "kind": "Secret"},
        {},
        400,
        "invalid object type: /v1, Kind=Secret",
    ),
    (
        "an unknown field",
        {**config_map(), "foo": 1},
        {},
        500,
        "failed to create typed patch object (/c; /v1, Kind=ConfigMap): "
        ".foo: field not declared in schema",
    ),
    (
        "a wrong type",
        config_map(labels={"a": 1}),
        {},
        500,
        "failed to create typed patch object (/c; /v1, Kind=ConfigMap): "
        ".metadata.labels.a: expected string, got &value.valueUnstructured{Value:1}",
    ),
    (
        "another name",
        {**config_map(), "metadata": {"name": "d"}},
        {},
        400,
        "the name of the object (d) does not match the name on the URL (c)",
    ),
    (
        "a uid of nothing",
        config_map(uid="u"),
        {},
        409,
        'Operation cannot be fulfilled on configmaps "c": uid mismatch: '
        "the provided object specified uid u, and no existing object was found",
    ),
]


@pytest.mark.parametrize(
    ("body", "query", "code", "message"), [r[1:] for r in REFUSALS], ids=[r[0] for r in REFUSALS]
)
async def test_what_cannot_be_applied_is_refused_in_kubernetes_words(
    api: Api, body: Object, query: dict[str, str], code: int, message: str
) -> None:
    given, status = await api.apply(f"{MAPS}/c", body, **{"manager": "m1"} | _renamed(query))
    assert (given, status["message"]) == (code, message)


def _renamed(query: dict[str, str]) -> dict[str, str]:
    return {"manager": query["fieldManager"]} if query else {}


async def test_only_an_apply_can_be_forced(api: Api) -> None:
    code, status = await api.send("PATCH", f"{MAPS}/c", {}, MERGE, force="true")
    assert code == 422
    assert "force: Forbidden: may not be specified for non-apply patch" in status["message"]


async def test_a_dry_run_answers_what_would_be_and_changes_nothing(api: Api) -> None:
    code, would = await api.apply(f"{MAPS}/c", config_map({"a": "1"}), "m1", dryRun="All")
    assert (code, would["data"]) == (201, {"a": "1"})
    assert "resourceVersion" not in would["metadata"]
    _, made = await api.apply(f"{MAPS}/c", config_map({"a": "1"}), "m1")
    _, would = await api.apply(f"{MAPS}/c", config_map({"a": "2"}), "m1", dryRun="All")
    assert would["data"] == {"a": "2"}
    assert would["metadata"]["resourceVersion"] == made["metadata"]["resourceVersion"]
    assert await api.get(f"{MAPS}/c") == made


async def test_a_key_given_twice_is_refused_by_strict_validation(api: Api) -> None:
    text = "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: c\ndata:\n  a: x\n  a: y\n"
    code, status = await api.apply(f"{MAPS}/c", text, "m1", fieldValidation="Strict")
    assert (code, 'line 7: key "a" already set in map' in status["message"]) == (400, True)
    code, made = await api.apply(f"{MAPS}/c", text, "m1")
    assert (code, made["data"]) == (201, {"a": "y"})
