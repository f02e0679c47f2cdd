"""Shared volumes of a real cluster: several nodes, groups, growing, static ones, lost nodes."""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest

import machine
import manifests
from machine import NODE

from .conftest import Site

pytestmark = [pytest.mark.e2e, pytest.mark.root, pytest.mark.timeout(300)]
SECOND = f"{NODE}-2"


def _class(
    site: Site, name: str, provisioner: str = "kubernetes.io/glusterfs", **more: str
) -> None:
    site.holdfast.apply(
        manifests.storage_class(
            name,
            provisioner,
            allowVolumeExpansion=True,
            parameters={"resturl": site.heketi.url, **more},
        )
    )


def _claim(site: Site, name: str, storage_class: str, size: str = "1Gi") -> str:
    """Make a claim that many nodes may write; return the name of its volume."""
    site.holdfast.apply(
        manifests.claim(name, size, storage_class=storage_class, modes=("ReadWriteMany",))
    )
    bound = site.holdfast.wait_for_phase("pvc", name, "Bound", 90)
    return str(bound["spec"]["volumeName"])


def _run(site: Site, name: str, claim: str, node: str = "", **spec: Any) -> None:
    pod = manifests.pod(name, claim, terminationGracePeriodSeconds=1, **spec)
    pod["spec"]["containers"][0]["command"] = ["sleep", "infinity"]
    if node:
        pod["spec"]["nodeName"] = node
    site.holdfast.apply(pod)
    site.holdfast.wait_for_phase("pod", name, "Running", 60)


def _sh(site: Site, pod: str, command: str) -> str:
    return site.holdfast.kubectl("exec", pod, "--", "sh", "-c", command)


def _check(site: Site) -> dict[str, list[dict[str, str]]]:
    """What `holdfast check gluster` finds, by check."""
    said = site.holdfast.holdfast("check", "gluster", "--json", check=False).stdout
    found: dict[str, list[dict[str, str]]] = {}
    for each in json.loads(said):
        found.setdefault(each["check"], []).append(each)
    return found


def test_pods_on_two_nodes_write_the_same_volume_as_its_group(clean: Site) -> None:
    site = clean
    _class(site, "shared", gidMin="40000", gidMax="40001", volumenameprefix="team")
    volume = site.holdfast.get("pv", _claim(site, "both", "shared"))
    assert volume is not None
    gid = volume["metadata"]["annotations"]["pv.beta.kubernetes.io/gid"]
    assert gid in ("40000", "40001")
    name = volume["spec"]["glusterfs"]["path"]
    assert name == f"team_default_both_{volume['metadata']['name']}"
    someone = {"securityContext": {"runAsUser": 1234, "runAsGroup": 1234}}
    _run(site, "one", "both", NODE, **someone)
    _run(site, "two", "both", SECOND, **someone)
    assert gid in _sh(site, "one", "id -G").split()
    _sh(site, "one", "echo hello > /data/file && chmod g+w /data/file")
    assert _sh(site, "two", "cat /data/file") == "hello\n"
    _sh(site, "two", "echo world >> /data/file")
    # A client believes what it knows of a file for a second.
    machine.eventually(
        lambda: _sh(site, "one", "cat /data/file") == "hello\nworld\n",
        5,
        "the other node sees it",
    )
    for brick in site.bricks(name):
        assert (brick / "file").read_text() == "hello\nworld\n"
        assert brick.stat().st_gid == int(gid)


def test_a_mounted_volume_grows_and_its_pod_sees_it(clean: Site) -> None:
    site = clean
    _class(site, "growing")
    name = _claim(site, "small", "growing")
    _run(site, "user", "small")
    before = int(_sh(site, "user", "df --output=size -BM /data | tail -1").strip().rstrip("M"))
    patch = '{"spec":{"resources":{"requests":{"storage":"2500Mi"}}}}'
    site.holdfast.kubectl("patch", "pvc", "small", "-p", patch)

    def grown() -> bool:
        claim = site.holdfast.get("pvc", "small")
        return claim is not None and claim["status"]["capacity"]["storage"] == "3Gi"

    machine.eventually(grown, 90, "the claim has grown")
    volume = site.holdfast.get("pv", name)
    assert volume is not None and volume["spec"]["capacity"]["storage"] == "3Gi"
    after = int(_sh(site, "user", "df --output=size -BM /data | tail -1").strip().rstrip("M"))
    assert before < 1100 and after > 2800


def test_a_csi_class_has_the_same_parameters(clean: Site) -> None:
    site = clean
    _class(site, "csi", "gluster.holdfast.dev", volumetype="disperse:2:1", snapfactor="1.5")
    volume = site.holdfast.get("pv", _claim(site, "spread", "csi", "2Gi"))
    assert volume is not None
    source = volume["spec"]["csi"]
    assert source["driver"] == "gluster.holdfast.dev"
    assert source["volumeHandle"].startswith(f"{site.heketi.url}/vol_{volume['metadata']['name']}/")
    _run(site, "user", "spread")
    _sh(site, "user", "echo text > /data/file")
    assert _sh(site, "user", "cat /data/file") == "text\n"
    assert "glusterfs-dynamic" not in site.holdfast.kubectl("get", "svc,endpoints")


