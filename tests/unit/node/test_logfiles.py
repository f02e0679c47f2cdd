"""Reading container logs: cut, stamped, joined from parts, over two files."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from holdfast.node import logfiles, shim
from holdfast.node.logfiles import Wanted

STAMP = "2026-11-21T08:00:0{}.000000000Z"


def write(path: Path, *lines: str) -> None:
    with path.open("a") as stream:
        stream.writelines(
            f"{STAMP.format(line[0])} stdout {line[1]} {line[2:]}\n" for line in lines
        )


def text(path: Path, **wanted: object) -> bytes:
    return b"".join(logfiles.read(path, Wanted(**wanted)))  # type: ignore[arg-type]


@pytest.fixture
def log(tmp_path: Path) -> Path:
    path = tmp_path / "log"
    write(logfiles.older(path), "0Fzero")
    write(path, "1Fone", "2Ptw", "2Fo", "3F", "4Fa b")
    return path


def test_everything_comes_back_byte_for_byte(log: Path) -> None:
    assert text(log) == b"zero\none\ntwo\n\na b\n"


def test_an_unfinished_line_stays_unfinished(log: Path) -> None:
    write(log, "5Ptail")
    assert text(log, tail=1) == b"tail"
    assert text(log, tail=2) == b"a b\ntail"


@pytest.mark.parametrize(
    ("count", "expected"),
    [
        (0, b""),
        (1, b"a b\n"),
        (2, b"\na b\n"),
        (3, b"two\n\na b\n"),
        (5, b"zero\none\ntwo\n\na b\n"),
        (99, b"zero\none\ntwo\n\na b\n"),
    ],
)
def test_the_tail_counts_what_was_printed_as_lines(log: Path, count: int, expected: bytes) -> None:
    assert text(log, tail=count) == expected


def test_only_what_is_new_enough_is_given(log: Path) -> None:
    assert text(log, since="2026-11-21T08:00:03") == b"\na b\n"


def test_a_limit_cuts_in_the_middle(log: Path) -> None:
    assert text(log, limit=6) == b"zero\no"


def test_times_stand_in_front_when_asked_for(log: Path) -> None:
    assert text(log, tail=1, timestamps=True) == b"2026-11-21T08:00:04.000000000Z a b\n"


def test_a_long_log_is_read_from_its_end(tmp_path: Path) -> None:
    path = tmp_path / "log"
    write(path, *(f"1F{number}" for number in range(20_000)))
    assert text(path, tail=3) == b"19997\n19998\n19999\n"


async def test_following_goes_on_until_the_container_has_ended(log: Path) -> None:
    over = asyncio.Event()
    seen = b""

    async def follow() -> None:
        nonlocal seen
        async for piece in logfiles.follow(log, Wanted(tail=1), over.is_set, over.wait):
            seen += piece

    async def until(expected: bytes) -> None:
        for _ in range(500):
            if seen == expected:
                return
            await asyncio.sleep(0.01)
        assert seen == expected

    following = asyncio.create_task(follow())
    await until(b"a b\n")
    write(log, "5Fnew")
    await until(b"a b\nnew\n")
    await asyncio.to_thread(log.rename, logfiles.older(log))
    write(log, "6Fnext file")
    await until(b"a b\nnew\nnext file\n")
    write(log, "7Flast")
    over.set()
    await asyncio.wait_for(following, 5)
    assert seen.endswith(b"last\n")


def test_the_companion_writes_what_the_reader_reads(tmp_path: Path) -> None:
    path = tmp_path / "log"
    log = shim.Log(str(path))
    long = b"x" * (shim.LINE_LIMIT * 2 + 5)
    log.write(shim.STDOUT, b"a\nb")
    log.write(shim.STDERR, b"error\n")
    log.write(shim.STDOUT, b"c\n" + long + b"\nend")
    log.close()
    assert text(path) == b"a\nerror\nbc\n" + long + b"\nend"
    assert text(path, tail=2) == long + b"\nend"


def test_a_full_log_is_set_aside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shim, "LOG_LIMIT", 200)
    path = tmp_path / "log"
    log = shim.Log(str(path))
    for number in range(12):
        log.write(shim.STDOUT, b"line %d\n" % number)
    log.close()
    assert logfiles.older(path).exists() and path.stat().st_size < 400
    assert text(path, tail=2) == b"line 10\nline 11\n"
