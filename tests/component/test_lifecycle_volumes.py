"""A volume from claim to reclaim, with data written where the pod has it mounted.

Each layout goes through the same tests: `image` with loop devices and mounts, which needs
root, and `directory`, which does not.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

import machine
import manifests
from manifests import Object, claim, pod

NewMachine = Callable[[], machine.Machine]
LAYOUTS = [pytest.param("image", marks=pytest.mark.root), "directory"]


@pytest.fixture(params=LAYOUTS)
def layout(request: pytest.FixtureRequest) -> str:
    chosen: str = request.param
    return chosen


@pytest.fixture
def kind(layout: str, shared: machine.Machine) -> Object:
    """A class of the layout; it keeps nothing."""
    made = manifests.storage_class(layout, parameters={"layout": layout})
    shared.apply(made)
    return made


@pytest.fixture
def clean(shared: machine.Machine) -> Iterator[None]:
    """Nothing of a test's volumes may be left: object, file, device or mount."""
    yield
    shared.kubectl("delete", "pod,pvc", "--all", "--grace-period=1")

    def nothing() -> bool:
        if shared.kubectl("get", "pv", "-o", "name"):
            return False
        return not shared.stored() and not shared.loops() and not shared.mounts()

    machine.eventually(nothing, what="no volume, file, loop device or mount is left")


def test_data_is_there_when_the_pod_is_made_again(
    shared: machine.Machine, kind: Object, layout: str, clean: None
) -> None:
    user = pod("user", "again")
    mount = shared.run_pod(user, claim("again", storage_class=layout))
    (mount / "file").write_text("kept")
    shared.kubectl("delete", "pod", "user")
    assert not mount.exists()
    assert not shared.loops(), "a volume no pod uses has no device"
    mount = shared.run_pod(user)
    assert (mount / "file").read_text() == "kept"


def test_two_pods_share_a_claim(
    shared: machine.Machine, kind: Object, layout: str, clean: None
) -> None:
    first = shared.run_pod(pod("one", "both"), claim("both", storage_class=layout))
    second = shared.run_pod(pod("two", "both"))
    (first / "file").write_text("seen by both")
    assert (second / "file").read_text() == "seen by both"
    assert len(shared.loops()) == (layout == "image")
    shared.kubectl("delete", "pod", "one")
    assert not first.exists()
    (second / "file").write_text("still writable")
    assert (second / "file").read_text() == "still writable"


def test_a_pod_waits_for_its_claim(
    shared: machine.Machine, kind: Object, layout: str, clean: None
) -> None:
    # Events of an earlier pod of the same name would still be there.
    name = f"early-{layout}"
    early = pod(name, "late")
    shared.apply(early)
    text = shared.wait_for_event(name, "FailedScheduling")
    assert 'persistentvolumeclaim "late" not found' in text
    assert shared.run_pod(early, claim("late", storage_class=layout)).is_dir()


def test_a_claim_in_use_is_terminating_until_its_pod_is_gone(
    shared: machine.Machine, kind: Object, layout: str, clean: None
) -> None:
    mount = shared.run_pod(pod("holder", "held"), claim("held", storage_class=layout))
    (mount / "file").write_text("still in use")
    shared.kubectl("delete", "pvc", "held", "--wait=false")
    assert shared.row("pvc", "held")[1] == "Terminating"
    # Time for a controller that forgot about the pod to do harm.
    shared.apply(claim("other", storage_class=layout))
    shared.wait_for_phase("pvc", "other", "Bound")
    assert shared.row("pvc", "held")[1] == "Terminating"
    assert (mount / "file").read_text() == "still in use"
    shared.kubectl("delete", "pod", "holder")
    shared.wait_until_gone("pvc", "held")


def test_deleting_the_claim_deletes_volume_and_file(
    shared: machine.Machine, kind: Object, layout: str
) -> None:
    user = pod("brief", "gone")
    mount = shared.run_pod(user, claim("gone", storage_class=layout))
    name = shared.volume_of(user)
    (mount / "file").write_text("not needed")
    assert name in shared.stored()
    shared.kubectl("delete", "pod/brief", "pvc/gone")
    shared.wait_until_gone("pv", name)
    assert name not in shared.stored()
    assert not [file for file in shared.loops() if name in file]
    assert not [target for target in shared.mounts() if name in target]


