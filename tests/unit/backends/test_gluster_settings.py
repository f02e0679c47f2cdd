"""Classes and sections of GlusterFS: what is taken, and what is said of the rest."""

from __future__ import annotations

import asyncio
import subprocess
from pathlib import Path

import jwt
import pytest
import yaml

from holdfast.backends import errors, registry, tools
from holdfast.backends.gluster import health, identity, legacy, node_side, settings, tokens
from holdfast.backends.gluster.index import choose_gid
from holdfast.backends.gluster.preparing import machine, manifests, topology
from holdfast.backends.names import Made
from holdfast.backends.protocol import Volume, VolumeHandle, VolumeRequest
from holdfast.backends.secretrefs import ClaimIdentity
from holdfast.heketi import auth

URL = "http://10.0.0.5:8080"
UID = "0f0e8ba5-2b3c-4a39-9b1c-6d9d3a1d2f10"
CLAIM = ClaimIdentity("shop", "gluster1", f"pvc-{UID}")


def test_a_class_with_an_address_alone_has_the_in_tree_defaults() -> None:
    found = settings.read({"restURL": URL + "/"}, {})
    assert found.connection == identity.Connection(url=URL)
    assert found.durability == {"type": "replicate", "replicate": {"replica": 3}}
    assert (found.gids[0], found.gids[-1]) == (2000, 2**31 - 2)
    assert (found.factor, found.endpoints_prefix) == (1.0, "glusterfs-dynamic")


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({}, '"resturl": is required'),
        ({"resturl": "10.0.0.5:8080"}, "is no URL of a service"),
        ({"resturl": URL, "gidMin": "1999"}, '"gidMin": "1999" is no number from 2000'),
        ({"resturl": URL, "gidMin": "9000", "gidMax": "8000"}, "8000 is less than gidMin"),
        ({"resturl": URL, "volumetype": "replicate:4"}, "up to 3 replicas"),
        ({"resturl": URL, "volumetype": "disperse:3:1"}, "2:1, 4:2, 8:3, 8:4"),
        ({"resturl": URL, "volumetype": "replicat"}, "did you mean replicate"),
        ({"resturl": URL, "volumenameprefix": "a_b"}, 'no "_"'),
        ({"resturl": URL, "snapfactor": "0.5"}, "from 1 to 100"),
        ({"resturl": URL, "customepnameprefix": "x" * 27}, "longer than 26"),
        ({"resturl": URL, "secretName": "key"}, "secretName and secretNamespace belong together"),
        ({"resturl": URL, "restauthenabled": "maybe"}, "neither true nor false"),
        ({"resturl": URL, "clusterid": "zz"}, "is no id"),
        ({"resturl": URL, "resturll": "x"}, 'did you mean "resturl"'),
        ({"resturl": URL, "RESTURL": "http://b"}, "given twice"),
        ({"instance": "main"}, r"no section \[gluster.main\]"),
    ],
)
def test_what_is_wrong_is_named(given: dict[str, str], said: str) -> None:
    with pytest.raises(errors.Invalid, match=said):
        settings.read(given, {})


def test_a_section_is_checked_when_it_is_read() -> None:
    with pytest.raises(errors.Invalid, match=r"\[gluster.a\].*did you mean key_file"):
        settings.instances({"a": {"resturl": URL, "keyfile": "x"}})
    with pytest.raises(errors.Invalid, match="resturl is missing"):
        settings.instances({"a": {}})
    only = settings.instances({"a": {"resturl": URL}})
    assert settings.read({}, only).connection == identity.Connection(instance="a")


def test_ids_say_where_and_as_whom() -> None:
    for connection in (
        identity.Connection(instance="main"),
        identity.Connection(url=URL),
        identity.Connection(url=URL + "/heketi", user="jo/e@work"),
    ):
        id = identity.VolumeId(connection, "vol_x", "a" * 32)
        assert identity.VolumeId.parse(str(id)) == id
    with pytest.raises(errors.NotFound):
        identity.VolumeId.parse("main/vol_x/short")
    long = identity.volume_name(f"pvc-{UID}", "dept", f"ns/{'claim.' * 40}")
    assert len(long) <= 120
    assert long.endswith(f"_pvc-{UID}")


def test_tokens_are_those_that_the_service_checks() -> None:
    token = tokens.make("admin", "key", "GET", "/volumes")
    gate = auth.Gate(auth.Keys("key", "other"))
    assert gate.role(f"bearer {token}", "GET", "/volumes") == "admin"
    assert jwt.get_unverified_header(token) == {"alg": "HS256", "typ": "JWT"}


def test_groups_are_chosen_again_and_never_twice() -> None:
    allowed = range(2000, 2010)
    taken: set[int] = set()
    for number in range(10):
        gid = choose_gid(f"vol{number}", allowed, taken)
        assert gid == choose_gid(f"vol{number}", allowed, taken)
        assert gid not in taken
        taken.add(gid)
    with pytest.raises(errors.Exhausted):
        choose_gid("one-more", allowed, taken)


