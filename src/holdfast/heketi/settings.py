"""heketi.json and the HEKETI_* variables, read once at start.

Heketi's file is read as it is: keys that only mattered there are ignored, as are keys starting
with `_`, its comments. A variable wins over the file. Our own additions are `executor: namespaces`,
`layout: loop`, `known_hosts` and `arbiter_min_size_mb`.
"""

from __future__ import annotations

import os
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import msgspec

from holdfast.heketi.auth import ISSUED_LEEWAY, Keys
from holdfast.heketi.entries import GIB
from holdfast.heketi.executors.mounts import Mounting
from holdfast.heketi.sizes import Limits

ADMIN_STATES = ("normal", "read-only", "local-client")
LOG_LEVELS = ("none", "critical", "error", "warning", "info", "debug")
_ZONES = ("none", "strict")
EXECUTORS = ("mock", "ssh", "kubernetes", "namespaces")
_ALIASES = {"kube": "kubernetes", "": "ssh"}
_TRUE = ("true", "1", "yes", "y", "on")


class SettingsError(Exception):
    """The settings cannot be used: which key, why, what to write."""


@dataclass(frozen=True, slots=True)
class ExecutorSettings:
    """How nodes are reached; `values` is the section of the file that belongs to the kind."""

    kind: str = "ssh"
    layout: str = "lvm"
    values: Mapping[str, Any] = field(default_factory=dict, repr=False)
    mounting: Mounting = field(default_factory=Mounting)
    timeout: int = 600
    device_size_gib: int | None = None


@dataclass(frozen=True, slots=True)
class Settings:
    """Everything the service is started with."""

    database: Path
    port: int = 8080
    host: str = "0.0.0.0"
    keys: Keys | None = None
    certificate: Path | None = None
    key: Path | None = None
    executor: ExecutorSettings = field(default_factory=ExecutorSettings)
    limits: Limits = field(default_factory=Limits)
    arbiter_least: int = 16 * 1024
    average_file: int = 64
    strict_zones: bool = False
    options_before: tuple[str, ...] = ()
    options_after: tuple[str, ...] = ()
    inflight: int = 8
    retries: int = 4
    default_state: str = "normal"
    # Whether operations that an earlier life left are gone on with.
    resume: bool = True
    log_level: str = "info"
    monitor_seconds: float = 120.0
    monitor_first: float = 10.0
    monitor: bool = True
    cleaner: bool = True
    cleaner_seconds: float = 3600.0
    cleaner_first: float = 60.0


class _Source:
    """A section of the file, with the variables over it."""

    def __init__(self, section: Mapping[str, Any], env: Mapping[str, str]) -> None:
        self._section = section
        self._env = env

    def text(self, key: str, variable: str = "", default: str = "") -> str:
        value = self._env.get(variable) or self._section.get(key, default)
        return str(value)

    def number(self, key: str, variable: str = "", default: int = 0) -> int:
        value = self._env.get(variable) or self._section.get(key) or default
        try:
            return int(value)
        except (TypeError, ValueError) as error:
            raise SettingsError(f"{variable or key} is {value!r}: write a whole number") from error

    def choice(self, key: str, variable: str, allowed: tuple[str, ...], default: str = "") -> str:
        value = self.text(key, variable) or default or allowed[0]
        if value not in allowed:
            raise SettingsError(f"{key} is {value!r}: use {', '.join(allowed)}")
        return value

    def flag(self, key: str, variable: str = "", default: bool = False) -> bool:
        value = self._env.get(variable) or self._section.get(key, default)
        return value if isinstance(value, bool) else str(value).lower() in _TRUE

    def words(self, key: str, variable: str) -> tuple[str, ...]:
        text = self.text(key, variable)
        return tuple(word.strip() for word in text.split(",") if word.strip())


