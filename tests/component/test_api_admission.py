"""Admission over HTTP: protection, default classes, growing claims."""

from __future__ import annotations

from typing import Any

import pytest

from wire import CLAIMS, CLASSES, VOLUMES, Reply, Wire, claim, storage_class, volume

DEFAULT = "storageclass.kubernetes.io/is-default-class"
BETA_DEFAULT = "storageclass.beta.kubernetes.io/is-default-class"
BETA_CLASS = "volume.beta.kubernetes.io/storage-class"
REFUSED = (
    'persistentvolumeclaims "c" is forbidden: only dynamically provisioned pvc can be resized '
    "and the storageclass that provisions the pvc must support resize"
)


async def _class(api: Wire, name: str, **annotations: str) -> None:
    body = storage_class(name, metadata={"annotations": annotations})
    await api.make(CLASSES, body)


# Protection


@pytest.mark.parametrize(
    ("path", "body", "finalizer"),
    [
        (CLAIMS, claim("x"), "kubernetes.io/pvc-protection"),
        (VOLUMES, volume("x"), "kubernetes.io/pv-protection"),
    ],
)
async def test_protection_is_added_once_after_the_users_own(
    api: Wire, path: str, body: dict[str, Any], finalizer: str
) -> None:
    for name, given, stored in (
        ("none", [], [finalizer]),
        ("own", ["example.com/hold"], ["example.com/hold", finalizer]),
        ("same", [finalizer, "example.com/hold"], [finalizer, "example.com/hold"]),
    ):
        body = {**body, "metadata": {"name": name, "finalizers": given}}
        assert (await api.make(path, body))["metadata"]["finalizers"] == stored


# The default class


async def test_a_claim_without_a_class_gets_the_default(api: Wire) -> None:
    before = await api.make(CLAIMS, claim("before"))
    assert "storageClassName" not in before["spec"]
    await _class(api, "plain")
    await _class(api, "almost", **{DEFAULT: "True"})
    assert "storageClassName" not in (await api.make(CLAIMS, claim("still")))["spec"]
    await _class(api, "chosen", **{BETA_DEFAULT: "true"})
    after = await api.make(CLAIMS, claim("after"))
    assert after["spec"]["storageClassName"] == "chosen"
    # Those that were there are the business of a controller.
    assert await api.read(f"{CLAIMS}/before") == before


async def test_a_claim_that_names_a_class_keeps_it(api: Wire) -> None:
    await _class(api, "default", **{DEFAULT: "true"})
    empty = await api.make(CLAIMS, claim("empty", storageClassName=""))
    assert empty["spec"]["storageClassName"] == ""
    named = await api.make(CLAIMS, claim("named", storageClassName="other"))
    assert named["spec"]["storageClassName"] == "other"
    body = claim("annotated")
    body["metadata"]["annotations"] = {BETA_CLASS: "old"}
    assert "storageClassName" not in (await api.make(CLAIMS, body))["spec"]


async def test_of_several_defaults_the_first_by_name_wins_in_one_second(api: Wire) -> None:
    for name in ("b", "a", "c"):
        await _class(api, name, **{DEFAULT: "true"})
    times = {
        item["metadata"]["creationTimestamp"]: item["metadata"]["name"]
        for item in reversed((await api.read(CLASSES))["items"])
    }
    expected = times[max(times)]
    made = await api.make(CLAIMS, claim("x"))
    assert made["spec"]["storageClassName"] == expected


# Growing


async def _bound(api: Wire, storage: str = "2Gi", **spec: Any) -> None:
    await api.make(CLAIMS, claim("c", storage, volumeName="v", **spec))
    status = {"phase": "Bound", "capacity": {"storage": storage}}
    await api.patch(f"{CLAIMS}/c/status", {"status": status})


async def _resize(api: Wire, storage: str) -> Reply:
    return await api.patch(
        f"{CLAIMS}/c", {"spec": {"resources": {"requests": {"storage": storage}}}}
    )


async def test_a_bound_claim_grows_if_its_class_allows(api: Wire) -> None:
    await api.make(CLASSES, storage_class("elastic", allowVolumeExpansion=True))
    await _bound(api, storageClassName="elastic")
    reply = await _resize(api, "3Gi")
    assert reply.code == 200
    assert reply.body["spec"]["resources"]["requests"] == {"storage": "3Gi"}
    assert reply.body["status"]["capacity"] == {"storage": "2Gi"}


@pytest.mark.parametrize(
    "name",
    ["missing", "rigid", "", None],
)
async def test_a_claim_does_not_grow_without_such_a_class(api: Wire, name: str | None) -> None:
    await api.make(CLASSES, storage_class("rigid"))
    await _bound(api, **({} if name is None else {"storageClassName": name}))
    reply = await _resize(api, "3Gi")
    assert (reply.code, reply.reason, reply.message) == (403, "Forbidden", REFUSED)
    assert reply.body["details"] == {"name": "c", "kind": "persistentvolumeclaims"}


async def test_a_claim_shrinks_only_to_more_than_it_has(api: Wire) -> None:
    await api.make(CLASSES, storage_class("elastic", allowVolumeExpansion=True))
    await _bound(api, storageClassName="elastic")
    assert (await _resize(api, "5Gi")).code == 200
    assert (await _resize(api, "4Gi")).code == 200
    for less in ("2Gi", "1Gi"):
        reply = await _resize(api, less)
        assert (reply.code, reply.causes) == (
            422,
            [
                (
                    "spec.resources.requests.storage",
                    "FieldValueForbidden",
                    "Forbidden: field can not be less than status.capacity",
                )
            ],
        )
