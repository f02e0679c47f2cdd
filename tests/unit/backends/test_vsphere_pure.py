"""What the vSphere backend decides without a vCenter: files, parameters, names, slots, ids."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from holdfast.backends import errors
from holdfast.backends.secretrefs import SecretRef
from holdfast.backends.vsphere import (
    cloudconf,
    configuration,
    documents,
    identifiers,
    legacy,
    naming,
    parameters,
    preparing,
    roles,
    slots,
)
from holdfast.backends.vsphere.configuration import Center, Credentials, Tags
from holdfast.backends.vsphere.identifiers import DiskId, SnapshotId, VmdkId

IN_TREE = """
# masters
[Global]
user = "k8s@vsphere.local"
password = "k8S!@Vcp#12\\"3\\\\"  ; quoted
port = "443"
insecure-flag = "1"
datacenters = "Mcloud, Other"
[VirtualCenter "172.20.0.16"]
[VirtualCenter "172.20.0.17"]
user = "second"
port = 8443
[Workspace]
server = "172.20.0.16"
datacenter = "Mcloud"
folder = "kubernetes-cluster"
default-datastore="vsanDatastore"
resourcepool-path="kubernetes-cluster"
[Disk]
scsicontrollertype = lsilogic-sas
[Network]
#public-network = "VM Network"
[Labels]
region = k8s-region
zone = k8s-zone
"""


def parse(text: str) -> configuration.Workspace:
    return cloudconf.parse(text, "vsphere.conf", "main", Tags())


def test_the_in_tree_file_is_read_with_its_quotes_and_comments() -> None:
    found = parse(IN_TREE)
    assert found.home.name == "172.20.0.16"
    assert found.home.credentials().password == 'k8S!@Vcp#12"3\\'
    assert found.home.insecure and found.home.datacenters == ("Mcloud", "Other")
    other = found.centers[1]
    assert (other.name, other.credentials().user) == ("172.20.0.17:8443", "second")
    assert (found.folder, found.datacenter) == ("kubernetes-cluster", "Mcloud")
    assert (found.default_datastore, found.controller) == ("vsanDatastore", "lsilogic-sas")
    assert found.resource_pool == "kubernetes-cluster"
    assert (found.tags.region_category, found.tags.zone_category) == ("k8s-region", "k8s-zone")
    assert "k8S" not in repr(found)


@pytest.mark.parametrize(
    "text",
    [
        '[Global]\nsecret-name = "vcc"\nsecret-namespace = "kube-system"\n[VirtualCenter "vc"]\n',
        "global:\n  secretName: vcc\n  secretNamespace: kube-system\n"
        "vcenter:\n  vc:\n    server: vc\n",
    ],
    ids=["ini", "yaml"],
)
def test_a_secret_that_a_file_names_is_asked_to_be_mounted_where_no_api_is_known(
    text: str, tmp_path: Path
) -> None:
    path = tmp_path / "vsphere.conf"
    path.write_text(text)
    with pytest.raises(errors.Unauthorized, match=r"kube-system/vcc .*no Kubernetes API") as caught:
        cloudconf.load(path, "main", Tags()).home.credentials()
    assert "secret_dir" in caught.value.remedy
    mounted = tmp_path / "secret"
    mounted.mkdir()
    (mounted / "vc.username").write_text("k8s")
    (mounted / "vc.password").write_text("x")
    found = cloudconf.load(path, "main", Tags(), str(mounted))
    assert found.home.credentials().user == "k8s"


def test_what_is_written_is_read_back() -> None:
    found = parse(IN_TREE)
    again = parse(documents.vsphere_conf(found, secrets=True))
    assert again.centers == found.centers
    for one, other in zip(again.centers, found.centers, strict=True):
        assert one.credentials() == other.credentials()
    assert (again.folder, again.controller, again.tags) == (
        found.folder,
        found.controller,
        found.tags,
    )
    hidden = documents.vsphere_conf(found, secrets=False)
    assert "k8S" not in hidden and documents.HIDDEN in hidden


def test_each_vcenter_keeps_its_own_way_in_when_a_file_is_written() -> None:
    pinned = Center(
        "a", thumbprint="AA:BB", datacenters=("X",), credentials=lambda: Credentials("a", "1")
    )
    by_secret = Center("b", 8443, ("X", "Y"), ca_file="/ca", secret=SecretRef("kube-system", "vcc"))
    workspace = configuration.Workspace("m", (pinned, by_secret), "X", cluster_id="c1")
    again = parse(documents.vsphere_conf(workspace, secrets=True))
    assert again.centers == workspace.centers and again.cluster_id == "c1"
    assert again.home.credentials() == Credentials("a", "1")


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ('"a;b#c"', "a;b#c"),
        ('a"b;c"d', "ab;cd"),
        ('"a\\\\b\\"c"', 'a\\b"c'),
        ("VSPHERE.LOCAL\\k8s ; who", "VSPHERE.LOCAL\\k8s"),
        ('"tab\\tend"', "tab\tend"),
        ("'single'", "'single'"),
        ("two  words", "two  words"),
        ("pass=word", "pass=word"),
        ('""', ""),
    ],
)
def test_values_are_read_as_git_reads_them(written: str, meant: str) -> None:
    found = parse(f'[VirtualCenter "vc"]\r\nuser = u\r\n[Workspace]\nfolder = {written}\r\n')
    assert found.folder == meant


def test_a_file_of_another_systems_editor_is_read(tmp_path: Path) -> None:
    path = tmp_path / "vsphere.conf"
    path.write_bytes(b'\xef\xbb\xbf[VirtualCenter "vc"]\r\nuser = u\r\npassword = "p"\r\n')
    assert cloudconf.load(path, "main", Tags()).home.credentials() == Credentials("u", "p")


def test_a_line_that_is_wrong_is_named_without_its_password() -> None:
    for line in ('password "Geheim1"', 'password = "Geheim1'):
        with pytest.raises(errors.Invalid, match=r"vsphere\.conf:2") as caught:
            parse(f'[VirtualCenter "vc"]\n{line}\n')
        assert "Geheim" not in str(caught.value)


def test_the_csi_drivers_and_the_external_providers_files_are_read() -> None:
    csi = parse(
        '[Global]\ncluster-id = "c1"\n[VirtualCenter "vc"]\nuser = u\npassword = p\n'
        'datacenters = DC\n[Labels]\ntopology-categories = "r, z"\n'
    )
    assert (csi.cluster_id, csi.tags.region_category, csi.tags.zone_category) == ("c1", "r", "z")
    external = parse(
        "global:\n  port: 8443\n  insecureFlag: true\nvcenter:\n  one:\n    server: vc.example\n"
        "    user: u\n    password: p\n    datacenters: [A, B]\nlabels:\n  region: r\n  zone: z\n"
    )
    assert external.home.name == "vc.example:8443"
    assert external.home.insecure and external.home.datacenters == ("A", "B")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('[Global]\nusre = "x"\n', "did you mean user"),
        ("[Globl]\n", r"did you mean \[global\]"),
        ("[Global]\nuser = x\n", "no vCenter"),
        ("user = x\n", "vCenter|neither"),
        ('[VirtualCenter "a"]\nport = none\n', "port"),
        ('[VirtualCenter "a"]\n[Workspace]\nserver = "b"\n', "none of the vCenters"),
        ('[VirtualCenter "a"]\n[Disk]\nscsicontrollertype = ide\n', "pvscsi or lsilogic-sas"),
    ],
)
def test_a_mistake_is_named_with_its_place(text: str, said: str) -> None:
    with pytest.raises(errors.Invalid, match=said) as caught:
        parse(text)
    assert "vsphere.conf" in str(caught.value)


def test_a_changed_file_gives_the_new_password(tmp_path: Path) -> None:
    path = tmp_path / "vsphere.conf"
    path.write_text('[VirtualCenter "vc"]\nuser = u\npassword = old\n')
    found = cloudconf.load(path, "main", Tags())
    assert found.home.credentials().password == "old"
    scratch = tmp_path / "new"
    scratch.write_text('[VirtualCenter "vc"]\nuser = u\npassword = new\n')
    scratch.replace(path)
    assert found.home.credentials().password == "new"
    path.unlink()
    assert found.home.credentials().password == "new"


def test_an_instance_is_checked_key_by_key() -> None:
    with pytest.raises(errors.Invalid, match=r'"\*-slow" in "exclude" is no regular expression'):
        configuration.read({"a": {"server": "x", "exclude": ["*-slow"]}})
    with pytest.raises(errors.Invalid, match="did you mean datacenter"):
        configuration.read({"a": {"server": "x", "datacentre": "y"}})
    with pytest.raises(errors.Invalid, match="whole number"):
        configuration.read({"a": {"server": "x", "port": "443"}})
    with pytest.raises(errors.Invalid, match="configured twice"):
        configuration.read({"a": {"server": "x"}, "b": {"server": "x"}})
    with pytest.raises(errors.Unauthorized, match="secret_dir"):
        configuration.read({"a": {"server": "x"}})["a"].home.credentials()


def test_every_parameter_of_the_old_class_has_its_range() -> None:
    wish = parameters.read(
        {"HostFailuresToTolerate": "2", "cachereservation": "30", "diskStripes": "12"}
    )
    assert (
        wish.raw_policy
        == '(("hostFailuresToTolerate" i2)("cacheReservation" i300000)("stripeWidth" i12))'
    )
    for key, value in (
        ("hostFailuresToTolerate", "4"),
        ("forceProvisioning", "2"),
        ("cacheReservation", "101"),
        ("diskStripes", "0"),
        ("objectSpaceReservation", "-1"),
        ("iopsLimit", "many"),
        ("diskformat", "thick"),
        ("fstype", "ntfs"),
    ):
        with pytest.raises(errors.Invalid, match=value):
            parameters.read({key: value})
    for both in (
        {"storagePolicyName": "gold", "diskStripes": "1"},
        {"datastore": "a", "datastoreurl": "ds:///b/"},
        {"datastore": "a", "datastore-migrationparam": "b"},
        {"disk": "fcd", "iopsLimit": "5"},
    ):
        with pytest.raises(errors.Invalid):
            parameters.read(both)


def test_migrated_parameters_mean_what_they_meant() -> None:
    wish = parameters.read(
        {
            "csimigration": "true",
            "datastore-migrationparam": "ds1",
            "diskformat-migrationparam": "Thin",
            "hostfailurestotolerate-migrationparam": "1",
            "disk": "fcd",
        }
    )
    assert (wish.disk, wish.datastore, wish.format) == ("vmdk", "ds1", "thin")
    assert wish.capabilities == (("hostFailuresToTolerate", 1),)


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("my-datastore-1", "my-datastore-1-c7567ed"),
        ("my datastore", "my-datastore-772d4a90"),
        ("dc-cluster-ds", "dc-cluster-ds-52483173"),
        ("Plain1", "Plain1"),
    ],
)
def test_classes_are_called_as_on_other_platforms(text: str, name: str) -> None:
    assert naming.slug(text) == name


@given(st.lists(st.text(min_size=1), min_size=1, max_size=4))
def test_any_datastore_gets_a_name_the_api_takes(parts: list[str]) -> None:
    name = naming.class_name(parts)
    assert name and len(name) <= 253
    assert set(name) <= set("abcdefghijklmnopqrstuvwxyz0123456789-.")
    assert name[0] not in "-." and name[-1] not in "-."


@pytest.mark.parametrize(
    "id",
    [
        VmdkId("ds", "kubevols/x.vmdk"),
        VmdkId("ds", "kubevols/x y.vmdk", "Cluster"),
        VmdkId("ds", "kubevols/x.vmdk", "", "vc:8443", "folder/DC"),
        VmdkId("ds", "kubevols/x.vmdk", "Cluster", "[2001:db8::1]:8443", "folder/DC [1]"),
        VmdkId("ds (1)", "a/[b] x.vmdk"),
        DiskId("aaaaaaaa-bbbb-cccc-dddd-eeeeeeeeeeee"),
        DiskId("aaaaaaaa-bbbb-cccc-dddd-eeeeeeeeeeee", "datastore-12"),
        DiskId("aaaaaaaa-bbbb-cccc-dddd-eeeeeeeeeeee", "datastore-12", "vc:8443"),
    ],
)
def test_an_id_says_everything_and_is_read_back(id: identifiers.VolumeId) -> None:
    assert identifiers.read(str(id)) == id
    if isinstance(id, DiskId):
        snapshot = SnapshotId(id, "11111111-2222-3333-4444-555555555555")
        assert identifiers.read_snapshot(str(snapshot)) == snapshot
        assert len(str(snapshot)) <= 128


@pytest.mark.parametrize("cluster", ["", "prod", "0" * 36, "c" * 64, "../../etc", "a/b", "ümlaut"])
@pytest.mark.parametrize("name", [f"pvc-{'0' * 36}", "x" * 120, "x" * 121, "../x", "a b/c"])
def test_a_disks_name_is_its_own_and_one_that_vcenter_takes(cluster: str, name: str) -> None:
    own = identifiers.own_prefix(cluster)
    found = identifiers.object_name(name, cluster)
    assert len(found) <= 80 and found.startswith(own) and found.isascii()
    assert found != identifiers.object_name(f"{name}2", cluster)
    assert found != identifiers.object_name(name, f"{cluster}2")
    path = identifiers.volume_path(name, cluster)
    assert path.startswith(f"kubevols/{own}") and path.count("/") == 1 and ".." not in path


def test_no_volume_is_called_like_nonsense() -> None:
    for text in ("", "x", "fcd:no", "[ds] no-disk", "../../etc"):
        with pytest.raises(errors.NotFound):
            identifiers.read(text)


def test_uuids_of_disks_and_machines_have_one_form() -> None:
    assert identifiers.normalise_uuid("60 00 C2 9a bb cc dd ee-11 22 33 44 55 66 77 88") == (
        "6000c29abbccddee1122334455667788"
    )
    for text in (
        "VMware-42 0a 11 22 33 44 55 66-77 88 99 aa bb cc dd ee",
        "vsphere://420A1122-3344-5566-7788-99AABBCCDDEE",
    ):
        assert identifiers.node_uuid(text) == "420a1122-3344-5566-7788-99aabbccddee"
    assert identifiers.node_uuid("node-1") == ""
    swapped = identifiers.swapped_uuid("420a1122-3344-5566-7788-99aabbccddee")
    assert swapped == "22110a42-4433-6655-7788-99aabbccddee"


def test_slots_are_found_on_the_wanted_controller_and_added_up_to_four() -> None:
    used = frozenset(slots.units("pvscsi", "vmx-13"))
    first = slots.Controller(1000, 0, "lsilogic-sas", frozenset({0}))
    slot = slots.choose([first], "pvscsi", "vmx-13", "VM x")
    assert (slot.new_bus, slot.unit) == (1, 0)
    full = [slots.Controller(1000 + bus, bus, "pvscsi", used) for bus in range(4)]
    with pytest.raises(errors.Exhausted, match="VM x"):
        slots.choose(full, "pvscsi", "vmx-13", "VM x")
    # Later hardware has room on the same controllers.
    assert slots.choose(full, "pvscsi", "vmx-19", "VM x").unit == 16
    assert slots.free(full, "pvscsi", "vmx-13") == 0
    assert slots.free([], "pvscsi", "vmx-13") == 60
    assert slots.free([], "pvscsi", "vmx-19") == 256
    assert slots.OWN_UNIT not in slots.units("pvscsi", "vmx-19")


def test_static_paths_are_written_in_one_way() -> None:
    handle = legacy.handle_of({"vsphereVolume": {"volumePath": "[ds]k8sData/db", "fsType": "xfs"}})
    assert handle is not None
    assert (handle.id, handle.fs_type) == ("[ds] k8sData/db.vmdk", "xfs")
    assert legacy.handle_of({"csi": {}}) is None


def test_roles_grow_from_static_to_platform() -> None:
    static, dynamic, policy = (set(roles.privileges(mode)) for mode in roles.MODES[:3])
    assert static < dynamic < policy
    assert "StorageProfile.View" in policy - dynamic
    assert len(roles.privileges("platform")) > 100
    with pytest.raises(errors.Invalid, match="did you mean dynamic"):
        roles.check_mode("dynamc")


def test_metallb_is_asked_for_five_values_and_checks_them() -> None:
    made = documents.metallb(["10.0.0.1"], 65000, 65001, ["192.0.2.10-192.0.2.20"], "front")
    assert [each["kind"] for each in made] == ["BGPPeer", "IPAddressPool", "BGPAdvertisement"]
    assert made[0]["spec"] == {"myASN": 65001, "peerASN": 65000, "peerAddress": "10.0.0.1"}
    for arguments in (
        (["10.0.0"], 65000, 65001, ["192.0.2.0/28"]),
        (["10.0.0.1"], 0, 65001, ["192.0.2.0/28"]),
        (["10.0.0.1"], 65000, 65001, ["192.0.2.20-192.0.2.10"]),
        (["10.0.0.1"], 65000, 65001, []),
    ):
        with pytest.raises(errors.Invalid):
            documents.metallb(*arguments, "front")
    with pytest.raises(errors.Invalid, match="no object can be called"):
        documents.metallb(["10.0.0.1"], 65000, 65001, ["192.0.2.0/28"], "Front_1")
    peer, _, announced = documents.metallb(
        *(["10.0.0.1"], 65000, 65001, ["192.0.2.0/28"], "front"),
        network="bgp",
        frontend="node-role/frontend",
    )
    assert peer["metadata"]["annotations"] == {"holdfast.dev/network": "bgp"}
    chosen = [{"matchLabels": {"node-role/frontend": ""}}]
    assert peer["spec"]["nodeSelectors"] == announced["spec"]["nodeSelectors"] == chosen


# The documents' passwords, and letters that mean something to HCL, INI and YAML.
ODD = ("AIUc63$#v4LZ", "k8S!@Vcp123", 'a\\b"c;d=e', "${x}%{y}$${z}", "ä: \t# '[]")


@pytest.mark.parametrize("password", ODD)
def test_any_password_goes_through_every_file_unchanged(password: str) -> None:
    center = Center("vc", datacenters=("DC",), credentials=lambda: Credentials("u@d", password))
    workspace = configuration.Workspace("main", (center,), datacenter="DC")
    again = parse(documents.vsphere_conf(workspace, secrets=True))
    assert again.home.credentials() == Credentials("u@d", password)
    made = documents.secret(workspace, "vcc", "kube-system", secrets=True)
    content = yaml.safe_load(yaml.safe_dump(made))["stringData"]
    assert configuration.from_secret(content, "vc", "") == Credentials("u@d", password)
    values = dict.fromkeys(documents.PACKER, "x") | {"vcenter_password": password}
    text = documents.packer(values)
    assert documents.read_packer(text, "file") == values


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ('vcenter_password = "k8S\\!"', "escape"),
        ('vcenter_password = "k8S${var.x}"', "template"),
        ('vcenter_pasword = "x"', "did you mean vcenter_password"),
        ("vcenter_password = x", 'no name = "value"'),
        ('vcenter_password = "x"', "missing: vcenter_server"),
    ],
)
def test_what_is_wrong_in_an_image_builds_file_is_named_without_the_password(
    line: str, said: str
) -> None:
    with pytest.raises(errors.Invalid, match=said) as caught:
        documents.read_packer(f"# made by hand\n{line}  // as agreed\n", "my.pkrvars.hcl")
    assert "k8S" not in str(caught.value)
    assert "my.pkrvars.hcl" in str(caught.value)


def test_sizes_are_read_as_govc_writes_them() -> None:
    assert preparing.parse_size("10G") == 10 << 30
    assert preparing.parse_size("512M") == 512 << 20
    with pytest.raises(errors.Invalid):
        preparing.parse_size("ten")
