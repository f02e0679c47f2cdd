"""Deleting over HTTP: answers, preconditions, finalizers, grace, collections."""

from __future__ import annotations

from typing import Any

import pytest

from wire import (
    CLAIMS,
    CLASSES,
    CONFIG_MAPS,
    CORE,
    NAMESPACES,
    PODS,
    STORAGE,
    STRATEGIC_PATCH,
    VOLUMES,
    Wire,
    claim,
    config_map,
    meta,
    pod,
    storage_class,
    volume,
)

ATTACHMENT = {
    "metadata": meta("x"),
    "spec": {"attacher": "a", "nodeName": "n", "source": {"persistentVolumeName": "v"}},
}
EVENT = {
    "metadata": meta("x"),
    "involvedObject": {"kind": "Pod", "name": "p", "namespace": "default"},
}


@pytest.mark.parametrize(
    ("path", "body"),
    [
        (CLASSES, storage_class("x")),
        (f"{STORAGE}/volumeattachments", ATTACHMENT),
        (f"{STORAGE}/csidrivers", {"metadata": meta("x"), "spec": {}}),
        (f"{STORAGE}/csinodes", {"metadata": meta("x"), "spec": {"drivers": []}}),
        (PODS, pod("x")),
        (f"{CORE}/namespaces/default/serviceaccounts", {"metadata": meta("x")}),
    ],
)
async def test_deleting_some_kinds_answers_with_the_object(
    api: Wire, path: str, body: dict[str, Any]
) -> None:
    made = await api.make(path, body)
    reply = await api.call("DELETE", f"{path}/x")
    assert reply.code == 200
    assert reply.body["metadata"]["uid"] == made["metadata"]["uid"]
    if path != PODS:
        assert "deletionTimestamp" not in reply.body["metadata"]
    assert (await api.call("GET", f"{path}/x")).code == 404


@pytest.mark.parametrize(
    ("path", "body", "resource"),
    [
        (CONFIG_MAPS, config_map("x"), "configmaps"),
        (f"{CORE}/namespaces/default/secrets", {"metadata": meta("x")}, "secrets"),
        (f"{CORE}/namespaces/default/events", EVENT, "events"),
    ],
)
async def test_deleting_other_kinds_answers_with_a_status(
    api: Wire, path: str, body: dict[str, Any], resource: str
) -> None:
    made = await api.make(path, body)
    reply = await api.call("DELETE", f"{path}/x")
    assert reply.body == {
        "kind": "Status",
        "apiVersion": "v1",
        "metadata": {},
        "status": "Success",
        "details": {"name": "x", "kind": resource, "uid": made["metadata"]["uid"]},
    }


async def test_an_object_with_finalizers_is_only_marked(api: Wire) -> None:
    await api.make(CLAIMS, claim("c"))
    marked = await api.call("DELETE", f"{CLAIMS}/c")
    assert marked.code == 200
    metadata = marked.body["metadata"]
    assert metadata["deletionGracePeriodSeconds"] == 0
    assert metadata["deletionTimestamp"] >= metadata["creationTimestamp"]
    assert metadata["finalizers"] == ["kubernetes.io/pvc-protection"]

    # A second time changes nothing, and the name stays taken.
    again = await api.call("DELETE", f"{CLAIMS}/c")
    assert again.body == marked.body
    taken = await api.call("POST", CLAIMS, claim("c"))
    assert taken.message == 'object is being deleted: persistentvolumeclaims "c" already exists'

    # The last finalizer's removal ends it in the same request.
    freed = await api.patch(f"{CLAIMS}/c", {"metadata": {"finalizers": None}})
    assert freed.code == 200
    assert freed.body["metadata"]["uid"] == metadata["uid"]
    assert (await api.call("GET", f"{CLAIMS}/c")).code == 404


async def test_a_dying_object_takes_no_new_finalizers(api: Wire) -> None:
    await api.make(CLAIMS, claim("c"))
    await api.call("DELETE", f"{CLAIMS}/c")
    reply = await api.patch(
        f"{CLAIMS}/c", {"metadata": {"finalizers": ["example.com/hold"]}}, STRATEGIC_PATCH
    )
    assert (reply.code, reply.reason) == (422, "Invalid")
    [(field, reason, message)] = reply.causes
    assert (field, reason) == ("metadata.finalizers", "FieldValueForbidden")
    assert message.startswith(
        "Forbidden: no new finalizers can be added if the object is being deleted, "
        'found new finalizers []string{"example.com/hold"}'
    )


async def test_a_mark_cannot_be_taken_back(api: Wire) -> None:
    await api.make(VOLUMES, volume("v"))
    marked = (await api.call("DELETE", f"{VOLUMES}/v")).body
    put = await api.call("PUT", f"{VOLUMES}/v", volume("v", "2Gi"))
    # Without finalizers in the manifest the object goes with this very request.
    assert put.code == 200
    assert put.body["metadata"]["deletionTimestamp"] == marked["metadata"]["deletionTimestamp"]
    assert (await api.call("GET", f"{VOLUMES}/v")).code == 404


