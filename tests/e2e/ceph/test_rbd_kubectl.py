"""Ceph volumes as how-tos have them, step by step with kubectl on a real cluster.

Manifests are those of the documents; addresses and keys are the cluster's. A pod's command
prints what a reader looks at with `kubectl exec`.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import machine
from servers.ceph import objects
from servers.ceph.cluster import Cluster
from servers.ceph.pools import Pool

pytestmark = [pytest.mark.e2e, pytest.mark.root, pytest.mark.timeout(240)]

EXAMPLE = machine.ROOT / "examples" / "12-ceph-rbd"


@pytest.fixture(scope="module")
def site(pool: Pool, tmp_path_factory: pytest.TempPathFactory, kubectl_path: Path) -> Any:
    """A machine that knows the cluster; its objects are taken away by each test."""
    made = machine.Machine(tmp_path_factory.mktemp("site"), kubectl_path)
    made.data_dir.mkdir()
    (made.data_dir / "holdfast.toml").write_text(pool.settings)
    try:
        yield made.start()
    finally:
        made.dispose()


def _mounted(where: machine.Machine, pod: str) -> list[str]:
    """The pod's line of `df -hT` for /mnt: device, type, size, ..."""

    def look() -> list[str] | None:
        lines = where.kubectl("logs", pod, check=False).splitlines()
        return next((line.split() for line in lines if line.endswith(" /mnt")), None)

    return machine.eventually(look, 60, f"df in pod {pod}")


def _run_twice(where: machine.Machine, pod: str, claim: str, least: int, most: int) -> None:
    """Two pods in turn see ext4 of the right size, and what the first has written."""
    bound = where.wait_for_phase("pvc", claim, "Bound")
    for run in (1, 2):
        where.apply(objects.pod(pod, claim))
        where.wait_for_phase("pod", pod, "Running", 60)
        found = _mounted(where, pod)
        assert found[1] == "ext4"
        assert least < int(found[2].removesuffix("M")) <= most
        _await_lines(where.mount_of(pod, bound["spec"]["volumeName"]) / "runs", run)
        _gone(where, pod)


def _await_lines(file: Path, count: int) -> None:
    def lines() -> int:
        return len(file.read_text().splitlines()) if file.exists() else 0

    machine.eventually(lambda: lines() == count, 20, "the data")


def _gone(where: machine.Machine, pod: str) -> None:
    where.kubectl("delete", "pod", pod, "--grace-period=1")
    where.wait_until_gone("pod", pod, 60)


def _await_unmapped(pool: Pool, image: str) -> None:
    spec = f"{pool.name}/{image}"
    machine.eventually(
        lambda: "Watchers: none" in pool.ceph.rbd("status", spec), 30, "the image is unmapped"
    )


def _take_away(where: machine.Machine, pool: Pool, claim: str, *others: tuple[str, str]) -> None:
    """Delete a dynamic claim with what belongs to it; the image goes, and all of its objects."""
    where.kubectl("delete", "pvc", claim)
    machine.eventually(lambda: not pool.images(), 60, "the image is removed")
    # The name is free once the image is in the trash; its objects go after that.
    machine.eventually(lambda: not pool.leftovers(), 20, "nothing is left of the image")
    for kind, name in others:
        where.kubectl("delete", kind, name)
    assert pool.key not in where.log.read_text()


@pytest.mark.parametrize("source", ["in-tree", "csi"])
def test_the_static_volume(site: machine.Machine, ceph: Cluster, pool: Pool, source: str) -> None:
    ceph.rbd("create", f"{pool.name}/image1", "-s", "1024")
    site.apply(
        objects.secret("ceph-secret", ceph.key_of("admin")),
        objects.secret("csi-rbd-secret", pool.secret),
    )
    found = objects.rbd_source(pool, "image1")
    if source == "csi":
        found = objects.csi_source(pool, "image1")
    site.apply(objects.volume("ceph-pv", found), objects.claim("ceph-claim", "1Gi", ""))
    site.wait_for_phase("pvc", "ceph-claim", "Bound")
    _run_twice(site, "ceph-pod", "ceph-claim", 900, 1024)
    _await_unmapped(pool, "image1")
    checked = site.holdfast("check", "ceph", check=False)
    assert re.search(r"ceph image +ok +volume ceph-pv, .*can be mapped by", checked.stdout)
    site.kubectl("delete", "pvc/ceph-claim", "pv/ceph-pv", "secret/ceph-secret")
    ceph.rbd("rm", "--no-progress", f"{pool.name}/image1")


