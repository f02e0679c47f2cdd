"""What one `[cinder.NAME]` of the configuration says, and the connection that follows from it.

    [cinder.default]
    cloud_conf = "/etc/kubernetes/cloud.conf"

    [cinder.west]
    clouds_yaml = "/etc/openstack/clouds.yaml"
    cloud = "west"

The files named there are read again when they have changed, so credentials can be
replaced while Holdfast runs. Secrets are never part of a record's repr.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from holdfast.backends import errors
from holdfast.backends.cinder import cloudconf, logins
from holdfast.kit import suggest

DEFAULT = "default"
HOW = 'add [cinder.default] with cloud_conf = "/path/of/cloud.conf" to holdfast.toml'
METADATA_URL = "http://169.254.169.254"
SOURCES = ("configDrive", "metadataService")
MOST_VOLUMES = 256
_PATHS = ("cloud_conf", "clouds_yaml", "root", "os_brick")
_TEXTS = ("cloud", "owner", "attach", "metadata_url")
_FILES = ("cacert", "cert", "key")
_KEYS = (*_PATHS, *_TEXTS)


@dataclass(frozen=True, slots=True)
class Instance:
    """One cloud as the configuration names it; nothing has been read yet.

    `cloud` is one of `clouds_yaml`, or the name of a `[Global "name"]` of `cloud_conf`.

    `owner` marks volumes as this Holdfast's. `attach` is "nova", "cinder" or empty for what the
    cloud has. `root` is where the machine's files are seen, for a container that mounts them.
    `os_brick` is a Python that has os-brick, which then makes all connections without Nova.
    """

    name: str
    cloud_conf: Path | None = None
    clouds_yaml: Path | None = None
    cloud: str = ""
    owner: str = "holdfast"
    attach: str = ""
    root: Path = Path("/")
    metadata_url: str = METADATA_URL
    os_brick: Path | None = None
    # The text of a cloud.conf that came in a Secret instead of a file.
    text: str = field(default="", repr=False)

    @property
    def where(self) -> str:
        """What to name in errors."""
        return str(self.cloud_conf or self.clouds_yaml or "cloud.conf in a Secret")


@dataclass(frozen=True, slots=True)
class CloudSettings:
    """What the files say: `arguments` are those of openstack.connection.Connection."""

    arguments: Mapping[str, Any] = field(repr=False)
    clouds_yaml: Path | None = None
    cloud: str = ""
    ignore_volume_az: bool = False
    microversions: bool = True
    attach_limit: int | None = None
    search_order: tuple[str, ...] = SOURCES


def instances(given: Mapping[str, Mapping[str, object]]) -> dict[str, Instance]:
    """Check the configuration's `[cinder.NAME]` sections. Raises errors.Invalid."""
    return {name: _instance(name, values) for name, values in given.items()}


def _instance(name: str, values: Mapping[str, object]) -> Instance:
    where = f"[cinder.{name}]"
    for key, value in values.items():
        if key not in _KEYS:
            raise errors.Invalid(f"unknown key {key}", where, suggest.hint(key, _KEYS))
        if not isinstance(value, str):
            raise errors.Invalid(f"{key} is not a string", where)
    text = {key: str(value) for key, value in values.items()}
    if text.get("attach", "") not in ("", "nova", "cinder"):
        raise errors.Invalid('attach is neither "nova" nor "cinder"', where)
    if "cloud_conf" in text and "clouds_yaml" in text:
        raise errors.Invalid("names two clouds", where, "give cloud_conf or clouds_yaml")
    if "cloud" in text and "cloud_conf" not in text and "clouds_yaml" not in text:
        raise errors.Invalid("cloud is given without clouds_yaml", where, "say which file has it")
    if "cloud_conf" not in text and "cloud" not in text:
        raise errors.Invalid("names no cloud", where, "give cloud_conf, or cloud and clouds_yaml")
    paths = {key: _absolute(key, text[key], where) for key in _PATHS if key in text}
    rest = {key: text[key] for key in _TEXTS if key in text}
    return Instance(name, **paths, **rest)  # type: ignore[arg-type]


def _absolute(key: str, value: str, where: str) -> Path:
    path = Path(value).expanduser()
    if not path.is_absolute():
        raise errors.Invalid(f"{key} is not an absolute path", where, "begin it with /")
    return path


def stamp(instance: Instance, read: CloudSettings | None = None) -> tuple[object, ...]:
    """Return something that changes when a file does that the instance's settings came from.

    `read` are the settings, for the other files that they name.
    """
    files = [instance.cloud_conf or instance.clouds_yaml]
    if read is not None:
        files += [Path(str(read.arguments[key])) for key in _FILES if key in read.arguments]
        if read.clouds_yaml is not None:
            files += [read.clouds_yaml, read.clouds_yaml.with_name("secure.yaml")]
    return tuple(_stamp_of(each) for each in files if each is not None)


