"""What classes, ids, secrets and settings of Ceph volumes mean, and what is said of bad ones."""

from __future__ import annotations

import base64
import struct
from pathlib import Path

import pytest

from holdfast.backends import errors, registry
from holdfast.backends.names import Made
from holdfast.backends.protocol import Volume, VolumeRequest
from holdfast.backends.rbd import choosing, credentials, features, ids, parameters, settings
from holdfast.backends.rbd.mappers import options_for
from holdfast.backends.rbd.mappers.krbd import KernelMapper
from holdfast.backends.secretrefs import ClaimIdentity

KEY = base64.b64encode(struct.pack("<HIIH", 1, 1700000000, 0, 16) + bytes(range(16))).decode()
CLAIM = ClaimIdentity("shop", "data", "pvc-1")
IN_TREE = {
    "monitors": "10.0.0.1:6789,10.0.0.2:6789",
    "adminId": "admin",
    "adminSecretName": "ceph-secret",
    "adminSecretNamespace": "kube-system",
    "pool": "kube",
    "userId": "kube",
    "userSecretName": "ceph-kube-secret",
    "fsType": "ext4",
    "imageFormat": "2",
    "imageFeatures": "layering",
}


@pytest.mark.parametrize("secrets", [{"key": KEY}, {"userID": "kube", "userKey": f"{KEY}\n"}])
def test_both_shapes_of_secret_hold_the_key(secrets: dict[str, str]) -> None:
    found = credentials.of(secrets, "kube")
    assert found == credentials.Credentials("kube", KEY)
    assert KEY not in repr(found)


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (base64.b64encode(KEY.encode()).decode(), "base64 once too often"),
        (f"[client.kube]\n\tkey = {KEY}\n", "is a keyring file, not a key"),
        ("", "is empty"),
        ("secret", "is not a Ceph key (6 characters"),
        (KEY[:-4], "is not a Ceph key"),
    ],
)
def test_what_is_no_key_is_told_apart(value: str, said: str) -> None:
    with pytest.raises(errors.Unauthorized) as caught:
        credentials.of({"key": value}, "kube")
    assert said in str(caught.value)
    assert KEY not in str(caught.value)


def test_a_keyring_gives_the_key_of_the_user(tmp_path: Path) -> None:
    path = tmp_path / "keyring"
    path.write_text(f"[client.other]\nkey = {KEY[:-4]}AAA=\n[client.kube]\n\tkey = {KEY}\n")
    path.chmod(0o600)
    assert credentials.of_file(path, "kube").key == KEY
    with pytest.raises(errors.Unauthorized, match=r"client\.kube, not client\.me"):
        credentials.of_file(path, "me")
    path.chmod(0o644)
    with pytest.raises(errors.Unauthorized, match="chmod 600"):
        credentials.of_file(path, "kube")


def test_in_tree_parameters_are_read_whatever_their_case() -> None:
    upper = {key.upper(): value for key, value in IN_TREE.items()}
    assert parameters.read(upper) == parameters.read(IN_TREE)
    found = parameters.read(IN_TREE)
    assert found.monitors == ("10.0.0.1:6789", "10.0.0.2:6789")
    assert (found.user, found.node_user, found.features) == ("admin", "kube", 1)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"imageFeaturs": "layering"}, 'did you mean "imageFeatures"?'),
        ({"imageFormat": "1"}, "Ceph has given up that format"),
        ({"imageFeatures": "layering,fast-diff"}, '"fast-diff" needs "object-map"'),
        ({"imageFeatures": "layring"}, 'did you mean "layering"?'),
        ({"objectSize": "5000"}, "power of 2"),
        ({"stripeUnit": "4096"}, "go together"),
        ({"clusterID": "a", "monitors": "b"}, "both given"),
        ({"mkfsOptions": "-m0"}, "is not served"),
        ({"encrypted": "true"}, "possible values: false"),
        ({"pool": "a/b"}, "cannot be the name"),
    ],
)
def test_a_bad_class_is_refused_with_the_way_out(given: dict[str, str], said: str) -> None:
    with pytest.raises(errors.Invalid) as caught:
        parameters.read(given)
    assert said in str(caught.value)


@pytest.mark.parametrize(
    "text",
    [
        "rbd:main/kube/pvc-1",
        "rbd:main/kube:team/pvc-1",
        "rbd:10.0.0.1:6789,10.0.0.2:6789/kube/kubernetes-dynamic-pvc-1",
        "rbd:main/kube/pvc-1@snap-1",
    ],
)
def test_an_id_says_what_it_was_made_of(text: str) -> None:
    found = ids.parse(text)
    assert isinstance(found, ids.ImageId)
    assert str(found) == text


