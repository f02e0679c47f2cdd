"""heketi-cli and the REST API on a real three-node GlusterFS cluster, used as administrators do."""

from __future__ import annotations

import json
import os
import re
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from .conftest import ENV, Heketi

pytestmark = [pytest.mark.e2e, pytest.mark.root, pytest.mark.timeout(400)]
THREE = {"type": "replicate", "replicate": {"replica": 3}}


def test_from_a_topology_file_to_a_file_in_all_bricks_and_back(
    heketi: Heketi, tmp_path: Path
) -> None:
    said = heketi.load("sdb")
    assert re.match(r"Creating cluster \.\.\. ID: [0-9a-f]{32}\n\tAllowing file volumes", said)
    assert said.count("Adding device") == said.count("OK\n") == 3
    again = heketi.load("sdb")
    assert again.count("Found node") == again.count("Found device") == 3
    manifest = json.loads(
        heketi.cli(
            "volume",
            "create",
            "--size=1",
            "--persistent-volume",
            "--persistent-volume-endpoint=heketi-storage-endpoints",
        )
    )
    assert manifest["spec"]["glusterfs"]["endpoints"] == "heketi-storage-endpoints"
    by_request = heketi.done("POST", "/volumes", {"size": 1, "durability": THREE})
    name = manifest["spec"]["glusterfs"]["path"]
    assert heketi.cluster.volumes() == sorted([name, by_request["name"]])
    where = tmp_path / "mount"
    heketi.cluster.mount(name, where)
    try:
        (where / "index.html").write_text("Hello World from GlusterFS!!!\n")
    finally:
        heketi.cluster.unmount(where)
    key = next(
        key
        for key in heketi.get("/volumes")["volumes"]
        if manifest["metadata"]["name"] == f"glusterfs-{key[:8]}"
    )
    bricks = heketi.bricks(heketi.get(f"/volumes/{key}"))
    texts = [(brick / "index.html").read_text() for brick in bricks]
    assert texts == ["Hello World from GlusterFS!!!\n"] * 3
    shown = heketi.cli("topology", "info")
    assert f"\n\tName: {name}\n\tSize: 1\n\tId: {key}\n" in shown
    assert shown.count("\t\t\tKnown Paths: ") == 3
    assert heketi.cli("volume", "list").count("\n") == 2
    heketi.check_agreement()
    _delete_everything(heketi)


def _delete_everything(heketi: Heketi) -> None:
    """Volumes, then each device, each node, and the cluster; out of order it is refused."""
    cluster = heketi.get("/clusters")["clusters"][0]
    found = heketi.get(f"/clusters/{cluster}")
    assert heketi.ask("DELETE", f"/clusters/{cluster}").status_code == 409
    for key in found["volumes"]:
        assert heketi.cli("volume", "delete", key) == f"Volume {key} deleted\n"
    for node in found["nodes"]:
        assert heketi.ask("DELETE", f"/nodes/{node}").status_code == 409
        device = heketi.get(f"/nodes/{node}")["devices"][0]["id"]
        assert "not in failed state" in heketi.cli("device", "delete", device, code=255)
        heketi.cli("device", "disable", device)
        heketi.cli("device", "remove", device)
        assert heketi.cli("device", "delete", device) == f"Device {device} deleted\n"
    assert heketi.cluster.images() == heketi.cluster.mounted() == []
    assert heketi.cluster.fstab() == ""
    for node in found["nodes"]:
        heketi.cli("node", "delete", node)
    # The last node has nobody left to be detached by; the others are out of the pool.
    for number in (2, 3):
        heketi.cluster.run(
            1, "gluster", "--mode=script", "peer", "probe", heketi.cluster.address(number)
        )
    assert heketi.cli("cluster", "delete", cluster) == f"Cluster {cluster} deleted\n"


def test_a_directory_with_data_in_it_is_never_taken_as_a_device(heketi: Heketi) -> None:
    heketi.load("sdb")
    precious = heketi.cluster.disk(1) / "full"
    precious.mkdir(exist_ok=True)
    (precious / "precious").write_text("data")
    cluster = heketi.get("/clusters")["clusters"][0]
    node = next(
        key
        for key in heketi.get(f"/clusters/{cluster}")["nodes"]
        if heketi.get(f"/nodes/{key}")["hostnames"]["manage"] == [heketi.cluster.address(1)]
    )
    for destroy in (False, True):
        body = {"node": node, "name": str(precious), "destroydata": destroy}
        result = heketi.wait(heketi.ask("POST", "/devices", body).headers["location"])
        assert result.status_code == 500
        assert "the directory is not empty (precious)" in result.text
    assert [path.name for path in precious.iterdir()] == ["precious"]
    assert len(heketi.get(f"/nodes/{node}")["devices"]) == 1