def _stamp_of(path: Path) -> object:
    try:
        found = path.stat()
    except OSError:
        return None
    return (found.st_mtime_ns, found.st_ino, found.st_size)


def load(instance: Instance) -> CloudSettings:
    """Read the instance's file. Raises errors.Invalid, errors.Unavailable."""
    if instance.clouds_yaml is not None:
        _check_yaml(instance.clouds_yaml, instance)
        return CloudSettings({}, instance.clouds_yaml, instance.cloud)
    text = instance.text or _read(instance.cloud_conf or Path(), instance)
    read = of_conf(text, instance.where, instance.cloud)
    if read.clouds_yaml is not None:
        _check_yaml(read.clouds_yaml, instance)
    return read


def of_conf(text: str, where: str, name: str = "") -> CloudSettings:
    """Read the text of a cloud.conf, of `[Global "name"]` in it. Raises errors.Invalid."""
    sections = cloudconf.parse(text, where)
    chosen = sections.get(("global", name))
    if chosen is None:
        raise _no_section(name, [each for kind, each in sections if kind == "global"], where)
    volumes = sections.get(("blockstorage", ""), {})
    if volumes.get("bs-version", "auto") not in ("auto", "v3"):
        raise errors.Invalid(
            f"bs-version = {volumes['bs-version']}: only version 3 is spoken",
            where,
            "write bs-version = v3, or leave it out",
        )
    common: dict[str, Any] = {
        "ignore_volume_az": cloudconf.yes(volumes.get("ignore-volume-az", "")),
        "microversions": not cloudconf.yes(volumes.get("ignore-volume-microversion", "")),
        "attach_limit": _limit(volumes.get("node-volume-attach-limit", ""), where),
        "search_order": _order(sections.get(("metadata", ""), {}).get("search-order", ""), where),
    }
    if cloudconf.yes(chosen.get("use-clouds", "")):
        path = Path(chosen.get("clouds-file", "/etc/openstack/clouds.yaml"))
        return CloudSettings({}, path, chosen.get("cloud", "openstack"), **common)
    return CloudSettings(logins.arguments(chosen, where), **common)


def _no_section(name: str, there: Sequence[str], where: str) -> errors.Invalid:
    wanted = f'[Global "{name}"]' if name else "[Global]"
    named = ", ".join(f'[Global "{each}"]' if each else "[Global]" for each in there)
    remedy = "it names the cloud and its user"
    if named:
        remedy = f'it has {named}: choose one by its name, cloud = "NAME" in [cinder.NAME]'
    return errors.Invalid(f"has no section {wanted}", where, remedy)


def _check_yaml(path: Path, instance: Instance) -> None:
    """Raise Invalid for a file that openstacksdk would take for an empty one."""
    try:
        content = yaml.safe_load(_read(path, instance))
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        place = f" (line {mark.line + 1})" if mark else ""
        # The parser's own text quotes the line, which may hold a password.
        raise errors.Invalid(f"is no YAML{place}", str(path)) from error
    found = content.get("clouds") if isinstance(content, Mapping) else None
    if not isinstance(found, Mapping) or not found:
        raise errors.Invalid("has no clouds", str(path), "it begins with `clouds:`")
    if empty := [str(name) for name, each in found.items() if not isinstance(each, Mapping)]:
        raise errors.Invalid(f"cloud {empty[0]} is empty", str(path), "give it an auth section")


def _read(path: Path, instance: Instance) -> str:
    try:
        # Editors of other systems begin a file with a mark of its encoding.
        return path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise errors.Unavailable(
            f"cannot be read ({error.strerror})",
            str(path),
            f"put the file there, or correct [cinder.{instance.name}] in holdfast.toml",
        ) from error
    except UnicodeDecodeError as error:
        raise errors.Invalid("is no text", str(path)) from error


def _limit(value: str, where: str) -> int | None:
    if not value:
        return None
    if not value.isascii() or not value.isdigit() or not 0 < int(value) <= MOST_VOLUMES:
        raise errors.Invalid(
            f"node-volume-attach-limit is no number from 1 to {MOST_VOLUMES}", where
        )
    return int(value)


def _order(value: str, where: str) -> tuple[str, ...]:
    chosen = tuple(part.strip() for part in value.split(",") if part.strip()) or SOURCES
    for each in chosen:
        if each not in SOURCES:
            guess = suggest.nearest(each, SOURCES)
            hint = f"did you mean {guess}?" if guess else f"known: {', '.join(SOURCES)}"
            raise errors.Invalid(f"search-order cannot hold {each}", where, hint)
    return chosen


def home(environ: Mapping[str, str] = os.environ) -> Path:
    """Return where `prepare` puts cloud.conf unless told otherwise."""
    if os.geteuid() == 0:
        return Path("/etc/holdfast")
    return Path(environ.get("XDG_CONFIG_HOME") or str(Path("~/.config").expanduser())) / "holdfast"
