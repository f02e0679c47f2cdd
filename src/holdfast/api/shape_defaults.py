"""Defaults: what an object says where its author said nothing.

Most defaults are constants and stand with their field in the data. The few that
depend on other fields (the pull policy on the image's tag, a request on its limit)
are functions in the table at the end. Per type, the function runs first, then the
constants, then the types of the fields.

Invariant: defaulting twice is the same as defaulting once, and it looks at nothing
but the object itself. Types with no default anywhere below cost nothing.
"""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

from holdfast.api import quantity

if TYPE_CHECKING:
    from holdfast.api.shapes import Field, Shape

Defaulter = Callable[[dict[str, Any]], None]
"""Fills in the defaults of a decoded structure, in place."""

_IMMUTABLE: Final = (str, int, bool)


def compile_structure(shape: Shape) -> Defaulter | None:
    """Return the function that fills in the defaults of a type; None if there are none."""
    rule = _RULES.get(shape.name)
    constants = tuple(_constants(shape.fields.values()))
    parts = tuple(_parts(shape.fields.values()))
    if rule is None and not constants and not parts:
        return None

    def fill(obj: dict[str, Any]) -> None:
        if rule is not None:
            rule(obj)
        for name, make in constants:
            if name not in obj:
                obj[name] = make()
        for name, descend in parts:
            value = obj.get(name)
            if value is not None:
                descend(value)

    return fill


def _constants(fields: Iterable[Field]) -> Iterable[tuple[str, Callable[[], Any]]]:
    for field in fields:
        if field.default is not None:
            yield field.name, _maker(field.default)


def _maker(value: Any) -> Callable[[], Any]:
    if isinstance(value, _IMMUTABLE):
        return lambda: value
    return lambda: copy.deepcopy(value)


def _parts(fields: Iterable[Field]) -> Iterable[tuple[str, Callable[[Any], None]]]:
    """Yield the fields with something to fill in below them, each with what does it."""
    for field in fields:
        if field.is_map and field.leaf == "quantity":
            yield field.name, _round_resources
        element = field.element
        fill = element.defaulter if element is not None else None
        if fill is not None:
            yield field.name, functools.partial(_each, fill) if field.is_list else fill


def _each(fill: Defaulter, values: list[dict[str, Any]]) -> None:
    for value in values:
        fill(value)


_MILLI = quantity.NANO // 1000


def _round_resources(resources: dict[str, str]) -> None:
    """Amounts of resources have no finer unit than a thousandth; finer ones round up."""
    for name, amount in resources.items():
        # No other text stands for anything finer, and nearly all are as simple as this.
        if amount[-1] in "nu" or "." in amount or "-" in amount:
            found = quantity.parse(amount)
            if milli := found.nanos % _MILLI:
                rounded = found.nanos - milli + _MILLI
                resources[name] = quantity.Quantity(rounded, found.family).canonical()


def _namespace(obj: dict[str, Any]) -> None:
    """Every namespace carries its name as a label, so that selectors can name it."""
    metadata = obj.setdefault("metadata", {})
    name = metadata.get("name")
    if name:
        metadata["labels"] = {**metadata.get("labels", {}), "kubernetes.io/metadata.name": name}


def _volume_object(obj: dict[str, Any]) -> None:
    """Not of its spec: that of a volume inside a VolumeAttachment stays as it was given."""
    spec = obj.get("spec")
    if spec is not None:
        spec.setdefault("persistentVolumeReclaimPolicy", "Retain")
        spec.setdefault("volumeMode", "Filesystem")


def _node_status(obj: dict[str, Any]) -> None:
    if "capacity" in obj and "allocatable" not in obj:
        obj["allocatable"] = dict(obj["capacity"])


def _pod_spec(obj: dict[str, Any]) -> None:
    _mirror(obj, "serviceAccountName", "serviceAccount")
    if obj.get("hostNetwork"):
        for container in (*obj.get("containers", ()), *obj.get("initContainers", ())):
            for port in container.get("ports", ()):
                port.setdefault("hostPort", port.get("containerPort", 0))