def test_volumes_somebody_else_made_are_found_through_endpoints(clean: Site) -> None:
    site, holdfast = clean, clean.holdfast
    body = {"size": 1, "name": "theirs", "durability": {"type": "replicate"}}
    made = site.heketi.done("POST", "/volumes", body)
    try:
        holdfast.apply(
            manifests.endpoints("their-cluster", [site.cluster.address(n) for n in (1, 2, 3)])
        )
        source = {"glusterfs": {"endpoints": "their-cluster", "path": "theirs"}}
        modes = ("ReadWriteMany",)
        holdfast.apply(
            manifests.volume("static", source, "1Gi", modes=modes, storageClassName=""),
            manifests.claim("static", "1Gi", storage_class="", modes=modes, volumeName="static"),
        )
        _run(site, "bound", "static")
        inline = manifests.pod("inline", "static", terminationGracePeriodSeconds=1)
        inline["spec"]["volumes"] = [{"name": "data", **source}]
        inline["spec"]["containers"][0]["command"] = ["sleep", "infinity"]
        holdfast.apply(inline)
        holdfast.wait_for_phase("pod", "inline", "Running")
        _sh(site, "bound", "echo seen > /data/file")
        assert _sh(site, "inline", "cat /data/file") == "seen\n"
        nowhere = manifests.pod("nowhere", "static")
        nowhere["spec"]["volumes"] = [
            {"name": "data", "glusterfs": {"endpoints": "none", "path": "theirs"}}
        ]
        holdfast.apply(nowhere)
        told = holdfast.wait_for_event("nowhere", "FailedMount")
        assert 'endpoints "default/none" not found' in told
    finally:
        holdfast.kubectl("delete", "pod", "--all", "--grace-period=1")
        holdfast.kubectl("delete", "pvc,pv", "--all")
        holdfast.kubectl("delete", "endpoints", "their-cluster")
        site.heketi.done("DELETE", f"/volumes/{made['id']}")


def test_a_pod_goes_on_when_a_node_of_the_storage_is_lost(clean: Site) -> None:
    site = clean
    _class(site, "safe", volumeoptions="network.ping-timeout 5")
    volume = site.holdfast.get("pv", _claim(site, "kept", "safe"))
    assert volume is not None
    name = volume["spec"]["glusterfs"]["path"]
    _run(site, "writer", "kept")
    writing = "while test ! -e /data/enough; do echo x >> /data/log; sync; sleep 0.1; done"
    _sh(site, "writer", f"nohup sh -c '{writing}' >/dev/null 2>&1 &")
    machine.eventually(lambda: int(_sh(site, "writer", "wc -l < /data/log")) > 5, 30)
    before = _check(site)
    assert {each["severity"] for each in before["peers"] + before["bricks"]} == {"ok"}
    lost = site.cluster.address(2)
    site.cluster.kill(2)
    try:
        written = int(_sh(site, "writer", "wc -l < /data/log"))
        machine.eventually(lambda: int(_sh(site, "writer", "wc -l < /data/log")) > written + 20, 60)
        during = machine.eventually(
            lambda: found if (found := _check(site))["peers"][0]["severity"] != "ok" else None, 60
        )
        assert lost in during["peers"][0]["what"]
        bricks = next(each for each in during["bricks"] if each["where"] == f"volume {name}")
        assert bricks["severity"] == "warning"
        assert f"1 of 3 bricks are down: {lost}:" in bricks["what"]
        heal = next(each for each in during["heal"] if each["where"] == f"volume {name}")
        assert "wait to be healed" in heal["what"]
    finally:
        site.cluster.start(2)
    _sh(site, "writer", "touch /data/enough")

    def healed() -> bool:
        found = _check(site)
        kinds = found["peers"] + found["bricks"] + found["heal"]
        return {each["severity"] for each in kinds} == {"ok"}

    machine.eventually(healed, 90, "everything is healed")
    written = int(_sh(site, "writer", "wc -l < /data/log"))
    for brick in site.bricks(name):
        assert (brick / "log").read_text() == "x\n" * written


def test_a_client_that_died_is_mounted_anew(clean: Site) -> None:
    site = clean
    _class(site, "plain")
    volume = site.holdfast.get("pv", _claim(site, "again", "plain"))
    assert volume is not None
    _run(site, "first", "again", NODE)
    _sh(site, "first", "echo kept > /data/file")
    name = volume["spec"]["glusterfs"]["path"]
    clients = _clients(site, name)
    assert len(clients) == 1, "a node mounts a volume once"
    os.kill(clients[0], signal.SIGKILL)
    machine.eventually(lambda: not _clients(site, name), what="the client is dead")
    said = site.holdfast.kubectl("exec", "first", "--", "cat", "/data/file", check=False)
    assert "not connected" in said
    _run(site, "second", "again", NODE)
    assert _sh(site, "second", "cat /data/file") == "kept\n"
    site.holdfast.kubectl("delete", "pod", "first")
    _run(site, "first", "again", NODE)
    assert _sh(site, "first", "cat /data/file") == "kept\n"


def _clients(site: Site, volume: str) -> list[int]:
    """The processes that serve a volume's mounts below the data directory."""
    found = []
    for place in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = place.read_bytes().decode(errors="replace").split("\0")
        except OSError:
            continue
        ours = any(str(site.holdfast.data_dir) in word for word in words)
        if words[0].endswith("glusterfs") and ours and any(volume in word for word in words):
            found.append(int(place.parent.name))
    return found


def test_holdfast_killed_while_it_creates_makes_each_volume_once(clean: Site) -> None:
    site = clean
    _class(site, "often")
    for number in range(3):
        name = f"cut{number}"
        site.holdfast.apply(manifests.claim(name, "1Gi", storage_class="often"))
        time.sleep(0.1 + 0.4 * number)
        site.holdfast.kill()
        site.holdfast.start("--nodes", "2")
        site.holdfast.wait_for_phase("pvc", name, "Bound", 90)
    assert len(site.volumes()) == 3
    assert len(site.cluster.volumes()) == 3
