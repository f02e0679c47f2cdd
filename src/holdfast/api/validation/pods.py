"""Rules for Pods: containers, volumes, mounts, and the few things that may change.

The node part of this program runs pods only as users of volumes, so volumes and
mounts are checked as strictly as Kubernetes does; probes, most of the security
contexts and the like pass through.

Binding a pod to a node is its own subresource and does not go through `update`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from holdfast.api import fields, quantity
from holdfast.api.fields import Cause
from holdfast.api.validation import (
    amounts,
    metadata,
    names,
    pod_content,
    pod_identity,
    pod_volumes,
    pod_warnings,
    quotas,
    selecting,
    services,
)
from holdfast.api.validation.rules import EMPTY, Object, Rules, each

_RESTART_POLICIES: Final = ("Always", "OnFailure", "Never")
_DNS_POLICIES: Final = ("ClusterFirstWithHostNet", "ClusterFirst", "Default", "None")
_PULL_POLICIES: Final = ("Always", "IfNotPresent", "Never")
_TOLERATED: Final = ("NoSchedule", "PreferNoSchedule", "NoExecute")
_MAY_CHANGE: Final = (
    "pod updates may not change fields other than `spec.containers[*].image`,"
    "`spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,"
    "`spec.tolerations` (only additions to existing tolerations),"
    "`spec.terminationGracePeriodSeconds` "
    "(allow it to be set to 1 if it was previously negative)"
)
_MEASURED: Final = frozenset({"cpu", "memory", "ephemeral-storage"})
_ADD_ONLY: Final = "existing toleration can not be modified except its tolerationSeconds"


class PodRules(Rules):
    """Rules of Pod."""

    def body(self, obj: Object) -> list[Cause]:
        """Check the spec, volumes first because mounts refer to them."""
        spec = obj.get("spec", EMPTY)
        name = obj.get("metadata", EMPTY).get("name", "")
        said, volumes = pod_volumes.volumes(spec.get("volumes") or (), name)
        said += _containers(spec, volumes)
        said += _policies(spec)
        said += pod_identity.of_pod(spec)
        said += metadata.labels(spec.get("nodeSelector", EMPTY), "spec.nodeSelector")
        for part in ("nodeName", "serviceAccountName"):
            if spec.get(part):
                said += each(f"spec.{part}", spec[part], names.subdomain(spec[part]))
        deadline = spec.get("activeDeadlineSeconds")
        if deadline is not None and not 1 <= deadline < 1 << 31:
            rule = "must be between 1 and 2147483647, inclusive"
            said.append(fields.invalid("spec.activeDeadlineSeconds", deadline, rule))
        for index, toleration in enumerate(spec.get("tolerations") or ()):
            said += _toleration(toleration, f"spec.tolerations[{index}]")
        return said + _gates(spec) + _affinity(spec.get("affinity", EMPTY))

    def transition(self, new: Object, old: Object) -> list[Cause]:
        """Check that only images, deadline, grace period and tolerations changed."""
        now, was = new.get("spec", EMPTY), old.get("spec", EMPTY)
        if now == was:
            return []
        said: list[Cause] = []
        for part in ("containers", "initContainers"):
            if len(now.get(part) or ()) != len(was.get(part) or ()):
                rule = "pod updates may not add or remove containers"
                return [fields.forbidden(f"spec.{part}", rule)]
        said += _deadline(now, was)
        kept = [(t | {"tolerationSeconds": 0}) for t in now.get("tolerations") or ()]
        for toleration in was.get("tolerations") or ():
            if toleration | {"tolerationSeconds": 0} not in kept:
                said.append(fields.forbidden("spec.tolerations", _ADD_ONLY))
                break
        said += _new_gates(now, was)
        if _fixed_parts(now, was) != _fixed_parts(was, was):
            said.append(fields.forbidden("spec", _MAY_CHANGE))
        return said

    def warnings(self, new: Object, old: Object | None) -> list[str]:
        """Warn of what has no function, when the pod is made: changes come from programs."""
        return pod_warnings.of_pod(new) if old is None else []

    def status(self, new: Object, old: Object) -> list[Cause]:
        """Check that a nominated node is a possible node."""
        node = new.get("status", EMPTY).get("nominatedNodeName", "")
        return each("status.nominatedNodeName", node, names.subdomain(node)) if node else []


def _containers(spec: Object, volumes: dict[str, Object]) -> list[Cause]:
    said: list[Cause] = []
    if not spec.get("containers"):
        said.append(fields.required("spec.containers"))
    seen: set[str] = set()
    for part in ("containers", "initContainers"):
        for index, container in enumerate(spec.get(part) or ()):
            at = f"spec.{part}[{index}]"
            said += _name(container.get("name", ""), f"{at}.name", seen)
            said += _container(container, at, volumes)
    return said


def _name(name: str, path: str, seen: set[str]) -> list[Cause]:
    if not name:
        return [fields.required(path)]
    said = each(path, name, names.label(name))
    if name in seen:
        said.append(fields.duplicate(path, name))
    seen.add(name)
    return said


def _container(container: Object, at: str, volumes: dict[str, Object]) -> list[Cause]:
    said: list[Cause] = []
    image = container.get("image", "")
    if not image:
        said.append(fields.required(f"{at}.image"))
    elif image != image.strip():
        rule = "must not have leading or trailing whitespace"
        said.append(fields.invalid(f"{at}.image", image, rule))
    policy = container.get("imagePullPolicy")
    if policy is not None and policy not in _PULL_POLICIES:
        said.append(fields.not_supported(f"{at}.imagePullPolicy", policy, _PULL_POLICIES))
    said += _container_ports(container.get("ports") or (), f"{at}.ports")
    said += pod_content.variables(container.get("env") or (), f"{at}.env")
    said += pod_volumes.mounts(container, at, volumes)
    if "resources" in container:
        said += _resources(container["resources"], f"{at}.resources")
    return said


def _container_ports(ports: Sequence[Object], path: str) -> list[Cause]:
    said: list[Cause] = []
    seen: set[str] = set()
    for index, port in enumerate(ports):
        at = f"{path}[{index}]"
        name = port.get("name", "")
        if name:
            said += each(f"{at}.name", name, names.port_name(name))
            if name in seen:
                said.append(fields.duplicate(f"{at}.name", name))
            seen.add(name)
        if port.get("containerPort"):
            said += services.port_number(port["containerPort"], f"{at}.containerPort")
        else:
            said.append(fields.required(f"{at}.containerPort"))
        if port.get("hostPort"):
            said += services.port_number(port["hostPort"], f"{at}.hostPort")
        said += services.protocol(port.get("protocol", ""), f"{at}.protocol")
    return said


def _resources(resources: Object, path: str) -> list[Cause]:
    said: list[Cause] = []
    rule = "must be greater than or equal to 0"
    limits = resources.get("limits", EMPTY)
    for part in ("limits", "requests"):
        for name, text in resources.get(part, EMPTY).items():
            said += _resource_name(name, f"{path}.{part}[{name}]")
            said += amounts.not_negative(text, f"{path}.{part}[{name}]", rule)
    for name, text in resources.get("requests", EMPTY).items():
        limit = limits.get(name)
        if limit is not None and quantity.parse(text) > quantity.parse(limit):
            rule = f"must be less than or equal to {name} limit of {limit}"
            said.append(fields.invalid(f"{path}.requests", text, rule))
    return said


def _resource_name(name: str, path: str) -> list[Cause]:
    # The reference shows the name of a resource without quotes.
    shown = fields.Go(name)
    said = [fields.invalid(path, shown, rule) for rule in names.qualified(name)]
    if "/" in name:
        native = "kubernetes.io/" in name
        if not native and name.startswith("requests."):
            rule = "doesn't follow extended resource name standard"
            said.append(fields.invalid(path, shown, rule))
        return said
    if name in _MEASURED or name.startswith("hugepages-"):
        return said
    if not said and name not in quotas.STANDARD:
        rule = "must be a standard resource type or fully qualified"
        said.append(fields.invalid(path, shown, rule))
    said.append(fields.invalid(path, shown, "must be a standard resource for containers"))
    return said


def _policies(spec: Object) -> list[Cause]:
    said: list[Cause] = []
    for part, choices in (("restartPolicy", _RESTART_POLICIES), ("dnsPolicy", _DNS_POLICIES)):
        word = spec.get(part, "")
        if not word:
            said.append(fields.required(f"spec.{part}"))
        elif word not in choices:
            said.append(fields.not_supported(f"spec.{part}", word, choices, in_order=True))
    grace = spec.get("terminationGracePeriodSeconds")
    if grace is None:
        said.append(fields.required("spec.terminationGracePeriodSeconds"))
    return said


def _toleration(toleration: Object, at: str) -> list[Cause]:
    said: list[Cause] = []
    key, operator = toleration.get("key", ""), toleration.get("operator", "")
    if key:
        said += each(f"{at}.key", key, names.qualified(key))
    elif operator != "Exists":
        rule = (
            "operator must be Exists when `key` is empty, "
            'which means "match all values and all keys"'
        )
        said.append(fields.invalid(f"{at}.operator", operator, rule))
    if operator == "Exists" and toleration.get("value"):
        rule = "value must be empty when `operator` is 'Exists'"
        said.append(fields.invalid(f"{at}.operator", toleration["value"], rule))
    elif operator not in ("", "Equal", "Exists"):
        said.append(fields.not_supported(f"{at}.operator", operator, ("Equal", "Exists")))
    effect = toleration.get("effect", "")
    if toleration.get("tolerationSeconds") is not None and effect != "NoExecute":
        rule = "effect must be 'NoExecute' when `tolerationSeconds` is set"
        said.append(fields.invalid(f"{at}.effect", effect, rule))
    if effect and effect not in _TOLERATED:
        said.append(fields.not_supported(f"{at}.effect", effect, _TOLERATED, in_order=True))
    return said


def _affinity(affinity: Object) -> list[Cause]:
    node = affinity.get("nodeAffinity", EMPTY)
    path = "spec.affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution"
    required = node.get("requiredDuringSchedulingIgnoredDuringExecution")
    return selecting.node_selector(required, path) if required is not None else []


def _gates(spec: Object) -> list[Cause]:
    said: list[Cause] = []
    seen: set[str] = set()
    for index, gate in enumerate(spec.get("schedulingGates") or ()):
        at, name = f"spec.schedulingGates[{index}]", gate.get("name", "")
        said += each(at, name, names.qualified(name))
        if name in seen:
            said.append(fields.duplicate(at, name))
        seen.add(name)
    if seen and spec.get("nodeName"):
        rule = "cannot be set until all schedulingGates have been cleared"
        said.append(fields.forbidden("spec.nodeName", rule))
    return said


def _new_gates(now: Object, was: Object) -> list[Cause]:
    known = {gate.get("name") for gate in was.get("schedulingGates") or ()}
    rule = "only deletion is allowed, but found new scheduling gate"
    return [
        fields.forbidden(f"spec.schedulingGates[{index}].name", f"{rule} '{gate.get('name')}'")
        for index, gate in enumerate(now.get("schedulingGates") or ())
        if gate.get("name") not in known
    ]


def _deadline(now: Object, was: Object) -> list[Cause]:
    new, old = now.get("activeDeadlineSeconds"), was.get("activeDeadlineSeconds")
    path = "spec.activeDeadlineSeconds"
    if old is None or new == old:
        return []
    if new is None:
        return [fields.invalid(path, None, "must not update from a positive integer to nil value")]
    if not 0 <= new < 1 << 31:
        return [fields.invalid(path, new, "must be between 0 and 2147483647, inclusive")]
    if new > old:
        return [fields.invalid(path, new, "must be less than or equal to previous value")]
    return []


def _fixed_parts(spec: Object, stored: Object) -> Object:
    """Return the spec without what an update may change."""
    free = ("activeDeadlineSeconds", "tolerations", "schedulingGates")
    kept = {name: value for name, value in spec.items() if name not in free}
    for part in ("containers", "initContainers"):
        if part in kept:
            kept[part] = [{**container, "image": ""} for container in kept[part]]
    grace = "terminationGracePeriodSeconds"
    if stored.get(grace, 0) < 0 and spec.get(grace) in (1, stored.get(grace)):
        kept.pop(grace, None)
    return kept