@pytest.mark.parametrize("provisioner", ["kubernetes.io/rbd", "ceph.com/rbd", "rbd.holdfast.dev"])
def test_the_dynamic_volume(
    site: machine.Machine, ceph: Cluster, pool: Pool, provisioner: str
) -> None:
    site.apply(
        objects.secret("ceph-secret", ceph.key_of("admin"), "kube-system", objects.IN_TREE),
        objects.secret("ceph-kube-secret", pool.key, "default", objects.IN_TREE),
        objects.storage_class("ceph-rbd", provisioner, objects.in_tree(pool), default=True),
        objects.claim("ceph-sc-claim", "500Mi"),
    )
    bound = site.wait_for_phase("pvc", "ceph-sc-claim", "Bound")
    volume = site.get("pv", bound["spec"]["volumeName"])
    assert volume is not None
    if provisioner == "rbd.holdfast.dev":
        assert volume["spec"]["csi"]["driver"] == "rbd.holdfast.dev"
    else:
        assert volume["spec"]["rbd"]["user"] == pool.user
        assert volume["spec"]["rbd"]["secretRef"]["name"] == "ceph-kube-secret"
        assert volume["spec"]["rbd"]["image"].startswith("kubernetes-dynamic-pvc-")
    assert site.row("pvc", "ceph-sc-claim")[3:6] == ["500Mi", "RWO,ROX", "ceph-rbd"]
    assert len(pool.images()) == 1
    _run_twice(site, "ceph-sc-pod", "ceph-sc-claim", 430, 500)
    _take_away(site, pool, "ceph-sc-claim", ("sc", "ceph-rbd"))


def test_a_class_of_ceph_csi_works_as_it_is(site: machine.Machine, pool: Pool) -> None:
    site.apply(
        objects.secret("csi-rbd-secret", pool.secret),
        objects.storage_class("ceph-rbd", objects.CEPH_CSI, objects.ceph_csi(pool), default=True),
        objects.claim("ceph-sc-claim", "500Mi"),
    )
    bound = site.wait_for_phase("pvc", "ceph-sc-claim", "Bound")
    volume = site.get("pv", bound["spec"]["volumeName"])
    assert volume is not None
    source = volume["spec"]["csi"]
    assert source["driver"] == objects.CEPH_CSI
    assert source["nodeStageSecretRef"] == {"name": "csi-rbd-secret", "namespace": "default"}
    assert pool.ceph.rbd("info", f"{pool.name}/{pool.images()[0]}").count("exclusive") == 0
    _run_twice(site, "ceph-sc-pod", "ceph-sc-claim", 430, 500)
    _take_away(site, pool, "ceph-sc-claim", ("sc", "ceph-rbd"))


# Says a number only when it is on the disk.
NUMBERS = """
i=0
while :; do echo $i > /mnt/$i && sync /mnt/$i && echo $i; i=$((i+1)); sleep 0.02; done
"""
READ = """
for i in $(seq 0 LAST); do test $(cat /mnt/$i) = $i || echo lost $i; done
echo all
exec sleep 1000000
"""


def _await_more(last: Callable[[], int], count: int) -> None:
    machine.eventually(lambda: last() > count, 60, f"the pod writes more than {count}")


