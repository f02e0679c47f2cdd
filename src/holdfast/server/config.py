"""What `holdfast up` can be told, as frozen records by topic.

Values come from three places, the later winning: the defaults below, the
optional ``holdfast.toml`` in the data directory, and the command line. The
file holds what a flag can say::

    [listen]
    address = "127.0.0.1:6443"
    [node]
    name = "storage-1"
    [log]
    level = "info"
    format = "json"
    [nodes]
    count = 3
    grace_seconds = 40
    toleration_seconds = 300

and the storage systems, each under a name: ``[rbd.NAME]``, ``[cinder.NAME]``,
``[vsphere.NAME]``, ``[gluster.NAME]``, ``[nfs.NAME]``. Their keys belong to the
backends, which check them when they are opened. Here only paths are completed.

Invariant: a `Config` that exists is valid. An unknown key or an impossible
value is a `ConfigError` that names the place and what would be accepted, so
that a misspelt setting never silently does nothing.
"""

from __future__ import annotations

import os
import re
import socket
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from holdfast.kit import suggest

DEFAULT_HOST = "127.0.0.1"
DEFAULT_PORT = 6443
DATA_DIR_VARIABLE = "HOLDFAST_DATA_DIR"
FILE_NAME = "holdfast.toml"
LEVELS = ("debug", "info", "warning", "error")
FORMATS = ("text", "json")

_LABEL = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?")
_KNOWN: Mapping[str, tuple[str, ...]] = {
    "listen": ("address",),
    "node": ("name",),
    "log": ("level", "format"),
    "nodes": ("count", "grace_seconds", "toleration_seconds"),
}
_NUMBERS = ("nodes",)
# Storage systems; each may have several instances, by name.
STORAGE = ("rbd", "cinder", "vsphere", "gluster", "nfs")
# Keys whose values are paths, relative to the data directory; so is any value that begins with ./
_PATHS = re.compile(r"config|conf|keyring|cloud_conf|clouds_yaml|.+_file|.+_dir")


class ConfigError(Exception):
    """A setting that cannot be used: what is wrong, where it stands, what would be right."""


@dataclass(frozen=True, slots=True)
class Listen:
    """Where the API listens."""

    host: str = DEFAULT_HOST  # an IP address or a name of this machine; loopback by default
    port: int = DEFAULT_PORT  # 0: any free port
    fallback: bool = True  # when the port is taken, use a free one; off once a port was asked for

    def __str__(self) -> str:
        """Render as HOST:PORT, an IPv6 address in brackets."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class Log:
    """How the process logs; the lines go to standard error."""

    level: str = "info"
    format: Literal["text", "json"] = "text"


@dataclass(frozen=True, slots=True)
class Nodes:
    """How many nodes this machine plays, and how patient Kubernetes is with a lost one."""

    count: int | None = None  # None: as many as last time, one at first
    grace_seconds: float = 40.0  # a node that is silent for so long is lost
    toleration_seconds: int = 300  # pods leave a lost node after so long, unless they say otherwise


@dataclass(frozen=True, slots=True)
class Config:
    """Everything one `holdfast up` needs to know."""

    data_dir: Path  # absolute; all state lies below it
    node_name: str  # name of the Node object for this machine, a DNS-1123 label or subdomain
    listen: Listen = field(default_factory=Listen)
    log: Log = field(default_factory=Log)
    nodes: Nodes = field(default_factory=Nodes)
    # The settings of each storage system: by kind, then by instance.
    storage: Mapping[str, Mapping[str, Mapping[str, object]]] = field(
        default_factory=dict, repr=False
    )


def default_data_dir(environ: Mapping[str, str] = os.environ) -> Path:
    """Where state lives unless told otherwise: the machine's for root, else the user's."""
    if chosen := environ.get(DATA_DIR_VARIABLE):
        return Path(chosen).expanduser().absolute()
    if os.geteuid() == 0:
        return Path("/var/lib/holdfast")
    home = environ.get("XDG_DATA_HOME") or str(Path("~/.local/share").expanduser())
    return Path(home) / "holdfast"


def default_node_name(hostname: str | None = None) -> str:
    """Make a DNS-1123 label of this machine's short host name."""
    short = (socket.gethostname() if hostname is None else hostname).split(".", 1)[0].lower()
    label = re.sub(r"[^a-z0-9-]+", "-", short)[:63].strip("-")
    return label or "localhost"


def parse_listen(text: str) -> Listen:
    """Read ``ADDR:PORT``, ``:PORT`` or ``[IPv6]:PORT``; raises ConfigError."""
    host, colon, port = text.rpartition(":")
    if not colon or not port.isascii() or not port.isdigit() or int(port) > 65535:
        raise ConfigError(
            f"{text!r} is no address to listen on: write ADDR:PORT, for example "
            f"{DEFAULT_HOST}:{DEFAULT_PORT}, or port 0 for any free one"
        )
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    elif ":" in host:
        raise ConfigError(f"{text!r}: put an IPv6 address in brackets, as in [::1]:{port}")
    return Listen(host or DEFAULT_HOST, int(port), fallback=False)


