"""What is known of each vCenter before anyone asks it: the instances of `holdfast.toml`.

An instance `[vsphere.NAME]` either names a `vsphere.conf` with the key `config`, or has the
same settings as keys of its own. Both become one `Workspace`: where volumes go, and the
vCenters behind it. Passwords are not kept here: `Center.credentials` reads them from where
they are, each time somebody logs in, so that a changed file or Secret counts at once.

Invariant: a Workspace that exists is complete. An unknown key or an impossible value is
errors.Invalid, with the place and the nearest key.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from holdfast.backends import errors
from holdfast.backends.secretrefs import SecretRef
from holdfast.kit import suggest

PORT = 443
CONTROLLERS = ("pvscsi", "lsilogic-sas")


@dataclass(frozen=True, slots=True)
class Credentials:
    """A user of a vCenter."""

    user: str
    password: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Center:
    """One vCenter. `datacenters` limits where VMs and datastores are looked for; empty: all."""

    server: str
    port: int = PORT
    datacenters: tuple[str, ...] = ()
    insecure: bool = False
    ca_file: str = ""
    thumbprint: str = ""
    secret: SecretRef | None = None  # where the API has user and password; see secretlogins
    credentials: Callable[[], Credentials] = field(
        default=lambda: Credentials("", ""), repr=False, compare=False
    )

    @property
    def name(self) -> str:
        """How ids and errors call it: its address, with the port if that is unusual."""
        return self.server if self.port == PORT else f"{self.server}:{self.port}"


@dataclass(frozen=True, slots=True)
class Tags:
    """Which tags are regions and zones, and what classes are made from tagged datastores."""

    region_category: str = ""
    zone_category: str = ""
    region: str = ""  # the tag of the region whose datastores become classes; empty: all
    zones: tuple[str, ...] = ()  # empty: all
    exclude: tuple[str, ...] = ()  # regular expressions for whole class names
    default_class: str = ""  # empty: the first by name
    legacy: bool = False  # classes of kubernetes.io/vsphere-volume instead of the CSI name's
    policies: bool = False  # also one class for each datastore and policy
    topology: Mapping[str, str] = field(default_factory=dict)  # node label keys; see discovery

    @property
    def wanted(self) -> bool:
        """Whether classes are to be made from tags."""
        return bool(self.region_category and self.zone_category)


@dataclass(frozen=True, slots=True)
class Workspace:
    """Where one instance keeps its volumes, and the vCenters it may use; the first is home."""

    name: str
    centers: tuple[Center, ...]
    datacenter: str = ""
    folder: str = ""  # the VMs in it are the nodes
    default_datastore: str = ""
    resource_pool: str = ""
    controller: str = "pvscsi"
    public_network: str = ""
    cluster_id: str = ""
    tags: Tags = field(default_factory=Tags)
    place: str = ""  # where this was written, for error messages

    @property
    def home(self) -> Center:
        """The vCenter where new volumes go."""
        return self.centers[0]


_KEYS: Mapping[str, type] = {
    "config": str,
    "server": str,
    "port": int,
    "user": str,
    "password": str,
    "credentials_file": str,
    "secret_dir": str,
    "insecure": bool,
    "ca_file": str,
    "thumbprint": str,
    "datacenters": list,
    "datacenter": str,
    "folder": str,
    "default_datastore": str,
    "resource_pool": str,
    "scsi_controller": str,
    "public_network": str,
    "cluster_id": str,
    "region_category": str,
    "zone_category": str,
    "region": str,
    "zones": list,
    "exclude": list,
    "default_class": str,
    "legacy_classes": bool,
    "policy_classes": bool,
    "device_dir": str,
}
# What says how classes are made may stand beside `config`; the rest is the file's to say.
_BESIDE_CONFIG = frozenset(
    {
        "config",
        "credentials_file",
        "secret_dir",
        "region",
        "zones",
        "exclude",
        "default_class",
        "legacy_classes",
        "policy_classes",
        "region_category",
        "zone_category",
        "device_dir",
    }
)


def read(instances: Mapping[str, Mapping[str, object]]) -> dict[str, Workspace]:
    """Return the workspaces by instance name; raises errors.Invalid.

    No password is read and no file but a `vsphere.conf` is opened.
    """
    found = {name: read_one(name, settings) for name, settings in instances.items()}
    seen: dict[str, str] = {}
    for name, workspace in found.items():
        for center in workspace.centers:
            if other := seen.get(center.name):
                raise errors.Invalid(
                    f"vCenter {center.name} is configured twice, in {other} and here",
                    f"[vsphere.{name}]",
                    "keep one, and list all datacenters there",
                )
            seen[center.name] = f"[vsphere.{name}]"
    return found


def read_one(name: str, settings: Mapping[str, object]) -> Workspace:
    """Return the workspace of one `[vsphere.NAME]` section."""
    place = f"[vsphere.{name}]"
    for key, value in settings.items():
        _check(place, key, value)
    if "config" in settings:
        from holdfast.backends.vsphere import cloudconf

        surplus = sorted(set(settings) - _BESIDE_CONFIG)
        if surplus:
            raise errors.Invalid(
                f'"{surplus[0]}" cannot stand beside "config"', place, "write it into the file"
            )
        path = Path(str(settings["config"])).expanduser()
        credentials = _credentials_path(settings)
        return cloudconf.load(path, name, tags_of(settings, place), credentials)
    return _inline(name, settings, place)


def _inline(name: str, settings: Mapping[str, object], place: str) -> Workspace:
    if not settings.get("server"):
        raise errors.Invalid('"server" is missing', place, "name the vCenter, or a config file")

    def text(key: str) -> str:
        return str(settings.get(key) or "")

    center = Center(
        server=text("server"),
        port=int(text("port") or PORT),
        datacenters=_names(settings.get("datacenters")) or _names(text("datacenter")),
        insecure=bool(settings.get("insecure")),
        ca_file=text("ca_file"),
        thumbprint=text("thumbprint"),
        credentials=_source(settings, place),
    )
    return Workspace(
        name=name,
        centers=(center,),
        datacenter=text("datacenter"),
        folder=text("folder"),
        default_datastore=text("default_datastore"),
        resource_pool=text("resource_pool"),
        controller=controller(text("scsi_controller"), place),
        public_network=text("public_network"),
        cluster_id=text("cluster_id"),
        tags=tags_of(settings, place),
        place=place,
    )


def tags_of(settings: Mapping[str, object], place: str) -> Tags:
    """Return what an instance says about tags and classes; raises errors.Invalid."""
    for pattern in _names(settings.get("exclude")):
        try:
            re.compile(pattern)
        except re.error as error:
            raise errors.Invalid(
                f'"{pattern}" in "exclude" is no regular expression ({error})', place, ""
            ) from error
    return Tags(
        region_category=str(settings.get("region_category") or ""),
        zone_category=str(settings.get("zone_category") or ""),
        region=str(settings.get("region") or ""),
        zones=_names(settings.get("zones")),
        exclude=_names(settings.get("exclude")),
        default_class=str(settings.get("default_class") or ""),
        legacy=bool(settings.get("legacy_classes")),
        policies=bool(settings.get("policy_classes")),
    )


def controller(text: str, place: str) -> str:
    """Return a SCSI controller's type; raises errors.Invalid."""
    if not text:
        return CONTROLLERS[0]
    if text not in CONTROLLERS:
        raise errors.Invalid(
            f'the SCSI controller cannot be "{text}"', place, f"use {' or '.join(CONTROLLERS)}"
        )
    return text


