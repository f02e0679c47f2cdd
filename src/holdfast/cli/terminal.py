"""What commands print, and how they show that they are waiting.

Results go to standard output, everything else to standard error, so that
output can be piped. Progress is one line rewritten in place on a terminal; in
a log it is a line every few seconds, and nothing when the wait is short.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import click

_REDRAW_SECONDS = 0.1
_LINE_SECONDS = 5.0
_CLEAR = "\r\x1b[2K"


class CommandError(Exception):
    """A command cannot do what it was asked: what happened, where, what to do."""


def say(text: str = "") -> None:
    """Print a line of the result."""
    click.echo(text)


def note(text: str) -> None:
    """Print a line about the result to standard error."""
    click.echo(text, err=True)


def complain(text: str) -> None:
    """Print an error; `up --detach` looks for this prefix in its child's log."""
    click.echo(f"Error: {text}", err=True)


def table(rows: Sequence[Sequence[str]], indent: str = "  ") -> Iterator[str]:
    """Lay rows out in columns as wide as their widest cell."""
    if not rows:
        return
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        yield (indent + "  ".join(cells)).rstrip()


def size(count: int) -> str:
    """Write a number of bytes for people: 512B, 24.0Ki, 1.0Gi."""
    value = float(count)
    for unit in ("B", "Ki", "Mi", "Gi", "Ti"):
        if value < 1024:
            return f"{value:.0f}{unit}" if unit == "B" else f"{value:.1f}{unit}"
        value /= 1024
    return f"{value:.1f}Pi"


def data_dir_option(function: Any) -> Any:
    """Add `--data-dir` to a command; its value is an absolute path."""
    return click.option(
        "--data-dir",
        "data_dir",
        # Whether it may be read is looked at where more can be said about it.
        type=click.Path(file_okay=False, readable=False, path_type=Path),
        callback=_resolve_data_dir,
        help="Where all state lies. Default: $HOLDFAST_DATA_DIR, else /var/lib/holdfast "
        "for root and ~/.local/share/holdfast for others.",
    )(function)


def _resolve_data_dir(
    _context: click.Context, _parameter: click.Parameter, value: Path | None
) -> Path:
    from holdfast.server import config

    return value.expanduser().absolute() if value else config.default_data_dir()


class Progress:
    """Shows that something is being waited for; a context manager, call `tick` while waiting."""

    def __init__(self, what: str) -> None:
        self._what = what
        self._started = time.monotonic()
        self._live = sys.stderr.isatty()
        self._next = self._started + (_REDRAW_SECONDS if self._live else _LINE_SECONDS)

    @property
    def seconds(self) -> float:
        """Seconds since the wait began."""
        return time.monotonic() - self._started

    def tick(self, what: str | None = None) -> None:
        """Show the state when it is time to; ``what`` replaces the text."""
        self._what = what or self._what
        if time.monotonic() < self._next:
            return
        self._next = time.monotonic() + (_REDRAW_SECONDS if self._live else _LINE_SECONDS)
        text = f"{self._what} ... {self.seconds:.1f} s"
        click.echo(f"{_CLEAR}{text}" if self._live else text, err=True, nl=not self._live)

    def __enter__(self) -> Progress:
        """Begin to wait."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Take the line away; what follows says how it ended."""
        if self._live:
            click.echo(_CLEAR, err=True, nl=False)
