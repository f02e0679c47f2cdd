"""heketi-cli: global flags anywhere, texts as Heketi prints them, exit code 255 for refusals."""

from __future__ import annotations

import http.server
import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

import pytest

from holdfast import __version__
from holdfast.cli import main
from holdfast.cli.heketi_cli import commands, manifests, session, texts, volumes
from holdfast.cli.heketi_cli.connection import Failure

VOLUME = {
    "size": 10,
    "name": "vol_ab",
    "durability": {"type": "replicate", "replicate": {"replica": 3}, "disperse": {}},
    "snapshot": {"enable": True, "factor": 1.5},
    "id": "ab12cd34ef",
    "cluster": "c1",
    "mount": {
        "glusterfs": {
            "hosts": ["10.0.0.1", "10.0.0.2"],
            "device": "10.0.0.1:vol_ab",
            "options": {"backup-volfile-servers": "10.0.0.2"},
        }
    },
    "blockinfo": {},
    "bricks": [{}, {}, {}],
}


def test_global_flags_are_found_wherever_they_stand() -> None:
    flags, rest = session.split(
        ["volume", "--json", "list", "-s", "http://x", "--user=admin", "--secret", "k"]
    )
    assert rest == ["volume", "list"]
    assert flags == {"json": "true", "server": "http://x", "user": "admin", "secret": "k"}


def test_the_file_of_a_topology_is_not_the_global_flag() -> None:
    flags, rest = session.split(["topology", "load", "--json=file", "--user", "u"])
    assert rest == ["topology", "load", "--json=file"]
    assert flags == {"user": "u"}


def test_a_volume_is_printed_as_heketi_prints_it() -> None:
    assert texts.volume(VOLUME) == (
        "Name: vol_ab\nSize: 10\nVolume Id: ab12cd34ef\nCluster Id: c1\n"
        "Mount: 10.0.0.1:vol_ab\nMount Options: backup-volfile-servers=10.0.0.2\n"
        "Block: false\nFree Size: 0\nReserved Size: 0\nBlock Hosting Restriction: (none)\n"
        "Block Volumes: []\nDurability Type: replicate\nDistribute Count: 1\n"
        "Replica Count: 3\nSnapshot Factor: 1.50\n\n"
    )


