"""Which nodes a pod may run on, the reasons given, and which is preferred."""

from __future__ import annotations

from typing import Any

from holdfast.api import views
from holdfast.controllers.scheduling import placement

READY = [{"type": "Ready", "status": "True"}]


def node(name: str = "n1", *, ready: str = "True", **fields: Any) -> views.Node:
    status = {"conditions": [{"type": "Ready", "status": ready}], **fields.pop("status", {})}
    return views.node({"metadata": {"name": name}, "spec": fields, "status": status})


def pod(**spec: Any) -> views.Pod:
    return views.pod({"metadata": {"name": "p"}, "spec": spec})


def taint(effect: str = "NoSchedule") -> dict[str, str]:
    return {"key": "dedicated", "value": "db", "effect": effect}


def test_a_ready_node_takes_a_plain_pod() -> None:
    assert placement.refusal(pod(), node(), 0) is None


def test_a_node_that_is_not_ready_or_unknown_takes_none() -> None:
    assert placement.refusal(pod(), node(ready="False"), 0) == placement.NOT_READY
    assert placement.refusal(pod(), node(ready="Unknown"), 0) == placement.NOT_READY
    bare = views.node({"metadata": {"name": "n"}})
    assert placement.refusal(pod(), bare, 0) == placement.NOT_READY


def test_a_cordoned_node_takes_only_pods_that_tolerate_it() -> None:
    cordoned = node(unschedulable=True)
    assert placement.refusal(pod(), cordoned, 0) == "node(s) were unschedulable"
    tolerant = pod(tolerations=[{"key": placement.UNSCHEDULABLE_TAINT, "operator": "Exists"}])
    assert placement.refusal(tolerant, cordoned, 0) is None


def test_an_untolerated_taint_is_named() -> None:
    tainted = node(taints=[taint()])
    reason = "node(s) had untolerated taint {dedicated: db}"
    assert placement.refusal(pod(), tainted, 0) == reason
    assert placement.refusal(pod(), node(taints=[taint("PreferNoSchedule")]), 0) is None


def test_how_tolerations_match() -> None:
    tainted = node(taints=[taint()])

    def accepted(**toleration: str) -> bool:
        return placement.refusal(pod(tolerations=[toleration]), tainted, 0) is None

    assert accepted(key="dedicated", value="db")
    assert accepted(key="dedicated", operator="Equal", value="db", effect="NoSchedule")
    assert accepted(key="dedicated", operator="Exists")
    assert accepted(operator="Exists")
    assert not accepted(key="dedicated", value="web")
    assert not accepted(key="dedicated", operator="Exists", effect="NoExecute")
    assert not accepted(key="other", operator="Exists")
    assert not accepted(value="db")


def test_a_full_node_takes_none() -> None:
    full = node(status={"allocatable": {"pods": "2"}})
    assert placement.refusal(pod(), full, 1) is None
    assert placement.refusal(pod(), full, 2) == "Too many pods"


def test_a_selector_that_does_not_match_is_the_reason() -> None:
    assert placement.refusal(pod(nodeSelector={"zone": "a"}), node(), 0) == placement.AFFINITY


def test_the_emptiest_node_wins_and_names_break_ties() -> None:
    counts = {"n1": 2, "n2": 1, "n3": 1}
    ranked = min(counts, key=lambda name: placement.preference(pod(), node(name), counts[name]))
    assert ranked == "n2"


def test_a_soft_taint_outweighs_an_empty_node() -> None:
    soft = placement.preference(pod(), node("n1", taints=[taint("PreferNoSchedule")]), 0)
    assert soft > placement.preference(pod(), node("n2"), 9)


def test_reasons_are_counted_and_sorted() -> None:
    text = placement.explain(["b", "a", "b"], 3, {"a"})
    assert text == (
        "0/3 nodes are available: 1 a, 2 b. preemption: 0/3 nodes are available: "
        "1 No preemption victims found for incoming pod, "
        "2 Preemption is not helpful for scheduling."
    )
    text = placement.explain(["a"], 1, never=True)
    assert text == (
        "0/1 nodes are available: 1 a. preemption: not eligible due to preemptionPolicy=Never."
    )
    assert placement.explain_for_all("x", 0) == "no nodes available to schedule pods"
    assert placement.explain([], 0) == "no nodes available to schedule pods"
