"""The users of a real `holdfast up`: their kubeconfigs, and what kubectl says about them."""

from __future__ import annotations

import stat
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from machine import NODE, Failed, Machine, eventually

pytestmark = pytest.mark.kubectl("1.28")

KINDS = ("admin", "view", f"node:{NODE}")


@pytest.fixture(scope="module")
def users(shared: Machine, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Path]]:
    """A kubeconfig of each user, by what `--user` takes."""
    directory = tmp_path_factory.mktemp("users")
    found = {}
    for user in KINDS:
        path = directory / user.replace(":", "-")
        path.write_text(shared.holdfast("kubeconfig", "--user", user).stdout)
        found[user] = path
    yield found


def _kubectl(shared: Machine, kubeconfig: Path, *arguments: str) -> str:
    return shared.kubectl("--kubeconfig", str(kubeconfig), *arguments, check=False)


@pytest.mark.parametrize(
    ("user", "name", "group"),
    [
        ("admin", "kubernetes-admin", "system:masters"),
        ("view", "holdfast:view", "holdfast:readers"),
        (f"node:{NODE}", f"system:node:{NODE}", "system:nodes"),
    ],
)
def test_whoami_knows_every_user(
    shared: Machine, users: dict[str, Path], user: str, name: str, group: str
) -> None:
    said = _kubectl(shared, users[user], "auth", "whoami").splitlines()
    rows = dict(line.split(maxsplit=1) for line in said)
    assert rows["Username"] == name
    assert rows["Groups"] == f"[{group} system:authenticated]"


@pytest.mark.parametrize(
    ("user", "question", "answer"),
    [
        ("admin", "create pods", "yes"),
        ("admin", "get secrets", "yes"),
        ("view", "list pods", "yes"),
        ("view", "create pods", "no"),
        ("view", "get secrets", "no"),
        ("view", "get pods --subresource=log", "yes"),
        ("view", "create pods --subresource=exec", "no"),
        ("view", "get /metrics", "yes"),
        (f"node:{NODE}", "create events", "yes"),
        (f"node:{NODE}", "list storageclasses", "no"),
    ],
)
def test_can_i_answers(
    shared: Machine, users: dict[str, Path], user: str, question: str, answer: str
) -> None:
    said = _kubectl(shared, users[user], "auth", "can-i", *question.split())
    assert answer in said.split()


def test_can_i_lists(shared: Machine, users: dict[str, Path]) -> None:
    said = _kubectl(shared, users["view"], "auth", "can-i", "--list")
    rows = [line.split() for line in said.splitlines()]
    assert ["persistentvolumeclaims", "[]", "[]", "[get", "list", "watch]"] in rows
    assert not [row for row in rows if row[0] == "secrets"]
    everything = _kubectl(shared, users["admin"], "auth", "can-i", "--list")
    assert ["*.*", "[]", "[]", "[*]"] in [line.split() for line in everything.splitlines()]


def test_a_reader_gets_everything_but_secrets(shared: Machine, users: dict[str, Path]) -> None:
    view = users["view"]
    assert NODE in _kubectl(shared, view, "get", "nodes")
    assert "Error" not in _kubectl(shared, view, "get", "all,pvc,pv,sc,events", "-A")
    assert _kubectl(shared, view, "get", "secrets").strip() == (
        'Error from server (Forbidden): secrets is forbidden: User "holdfast:view" cannot list '
        'resource "secrets" in API group "" in the namespace "default"'
    )
    assert "cannot create resource" in _kubectl(shared, view, "create", "configmap", "c")
    assert "cannot delete resource" in _kubectl(shared, view, "delete", "node", NODE)


@pytest.mark.root
@pytest.mark.program("bwrap")
def test_a_reader_reads_logs_and_enters_nothing(shared: Machine, users: dict[str, Path]) -> None:
    container = {"name": "main", "image": "x", "command": ["sh", "-c", "echo hi; sleep 1000"]}
    spec = {"terminationGracePeriodSeconds": 1, "containers": [container]}
    shared.apply({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"}, "spec": spec})
    shared.wait_for_phase("pod", "p", "Running")
    eventually(lambda: _kubectl(shared, users["view"], "logs", "p") == "hi\n")
    for verb in (("exec", "p", "--", "true"), ("attach", "p")):
        said = _kubectl(shared, users["view"], *verb)
        assert "is forbidden" in said and f'resource "pods/{verb[0]}"' in said


def test_tokens_are_for_their_owner_only_and_outlive_a_restart(running: Machine) -> None:
    tokens = running.data_dir / "pki" / "tokens"
    assert stat.S_IMODE(tokens.stat().st_mode) == 0o600
    before = running.holdfast("kubeconfig", "--user", "view").stdout
    running.stop()
    # A data directory from before there were readers and nodes, on which there is a second node.
    tokens.write_text(
        tokens.read_text().splitlines()[0].replace("kubernetes-admin", "admin") + "\n"
    )
    with pytest.raises(Failed, match="there is no token for view"):
        running.holdfast("kubeconfig", "--user", "view")
    running.start("--nodes", "2")
    assert running.holdfast("kubeconfig", "--user", "view").stdout != before
    assert running.holdfast("kubeconfig", "--user", f"node:{NODE}-2").stdout
    assert "kubernetes-admin" in running.kubectl("auth", "whoami")


@pytest.mark.root
@pytest.mark.program("bwrap")
def test_logs_are_read_when_there_are_several_nodes(
    new_machine: Callable[[], Machine],
) -> None:
    machine = new_machine().start("--nodes", "2")
    container = {"name": "main", "image": "x", "command": ["sh", "-c", "echo hi; sleep 1000"]}
    spec = {"terminationGracePeriodSeconds": 1, "containers": [container]}
    machine.apply({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"}, "spec": spec})
    machine.wait_for_phase("pod", "p", "Running")
    eventually(lambda: machine.kubectl("logs", "p") == "hi\n")


@pytest.mark.parametrize("user", ["someone", "node:"])
def test_a_user_that_cannot_be_is_refused(shared: Machine, user: str) -> None:
    done = shared.holdfast("kubeconfig", "--user", user, check=False)
    assert (done.returncode, "Invalid value for --user" in done.stderr) == (2, True)
