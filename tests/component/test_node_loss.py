"""Every way in which a pod loses its node, against a real `holdfast up --nodes 3`.

Each test is a row of the table in docs/explanation/node-loss.md and shows its outcome. A node is
lost after a second here and pods leave it after another one, where Kubernetes waits minutes.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import machine

pytestmark = pytest.mark.root

Object = dict[str, Any]
FIRST, SECOND, THIRD = machine.NODE, f"{machine.NODE}-2", f"{machine.NODE}-3"
# What `holdfast.toml` says, and by when something is sure to have happened or not to happen.
PATIENCE = "[nodes]\ngrace_seconds = 1\ntoleration_seconds = 1\n"
LONG = 4.0


@pytest.fixture
def three(new_machine: Callable[[], machine.Machine]) -> Iterator[machine.Machine]:
    """A machine that plays three impatient nodes."""
    made = new_machine()
    made.data_dir.mkdir(mode=0o700)
    (made.data_dir / "holdfast.toml").write_text(PATIENCE)
    made.start("--nodes", "3")
    machine.eventually(lambda: len(ready_nodes(made)) == 3, what="three nodes are ready")
    yield made


def ready_nodes(made: machine.Machine) -> set[str]:
    found = json.loads(made.kubectl("get", "nodes", "-o", "json"))["items"]
    return {
        node["metadata"]["name"]
        for node in found
        for condition in node["status"].get("conditions", ())
        if condition["type"] == "Ready" and condition["status"] == "True"
    }


def pods(made: machine.Machine, app: str) -> list[Object]:
    found: list[Object] = json.loads(made.kubectl("get", "pods", "-l", f"app={app}", "-o", "json"))[
        "items"
    ]
    return found


def is_going(pod: Object) -> bool:
    return "deletionTimestamp" in pod["metadata"]


def is_ready(pod: Object) -> bool:
    conditions = pod.get("status", {}).get("conditions", ())
    ready = any(c["type"] == "Ready" and c["status"] == "True" for c in conditions)
    return ready and not is_going(pod)


def template(app: str, claim: str | None, node: str | None) -> Object:
    mounts = [{"name": "data", "mountPath": "/data"}]
    spec: Object = {
        "terminationGracePeriodSeconds": 1,
        "containers": [{"name": "main", "image": "app:1", "volumeMounts": mounts}],
    }
    if claim is not None:
        spec["volumes"] = [{"name": "data", "persistentVolumeClaim": {"claimName": claim}}]
    if node is not None:
        spec["nodeSelector"] = {"kubernetes.io/hostname": node}
    return {"metadata": {"labels": {"app": app}}, "spec": spec}


def claim_spec(storage_class: str) -> Object:
    resources = {"requests": {"storage": "16Mi"}}
    spec: Object = {"accessModes": ["ReadWriteOnce"], "resources": resources}
    return {**spec, "storageClassName": storage_class}


def late_class() -> Object:
    return {
        "apiVersion": "storage.k8s.io/v1",
        "kind": "StorageClass",
        "metadata": {"name": "late"},
        "provisioner": "local.holdfast.dev",
        "volumeBindingMode": "WaitForFirstConsumer",
    }


def deploy(made: machine.Machine, app: str = "web", node: str | None = None) -> Object:
    """Make a Deployment with one pod and a claim of its own; return the pod when it is ready."""
    claim = {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": app},
        "spec": claim_spec("late"),
    }
    deployment = {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": app},
        "spec": {
            "selector": {"matchLabels": {"app": app}},
            "template": template(app, app, node),
        },
    }
    made.apply(late_class(), claim, deployment)
    return the_ready(made, app)


def the_ready(made: machine.Machine, app: str) -> Object:
    def look() -> Object | None:
        return next((pod for pod in pods(made, app) if is_ready(pod)), None)

    return machine.eventually(look, what=f"a pod of {app} is ready")


def stateful(made: machine.Machine, replicas: int = 3) -> dict[str, Object]:
    """Make a StatefulSet with claims; return its pods by name when they are ready."""
    claims = [{"metadata": {"name": "data"}, "spec": claim_spec("late")}]
    made.apply(
        late_class(),
        {
            "apiVersion": "apps/v1",
            "kind": "StatefulSet",
            "metadata": {"name": "db"},
            "spec": {
                "replicas": replicas,
                "serviceName": "db",
                "selector": {"matchLabels": {"app": "db"}},
                "template": template("db", None, None),
                "volumeClaimTemplates": claims,
            },
        },
    )

    def look() -> dict[str, Object] | None:
        found = {pod["metadata"]["name"]: pod for pod in pods(made, "db") if is_ready(pod)}
        return found if len(found) == replicas else None

    return machine.eventually(look, 40, "all pods of db are ready")


def node_of(pod: Object) -> str:
    name: str = pod["spec"]["nodeName"]
    return name


def volumes_of(made: machine.Machine, pod: Object) -> Path:
    uid: str = pod["metadata"]["uid"]
    return made.data_dir / "nodes" / node_of(pod) / "pods" / uid / "volumes"


def mount_of(made: machine.Machine, pod: Object) -> Path:
    return next(volumes_of(made, pod).glob("*/*/mount"))


def marked(made: machine.Machine, uid: str, app: str) -> Object:
    """Wait until the pod is marked for deletion."""

    def look() -> Object | None:
        return next(
            (p for p in pods(made, app) if p["metadata"]["uid"] == uid and is_going(p)), None
        )

    return machine.eventually(look, what=f"the pod of {app} is marked for deletion")


def never(look: Callable[[], bool], seconds: float, what: str) -> None:
    """Check that something does not come true for some time."""
    with pytest.raises(machine.Failed):
        machine.eventually(lambda: look() or None, seconds, what)


def events(made: machine.Machine, name: str) -> str:
    return made.kubectl("get", "events", "--field-selector", f"involvedObject.name={name}")


# --- the table ----------------------------------------------------------------


def test_a_deleted_pod_comes_back_with_its_volume(three: machine.Machine) -> None:
    pod = deploy(three)
    (mount_of(three, pod) / "kept").write_text("yes")
    three.kubectl("delete", "pod", pod["metadata"]["name"])
    new = the_ready(three, "web")
    assert new["metadata"]["uid"] != pod["metadata"]["uid"]
    assert node_of(new) == node_of(pod), "the volume is on that node's disk"
    assert (mount_of(three, new) / "kept").read_text() == "yes"


def test_the_pod_of_a_deployment_on_a_node_without_network(three: machine.Machine) -> None:
    pod = deploy(three, node=SECOND)
    mount = mount_of(three, pod)
    three.node("cut", SECOND)
    marked(three, pod["metadata"]["uid"], "web")
    assert mount.is_mount(), "nobody told the node: its pods go on"

    def replacement() -> Object | None:
        return next((p for p in pods(three, "web") if not is_going(p)), None)

    new = machine.eventually(replacement, what="a new pod was made")
    never(lambda: any(is_ready(p) for p in pods(three, "web")), LONG / 2, "the new pod starts")
    assert "nodeName" not in new["spec"]
    assert "NodeNotReady" in events(three, pod["metadata"]["name"])
    three.node("start", SECOND)
    healed = the_ready(three, "web")
    assert healed["metadata"]["uid"] == new["metadata"]["uid"]
    assert len(pods(three, "web")) == 1, "the old pod is gone"


def test_the_pod_of_a_stateful_set_on_a_node_without_network(three: machine.Machine) -> None:
    found = stateful(three)
    lost = found["db-1"]
    three.node("cut", node_of(lost))
    marked(three, lost["metadata"]["uid"], "db")

    def replaced() -> bool:
        return any(
            p["metadata"]["name"] == "db-1" and p["metadata"]["uid"] != lost["metadata"]["uid"]
            for p in pods(three, "db")
        )

    never(replaced, LONG, "a second db-1 was made")
    three.node("start", node_of(lost))
    machine.eventually(lambda: replaced() and len(stateful(three)) == 3, what="db-1 is back")


def test_a_node_that_restarts_has_its_pods_and_data_again(three: machine.Machine) -> None:
    pod = deploy(three, node=THIRD)
    mount = mount_of(three, pod)
    (mount / "kept").write_text("yes")
    three.node("stop", THIRD)
    assert not mount.is_mount(), "a machine without power has nothing mounted"
    three.node("start", THIRD)
    again = the_ready(three, "web")
    # Its status is that of before the restart, until the node has come so far.
    kept = volumes_of(three, again)
    machine.eventually(lambda: any(kept.glob("*/*/mount/kept")), what="it is mounted")
    assert node_of(again) == THIRD
    machine.eventually(lambda: len(ready_nodes(three)) == 3, what="the node is ready again")


def test_a_node_that_stays_off_keeps_its_volume_until_it_is_back(three: machine.Machine) -> None:
    pod = deploy(three, node=SECOND)
    (mount_of(three, pod) / "kept").write_text("yes")
    three.node("stop", SECOND)
    marked(three, pod["metadata"]["uid"], "web")
    never(lambda: any(is_ready(p) for p in pods(three, "web")), LONG, "a pod runs elsewhere")
    assert ready_nodes(three) == {FIRST, THIRD}
    three.node("start", SECOND)
    new = the_ready(three, "web")
    assert new["metadata"]["uid"] != pod["metadata"]["uid"]
    assert (mount_of(three, new) / "kept").read_text() == "yes"


def test_a_node_out_of_service_lets_its_pods_go(three: machine.Machine) -> None:
    found = stateful(three)
    lost = found["db-1"]
    node = node_of(lost)
    three.node("stop", node)
    marked(three, lost["metadata"]["uid"], "db")
    three.kubectl("taint", "node", node, "node.kubernetes.io/out-of-service=off:NoExecute")

    def pending() -> Object | None:
        mine = [p for p in pods(three, "db") if p["metadata"]["name"] == "db-1"]
        return next((p for p in mine if p["metadata"]["uid"] != lost["metadata"]["uid"]), None)

    machine.eventually(pending, what="a new db-1 was made")
    # Its data is on the disk of the node that is off, and nothing pretends otherwise.
    text = "had volume node affinity conflict"
    machine.eventually(lambda: text in events(three, "db-1"), what="the new db-1 says why it waits")
    three.kubectl("taint", "node", node, "node.kubernetes.io/out-of-service-")
    three.node("start", node)
    assert len(stateful(three)) == 3


def test_a_deleted_node_takes_its_pods_along(three: machine.Machine) -> None:
    pod = deploy(three, node=THIRD)
    three.node("stop", THIRD)
    marked(three, pod["metadata"]["uid"], "web")
    three.kubectl("delete", "node", THIRD)

    def gone() -> bool:
        return all(p["metadata"]["uid"] != pod["metadata"]["uid"] for p in pods(three, "web"))

    machine.eventually(gone, what="the pod of the deleted node was removed")
    volume = json.loads(three.kubectl("get", "pvc", "web", "-o", "json"))
    assert volume["status"]["phase"] == "Bound", "the claim and its data are left alone"


def test_a_node_takes_as_many_volumes_as_its_driver_allows(three: machine.Machine) -> None:
    driver = {"name": "disks.example.com", "nodeID": "x", "allocatable": {"count": 1}}
    for node in (FIRST, SECOND, THIRD):
        patch = json.dumps({"spec": {"drivers": [driver]}})
        three.kubectl("patch", "csinode", node, "--type=merge", "-p", patch)
    for number in range(4):
        three.apply(*_disk(number))

    def placed() -> set[str]:
        return {node_of(pod) for pod in pods(three, "disk") if "nodeName" in pod["spec"]}

    machine.eventually(lambda: len(placed()) == 3, what="three pods have a node each")
    waiting = next(p for p in pods(three, "disk") if "nodeName" not in p["spec"])
    name = waiting["metadata"]["name"]
    text = "0/3 nodes are available: 3 node(s) exceed max volume count."
    machine.eventually(lambda: text in events(three, name), what="the fourth says why it waits")
    leaving = next(p for p in pods(three, "disk") if "nodeName" in p["spec"])
    three.kubectl("delete", "pod", leaving["metadata"]["name"], "--wait=false")

    def has_room() -> bool:
        found = next(p for p in pods(three, "disk") if p["metadata"]["name"] == name)
        return "nodeName" in found["spec"]

    machine.eventually(has_room, what="the fourth took the place that became free")


def _disk(number: int) -> tuple[Object, Object, Object]:
    name = f"disk-{number}"
    volume = {
        "apiVersion": "v1",
        "kind": "PersistentVolume",
        "metadata": {"name": name},
        "spec": {
            "capacity": {"storage": "1Gi"},
            "accessModes": ["ReadWriteOnce"],
            "csi": {"driver": "disks.example.com", "volumeHandle": name},
            "claimRef": {"namespace": "default", "name": name},
        },
    }
    claim = {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": name},
        "spec": {**claim_spec(""), "volumeName": name},
    }
    pod = {"apiVersion": "v1", "kind": "Pod", **template("disk", name, None)}
    pod["metadata"] = {**pod["metadata"], "name": name}
    return volume, claim, pod


# --- what goes with it --------------------------------------------------------


def test_states_and_the_number_of_nodes_outlive_a_restart(three: machine.Machine) -> None:
    three.node("stop", THIRD)
    three.node("cut", SECOND)
    assert three.stop() == 0
    three.start()
    states = [line.split()[:2] for line in three.node("list").splitlines()[1:]]
    assert states == [[FIRST, "running"], [SECOND, "cut"], [THIRD, "stopped"]]
    machine.eventually(lambda: ready_nodes(three) == {FIRST}, what="only the first is ready")
    three.node("start", SECOND)
    three.node("start", THIRD)
    machine.eventually(lambda: len(ready_nodes(three)) == 3, what="all are ready")
    socket = three.data_dir / "control.sock"
    assert socket.stat().st_mode & 0o777 == 0o600


def test_a_drained_node_gets_nothing_until_it_is_uncordoned(three: machine.Machine) -> None:
    spread: Object = {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "spread"},
        "spec": {
            "replicas": 3,
            "selector": {"matchLabels": {"app": "spread"}},
            "template": template("spread", None, None),
        },
    }
    spread["spec"]["template"]["spec"]["containers"][0].pop("volumeMounts")
    three.apply(spread)

    def nodes() -> set[str]:
        return {node_of(pod) for pod in pods(three, "spread") if is_ready(pod)}

    machine.eventually(lambda: nodes() == {FIRST, SECOND, THIRD}, what="one pod on each node")
    three.kubectl("drain", SECOND, "--timeout=20s")
    machine.eventually(
        lambda: nodes() == {FIRST, THIRD} and sum(map(is_ready, pods(three, "spread"))) == 3,
        what="the pods run elsewhere",
    )
    assert "SchedulingDisabled" in three.kubectl("get", "node", SECOND)
    three.kubectl("uncordon", SECOND)
    three.kubectl("scale", "deployment", "spread", "--replicas=4")
    machine.eventually(lambda: SECOND in nodes(), what="the node is used again")


def test_volumes_without_a_place_go_to_the_node_with_the_fewest(three: machine.Machine) -> None:
    for number in range(3):
        three.apply(
            {
                "apiVersion": "v1",
                "kind": "PersistentVolumeClaim",
                "metadata": {"name": f"now-{number}"},
                "spec": claim_spec("local"),
            }
        )
        three.wait_for_phase("pvc", f"now-{number}", "Bound")
    found = json.loads(three.kubectl("get", "pv", "-o", "json"))["items"]
    places = {
        pv["spec"]["nodeAffinity"]["required"]["nodeSelectorTerms"][0]["matchExpressions"][0][
            "values"
        ][0]
        for pv in found
    }
    assert places == {FIRST, SECOND, THIRD}
    three.kubectl("delete", "pvc", "--all")
    machine.eventually(lambda: three.kubectl("get", "pv", "-o", "name") == "", what="all are gone")
