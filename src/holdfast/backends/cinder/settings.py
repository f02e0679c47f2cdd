"""What one `[cinder.NAME]` of the configuration says, and the connection that follows from it.

    [cinder.default]
    cloud_conf = "/etc/kubernetes/cloud.conf"

    [cinder.west]
    clouds_yaml = "/etc/openstack/clouds.yaml"
    cloud = "west"

The file named there is read again when it has changed, so credentials can be
replaced while Holdfast runs. Secrets are never part of a record's repr.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from holdfast.backends import errors
from holdfast.backends.cinder import cloudconf
from holdfast.kit import suggest

DEFAULT = "default"
HOW = 'add [cinder.default] with cloud_conf = "/path/of/cloud.conf" to holdfast.toml'
METADATA_URL = "http://169.254.169.254"
SOURCES = ("configDrive", "metadataService")
MOST_VOLUMES = 256
_PATHS = ("cloud_conf", "clouds_yaml", "root", "os_brick")
_TEXTS = ("cloud", "owner", "attach", "metadata_url")
_KEYS = (*_PATHS, *_TEXTS)


@dataclass(frozen=True, slots=True)
class Instance:
    """One cloud as the configuration names it; nothing has been read yet.

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
    if ("cloud_conf" in text) == ("cloud" in text):
        raise errors.Invalid(
            "names no cloud" if "cloud" not in text else "names two clouds",
            where,
            "give cloud_conf, or cloud and clouds_yaml",
        )
    if "cloud" in text and "clouds_yaml" not in text:
        raise errors.Invalid("cloud is given without clouds_yaml", where, "say which file has it")
    paths = {key: _absolute(key, text[key], where) for key in _PATHS if key in text}
    rest = {key: text[key] for key in _TEXTS if key in text}
    return Instance(name, **paths, **rest)  # type: ignore[arg-type]


def _absolute(key: str, value: str, where: str) -> Path:
    path = Path(value).expanduser()
    if not path.is_absolute():
        raise errors.Invalid(f"{key} is not an absolute path", where, "begin it with /")
    return path


def stamp(instance: Instance) -> tuple[object, ...]:
    """Return something that changes when the instance's file does."""
    path = instance.cloud_conf or instance.clouds_yaml
    if path is None:
        return ()
    try:
        found = path.stat()
    except OSError:
        return (None,)
    return (found.st_mtime_ns, found.st_ino, found.st_size)


def load(instance: Instance) -> CloudSettings:
    """Read the instance's file. Raises errors.Invalid, errors.NotFound."""
    if instance.clouds_yaml is not None:
        _read(instance.clouds_yaml, instance)
        return CloudSettings({}, instance.clouds_yaml, instance.cloud)
    text = instance.text or _read(instance.cloud_conf or Path(), instance)
    return of_conf(text, instance.where)


def of_conf(text: str, where: str) -> CloudSettings:
    """Read the text of a cloud.conf. Raises errors.Invalid."""
    sections = cloudconf.parse(text, where)
    chosen = sections.get(("global", ""))
    if chosen is None:
        raise errors.Invalid("has no section [Global]", where, "it names the cloud and its user")
    volumes = sections.get(("blockstorage", ""), {})
    if volumes.get("bs-version", "auto") not in ("auto", "v3"):
        raise errors.Invalid(
            f"bs-version = {volumes['bs-version']}: only version 3 is spoken",
            where,
            "write bs-version = v3, or leave it out",
        )
    common: dict[str, Any] = {
        "ignore_volume_az": _yes(volumes.get("ignore-volume-az", "")),
        "microversions": not _yes(volumes.get("ignore-volume-microversion", "")),
        "attach_limit": _limit(volumes.get("node-volume-attach-limit", ""), where),
        "search_order": _order(sections.get(("metadata", ""), {}).get("search-order", ""), where),
    }
    if _yes(chosen.get("use-clouds", "")):
        path = Path(chosen.get("clouds-file", "/etc/openstack/clouds.yaml"))
        return CloudSettings({}, path, chosen.get("cloud", "openstack"), **common)
    return CloudSettings(_arguments(chosen, where), **common)


def _read(path: Path, instance: Instance) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise errors.NotFound(
            f"cannot be read ({error.strerror})",
            str(path),
            f"put the file there, or correct [cinder.{instance.name}] in holdfast.toml",
        ) from error
    except UnicodeDecodeError as error:
        raise errors.Invalid("is no text", str(path)) from error


def _arguments(given: Mapping[str, str], where: str) -> dict[str, Any]:
    if "auth-url" not in given:
        raise errors.Invalid("[Global] has no auth-url", where, "it is Keystone's address")
    auth: dict[str, str] = {"auth_url": given["auth-url"]}
    arguments: dict[str, Any] = {"auth": auth}
    if "application-credential-secret" in given:
        arguments["auth_type"] = "v3applicationcredential"
        _application_credential(given, auth, where)
    else:
        _password(given, auth, where)
    if given.get("region"):
        arguments["region_name"] = given["region"]
    if interface := given.get("os-endpoint-type") or given.get("endpoint-type"):
        arguments["interface"] = interface.removesuffix("URL")
    if _yes(given.get("tls-insecure", "")):
        arguments["verify"] = False
    elif given.get("ca-file"):
        arguments["cacert"] = given["ca-file"]
    for ours, theirs in (("cert-file", "cert"), ("key-file", "key")):
        if given.get(ours):
            arguments[theirs] = given[ours]
    return arguments


def _application_credential(given: Mapping[str, str], auth: dict[str, str], where: str) -> None:
    auth["application_credential_secret"] = given["application-credential-secret"]
    if given.get("application-credential-id"):
        auth["application_credential_id"] = given["application-credential-id"]
        return
    if not given.get("application-credential-name"):
        raise errors.Invalid(
            "[Global] has an application-credential-secret but no application-credential-id", where
        )
    auth["application_credential_name"] = given["application-credential-name"]
    _user(given, auth)


def _password(given: Mapping[str, str], auth: dict[str, str], where: str) -> None:
    missing = [key for key in ("password",) if not given.get(key)]
    if not (given.get("username") or given.get("user-id")):
        missing.append("username")
    project = next(
        (
            key
            for key in ("tenant-id", "project-id", "tenant-name", "project-name")
            if given.get(key)
        ),
        "",
    )
    if not project:
        missing.append("tenant-id")
    if missing:
        raise errors.Invalid(f"[Global] has no {' and no '.join(missing)}", where)
    auth["password"] = given["password"]
    auth["project_id" if project.endswith("id") else "project_name"] = given[project]
    _user(given, auth)
    for part in ("id", "name"):
        domain = (
            given.get(f"tenant-domain-{part}")
            or given.get(f"project-domain-{part}")
            or given.get(f"domain-{part}")
        )
        if domain and project.endswith("name"):
            auth[f"project_domain_{part}"] = domain
            break
    if given.get("trust-id"):
        auth["trust_id"] = given["trust-id"]


def _user(given: Mapping[str, str], auth: dict[str, str]) -> None:
    if given.get("user-id"):
        auth["user_id"] = given["user-id"]
        return
    auth["username"] = given.get("username", "")
    for part in ("id", "name"):
        if domain := given.get(f"user-domain-{part}") or given.get(f"domain-{part}"):
            auth[f"user_domain_{part}"] = domain
            break
    else:
        auth["user_domain_id"] = "default"


def _yes(value: str) -> bool:
    return value.lower() in ("true", "yes", "on", "1")


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
