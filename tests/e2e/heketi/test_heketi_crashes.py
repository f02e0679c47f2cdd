"""The service is killed, -9, at every step of making and deleting volumes on real bricks.

One creation of three bricks and its deletion are some thirty commands and commits each. In every
round both are cut at the same step, once before it and once while it runs.
"""

from __future__ import annotations

import contextlib
from typing import Any

import httpx2
import pytest

from .conftest import Heketi

pytestmark = [pytest.mark.e2e, pytest.mark.root]
STEPS = range(1, 31)


def until_killed(heketi: Heketi, method: str, path: str, body: Any = None) -> str:
    """The ticket, "" when the service died before it gave one; or the operation ended."""
    ticket = ""
    with contextlib.suppress(httpx2.HTTPError):
        answer = heketi.ask(method, path, body)
        assert answer.status_code == 202, answer.text
        ticket = answer.headers["location"]
        heketi.wait(ticket)
    return ticket


@pytest.mark.timeout(1500)
@pytest.mark.parametrize("first", ["before", "during"])
def test_after_a_kill_at_any_step_database_glusterd_and_bricks_agree(
    heketi: Heketi, first: str
) -> None:
    heketi.load("a", "b")
    # A volume that stays keeps the self-heal daemons running, and must not suffer.
    heketi.done("POST", "/volumes", {"size": 1, "name": "stays", "durability": _THREE})
    second = "during" if first == "before" else "before"
    for step in STEPS:
        body = {"size": 1, "name": f"round{step}", "durability": _THREE}
        heketi.stop()
        ticket = until_killed(heketi.start(step, first), "POST", "/volumes", body)
        heketi.restart()
        made = heketi.wait(ticket).status_code if ticket else 404
        if made != 303:
            # The client never heard of it: it asks again, and gets one volume, not two.
            assert made == 404, (step, heketi.wait(ticket).text)
            heketi.done("POST", "/volumes", body)
        heketi.check_agreement()
        volume = next(
            found
            for key in heketi.get("/volumes")["volumes"]
            if (found := heketi.get(f"/volumes/{key}"))["name"] == f"round{step}"
        )
        heketi.stop()
        path = f"/volumes/{volume['id']}"
        ticket = until_killed(heketi.start(step, second), "DELETE", path)
        heketi.restart()
        gone = heketi.wait(ticket).status_code if ticket else 404
        if gone != 204 and heketi.ask("GET", path).status_code == 200:
            heketi.done("DELETE", path)
        heketi.check_agreement()
        assert heketi.cluster.volumes() == ["stays"]


_THREE = {"type": "replicate", "replicate": {"replica": 3}}