@pytest.mark.parametrize(
    ("field", "word"), [("uid", "UID"), ("resourceVersion", "ResourceVersion")]
)
async def test_a_failed_precondition_is_a_conflict(api: Wire, field: str, word: str) -> None:
    made = await api.make(VOLUMES, volume("v"))
    options = {"kind": "DeleteOptions", "apiVersion": "v1", "preconditions": {field: "7777777"}}
    reply = await api.call("DELETE", f"{VOLUMES}/v", options)
    assert (reply.code, reply.reason) == (409, "Conflict")
    assert reply.body["details"] == {"name": "v", "kind": "PersistentVolume"}
    assert f"the {word} in the precondition (7777777) does not match" in reply.message
    options["preconditions"] = {field: made["metadata"][field]}
    assert (await api.call("DELETE", f"{VOLUMES}/v", options)).code == 200


@pytest.mark.parametrize(
    ("options", "code", "text"),
    [
        (
            {"propagationPolicy": "Sideways"},
            422,
            'DeleteOptions.meta.k8s.io "" is invalid: propagationPolicy: Unsupported value: '
            '"Sideways": supported values: "Foreground", "Background", "Orphan", "nil"',
        ),
        ({"dryRun": ["Half"]}, 422, None),
        ({"preconditions": "none"}, 400, None),
        ({"gracePeriodSeconds": "soon"}, 400, None),
        ([], 400, None),
    ],
)
async def test_options_that_make_no_sense_are_refused(
    api: Wire, options: object, code: int, text: str | None
) -> None:
    await api.make(CLASSES, storage_class("x"))
    reply = await api.call("DELETE", f"{CLASSES}/x", options)
    assert reply.code == code, reply.content
    if text is not None:
        assert reply.message == text
    assert (await api.call("GET", f"{CLASSES}/x")).code == 200


async def test_a_scheduled_pod_is_given_time(api: Wire) -> None:
    await api.make(PODS, pod("p", nodeName="n", terminationGracePeriodSeconds=20))
    path = f"{PODS}/p"

    async def delete(**options: object) -> Any:
        return (await api.call("DELETE", path, options)).body["metadata"]

    assert (await delete(gracePeriodSeconds=10))["deletionGracePeriodSeconds"] == 10
    # Longer, or by default, does not count any more; shorter does.
    assert (await delete(gracePeriodSeconds=15))["deletionGracePeriodSeconds"] == 10
    assert (await delete())["deletionGracePeriodSeconds"] == 10
    assert (await delete(gracePeriodSeconds=5))["deletionGracePeriodSeconds"] == 5
    assert (await api.call("GET", path)).code == 200
    await delete(gracePeriodSeconds=0)
    assert (await api.call("GET", path)).code == 404


async def test_a_pod_has_its_own_time_by_default(api: Wire) -> None:
    await api.make(PODS, pod("p", nodeName="n", terminationGracePeriodSeconds=20))
    metadata = (await api.call("DELETE", f"{PODS}/p")).body["metadata"]
    assert metadata["deletionGracePeriodSeconds"] == 20


async def test_an_unscheduled_or_finished_pod_goes_at_once(api: Wire) -> None:
    await api.make(PODS, pod("waiting"))
    await api.make(PODS, pod("done", nodeName="n"))
    await api.patch(f"{PODS}/done/status", {"status": {"phase": "Succeeded"}})
    for name in ("waiting", "done"):
        assert (await api.call("DELETE", f"{PODS}/{name}")).code == 200
        assert (await api.call("GET", f"{PODS}/{name}")).code == 404


async def test_a_namespace_ends_when_it_is_finalized(api: Wire) -> None:
    await api.make(NAMESPACES, {"metadata": meta("n")})
    path = f"{NAMESPACES}/n"
    await api.call("DELETE", path)
    ending = await api.read(path)
    assert ending["status"]["phase"] == "Terminating"
    ending["spec"] = {}
    done = await api.call("PUT", f"{path}/finalize", ending)
    assert done.code == 200
    assert (await api.call("GET", path)).code == 404


@pytest.mark.parametrize("name", ["default", "kube-system", "kube-public"])
async def test_some_namespaces_stay(api: Wire, name: str) -> None:
    reply = await api.call("DELETE", f"{NAMESPACES}/{name}")
    assert (reply.code, reply.reason) == (403, "Forbidden")
    assert reply.message == (f'namespaces "{name}" is forbidden: this namespace may not be deleted')


async def test_a_collection_is_deleted_by_selector(api: Wire) -> None:
    for name, label in (("a", "x"), ("b", "x"), ("c", "y")):
        await api.make(CONFIG_MAPS, config_map(name, labels={"l": label}))
    reply = await api.call("DELETE", CONFIG_MAPS, labelSelector="l=x")
    assert reply.body["kind"] == "ConfigMapList"
    assert [item["metadata"]["name"] for item in reply.body["items"]] == ["a", "b"]
    left = await api.read(CONFIG_MAPS)
    assert [item["metadata"]["name"] for item in left["items"]] == ["c"]


async def test_a_collection_with_finalizers_is_marked(api: Wire) -> None:
    await api.make(VOLUMES, volume("a"))
    assert (await api.call("DELETE", VOLUMES)).code == 200
    assert "deletionTimestamp" in (await api.read(f"{VOLUMES}/a"))["metadata"]
