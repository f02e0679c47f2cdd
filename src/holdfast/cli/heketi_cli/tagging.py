"""`settags` and `rmtags`, which nodes and devices have alike."""

from __future__ import annotations

import click

from holdfast.cli.heketi_cli.connection import Failure
from holdfast.cli.heketi_cli.session import Session, flag, one, runs


def add_to(group: click.Group, plural: str) -> None:
    """Give a group of commands the two."""

    @group.command("settags")
    @click.argument("words", nargs=-1)
    @flag("--exact", False, "Make these the only tags.")
    @click.option("-e", "short", is_flag=True, help="The same as --exact.")
    @runs
    def settags(session: Session, words: tuple[str, ...], exact: bool, short: bool) -> None:
        """Set tags, each as name:value."""
        key = one(words, "id required")
        if len(words) < 2:
            raise Failure("at least one tag:value pair expected")
        tags = {}
        for word in words[1:]:
            name, colon, value = word.partition(":")
            if not colon:
                raise Failure(f"expected colon (:) between tag name and value, got: {word}")
            tags[name] = value
        change = "set" if exact or short else "update"
        session.api.post(f"/{plural}/{key}/tags", {"change_type": change, "tags": tags})

    @group.command("rmtags")
    @click.argument("words", nargs=-1)
    @flag("--all", False, "Remove all tags.")
    @runs
    def rmtags(session: Session, words: tuple[str, ...], all: bool) -> None:
        """Remove tags by their names."""
        key = one(words, "id required")
        if len(words) < 2 and not all:
            raise Failure("at least one tag expected")
        if len(words) >= 2 and all:
            raise Failure("--all may not be combined with named tags")
        body: dict[str, object] = {"change_type": "set", "tags": {}}
        if not all:
            body = {"change_type": "delete", "tags": dict.fromkeys(words[1:], "")}
        session.api.post(f"/{plural}/{key}/tags", body)
