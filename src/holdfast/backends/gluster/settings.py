"""What a class and a section of `holdfast.toml` may say.

Keys of a class are those of `kubernetes.io/glusterfs`, in any mixture of upper and lower case, as
that plug-in took them. Everything is checked before the service is asked for anything.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from holdfast.backends import errors, parameters
from holdfast.backends.gluster.identity import Connection
from holdfast.backends.parameters import Parameter
from holdfast.kit import suggest

WHERE = "StorageClass parameters"
GID_LEAST, GID_MOST = 2000, 2**31 - 1
PREFIX_MOST = 26
ENDPOINTS_PREFIX = "glusterfs-dynamic"
_DISPERSIONS = ("2:1", "4:2", "8:3", "8:4")

KNOWN = (
    Parameter("resturl", "address of the Heketi service, such as http://10.0.0.5:8080"),
    Parameter("instance", "name of a [gluster.NAME] section, instead of resturl"),
    Parameter("restuser", "user of the service: admin"),
    Parameter("restuserkey", "key of that user; a secret is safer"),
    Parameter("restauthenabled", "whether the service asks for a key", "true"),
    Parameter("secretNamespace", "where the secret with the key is"),
    Parameter("secretName", "secret of type kubernetes.io/glusterfs with the key under `key`"),
    Parameter("clusterid", "clusters to use, separated by commas; all without it"),
    Parameter("gidMin", "first group id for volumes", str(GID_LEAST)),
    Parameter("gidMax", "last group id for volumes", str(GID_MOST)),
    Parameter("volumetype", "replicate:N, disperse:D:R or none", "replicate:3"),
    Parameter("volumeoptions", "options of GlusterFS, separated by commas"),
    Parameter("volumenameprefix", "what volume names begin with, instead of vol"),
    Parameter("snapfactor", "room for snapshots, as a multiple of the size", "1.0"),
    Parameter("customepnameprefix", "what names of Endpoints begin with", ENDPOINTS_PREFIX),
    # Means nothing here; CSI's tools send it all the same.
    Parameter("fsType", "ignored: the file system is GlusterFS"),
)
_BY_LOWER = {key.lower(): p.name for p in KNOWN for key in (p.name, *p.aliases)}


@dataclass(frozen=True, slots=True)
class VolumeClass:
    """The parameters of a class, understood."""

    connection: Connection
    clusters: tuple[str, ...]
    durability: Mapping[str, object]
    gids: range
    options: tuple[str, ...]
    prefix: str
    factor: float
    endpoints_prefix: str
    key: str = field(default="", repr=False)

    @property
    def share(self) -> float:
        """How much of the room that bricks take is the volume's."""
        kind = self.durability["type"]
        if kind == "replicate":
            return 1 / _number(self.durability, "replicate", "replica")
        if kind == "disperse":
            data = _number(self.durability, "disperse", "data")
            return data / (data + _number(self.durability, "disperse", "redundancy"))
        return 1.0


def _number(durability: Mapping[str, object], *path: str) -> int:
    found: object = durability
    for key in path:
        assert isinstance(found, Mapping)
        found = found[key]
    assert isinstance(found, int)
    return found


def spelled(given: Mapping[str, str]) -> dict[str, str]:
    """Return the parameters with every known key as it is written here.

    Raises errors.Invalid for one that is given in two spellings with different values.
    """
    found: dict[str, str] = {}
    for key, value in given.items():
        name = _BY_LOWER.get(key.lower(), key)
        if found.setdefault(name, value) != value:
            raise errors.Invalid(f'"{name}" is given twice with different values', WHERE)
    return found


def read(given: Mapping[str, str], instances: Mapping[str, Instance]) -> VolumeClass:
    """Understand a class. Raises errors.Invalid."""
    values = parameters.read(spelled(given), KNOWN)
    authenticated = _truth("restauthenabled", values["restauthenabled"])
    if bool(values["secretName"]) != bool(values["secretNamespace"]):
        raise _bad("secretName", "secretName and secretNamespace belong together: give both")
    return VolumeClass(
        connection=_connection(values, authenticated, instances),
        clusters=_clusters(values["clusterid"]),
        durability=_durability(values["volumetype"]),
        gids=_gids(values["gidMin"], values["gidMax"]),
        options=tuple(_options(values["volumeoptions"])),
        prefix=_prefix(values["volumenameprefix"]),
        factor=_factor(values["snapfactor"]),
        endpoints_prefix=_endpoints_prefix(values["customepnameprefix"]),
        key=values["restuserkey"] if authenticated else "",
    )


def _bad(key: str, why: str) -> errors.Invalid:
    return errors.Invalid(f'parameter "{key}": {why}', WHERE)


def _truth(key: str, text: str) -> bool:
    # What Go's ParseBool takes.
    if text in ("1", "t", "T", "true", "TRUE", "True"):
        return True
    if text in ("0", "f", "F", "false", "FALSE", "False"):
        return False
    raise _bad(key, f'"{text}" is neither true nor false')


def _connection(
    values: Mapping[str, str], authenticated: bool, instances: Mapping[str, Instance]
) -> Connection:
    url, name = values["resturl"], values["instance"]
    if url and name:
        raise _bad("resturl", "give it or instance, not both")
    if url:
        return Connection(
            url=service_url("resturl", url), user=values["restuser"] if authenticated else ""
        )
    if not name and len(instances) == 1:
        name = next(iter(instances))
    if name in instances:
        return Connection(instance=name)
    known = ", ".join(instances) or "none is configured"
    if not name:
        raise _bad(
            "resturl", f"is required: the address of the Heketi service (instances: {known})"
        )
    raise _bad("instance", f"there is no section [gluster.{name}] ({known})")


