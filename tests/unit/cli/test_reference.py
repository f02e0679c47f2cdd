"""The documentation: its links lead somewhere, and it knows every command and setting."""

from __future__ import annotations

import re
from pathlib import Path

import click
import pytest

from holdfast.cli import main
from holdfast.server import config
from machine import ROOT

PAGES = [
    *ROOT.glob("*.md"),
    *(ROOT / "docs").rglob("*.md"),
    *(ROOT / "examples").rglob("*.md"),
]
REFERENCE = (ROOT / "docs" / "reference" / "cli.md").read_text()


def _section(command: str) -> str:
    found = re.search(rf"^## `holdfast {command}`\n(.*?)(?=^## |\Z)", REFERENCE, re.M | re.S)
    assert found is not None, f"docs/reference/cli.md has no section on {command}"
    return found[1]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_leads_to_a_file(page: Path) -> None:
    links = re.findall(r"\]\((?!https?:)([^)#]+)[^)]*\)", page.read_text())
    missing = [link for link in links if not (page.parent / link).exists()]
    assert missing == []


@pytest.mark.parametrize("name", list(main.COMMANDS))
def test_the_reference_has_every_option(name: str) -> None:
    command = main.group.get_command(click.Context(main.group), name)
    assert command is not None
    below = command.commands.values() if isinstance(command, click.Group) else [command]
    given = {option for each in below for parameter in each.params for option in parameter.opts}
    options = sorted(option for option in given if option.startswith("-"))
    absent = [option for option in options if option not in _section(name)]
    # The one that most commands have stands once, above all sections.
    assert set(absent) <= {"--data-dir"}


def test_the_reference_has_every_setting(tmp_path: Path) -> None:
    example = re.search(r"```toml\n(.*?)```", REFERENCE, re.S)
    assert example is not None
    (tmp_path / config.FILE_NAME).write_text(example[1])
    settings = config.load(tmp_path)
    assert settings.node_name == "storage-1"
    assert settings.log.format == "json"