def test_the_old_source_and_its_annotations_lead_back_to_the_volume() -> None:
    id = f"{URL}/vol_pvc-{UID}/{'a' * 32}"
    volume = Volume(id, 1 << 30, {"volume": f"vol_pvc-{UID}", "hosts": "10.0.0.1", "gid": "2001"})
    request = VolumeRequest(f"pvc-{UID}", 1, {"customEPnamePrefix": "own"})
    made = Made(volume, request, legacy.IN_TREE, claim=CLAIM)
    spec = legacy.pv_source(made)
    assert spec["glusterfs"] == {
        "endpoints": f"own-{UID}",
        "endpointsNamespace": "shop",
        "path": f"vol_pvc-{UID}",
    }
    told = legacy.annotations_of(made)
    found = registry.handle_of(spec, told)
    assert found is not None
    assert (found[0], found[1].id) == ("gluster", id)
    assert told["pv.beta.kubernetes.io/gid"] == "2001"
    old = {"glusterfs": {"endpoints": "e", "path": f"vol_{'b' * 32}"}}
    theirs = registry.handle_of(old, {})
    assert theirs is not None and theirs[1].id == "b" * 32
    assert registry.endpoints_of(old, "shop") == ("shop", "e")


def test_a_secret_is_named_in_either_way() -> None:
    refs = legacy.secrets_of({"SecretName": "s", "secretnamespace": "n"}, CLAIM)
    assert str(refs.provision) == str(refs.expand) == "n/s"
    assert refs.provision is not None and refs.provision.type == "kubernetes.io/glusterfs"
    csi = {f"csi.storage.k8s.io/provisioner-secret-{key}": key for key in ("name", "namespace")}
    assert str(legacy.secrets_of(csi, CLAIM).provision) == "namespace/name"


async def test_a_missing_client_names_its_package(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(node_side, "PROGRAM", "mount.glusterfs-that-is-not-here")
    monkeypatch.setitem(tools.PACKAGES, "mount.glusterfs-that-is-not-here", "glusterfs-client")
    side = node_side.GlusterNodeSide(tmp_path)
    with pytest.raises(errors.Unavailable, match="install the package glusterfs-client"):
        await side.connect(VolumeHandle("x", {"volume": "v", "hosts": "10.0.0.1"}), {})
    assert (await side.checks())[0].severity == "error"


@pytest.mark.parametrize("name", ["", "a/b", "-o", "a,b"])
async def test_names_that_are_options_or_paths_are_refused(name: str, tmp_path: Path) -> None:
    side = node_side.GlusterNodeSide(tmp_path)
    with pytest.raises(errors.Invalid, match="is no name of a GlusterFS volume"):
        await side.connect(VolumeHandle("x", {"volume": name, "hosts": "10.0.0.1"}), {})


def test_a_set_is_lost_when_more_bricks_are_down_than_it_can_spare() -> None:
    bricks = [f"n{number}:/b" for number in range(6)]

    def lost(down: list[str]) -> bool:
        return health.VolumeHealth("v", bricks, down, set_size=3, spare=1).lost()

    assert not lost([])
    assert not lost([bricks[0], bricks[3]])
    assert lost([bricks[0], bricks[1]])


def test_a_topology_is_written_from_words() -> None:
    nodes = topology.parse(["n1=10.0.0.1:/dev/sdb,/dev/sdc", "n2@2:/dev/sdb"])
    assert nodes[0].devices == ("/dev/sdb", "/dev/sdc")
    assert (nodes[1].address, nodes[1].zone) == ("n2", 2)
    assert len(topology.warnings(nodes)) == 2
    for wrong in ("n1", "n1:sdb", "n1:/dev/../x", "n1@0:/dev/sdb", "n1:/dev/sdb,/dev/sdb"):
        with pytest.raises(errors.Invalid):
            topology.parse([wrong])
    with pytest.raises(errors.Invalid, match="node n1 is given twice"):
        topology.parse(["n1=a:/dev/sdb", "n1=b:/dev/sdb"])


def test_manifests_show_no_key_unless_asked_and_name_the_story() -> None:
    plan = manifests.Plan(topology.document(topology.parse(["n1=10.0.0.1:/dev/sdb"])))
    text = yaml.safe_dump_all(manifests.all_of(plan))
    assert "<ADMIN_KEY>" in text
    kinds = [each["kind"] for each in manifests.all_of(plan)]
    assert kinds[0] == "DaemonSet" and kinds[-1] == "StorageClass" and "Deployment" in kinds
    parameters = manifests.all_of(plan)[-1]["parameters"]
    assert settings.read(parameters, {}).connection.user == "admin"


async def test_a_disk_is_taken_only_when_nothing_is_on_it(tmp_path: Path) -> None:
    found = await machine.check([str(tmp_path), str(tmp_path / "none")], ports=())
    assert [each.what for each in found[:2]] == ["is no block device", "is not there"]


@pytest.mark.root
def test_a_disk_with_a_file_system_is_refused(tmp_path: Path) -> None:
    image = tmp_path / "disk"
    image.write_bytes(b"")
    subprocess.run(["truncate", "-s", "8M", image], check=True)
    attached = subprocess.run(
        ["losetup", "--find", "--show", image], check=True, capture_output=True, text=True
    )
    device = attached.stdout.strip()
    try:
        assert asyncio.run(machine.check([device], ports=()))[0].severity == "ok"
        subprocess.run(["mkfs.ext4", "-q", device], check=True)
        refused = asyncio.run(machine.check([device], ports=()))[0]
        assert (refused.severity, refused.what) == ("error", "holds ext4")
    finally:
        subprocess.run(["losetup", "-d", device], check=True)
