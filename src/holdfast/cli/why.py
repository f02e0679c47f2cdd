"""`holdfast why`: why a claim, volume or pod does not get further, and the command that ends it.

Exit code 0: nothing is wrong, or it waits for a step that is to come; 1: something has to be
repaired, or the object does not exist.
"""

from __future__ import annotations

import asyncio
import dataclasses
import json
import sys
from pathlib import Path

import click

from holdfast.api import errors
from holdfast.api.kinds import Kind
from holdfast.cli import session, terminal
from holdfast.diagnosis.causes import asking
from holdfast.diagnosis.causes.answer import Answer


@click.command("why")
@terminal.data_dir_option
@click.option("-n", "--namespace", help="Where the claim or pod is. Default: the context's.")
@click.option("--json", "as_json", is_flag=True, help="Print the answer as JSON.")
@click.option(
    "--kubeconfig",
    "kubeconfig_path",
    type=click.Path(dir_okay=False, path_type=Path),
    help="The cluster. Default: the API of the data directory, else what kubectl would use.",
)
@click.argument("what", metavar="KIND/NAME")
def command(
    data_dir: Path,
    namespace: str | None,
    as_json: bool,
    kubeconfig_path: Path | None,
    what: str,
) -> None:
    """Say why KIND/NAME does not get further: pvc/NAME, pv/NAME or pod/NAME.

    The cause in one sentence, where it is, and the command that ends it; then what else was seen.
    """
    kind, name = _parsed(what)
    answer = asyncio.run(_ask(data_dir, kubeconfig_path, kind, name, namespace))
    if as_json:
        terminal.say(json.dumps(dataclasses.asdict(answer), indent=2))
    else:
        _print(answer)
    if answer.wrong:
        sys.exit(1)


def _parsed(what: str) -> tuple[Kind, str]:
    word, slash, name = what.partition("/")
    kind = asking.kind_of(word) if slash and name else None
    if kind is None:
        raise click.UsageError(f"{what!r}: write pvc/NAME, pv/NAME or pod/NAME")
    return kind, name


async def _ask(
    data_dir: Path, path: Path | None, kind: Kind, name: str, namespace: str | None
) -> Answer:
    found = session.cluster(data_dir, path)
    try:
        async with found.client(timeout=15.0) as client:
            return await asking.why(client, kind, name, namespace or found.namespace)
    except asking.NoSuchObject as error:
        raise terminal.CommandError(str(error)) from error
    except (errors.StatusError, OSError) as error:
        raise terminal.CommandError(f"the API cannot be read: {error}") from error


def _print(answer: Answer) -> None:
    terminal.say(f"{answer.subject} is {answer.state}")
    cause = answer.cause
    if cause is None:
        terminal.say("Nothing keeps it.")
    else:
        terminal.say(f"  {'waits' if cause.waiting else 'cause'}: {cause.what}")
        terminal.say(f"  where: {cause.where}")
        for number, line in enumerate(cause.fix.splitlines()):
            terminal.say(f"  {'fix:  ' if number == 0 else '      '} {line}")
    if answer.details:
        terminal.say("Seen:")
    for line in answer.details:
        terminal.say(f"  {line}")
