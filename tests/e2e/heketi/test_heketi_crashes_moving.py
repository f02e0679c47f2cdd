"""The service is killed, -9, at steps of growing volumes and of moving their bricks.

Steps are counted until an operation ends before the one that would have killed it. All the while a
client has a file of the volume, which must be as it was after each kill.
"""

from __future__ import annotations

import itertools
import os
import random
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from .conftest import Heketi
from .test_heketi_crashes import until_killed

pytestmark = [pytest.mark.e2e, pytest.mark.root, pytest.mark.timeout(1800)]
KINDS = ("before", "during")
THREE = {"type": "replicate", "replicate": {"replica": 3}}
# A volume that grew this often makes place for a new one: every set of bricks costs processes.
GROWTHS = 4
# A kill costs seconds, most of them for healing. HOLDFAST_EVERY_STEP=1 leaves no step out.
STRIDE = 1 if os.environ.get("HOLDFAST_EVERY_STEP") else 7
# Fewer steps than this would mean that a service died for another reason than a step.
LEAST = 15


class Story:
    """A mounted volume with a file in it, through any number of killed services."""

    def __init__(self, heketi: Heketi, where: Path, how: str) -> None:
        self.heketi = heketi
        self._where = where
        self._how = how
        self._text = random.Random(1).randbytes(300_000)
        self.volume: dict[str, Any] = {}

    @contextmanager
    def volumes(self, name: str) -> Iterator[None]:
        """Make the volume, mount it, put the file there; in the end none of it is left."""
        body = {"size": 1, "name": name, "durability": THREE}
        self.volume = self.heketi.done("POST", "/volumes", body)
        self.heketi.cluster.mount(name, self._where)
        try:
            (self._where / "file").write_bytes(self._text)
            yield
        finally:
            self.heketi.cluster.unmount(self._where)
        self.heketi.done("DELETE", f"/volumes/{self.volume['id']}")

    def cut(self, step: int, method: str, path: str, body: Any = None) -> tuple[bool, int]:
        """Ask a service that dies at a step; whether it did, and what its successor answers."""
        self.heketi.stop()
        ticket = until_killed(self.heketi.start(step, self._how), method, path, body)
        died = self.heketi.ended()
        self.heketi.restart()
        answer = self.heketi.wait(ticket).status_code if ticket else 404
        end = time.monotonic() + 60
        while self.heketi.get("/operations")["total"]:
            assert time.monotonic() < end, f"step {step}: an operation stays"
            time.sleep(0.05)
        return died, answer

    def check(self) -> None:
        """Everybody knows the same bricks, nothing waits to be healed, the file is whole."""
        self.heketi.check_agreement()
        self.volume = self.heketi.get(f"/volumes/{self.volume['id']}")
        assert (self._where / "file").read_bytes() == self._text
        end = time.monotonic() + 60
        while left := self._unhealed():
            assert time.monotonic() < end, left
            time.sleep(0.2)

    def _unhealed(self) -> str:
        """What is missing until the file is in three bricks and no brick has anything to give."""
        said = self.heketi.cluster.run(
            1,
            "gluster",
            "--mode=script",
            "volume",
            "heal",
            self.volume["name"],
            "info",
            check=False,
        )
        counts = [line for line in said.splitlines() if line.startswith("Number of entries:")]
        files = [brick / "file" for brick in self.heketi.bricks(self.volume)]
        whole = [file for file in files if file.exists() and file.read_bytes() == self._text]
        idle = all(line.endswith(": 0") for line in counts)
        done = len(counts) == len(self.volume["bricks"]) and idle and len(whole) == 3
        return "" if done else f"{said}\nwhole: {whole}"


@pytest.fixture(params=KINDS)
def story(heketi: Heketi, tmp_path: Path, request: pytest.FixtureRequest) -> Story:
    """Two disks on every node."""
    heketi.load("m", "n")
    return Story(heketi, tmp_path / "mount", request.param)


def test_a_volume_grows_once_or_not_at_all_whenever_the_service_is_killed(story: Story) -> None:
    steps = itertools.count(1, STRIDE)
    died = True
    for number in itertools.count(1):
        with story.volumes(f"grows{number}"):
            for step in itertools.islice(steps, GROWTHS):
                path, before = f"/volumes/{story.volume['id']}/expand", story.volume
                died, answer = story.cut(step, "POST", path, {"expand_size": 1})
                story.check()
                grown = story.volume["size"] - before["size"]
                # Whoever has a ticket gets what was asked for; without one it may have grown.
                assert (answer, grown) in ((303, 1), (404, 0), (404, 1)), step
                assert len(story.volume["bricks"]) == len(before["bricks"]) + 3 * grown
                if not died:
                    break
        if not died:
            assert step >= LEAST, f"it takes more steps than {step}"
            return


def test_a_brick_is_moved_or_stays_whenever_the_service_is_killed(story: Story) -> None:
    with story.volumes("moves"):
        for step in itertools.count(1, STRIDE):
            before = sorted(brick["id"] for brick in story.volume["bricks"])
            brick = before[step % 3]
            died, answer = story.cut(step, "POST", f"/bricks/to-evict/{brick}")
            story.check()
            after = sorted(each["id"] for each in story.volume["bricks"])
            moved = brick not in after
            assert (answer, moved) in ((204, True), (404, True), (404, False)), step
            assert len(set(after) & set(before)) == 3 - moved
            if not died:
                assert step >= LEAST, f"it takes more steps than {step}"
                return


def test_a_device_is_emptied_whenever_the_service_is_killed(story: Story) -> None:
    heketi = story.heketi
    with story.volumes("first"):
        second = heketi.done("POST", "/volumes", {"size": 1, "name": "second", "durability": THREE})
        # Both volumes have a brick on each node; two bricks on one disk is what is emptied.
        for step in itertools.count(1, STRIDE):
            device = story.volume["bricks"][step % 3]["device"]
            path = f"/devices/{device}/state"
            heketi.done("POST", path, {"state": "offline"})
            died, answer = story.cut(step, "POST", path, {"state": "failed"})
            story.check()
            state = heketi.get(f"/devices/{device}")
            assert (answer, state["state"]) in (
                (204, "failed"),
                (404, "failed"),
                (404, "offline"),
            ), step
            if state["state"] == "failed":
                assert state["bricks"] == []
                heketi.done("POST", path, {"state": "offline"})
            heketi.done("POST", path, {"state": "online"})
            if not died:
                break
        assert step >= LEAST, f"it takes more steps than {step}"
        heketi.done("DELETE", f"/volumes/{second['id']}")