def test_osd_and_monitor_may_die_under_a_writing_pod(site: machine.Machine, pool: Pool) -> None:
    site.apply(
        objects.storage_class("ceph-storm", "rbd.holdfast.dev", {"clusterID": "main"}),
        objects.claim("storm", "500Mi", "ceph-storm"),
        objects.pod("writer", "storm", NUMBERS),
    )
    site.wait_for_phase("pod", "writer", "Running", 60)

    def last() -> int:
        return int(site.kubectl("logs", "writer", "--tail=1") or -1)

    machine.eventually(lambda: last() > 5, 30, "the pod writes")
    try:
        for daemons in (("osd",), ("mon",), ("osd", "mon")):
            for daemon in daemons:
                pool.ceph.kill(daemon)
            pool.ceph.start()
            _await_more(last, last() + 10)
    finally:
        # A write that waits for the cluster cannot be interrupted.
        pool.ceph.start()
    written = last()
    assert all(reason != "VolumeConditionAbnormal" for _, reason, _ in site.events("writer"))
    _gone(site, "writer")
    site.apply(objects.pod("reader", "storm", READ.replace("LAST", str(written))))
    machine.eventually(lambda: "all" in site.kubectl("logs", "reader", check=False), 60, "reading")
    assert site.kubectl("logs", "reader").split() == ["all"]
    _gone(site, "reader")
    _take_away(site, pool, "storm", ("sc", "ceph-storm"))


def test_what_only_readers_may_have_is_mounted_for_reading(
    site: machine.Machine, ceph: Cluster, pool: Pool
) -> None:
    """So that each of its nodes maps it, and none changes what the others read."""
    ceph.rbd("create", f"{pool.name}/image2", "-s", "64")
    writers = objects.volume("ceph-pv", objects.rbd_source(pool, "image2"))
    site.apply(objects.secret("ceph-secret", ceph.key_of("admin")))
    site.apply(writers, objects.claim("ceph-claim", "1Gi", ""))
    site.apply(objects.pod("writer", "ceph-claim", "echo kept > /mnt/file; exec sleep 1000000"))
    site.wait_for_phase("pod", "writer", "Running", 60)
    _gone(site, "writer")
    site.kubectl("delete", "pvc/ceph-claim", "pv/ceph-pv")
    claim = objects.claim("ceph-claim", "1Gi", "")
    for each in (writers, claim):
        each["spec"]["accessModes"] = ["ReadOnlyMany"]
    script = "cat /mnt/file; touch /mnt/more || exec sleep 1000000"
    site.apply(writers, claim, objects.pod("reader", "ceph-claim", script))
    machine.eventually(
        lambda: "Read-only" in site.kubectl("logs", "reader", check=False), 60, "reading"
    )
    assert "kept" in site.kubectl("logs", "reader")
    (device,) = machine.loops_below(site.data_dir)
    assert Path(f"/sys/block/{Path(device).name}/ro").read_text().strip() == "1"
    _gone(site, "reader")
    site.kubectl("delete", "pvc/ceph-claim", "pv/ceph-pv", "secret/ceph-secret")
    ceph.rbd("rm", "--no-progress", f"{pool.name}/image2")


def test_the_example_works_as_it_is_printed(site: machine.Machine, pool: Pool) -> None:
    texts = {path.stem: path.read_text() for path in EXAMPLE.glob("*.yaml")}
    values = {"10.0.0.1:6789,10.0.0.2:6789,10.0.0.3:6789": pool.ceph.monitor}
    values |= {"KEY OF client.kube": pool.key, "kube # the user": pool.user}
    values |= {"pool: kube": f"pool: {pool.name}"}
    for name, text in texts.items():
        for printed, real in values.items():
            text = text.replace(printed, real)
        texts[name] = text
    for name in ("secret", "class", "claim", "pod"):
        said = site.create(texts[name])
        assert said.strip().endswith("created"), said
    site.wait_for_phase("pod", "ceph-rbd-pod", "Running", 60)
    machine.eventually(
        lambda: " ext4 " in site.kubectl("logs", "ceph-rbd-pod", check=False), 20, "df"
    )
    assert len(pool.images()) == 1
    for name in ("pod", "claim", "class", "secret"):
        site.kubectl("delete", "-f", "-", stdin=texts[name])
    machine.eventually(lambda: not pool.images(), 60, "the image is removed")
    machine.eventually(lambda: not pool.leftovers(), 20, "nothing is left of the image")