def _source(settings: Mapping[str, object], place: str) -> Callable[[], Credentials]:
    given = _credentials_path(settings)
    if given:
        server = str(settings["server"])
        return lambda: from_path(Path(given).expanduser(), server)
    if not settings.get("user") or "password" not in settings:
        return _nobody(place)
    fixed = Credentials(str(settings["user"]), str(settings["password"]))
    return lambda: fixed


def _credentials_path(settings: Mapping[str, object]) -> str:
    return str(settings.get("secret_dir") or settings.get("credentials_file") or "")


def _nobody(place: str) -> Callable[[], Credentials]:
    def refuse() -> Credentials:
        raise errors.Unauthorized(
            "no user and password are known for this vCenter",
            place,
            "set secret_dir to a mounted Secret, or credentials_file, or name one in the class",
        )

    return refuse


def from_path(path: Path, server: str) -> Credentials:
    """Read credentials from a directory (a mounted Secret) or a file of `key = value` lines.

    The keys are `SERVER.username` and `SERVER.password` as in the Secret of the vSphere cloud
    provider, or plain `username` and `password`. Raises errors.Unauthorized.
    """
    try:
        if path.is_dir():
            # A mounted Secret holds hidden directories besides its keys.
            content = {
                each.name: each.read_text(encoding="utf-8").strip("\r\n")
                for each in path.iterdir()
                if not each.name.startswith(".") and each.is_file()
            }
        else:
            lines = path.read_text(encoding="utf-8").splitlines()
            pairs = (line.partition("=") for line in lines if not line.lstrip().startswith("#"))
            content = {key.strip(): unquoted(value.strip()) for key, _, value in pairs if value}
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "no UTF-8 text"
        raise errors.Unauthorized(
            f"the credentials cannot be read ({reason})", str(path), "correct the path or its mode"
        ) from error
    return from_secret(content, server, str(path))


