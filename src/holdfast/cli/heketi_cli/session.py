"""What the commands share: global flags wherever they stand, the connection, printing, refusals.

Flags follow Go's manner: `--json` may stand anywhere, and `--block=false` gives a flag a value.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from typing import Any, NoReturn

import click
import msgspec

from holdfast.cli import terminal
from holdfast.cli.heketi_cli.connection import Connection, Failure
from holdfast.heketi import errors

FAILED = 255
_VALUED = {
    "-s": "server",
    "--server": "server",
    "--user": "user",
    "--secret": "secret",
    "-C": "cert",
    "--tls-cert": "cert",
}
_PLAIN = {"--json": "json", "-I": "insecure", "--insecure-tls": "insecure"}


class Session:
    """One invocation."""

    def __init__(self, flags: dict[str, str]) -> None:
        self._flags = flags
        self._connection: Connection | None = None

    @property
    def json(self) -> bool:
        """Whether answers are printed as JSON."""
        return self._flags.get("json", "false") == "true"

    @property
    def api(self) -> Connection:
        """The connection, made when it is first needed."""
        if self._connection is None:
            env, flags = os.environ, self._flags
            verify = flags.get("insecure", "false") != "true"
            self._connection = Connection(
                flags.get("server") or env.get("HEKETI_CLI_SERVER") or "http://localhost:8080",
                flags.get("user") or env.get("HEKETI_CLI_USER", ""),
                flags.get("secret") or env.get("HEKETI_CLI_KEY", ""),
                verify=verify,
                trusted=words(flags.get("cert", "")),
                raw=self.json,
            )
        return self._connection

    def show(self, document: Any, text: str | Callable[[Any], str]) -> None:
        """Print an answer: as JSON without a newline when that was asked for, else as text."""
        if self.json:
            click.echo(msgspec.json.encode(document), nl=False)
        else:
            click.echo(text if isinstance(text, str) else text(document), nl=False)


class GlobalFlags(click.Group):
    """A group that takes its own flags out of the arguments wherever they stand."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        flags, rest = split(args)
        ctx.obj = Session(flags)
        if not rest:
            click.echo(ctx.get_help())
            ctx.exit()
        try:
            return super().parse_args(ctx, settled(self, rest))
        except click.UsageError as error:
            _refuse(ctx, error)

    def invoke(self, ctx: click.Context) -> object:
        try:
            return super().invoke(ctx)
        except click.exceptions.NoArgsIsHelpError as error:
            # A group without a command shows its commands, as Heketi's does.
            click.echo(error.format_message())
            ctx.exit()
        except click.UsageError as error:
            _refuse(ctx, error)


def _refuse(ctx: click.Context, error: click.UsageError) -> NoReturn:
    terminal.complain(error.format_message())
    ctx.exit(FAILED)


class Switch(click.Option):
    """An option that may stand alone; a word after it is not its value."""


def settled(group: click.Command, words: list[str]) -> list[str]:
    """The words with the value written to switches that stand alone."""
    command = group
    for word in words:
        if isinstance(command, click.Group) and word in command.commands:
            command = command.commands[word]
    alone = {name for param in command.params if isinstance(param, Switch) for name in param.opts}
    end = words.index("--") if "--" in words else len(words)
    done = [f"{word}=true" if word in alone else word for word in words[:end]]
    return done + words[end:]


def split(args: list[str]) -> tuple[dict[str, str], list[str]]:
    """The global flags, and the other arguments."""
    flags: dict[str, str] = {}
    rest: list[str] = []
    waiting = list(args)
    while waiting:
        word = waiting.pop(0)
        name, equals, value = word.partition("=")
        if word == "--":
            return flags, [*rest, word, *waiting]
        # `topology load` uses the name of a global flag for its file.
        if name == "--json" and rest[:2] == ["topology", "load"]:
            rest.append(word)
        elif name in _PLAIN:
            flags[_PLAIN[name]] = value if equals else "true"
        elif name in _VALUED and (equals or waiting):
            given = value if equals else waiting.pop(0)
            before = flags.get("cert") if _VALUED[name] == "cert" else None
            # Certificates may be given more than once, and more than one at once.
            flags[_VALUED[name]] = f"{before},{given}" if before else given
        else:
            rest.append(word)
    return flags, rest


def runs(function: Callable[..., None]) -> Callable[..., None]:
    """Give a command its session, and turn refusals into Heketi's `Error:` and exit code."""

    @click.pass_context
    @functools.wraps(function)
    def run(ctx: click.Context, /, *args: Any, **values: Any) -> None:
        try:
            function(ctx.obj, *args, **values)
        except (Failure, errors.Refused) as error:
            terminal.complain(str(error))
            ctx.exit(FAILED)

    return run


def flag(name: str, default: bool | None, help: str) -> Callable[[Any], Any]:
    """An option that may stand alone or have `=true` or `=false`."""
    return click.option(
        name, cls=Switch, is_flag=False, flag_value="true", default=default, type=bool, help=help
    )


def one(values: tuple[str, ...], missing: str) -> str:
    """The id that a command is about."""
    if not values:
        raise Failure(missing)
    return values[0]


def words(text: str) -> list[str]:
    """A list separated by commas."""
    return [word.strip() for word in text.split(",") if word.strip()]