def test_handles_of_ceph_csi_are_understood() -> None:
    uuid = "3b1a6a3e-9d2b-4b0e-8a51-0f0f1a2b3c4d"
    assert ids.parse(f"0001-0009-rook-ceph-0000000000000002-{uuid}") == ids.CsiId(
        "rook-ceph", 2, uuid
    )
    assert ids.parse(f"0001-0008-rook-ceph-0000000000000002-{uuid}") is None
    digest = next(iter(ids.monitors_hashes(["10.0.0.1:6789"])))
    found = ids.parse(f"mig_mons-{digest}_image-{uuid}_{b'my_pool'.hex()}")
    assert found == ids.MigratedId(digest, "my_pool", f"kubernetes-dynamic-pvc-{uuid}")
    assert ids.parse("anything else") is None


def test_the_same_monitors_in_another_order_are_the_same_cluster() -> None:
    assert ids.cluster_of(["b:1", "a:1", "b:1"]) == ids.cluster_of(["a:1", "b:1"])
    typed = "[v2:10.0.0.1:3300/0,v1:10.0.0.1:6789/0],10.0.0.2"
    assert ids.split_monitors(typed) == ("[v2:10.0.0.1:3300/0,v1:10.0.0.1:6789/0]", "10.0.0.2")
    assert "/" not in ids.cluster_of(ids.split_monitors(typed))


def test_a_bad_section_is_refused_with_the_nearest_key() -> None:
    with pytest.raises(errors.Invalid, match=r"\[rbd.main\].*did you mean monitors"):
        settings.read({"main": {"monitor": "a"}})
    with pytest.raises(errors.Invalid, match='"monitors" is missing'):
        settings.read({"main": {"pool": "kube"}})


def test_the_in_tree_source_is_written_and_read_back_as_the_same_volume() -> None:
    provisioner = registry.find("kubernetes.io/rbd")
    assert provisioner is not None
    refs = provisioner.secrets(IN_TREE, CLAIM)
    assert (str(refs.provision), str(refs.stage)) == (
        "kube-system/ceph-secret",
        "shop/ceph-kube-secret",
    )
    assert refs.provision is not None and refs.provision.type == "kubernetes.io/rbd"
    id = "rbd:10.0.0.1:6789,10.0.0.2:6789/kube/kubernetes-dynamic-pvc-1"
    context = {
        "monitors": "10.0.0.2:6789,10.0.0.1:6789",
        "pool": "kube",
        "image": "kubernetes-dynamic-pvc-1",
        "user": "kube",
        "fsType": "ext4",
    }
    made = Made(Volume(id, 1, context), VolumeRequest("pvc-1", 1), provisioner.name, refs)
    source = provisioner.source(made)
    assert source["rbd"]["secretRef"] == {"name": "ceph-kube-secret", "namespace": "shop"}
    found = registry.handle_of(source)
    assert found is not None
    assert (found[0], found[1].id) == ("rbd", id)


async def test_an_image_is_mapped_by_what_kernel_and_class_allow(tmp_path: Path) -> None:
    (tmp_path / "supported_features").write_text("0x3d\n")
    (tmp_path / "devices").mkdir()
    kernel = KernelMapper(tmp_path)
    usual = features.parse("layering,exclusive-lock,object-map,fast-diff,deep-flatten")
    assert (await choosing.choose([kernel], usual, "kube/a", {})).take_off == ()
    journal = usual | features.BITS["journaling"]
    choice = await choosing.choose([kernel], journal, "kube/a", {})
    assert choice.take_off == ["journaling"]
    for context in ({"static": "true"}, {"downgradeFeatures": "false"}):
        with pytest.raises(errors.Unsupported, match="rbd feature disable kube/a journaling"):
            await choosing.choose([kernel], journal, "kube/a", context)
    absent = KernelMapper(tmp_path / "absent")
    with pytest.raises(errors.Unsupported, match="the kernel has no RBD client"):
        await choosing.choose([absent], usual, "kube/a", {})


def test_options_are_told_apart_by_mapper() -> None:
    text = "krbd:queue_depth=256,lock_on_read;nbd:try-netlink"
    assert options_for("krbd", text) == ["queue_depth=256", "lock_on_read"]
    assert options_for("nbd", text) == ["try-netlink"]
    assert options_for("krbd", "queue_depth=1") == ["queue_depth=1"]