def test_retain_keeps_volume_file_and_data(shared: machine.Machine, layout: str) -> None:
    retaining = manifests.storage_class(
        f"retain-{layout}", parameters={"layout": layout}, reclaimPolicy="Retain"
    )
    user = pod("writer", "precious")
    mount = shared.run_pod(user, retaining, claim("precious", storage_class=f"retain-{layout}"))
    name = shared.volume_of(user)
    (mount / "file").write_text("precious")
    shared.kubectl("delete", "pod/writer", "pvc/precious")
    shared.wait_for_phase("pv", name, "Released")
    assert name in shared.stored()

    # An administrator hands the same volume to a new claim.
    patch = '{"spec": {"claimRef": {"uid": null, "resourceVersion": null}}}'
    shared.kubectl("patch", "pv", name, "--type=merge", "-p", patch)
    shared.apply(claim("precious", storage_class=f"retain-{layout}", volumeName=name))
    mount = shared.run_pod(user)
    assert (mount / "file").read_text() == "precious"
    # A policy that is changed while the volume is bound counts when it is released.
    change = '{"spec": {"persistentVolumeReclaimPolicy": "Delete"}}'
    shared.kubectl("patch", "pv", name, "-p", change)
    shared.kubectl("delete", "pod/writer", "pvc/precious")
    shared.wait_until_gone("pv", name)
    assert name not in shared.stored()


def test_a_volume_deleted_before_its_claim_stays_until_then(
    shared: machine.Machine, kind: Object, layout: str, clean: None
) -> None:
    user = pod("last", "outlived")
    mount = shared.run_pod(user, claim("outlived", storage_class=layout))
    name = shared.volume_of(user)
    shared.kubectl("delete", "pv", name, "--wait=false")
    assert shared.row("pv", name)[4] == "Terminating"
    (mount / "file").write_text("usable")
    shared.kubectl("delete", "pod/last", "pvc/outlived")
    shared.wait_until_gone("pv", name)
    assert name not in shared.stored(), "no storage is left behind by an early deletion"


def test_a_volume_waits_for_its_first_consumer(
    shared: machine.Machine, layout: str, clean: None
) -> None:
    waiting = manifests.storage_class(
        f"waiting-{layout}",
        parameters={"layout": layout},
        volumeBindingMode="WaitForFirstConsumer",
    )
    shared.apply(waiting, claim("patient", storage_class=f"waiting-{layout}"))
    text = shared.wait_for_event("patient", "WaitForFirstConsumer")
    assert text == "waiting for first consumer to be created before binding"
    assert shared.row("pvc", "patient")[1] == "Pending"
    user = pod("consumer", "patient")
    mount = shared.run_pod(user)
    (mount / "file").write_text("written")
    found = shared.get("pvc", "patient")
    assert found is not None
    assert found["metadata"]["annotations"]["volume.kubernetes.io/selected-node"] == machine.NODE
    volume = shared.get("pv", shared.volume_of(user))
    assert volume is not None
    assert machine.NODE in str(volume["spec"]["nodeAffinity"])


def test_down_and_up_keep_data_and_pods(new_machine: NewMachine, layout: str) -> None:
    where = new_machine().start()
    kept = manifests.storage_class("kept", parameters={"layout": layout})
    mount = where.run_pod(pod("steady", "kept"), kept, claim("kept", storage_class="kept"))
    (mount / "file").write_text("written before")
    before, mounted = where.get("pod", "steady"), where.mounts()
    assert "volumes and their data are unchanged" in where.holdfast("down").stdout
    assert where.mounts() == mounted, "a pod's volumes stay mounted while nothing watches them"
    where.start()
    (mount / "file").write_text("written after")
    # A new pod on the same volume has gone through the agent, so it has looked at the old one.
    second = where.run_pod(pod("second", "kept"))
    assert (second / "file").read_text() == "written after"
    after = where.get("pod", "steady")
    assert before is not None
    assert after is not None
    assert after["status"]["containerStatuses"] == before["status"]["containerStatuses"]
    assert {target: where.mounts().get(target) for target in mounted} == mounted
    where.kubectl("delete", "pod,pvc", "--all")
    machine.eventually(lambda: not where.kubectl("get", "pv", "-o", "name"))
    assert not (where.stored() | where.loops() | set(where.mounts()))


def test_a_pod_deleted_while_nothing_runs_is_taken_down_at_the_next_start(
    new_machine: NewMachine,
) -> None:
    where = new_machine().start()
    plain = manifests.storage_class("plain", parameters={"layout": "directory"})
    mount = where.run_pod(pod("doomed", "kept"), plain, claim("kept", storage_class="plain"))
    (mount / "file").write_text("kept")
    agentless = '{"metadata": {"finalizers": ["example.com/hold"]}}'
    where.kubectl("patch", "pod", "doomed", "--type=merge", "-p", agentless)
    where.kubectl("delete", "pod", "doomed", "--wait=false")
    where.kill()
    where.start()
    machine.eventually(lambda: not mount.exists(), what="the mount is gone")
    where.kubectl("patch", "pod", "doomed", "--type=json", "-p", _NO_FINALIZERS)
    where.wait_until_gone("pod", "doomed")
    mount = where.run_pod(pod("doomed", "kept"))
    assert (mount / "file").read_text() == "kept"


_NO_FINALIZERS = '[{"op": "remove", "path": "/metadata/finalizers"}]'
