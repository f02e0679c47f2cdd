"""The manifests that install Holdfast on a cluster: the chart's templates with values in them.

Values are those of the chart's values.yaml; a name that is not there is an error with the nearest
one, because a misspelt setting that does nothing is found too late.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator, Mapping
from importlib import resources
from typing import Any

import yaml

from holdfast.backends import registry
from holdfast.kit import suggest
from holdfast.server.deploy import templates

# Templates in the order in which a cluster wants them.
_ORDER = (
    "namespace.yaml",
    "accounts.yaml",
    "config.yaml",
    "roles.yaml",
    "drivers.yaml",
    "controller.yaml",
    "node.yaml",
    "monitor.yaml",
)
# Below these, names are the user's own.
_FREE = frozenset({"nodeSelector", "labels", "resources", "requests", "limits"})

Values = dict[str, Any]


class InstallError(Exception):
    """A value cannot be used: which, and what to do."""


def defaults() -> Values:
    """Return the chart's values."""
    found: Values = yaml.safe_load(values_text())
    return found


def values_text() -> str:
    """Return values.yaml with its comments."""
    return str(_chart().joinpath("values.yaml").read_text(encoding="utf-8"))


def enable(values: Values, backend: str) -> None:
    """Enable the driver that is Holdfast's own for a backend, in place. Raises InstallError.

    Where it has none of its own, the one name that Kubernetes knows it by is meant.
    """
    known = [name for name, of in registry.DRIVERS.items() if of == backend]
    name = next((each for each in known if each.endswith(".holdfast.dev")), "")
    name = name or next(iter(known), "")
    if name not in values["drivers"]:
        raise InstallError(f"--storage {backend}: there is no CSI driver for it here")
    values["drivers"][name]["enabled"] = True


def with_settings(values: Values, settings: Iterable[str]) -> Values:
    """Return values with `NAME=VALUE` settings, written as for helm's --set. Raises InstallError.

    A dot in a name is written with a backslash before it; a value is read as true, false, a number
    or text, and `{a,b}` as a list.
    """
    changed = copy.deepcopy(values)
    for setting in settings:
        name, equals, text = setting.partition("=")
        if not equals:
            raise InstallError(f"--set {setting}: write NAME=VALUE")
        _set(changed, name, _keys(name), _read(text))
    return changed


def render(values: Values, namespace: str) -> str:
    """Return all manifests as one YAML text, comments left out. Raises InstallError."""
    return yaml.safe_dump_all(
        objects(values, namespace), sort_keys=False, explicit_start=True, width=1 << 20
    )


def objects(values: Values, namespace: str) -> Iterator[dict[str, Any]]:
    """Yield every object. Raises InstallError."""
    top = {"Values": values, "Release": {"Namespace": namespace}}
    for name in _ORDER:
        text = _chart().joinpath("templates", name).read_text(encoding="utf-8")
        try:
            rendered = templates.render(name, text, top)
            yield from (each for each in yaml.safe_load_all(rendered) if each)
        except templates.TemplateError as error:
            raise InstallError(str(error)) from error
        except yaml.YAMLError as error:
            raise InstallError(f"{name}: a value does not fit where it stands: {error}") from error


def enabled(values: Values) -> list[str]:
    """Return the drivers that are to be installed."""
    return sorted(name for name, each in values["drivers"].items() if each["enabled"])


def _set(values: Values, name: str, keys: list[str], value: Any) -> None:
    place: Any = values
    free = False
    for number, key in enumerate(keys):
        last = number == len(keys) - 1
        if not free and (not isinstance(place, Mapping) or key not in place):
            known = place if isinstance(place, Mapping) else ()
            hint = suggest.hint(key, known)
            raise InstallError(f"--set {name}: there is no value {key}; {hint}")
        free = free or key in _FREE
        if last:
            place[key] = value
        else:
            place = place.setdefault(key, {})


def _keys(name: str) -> list[str]:
    parts = name.replace("\\.", "\0").split(".")
    return [part.replace("\0", ".") for part in parts]


def _read(text: str) -> Any:
    if text.startswith("{") and text.endswith("}"):
        return [_read(part) for part in text[1:-1].split(",") if part]
    if text in ("true", "false"):
        return text == "true"
    if text.isdigit() and (text == "0" or not text.startswith("0")):
        return int(text)
    return text.replace("\\,", ",")


def _chart() -> Any:
    return resources.files("holdfast.server.deploy").joinpath("chart")