def from_secret(content: Mapping[str, str], server: str, where: str) -> Credentials:
    """Read credentials from a Secret's values; raises errors.Unauthorized naming the keys."""
    for prefix in (f"{server}.", ""):
        user = content.get(f"{prefix}username") or content.get(f"{prefix}user")
        password = content.get(f"{prefix}password")
        if user and password is not None:
            return Credentials(user, password)
    raise errors.Unauthorized(
        f'neither "{server}.username" and "{server}.password" nor "username" and "password"',
        where,
        "add both keys",
    )


def unquoted(text: str) -> str:
    """Return a value without the quotes around it; \\" and \\\\ stand for themselves."""
    if len(text) >= 2 and text[0] == text[-1] == '"':
        return re.sub(r'\\(["\\])', r"\1", text[1:-1])
    return text


def _names(value: object) -> tuple[str, ...]:
    if isinstance(value, str):
        return tuple(part.strip() for part in value.split(",") if part.strip())
    if isinstance(value, list | tuple):
        return tuple(str(part) for part in value)
    return ()


def _check(place: str, key: str, value: object) -> None:
    wanted = _KEYS.get(key)
    if wanted is None:
        guess = suggest.nearest(key, _KEYS)
        hint = f"did you mean {guess}?" if guess else f"known here: {', '.join(_KEYS)}"
        raise errors.Invalid(f'unknown key "{key}"', place, hint)
    accepted: tuple[type, ...] = (list, tuple, str) if wanted is list else (wanted,)
    if not isinstance(value, accepted) or (isinstance(value, bool) and wanted is not bool):
        kind = {
            str: "text",
            int: "a whole number",
            bool: "true or false",
            list: "a list",
            dict: "a table",
        }[wanted]
        raise errors.Invalid(f'"{key}" must be {kind}', place, "")


def watched(path: Path, parse: Callable[[], Credentials]) -> Callable[[], Credentials]:
    """Return a reader that parses `path` again when it has changed.

    A file that cannot be read for a moment, as while it is replaced, leaves what was known.
    """
    known: list[tuple[tuple[int, int], Credentials]] = []

    def read_again() -> Credentials:
        try:
            found = path.stat()
        except OSError:
            if known:
                return known[0][1]
            return parse()
        stamp = (found.st_mtime_ns, found.st_ino)
        if not known or known[0][0] != stamp:
            known[:] = [(stamp, parse())]
        return known[0][1]

    return read_again
