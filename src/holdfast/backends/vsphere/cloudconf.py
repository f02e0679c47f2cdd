"""Reads `vsphere.conf` in all its generations: the files that clusters already have.

    in-tree     INI: [Global] [VirtualCenter "x"] [Workspace] [Disk] [Network] [Labels];
                before Kubernetes 1.9 everything stood in [Global]
    CSI driver  INI: [Global] cluster-id, [VirtualCenter "x"], [Labels] topology-categories
    external    YAML: global, vcenter, labels

The INI form is git's (gcfg): a section may have a quoted name, values may be quoted, `#` and
`;` begin comments. An unknown key is an error here although the in-tree provider ignored
it: a misspelt `default-datastore` was the commonest reason for volumes in the wrong place.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml

from holdfast.backends import errors
from holdfast.backends.secretrefs import SecretRef
from holdfast.backends.vsphere import configuration
from holdfast.backends.vsphere.configuration import Center, Credentials, Tags, Workspace
from holdfast.kit import suggest

_SECTION = re.compile(r'\[\s*([A-Za-z]+)(?:\s+"((?:[^"\\]|\\.)*)")?\s*\]$')
# Where a Secret is whose namespace the file does not say.
NAMESPACE = "kube-system"
_ESCAPES = {"n": "\n", "t": "\t", "b": "\b", '"': '"', "\\": "\\"}
Sections = dict[tuple[str, str], dict[str, str]]

_LOGIN = "user password server port insecure-flag ca-file thumbprint datacenters"
_GLOBAL = (
    *_LOGIN.split(),
    *["datacenter", "datastore", "working-dir", "soap-roundtrip-count", "vm-uuid", "vm-name"],
    *["secret-name", "secret-namespace", "secrets-directory", "api-disable", "api-binding"],
    *[
        "cluster-id",
        "cluster-distribution",
        "supervisor-id",
        "query-limit",
        "list-volume-threshold",
    ],
    *["csi-auth-check-intervalinmin", "csi-fetch-preferred-datastores-intervalinmin"],
    *["ip-family", "default-datastore", "folder", "scsicontrollertype"],
)
_CENTER = (
    *_LOGIN.split(),
    *["soap-roundtrip-count", "secret-name", "secret-namespace", "ip-family"],
    *["targetvsanfilesharedatastoreurls", "targetvsanfileshareclusters"],
    "migration-datastore-url",
)
_KNOWN: Mapping[str, tuple[str, ...]] = {
    "global": _GLOBAL,
    "virtualcenter": _CENTER,
    "workspace": ("server", "datacenter", "folder", "default-datastore", "resourcepool-path"),
    "disk": ("scsicontrollertype",),
    "network": ("public-network",),
    "labels": ("zone", "region", "topology-categories"),
    "netpermissions": ("ips", "permissions", "rootsquash"),
    "snapshot": (
        "global-max-snapshots-per-block-volume",
        "granular-max-snapshots-per-block-volume-vsan",
        "granular-max-snapshots-per-block-volume-vvol",
    ),
    "topologycategory": ("label",),
    "nodes": ("internal-network-subnet-cidr", "external-network-subnet-cidr"),
    "loadbalancerclass": (),
}


def load(path: Path, instance: str, tags: Tags, credentials: str = "") -> Workspace:
    """Read a file; raises errors.Invalid with the line or key that is wrong.

    `credentials` overrides where user and password come from. The password is read again
    when the file has changed; everything else needs a restart.
    """
    workspace = parse(_text(path), str(path), instance, tags)
    centers = []
    for center in workspace.centers:
        if credentials:
            server = center.server
            source = Path(credentials).expanduser()
            reader = _from_secret_path(source, server)
            centers.append(replace(center, credentials=reader, secret=None))
        else:
            reader = configuration.watched(path, _again(path, instance, center.name))
            centers.append(replace(center, credentials=reader))
    return replace(workspace, centers=tuple(centers))


def _from_secret_path(path: Path, server: str) -> Any:
    return lambda: configuration.from_path(path, server)


def _again(path: Path, instance: str, center: str) -> Any:
    def read() -> Credentials:
        fresh = parse(_text(path), str(path), instance, Tags())
        found = next((each for each in fresh.centers if each.name == center), None)
        if found is None:
            raise errors.Unauthorized(
                f"vCenter {center} is no longer there", str(path), "restart Holdfast"
            )
        return found.credentials()

    return read


def parse(text: str, place: str, instance: str, tags: Tags) -> Workspace:
    """Read the text of a file of either form; `place` is its name for error messages."""
    first = next((line.strip() for line in text.splitlines() if _meaningful(line)), "")
    if first.startswith("["):
        return _workspace(sections(text, place), place, instance, tags)
    return _workspace(_from_yaml(text, place), place, instance, tags)


def sections(text: str, place: str) -> Sections:
    """Return keys (lower case) and values by section and its quoted name."""
    found: Sections = {}
    current: dict[str, str] | None = None
    for number, raw in enumerate(text.splitlines(), 1):
        line = _uncommented(raw).strip()
        if not line:
            continue
        where = f"{place}:{number}"
        if line.startswith("["):
            current = found.setdefault(_heading(line, where), {})
            section = line
        elif current is None:
            raise errors.Invalid("a key stands before the first section", where, "add [Global]")
        else:
            key, equals, value = line.partition("=")
            if not equals:
                # Behind the first word there may be a password.
                word = line.split()[0][:40]
                raise errors.Invalid(f"no key = value: {word}", where, f"in {section}")
            current[key.strip().lower()] = _value(value.strip(), where)
    for (section, _), content in found.items():
        for key in content:
            _check_key(section, key, place)
    return found


def _heading(line: str, where: str) -> tuple[str, str]:
    match = _SECTION.match(line)
    if match is None:
        raise errors.Invalid(f"no section heading: {line}", where, 'as in [VirtualCenter "host"]')
    section = match[1].lower()
    if section not in _KNOWN:
        guess = suggest.nearest(section, _KNOWN)
        hint = f"did you mean [{guess}]?" if guess else f"known: {', '.join(_KNOWN)}"
        raise errors.Invalid(f"unknown section [{match[1]}]", where, hint)
    return section, (match[2] or "").replace('\\"', '"')


def _check_key(section: str, key: str, place: str) -> None:
    known = _KNOWN[section]
    if known and key not in known:
        raise errors.Invalid(f'unknown key "{key}" in [{section}]', place, suggest.hint(key, known))


def _value(text: str, where: str) -> str:
    """Return what git reads: quotes may stand around any part, and escapes in all of them."""
    found: list[str] = []
    quoted = escaped = False
    for character in text:
        if escaped:
            # A backslash that means nothing to git is kept: DOMAIN\user.
            found.append(_ESCAPES.get(character, f"\\{character}"))
            escaped = False
        elif character == "\\":
            escaped = True
        elif character == '"':
            quoted = not quoted
        else:
            found.append(character)
    if quoted:
        remedy = 'end it with ", and write \\" for one in it'
        raise errors.Invalid("a quoted value does not end", where, remedy)
    return "".join(found) + ("\\" if escaped else "")


def _meaningful(line: str) -> bool:
    return bool(line.strip()) and not line.lstrip().startswith(("#", ";", "---"))


def _uncommented(line: str) -> str:
    quoted = escaped = False
    for at, character in enumerate(line):
        if escaped:
            escaped = False
        elif character == "\\":
            escaped = True
        elif character == '"':
            quoted = not quoted
        elif character in "#;" and not quoted:
            return line[:at]
    return line


def _workspace(found: Sections, place: str, instance: str, tags: Tags) -> Workspace:
    common = found.get(("global", ""), {})
    work = found.get(("workspace", ""), {})
    labels = found.get(("labels", ""), {})
    named = {
        name: content for (section, name), content in found.items() if section == "virtualcenter"
    }
    if not named and common.get("server"):
        # Before Kubernetes 1.9 there was one vCenter, all of it in [Global].
        named = {common["server"]: {}}
    if not named and work.get("server"):
        named = {work["server"]: {}}
    if not named:
        raise errors.Invalid("no vCenter is named", place, 'add [VirtualCenter "HOST"]')
    centers = [_center(name, content, common, place) for name, content in named.items()]
    home = work.get("server") or common.get("server") or centers[0].server
    if all(center.server != home for center in centers):
        raise errors.Invalid(
            f'[Workspace] server "{home}" is none of the vCenters',
            place,
            f"known: {', '.join(center.server for center in centers)}",
        )
    centers.sort(key=lambda center: center.server != home)
    return Workspace(
        name=instance,
        centers=tuple(centers),
        datacenter=work.get("datacenter") or _first(common, centers[0]),
        folder=work.get("folder") or common.get("folder") or common.get("working-dir", ""),
        default_datastore=_default_datastore(work, common),
        resource_pool=work.get("resourcepool-path", ""),
        controller=configuration.controller(_controller(found, common), place),
        public_network=found.get(("network", ""), {}).get("public-network", ""),
        cluster_id=common.get("cluster-id", ""),
        tags=_tags(tags, labels),
        place=place,
    )


def _default_datastore(work: Mapping[str, str], common: Mapping[str, str]) -> str:
    return (
        work.get("default-datastore")
        or common.get("default-datastore")
        or common.get("datastore", "")
    )


def _controller(found: Sections, common: Mapping[str, str]) -> str:
    disk = found.get(("disk", ""), {})
    return disk.get("scsicontrollertype") or common.get("scsicontrollertype", "")


def _first(common: Mapping[str, str], home: Center) -> str:
    given = common.get("datacenter", "")
    return given or (home.datacenters[0] if home.datacenters else "")


def _tags(tags: Tags, labels: Mapping[str, str]) -> Tags:
    region, zone = labels.get("region", ""), labels.get("zone", "")
    categories = [part.strip() for part in labels.get("topology-categories", "").split(",")]
    if not region and len(categories) >= 2:
        region, zone = categories[0], categories[1]
    return replace(
        tags,
        region_category=tags.region_category or region,
        zone_category=tags.zone_category or zone,
    )


def _center(name: str, own: Mapping[str, str], common: Mapping[str, str], place: str) -> Center:
    def setting(key: str) -> str:
        return own.get(key) or common.get(key, "")

    port = setting("port") or str(configuration.PORT)
    if not port.isdigit() or not 0 < int(port) < 65536:
        raise errors.Invalid(f'port "{port}" is no port number', place, "443 is vCenter's")
    datacenters = setting("datacenters") or common.get("datacenter", "")
    user, password = setting("user"), setting("password")
    server = own.get("server") or name
    secret = None if user and password else _secret(setting)
    return Center(
        server=server,
        port=int(port),
        datacenters=tuple(part.strip() for part in datacenters.split(",") if part.strip()),
        insecure=setting("insecure-flag").lower() in ("1", "true", "yes", "on"),
        ca_file=setting("ca-file"),
        thumbprint=setting("thumbprint"),
        secret=secret,
        credentials=_fixed(user, password, place, server, secret),
    )


def _secret(setting: Callable[[str], str]) -> SecretRef | None:
    """Return the Secret a file says the credentials are in."""
    name = setting("secret-name")
    return SecretRef(setting("secret-namespace") or NAMESPACE, name) if name else None


def _fixed(user: str, password: str, place: str, server: str, secret: SecretRef | None) -> Any:
    def read() -> Credentials:
        if user and password:
            return Credentials(user, password)
        if secret is not None:
            # Whoever has an API reads the Secret and does not come here.
            raise errors.Unauthorized(
                f"the credentials for vCenter {server} are in the Secret {secret} (secret-name), "
                "and no Kubernetes API is known here",
                place,
                "mount the Secret and set secret_dir to its directory in the instance, or name it "
                "in the class: csi.storage.k8s.io/provisioner-secret-name and -namespace",
            )
        if not user:
            raise errors.Unauthorized(
                f"no user is named for vCenter {server}",
                place,
                "add user and password, or set secret_dir to where the Secret is mounted",
            )
        return Credentials(user, password)

    return read


def _from_yaml(text: str, place: str) -> Sections:
    try:
        document = yaml.safe_load(text)
    except yaml.YAMLError as error:
        # PyYAML quotes the text it could not read, and that may be a password.
        mark = getattr(error, "problem_mark", None)
        line = f":{mark.line + 1}" if mark else ""
        raise errors.Invalid("is neither an INI file nor YAML", f"{place}{line}", "") from None
    if not isinstance(document, dict) or not isinstance(document.get("vcenter"), dict):
        raise errors.Invalid("no vCenter is named", place, "add vcenter: {NAME: {server: ...}}")
    found: Sections = {("global", ""): _keys(document.get("global"))}
    for name, content in document["vcenter"].items():
        found["virtualcenter", str(name)] = _keys(content)
    found["labels", ""] = _keys(document.get("labels"))
    for (section, _), content in found.items():
        for key in content:
            _check_key(section, key, place)
    return found


def _keys(content: Any) -> dict[str, str]:
    if not isinstance(content, dict):
        return {}
    return {_dashed(str(key)): _plain(value) for key, value in content.items() if value is not None}


def _dashed(key: str) -> str:
    dashed = re.sub(r"(?<=[a-z])([A-Z])", r"-\1", key).lower()
    return "insecure-flag" if dashed in ("insecure", "insecure-flag") else dashed


def _plain(value: Any) -> str:
    if isinstance(value, list):
        return ",".join(str(part) for part in value)
    return str(value).lower() if isinstance(value, bool) else str(value)


def _text(path: Path) -> str:
    try:
        # Editors of other systems begin a file with a byte order mark.
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise errors.Invalid("is no UTF-8 text", str(path), "") from error
    except OSError as error:
        raise errors.Invalid(
            f"cannot be read ({error.strerror})", str(path), "correct the key config"
        ) from error
