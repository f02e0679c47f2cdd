"""The cache against awkward orders of list, watch and one's own writes."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any, cast

import pytest

from holdfast.api import errors, kinds
from holdfast.runtime.client import Client, Listing, Object
from holdfast.runtime.informer import Informer, Informers

RunVirtually = Callable[[Coroutine[Any, Any, None]], float]
Change = tuple[str, Object] | Exception | None


def volume(name: str, revision: int, phase: str = "Available", uid: str = "") -> Object:
    meta = {"name": name, "resourceVersion": str(revision), "uid": uid or f"uid-{name}"}
    return {"kind": "PersistentVolume", "metadata": meta, "status": {"phase": phase}}


class ScriptedServer:
    """A server that lists and watches exactly what a test tells it to."""

    def __init__(self) -> None:
        self.lists: list[Listing | Exception] = []
        self.changes: asyncio.Queue[Change] = asyncio.Queue()
        self.asked: list[str] = []
        self.asked_at: list[float] = []
        self.before_list: Callable[[], None] = lambda: None

    async def list(self, *_: object, **__: object) -> Listing:
        self.asked.append("list")
        self.asked_at.append(round(asyncio.get_running_loop().time(), 3))
        answer = self.lists.pop(0) if len(self.lists) > 1 else self.lists[0]
        await asyncio.sleep(0)
        self.before_list()
        if isinstance(answer, Exception):
            raise answer
        return answer

    async def watch(self, *_: object, revision: str) -> AsyncIterator[tuple[str, Object]]:
        self.asked.append(revision)
        while (change := await self.changes.get()) is not None:
            if isinstance(change, Exception):
                raise change
            yield change

    async def send(self, *changes: Change) -> None:
        for change in changes:
            self.changes.put_nowait(change)
        # Longer than the first delays after an error.
        await asyncio.sleep(5)


@asynccontextmanager
async def following(*items: Object, revision: int = 10) -> AsyncIterator[tuple[Any, ...]]:
    """A running, synced informer: (informer, server, log of changes as phases)."""
    server = ScriptedServer()
    server.lists = [Listing(list(items), str(revision))]
    informer = Informer(cast(Client, server), kinds.VOLUME)
    informer.add_index("phase", lambda obj: [obj["status"]["phase"]])
    told: list[tuple[str | None, str | None]] = []
    informer.subscribe(lambda old, new: told.append((label(old), label(new))))
    async with asyncio.TaskGroup() as group:
        task = group.create_task(informer.run())
        await informer.synced()
        await asyncio.sleep(0.01)
        yield informer, server, told
        task.cancel()


def label(obj: Object | None) -> str | None:
    if obj is None:
        return None
    return f"{obj['metadata']['name']}@{obj['metadata']['resourceVersion']}"


def test_list_and_changes_reach_cache_indexes_and_handlers(run_virtually: RunVirtually) -> None:
    async def work() -> None:
        async with following(volume("a", 5)) as (informer, server, told):
            bound = volume("a", 11, "Bound")
            await server.send(("MODIFIED", bound), ("ADDED", volume("b", 12)))
            assert informer.get("a") is bound
            assert list(informer.by("phase", "Bound")) == [bound]
            assert [label(o) for o in informer.by("phase", "Available")] == ["b@12"]
            await server.send(("DELETED", volume("a", 13, "Bound")))
            assert [label(o) for o in informer.all()] == ["b@12"]
            assert list(informer.by("phase", "Bound")) == []
            assert told == [(None, "a@5"), ("a@5", "a@11"), (None, "b@12"), ("a@11", None)]

    run_virtually(work())


def test_one_sees_ones_own_write_at_once_and_is_told_once(run_virtually: RunVirtually) -> None:
    async def work() -> None:
        async with following(volume("a", 5)) as (informer, server, told):
            written = volume("a", 11, "Bound")
            informer.observe(written)
            assert informer.get("a") is written
            await server.send(("MODIFIED", volume("a", 11, "Bound")))
            assert informer.get("a") is written
            assert told == [(None, "a@5"), ("a@5", "a@11")]

    run_virtually(work())


def test_the_cache_does_not_go_back_to_a_change_before_ones_own_write(
    run_virtually: RunVirtually,
) -> None:
    async def work() -> None:
        async with following(volume("a", 5)) as (informer, server, told):
            informer.observe(volume("a", 12, "Bound"))
            await server.send(("MODIFIED", volume("a", 11, "Pending")))
            assert label(informer.get("a")) == "a@12"
            informer.observe(volume("a", 9))
            assert label(informer.get("a")) == "a@12"
            assert told == [(None, "a@5"), ("a@5", "a@12")]

    run_virtually(work())


def test_a_late_answer_does_not_bring_a_deleted_object_back(run_virtually: RunVirtually) -> None:
    async def work() -> None:
        async with following(volume("a", 5)) as (informer, server, told):
            await server.send(("MODIFIED", volume("a", 11)), ("DELETED", volume("a", 12)))
            informer.observe(volume("a", 11))
            assert informer.get("a") is None and list(informer.by("phase", "Available")) == []
            assert told[-1] == ("a@11", None)

    run_virtually(work())


def test_a_late_deletion_does_not_take_a_newer_object_of_the_name(
    run_virtually: RunVirtually,
) -> None:
    async def work() -> None:
        async with following(volume("a", 5)) as (informer, server, told):
            informer.observe(volume("a", 12, uid="second"))
            await server.send(
                ("DELETED", volume("a", 11)), ("ADDED", volume("a", 12, uid="second"))
            )
            assert label(informer.get("a")) == "a@12"
            assert told == [(None, "a@5"), ("a@5", "a@12")]

    run_virtually(work())


def test_a_list_older_than_ones_own_write_does_not_undo_it(run_virtually: RunVirtually) -> None:
    async def work() -> None:
        async with following(volume("a", 5), volume("c", 6)) as (informer, server, told):
            server.lists = [Listing([volume("a", 5)], "20")]

            def write_meanwhile() -> None:
                informer.observe(volume("new", 21))
                informer.observe(volume("a", 22, "Bound"))

            server.before_list = write_meanwhile
            await server.send(errors.Expired.of("too old"))
            assert sorted(str(label(o)) for o in informer.all()) == ["a@22", "new@21"]
            assert told[2:] == [(None, "new@21"), ("a@5", "a@22"), ("c@6", None)]
            assert server.asked == ["list", "10", "list", "20"]

    run_virtually(work())


def test_a_new_list_tells_only_what_changed(run_virtually: RunVirtually) -> None:
    async def work() -> None:
        first = [volume("same", 5), volume("changed", 6), volume("gone", 7)]
        async with following(*first) as (_, server, told):
            told.clear()
            server.lists = [
                Listing([volume("same", 5), volume("changed", 15), volume("new", 16)], "20")
            ]
            await server.send(errors.Expired.of("too old"))
            expected = {("gone@7", None), ("changed@6", "changed@15"), (None, "new@16")}
            assert set(told) == expected
            assert len(told) == 3

    run_virtually(work())


@pytest.mark.parametrize("revision", [4, 50])
def test_a_server_that_was_restored_from_a_backup_counts_whole(
    run_virtually: RunVirtually, revision: int
) -> None:
    """Its counter may be behind ours, or have run past it again: either way its list is true."""

    async def work() -> None:
        async with following(volume("a", 9), volume("b", 8)) as (informer, server, _):
            server.lists = [Listing([volume("a", 3, "Pending")], str(revision))]
            await server.send(errors.Timeout.future(10, revision))
            assert [label(o) for o in informer.all()] == ["a@3"]
            assert server.asked[-1] == str(revision)
            await server.send(("MODIFIED", volume("a", revision + 1)))
            assert [label(o) for o in informer.all()] == [f"a@{revision + 1}"]

    run_virtually(work())


def test_a_watch_continues_where_the_last_one_ended(run_virtually: RunVirtually) -> None:
    async def work() -> None:
        async with following() as (informer, server, told):
            bookmark: Object = {"kind": "PersistentVolume", "metadata": {"resourceVersion": "30"}}
            await server.send(("ADDED", volume("a", 11)), None)
            await server.send(("BOOKMARK", bookmark), None)
            assert server.asked == ["list", "10", "11", "30"]
            assert told == [(None, "a@11")] and len(informer.all()) == 1

    run_virtually(work())


def test_a_server_that_fails_is_asked_less_and_less_often(
    run_virtually: RunVirtually, caplog: pytest.LogCaptureFixture
) -> None:
    async def work() -> None:
        async with following() as (_, server, _):
            server.lists = [OSError("connection refused")]
            server.asked_at.clear()
            await server.send(OSError("connection lost"))
            # The delays 0.2, 0.4, 0.8 and 1.6 fit into the 5 seconds that `send` waits.
            gaps = [b - a for a, b in zip(server.asked_at, server.asked_at[1:], strict=False)]
            assert gaps == pytest.approx([0.4, 0.8, 1.6])
            await asyncio.sleep(300)
            assert server.asked_at[-1] - server.asked_at[-2] == pytest.approx(30)

    run_virtually(work())
    assert {r.message for r in caplog.records} == {"list or watch failed, trying again"}


@pytest.mark.parametrize("end", [None, errors.Expired.of("too old")])
def test_watches_that_end_at_once_do_not_spin(
    run_virtually: RunVirtually, end: Exception | None
) -> None:
    async def work() -> None:
        async with following() as (_, server, _):
            for _ in range(1000):
                server.changes.put_nowait(end)
            await asyncio.sleep(10)
            assert 3 <= len(server.asked) < 20

    run_virtually(work())


def test_an_expired_watch_is_no_warning(
    run_virtually: RunVirtually, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)

    async def work() -> None:
        async with following() as (_, server, _):
            await server.send(errors.Expired.of("too old"))
            assert server.asked == ["list", "10", "list", "10"]

    run_virtually(work())
    assert caplog.records == []


def test_a_handler_or_index_that_fails_does_not_keep_the_change_from_others(
    run_virtually: RunVirtually, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: object) -> Any:
        raise KeyError("odd object")

    async def work() -> None:
        async with following(volume("a", 5)) as (informer, server, told):
            informer.add_index("broken", fail)
            informer.subscribe(fail)
            late: list[str | None] = []
            informer.subscribe(lambda old, new: late.append(label(new)))
            await server.send(("MODIFIED", volume("a", 11)), ("ADDED", volume("b", 12)))
            assert late == ["a@5", "a@11", "b@12"] and len(told) == 3
            assert list(informer.by("broken", "x")) == []

    run_virtually(work())
    assert {"handler failed", "object not indexed"} == {r.message for r in caplog.records}


def test_an_index_asked_for_late_has_what_is_there(run_virtually: RunVirtually) -> None:
    async def work() -> None:
        async with following(volume("a", 5), volume("b", 6)) as (informer, server, _):
            informer.add_index("initial", lambda obj: obj["metadata"]["name"])
            informer.add_index("initial", lambda obj: ["ignored: the name is taken"])
            assert [label(o) for o in informer.by("initial", "b")] == ["b@6"]
            await server.send(("DELETED", volume("b", 11)))
            assert list(informer.by("initial", "b")) == []

    run_virtually(work())


def test_there_is_one_informer_per_kind_also_for_those_who_come_late(
    run_virtually: RunVirtually,
) -> None:
    async def work() -> None:
        server = ScriptedServer()
        server.lists = [Listing([volume("a", 5)], "10")]
        informers = Informers(cast(Client, server))
        early = informers.of(kinds.VOLUME)
        task = asyncio.create_task(informers.run())
        await informers.synced()
        late = informers.of(kinds.NODE)
        assert informers.of(kinds.NODE) is late and informers.of(kinds.VOLUME) is early
        await informers.synced()
        assert len(late.all()) == 1 and server.asked.count("list") == 2
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        # Asked for after the end it exists, and nobody runs it.
        assert informers.of(kinds.CLAIM).get("a") is None

    run_virtually(work())


def test_a_kind_that_is_not_served_is_empty_until_it_is(run_virtually: RunVirtually) -> None:
    async def scenario() -> None:
        server = ScriptedServer()
        listing = Listing([volume("a", 3)], "3")
        server.lists = [errors.NotFound.resource(), listing]
        informers = Informers(cast(Client, server), optional={kinds.VOLUME})
        informer = informers.of(kinds.VOLUME)
        task = asyncio.ensure_future(informers.run())
        await informer.synced()
        assert not informer.all()
        await asyncio.sleep(31)
        assert [label(each) for each in informer.all()] == ["a@3"]
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    run_virtually(scenario())
