"""What a pod's claims need, and which volume a waiting claim takes on a node.

The caches are fed directly; nothing here talks to a server, so what is written is
covered where there is one.
"""

from __future__ import annotations

from typing import Any, cast

import pytest

from holdfast.api import kinds, views
from holdfast.controllers.scheduling import binding, capacity
from holdfast.runtime.client import Client
from holdfast.runtime.informer import Informers

LOCAL = "kubernetes.io/hostname"


class Caches:
    """Informers filled by hand, and the binder reading them."""

    def __init__(self) -> None:
        client = cast(Client, None)
        self.informers = Informers(client)
        self.binder = binding.VolumeBinder(client, self.informers)
        self._revision = 0

    def put(self, kind: kinds.Kind, name: str, namespace: str = "", **obj: Any) -> None:
        self._revision += 1
        meta = {"name": name, "uid": f"uid-{name}", "resourceVersion": str(self._revision)}
        if namespace:
            meta["namespace"] = namespace
        meta |= obj.pop("metadata", {})
        self.informers.of(kind).observe({"metadata": meta, **obj})

    def storage_class(self, name: str = "slow", provisioner: str = "p", **fields: Any) -> None:
        mode = fields.pop("mode", "WaitForFirstConsumer")
        self.put(
            kinds.STORAGE_CLASS, name, provisioner=provisioner, volumeBindingMode=mode, **fields
        )

    def claim(self, name: str = "c", request: str = "1Gi", **fields: Any) -> None:
        metadata, status = fields.pop("metadata", {}), fields.pop("status", {"phase": "Pending"})
        spec = {
            "accessModes": ["ReadWriteOnce"],
            "resources": {"requests": {"storage": request}},
            "storageClassName": "slow",
            **fields,
        }
        self.put(kinds.CLAIM, name, "ns", spec=spec, metadata=metadata, status=status)

    def volume(self, name: str, size: str = "1Gi", node: str = "", **fields: Any) -> None:
        metadata, phase = fields.pop("metadata", {}), fields.pop("phase", "Available")
        spec = {
            "capacity": {"storage": size},
            "accessModes": ["ReadWriteOnce"],
            "storageClassName": "slow",
            **fields,
        }
        if node:
            expression = {"key": LOCAL, "operator": "In", "values": [node]}
            terms = [{"matchExpressions": [expression]}]
            spec["nodeAffinity"] = {"required": {"nodeSelectorTerms": terms}}
        self.put(kinds.VOLUME, name, spec=spec, metadata=metadata, status={"phase": phase})

    def choose(self, pod: views.Pod, on: str = "n1") -> binding.Plan | str:
        return self.binder.plan(self.binder.demand(pod), node(on))


def node(name: str = "n1", **labels: str) -> views.Node:
    return views.node({"metadata": {"name": name, "labels": {LOCAL: name, **labels}}})


def pod(*claims: str) -> views.Pod:
    volumes = [{"name": c, "persistentVolumeClaim": {"claimName": c}} for c in claims]
    meta = {"name": "p", "namespace": "ns", "uid": "pod-uid"}
    return views.pod({"metadata": meta, "spec": {"volumes": volumes}})


@pytest.fixture
def caches() -> Caches:
    made = Caches()
    made.storage_class()
    return made


def taken(plan: binding.Plan | str) -> dict[str, str]:
    assert isinstance(plan, binding.Plan), plan
    return {claim.metadata.name: volume.metadata.name for claim, volume in plan.takes}


def test_a_pod_without_claims_needs_nothing(caches: Caches) -> None:
    assert caches.choose(pod()) == binding.Plan("n1")


def test_a_missing_claim_stops_the_pod(caches: Caches) -> None:
    with pytest.raises(binding.ClaimsUnready, match=r'^persistentvolumeclaim "c" not found$'):
        caches.binder.demand(pod("c"))


def test_a_claim_that_is_going_stops_the_pod(caches: Caches) -> None:
    caches.claim(metadata={"deletionTimestamp": "2026-11-21T07:37:00Z"})
    with pytest.raises(binding.ClaimsUnready, match='"c" is being deleted'):
        caches.binder.demand(pod("c"))


def test_a_lost_claim_stops_the_pod(caches: Caches) -> None:
    caches.claim(volumeName="pv9", status={"phase": "Lost"})
    with pytest.raises(binding.ClaimsUnready, match='non-existent persistentvolume "pv9"'):
        caches.binder.demand(pod("c"))