def _pod(obj: dict[str, Any]) -> None:
    """What a pod says and the template of one does not."""
    spec = obj.get("spec")
    if spec is None:
        return
    spec.setdefault("enableServiceLinks", True)
    for container in (*spec.get("containers", ()), *spec.get("initContainers", ())):
        resources = container.get("resources", {})
        limits = resources.get("limits", {})
        if limits:
            # Who limits a resource without asking for an amount asks for the limit.
            resources["requests"] = {**limits, **resources.get("requests", {})}


def _mirror(obj: dict[str, Any], name: str, old_name: str) -> None:
    """Keep a field and its former name equal; the present name wins."""
    value = obj.get(name) or obj.get(old_name)
    if value:
        obj[name] = obj[old_name] = value


def _container(obj: dict[str, Any]) -> None:
    if not obj.get("imagePullPolicy"):
        obj["imagePullPolicy"] = _pull_policy(obj.get("image", ""))


def _image_volume(obj: dict[str, Any]) -> None:
    if not obj.get("pullPolicy"):
        obj["pullPolicy"] = _pull_policy(obj.get("reference", ""))


def _pull_policy(image: str) -> str:
    """An image named by digest or by a tag other than `latest` need not be looked up again."""
    name, _, digest = image.partition("@")
    # A colon before the last slash belongs to a port of the registry.
    tag = name.rpartition("/")[2].partition(":")[2]
    if tag == "latest" or not (tag or digest):
        return "Always"
    return "IfNotPresent"


def _volume(obj: dict[str, Any]) -> None:
    if obj.keys() <= {"name"}:
        obj["emptyDir"] = {}


def _service_spec(obj: dict[str, Any]) -> None:
    kind = obj.setdefault("type", "ClusterIP")
    if obj.setdefault("sessionAffinity", "None") == "None":
        obj.pop("sessionAffinityConfig", None)
    else:
        client = obj.setdefault("sessionAffinityConfig", {}).setdefault("clientIP", {})
        client.setdefault("timeoutSeconds", 3 * 60 * 60)
    if kind in ("NodePort", "LoadBalancer") or obj.get("externalIPs"):
        obj.setdefault("externalTrafficPolicy", "Cluster")
    if kind in ("ClusterIP", "NodePort", "LoadBalancer"):
        obj.setdefault("internalTrafficPolicy", "Cluster")
    if kind == "LoadBalancer":
        obj.setdefault("allocateLoadBalancerNodePorts", True)


def _service_port(obj: dict[str, Any]) -> None:
    if not obj.get("targetPort"):
        obj["targetPort"] = obj.get("port", 0)


def _deployment_spec(obj: dict[str, Any]) -> None:
    strategy = obj.setdefault("strategy", {})
    if strategy.setdefault("type", "RollingUpdate") == "RollingUpdate":
        steps = strategy.setdefault("rollingUpdate", {})
        steps.setdefault("maxUnavailable", "25%")
        steps.setdefault("maxSurge", "25%")


def _stateful_set_spec(obj: dict[str, Any]) -> None:
    obj.setdefault("podManagementPolicy", "OrderedReady")
    strategy = obj.setdefault("updateStrategy", {})
    if strategy.setdefault("type", "RollingUpdate") == "RollingUpdate":
        strategy.setdefault("rollingUpdate", {}).setdefault("partition", 0)
    retention = obj.setdefault("persistentVolumeClaimRetentionPolicy", {})
    retention.setdefault("whenDeleted", "Retain")
    retention.setdefault("whenScaled", "Retain")
    for claim in obj.get("volumeClaimTemplates", ()):
        claim.update(apiVersion="v1", kind="PersistentVolumeClaim")
        claim.setdefault("status", {}).setdefault("phase", "Pending")


_RULES: Final[Mapping[str, Defaulter]] = MappingProxyType(
    {
        "Namespace": _namespace,
        "NodeStatus": _node_status,
        "PersistentVolume": _volume_object,
        "Pod": _pod,
        "PodSpec": _pod_spec,
        "Container": _container,
        "EphemeralContainer": _container,
        "ImageVolumeSource": _image_volume,
        "Volume": _volume,
        "ServiceSpec": _service_spec,
        "ServicePort": _service_port,
        "DeploymentSpec": _deployment_spec,
        "StatefulSetSpec": _stateful_set_spec,
    }
)
"""The defaults of a type that depend on its other fields."""
