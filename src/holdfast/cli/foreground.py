"""Runs a service in the foreground until a signal comes.

The first signal lets it end in order, a second one ends the process at once, which
is safe too: everything Holdfast does may be repeated.
"""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Coroutine
from typing import Any

import click

from holdfast.cli import terminal

_STOPS = (signal.SIGINT, signal.SIGTERM)


def run(service: Coroutine[Any, Any, None]) -> None:
    """Run until the service fails or a signal stops it."""
    # Not on uvloop: it starts programs by a fork of its own, and beside gRPC's threads some
    # of them crash before they have begun.
    asyncio.run(_until_signal(service))


async def _until_signal(service: Coroutine[Any, Any, None]) -> None:
    serving = asyncio.create_task(service)
    loop = asyncio.get_running_loop()

    def stop() -> None:
        for number in _STOPS:
            loop.remove_signal_handler(number)
            signal.signal(number, signal.SIG_DFL)
        serving.cancel()

    for number in _STOPS:
        loop.add_signal_handler(number, stop)
    await asyncio.wait([serving])
    if not serving.cancelled():
        serving.result()


def require(extra: str, module: str) -> None:
    """Say which package is missing instead of failing on an import."""
    import importlib.util

    if importlib.util.find_spec(module) is None:
        raise terminal.CommandError(
            f"the Python package {module} is missing: install it with "
            f"pip install 'holdfast[{extra}]'"
        )


def parse_address(
    context: click.Context, parameter: click.Parameter, value: str | None
) -> tuple[str, int] | None:
    """Read `ADDR:PORT` for an option that may be left out."""
    from holdfast.server import config

    if value is None:
        return None
    try:
        found = config.parse_listen(value)
    except config.ConfigError as error:
        raise click.BadParameter(str(error)) from error
    return found.host, found.port