def test_a_device_is_evacuated_while_the_volume_keeps_its_files(
    heketi: Heketi, tmp_path: Path
) -> None:
    heketi.load("sdb", "sdc")
    volume = heketi.done("POST", "/volumes", {"size": 1, "name": "moved", "durability": THREE})
    where = tmp_path / "mount"
    heketi.cluster.mount("moved", where)
    try:
        for number in range(20):
            (where / f"file{number}").write_text(str(number))
        device = volume["bricks"][0]["device"]
        heketi.cli("device", "disable", device)
        assert heketi.cli("device", "remove", device) == f"Device {device} is now removed\n"
        after = heketi.get("/volumes/" + volume["id"])
        assert device not in [brick["device"] for brick in after["bricks"]]
        heketi.check_agreement()
        end = time.monotonic() + 60
        while not all((brick / "file19").exists() for brick in heketi.bricks(after)):
            assert time.monotonic() < end, "the new brick was not healed"
            time.sleep(0.2)
        assert (where / "file7").read_text() == "7"
    finally:
        heketi.cluster.unmount(where)


def test_both_copies_asked_to_move_at_once_leave_every_file_whole(
    heketi: Heketi, tmp_path: Path
) -> None:
    heketi.load("sdb", "sdc")
    two = {"type": "replicate", "replicate": {"replica": 2}}
    volume = heketi.done("POST", "/volumes", {"size": 1, "name": "pair", "durability": two})
    where = tmp_path / "mount"
    heketi.cluster.mount("pair", where)
    try:
        for number in range(200):
            (where / f"file{number}").write_text(f"{number} " * 20000)
        asked = [
            heketi.ask("POST", f"/bricks/to-evict/{brick['id']}", {}) for brick in volume["bricks"]
        ]
        ended = [heketi.wait(answer.headers["location"]) for answer in asked]
        # The second may go as well, once the first has everything; before that it is refused.
        assert ended[0].status_code == 204, ended[0].text
        assert ended[1].status_code == 204 or "data to be healed" in ended[1].text
        for number in range(200):
            assert (where / f"file{number}").read_text() == f"{number} " * 20000
        heketi.check_agreement()
    finally:
        heketi.cluster.unmount(where)


def test_volumes_of_all_kinds_grow_and_go(heketi: Heketi) -> None:
    heketi.load("sdb", "sdc")
    kinds: tuple[dict[str, Any], ...] = (
        {"size": 2, "durability": {"type": "none"}},
        {"size": 2, "durability": {"type": "disperse", "disperse": {"data": 2, "redundancy": 1}}},
        {
            "size": 1,
            "durability": THREE,
            "glustervolumeoptions": ["user.heketi.arbiter true"],
            "gid": 2000,
        },
    )
    for body in kinds:
        heketi.done("POST", "/volumes", body)
    heketi.check_agreement()
    volume = heketi.get("/volumes/" + heketi.get("/volumes")["volumes"][0])
    grown = heketi.done("POST", f"/volumes/{volume['id']}/expand", {"expand_size": 2})
    assert len(grown["bricks"]) == 2 * len(volume["bricks"])
    heketi.check_agreement()
    examined = heketi.get("/internal/state/examine/gluster")
    assert examined["report"] == []


def test_a_lost_database_is_rebuilt_from_the_cluster(heketi: Heketi, tmp_path: Path) -> None:
    heketi.load("sdb", "sdc")
    for body in (
        {"size": 1, "name": "first", "durability": THREE, "gid": 2345},
        {
            "size": 2,
            "name": "second",
            "durability": {"type": "disperse", "disperse": {"data": 2, "redundancy": 1}},
        },
    ):
        heketi.done("POST", "/volumes", body)
    before = {key: heketi.get(f"/volumes/{key}") for key in heketi.get("/volumes")["volumes"]}
    heketi.stop()
    for path in heketi.directory.glob("heketi.db*"):
        path.unlink()
    heketi.start()
    assert heketi.get("/volumes")["volumes"] == []
    nodes = [heketi.cluster.address(node) for node in (1, 2, 3)]
    assert "volumes: 2" in heketi.cli("db", "rebuild", *nodes)
    heketi.check_agreement()
    for key, old in before.items():
        new = heketi.get(f"/volumes/{key}")
        for what in ("name", "size", "gid"):
            assert new.get(what) == old.get(what)
        assert new["durability"]["type"] == old["durability"]["type"]
        assert sorted(brick["id"] for brick in new["bricks"]) == sorted(
            brick["id"] for brick in old["bricks"]
        )


CLIENT = os.environ.get("HOLDFAST_HEKETI_CLI", "")


@pytest.mark.skipif(not CLIENT, reason="name Heketi's own heketi-cli in HOLDFAST_HEKETI_CLI")
def test_heketis_own_client_does_its_work_here(heketi: Heketi) -> None:
    def client(*words: str) -> str:
        env = {**ENV, "HEKETI_CLI_SERVER": heketi.url}
        done = subprocess.run([CLIENT, *words], env=env, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout

    path = heketi.directory / "topology.json"
    path.write_text(json.dumps(heketi.topology("sdb")))
    assert client("topology", "load", f"--json={path}").count("OK\n") == 3
    made = client("volume", "create", "--size=1", "--name=theirs")
    key = re.search(r"Volume Id: (.*)", made)
    assert key is not None
    heketi.check_agreement()
    for words in (("topology", "info"), ("volume", "list"), ("volume", "info", key[1])):
        assert client(*words) == heketi.cli(*words)
    client("volume", "delete", key[1])
    heketi.check_agreement()
