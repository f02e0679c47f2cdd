"""Settings: defaults, the file, what flags override, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.server import config


def _write(directory: Path, text: str) -> None:
    (directory / config.FILE_NAME).write_text(text)


def test_without_a_file_and_flags_the_defaults_hold(tmp_path: Path) -> None:
    settings = config.load(tmp_path)
    assert settings.data_dir == tmp_path
    assert settings.listen == config.Listen("127.0.0.1", 6443, fallback=True)
    assert settings.log == config.Log("info", "text")
    assert settings.node_name == config.default_node_name()


def test_the_file_changes_defaults(tmp_path: Path) -> None:
    _write(
        tmp_path,
        '[listen]\naddress = "0.0.0.0:8443"\n[node]\nname = "store-1"\n'
        '[log]\nlevel = "debug"\nformat = "json"\n',
    )
    settings = config.load(tmp_path)
    assert settings.listen == config.Listen("0.0.0.0", 8443, fallback=False)
    assert settings.node_name == "store-1"
    assert settings.log == config.Log("debug", "json")


def test_a_flag_wins_over_the_file(tmp_path: Path) -> None:
    _write(tmp_path, '[node]\nname = "from-file"\n[listen]\naddress = "127.0.0.1:1"\n')
    settings = config.load(tmp_path, node_name="from-flag", listen="127.0.0.1:0")
    assert settings.node_name == "from-flag"
    assert settings.listen.port == 0


def test_a_flag_hides_a_bad_value_of_the_file(tmp_path: Path) -> None:
    _write(tmp_path, '[node]\nname = "NOT VALID"\n')
    assert config.load(tmp_path, node_name="good").node_name == "good"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('[listn]\naddress = "x"\n', "unknown key listn; did you mean listen?"),
        ('[log]\nlevle = "info"\n', "unknown key log.levle; did you mean log.level?"),
        ('[node]\nzzzzzz = "info"\n', "unknown key node.zzzzzz; known here: node.name"),
        ('listen = "127.0.0.1:0"\n', "listen is a section"),
        ("[node]\nname = 7\n", "node.name: 7 is not a string"),
        ('[node]\nname = "Upper"\n', "node.name: 'Upper' is no node name"),
        ('[log]\nlevel = "loud"\n', "log.level: 'loud' is not one of debug, info"),
        ('[listen]\naddress = "6443"\n', "listen.address: '6443' is no address to listen on"),
        ("[listen\n", "is no TOML: "),
    ],
)
def test_a_mistake_in_the_file_names_the_place(tmp_path: Path, text: str, expected: str) -> None:
    _write(tmp_path, text)
    with pytest.raises(config.ConfigError) as caught:
        config.load(tmp_path)
    assert str(tmp_path / config.FILE_NAME) in str(caught.value)
    assert expected in str(caught.value)


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [
        ("127.0.0.1:0", "127.0.0.1", 0),
        (":8443", "127.0.0.1", 8443),
        ("[::1]:6443", "::1", 6443),
        ("storage.example:443", "storage.example", 443),
    ],
)
def test_an_address_is_read(text: str, host: str, port: int) -> None:
    assert config.parse_listen(text) == config.Listen(host, port, fallback=False)


@pytest.mark.parametrize(
    "text",
    ["", "6443", "127.0.0.1", "127.0.0.1:", "1.2.3.4:x", "h:70000", "::1:6443", "h:-1", "h:¹"],
)
def test_what_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(config.ConfigError):
        config.parse_listen(text)


def test_an_ipv6_address_is_printed_in_brackets() -> None:
    assert str(config.Listen("::1", 6443)) == "[::1]:6443"


@given(st.text())
def test_every_host_name_becomes_a_valid_node_name(hostname: str) -> None:
    name = config.default_node_name(hostname)
    assert config.load(Path("nowhere"), node_name=name).node_name == name
    assert len(name) <= 63


def test_a_host_name_is_shortened_and_lowered() -> None:
    assert config.default_node_name("Storage_01.example.com") == "storage-01"


def test_the_environment_chooses_the_data_directory(tmp_path: Path) -> None:
    assert config.default_data_dir({config.DATA_DIR_VARIABLE: str(tmp_path)}) == tmp_path


def test_a_user_keeps_state_in_the_home_directory(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    assert config.default_data_dir({"XDG_DATA_HOME": "/home/u/.data"}) == Path(
        "/home/u/.data/holdfast"
    )
    assert config.default_data_dir({}) == Path("~/.local/share/holdfast").expanduser()


def test_root_keeps_state_in_the_machines_directory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 0)
    assert config.default_data_dir({}) == Path("/var/lib/holdfast")
