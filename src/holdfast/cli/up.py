"""`holdfast up`: run the control plane, the node and the local backend in one process.

In the foreground this process holds the data directory's lock, serves until a
signal comes, and stops cleanly; a second signal ends it at once, which is safe
too. With ``--detach`` it starts itself again in a session of its own and
returns when that child is ready or has failed. Volumes outlive both.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from pathlib import Path
from urllib.parse import urlsplit

import click

from holdfast.cli import daemon, terminal
from holdfast.kit import logs
from holdfast.server import config, kubeconfig, rundir


@click.command("up")
@terminal.data_dir_option
@click.option(
    "--listen",
    metavar="ADDR:PORT",
    help="Where the API listens; port 0 takes a free one. "
    "Default: 127.0.0.1:6443, or a free port when that one is taken.",
)
@click.option(
    "--node-name", metavar="NAME", help="Name of this machine's Node. Default: host name."
)
@click.option(
    "--nodes",
    type=click.IntRange(1, 64),
    metavar="COUNT",
    help="How many nodes this machine plays: NAME, NAME-2 and so on. "
    "Default: as many as last time, one at first.",
)
@click.option("--detach", is_flag=True, help="Run in the background; return when it is ready.")
@click.option("--log-level", type=click.Choice(config.LEVELS), help="Default: info.")
@click.option("--log-format", type=click.Choice(config.FORMATS), help="Default: text.")
def command(
    data_dir: Path,
    listen: str | None,
    node_name: str | None,
    nodes: int | None,
    detach: bool,
    log_level: str | None,
    log_format: str | None,
) -> None:
    """Start Holdfast on this machine: API, controllers, node and local volumes.

    Ctrl-C stops it and leaves volumes and their data as they are.
    """
    given = {
        "listen": listen,
        "node_name": node_name,
        "nodes": None if nodes is None else str(nodes),
        "log_level": log_level,
        "log_format": log_format,
    }
    if listen is not None:
        _check_listen(listen)
    rundir.prepare(data_dir)
    settings = config.load(data_dir, **given)
    if detach:
        info = _detach(settings, given)
        say_started(settings, info)
        terminal.say(f"  log         {daemon.log_path(settings.data_dir)}")
        terminal.say("Stop it with: holdfast down" + _data_dir_hint(settings.data_dir))
    else:
        _run(settings)


def say_started(settings: config.Config, info: rundir.RunInfo) -> None:
    """Print what was started and where."""
    port = urlsplit(info.url).port
    if settings.listen.port not in (0, port):
        terminal.note(f"port {settings.listen.port} is taken: using {port}, which was free")
    terminal.say(f"Holdfast {info.version} runs at {info.url} (process {info.pid})")
    terminal.say(f"  node        {info.node}")
    terminal.say(f"  data        {settings.data_dir}")
    terminal.say(f"  kubeconfig  {kubeconfig.path_in(settings.data_dir)}")


def _check_listen(text: str) -> None:
    try:
        config.parse_listen(text)
    except config.ConfigError as error:
        raise click.BadParameter(str(error), param_hint="--listen") from error


def _data_dir_hint(data_dir: Path) -> str:
    return "" if data_dir == config.default_data_dir() else f" --data-dir {data_dir}"


def _detach(settings: config.Config, given: dict[str, str | None]) -> rundir.RunInfo:
    if holder := rundir.holder(settings.data_dir):
        raise rundir.HeldError(settings.data_dir, holder)
    arguments = ["up", "--data-dir", str(settings.data_dir)]
    for name, value in given.items():
        if value is not None:
            arguments += [f"--{name.replace('_', '-')}", value]
    return daemon.start(settings.data_dir, arguments)


def _run(settings: config.Config) -> None:
    import uvloop

    logs.setup(settings.log.level, settings.log.format, sys.stderr)
    with (
        rundir.hold(settings.data_dir),
        asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner,
    ):
        runner.run(_serve(settings))
    terminal.say("Holdfast has stopped; volumes and their data are unchanged.")


async def _serve(settings: config.Config) -> None:
    """Serve until cancelled by a signal."""
    # Imports the whole program, so only the process that serves does it.
    from holdfast.server import run

    def ready(info: rundir.RunInfo) -> None:
        rundir.publish(settings.data_dir, info)
        # What is served matters more than a reader that left or a log on a full disk.
        with contextlib.suppress(OSError):
            say_started(settings, info)
            if sys.stdout.isatty():
                terminal.say("Ctrl-C stops it; volumes and their data stay.")

    serving = asyncio.create_task(run.serve(settings, ready))
    loop = asyncio.get_running_loop()
    stops = (signal.SIGINT, signal.SIGTERM)

    def stop() -> None:
        for number in stops:
            loop.remove_signal_handler(number)
            # From now on the same signal ends the process at once.
            signal.signal(number, signal.SIG_DFL)
        if os.isatty(2):
            terminal.note("stopping; once more ends it at once ...")
        serving.cancel()

    for number in stops:
        loop.add_signal_handler(number, stop)
    await asyncio.wait([serving])
    if not serving.cancelled():
        serving.result()
