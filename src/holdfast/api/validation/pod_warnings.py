"""What is said to the author of a pod that is accepted but will not do all that it says.

Kubernetes sends such texts as `Warning` headers, for pods and for templates of pods. Here are
those about volumes, variables and amounts; they are never a reason to refuse.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from holdfast.api import fields
from holdfast.api.validation import amounts, legacy_sources, names
from holdfast.api.validation.rules import EMPTY, Object

_FRACTION: Final = "is invalid, must be an integer"
_NEGATIVE: Final = "must be >= 0; negative values are invalid and will be treated as 1"


def of_pod(pod: Object) -> list[str]:
    """The texts for a new pod."""
    said = []
    broken = names.label(pod.get("metadata", EMPTY).get("name", ""))
    if broken:
        said.append(
            "metadata.name: this is used in the Pod's hostname, which can result in surprising "
            f"behavior; a DNS label is recommended: [{' '.join(broken)}]"
        )
    return said + _of_spec(pod.get("spec") or EMPTY, "spec")


def of_template(new: Object, old: Object | None) -> list[str]:
    """The texts for a workload whose specification is new."""
    spec = new.get("spec") or EMPTY
    if old is not None and spec == old.get("spec"):
        return []
    return _of_spec((spec.get("template") or EMPTY).get("spec") or EMPTY, "spec.template.spec")


def _of_spec(spec: Object, path: str) -> list[str]:
    said: list[str] = []
    for index, volume in enumerate(spec.get("volumes") or ()):
        said += _of_volume(volume, f"{path}.volumes[{index}]")
    for part in ("initContainers", "containers"):
        for index, container in enumerate(spec.get(part) or ()):
            at = f"{path}.{part}[{index}]"
            said += _fractions(container.get("resources") or EMPTY, f"{at}.resources")
            said += _hidden(container.get("env") or (), f"{at}.env")
    if (spec.get("terminationGracePeriodSeconds") or 0) < 0:
        said.append(f"{path}.terminationGracePeriodSeconds: {_NEGATIVE}")
    return said


def _of_volume(volume: Object, at: str) -> list[str]:
    said = legacy_sources.warnings(volume, at)
    if {} in ((volume.get("projected") or EMPTY).get("sources") or ()):
        name = fields.quote(volume.get("name", ""))
        said.append(f"volume {name} (Projected) has no sources provided")
    template = (volume.get("ephemeral") or EMPTY).get("volumeClaimTemplate") or EMPTY
    resources = template.get("spec", EMPTY).get("resources", EMPTY)
    path = f"{at}.ephemeral.volumeClaimTemplate.spec.resources"
    return said + _fractions(resources, path, ("storage",))


def _fractions(
    resources: Object, path: str, measured: Iterable[str] = ("memory", "ephemeral-storage")
) -> list[str]:
    return [
        f"{path}.{part}[{name}]: fractional byte value {fields.quote(amount)} {_FRACTION}"
        for name in measured
        for part in ("limits", "requests")
        if (amount := (resources.get(part) or EMPTY).get(name)) and amounts.has_fraction(amount)
    ]


def _hidden(variables: Iterable[Object], path: str) -> list[str]:
    said = []
    seen: set[str] = set()
    for index, variable in enumerate(variables):
        name, value = variable.get("name", ""), variable.get("value", "")
        itself = f"$({name})"
        if name in seen and (
            variable.get("valueFrom") is not None or value == itself or itself not in value
        ):
            said.append(
                f"{path}[{index}]: hides previous definition of {fields.quote(name)}, which may "
                "be dropped when using apply"
            )
        seen.add(name)
    return said
