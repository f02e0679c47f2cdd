"""Sets up logging: the standard library, one handler, one line per record.

Messages are constant sentences; what varies goes into `extra` and is rendered
as `key=value` pairs (text) or as members (json), so a log can be searched by
message and filtered by field. Loggers are named `holdfast.<package>`.

Nothing here hides secrets: they must not be handed to a logger at all.
"""

from __future__ import annotations

import logging
import traceback
from datetime import UTC, datetime
from typing import Literal, TextIO

import msgspec

_BUILT_IN = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}
_NEEDS_QUOTES = frozenset(" \"'=\\")


class _Handler(logging.StreamHandler[TextIO]):
    """Marks the handler as ours, so that a second setup replaces it."""


def setup(level: str, format: Literal["text", "json"], stream: TextIO) -> None:
    """Send all records from `level` up (a name such as "info") to `stream`.

    May be called again to change its mind. Raises ValueError for an unknown
    level or format.
    """
    number = logging.getLevelNamesMapping().get(level.upper())
    if number is None:
        raise ValueError(f'log level "{level}" is unknown: use debug, info, warning or error')
    if format not in ("text", "json"):
        raise ValueError(f'log format "{format}" is unknown: use text or json')
    handler = _Handler(stream)
    handler.setFormatter(_JsonFormatter() if format == "json" else _TextFormatter())
    root = logging.getLogger()
    for old in [old for old in root.handlers if isinstance(old, _Handler)]:
        root.removeHandler(old)
    root.addHandler(handler)
    root.setLevel(max(number, logging.WARNING))
    # Libraries stay at warnings; their chatter at lower levels helps nobody here.
    logging.getLogger("holdfast").setLevel(number)


class _TextFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        words = [_time(record), record.levelname.lower(), record.name, _one_line(record)]
        words += [f"{key}={_value(value)}" for key, value in _extras(record).items()]
        line = " ".join(words)
        trace = _trace(record)
        return f"{line}\n{trace}" if trace else line


class _JsonFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        members: dict[str, object] = {
            "time": _time(record),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        for key, value in _extras(record).items():
            members.setdefault(key, value)
        trace = _trace(record)
        if trace:
            members["trace"] = trace
        return msgspec.json.encode(members, enc_hook=str).decode()


def _time(record: logging.LogRecord) -> str:
    moment = datetime.fromtimestamp(record.created, UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _one_line(record: logging.LogRecord) -> str:
    return record.getMessage().replace("\n", "\\n")


def _extras(record: logging.LogRecord) -> dict[str, object]:
    return {key: value for key, value in vars(record).items() if key not in _BUILT_IN}


def _value(value: object) -> str:
    """Render one value; quoted when it would not be one word otherwise."""
    text = value if isinstance(value, str) else str(value)
    if text and text.isprintable() and _NEEDS_QUOTES.isdisjoint(text):
        return text
    return msgspec.json.encode(text).decode()


def _trace(record: logging.LogRecord) -> str:
    if not record.exc_info or record.exc_info[0] is None:
        return ""
    return "".join(traceback.format_exception(*record.exc_info)).rstrip()
