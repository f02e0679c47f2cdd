"""From a class to a file in all three bricks, with the manifests of examples/03-gluster."""

from __future__ import annotations

import re

import pytest

import machine
import manifests

from .conftest import Site

pytestmark = [pytest.mark.e2e, pytest.mark.root, pytest.mark.timeout(300)]

EXAMPLES = machine.ROOT / "examples" / "03-gluster"
PAGES = "/usr/share/nginx/html"
SHARED_ENDPOINTS = "heketi-storage-endpoints"
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
    shown = holdfast.kubectl(*shell, f"df -h {PAGES}")
    volume = holdfast.get("pv", claim["spec"]["volumeName"])
    assert volume is not None
    name = volume["spec"]["glusterfs"]["path"]
    assert re.search(rf"10\.[\d.]+:/?{name} +2.0G", shown), shown
    holdfast.kubectl(*shell, f"echo '{HELLO}' > {PAGES}/index.html")
    assert holdfast.kubectl(*shell, f"cd {PAGES} && ls && cat *") == f"index.html\n{HELLO}\n"
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


def test_a_volume_made_by_hand_is_piped_into_kubectl_and_used(clean: Site) -> None:
    site, holdfast = clean, clean.holdfast
    addresses = [site.cluster.address(node) for node in (1, 2, 3)]
    holdfast.apply(manifests.endpoints(SHARED_ENDPOINTS, addresses))
    manifest = site.heketi.cli(
        "volume",
        "create",
        "--size=1",
        "--persistent-volume",
        f"--persistent-volume-endpoint={SHARED_ENDPOINTS}",
    )
    # kubectl adds a warning of the server: plain Kubernetes does not mount such volumes any more.
    said = re.match(
        r"persistentvolume/(glusterfs-[0-9a-f]{8}) created\n", holdfast.create(manifest)
    )
    assert said is not None
    name = said[1]
    assert holdfast.row("pv", name)[1:5] == ["1Gi", "RWX", "Retain", "Available"]
    cluster = site.heketi.get("/clusters")["clusters"][0]
    key = site.heketi.get(f"/clusters/{cluster}")["volumes"][0]
    assert name == f"glusterfs-{key[:8]}"
    claim = manifests.claim("by-hand", "1Gi", storage_class="", modes=("ReadWriteMany",))
    holdfast.apply(claim, manifests.pod("user", "by-hand", terminationGracePeriodSeconds=1))
    holdfast.wait_for_phase("pod", "user", "Running", 60)
    holdfast.kubectl("exec", "user", "--", "sh", "-c", f"echo '{HELLO}' > /data/index.html")
    bricks = site.bricks(site.heketi.get(f"/volumes/{key}")["name"])
    assert [(brick / "index.html").read_text().strip() for brick in bricks] == [HELLO] * 3
    holdfast.kubectl("delete", "pod", "user")
    holdfast.kubectl("delete", "pvc", "by-hand")
    holdfast.wait_for_phase("pv", name, "Released")
    assert site.heketi.get(f"/clusters/{cluster}")["volumes"] == [key]
    holdfast.kubectl("delete", f"pv/{name}", f"endpoints/{SHARED_ENDPOINTS}")
    site.heketi.cli("volume", "delete", key)


def test_devices_nodes_and_cluster_are_deleted_in_order_and_come_back(clean: Site) -> None:
    heketi = clean.heketi
    cluster = heketi.get("/clusters")["clusters"][0]
    nodes = heketi.get(f"/clusters/{cluster}")["nodes"]
    assert heketi.ask("DELETE", f"/clusters/{cluster}").status_code == 409
    for node in nodes:
        assert heketi.ask("DELETE", f"/nodes/{node}").status_code == 409
        for device in heketi.get(f"/nodes/{node}")["devices"]:
            for state in ("offline", "failed"):
                heketi.done("POST", f"/devices/{device['id']}/state", {"state": state})
            heketi.done("DELETE", f"/devices/{device['id']}")
    for node in nodes:
        heketi.done("DELETE", f"/nodes/{node}")
    assert heketi.ask("DELETE", f"/clusters/{cluster}").status_code == 200
    assert heketi.get("/clusters") == {"clusters": []}
    assert clean.cluster.images() == []
    heketi.load("sdb", "sdc")
    assert len(heketi.get("/clusters")["clusters"]) == 1
    pool = clean.cluster.run(1, "gluster", "--mode=script", "pool", "list")
    assert pool.count("Connected") == 3


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
