"""The sections of `holdfast.toml` that configure storage systems."""

from __future__ import annotations

from pathlib import Path

import pytest

from holdfast.server import config


def load(directory: Path, text: str) -> config.Config:
    (directory / config.FILE_NAME).write_text(text)
    return config.load(directory)


def test_sections_are_grouped_by_kind_and_name(tmp_path: Path) -> None:
    settings = load(
        tmp_path,
        '[rbd.main]\nmonitors = ["10.0.0.1"]\n[rbd.main.pools]\nfast = "ssd"\n[nfs.files]\na = 1\n',
    )
    assert settings.storage == {
        "rbd": {"main": {"monitors": ["10.0.0.1"], "pools": {"fast": "ssd"}}},
        "nfs": {"files": {"a": 1}},
    }


def test_paths_are_relative_to_the_data_directory(tmp_path: Path) -> None:
    settings = load(
        tmp_path,
        '[rbd.a]\nkeyring = "ceph.keyring"\nuser = "admin"\nother = "./x"\n'
        '[cinder.b]\n"ca-file" = "/etc/ca.pem"\n[vsphere.c.tls]\nca_file = "ca.pem"\n',
    )
    assert settings.storage["rbd"]["a"] == {
        "keyring": f"{tmp_path}/ceph.keyring",
        "user": "admin",
        "other": f"{tmp_path}/x",
    }
    assert settings.storage["cinder"]["b"] == {"ca-file": "/etc/ca.pem"}
    assert settings.storage["vsphere"]["c"] == {"tls": {"ca_file": f"{tmp_path}/ca.pem"}}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('[rbd]\nmonitors = "m"\n', r"rbd.monitors is no section.*write \[rbd.NAME\]"),
        ("rbd = 1\n", r"rbd is a section: write \[rbd.NAME\]"),
        ("[ceph.a]\n", "unknown key ceph"),
        ('[gluster.""]\n', "is no name"),
    ],
)
def test_what_is_no_section_is_refused(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(config.ConfigError, match=said):
        load(tmp_path, text)


def test_what_is_configured_is_not_shown(tmp_path: Path) -> None:
    settings = load(tmp_path, '[cinder.a]\npassword = "hunter2"\n')
    assert "hunter2" not in repr(settings)