def test_an_unbound_claim_of_an_immediate_class_stops_the_pod(caches: Caches) -> None:
    caches.storage_class("quick", mode="Immediate")
    caches.claim(storageClassName="quick")
    with pytest.raises(binding.ClaimsUnready, match="unbound immediate"):
        caches.binder.demand(pod("c"))


def test_a_claim_that_names_its_volume_is_not_delayed(caches: Caches) -> None:
    caches.claim(volumeName="pv1")
    with pytest.raises(binding.ClaimsUnready, match="unbound immediate"):
        caches.binder.demand(pod("c"))


def test_an_ephemeral_claim_must_exist_and_belong_to_the_pod(caches: Caches) -> None:
    entry = {"name": "data", "ephemeral": {"volumeClaimTemplate": {}}}
    meta = {"name": "p", "namespace": "ns", "uid": "pod-uid"}
    subject = views.pod({"metadata": meta, "spec": {"volumes": [entry]}})
    with pytest.raises(binding.ClaimsUnready, match="waiting for ephemeral volume controller"):
        caches.binder.demand(subject)
    caches.claim("p-data")
    with pytest.raises(binding.ClaimsUnready, match="pod is not owner"):
        caches.binder.demand(subject)
    owner = {"kind": "Pod", "name": "p", "uid": "pod-uid", "controller": True}
    caches.claim("p-data", metadata={"ownerReferences": [owner]})
    assert len(caches.binder.demand(subject).delayed) == 1


def test_a_bound_claim_is_usable_only_where_its_volume_is(caches: Caches) -> None:
    caches.volume("pv1", node="n1", phase="Bound")
    caches.claim(volumeName="pv1", metadata={"annotations": {views.BIND_COMPLETED: "yes"}})
    assert caches.choose(pod("c"), "n1") == binding.Plan("n1")
    assert caches.choose(pod("c"), "n2") == "node(s) had volume node affinity conflict"


def test_a_bound_claim_without_its_volume_is_usable_nowhere(caches: Caches) -> None:
    caches.claim(volumeName="pv1", metadata={"annotations": {views.BIND_COMPLETED: "yes"}})
    assert caches.choose(pod("c")) == binding.VOLUME_GONE


def test_the_smallest_volume_that_fits_is_taken(caches: Caches) -> None:
    for name, size in (("big", "10Gi"), ("tiny", "500Mi"), ("fit", "2Gi"), ("decimal", "1G")):
        caches.volume(name, size)
    caches.claim()
    assert taken(caches.choose(pod("c"))) == {"c": "fit"}


def test_volumes_that_do_not_fit_are_passed_over(caches: Caches) -> None:
    caches.volume("class", storageClassName="other")
    caches.volume("mode", volumeMode="Block")
    caches.volume("access", accessModes=["ReadOnlyMany"])
    caches.volume("phase", phase="Released")
    caches.volume("going", metadata={"deletionTimestamp": "2026-11-21T07:37:00Z"})
    caches.volume("elsewhere", node="n2")
    caches.volume("claimed", claimRef={"namespace": "ns", "name": "other"})
    caches.claim()
    plan = caches.choose(pod("c"))
    assert isinstance(plan, binding.Plan) and not plan.takes and len(plan.makes) == 1


def test_the_claims_selector_is_honoured(caches: Caches) -> None:
    caches.volume("a", metadata={"labels": {"tier": "gold"}}, size="5Gi")
    caches.volume("b")
    caches.claim(selector={"matchLabels": {"tier": "gold"}})
    assert taken(caches.choose(pod("c"))) == {"c": "a"}


def test_a_volume_reserved_for_the_claim_comes_first_whatever_its_size(caches: Caches) -> None:
    caches.volume("free", "1Gi")
    caches.volume("mine", "9Gi", claimRef={"namespace": "ns", "name": "c"})
    caches.claim()
    assert taken(caches.choose(pod("c"))) == {"c": "mine"}


def test_a_reserved_volume_on_another_node_leaves_static_volumes_alone(caches: Caches) -> None:
    caches.volume("free", "1Gi")
    caches.volume("mine", "9Gi", node="n2", claimRef={"namespace": "ns", "name": "c"})
    caches.claim()
    plan = caches.choose(pod("c"), "n1")
    assert isinstance(plan, binding.Plan) and not plan.takes


