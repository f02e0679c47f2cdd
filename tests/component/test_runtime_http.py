"""Both clients against the real server, and what stands on them: informer and recorder.

What is said of one transport is said of both: the embedded one must behave as the network's.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, cast

import pytest

from holdfast.api import errors, kinds
from holdfast.runtime.client import Client, Object
from holdfast.runtime.http import HttpClient
from holdfast.runtime.informer import Informer
from holdfast.runtime.recorder import Recorder
from holdfast.store import watch as store_watch
from holdfast.testing.apiserver import TOKEN, ApiServer, api_server

both = pytest.mark.parametrize("transport", ["client", "http"])
NODE: Object = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n1"}}


def config_map(name: str, namespace: str = "default", **data: str) -> Object:
    meta = {"name": name, "namespace": namespace}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": meta, "data": data}


@asynccontextmanager
async def serving(directory: Path, transport: str) -> AsyncIterator[tuple[ApiServer, Client]]:
    async with api_server(directory) as server:
        yield server, getattr(server, transport)


async def first(changes: AsyncIterator[tuple[str, Object]]) -> tuple[str, Object]:
    """The first change of a watch, which is ended."""
    async with contextlib.aclosing(cast(AsyncGenerator[tuple[str, Object], None], changes)):
        return await anext(changes)


async def eventually(look: Callable[[], bool], seconds: float = 10.0) -> None:
    async with asyncio.timeout(seconds):
        # What is waited for is another task's doing, which tells nobody.
        while not look():  # noqa: ASYNC110
            await asyncio.sleep(0.005)


@asynccontextmanager
async def informed(client: Client, kind: kinds.Kind) -> AsyncIterator[Informer]:
    informer = Informer(client, kind)
    informer.add_index("data", lambda obj: (obj.get("data") or {}).items())
    async with asyncio.TaskGroup() as group:
        task = group.create_task(informer.run())
        await informer.synced()
        yield informer
        task.cancel()


# The verbs


@both
async def test_objects_are_made_read_changed_and_deleted(tmp_path: Path, transport: str) -> None:
    async with serving(tmp_path, transport) as (_, client):
        made = await client.create(kinds.CONFIG_MAP, config_map("c", a="1"))
        assert made["metadata"]["uid"] and made["kind"] == "ConfigMap"
        assert await client.get(kinds.CONFIG_MAP, "c", "default") == made
        replaced = await client.replace(kinds.CONFIG_MAP, {**made, "data": {"a": "2"}})
        assert replaced["data"] == {"a": "2"}
        patched = await client.patch(
            kinds.CONFIG_MAP, "c", {"data": {"a": None, "b": "3"}}, "default"
        )
        assert patched["data"] == {"b": "3"}
        listing = await client.list(kinds.CONFIG_MAP)
        assert listing.items == [patched]
        assert listing.revision == patched["metadata"]["resourceVersion"]
        await client.delete(kinds.CONFIG_MAP, "c", "default", uid=made["metadata"]["uid"])
        assert (await client.list(kinds.CONFIG_MAP)).items == []


@both
async def test_lists_are_selected_by_namespace_labels_and_fields(
    tmp_path: Path, transport: str
) -> None:
    async with serving(tmp_path, transport) as (_, client):
        for name, namespace in (("a", "default"), ("b", "default"), ("a", "kube-system")):
            obj = config_map(name, namespace)
            obj["metadata"]["labels"] = {"app": name}
            await client.create(kinds.CONFIG_MAP, obj, namespace)

        async def found(namespace: str | None = None, **selectors: str) -> list[str]:
            listing = await client.list(kinds.CONFIG_MAP, namespace, **selectors)
            assert all(item["apiVersion"] == "v1" for item in listing.items)
            metas = [item["metadata"] for item in listing.items]
            return [f"{meta['namespace']}/{meta['name']}" for meta in metas]

        assert await found() == ["default/a", "default/b", "kube-system/a"]
        assert await found("default", labels="app in (b, c)") == ["default/b"]
        assert await found(fields="metadata.name=a") == ["default/a", "kube-system/a"]
        assert await found("kube-system", labels="app!=a") == []


@both
async def test_status_and_binding_are_subresources(tmp_path: Path, transport: str) -> None:
    async with serving(tmp_path, transport) as (_, client):
        await client.create(kinds.NODE, NODE)
        conditions = {"status": {"conditions": [{"type": "Ready", "status": "True"}]}}
        node = await client.patch(kinds.NODE, "n1", conditions, subresource="status")
        assert node["status"]["conditions"][0]["type"] == "Ready"
        meta = {"name": "p", "namespace": "default"}
        spec = {"containers": [{"name": "c", "image": "i"}]}
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": spec}
        await client.create(kinds.POD, pod)
        target = {"apiVersion": "v1", "kind": "Node", "name": "n1"}
        binding = {"apiVersion": "v1", "kind": "Binding", "metadata": meta, "target": target}
        await client.create(kinds.POD, binding, "default", subresource="binding", name="p")
        assert (await client.get(kinds.POD, "p", "default"))["spec"]["nodeName"] == "n1"


Attempt = Callable[[Client], Coroutine[Any, Any, object]]
REFUSED: dict[str, tuple[type[errors.StatusError], Attempt]] = {
    "get": (errors.NotFound, lambda c: c.get(kinds.NODE, "absent")),
    "get nothing": (errors.NotFound, lambda c: c.get(kinds.NODE, "")),
    "get odd": (errors.NotFound, lambda c: c.get(kinds.NODE, "n1?x#y")),
    "delete nothing": (errors.NotFound, lambda c: c.delete(kinds.CONFIG_MAP, "", "default")),
    "delete": (errors.NotFound, lambda c: c.delete(kinds.STORAGE_CLASS, "absent")),
    "patch": (errors.NotFound, lambda c: c.patch(kinds.NODE, "absent", {})),
    "replace": (errors.NotFound, lambda c: c.replace(kinds.CONFIG_MAP, config_map("absent"))),
    "again": (errors.AlreadyExists, lambda c: c.create(kinds.NODE, NODE)),
    "name": (errors.Invalid, lambda c: c.create(kinds.NODE, {"metadata": {"name": "No!"}})),
    "type": (errors.BadRequest, lambda c: c.create(kinds.NODE, {**NODE, "spec": "text"})),
    "stale": (
        errors.Conflict,
        lambda c: c.replace(
            kinds.NODE, {**NODE, "metadata": {"name": "n1", "resourceVersion": "1"}}
        ),
    ),
    "other uid": (
        errors.Invalid,
        lambda c: c.patch(kinds.NODE, "n1", {"metadata": {"uid": "x", "labels": {"a": "b"}}}),
    ),
    "delete other": (errors.Conflict, lambda c: c.delete(kinds.NODE, "n1", uid="x")),
    "permanent": (errors.Forbidden, lambda c: c.delete(kinds.NAMESPACE, "default")),
    "namespace": (
        errors.NotFound,
        lambda c: c.create(kinds.CONFIG_MAP, config_map("c", "absent"), "absent"),
    ),
    "selector": (errors.BadRequest, lambda c: c.list(kinds.NODE, labels="a in b")),
    "field": (errors.BadRequest, lambda c: c.list(kinds.CLAIM, fields="spec.foo=a")),
    "part": (errors.NotFound, lambda c: c.patch(kinds.NODE, "n1", {}, subresource="scale")),
}


@pytest.mark.parametrize("case", REFUSED)
async def test_both_clients_raise_the_same_error(tmp_path: Path, case: str) -> None:
    kind, attempt = REFUSED[case]
    raised = []
    async with api_server(tmp_path) as server:
        await server.client.create(kinds.NODE, NODE)
        for client in (server.client, server.http):
            with pytest.raises(errors.StatusError) as caught:
                await attempt(client)
            assert type(caught.value) is kind
            raised.append(caught.value.status())
        assert raised[0] == raised[1]
        assert server.store.get(kinds.NODE.bucket, "n1") is not None


# Watching


@both
async def test_a_watch_brings_each_change_of_its_namespace_in_order(
    tmp_path: Path, transport: str
) -> None:
    async with serving(tmp_path, transport) as (_, client):
        start = (await client.list(kinds.CONFIG_MAP)).revision
        made = await client.create(kinds.CONFIG_MAP, config_map("c", a="1"))
        await client.create(kinds.CONFIG_MAP, config_map("c", "kube-system"))
        changed = await client.patch(kinds.CONFIG_MAP, "c", {"data": {"a": "2"}}, "default")
        await client.delete(kinds.CONFIG_MAP, "c", "default")
        watch = client.watch(kinds.CONFIG_MAP, "default", revision=start)
        seen = [await anext(watch) for _ in range(3)]
        assert seen[:2] == [("ADDED", made), ("MODIFIED", changed)]
        assert [type for type, _ in seen] == ["ADDED", "MODIFIED", "DELETED"]
        revisions = [int(obj["metadata"]["resourceVersion"]) for _, obj in seen]
        assert revisions == sorted(set(revisions))
        await cast(AsyncGenerator[object, None], watch).aclose()


@both
async def test_text_with_unicode_line_breaks_is_one_change(tmp_path: Path, transport: str) -> None:
    text = "a\u2028b\u2029c\x85d\x0be\x0cf\r\ng\x1ch"
    async with serving(tmp_path, transport) as (_, client):
        start = (await client.list(kinds.CONFIG_MAP)).revision
        await client.create(kinds.CONFIG_MAP, config_map("c", a=text))
        _, obj = await first(client.watch(kinds.CONFIG_MAP, revision=start))
        assert obj["data"] == {"a": text}


@both
async def test_a_large_object_comes_whole(tmp_path: Path, transport: str) -> None:
    text = "ä" * 400_000
    async with serving(tmp_path, transport) as (_, client):
        start = (await client.list(kinds.CONFIG_MAP)).revision
        await client.create(kinds.CONFIG_MAP, config_map("c", a=text))
        _, obj = await first(client.watch(kinds.CONFIG_MAP, revision=start))
        assert obj["data"] == {"a": text}


@both
async def test_a_watch_from_a_revision_that_is_gone_or_to_come_is_refused(
    tmp_path: Path, transport: str
) -> None:
    async with serving(tmp_path, transport) as (server, client):
        for number in range(3):
            await client.create(kinds.CONFIG_MAP, config_map(f"c{number}"))
            await client.delete(kinds.CONFIG_MAP, f"c{number}", "default")
        await server.store.compact(server.store.revision)
        with pytest.raises(errors.Expired, match="too old resource version: 2"):
            await first(client.watch(kinds.CONFIG_MAP, revision="2"))
        with pytest.raises(errors.Timeout, match="Too large resource version: 999"):
            await first(client.watch(kinds.CONFIG_MAP, revision="999"))


# The informer on the real server


@both
async def test_cache_and_indexes_equal_the_server_after_random_changes(
    tmp_path: Path, transport: str
) -> None:
    chance = random.Random(7)
    told: dict[tuple[str, int], Object | None] = {}
    replayed: dict[str, Object] = {}

    async with (
        serving(tmp_path, transport) as (server, client),
        informed(client, kinds.CONFIG_MAP) as informer,
    ):

        def hear(old: Object | None, new: Object | None) -> None:
            name = (new or old or {})["metadata"]["name"]
            assert replayed.get(name) is old, "a change does not follow from the one before"
            if new is None:
                del replayed[name]
            else:
                revision = int(new["metadata"]["resourceVersion"])
                assert (name, revision) not in told, "a change was told twice"
                told[name, revision] = replayed[name] = new

        informer.subscribe(hear)

        async def change(name: str) -> None:
            for turn in range(40):
                value = {"data": {chance.choice("xy"): chance.choice("12"), "turn": f"{turn}"}}
                if informer.get(name, "default") is None:
                    made = await client.create(kinds.CONFIG_MAP, {**config_map(name), **value})
                    informer.observe(made)
                elif chance.random() < 0.2:
                    await client.delete(kinds.CONFIG_MAP, name, "default")
                    await eventually(lambda: informer.get(name, "default") is None)
                    continue
                else:
                    made = await client.patch(kinds.CONFIG_MAP, name, value, "default")
                    informer.observe(made)
                # One's own write is there at once, or a newer one.
                cached = informer.get(name, "default")
                assert cached is not None
                seen = int(cached["metadata"]["resourceVersion"])
                assert seen >= int(made["metadata"]["resourceVersion"])
                await asyncio.sleep(chance.choice([0, 0, 0.002]))

        await asyncio.gather(*(change(f"c{number}") for number in range(6)))
        true = {r.obj["metadata"]["name"]: r.obj for r in server.store.scan("core/configmaps")}

        def equal() -> bool:
            return {o["metadata"]["name"]: o for o in informer.all()} == true

        await eventually(equal)
        assert replayed == true
        for item in (("x", "1"), ("x", "2"), ("y", "1"), ("y", "2")):
            expected = [n for n, o in true.items() if o["data"].get(item[0]) == item[1]]
            assert sorted(o["metadata"]["name"] for o in informer.by("data", item)) == expected


@both
async def test_an_informer_that_fell_behind_lists_again_and_misses_nothing(
    tmp_path: Path, transport: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with (
        serving(tmp_path, transport) as (_, client),
        informed(client, kinds.CONFIG_MAP) as informer,
    ):
        await client.create(kinds.CONFIG_MAP, config_map("gone"))
        await eventually(lambda: len(informer.all()) == 1)
        told: list[bool] = []
        informer.subscribe(lambda old, new: told.append(new is not None))
        with monkeypatch.context() as patched:
            # All of these are one commit: more at once than a watcher may keep.
            patched.setattr(store_watch, "LIMIT", 5)
            made = (client.create(kinds.CONFIG_MAP, config_map(f"c{n}")) for n in range(30))
            await asyncio.gather(*made, client.delete(kinds.CONFIG_MAP, "gone", "default"))
        await eventually(lambda: len(informer.all()) == 30)
        assert informer.get("gone", "default") is None
        assert told.count(False) == 1 and told.count(True) == 31


async def test_an_informer_finds_the_server_again_when_it_returns(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with HttpClient("http://holdfast", token=TOKEN, socket=tmp_path / "api.sock") as client:
        async with api_server(tmp_path) as server:
            await client.create(kinds.CONFIG_MAP, config_map("old"))
            following = informed(client, kinds.CONFIG_MAP)
            informer = await following.__aenter__()
            await eventually(lambda: server.store.watchers() == 1)
        try:
            with pytest.raises(OSError, match=r"api\.sock"):
                await client.list(kinds.CONFIG_MAP)
            assert informer.get("old", "default") is not None
            async with api_server(tmp_path) as server:
                await server.client.delete(kinds.CONFIG_MAP, "old", "default")
                # The history of the time before is gone for the informer.
                await server.store.compact(server.store.revision)
                await server.client.create(kinds.CONFIG_MAP, config_map("new"))
                await eventually(lambda: informer.get("new", "default") is not None)
                assert informer.get("old", "default") is None
                await server.client.create(kinds.CONFIG_MAP, config_map("newer"))
                await eventually(lambda: len(informer.all()) == 2)
        finally:
            await following.__aexit__(None, None, None)
    assert {r.message for r in caplog.records if r.name == "holdfast.runtime"} <= {
        "list or watch failed, trying again"
    }


# The recorder on the real server


@asynccontextmanager
async def recording(client: Client) -> AsyncIterator[Recorder]:
    recorder = Recorder(client, "persistentvolume-controller")
    async with asyncio.TaskGroup() as group:
        task = group.create_task(recorder.run())
        yield recorder
        task.cancel()


def events_of(server: ApiServer) -> list[Object]:
    return [record.obj for record in server.store.scan(kinds.EVENT.bucket)]


@both
async def test_one_event_with_a_count_is_kept_for_many_occurrences(
    tmp_path: Path, transport: str
) -> None:
    async with serving(tmp_path, transport) as (server, client), recording(client) as recorder:
        obj = await client.create(kinds.CONFIG_MAP, config_map("c"))
        for count in range(1, 5):
            recorder.event(obj, "Warning", "FailedBinding", "no volume")
            await eventually(lambda: [e["count"] for e in events_of(server)] == [count])  # noqa: B023
        (event,) = events_of(server)
        assert event["involvedObject"]["uid"] == obj["metadata"]["uid"]
        assert event["source"] == {"component": "persistentvolume-controller"}
        for number in range(15):
            recorder.event(obj, "Normal", "Waiting", f"message {number}")
        combined = "(combined from similar events): message 14"
        await eventually(lambda: combined in [e["message"] for e in events_of(server)])
        await eventually(lambda: sum(e["count"] for e in events_of(server)) == 19)
        assert len(events_of(server)) == 12


@both
async def test_an_event_of_a_node_is_in_default_and_returns_after_its_deletion(
    tmp_path: Path, transport: str
) -> None:
    async with serving(tmp_path, transport) as (server, client), recording(client) as recorder:
        node = await client.create(kinds.NODE, NODE)
        recorder.event(node, "Normal", "Ready", "it is")
        await eventually(lambda: len(events_of(server)) == 1)
        meta = events_of(server)[0]["metadata"]
        assert meta["namespace"] == "default"
        await client.delete(kinds.EVENT, meta["name"], "default")
        recorder.event(node, "Normal", "Ready", "it is")
        await eventually(lambda: [e["count"] for e in events_of(server)] == [2])


@both
async def test_events_the_server_refuses_do_not_stop_the_others(
    tmp_path: Path, transport: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with serving(tmp_path, transport) as (server, client), recording(client) as recorder:
        gone = config_map("c", "no-such-namespace")
        node = await client.create(kinds.NODE, NODE)
        for _ in range(40):
            recorder.event(gone, "Normal", "Waiting", "for its namespace")
            recorder.event(node, "Normal", "Ready", "it is")
        await eventually(lambda: [e["count"] for e in events_of(server)] == [40])
    refused = [r for r in caplog.records if r.message == "event not written"]
    assert 1 <= len(refused) <= 25
    assert 'namespaces "no-such-namespace" not found' in vars(refused[0])["error"]