def service_url(key: str, text: str) -> str:
    """Return the address of a service in its one form. Raises errors.Invalid."""
    try:
        parts = urlsplit(text.strip())
        port = parts.port
    except ValueError as error:
        raise _bad(key, f'"{text}" is no URL ({error})') from error
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise _bad(key, f'"{text}" is no URL of a service, such as http://10.0.0.5:8080')
    if parts.username or parts.password or parts.query or parts.fragment:
        raise _bad(key, "has only a host, a port and a path; the user is restuser")
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    return f"{parts.scheme}://{host}{f':{port}' if port else ''}{parts.path.rstrip('/')}"


def _clusters(text: str) -> tuple[str, ...]:
    found = tuple(part.strip() for part in text.split(",") if part.strip())
    for part in found:
        if not re.fullmatch(r"[0-9a-fA-F]+", part):
            raise _bad("clusterid", f'"{part}" is no id: see `heketi-cli cluster list`')
    return found


def _durability(text: str) -> Mapping[str, object]:
    parts = text.split(":")
    if parts[0] == "none" and len(parts) == 1:
        return {"type": "none"}
    if parts[0] == "replicate" and len(parts) <= 2:
        count = parts[1] if len(parts) == 2 else "3"
        if count not in ("1", "2", "3"):
            raise _bad("volumetype", f'"{text}": Heketi makes up to 3 replicas')
        return {"type": "replicate", "replicate": {"replica": int(count)}}
    if parts[0] == "disperse" and len(parts) == 3:
        if ":".join(parts[1:]) not in _DISPERSIONS:
            raise _bad("volumetype", f'"{text}": Heketi makes disperse {", ".join(_DISPERSIONS)}')
        amounts = {"data": int(parts[1]), "redundancy": int(parts[2])}
        return {"type": "disperse", "disperse": amounts}
    near = suggest.nearest(parts[0], ("replicate", "disperse", "none"))
    hint = f"did you mean {near}? " if near and near != parts[0] else ""
    raise _bad("volumetype", f'"{text}" is unknown; {hint}replicate:N, disperse:D:R or none')


def _gids(least: str, most: str) -> range:
    bounds = []
    for key, text in (("gidMin", least), ("gidMax", most)):
        if not re.fullmatch(r"[0-9]{1,10}", text) or not GID_LEAST <= int(text) <= GID_MOST:
            raise _bad(key, f'"{text}" is no number from {GID_LEAST} to {GID_MOST}')
        bounds.append(int(text))
    if bounds[0] > bounds[1]:
        raise _bad("gidMax", f"{most} is less than gidMin, {least}")
    # Heketi refuses the very last one.
    return range(bounds[0], min(bounds[1], GID_MOST - 1) + 1)


def _options(text: str) -> list[str]:
    found = [part.strip() for part in text.split(",") if part.strip()]
    for part in found:
        if not re.fullmatch(r"[a-z][a-zA-Z0-9_.-]* +\S.*", part):
            raise _bad("volumeoptions", f'"{part}" is not "KEY VALUE"')
    return found


def _prefix(text: str) -> str:
    if text and not re.fullmatch(r"[a-zA-Z0-9][a-zA-Z0-9-]{0,39}", text):
        raise _bad("volumenameprefix", f'"{text}": up to 40 letters, digits and "-", and no "_"')
    return text


def _factor(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 1 <= value <= 100:
        raise _bad("snapfactor", f'"{text}" is no number from 1 to 100')
    return value


def _endpoints_prefix(text: str) -> str:
    if text and not re.fullmatch(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?", text):
        raise _bad("customepnameprefix", f'"{text}": lower case letters, digits and "-"')
    if len(text) > PREFIX_MOST:
        raise _bad("customepnameprefix", f'"{text}" is longer than {PREFIX_MOST} characters')
    return text


@dataclass(frozen=True, slots=True)
class Instance:
    """A section [gluster.NAME]. The key is read from its file when it is needed.

    `clones` says whether the bricks are on LVM, without which nothing can be cloned.
    """

    url: str
    user: str
    key_file: Path | None
    ca_file: Path | None
    clones: bool = True


_SECTION = ("resturl", "user", "key_file", "ca_file", "clones")


def instances(given: Mapping[str, Mapping[str, object]]) -> dict[str, Instance]:
    """Read all sections. Raises errors.Invalid that names the section and the key."""
    return {name: _instance(name, section) for name, section in given.items()}


def _instance(name: str, section: Mapping[str, object]) -> Instance:
    where = f"holdfast.toml [gluster.{name}]"
    for key, value in section.items():
        if key not in _SECTION:
            raise errors.Invalid(f'unknown key "{key}"', where, suggest.hint(key, _SECTION))
        if key == "clones":
            if not isinstance(value, bool):
                raise errors.Invalid('"clones" is neither true nor false', where)
        elif not isinstance(value, str) or not value:
            raise errors.Invalid(f'"{key}" is not a text in quotes', where)
    if "resturl" not in section:
        raise errors.Invalid("resturl is missing", where, "give the address of the Heketi service")
    key_file, ca_file = (section.get(key) for key in ("key_file", "ca_file"))
    try:
        url = service_url("resturl", str(section["resturl"]))
    except errors.Invalid as error:
        raise errors.Invalid(error.what, where) from error
    return Instance(
        url=url,
        user=str(section.get("user") or ("admin" if key_file else "")),
        key_file=Path(str(key_file)) if key_file else None,
        ca_file=Path(str(ca_file)) if ca_file else None,
        clones=section.get("clones") is not False,
    )