def load(path: Path | None, env: Mapping[str, str], *, authenticate: bool = True) -> Settings:
    """Read the file, if any, and the environment. Raises `SettingsError`."""
    document = _document(path)
    top = _Source(document, env)
    gluster = _section(document, "glusterfs")
    section = _Source(gluster, env)
    settings = Settings(
        database=Path(section.text("db", "HEKETI_DB_PATH", "/var/lib/heketi/heketi.sqlite")),
        port=_port(top),
        keys=_keys(document, env) if authenticate else None,
        executor=_executor(gluster, section, env),
        limits=_limits(section),
        arbiter_least=section.number("arbiter_min_size_mb", default=304) * 1024,
        average_file=section.number("average_file_size_kb", default=64),
        strict_zones=section.choice("zone_checking", "HEKETI_ZONE_CHECKING", _ZONES) == "strict",
        options_before=section.words(
            "pre_request_volume_options", "HEKETI_PRE_REQUEST_VOLUME_OPTIONS"
        ),
        options_after=section.words(
            "post_request_volume_options", "HEKETI_POST_REQUEST_VOLUME_OPTIONS"
        ),
        inflight=section.number("max_inflight_operations", "HEKETI_MAX_INFLIGHT_OPERATIONS", 8),
        retries=_retries(gluster, env),
        default_state=top.choice("default_state", "HEKETI_DEFAULT_STATE", ADMIN_STATES),
        log_level=section.choice("loglevel", "HEKETI_GLUSTERAPP_LOGLEVEL", LOG_LEVELS, "info"),
    )
    settings = _with_tls(_with_loops(settings, section), top)
    if section.flag("db_read_only"):
        return replace(settings, default_state="read-only", resume=False, cleaner=False)
    return settings


def _document(path: Path | None) -> dict[str, Any]:
    if path is None:
        return {}
    try:
        found: Any = msgspec.json.decode(path.read_bytes())
    except OSError as error:
        raise SettingsError(f"{path} cannot be read: {error.strerror}") from error
    except msgspec.DecodeError as error:
        raise SettingsError(f"{path} is not JSON: {error}") from error
    if not isinstance(found, dict):
        raise SettingsError(f"{path} holds no object; see docs/reference/heketi.md for its keys")
    return found


def _section(document: Mapping[str, Any], key: str) -> dict[str, Any]:
    found = document.get(key) or {}
    if not isinstance(found, dict):
        raise SettingsError(f"{key} is {found!r}: write an object with keys of its own")
    return found


def _port(top: _Source) -> int:
    port = top.number("port", "HEKETI_HTTP_PORT", 8080)
    if not 0 <= port < 1 << 16:
        raise SettingsError(f"port is {port}: write a number up to 65535")
    return port


def _retries(gluster: Mapping[str, Any], env: Mapping[str, str]) -> int:
    limits = _section(gluster, "operation_retry_limits")
    return _Source(limits, env).number("volume_create", default=4)


def _keys(document: Mapping[str, Any], env: Mapping[str, str]) -> Keys:
    jwt = _section(document, "jwt")
    admin = env.get("HEKETI_ADMIN_KEY") or _section(jwt, "admin").get("key") or ""
    user = env.get("HEKETI_USER_KEY") or _section(jwt, "user").get("key") or ""
    if not admin or not user:
        raise SettingsError(
            "jwt.admin.key and jwt.user.key (or HEKETI_ADMIN_KEY and HEKETI_USER_KEY) must both be "
            "set; --disable-auth lets everybody in"
        )
    leeway = _Source({}, env).number("", "HEKETI_JWT_IAT_LEEWAY_SECONDS", ISSUED_LEEWAY)
    return Keys(str(admin), str(user), leeway)


def _limits(section: _Source) -> Limits:
    volumes = section.number(
        "max_volumes_per_cluster", "HEKETI_GLUSTER_MAX_VOLUMES_PER_CLUSTER", 1000
    )
    return Limits(
        brick_most=section.number("brick_max_size_gb", default=4096) * GIB,
        brick_least=section.number("brick_min_size_gb", default=1) * GIB,
        bricks=section.number("max_bricks_per_volume", default=32),
        volumes=volumes,
    )


