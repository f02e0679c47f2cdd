"""Watch streams over HTTP: where they begin, what they carry, how they end."""

from __future__ import annotations

from typing import Any

import pytest

from holdfast.apiserver import watching
from wire import CONFIG_MAPS, CORE, NAMESPACES, TABLE, VOLUMES, Wire, config_map, meta, volume

INITIAL: dict[str, Any] = {
    "sendInitialEvents": "true",
    "resourceVersionMatch": "NotOlderThan",
    "allowWatchBookmarks": "true",
}


async def _version(api: Wire) -> str:
    text: str = (await api.read(CONFIG_MAPS))["metadata"]["resourceVersion"]
    return text


def _told(event: tuple[str, Any]) -> tuple[str, str]:
    return event[0], event[1]["metadata"].get("name", "")


async def test_a_watch_goes_on_where_a_list_ended(api: Wire) -> None:
    await api.make(CONFIG_MAPS, config_map("before"))
    version = await _version(api)
    made = await api.make(CONFIG_MAPS, config_map("a"))
    async with api.watch(CONFIG_MAPS, resourceVersion=version) as stream:
        assert await stream.next() == ("ADDED", made)
        changed = (await api.patch(f"{CONFIG_MAPS}/a", {"data": {"key": "2"}})).body
        assert await stream.next() == ("MODIFIED", changed)
        await api.call("DELETE", f"{CONFIG_MAPS}/a")
        type, last = await stream.next()
    assert (type, last["data"]) == ("DELETED", {"key": "2"})
    # The last state comes at the deletion's own version.
    assert int(last["metadata"]["resourceVersion"]) > int(changed["metadata"]["resourceVersion"])
    assert list(last)[:3] == ["kind", "apiVersion", "metadata"]


@pytest.mark.parametrize("query", [{}, {"resourceVersion": "0"}])
async def test_a_watch_from_nowhere_begins_with_what_there_is(
    api: Wire, query: dict[str, Any]
) -> None:
    await api.make(CONFIG_MAPS, config_map("a"))
    await api.make(CONFIG_MAPS, config_map("b"))
    async with api.watch(CONFIG_MAPS, **query) as stream:
        assert [_told(await stream.next()) for _ in range(2)] == [("ADDED", "a"), ("ADDED", "b")]
        await api.make(CONFIG_MAPS, config_map("c"))
        assert _told(await stream.next()) == ("ADDED", "c")


async def test_a_watch_is_of_one_namespace(api: Wire) -> None:
    version = await _version(api)
    async with api.watch(CONFIG_MAPS, resourceVersion=version) as stream:
        await api.make(f"{CORE}/namespaces/kube-system/configmaps", config_map("other"))
        await api.make(CONFIG_MAPS, config_map("mine"))
        assert _told(await stream.next()) == ("ADDED", "mine")


async def test_a_selector_turns_changes_into_coming_and_going(api: Wire) -> None:
    version = await _version(api)
    await api.make(CONFIG_MAPS, config_map("a"))
    async with api.watch(
        CONFIG_MAPS, resourceVersion=version, labelSelector="team=x", timeoutSeconds=1
    ) as stream:
        for labels in ({"team": "x"}, {"team": "x", "more": "1"}, {"team": "y"}, {"team": "x"}):
            await api.patch(f"{CONFIG_MAPS}/a", {"metadata": {"labels": labels}})
        gone = (await api.patch(f"{CONFIG_MAPS}/a", {"metadata": {"labels": {"team": "z"}}})).body
        await api.call("DELETE", f"{CONFIG_MAPS}/a")
        events = await stream.rest()
    assert [type for type, _ in events] == ["ADDED", "MODIFIED", "DELETED", "ADDED", "DELETED"]
    # Who leaves is shown as last selected, at the version of the change.
    assert events[-1][1]["metadata"]["labels"]["team"] == "x"
    assert events[-1][1]["metadata"]["resourceVersion"] == gone["metadata"]["resourceVersion"]


async def test_one_object_is_watched_by_name(api: Wire) -> None:
    version = await _version(api)
    query: dict[str, Any] = {"resourceVersion": version, "fieldSelector": "metadata.name=b"}
    async with api.watch(CONFIG_MAPS, **query) as stream:
        await api.make(CONFIG_MAPS, config_map("a"))
        await api.make(CONFIG_MAPS, config_map("b"))
        await api.call("DELETE", f"{CONFIG_MAPS}/b")
        assert _told(await stream.next()) == ("ADDED", "b")
        assert _told(await stream.next()) == ("DELETED", "b")


async def test_a_watch_ends_in_time_with_a_bookmark(api: Wire) -> None:
    version = await _version(api)
    query: dict[str, Any] = {"resourceVersion": version, "timeoutSeconds": 1}
    async with api.watch(CONFIG_MAPS, allowWatchBookmarks="true", **query) as stream:
        await api.make(f"{VOLUMES}", volume("v"))
        events = await stream.rest()
    newest = str(api.server.store.revision)
    assert events == [
        (
            "BOOKMARK",
            {"kind": "ConfigMap", "apiVersion": "v1", "metadata": {"resourceVersion": newest}},
        )
    ]
    async with api.watch(CONFIG_MAPS, **query) as stream:
        assert await stream.rest() == []


async def test_bookmarks_come_regularly_even_between_events(
    api: Wire, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watching, "BOOKMARK_SECONDS", 0.2)
    version = await _version(api)
    query: dict[str, Any] = {
        "resourceVersion": version,
        "timeoutSeconds": 1,
        "allowWatchBookmarks": "1",
    }
    async with api.watch(CONFIG_MAPS, **query) as stream:
        types = [type for type, _ in await stream.rest()]
    assert types.count("BOOKMARK") >= 3


