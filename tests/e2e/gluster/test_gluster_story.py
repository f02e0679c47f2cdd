"""From a class to a file in all three bricks, with the manifests of examples/03-gluster."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import machine
import manifests

from .conftest import Site

pytestmark = [pytest.mark.e2e, pytest.mark.root, pytest.mark.timeout(300)]

EXAMPLES = Path(__file__).parents[3] / "examples" / "03-gluster"
HELLO = "Hello World from GlusterFS!!!"


def _example(name: str, site: Site) -> str:
    """A manifest, with the address the service has here."""
    return (EXAMPLES / name).read_text().replace("http://127.0.0.1:8080", site.heketi.url)


def test_the_examples_lead_from_a_class_to_a_file_in_all_bricks(clean: Site) -> None:
    site, holdfast = clean, clean.holdfast
    assert holdfast.create(_example("class.yaml", site)) == (
        "storageclass.storage.k8s.io/gluster-heketi created\n"
    )
    assert "gluster-heketi   kubernetes.io/glusterfs" in holdfast.kubectl("get", "storageclass")
    holdfast.create(_example("claim.yaml", site))
    claim = holdfast.wait_for_phase("pvc", "gluster1", "Bound", 60)
    assert holdfast.row("pvc", "gluster1")[1:5] == [
        "Bound",
        claim["spec"]["volumeName"],
        "2Gi",
        "RWO",
    ]
    holdfast.create(_example("pod.yaml", site))
    holdfast.wait_for_phase("pod", "nginx-pod1", "Running", 60)
    shell = ("exec", "nginx-pod1", "--", "sh", "-c")
    shown = holdfast.kubectl(*shell, "df -h /mnt")
    volume = holdfast.get("pv", claim["spec"]["volumeName"])
    assert volume is not None
    name = volume["spec"]["glusterfs"]["path"]
    assert re.search(rf"10\.[\d.]+:/?{name} +2.0G", shown), shown
    holdfast.kubectl(*shell, f"echo '{HELLO}' > /mnt/index.html")
    assert holdfast.kubectl(*shell, "cat /mnt/index.html").strip() == HELLO
    bricks = site.bricks(name)
    assert [(brick / "index.html").read_text().strip() for brick in bricks] == [HELLO] * 3
    _check_objects(site, claim, volume)
    holdfast.kubectl("delete", "pod", "nginx-pod1")
    holdfast.kubectl("delete", "pvc", "gluster1")
    machine.eventually(lambda: site.volumes() == [], 60, "the volume is deleted")
    machine.eventually(
        lambda: "glusterfs-dynamic" not in holdfast.kubectl("get", "svc,endpoints"),
        what="service and endpoints are gone",
    )
    assert site.cluster.volumes() == []


def _check_objects(site: Site, claim: manifests.Object, volume: manifests.Object) -> None:
    """What the in-tree plug-in wrote: source, annotations, Endpoints and Service."""
    holdfast = site.holdfast
    name = f"glusterfs-dynamic-{claim['metadata']['uid']}"
    source = volume["spec"]["glusterfs"]
    assert (source["endpoints"], source["endpointsNamespace"]) == (name, "default")
    told = volume["metadata"]["annotations"]
    assert 2000 <= int(told["pv.beta.kubernetes.io/gid"]) < 2**31
    assert told["kubernetes.io/createdby"] == "heketi-dynamic-provisioner"
    assert told["gluster.kubernetes.io/heketi-volume-id"] in site.heketi.get("/volumes")["volumes"]
    found = holdfast.get("endpoints", name)
    assert found is not None
    addresses = [site.cluster.address(node) for node in (1, 2, 3)]
    assert sorted(a["ip"] for a in found["subsets"][0]["addresses"]) == addresses
    assert found["metadata"]["labels"] == {"gluster.kubernetes.io/provisioned-for-pvc": "gluster1"}
    service = holdfast.get("service", name)
    assert service is not None
    assert service["spec"]["ports"][0]["port"] == 1
    holdfast.kubectl("delete", "endpoints", name)
    machine.eventually(lambda: holdfast.get("endpoints", name), what="they are written again")
