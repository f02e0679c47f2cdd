"""The service's memory and its file: all of a transaction or nothing, and what is read back."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest
from msgspec.structs import replace

from holdfast.heketi import checking, settings
from holdfast.heketi.database import Database, DatabaseError
from holdfast.heketi.entries import Brick, Cluster, Device, Node, Volume
from holdfast.heketi.state import State

CLUSTER = Cluster(id="c1")
NODE = Node(id="n1", cluster="c1", zone=1, manage="h", storage="s")
DEVICE = Device(id="d1", node="n1", name="/dev/sdb", total=1000, foreign=10)
VOLUME = Volume(id="v1", name="one", cluster="c1", size=1)
BRICK = Brick(
    id="b1", device="d1", volume="v1", size=90, pool_size=90, pool_metadata=10, position=0
)


def _state(path: Path) -> State:
    return State(Database(path / "db"))


def _fill(state: State) -> None:
    with state.transaction() as transaction:
        transaction.put(CLUSTER, NODE, DEVICE, VOLUME, BRICK)


def test_what_was_committed_is_there_after_a_restart_and_nothing_else(tmp_path: Path) -> None:
    state = _state(tmp_path)
    _fill(state)
    with pytest.raises(RuntimeError), state.transaction() as transaction:
        transaction.remove(BRICK, VOLUME)
        transaction.put(Cluster(id="c2"))
        raise RuntimeError
    for each in (state, None):
        current = each or _state(tmp_path)
        assert [cluster.id for cluster in current.all(Cluster)] == ["c1"]
        assert current.bricks_of(VOLUME) == [BRICK]
        assert current.used(DEVICE) == 110
        assert current.volume_named("c1", "one") == VOLUME
        current.close()


def test_a_commit_that_fails_leaves_the_memory_as_the_file_is(tmp_path: Path) -> None:
    state = _state(tmp_path)
    _fill(state)
    state._database._sql.execute("PRAGMA query_only=ON")
    with pytest.raises(DatabaseError), state.transaction() as transaction:
        transaction.remove(BRICK)
    assert state.used(DEVICE) == 110
    assert state.bricks_of(VOLUME) == [BRICK]


def test_two_services_never_share_a_file(tmp_path: Path) -> None:
    state = _state(tmp_path)
    with pytest.raises(DatabaseError, match="in use by another process"):
        Database(tmp_path / "db")
    state.close()


def test_a_file_of_something_else_is_refused_and_not_changed(tmp_path: Path) -> None:
    other = sqlite3.connect(tmp_path / "other")
    other.execute("CREATE TABLE mine (x)")
    other.close()
    with pytest.raises(DatabaseError, match="something else"):
        Database(tmp_path / "other")
    (tmp_path / "bolt").write_bytes(b"\0" * 16 + b"\xed\xda\x0c\xed" + b"\0" * 5000)
    with pytest.raises(DatabaseError, match="heketi db export"):
        Database(tmp_path / "bolt")


def test_what_leads_nowhere_is_found_and_repaired_and_never_breaks_reading(
    tmp_path: Path,
) -> None:
    state = _state(tmp_path)
    _fill(state)
    with state.transaction() as transaction:
        transaction.put(
            replace(BRICK, id="b2", device="gone"),
            replace(BRICK, id="b3", pending="nobody"),
        )
    found = checking.check(state)
    assert found["totalinconsistencies"] == 2
    assert "Brick b2 refers to unknown device gone" in found["bricks"]["inconsistencies"]
    report = checking.repair(state)
    assert len(report["repaired"]) == 2
    assert report["check"]["totalinconsistencies"] == 0
    assert [brick.id for brick in state.bricks_of(VOLUME)] == ["b1", "b3"]
    state.close()


def test_heketis_own_file_is_understood_and_variables_win(tmp_path: Path) -> None:
    path = tmp_path / "heketi.json"
    path.write_text(
        '{"_comment": "x", "port": "8081", "use_auth": true, "jwt": {"admin": {"key": "a"}, '
        '"user": {"key": "b"}}, "glusterfs": {"executor": "kube", "db": "/x/heketi.db", '
        '"brick_min_size_gb": 2, "allocator": "simple", "kubeexec": {"namespace": "store"}}}'
    )
    found = settings.load(path, {"HEKETI_HTTP_PORT": "9000", "HEKETI_KUBE_NAMESPACE": "other"})
    assert found.port == 9000
    assert found.executor.kind == "kubernetes"
    assert found.executor.values["namespace"] == "other"
    assert found.limits.brick_least == 2 * 1024 * 1024
    assert "key" not in repr(found) or "'a'" not in repr(found)


_KEYS = '"jwt":{"admin":{"key":"a"},"user":{"key":"b"}}'


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "is not JSON"),
        ("[]", "holds no object"),
        ("{}", "must both be set"),
        ('{"jwt":{"admin":{"key":"a"},"user":{"key":"b"}},"glusterfs":{"executor":"x"}}', "'x'"),
        (f'{{{_KEYS},"port":"p"}}', "whole number"),
        (f'{{{_KEYS},"port":"99999999"}}', "up to 65535"),
        (f'{{{_KEYS},"glusterfs":[1]}}', "glusterfs is .* an object"),
        ('{"jwt":"x"}', "jwt is 'x': write an object"),
        (f'{{{_KEYS},"default_state":"bogus"}}', "use normal, read-only, local-client"),
        (f'{{{_KEYS},"glusterfs":{{"loglevel":"x"}}}}', "loglevel is 'x'"),
        (f'{{{_KEYS},"glusterfs":{{"zone_checking":"Strict"}}}}', "use none, strict"),
        (
            f'{{{_KEYS},"glusterfs":{{"operation_retry_limits":{{"volume_create":"x"}}}}}}',
            "whole number",
        ),
        (
            f'{{{_KEYS},"enable_tls":true,"cert_file":"/no/cert","key_file":"/no/key"}}',
            "cert_file /no/cert and key_file /no/key cannot be used: No such file",
        ),
    ],
)
def test_settings_that_cannot_be_used_say_why(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "heketi.json"
    path.write_text(text)
    with pytest.raises(settings.SettingsError, match=said):
        settings.load(path, {})


def test_a_read_only_database_is_neither_changed_nor_worked_on(tmp_path: Path) -> None:
    path = tmp_path / "heketi.json"
    path.write_text(f'{{{_KEYS},"glusterfs":{{"db_read_only":true}}}}')
    found = settings.load(path, {})
    assert (found.default_state, found.resume, found.cleaner) == ("read-only", False, False)