def test_a_persistent_volume_is_named_after_the_volumes_id() -> None:
    text = manifests.persistent_volume(VOLUME, "heketi-storage-endpoints")
    assert text.startswith('{\n  "kind": "PersistentVolume",\n  "apiVersion": "v1",\n')
    assert '"name": "glusterfs-ab12cd34",\n    "creationTimestamp": null,' in text
    assert '"storage": "10Gi"' in text
    assert text.endswith('"persistentVolumeReclaimPolicy": "Retain"\n  },\n  "status": {}\n}\n')


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["volume", "create"], "Error: Missing volume size\n"),
        (["volume", "info"], "Error: Volume id missing\n"),
        (["device", "add", "--name=/dev/x"], "Error: Missing node id\n"),
        (["node", "settags", "x", "y"], "Error: expected colon (:) between tag name and value"),
        (["--nosuch"], "Error: No such option"),
        (["loglevel", "set"], "Error: missing log-level argument\n"),
        (
            ["volume", "create", "--size=1", "--persistent-volume"],
            "--persistent-volume-endpoint must be provided when using --persistent-volume\n"
            "Error: Missing endpoint\n",
        ),
        (["volume", "set-block-hosting-restriction", "locked"], "Error: Volume id missing\n"),
        (["nosuch"], "Error: No such command 'nosuch'"),
        (["topology", "load"], "Error: Missing configuration file\n"),
    ],
)
def test_wrong_usage_is_255_with_heketis_text(
    words: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main.main(["heketi-cli", *words]) == 255
    assert capsys.readouterr().err.startswith(said)


def test_a_server_that_is_not_there_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    assert main.main(["heketi-cli", "-s", "http://127.0.0.1:9", "volume", "list"]) == 255
    assert "Error: Get" in capsys.readouterr().err


def test_a_word_after_a_switch_is_not_its_value() -> None:
    tree = commands.command
    for words, settled in (
        (["node", "rmtags", "--all", "ID"], ["node", "rmtags", "--all=true", "ID"]),
        (["device", "delete", "--force-forget", "ID"], None),
        (["node", "settags", "ID", "--exact", "a:b"], None),
        (["cluster", "create", "--block=false"], ["cluster", "create", "--block=false"]),
        # The same name has a value in one command and none in another.
        (["device", "resync", "--cluster", "ID"], ["device", "resync", "--cluster=true", "ID"]),
        (["node", "add", "--cluster", "ID"], ["node", "add", "--cluster", "ID"]),
    ):
        expected = settled or [f"{word}=true" if word[:2] == "--" else word for word in words]
        assert session.settled(tree, words) == expected


@pytest.mark.parametrize("words", [[], ["cluster"], ["volume", "endpoint"], ["server", "mode"]])
def test_a_group_alone_shows_its_commands(
    words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main.main(["heketi-cli", *words]) == 0
    assert "Commands:" in capsys.readouterr().out


def test_the_version_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    for word in ("-v", "--version"):
        assert main.main(["heketi-cli", word]) == 0
        assert capsys.readouterr().out == f"heketi-cli {__version__}\n"


class _Answers(http.server.BaseHTTPRequestHandler):
    """A service with one volume, asked by somebody who is not its administrator."""

    calls: ClassVar[list[str]] = []

    def _answer(self) -> None:
        self.calls.append(f"{self.command} {self.path}")
        found = {
            "/volumes": {"volumes": [VOLUME["id"]]},
            f"/volumes/{VOLUME['id']}": VOLUME,
            "/clusters/ab": {"id": "ab", "nodes": []},
        }.get(self.path)
        if self.command == "POST":
            ok = self.path == "/clusters"
            self._send(201 if ok else 400, b'{"id": "ab"}' if ok else b"no glusterd there")
        elif self.path == "/topology" and "administrator" not in self.calls:
            self._send(401, b"Administrator access required\n")
        elif self.path == "/topology":
            self._send(200, b'{"clusters": []}')
        else:
            self._send(200, json.dumps(found or {}).encode())

    do_GET = do_POST = do_DELETE = _answer

    def _send(self, status: int, content: bytes) -> None:
        self.send_response(status)
        self.send_header("content-length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: object) -> None:
        """Nothing is printed."""


@pytest.fixture
def server() -> Iterator[str]:
    _Answers.calls.clear()
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Answers) as found:
        thread = threading.Thread(target=found.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{found.server_address[1]}"
        found.shutdown()
        thread.join()


def test_a_user_who_is_not_the_administrator_lists_volumes(
    server: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main.main(["heketi-cli", "-s", server, "volume", "list"]) == 0
    assert "Name:vol_ab" in capsys.readouterr().out


def test_a_cluster_none_of_whose_nodes_could_be_added_is_not_left(
    server: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    node = {"hostnames": {"manage": ["a"], "storage": ["b"]}, "zone": 1}
    file = tmp_path / "topology.json"
    file.write_text(json.dumps({"clusters": [{"nodes": [{"node": node, "devices": []}]}]}))
    _Answers.calls.append("administrator")
    assert main.main(["heketi-cli", "-s", server, "topology", "load", f"--json={file}"]) == 0
    assert "Unable to create node: no glusterd there" in capsys.readouterr().out
    assert _Answers.calls[-2:] == ["GET /clusters/ab", "DELETE /clusters/ab"]


def test_a_volume_whose_manifest_cannot_be_written_is_shown(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(Failure, match="Unable to write to file"):
        volumes._write(str(tmp_path / "no" / "file"), "the manifest\n")
    assert capsys.readouterr().out == "the manifest\n"


@pytest.mark.parametrize(
    ("document", "said"),
    [
        ([], "Expected `object`"),
        ({"clusters": "x"}, "at `$.clusters`"),
        ({"clusters": [{"nodes": [{"devices": ["/dev/a"]}]}]}, "missing required field `node`"),
        ({"clusters": [{"nodes": [{"node": {}}]}]}, "missing required field `hostnames`"),
        (
            {"clusters": [{"nodes": [{"node": {"hostnames": {"manage": []}}}]}]},
            "at `$.clusters[0].nodes[0].node.hostnames.manage`",
        ),
    ],
)
def test_a_topology_that_is_none_is_refused_before_anything_is_made(
    document: object, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "topology.json"
    file.write_text(json.dumps(document))
    words = ["heketi-cli", "-s", "http://127.0.0.1:9", "topology", "load", f"--json={file}"]
    assert main.main(words) == 255
    told = capsys.readouterr().err
    assert told.startswith("Error: Unable to parse config file: ") and said in told


def test_certificates_are_read_and_told_when_they_cannot_be(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags, _ = session.split(["-C", "a.pem", "volume", "list", "--tls-cert=b.pem,c.pem"])
    assert flags == {"cert": "a.pem,b.pem,c.pem"}
    none = tmp_path / "none.pem"
    none.write_text("nothing of that kind")
    for file, why in ((tmp_path / "no", "No such file"), (none, "failed to read cert file")):
        assert main.main(["heketi-cli", "-C", str(file), "volume", "list"]) == 255
        told = capsys.readouterr().err
        assert told.startswith(f"Error: failed to read cert file {file}: ") and why in told