def test_two_claims_of_one_pod_take_two_volumes_small_claim_first(caches: Caches) -> None:
    caches.volume("small", "1Gi")
    caches.volume("large", "5Gi")
    caches.claim("needs-large", "3Gi")
    caches.claim("needs-small", "1Gi")
    plan = caches.choose(pod("needs-large", "needs-small"))
    assert taken(plan) == {"needs-small": "small", "needs-large": "large"}


def test_without_a_provisioner_a_claim_needs_a_volume(caches: Caches) -> None:
    caches.storage_class("static", provisioner="kubernetes.io/no-provisioner")
    caches.claim(storageClassName="static")
    assert caches.choose(pod("c")) == binding.NOTHING_TO_BIND
    caches.volume("pv1", node="n1", storageClassName="static")
    assert taken(caches.choose(pod("c"), "n1")) == {"c": "pv1"}
    assert caches.choose(pod("c"), "n2") == binding.NOTHING_TO_BIND


def test_a_node_outside_the_allowed_topologies_is_refused(caches: Caches) -> None:
    terms = [{"matchLabelExpressions": [{"key": "zone", "values": ["a"]}]}]
    caches.storage_class("zonal", allowedTopologies=terms)
    caches.claim(storageClassName="zonal")
    demand = caches.binder.demand(pod("c"))
    assert caches.binder.plan(demand, node(zone="b")) == binding.NOTHING_TO_BIND
    assert isinstance(caches.binder.plan(demand, node(zone="a")), binding.Plan)


def test_a_claim_with_a_selected_node_stays_with_it(caches: Caches) -> None:
    caches.claim(metadata={"annotations": {views.SELECTED_NODE: "n1"}})
    assert caches.choose(pod("c"), "n2") == binding.NOTHING_TO_BIND
    caches.volume("pv1")
    plan = caches.choose(pod("c"), "n1")
    assert isinstance(plan, binding.Plan)
    assert not plan.takes and [claim.metadata.name for claim in plan.makes] == ["c"]


def test_a_claim_for_one_pod_at_a_time_is_reported_as_such(caches: Caches) -> None:
    caches.claim(accessModes=["ReadWriteOncePod"])
    demand = caches.binder.demand(pod("c"))
    assert [claim.metadata.name for claim in demand.exclusive] == ["c"]


@pytest.mark.parametrize(
    ("said", "enough"),
    [
        pytest.param({"capacity": "2Gi", "nodeTopology": {}}, True, id="room on all nodes"),
        pytest.param({"capacity": "1Gi", "nodeTopology": {}}, True, id="just enough"),
        pytest.param({"capacity": "1023Mi", "nodeTopology": {}}, False, id="too little"),
        pytest.param({"capacity": "2Gi"}, False, id="no nodes named"),
        pytest.param({"nodeTopology": {}}, False, id="unknown amount"),
        pytest.param(
            {"capacity": "9Gi", "maximumVolumeSize": "512Mi", "nodeTopology": {}},
            False,
            id="no volume so large",
        ),
        pytest.param(
            {"capacity": "1Mi", "maximumVolumeSize": "2Gi", "nodeTopology": {}},
            True,
            id="the largest size counts alone",
        ),
        pytest.param(
            {"capacity": "2Gi", "nodeTopology": {"matchLabels": {LOCAL: "n2"}}},
            False,
            id="another node",
        ),
        pytest.param(
            {"capacity": "2Gi", "nodeTopology": {}, "storageClassName": "other"},
            False,
            id="another class",
        ),
    ],
)
def test_what_a_driver_said_of_its_room_decides(
    caches: Caches, said: dict[str, Any], enough: bool
) -> None:
    caches.claim()
    caches.put(kinds.CAPACITY, "room", "kube-system", **{"storageClassName": "slow", **said})
    caches.put(kinds.CSI_DRIVER, "p", spec={"storageCapacity": False})
    assert not isinstance(caches.choose(pod("c")), str)

    caches.put(kinds.CSI_DRIVER, "p", spec={"storageCapacity": True})

    plan = caches.choose(pod("c"))
    assert plan == capacity.NOT_ENOUGH if not enough else not isinstance(plan, str)


def test_a_volume_that_is_being_made_for_the_node_needs_no_more_room(caches: Caches) -> None:
    caches.claim(metadata={"annotations": {views.SELECTED_NODE: "n1"}})
    caches.put(kinds.CSI_DRIVER, "p", spec={"storageCapacity": True})
    assert not isinstance(caches.choose(pod("c")), str)
