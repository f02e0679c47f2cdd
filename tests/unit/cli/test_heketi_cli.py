"""heketi-cli: global flags anywhere, texts as Heketi prints them, exit code 255 for refusals."""

from __future__ import annotations

import pytest

from holdfast.cli import main
from holdfast.cli.heketi_cli import manifests, session, texts

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
