"""Reading over HTTP: lists, selectors, pages, forms of answers, who may ask, other paths."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pytest
import yaml

from wire import (
    CLAIMS,
    CLASSES,
    CONFIG_MAPS,
    CORE,
    NAMESPACES,
    PODS,
    STORAGE,
    TABLE,
    VOLUMES,
    Reply,
    Wire,
    claim,
    config_map,
    meta,
    pod,
    storage_class,
    volume,
)


def _names(reply: Any) -> list[str]:
    return [item["metadata"]["name"] for item in reply["items"]]


async def _make_many(api: Wire, *names: str) -> None:
    for name in names:
        await api.make(CONFIG_MAPS, config_map(name, labels={"n": name, "all": "yes"}))


# Lists


async def test_a_list_tells_its_kind_once_and_its_version(api: Wire) -> None:
    await _make_many(api, "b", "a")
    found = await api.read(CONFIG_MAPS)
    assert (found["kind"], found["apiVersion"]) == ("ConfigMapList", "v1")
    assert _names(found) == ["a", "b"]
    assert all(next(iter(item)) == "metadata" for item in found["items"])
    newest = max(int(item["metadata"]["resourceVersion"]) for item in found["items"])
    assert int(found["metadata"]["resourceVersion"]) >= newest
    empty = await api.read(VOLUMES)
    assert empty["items"] == []


async def test_a_list_covers_one_namespace_or_all(api: Wire) -> None:
    await _make_many(api, "a")
    other = f"{CORE}/namespaces/kube-system/configmaps"
    await api.make(other, config_map("b"))
    assert _names(await api.read(other)) == ["b"]
    assert _names(await api.read(f"{CORE}/configmaps")) == ["a", "b"]
    assert _names(await api.read(f"{CORE}/namespaces/nowhere/configmaps")) == []


@pytest.mark.parametrize(
    ("selector", "names"),
    [
        ("n=a", ["a"]),
        ("n==a", ["a"]),
        ("n!=a", ["b", "c"]),
        ("n in (a,b)", ["a", "b"]),
        ("n notin (a,b)", ["c"]),
        ("all", ["a", "b", "c"]),
        ("!all", []),
        ("all=yes,n!=c", ["a", "b"]),
    ],
)
async def test_label_selectors(api: Wire, selector: str, names: list[str]) -> None:
    await _make_many(api, "a", "b", "c")
    assert _names(await api.read(CONFIG_MAPS, labelSelector=selector)) == names


async def test_field_selectors(api: Wire) -> None:
    await _make_many(api, "a", "b")
    assert _names(await api.read(CONFIG_MAPS, fieldSelector="metadata.name=a")) == ["a"]
    assert _names(await api.read(CONFIG_MAPS, fieldSelector="metadata.name!=a")) == ["b"]
    everywhere = f"{CORE}/configmaps"
    here = "metadata.namespace=default"
    assert _names(await api.read(everywhere, fieldSelector=here)) == ["a", "b"]
    await api.make(PODS, pod("p", nodeName="n1"))
    await api.make(PODS, pod("q"))
    assert _names(await api.read(PODS, fieldSelector="spec.nodeName=n1")) == ["p"]
    assert _names(await api.read(PODS, fieldSelector="status.phase=Pending")) == ["p", "q"]


@pytest.mark.parametrize(
    ("path", "query", "message"),
    [
        (
            CLAIMS,
            {"fieldSelector": "spec.foo=x"},
            '"spec.foo" is not a known field selector: only "metadata.name", "metadata.namespace"',
        ),
        (CLAIMS, {"fieldSelector": "metadata.name"}, None),
        (CLAIMS, {"labelSelector": "a in b"}, None),
        (CLAIMS, {"limit": "many"}, None),
        (CLAIMS, {"continue": "made up"}, None),
        (CLAIMS, {"watch": "1", "timeoutSeconds": "long"}, None),
    ],
)
async def test_a_query_that_cannot_be_read_is_a_bad_request(
    api: Wire, path: str, query: dict[str, Any], message: str | None
) -> None:
    reply = await api.call("GET", path, **query)
    assert (reply.code, reply.reason) == (400, "BadRequest")
    if message is not None:
        assert reply.message == message


async def test_volumes_have_no_namespace_to_select_by(api: Wire) -> None:
    reply = await api.call("GET", VOLUMES, fieldSelector="spec.foo=x")
    assert reply.code == 400
    assert '"spec.foo" is not a known field selector: only "metadata.name"' in reply.message


# Pages


async def test_pages_show_one_state(api: Wire) -> None:
    await _make_many(api, "a", "b", "c", "d", "e")
    first = await api.read(CONFIG_MAPS, limit=2)
    assert (_names(first), first["metadata"]["remainingItemCount"]) == (["a", "b"], 3)
    await api.call("DELETE", f"{CONFIG_MAPS}/c")
    await api.make(CONFIG_MAPS, config_map("cc"))
    second = await api.read(CONFIG_MAPS, limit=2, **{"continue": first["metadata"]["continue"]})
    assert (_names(second), second["metadata"]["remainingItemCount"]) == (["c", "d"], 1)
    last = await api.read(CONFIG_MAPS, limit=2, **{"continue": second["metadata"]["continue"]})
    assert _names(last) == ["e"]
    assert not {"continue", "remainingItemCount"} & last["metadata"].keys()
    versions = {page["metadata"]["resourceVersion"] for page in (first, second, last)}
    assert len(versions) == 1


async def test_the_rest_is_not_counted_under_a_selector(api: Wire) -> None:
    await _make_many(api, "a", "b", "c")
    page = await api.read(CONFIG_MAPS, limit=1, labelSelector="all")
    assert "continue" in page["metadata"]
    assert "remainingItemCount" not in page["metadata"]


async def test_a_token_expires_with_the_history(api: Wire) -> None:
    await _make_many(api, "a", "b", "c")
    page = await api.read(CONFIG_MAPS, limit=1)
    await api.patch(f"{CONFIG_MAPS}/c", {"data": {"key": "new"}})
    await api.call("DELETE", f"{CONFIG_MAPS}/c")
    await api.server.store.compact(api.server.store.revision)
    token: dict[str, Any] = {"continue": page["metadata"]["continue"]}
    reply = await api.call("GET", CONFIG_MAPS, limit=1, **token)
    assert (reply.code, reply.reason) == (410, "Expired")
    # The answer has a token that goes on with what there is now.
    assert reply.message.startswith("The provided continue parameter is too old to display")
    fresh: dict[str, Any] = {"continue": reply.body["metadata"]["continue"]}
    rest = await api.read(CONFIG_MAPS, limit=1, **fresh)
    assert [item["metadata"]["name"] for item in rest["items"]] == ["b"]
    assert rest["metadata"]["resourceVersion"] == str(api.server.store.revision)
    assert "continue" not in rest["metadata"]
    version = page["metadata"]["resourceVersion"]
    exact: dict[str, Any] = {"resourceVersion": version, "resourceVersionMatch": "Exact"}
    reply = await api.call("GET", CONFIG_MAPS, **exact)
    assert (reply.code, reply.reason) == (410, "Expired")
    assert reply.message == "The resourceVersion for the provided list is too old."


# Versions


async def test_lists_of_a_version(api: Wire) -> None:
    await _make_many(api, "a")
    then = (await api.read(CONFIG_MAPS))["metadata"]["resourceVersion"]
    await _make_many(api, "b")
    exact = await api.read(CONFIG_MAPS, resourceVersion=then, resourceVersionMatch="Exact")
    assert (_names(exact), exact["metadata"]["resourceVersion"]) == (["a"], then)
    for query in ({}, {"resourceVersion": "0"}, {"resourceVersion": then}):
        assert _names(await api.read(CONFIG_MAPS, **query)) == ["a", "b"]
    newer = await api.read(CONFIG_MAPS, resourceVersion=then, resourceVersionMatch="NotOlderThan")
    assert _names(newer) == ["a", "b"]


@pytest.mark.parametrize(
    ("query", "cause"),
    [
        (
            {"resourceVersionMatch": "Exact"},
            "Forbidden: resourceVersionMatch is forbidden unless resourceVersion is provided",
        ),
        (
            {"resourceVersionMatch": "Exact", "resourceVersion": "0"},
            'Forbidden: resourceVersionMatch "exact" is forbidden for resourceVersion "0"',
        ),
        (
            {"resourceVersionMatch": "Rough", "resourceVersion": "1"},
            'Unsupported value: "Rough": supported values: "Exact", "NotOlderThan", ""',
        ),
    ],
)
async def test_version_matches_that_make_no_sense(
    api: Wire, query: dict[str, Any], cause: str
) -> None:
    reply = await api.call("GET", CONFIG_MAPS, **query)
    assert (reply.code, reply.body["details"]["kind"]) == (422, "ListOptions")
    assert [(field, text) for field, _, text in reply.causes] == [("resourceVersionMatch", cause)]


@pytest.mark.parametrize("path", [CONFIG_MAPS, f"{NAMESPACES}/default"])
async def test_a_version_of_the_future_times_out(api: Wire, path: str) -> None:
    current = api.server.store.revision
    reply = await api.call("GET", path, resourceVersion=str(current + 100))
    assert (reply.code, reply.reason) == (504, "Timeout")
    assert reply.message == (
        f"Timeout: Too large resource version: {current + 100}, current: {current}"
    )
    assert reply.causes == [("", "ResourceVersionTooLarge", "Too large resource version")]


@pytest.mark.parametrize("query", [{}, {"watch": "1"}])
async def test_a_version_that_is_no_number_is_an_error_without_reason(
    api: Wire, query: dict[str, Any]
) -> None:
    reply = await api.call("GET", CONFIG_MAPS, resourceVersion="newest", **query)
    assert (reply.code, "reason" in reply.body) == (500, False)


async def test_versions_grow_across_kinds(api: Wire) -> None:
    made = [
        await api.make(CONFIG_MAPS, config_map("a")),
        await api.make(VOLUMES, volume("v")),
        await api.make(CLAIMS, claim("c")),
    ]
    versions = [int(obj["metadata"]["resourceVersion"]) for obj in made]
    assert versions == sorted(set(versions))


# Forms


def _row(reply: Reply) -> dict[str, Any]:
    table = reply.body
    assert (table["kind"], table["apiVersion"]) == ("Table", "meta.k8s.io/v1")
    [row] = table["rows"]
    return dict(zip([c["name"] for c in table["columnDefinitions"]], row["cells"], strict=True))


async def test_a_claim_as_a_table(api: Wire) -> None:
    await api.make(CLAIMS, claim("c", storageClassName="fast"))
    row = _row(await api.call("GET", CLAIMS, accept=TABLE))
    assert list(row) == [
        "Name",
        "Status",
        "Volume",
        "Capacity",
        "Access Modes",
        "StorageClass",
        "VolumeAttributesClass",
        "Age",
        "VolumeMode",
    ]
    assert row["Status"] == "Pending"
    assert (row["Volume"], row["Capacity"], row["Access Modes"]) == ("", "", "")
    assert (row["StorageClass"], row["VolumeAttributesClass"]) == ("fast", "<unset>")
    await api.call("DELETE", f"{CLAIMS}/c")
    assert _row(await api.call("GET", f"{CLAIMS}/c", accept=TABLE))["Status"] == "Terminating"


async def test_a_volume_as_a_table(api: Wire) -> None:
    modes = ["ReadWriteMany", "ReadOnlyMany", "ReadWriteOnce"]
    body = volume("v", "5Gi", accessModes=modes, claimRef={"namespace": "a", "name": "b"})
    await api.make(VOLUMES, body)
    row = _row(await api.call("GET", f"{VOLUMES}/v", accept=TABLE))
    assert list(row) == [
        "Name",
        "Capacity",
        "Access Modes",
        "Reclaim Policy",
        "Status",
        "Claim",
        "StorageClass",
        "VolumeAttributesClass",
        "Reason",
        "Age",
        "VolumeMode",
    ]
    assert (row["Capacity"], row["Access Modes"], row["Claim"]) == ("5Gi", "RWO,ROX,RWX", "a/b")
    assert (row["Reclaim Policy"], row["VolumeMode"]) == ("Retain", "Filesystem")


async def test_a_class_as_a_table(api: Wire) -> None:
    default = {"storageclass.kubernetes.io/is-default-class": "true"}
    await api.make(CLASSES, storage_class("c", metadata={"annotations": default}))
    row = _row(await api.call("GET", CLASSES, accept=TABLE))
    assert (row["Name"], row["AllowVolumeExpansion"]) == ("c (default)", False)


@pytest.mark.parametrize(
    ("include", "kind"),
    [
        ("", "PartialObjectMetadata"),
        ("Metadata", "PartialObjectMetadata"),
        ("Object", "ConfigMap"),
        ("None", None),
    ],
)
async def test_a_table_brings_objects_along(api: Wire, include: str, kind: str | None) -> None:
    await api.make(CONFIG_MAPS, config_map("a"))
    query: dict[str, Any] = {"includeObject": include} if include else {}
    reply = await api.call("GET", CONFIG_MAPS, accept=TABLE, **query)
    [row] = reply.body["rows"]
    assert (row.get("object") or {}).get("kind") == kind
    bad = await api.call("GET", CONFIG_MAPS, accept=TABLE, includeObject="Some")
    assert bad.code == 400


async def test_a_table_is_paged_like_a_list(api: Wire) -> None:
    await _make_many(api, "a", "b")
    page = (await api.call("GET", CONFIG_MAPS, accept=TABLE, limit=1)).body
    assert page["metadata"]["remainingItemCount"] == 1
    assert page["metadata"]["continue"]


async def test_a_table_for_kubectl_comes_in_pages_that_it_does_not_have_to_wait_for(
    api: Wire,
) -> None:
    await _make_many(api, *(f"c-{number:03}" for number in range(501)))
    table = (await api.call("GET", CONFIG_MAPS, accept=TABLE, limit=500)).body
    assert len(table["rows"]) == 501
    assert "continue" not in table["metadata"]
    assert len((await api.read(CONFIG_MAPS, limit=500))["items"]) == 500


async def test_only_the_metadata(api: Wire) -> None:
    await api.make(CONFIG_MAPS, config_map("a"))
    accept = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1"
    found = (await api.call("GET", CONFIG_MAPS, accept=accept)).body
    assert found["kind"] == "PartialObjectMetadataList"
    assert found["items"][0].keys() == {"kind", "apiVersion", "metadata"}


@pytest.mark.parametrize(
    ("accept", "type"),
    [
        ("*/*", "application/json"),
        ("", "application/json"),
        ("application/vnd.kubernetes.protobuf,application/json", "application/json"),
        ("application/json;as=Table;v=v9;g=meta.k8s.io,application/json", "application/json"),
        ("application/yaml", "application/yaml"),
    ],
)
async def test_the_form_is_negotiated(api: Wire, accept: str, type: str) -> None:
    reply = await api.call("GET", f"{NAMESPACES}/default", accept=accept)
    assert reply.headers["content-type"] == type
    read = yaml.safe_load(reply.content) if "yaml" in type else reply.body
    assert (read["kind"], read["metadata"]["name"]) == ("Namespace", "default")


@pytest.mark.parametrize("accept", ["text/html", "application/json;as=Chart"])
async def test_a_form_that_cannot_be_made_is_not_acceptable(api: Wire, accept: str) -> None:
    reply = await api.call("GET", VOLUMES, accept=accept)
    assert (reply.code, reply.reason) == (406, "NotAcceptable")
    refused = await api.call("POST", VOLUMES, volume("v"), accept=accept)
    assert refused.code == 406
    assert (await api.call("GET", f"{VOLUMES}/v")).code == 404


async def test_events_are_selected_by_what_they_are_about(api: Wire) -> None:
    events = f"{CORE}/namespaces/default/events"
    now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    for name, about in (("e1", "a"), ("e2", "b")):
        body = {
            "metadata": meta(name),
            "involvedObject": {"kind": "Pod", "name": about, "namespace": "default"},
            "reason": "Tested",
            "type": "Normal",
            "source": {"component": "tests"},
            "lastTimestamp": now,
        }
        await api.make(events, body)
    for selector, names in (
        ("involvedObject.name=a", ["e1"]),
        ("involvedObject.kind=Pod,reason=Tested,type=Normal", ["e1", "e2"]),
        ("source=tests,involvedObject.name!=a", ["e2"]),
        ("type=Warning", []),
    ):
        assert _names(await api.read(events, fieldSelector=selector)) == names


# Who may ask


async def test_nobody_may_only_ask_whether_the_server_lives(api: Wire) -> None:
    for path in ("/healthz", "/livez", "/readyz", "/version"):
        assert (await api.call("GET", path, token=None)).code == 200
    reply = await api.call("GET", "/apis", token=None)
    assert reply.body == {
        "kind": "Status",
        "apiVersion": "v1",
        "metadata": {},
        "status": "Failure",
        "message": 'forbidden: User "system:anonymous" cannot get path "/apis"',
        "reason": "Forbidden",
        "details": {},
        "code": 403,
    }


@pytest.mark.parametrize(
    ("method", "path", "message"),
    [
        (
            "GET",
            VOLUMES,
            'persistentvolumes is forbidden: User "system:anonymous" cannot list resource '
            '"persistentvolumes" in API group "" at the cluster scope',
        ),
        (
            "DELETE",
            f"{CLAIMS}/c",
            'persistentvolumeclaims "c" is forbidden: User "system:anonymous" cannot delete '
            'resource "persistentvolumeclaims" in API group "" in the namespace "default"',
        ),
        (
            "PATCH",
            f"{CLASSES}/c",
            'storageclasses.storage.k8s.io "c" is forbidden: User "system:anonymous" cannot '
            'patch resource "storageclasses" in API group "storage.k8s.io" at the cluster scope',
        ),
    ],
)
async def test_nobody_may_touch_resources(api: Wire, method: str, path: str, message: str) -> None:
    reply = await api.call(method, path, token=None)
    assert (reply.code, reply.reason, reply.message) == (403, "Forbidden", message)


@pytest.mark.parametrize("authorization", ["Bearer wrong", "Basic YTpi", "Bearer"])
async def test_a_wrong_token_is_refused_everywhere(api: Wire, authorization: str) -> None:
    headers = {"Authorization": authorization}
    for path in ("/healthz", VOLUMES):
        reply = await api.call("GET", path, token=None, headers=headers)
        assert reply.body == {
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": {},
            "status": "Failure",
            "message": "Unauthorized",
            "reason": "Unauthorized",
            "code": 401,
        }


# Other paths


async def test_what_is_not_served_is_not_found(api: Wire) -> None:
    for path in ("/nothing", "/api/v2/pods", "/apis/example.com/v1/things", "/api/v1/"):
        reply = await api.call("GET", path)
        if path == "/api/v1/":
            assert reply.body["kind"] == "APIResourceList"
            continue
        assert (reply.code, reply.content) == (404, b"404 page not found\n"), path
        assert reply.headers["content-type"].startswith("text/plain")
    reply = await api.call("GET", f"{STORAGE}/things")
    assert (reply.code, reply.reason) == (404, "NotFound")
    assert reply.message == "the server could not find the requested resource"


async def test_health_version_and_metrics(api: Wire) -> None:
    assert (await api.call("GET", "/readyz")).content == b"ok"
    assert b"[+]store ok" in (await api.call("GET", "/livez", verbose="")).content
    version = await api.read("/version")
    assert (version["major"], version["minor"]) == ("1", "32")
    await api.make(VOLUMES, volume("v"))
    text = (await api.call("GET", "/metrics", accept="*/*")).content.decode()
    assert 'apiserver_storage_objects{resource="persistentvolumes"} 1.0' in text
    assert (
        'apiserver_request_total{code="201",resource="persistentvolumes",verb="POST"} 1.0' in text
    )


async def test_documents_are_fetched_once(api: Wire) -> None:
    first = await api.call("GET", "/openapi/v3")
    tag = first.headers["etag"]
    second = await api.call("GET", "/openapi/v3", headers={"If-None-Match": tag})
    assert (second.code, second.content) == (304, b"")
    document = json.loads(first.content)["paths"]["api/v1"]["serverRelativeURL"]
    assert (await api.call("GET", document)).body["openapi"].startswith("3.")
