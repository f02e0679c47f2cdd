"""The command group: its table, its errors, and what `--help` may cost."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import click
import pytest

import holdfast
import machine
from holdfast.cli import main

HEAVY = ("asyncio", "cryptography", "httpx2", "rich", "starlette", "uvicorn", "uvloop", "yaml")


@pytest.fixture(autouse=True)
def _own_data_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOLDFAST_DATA_DIR", str(tmp_path))


@pytest.mark.parametrize("name", list(main.COMMANDS))
def test_every_command_of_the_table_can_be_asked_for_help(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main.main([name, "--help"]) == 0
    assert f"Usage: holdfast {name}" in capsys.readouterr().out


@pytest.mark.parametrize("name", list(main.COMMANDS))
def test_every_command_has_the_name_the_table_gives_it(name: str) -> None:
    command = main.group.get_command(click.Context(main.group), name)
    assert command is not None
    assert command.name == name


def test_help_lists_the_commands_without_loading_them() -> None:
    code = (
        "import sys; from holdfast.cli import main; code = main.main(['--help']);"
        f"print(code, [name for name in {HEAVY!r} if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={"PYTHONPATH": str(machine.SOURCE)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.splitlines()[-1] == "0 []"
    for name, (_, summary) in main.COMMANDS.items():
        assert re.search(rf"^  {name} +{re.escape(summary)}$", done.stdout, re.MULTILINE)


def test_a_misspelt_command_gets_a_suggestion(capsys: pytest.CaptureFixture[str]) -> None:
    assert main.main(["statsu"]) == 2
    assert "Did you mean status?" in capsys.readouterr().err


def test_wrong_usage_ends_as_two(capsys: pytest.CaptureFixture[str]) -> None:
    assert main.main(["up", "--listen", "nowhere"]) == 2
    assert "--listen: 'nowhere' is no address to listen on" in capsys.readouterr().err


def test_a_bad_setting_is_one_line_and_ends_as_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "holdfast.toml").write_text("[nodez]\n")
    assert main.main(["up"]) == 1
    error = capsys.readouterr().err
    assert error.startswith(f"Error: {tmp_path}/holdfast.toml: unknown key nodez")
    assert error.count("\n") == 1


def test_a_defect_keeps_its_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(_data_dir: Path) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr("holdfast.server.rundir.holder", broken)
    with pytest.raises(ZeroDivisionError):
        main.main(["down"])


def test_nothing_running_is_fine_for_down_and_no_for_status(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main.main(["down"]) == 0
    with pytest.raises(SystemExit) as ended:
        main.main(["status"])
    assert ended.value.code == 1
    assert capsys.readouterr().out == f"Holdfast is not running on {tmp_path}.\n" * 2


def test_commands_that_need_a_running_one_say_how_to_start_it(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main.main(["kubeconfig"]) == 1
    assert "start Holdfast first (holdfast up)" in capsys.readouterr().err
    assert main.main(["demo"]) == 1
    assert "is not running" in capsys.readouterr().err


def test_the_version_is_the_same_everywhere(capsys: pytest.CaptureFixture[str]) -> None:
    project = tomllib.loads((machine.ROOT / "pyproject.toml").read_text())["project"]
    assert project["version"] == holdfast.__version__
    heading = re.search(r"^## (\S+)", (machine.ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert heading is not None
    assert heading[1] == holdfast.__version__
    assert main.main(["--version"]) == 0
    assert capsys.readouterr().out == f"holdfast {holdfast.__version__}\n"


def test_prepare_says_what_it_is_for(capsys: pytest.CaptureFixture[str]) -> None:
    assert main.main(["prepare", "--help"]) == 0
    assert "Make a storage system ready" in capsys.readouterr().out
    assert main.main(["prepare", "nothing"]) == 2