async def test_a_watch_list_says_when_it_is_complete(api: Wire) -> None:
    await api.make(CONFIG_MAPS, config_map("a"))
    async with api.watch(CONFIG_MAPS, **INITIAL) as stream:
        assert _told(await stream.next()) == ("ADDED", "a")
        type, mark = await stream.next()
        assert (type, mark["metadata"]["annotations"]) == (
            "BOOKMARK",
            {"k8s.io/initial-events-end": "true"},
        )
        assert mark["metadata"]["resourceVersion"] == str(api.server.store.revision)
        await api.make(CONFIG_MAPS, config_map("b"))
        assert _told(await stream.next()) == ("ADDED", "b")


async def test_a_watch_may_do_without_what_there_is(api: Wire) -> None:
    await api.make(CONFIG_MAPS, config_map("a"))
    query: dict[str, Any] = {"sendInitialEvents": "false", "resourceVersionMatch": "NotOlderThan"}
    async with api.watch(CONFIG_MAPS, **query) as stream:
        await api.make(CONFIG_MAPS, config_map("b"))
        assert _told(await stream.next()) == ("ADDED", "b")


@pytest.mark.parametrize(
    ("query", "fields"),
    [
        ({"sendInitialEvents": "true"}, ["resourceVersionMatch"]),
        ({**INITIAL, "resourceVersionMatch": "Exact"}, ["resourceVersionMatch"] * 2),
        ({**INITIAL, "allowWatchBookmarks": "false"}, ["allowWatchBookmarks"]),
        ({"resourceVersionMatch": "NotOlderThan"}, ["resourceVersionMatch"]),
    ],
)
async def test_options_that_do_not_go_together_are_refused(
    api: Wire, query: dict[str, Any], fields: list[str]
) -> None:
    reply = await api.call("GET", CONFIG_MAPS, watch="1", **query)
    assert (reply.code, reply.body["details"]["kind"]) == (422, "ListOptions")
    assert [field for field, _, _ in reply.causes] == fields


async def test_a_list_has_no_initial_events(api: Wire) -> None:
    reply = await api.call("GET", CONFIG_MAPS, sendInitialEvents="true")
    assert [field for field, _, _ in reply.causes] == ["sendInitialEvents"]


async def test_a_version_that_is_forgotten_ends_the_watch(api: Wire) -> None:
    first = await api.make(CONFIG_MAPS, config_map("a"))
    await api.patch(f"{CONFIG_MAPS}/a", {"data": {"key": "2"}})
    await api.server.store.compact(api.server.store.revision)
    async with api.watch(
        CONFIG_MAPS, resourceVersion=first["metadata"]["resourceVersion"]
    ) as stream:
        assert stream.code == 200
        [(type, status)] = await stream.rest()
    version, floor = first["metadata"]["resourceVersion"], api.server.store.floor
    assert (type, status["code"], status["reason"]) == ("ERROR", 410, "Expired")
    assert status["message"] == f"too old resource version: {version} ({floor})"


async def test_a_version_of_the_future_ends_the_watch(api: Wire) -> None:
    version = str(api.server.store.revision + 100)
    async with api.watch(CONFIG_MAPS, resourceVersion=version) as stream:
        [(type, status)] = await stream.rest()
    assert (type, status["code"], status["reason"]) == ("ERROR", 504, "Timeout")


async def test_a_table_is_watched_row_by_row(api: Wire) -> None:
    await api.make(CONFIG_MAPS, config_map("a"))
    async with api.watch(CONFIG_MAPS, accept=TABLE) as stream:
        type, first = await stream.next()
        assert (type, first["kind"]) == ("ADDED", "Table")
        assert [c["name"] for c in first["columnDefinitions"]] == ["Name", "Data", "Age"]
        assert first["rows"][0]["cells"][:2] == ["a", 1]
        await api.make(CONFIG_MAPS, config_map("b"))
        _, second = await stream.next()
        assert (second["columnDefinitions"], len(second["rows"])) == (None, 1)


async def test_bookmarks_have_the_form_of_the_stream(api: Wire) -> None:
    metadata_only = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1"
    for accept, kind in ((TABLE, "Table"), (metadata_only, "PartialObjectMetadata")):
        async with api.watch(CONFIG_MAPS, accept=accept, **INITIAL) as stream:
            type, mark = await stream.next()
        assert (type, mark["kind"], mark["apiVersion"]) == ("BOOKMARK", kind, "meta.k8s.io/v1")
        assert mark["metadata"]["resourceVersion"]


async def test_there_is_no_stream_of_yaml(api: Wire) -> None:
    reply = await api.call("GET", CONFIG_MAPS, watch="1", accept="application/yaml")
    assert reply.code == 406


async def test_every_watcher_sees_every_change_in_order(api: Wire) -> None:
    version = await _version(api)
    async with (
        api.watch(CONFIG_MAPS, resourceVersion=version) as one,
        api.watch(CONFIG_MAPS, resourceVersion=version) as two,
    ):
        names = [f"m{number:02d}" for number in range(20)]
        for name in names:
            await api.make(CONFIG_MAPS, config_map(name))
        for stream in (one, two):
            assert [_told(await stream.next()) for _ in names] == [("ADDED", n) for n in names]


async def test_the_server_forgets_a_watcher_that_leaves(api: Wire) -> None:
    before = api.server.store.watchers()
    async with api.watch(NAMESPACES) as stream:
        await stream.next()
        assert api.server.store.watchers() == before + 1
    # The next write finds nobody there.
    await api.make(NAMESPACES, {"metadata": meta("n")})
    assert api.server.store.watchers() == before