def load(
    data_dir: Path,
    *,
    listen: str | None = None,
    node_name: str | None = None,
    log_level: str | None = None,
    log_format: str | None = None,
    nodes: str | None = None,
) -> Config:
    """Join defaults, the file in ``data_dir`` and the given settings (None: not given)."""
    path = data_dir / FILE_NAME
    document = _document(path)
    settings = _read(path, document)
    given = {
        ("listen", "address"): listen,
        ("node", "name"): node_name,
        ("log", "level"): log_level,
        ("log", "format"): log_format,
        ("nodes", "count"): nodes,
        ("nodes", "grace_seconds"): None,
        ("nodes", "toleration_seconds"): None,
    }

    def setting(section: str, key: str) -> tuple[str | None, str]:
        """Give the value and where it was said, for the error message."""
        if (value := given[section, key]) is not None:
            return value, ""
        return settings.get((section, key)), f"{path}: {section}.{key}: "

    address, where = setting("listen", "address")
    return Config(
        data_dir=data_dir.absolute(),
        node_name=_node_name(*setting("node", "name")),
        listen=Listen() if address is None else _located(where, address),
        log=Log(
            _choice(*setting("log", "level"), LEVELS, "info"),
            "json" if _choice(*setting("log", "format"), FORMATS, "text") == "json" else "text",
        ),
        nodes=Nodes(
            _whole(*setting("nodes", "count"), 1, None),
            _number(*setting("nodes", "grace_seconds"), 0.1, 40.0),
            _whole(*setting("nodes", "toleration_seconds"), 0, 300) or 0,
        ),
        storage=_storage(path, document),
    )


def _number(value: str | None, where: str, least: float, default: float) -> float:
    if value is None:
        return default
    try:
        found = float(value)
    except ValueError:
        found = -1.0
    if not least <= found < 1e9:
        raise ConfigError(f"{where}{value!r} is no number of at least {least:g}")
    return found


def _whole(value: str | None, where: str, least: int, default: int | None) -> int | None:
    if value is None:
        return default
    if not value.isascii() or not value.isdigit() or not least <= int(value) < 1 << 31:
        raise ConfigError(f"{where}{value!r} is no whole number of at least {least}")
    return int(value)


def _located(where: str, address: str) -> Listen:
    try:
        return parse_listen(address)
    except ConfigError as error:
        raise ConfigError(f"{where}{error}") from None


def _document(path: Path) -> dict[str, Any]:
    """Give the file's content; a missing file has none."""
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from error
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(f"{path}: is no TOML: {error}") from error


def _read(path: Path, document: Mapping[str, Any]) -> dict[tuple[str, str], str]:
    """Give the settings that a flag can say, by (section, key)."""
    settings = {}
    for section, content in document.items():
        if section in STORAGE:
            continue
        if section not in _KNOWN:
            raise _unknown(path, section, (*_KNOWN, *STORAGE))
        if not isinstance(content, dict):
            raise ConfigError(f"{path}: {section} is a section: write [{section}] and its keys")
        for key, value in content.items():
            if key not in _KNOWN[section]:
                raise _unknown(path, f"{section}.{key}", _dotted(section))
            settings[section, key] = _text(f"{path}: {section}.{key}: ", section, value)
    return settings


def _storage(path: Path, document: Mapping[str, Any]) -> dict[str, dict[str, dict[str, object]]]:
    """Give the settings of the storage systems, with complete paths."""
    found: dict[str, dict[str, dict[str, object]]] = {}
    for kind in STORAGE:
        instances = document.get(kind, {})
        if not isinstance(instances, dict):
            raise ConfigError(f"{path}: {kind} is a section: write [{kind}.NAME] and its keys")
        for name, settings in instances.items():
            if not isinstance(settings, dict):
                raise ConfigError(
                    f"{path}: {kind}.{name} is no section: each of several has a name of its own, "
                    f"so write [{kind}.NAME] above {name}"
                )
            if not name or not name.isascii() or not name.isprintable() or "/" in name:
                raise ConfigError(f"{path}: {kind}.{name!r} is no name: use letters and digits")
            found.setdefault(kind, {})[name] = _completed(path.parent.absolute(), settings)
    return found


def _completed(directory: Path, settings: Mapping[str, object]) -> dict[str, object]:
    return {key: _complete(directory, key, value) for key, value in settings.items()}


def _complete(directory: Path, key: str, value: object) -> object:
    if isinstance(value, dict):
        return _completed(directory, value)
    if not isinstance(value, str) or not value:
        return value
    if not _PATHS.fullmatch(key.replace("-", "_")) and not value.startswith(("./", "../")):
        return value
    return str(directory / Path(value).expanduser())


def _text(where: str, section: str, value: object) -> str:
    """Give a value as it would stand on the command line."""
    if section in _NUMBERS and isinstance(value, int | float) and not isinstance(value, bool):
        return str(value)
    if not isinstance(value, str):
        raise ConfigError(f"{where}{value!r} is not a string")
    return value


def _dotted(section: str) -> tuple[str, ...]:
    return tuple(f"{section}.{key}" for key in _KNOWN[section])


def _unknown(path: Path, key: str, known: tuple[str, ...]) -> ConfigError:
    return ConfigError(f"{path}: unknown key {key}; {suggest.hint(key, known)}")


def _choice(value: str | None, where: str, choices: tuple[str, ...], default: str) -> str:
    if value is None:
        return default
    if value not in choices:
        raise ConfigError(f"{where}{value!r} is not one of {', '.join(choices)}")
    return value


def _node_name(value: str | None, where: str) -> str:
    if value is None:
        return default_node_name()
    if len(value) > 253 or not all(_LABEL.fullmatch(part) for part in value.split(".")):
        raise ConfigError(
            f"{where}{value!r} is no node name: use lower case letters, digits, '-' and '.', "
            "with a letter or digit at both ends"
        )
    return value
