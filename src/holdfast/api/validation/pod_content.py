"""Rules for what a pod takes from elsewhere: variables, and files of volumes made from objects.

Both may name fields of the pod (the downward API) and keys of config maps and secrets. Files
have a path and a mode; in a projected volume no two files may have one path.

Paths of complaints are the reference's own, also where it names the volume and not the file.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Sequence
from typing import Final

from holdfast.api import fields, quantity
from holdfast.api.fields import Cause
from holdfast.api.validation import names
from holdfast.api.validation.rules import Object, each

_MODE: Final = "must be a number between 0 and 0777 (octal), both inclusive"
_OF_FILES: Final = frozenset(
    {
        "metadata.annotations",
        "metadata.labels",
        "metadata.name",
        "metadata.namespace",
        "metadata.uid",
    }
)
_OF_VARIABLES: Final = frozenset(
    {
        "metadata.name",
        "metadata.namespace",
        "metadata.uid",
        "spec.nodeName",
        "spec.serviceAccountName",
        "status.hostIP",
        "status.hostIPs",
        "status.podIP",
        "status.podIPs",
    }
)
_KNOWN: Final = _OF_FILES | _OF_VARIABLES | {"spec.restartPolicy", "spec.schedulerName"}
_SUBSCRIPT: Final = re.compile(r"(.+)\['(.*)'\]")
_AMOUNTS: Final = tuple(
    f"{part}.{name}"
    for part in ("limits", "requests")
    for name in ("cpu", "memory", "ephemeral-storage")
)
_BYTES: Final = ("1", *(f"1{unit}{i}" for i in ("", "i") for unit in "kKMGTPE"))
_SOURCES: Final = ("fieldRef", "resourceFieldRef", "configMapKeyRef", "secretKeyRef")


def variables(given: Sequence[Object], path: str) -> list[Cause]:
    """Check the `env` of a container."""
    said: list[Cause] = []
    for index, variable in enumerate(given):
        at, name = f"{path}[{index}]", variable.get("name", "")
        if not name:
            said.append(fields.required(f"{at}.name"))
        elif not (name.isascii() and name.isprintable()) or "=" in name:
            rule = (
                "a valid environment variable name must consist only of printable ASCII "
                "characters other than '='"
            )
            said.append(fields.invalid(f"{at}.name", name, rule))
        if variable.get("valueFrom") is not None:
            said += _value_from(variable, f"{at}.valueFrom")
    return said


def _value_from(variable: Object, at: str) -> list[Cause]:
    source: Object = variable["valueFrom"]
    given = [name for name in _SOURCES if source.get(name) is not None]
    said: list[Cause] = []
    if "fieldRef" in given:
        said += _field(source["fieldRef"], f"{at}.fieldRef", _OF_VARIABLES)
    if "resourceFieldRef" in given:
        said += _amount(source["resourceFieldRef"], f"{at}.resourceFieldRef", volume=False)
    for part in ("configMapKeyRef", "secretKeyRef"):
        if part in given:
            said += _key(source[part], f"{at}.{part}")
    if not given:
        rule = (
            "must specify one of: `fieldRef`, `resourceFieldRef`, `configMapKeyRef` "
            "or `secretKeyRef`"
        )
        said.append(fields.invalid(at, "", rule))
    elif variable.get("value"):
        said.append(fields.invalid(at, "", "may not be specified when `value` is not empty"))
    elif len(given) > 1:
        rule = "may not have more than one field specified at a time"
        said.append(fields.invalid(at, "", rule))
    return said


def _key(reference: Object, at: str) -> list[Cause]:
    name, key = reference.get("name", ""), reference.get("key", "")
    said = each(f"{at}.name", name, names.subdomain(name))
    if not key:
        return [*said, fields.required(f"{at}.key")]
    return said + each(f"{at}.key", key, names.data_key(key))


def downward(source: Object, path: str) -> list[Cause]:
    """Check a volume of files that tell about the pod."""
    said = mode(source, "defaultMode", path)
    for file in source.get("items") or ():
        said += _told(file, path)
    return said


def projected(source: Object, path: str) -> list[Cause]:
    """Check a volume into which several sources go."""
    said = mode(source, "defaultMode", path)
    seen: set[str] = set()
    for index, part in enumerate(source.get("sources") or ()):
        said += _projection(part, f"{path}.sources[{index}]", path, seen)
    return said


def _projection(part: Object, at: str, volume: str, seen: set[str]) -> list[Cause]:
    said: list[Cause] = []
    for kind in ("secret", "configMap"):
        inner = part.get(kind)
        if inner is not None:
            if not inner.get("name"):
                said.append(fields.required(f"{at}.{kind}.name"))
            said += items(inner, f"{at}.{kind}")
            said += _twice(inner, volume, seen, inner.get("name", ""))
    if part.get("downwardAPI") is not None:
        for file in part["downwardAPI"].get("items") or ():
            said += _told(file, f"{at}.downwardAPI")
        said += _twice(part["downwardAPI"], volume, seen, None)
    if part.get("serviceAccountToken") is not None:
        said += _token(part["serviceAccountToken"], f"{at}.serviceAccountToken", volume)
    if len(part) > 1:
        rule = "may not specify more than 1 volume type per source"
        said.append(fields.forbidden(at, rule))
    return said


def _twice(source: Object, volume: str, seen: set[str], name: str | None) -> list[Cause]:
    said: list[Cause] = []
    for item in source.get("items") or ():
        path = item.get("path", "")
        if path in seen:
            shown = path if name is None else name
            said.append(fields.invalid(volume, shown, "conflicting duplicate paths"))
        elif path:
            seen.add(path)
    return said


def _token(token: Object, at: str, volume: str) -> list[Cause]:
    said: list[Cause] = []
    seconds = token.get("expirationSeconds", 3600)
    if seconds < 10 * 60:
        rule = "may not specify a duration less than 10 minutes"
        said.append(fields.invalid(f"{at}.expirationSeconds", seconds, rule))
    if seconds > 1 << 32:
        rule = "may not specify a duration larger than 2^32 seconds"
        said.append(fields.invalid(f"{at}.expirationSeconds", seconds, rule))
    if not token.get("path"):
        return [*said, fields.required(f"{volume}.path")]
    return said + inside(token["path"], f"{volume}.path")


def items(source: Object, path: str) -> list[Cause]:
    """Check the keys of a config map or secret and the files they become."""
    said: list[Cause] = []
    for index, item in enumerate(source.get("items") or ()):
        at = f"{path}.items[{index}]"
        said += [fields.required(f"{at}.{part}") for part in ("key", "path") if not item.get(part)]
        said += inside(item.get("path", ""), f"{at}.path")
        said += mode(item, "mode", at)
    return said


def mode(source: Object, name: str, path: str) -> list[Cause]:
    """Check the permissions of a file."""
    value = source.get(name)
    if value is None or 0 <= value <= 0o777:
        return []
    return [fields.invalid(f"{path}.{name}", value, _MODE)]


def inside(path_in_volume: str, path: str) -> list[Cause]:
    """Check that a path stays within the volume and is none that the kubelet keeps for itself."""
    said = below(path_in_volume, path)
    if path_in_volume.startswith("..") and not path_in_volume.startswith("../"):
        said.append(fields.invalid(path, path_in_volume, "must not start with '..'"))
    return said


def below(path_in_volume: str, path: str) -> list[Cause]:
    """Check that a path stays within the volume."""
    said: list[Cause] = []
    if posixpath.isabs(path_in_volume):
        said.append(fields.invalid(path, path_in_volume, "must be a relative path"))
    if ".." in path_in_volume.split("/"):
        said.append(fields.invalid(path, path_in_volume, "must not contain '..'"))
    return said


def _told(file: Object, at: str) -> list[Cause]:
    said: list[Cause] = []
    if not file.get("path"):
        said.append(fields.required(f"{at}.path"))
    said += inside(file.get("path", ""), f"{at}.path")
    field, amount = file.get("fieldRef"), file.get("resourceFieldRef")
    if field is not None:
        said += _field(field, f"{at}.fieldRef", _OF_FILES)
        if amount is not None:
            rule = "fieldRef and resourceFieldRef can not be specified simultaneously"
            said.append(fields.invalid(at, "resource", rule))
    elif amount is not None:
        said += _amount(amount, f"{at}.resourceFieldRef", volume=True)
    else:
        said.append(fields.required(at, "one of fieldRef and resourceFieldRef is required"))
    return said + mode(file, "mode", at)


def _field(reference: Object, at: str, known: frozenset[str]) -> list[Cause]:
    version, given = reference.get("apiVersion") or "v1", reference.get("fieldPath", "")
    path = f"{at}.fieldPath"
    if not given:
        return [fields.required(path)]
    found = _SUBSCRIPT.fullmatch(given)
    part = found[1] if found else given
    why = ""
    if version != "v1":
        why = f"unsupported pod version: {version}"
    elif found and part not in ("metadata.annotations", "metadata.labels"):
        why = f"field label does not support subscript: {given}"
    elif not found and given not in (*_KNOWN, "status.phase", "spec.host"):
        why = f"field label not supported: {given}"
    if why:
        return [fields.invalid(path, given, f"error converting fieldPath: {why}")]
    if found:
        key = found[2].lower() if part == "metadata.annotations" else found[2]
        return each(at, key, names.qualified(key))
    field = "spec.nodeName" if given == "spec.host" else given
    return [] if field in known else [fields.not_supported(path, field, known)]


def _amount(reference: Object, at: str, *, volume: bool) -> list[Cause]:
    resource = reference.get("resource", "")
    said: list[Cause] = []
    if volume and not reference.get("containerName"):
        said.append(fields.required(f"{at}.containerName"))
    elif not resource:
        said.append(fields.required(f"{at}.resource"))
    elif resource not in _AMOUNTS and not resource.startswith(
        ("limits.hugepages-", "requests.hugepages-")
    ):
        said.append(fields.not_supported(f"{at}.resource", resource, _AMOUNTS))
    return said + _divisor(resource, reference.get("divisor") or "0", f"{at}.divisor")


def _divisor(resource: str, divisor: str, path: str) -> list[Cause]:
    if quantity.parse(divisor).nanos == 0:
        return []
    kind = resource.partition(".")[2]
    if kind == "cpu":
        rule = "only divisor's values 1m and 1 are supported with the cpu resource"
        return [] if divisor in ("1", "1m") else [fields.invalid(path, resource, rule)]
    sorts = {"memory": "memory", "ephemeral-storage": "local ephemeral storage"}
    sort = "hugepages" if kind.startswith("hugepages-") else sorts.get(kind)
    if sort is None or divisor in _BYTES:
        return []
    rule = (
        "only divisor's values 1, 1k, 1M, 1G, 1T, 1P, 1E, 1Ki, 1Mi, 1Gi, 1Ti, 1Pi, 1Ei "
        f"are supported with the {sort} resource"
    )
    return [fields.invalid(path, resource, rule)]
