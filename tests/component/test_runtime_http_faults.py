"""The HTTP client and servers that are not there, or are something else, or break off."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import traceback
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, cast

import pytest

from holdfast.api import errors, kinds
from holdfast.runtime.client import Object
from holdfast.runtime.http import HttpClient
from holdfast.testing.apiserver import TOKEN, api_server


async def first(changes: AsyncIterator[tuple[str, Object]]) -> tuple[str, Object]:
    """The first change of a watch, which is ended."""
    async with contextlib.aclosing(cast(AsyncGenerator[tuple[str, Object], None], changes)):
        return await anext(changes)


async def test_a_server_that_is_not_there_is_named(tmp_path: Path) -> None:
    socket = tmp_path / "nobody.sock"
    async with HttpClient("http://holdfast", socket=socket) as client:
        with pytest.raises(OSError, match=f"GET /api/v1/nodes/n1 at unix socket {socket}"):
            await client.get(kinds.NODE, "n1")
    async with HttpClient("http://user:pass-word@127.0.0.1:9") as client:
        with pytest.raises(OSError, match=r"at http://127\.0\.0\.1:9: ") as caught:
            await client.list(kinds.NODE)
        assert "pass-word" not in str(caught.value)
        with pytest.raises(OSError, match=r"watch /api/v1/nodes at http://127\.0\.0\.1:9: "):
            await first(client.watch(kinds.NODE, revision="1"))


@asynccontextmanager
async def answering(directory: Path, *parts: bytes) -> AsyncIterator[HttpClient]:
    """A client of a server that sends these bytes to everybody and hangs up."""

    handlers: list[asyncio.Task[Any] | None] = []

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        handlers.append(asyncio.current_task())
        # The client may leave in the middle of an answer that it does not like.
        with contextlib.suppress(ConnectionError):
            await reader.readuntil(b"\r\n\r\n")
            for part in parts:
                writer.write(part)
                await writer.drain()
                await asyncio.sleep(0.01)
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()

    socket = directory / "odd.sock"
    server = await asyncio.start_unix_server(answer, socket)
    try:
        async with HttpClient("http://holdfast", token=TOKEN, socket=socket) as client:
            yield client
    finally:
        server.close()
        await server.wait_closed()
        await asyncio.gather(*filter(None, handlers))


HEAD = b"HTTP/1.1 %b\r\nConnection: close\r\n\r\n"
OK = HEAD % b"200 OK"
LINE = b'{"type":"ADDED","object":{"metadata":{"name":"n","resourceVersion":"2"}}}\n'


async def test_a_page_of_some_other_server_is_an_error_that_says_so(tmp_path: Path) -> None:
    async with answering(tmp_path, OK, b"<html>\nWelcome!</html>") as client:
        with pytest.raises(OSError, match=r"odd\.sock answered something that is not JSON"):
            await client.get(kinds.NODE, "n")
        with pytest.raises(OSError, match="not JSON"):
            await first(client.watch(kinds.NODE, revision="1"))


async def test_a_proxys_error_page_is_a_status_error_of_its_code(tmp_path: Path) -> None:
    page = b"<html>Service \xff Unavailable</html>"
    async with answering(tmp_path, HEAD % b"503 Service Unavailable", page) as client:
        with pytest.raises(errors.ServiceUnavailable, match="Unavailable"):
            await client.get(kinds.NODE, "n")
        with pytest.raises(errors.ServiceUnavailable):
            await first(client.watch(kinds.NODE, revision="1"))


async def test_an_error_line_ends_a_watch_with_that_error(tmp_path: Path) -> None:
    line = (
        b'{"type":"ERROR","object":{"kind":"Status","code":410,"reason":"Expired",'
        b'"message":"too old"}}\n'
    )
    # Cut where no line ends.
    async with answering(tmp_path, OK, LINE + line[:20], line[20:]) as client:
        watch = aiter(client.watch(kinds.NODE, revision="1"))
        assert (await anext(watch))[0] == "ADDED"
        with pytest.raises(errors.Expired, match="too old"):
            await anext(watch)


async def test_a_watch_cut_off_in_the_middle_of_a_line_gives_the_whole_lines(
    tmp_path: Path,
) -> None:
    async with answering(tmp_path, OK, LINE + LINE[:30]) as client:
        seen = [event async for event in client.watch(kinds.NODE, revision="1")]
        assert [type for type, _ in seen] == ["ADDED"]


async def test_a_watch_cut_off_in_the_middle_of_a_chunk_is_an_os_error(tmp_path: Path) -> None:
    head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    async with answering(tmp_path, head, b"%x\r\n%b\r\n" % (len(LINE), LINE), b"ff\r\n{") as client:
        watch = aiter(client.watch(kinds.NODE, revision="1"))
        assert (await anext(watch))[0] == "ADDED"
        with pytest.raises(OSError, match=r"watch /api/v1/nodes at unix socket .*odd\.sock"):
            await anext(watch)


async def test_the_token_is_in_no_error_and_in_no_log(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    secret = "very-secret-token"
    texts = []

    async def collect(client: HttpClient) -> None:
        for attempt in (client.get(kinds.NODE, "n"), first(_watch(client))):
            with pytest.raises((errors.StatusError, OSError)) as caught:
                await attempt
            texts.append("".join(traceback.format_exception(caught.value)))
            texts.append(repr(caught.value))

    async with api_server(tmp_path) as server:
        wrong = HttpClient("http://holdfast", token=secret, socket=server.socket)
        async with wrong:
            with pytest.raises(errors.Unauthorized):
                await wrong.get(kinds.NODE, "n")
            await collect(wrong)
    async with HttpClient("http://holdfast", token=secret, socket=tmp_path / "none") as client:
        await collect(client)
    assert len(texts) == 8 and secret not in "".join(texts)
    assert secret not in "".join(f"{r.getMessage()} {vars(r)}" for r in caplog.records)


def _watch(client: HttpClient) -> AsyncIterator[tuple[str, Object]]:
    return client.watch(kinds.NODE, revision="1")