def _executor(
    gluster: Mapping[str, Any], section: _Source, env: Mapping[str, str]
) -> ExecutorSettings:
    kind = section.text("executor", "HEKETI_EXECUTOR")
    kind = _ALIASES.get(kind, kind)
    if kind not in EXECUTORS:
        raise SettingsError(f"glusterfs.executor is {kind!r}: use {', '.join(EXECUTORS)}")
    layout = section.text("layout", "", "lvm")
    if layout not in ("lvm", "loop"):
        raise SettingsError(f"glusterfs.layout is {layout!r}: use lvm or loop")
    names = {"ssh": "sshexec", "kubernetes": "kubeexec", "namespaces": "nsexec"}
    values = dict(_section(gluster, names.get(kind, "")))
    own = _Source(values, env)
    mounting = Mounting(
        fstab=own.text("fstab", "HEKETI_FSTAB", "/etc/fstab"),
        options=own.text("mountopts", "HEKETI_MOUNT_OPTS", "") or Mounting().options,
    )
    for key, variable in _OVERRIDES.get(kind, {}).items():
        if env.get(variable):
            values[key] = env[variable]
    size = section.number("device_size_gb", "HEKETI_MOCK_DEVICE_SIZE_GB", 0)
    return ExecutorSettings(
        kind=kind,
        layout=layout,
        values=values,
        mounting=mounting,
        timeout=own.number("gluster_cli_timeout", "HEKETI_GLUSTER_CLI_TIMEOUT", 600),
        device_size_gib=size or None,
    )


_OVERRIDES: Mapping[str, Mapping[str, str]] = {
    "ssh": {
        "keyfile": "HEKETI_SSH_KEYFILE",
        "user": "HEKETI_SSH_USER",
        "port": "HEKETI_SSH_PORT",
        "lvm_wrapper": "HEKETI_LVM_WRAPPER",
    },
    "kubernetes": {
        "namespace": "HEKETI_KUBE_NAMESPACE",
        "gluster_daemonset": "HEKETI_KUBE_GLUSTER_DAEMONSET",
        "use_pod_names": "HEKETI_KUBE_USE_POD_NAMES",
        "lvm_wrapper": "HEKETI_LVM_WRAPPER",
    },
}


def truth(value: object) -> bool:
    """Whether a value of a section says yes."""
    return value if isinstance(value, bool) else str(value).lower() in _TRUE


def _with_loops(settings: Settings, section: _Source) -> Settings:
    return replace(
        settings,
        monitor=not section.flag("disable_monitor_gluster_nodes", "HEKETI_DISABLE_HEALTH_MONITOR"),
        monitor_seconds=section.number("refresh_time_monitor_gluster_nodes", default=120),
        monitor_first=section.number("start_time_monitor_gluster_nodes", default=10),
        cleaner=not section.flag("disable_background_cleaner", "HEKETI_DISABLE_BACKGROUND_CLEANER"),
        cleaner_seconds=section.number("refresh_time_background_cleaner", default=3600),
        cleaner_first=section.number("start_time_background_cleaner", default=60),
    )


def _with_tls(settings: Settings, top: _Source) -> Settings:
    if not top.flag("enable_tls"):
        return settings
    certificate, key = top.text("cert_file"), top.text("key_file")
    if not certificate or not key:
        raise SettingsError("enable_tls needs cert_file and key_file")
    try:
        # A key that asks for a password has none.
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(certificate, key, password="")
    except OSError as error:
        why = error.strerror or str(error)
        raise SettingsError(
            f"cert_file {certificate} and key_file {key} cannot be used: {why}"
        ) from error
    return replace(settings, certificate=Path(certificate), key=Path(key))


def environment() -> dict[str, str]:
    """The variables that count."""
    return {key: value for key, value in os.environ.items() if key.startswith("HEKETI_")}
