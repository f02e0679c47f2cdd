"""Whether a pod may run on a node, apart from its volumes.

Each rule answers with the reason Kubernetes gives for it, so that the pod's
condition reads the same as on a cluster. ``refusal`` returns the first reason
that applies, or None when the node will do. The order is that of Kubernetes'
own filters, which matters because only one reason per node is reported.

Processor and memory requests are not counted: what limits this scheduler is
where storage can be reached.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Container, Sequence

from holdfast.api import views
from holdfast.controllers.scheduling import affinity

UNSCHEDULABLE_TAINT = "node.kubernetes.io/unschedulable"

UNSCHEDULABLE = "node(s) were unschedulable"
NOT_READY = "node(s) were not ready"
AFFINITY = "node(s) didn't match Pod's node affinity/selector"
TOO_MANY_PODS = "Too many pods"

_NO_NODES = "no nodes available to schedule pods"
_NO_VICTIMS = "No preemption victims found for incoming pod"
_NO_HELP = "Preemption is not helpful for scheduling"


def refusal(pod: views.Pod, node: views.Node, pods_there: int) -> str | None:
    """Return why the pod may not run on the node, or None."""
    if node.spec.unschedulable and not _tolerates(
        pod.spec.tolerations, views.Taint(key=UNSCHEDULABLE_TAINT, effect="NoSchedule")
    ):
        return UNSCHEDULABLE
    taint = untolerated(pod.spec.tolerations, node.spec.taints, ("NoSchedule", "NoExecute"))
    if taint is not None:
        return f"node(s) had untolerated taint {{{taint.key}: {taint.value}}}"
    if node.metadata.terminating or not node.ready:
        return NOT_READY
    if not affinity.pod_admits(pod, node):
        return AFFINITY
    limit = node.status.allocatable.get("pods", "")
    if limit.isdigit() and pods_there >= int(limit):
        return TOO_MANY_PODS
    return None


def preference(pod: views.Pod, node: views.Node, pods_there: int) -> tuple[int, int, int, str]:
    """Rank a node that will do; the smallest rank is the best.

    Soft taints count first, then the pod's own preferences, then the number of
    pods already there, so that pods spread; the name makes the choice repeatable.
    """
    soft = [taint for taint in node.spec.taints if taint.effect == "PreferNoSchedule"]
    unwanted = sum(not _tolerates(pod.spec.tolerations, taint) for taint in soft)
    return (unwanted, -affinity.pod_preference(pod, node), pods_there, node.metadata.name)


def untolerated(
    tolerations: Sequence[views.Toleration],
    taints: Sequence[views.Taint],
    effects: tuple[str, ...],
) -> views.Taint | None:
    """Return the first taint with one of these effects that nothing tolerates."""
    for taint in taints:
        if taint.effect in effects and not _tolerates(tolerations, taint):
            return taint
    return None


def explain(
    reasons: Sequence[str], nodes: int, yielding: Container[str] = (), *, never: bool = False
) -> str:
    """Word the reasons of all nodes as Kubernetes does: counted, sorted, one sentence.

    A second one says what came of looking for pods to displace: nothing, as all have one priority.
    It is `never` looked for if the pod says so. Of nodes whose reasons are `yielding`, fewer pods
    could have helped.
    """
    if nodes == 0:
        return _NO_NODES
    return f"{_counted(reasons, nodes)} {_preemption(reasons, nodes, yielding, never)}"


def explain_for_all(reason: str, nodes: int, *, never: bool = False) -> str:
    """Word one reason that keeps the pod from every node."""
    if nodes == 0:
        return _NO_NODES
    first = f"0/{nodes} nodes are available: {reason}."
    return f"{first} {_preemption([reason] * nodes, nodes, (), never)}"


def _preemption(reasons: Sequence[str], nodes: int, yielding: Container[str], never: bool) -> str:
    if never:
        return "preemption: not eligible due to preemptionPolicy=Never."
    outcomes = [_NO_VICTIMS if reason in yielding else _NO_HELP for reason in reasons]
    return f"preemption: {_counted(outcomes, nodes)}"


def _counted(reasons: Sequence[str], nodes: int) -> str:
    counted = sorted(f"{count} {reason}" for reason, count in Counter(reasons).items())
    return f"0/{nodes} nodes are available: {', '.join(counted)}."


def _tolerates(tolerations: Sequence[views.Toleration], taint: views.Taint) -> bool:
    return any(covers(toleration, taint) for toleration in tolerations)


def covers(toleration: views.Toleration, taint: views.Taint) -> bool:
    """Whether a toleration is about a taint, for however long."""
    if toleration.effect and toleration.effect != taint.effect:
        return False
    if toleration.key and toleration.key != taint.key:
        return False
    if toleration.operator == "Exists":
        return True
    # An empty key means every taint, and is valid only together with Exists.
    return bool(toleration.key) and toleration.value == taint.value
