"""`holdfast heketi`: serve Heketi's REST API, or fill its database.

Settings come from heketi.json and the HEKETI_* variables, as Heketi's own container has them.
"""

from __future__ import annotations

import asyncio
import signal
import sys
from dataclasses import replace
from pathlib import Path

import click

from holdfast.cli import terminal


@click.command("heketi")
@terminal.data_dir_option
@click.option(
    "--config",
    type=click.Path(dir_okay=False, path_type=Path),
    help="heketi.json. Default: /etc/heketi/heketi.json, if it is there.",
)
@click.option("--db", type=click.Path(dir_okay=False, path_type=Path), help="The database file.")
@click.option("--listen", default="0.0.0.0", show_default=True, help="The address to listen on.")
@click.option("--port", type=int, help="The port; 0 takes a free one.")
@click.option("--disable-auth", is_flag=True, help="Let everybody in, without tokens.")
@click.option(
    "--import",
    "dump",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Take over a `db dump` of Heketi into an empty database, and end.",
)
def command(
    data_dir: Path,
    config: Path | None,
    db: Path | None,
    listen: str,
    port: int | None,
    disable_auth: bool,
    dump: Path | None,
) -> None:
    """Manage GlusterFS clusters through Heketi's REST API."""
    from holdfast.heketi import settings as heketi_settings
    from holdfast.heketi.database import DatabaseError
    from holdfast.heketi.errors import Refused

    try:
        default = Path("/etc/heketi/heketi.json")
        path = config or (default if default.exists() else None)
        env = heketi_settings.environment()
        found = heketi_settings.load(path, env, authenticate=not disable_auth and dump is None)
        named = db or (None if path or "HEKETI_DB_PATH" in env else data_dir / "heketi" / "db")
        found = replace(found, host=listen, database=named or found.database)
        if port is not None:
            found = replace(found, port=port)
        if dump is not None:
            _import(found.database, dump)
        else:
            _serve(found)
    except (heketi_settings.SettingsError, DatabaseError, Refused, OSError) as error:
        raise terminal.CommandError(str(error)) from error


def _import(database: Path, dump: Path) -> None:
    import msgspec

    from holdfast.heketi import importing
    from holdfast.heketi.database import Database
    from holdfast.heketi.state import State

    state = State(Database(database))
    try:
        try:
            document = msgspec.json.decode(dump.read_bytes(), type=dict)
        except msgspec.DecodeError as error:
            raise terminal.CommandError(f"{dump} is not JSON: {error}") from error
        report = importing.load(state, document)
    finally:
        state.close()
    for kind, count in report["imported"].items():
        terminal.say(f"{kind}: {count}")
    for text in report["left_out"]:
        terminal.note(f"left out: {text}")


def _serve(found: object) -> None:
    from holdfast.heketi.settings import Settings
    from holdfast.kit import logs
    from holdfast.server import heketi

    assert isinstance(found, Settings)
    level = {"none": "error", "critical": "error"}.get(found.log_level, found.log_level)
    logs.setup(level, "text", sys.stderr)

    def ready(port: int) -> None:
        terminal.note(f"Heketi's API is served on {found.host}:{port}, database {found.database}")

    async def run() -> None:
        task = asyncio.ensure_future(heketi.serve(found, ready))
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, task.cancel)
        try:
            await task
        except asyncio.CancelledError:
            terminal.note("stopped")

    asyncio.run(run())
